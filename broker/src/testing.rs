//! What the unit tests share.

use ringway_testing::Scratch;

/// A directory for one test below the build's own, which is on a real disk.
pub(crate) fn scratch(name: &str) -> Scratch {
    let executable = std::env::current_exe().expect("a test has an executable");
    let target = executable
        .ancestors()
        .nth(3)
        .expect("it lies in target/PROFILE/deps");
    Scratch::new(target.join("tmp"), name).expect("scratch directories can be made")
}
