//! Cargo features unify over a user's whole build, so somebody else may ask rkyv for other formats
//! than ours. The batch must keep its bytes then, or the build must fail; never change them. This is
//! also the build without zstd: the tests' own has every codec.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the crate in `features/` with a feature, in a directory of its own. The workspace's lock
/// file goes along, so that nothing is needed that the workspace's own build did not fetch.
fn build_and_run(feature: &str) -> Output {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("features");
    let package = scratch.join("package");
    std::fs::create_dir_all(package.join("src")).unwrap();
    std::fs::copy(wire.join("../Cargo.lock"), package.join("Cargo.lock")).unwrap();
    let manifest = std::fs::read_to_string(wire.join("tests/features/Cargo.toml")).unwrap();
    let path = |relative: &str| format!("{:?}", wire.join(relative));
    let manifest = manifest.replace("\"../..\"", &path(""));
    std::fs::write(package.join("Cargo.toml"), manifest).unwrap();
    let main = std::fs::read_to_string(wire.join("tests/features/src/main.rs")).unwrap();
    let main = main.replace(
        "\"../../support/samples.rs\"",
        &path("tests/support/samples.rs"),
    );
    std::fs::write(package.join("src/main.rs"), main).unwrap();
    Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--features", feature, "--"])
        .arg(wire.join("tests/golden/batch-zstd.hex"))
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .output()
        .unwrap()
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// What a reader is told that can't read.
const LEFT_OUT: &str = "the records are compressed with zstd, which this build leaves out: \
                        build the Ringway crates with their feature `zstd`";

/// One test, because both builds share a directory and what they have in common.
#[test]
fn other_formats_of_rkyv_leave_the_bytes_alone_or_do_not_compile() {
    let output = build_and_run("other-formats");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (native, batches) = text.split_once('\n').unwrap();
    assert_eq!(
        native, "integer [0, 0, 0, 1] pointer 8",
        "rkyv was to be built otherwise"
    );
    let expected = format!(
        "stamped\n{}typed\n{}{LEFT_OUT}\n",
        golden("batch-stamped.hex"),
        golden("batch-typed.hex")
    );
    assert_eq!(batches, expected);

    let output = build_and_run("unaligned");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it compiled");
    assert!(errors.contains("could not compile `rkyv`"), "{errors}");
}
