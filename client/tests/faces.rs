//! Each face builds without the other, and the synchronous one without tokio.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs cargo on this package with one face; `None` where there is no cargo to run, as for an
/// ordinary user who was only handed the test programs.
fn cargo(arguments: &[&str], face: &str) -> Option<Output> {
    let cargo = env!("CARGO");
    if !Command::new(cargo)
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success())
    {
        eprintln!("skipped: {cargo} can't be run here");
        return None;
    }
    let run = Command::new(cargo)
        .args(arguments)
        .args(["--offline", "--no-default-features", "--features", face])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("CARGO_TARGET_DIR", target())
        .output();
    Some(run.expect("cargo runs"))
}

/// A directory of its own, so that this build and the one that runs the tests don't wait for one
/// another.
fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faces")
}

fn packages(face: &str) -> Option<Vec<String>> {
    let tree = [
        "tree", "--edges", "normal", "--prefix", "none", "--format", "{p}",
    ];
    let run = cargo(&tree, face)?;
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let text = String::from_utf8(run.stdout).expect("cargo prints text");
    Some(
        text.lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect(),
    )
}

#[test]
fn the_synchronous_face_needs_no_runtime() {
    let (Some(sync), Some(both)) = (packages("sync"), packages("async,sync")) else {
        return;
    };
    let has = |packages: &[String], name: &str| packages.iter().any(|each| each == name);
    assert!(has(&both, "tokio") && has(&both, "socket2"), "{both:?}");
    assert!(
        has(&sync, "socket2") && has(&sync, "ringway-wire"),
        "{sync:?}"
    );
    for runtime in ["tokio", "mio", "futures", "async-std", "smol"] {
        assert!(!has(&sync, runtime), "{runtime}: {sync:?}");
    }
}

/// One test, because builds of one directory wait for one another.
#[test]
fn each_face_builds_without_the_other() {
    for face in ["sync", "async"] {
        let Some(run) = cargo(&["check", "--quiet", "--lib"], face) else {
            return;
        };
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.success() && errors.is_empty(),
            "{face}: {errors}"
        );
    }
}
