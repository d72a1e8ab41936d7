//! Runs the broker of this workspace as a process, for tests that hold programs against it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Ringway, signal};

/// The broker's binary beside ours. A run of this package's tests alone doesn't build it.
fn binary() -> PathBuf {
    let ours = Path::new(env!("CARGO_BIN_EXE_ringway"));
    let path = ours.with_file_name("ringway-broker");
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "--package",
        "ringway-broker",
        "--bin",
        "ringway-broker",
    ]);
    if ours
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
    {
        build.arg("--release");
    }
    if !path.exists() {
        assert!(
            build.status().expect("cargo runs").success(),
            "the broker is built"
        );
    }
    path
}

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
}

impl Broker {
    /// Starts one on ports that the kernel chooses and waits until it is ready.
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["start", "--shards", "2", "--listen", "127.0.0.1:0"])
            .args([
                "--admin-listen",
                "127.0.0.1:0",
                "--log-level",
                "error",
                "--data-dir",
            ])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says when it is ready");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let address = ready["listen"].as_str().expect("its address").to_owned();
        let admin = ready["admin"].as_str().expect("its admin").to_owned();
        Self {
            child,
            address,
            admin,
        }
    }

    pub(crate) fn ringway(&self) -> Ringway {
        Ringway::new(&self.address)
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(mut self) {
        signal(&self.child, "TERM");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // After a failed test; one that was stopped is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An empty directory on the disk that the build is on.
pub(crate) fn data(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a directory for the test");
    path
}
