//! Scratch directories, and file systems on loop devices: made and mounted with options that no
//! broker should meet, so that the pre-flight can be seen to notice.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringway_testing::Scratch;

/// A directory that is removed when dropped, with whatever is still mounted in it.
pub(crate) fn scratch() -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), "preflight").unwrap()
}

/// A sparse image on a loop device.
struct LoopDevice(PathBuf);

impl LoopDevice {
    /// 320 MiB: the least that `mkfs.xfs` takes is 300.
    const BYTES: u64 = 320 << 20;

    fn new(image: &Path) -> Self {
        std::fs::File::create(image)
            .unwrap()
            .set_len(Self::BYTES)
            .unwrap();
        let name = run("losetup", &["--find", "--show", text(image)]);
        Self(name.trim().into())
    }

    fn name(&self) -> &str {
        text(&self.0)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .args(["--detach", self.name()])
            .status();
    }
}

/// A mounted file system with a device of its own, and a second device for an outside journal.
pub(crate) struct Volume {
    directory: PathBuf,
    // Dropped in this order, after the unmount in `drop`.
    _device: LoopDevice,
    _second: Option<LoopDevice>,
    _scratch: Scratch,
}

impl Volume {
    /// Makes and mounts a file system. In the words of `mkfs` and `options`, `SECOND` stands for
    /// a second device, made ready by `prepare_second` (a command line, may be empty).
    pub(crate) fn new(mkfs: &str, options: &str, prepare_second: &str) -> Self {
        let scratch = scratch();
        let device = LoopDevice::new(&scratch.path().join("image"));
        let wants_second = mkfs.contains("SECOND") || options.contains("SECOND");
        let second = wants_second.then(|| LoopDevice::new(&scratch.path().join("second")));
        let second_name = second.as_ref().map_or("", LoopDevice::name);
        let line = |words: &str| words.replace("SECOND", second_name);
        if !prepare_second.is_empty() {
            run_line(&format!("{prepare_second} {second_name}"));
        }
        run_line(&format!("{} {}", line(mkfs), device.name()));
        let directory = scratch.path().join("mounted");
        std::fs::create_dir(&directory).unwrap();
        run(
            "mount",
            &["-o", &line(options), device.name(), text(&directory)],
        );
        Self {
            directory,
            _device: device,
            _second: second,
            _scratch: scratch,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.directory).status();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn run_line(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    run(program, &words.collect::<Vec<_>>())
}

/// Runs a program to success and returns its output.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
