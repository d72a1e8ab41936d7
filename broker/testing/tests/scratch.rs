//! Scratch directories and the sweep: what a killed run leaves behind is cleaned up by the next,
//! and what a living one uses is left alone. Runs itself as a child to have something to kill.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringway_testing::{
    BrokerOptions, DiskOptions, Faults, FileSystem, LoopFs, LoopFsOptions, Need, PowerCutDisk,
    Scratch, require,
};

/// Set for the child: the scratch root that it is to litter.
const VICTIM: &str = "RINGWAY_TESTING_VICTIM";
const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-in-broker.sh");
const NEEDS: [Need; 4] = [Need::Mounts, Need::Fuse, Need::Loop, Need::MkfsExt4];

#[test]
fn a_directory_is_unique_and_goes_with_its_last_user() {
    let root = env!("CARGO_TARGET_TMPDIR");
    let first = Scratch::new(root, "unique").unwrap();
    let second = Scratch::new(root, "unique").unwrap();
    assert_ne!(first.path(), second.path());
    let clone = first.clone();
    let path = first.path().to_owned();
    std::fs::write(first.create_dir("child").unwrap().join("file"), "x").unwrap();
    drop(first);
    assert!(path.exists());
    drop(clone);
    assert!(!path.exists());
}

#[test]
fn a_panic_cleans_up_too() {
    if !require(&NEEDS) {
        return;
    }
    let outer = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "panic").unwrap();
    let root = outer.create_dir("root").unwrap();
    let inner = root.clone();
    let panicking = std::thread::spawn(move || {
        let scratch = Scratch::new(&inner, "panic").unwrap();
        let disk = PowerCutDisk::new(&scratch, DiskOptions::ext4()).unwrap();
        let _open = File::create_new(disk.path().join("open")).unwrap();
        std::fs::write(disk.path().join("unsynced"), vec![1; 1 << 20]).unwrap();
        panic!("on purpose");
    });
    assert!(panicking.join().is_err());
    assert_clean(&root);
}

#[test]
fn what_a_killed_run_has_left_is_swept_up() {
    if let Some(root) = std::env::var_os(VICTIM) {
        return litter(Path::new(&root));
    }
    if !require(&NEEDS) {
        return;
    }
    let outer = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "sweep").unwrap();
    let root = outer.create_dir("root").unwrap();
    let mut living = Victim::start(&root);
    let mut dead = Victim::start(&root);
    assert_eq!((directories(&root), mounts_under(&root)), (2, 6));
    dead.process.kill().unwrap();
    assert!(
        runs(dead.broker),
        "nothing but the sweep ends a killed run's broker"
    );

    // Any use of the root by another process sweeps it first.
    let scratch = Scratch::new(&root, "sweeper").unwrap();
    dead.process.wait().unwrap();
    wait_until_gone(dead.broker);
    assert!(runs(living.broker), "the broker of a living run was killed");
    assert_eq!((directories(&root), mounts_under(&root)), (2, 3));
    drop(scratch);

    // And one that ends in peace leaves nothing.
    drop(living.process.stdin.take());
    assert!(living.process.wait().unwrap().success());
    assert!(!runs(living.broker));
    assert_clean(&root);
}

/// A run of this very test that has made one of everything.
struct Victim {
    process: Child,
    broker: u32,
}

impl Victim {
    fn start(root: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "what_a_killed_run_has_left_is_swept_up",
            "--nocapture",
        ]);
        command
            .env(VICTIM, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut littered = lines.filter_map(|line| line.strip_prefix("littered ")?.parse().ok());
        let broker = littered
            .next()
            .expect("the child says when it has littered");
        // The pipe stays open, or the child's own last words would fail it.
        std::thread::spawn(move || littered.count());
        Self { process, broker }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child does: makes one of everything, says so, and waits to be killed, or for the end
/// of its input.
fn litter(root: &Path) {
    let scratch = Scratch::new(root, "victim").unwrap();
    let disk = PowerCutDisk::new(&scratch, DiskOptions::ext4()).unwrap();
    let fs = LoopFs::new(&scratch, LoopFsOptions::new(FileSystem::Ext4, 16 << 20)).unwrap();
    let file = File::create_new(disk.path().join("file")).unwrap();
    file.write_all_at(&[1; 100_000], 0).unwrap();
    // A thread that waits for the disk that this very process serves: without the sweep a killed
    // process would stay for ever.
    let hour = Duration::from_secs(3600);
    disk.inject(Faults {
        sync_delay: hour..hour,
        ..Faults::default()
    });
    let waiting = std::thread::spawn(move || file.sync_all());
    while disk.counters().delayed == 0 {
        std::thread::yield_now();
    }
    let broker = BrokerOptions::new(STAND_IN, &scratch)
        .data_dir(fs.path())
        .start()
        .unwrap();
    println!("\nlittered {}", broker.pid());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    drop((broker, fs, disk));
    assert!(waiting.join().unwrap().is_err());
}

fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mounts_under(root: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.contains(&format!(" {}/", root.display())))
        .count()
}

fn directories(root: &Path) -> usize {
    let entries = std::fs::read_dir(root).unwrap().flatten();
    entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .count()
}

fn assert_clean(root: &Path) {
    assert_eq!((directories(root), mounts_under(root)), (0, 0));
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let backing = devices.map(|device| device.path().join("loop/backing_file"));
    let files: Vec<PathBuf> = backing
        .filter_map(|file| std::fs::read_to_string(file).ok().map(PathBuf::from))
        .collect();
    assert!(
        !files.iter().any(|file| file.starts_with(root)),
        "{files:?}"
    );
}
