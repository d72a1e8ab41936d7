//! The proof of the proof: a small writer process with a broker's manners (direct writes into
//! zero-filled files, one sync of an anchor, then the acknowledgement) loses nothing when the
//! power is cut under it, and one with a broker's possible mistakes is found out.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ringway_testing::{
    DiskOptions, Faults, FileSystem, Need, PowerCutDisk, Random, Scratch, require, sys,
};

/// Set for the child: its manners, and the directory to write to.
const MANNERS: &str = "RINGWAY_TESTING_MANNERS";
const DIRECTORY: &str = "RINGWAY_TESTING_DIRECTORY";
const O_DIRECT: i32 = 0o40000;
const RECORD_BYTES: usize = 4096;
/// More than a writer gets done before its power is cut.
const RECORDS_MAX: u64 = 1024;
const FILES: u64 = 2;
const CUTS: u64 = 10;
/// Each cut finds a mistake out about every other time.
const CUTS_UNTIL_FOUND_OUT_MAX: u64 = 60;

const SYNC_THEN_ACKNOWLEDGE: &str = "sync-then-acknowledge";
const DSYNC_THEN_ACKNOWLEDGE: &str = "dsync-then-acknowledge";
const NO_SYNC: &str = "no-sync";
const ACKNOWLEDGE_THEN_SYNC: &str = "acknowledge-then-sync";
const SYNC_BESIDE_THE_WRITE: &str = "sync-beside-the-write";

#[repr(align(4096))]
struct Record([u8; RECORD_BYTES]);

impl Record {
    fn new(file: u64, number: u64) -> Box<Self> {
        let mut random = Random::for_item(file, &[number]);
        let mut record = Box::new(Self([0; RECORD_BYTES]));
        record.0.fill_with(|| random.next_u64() as u8);
        record
    }
}

#[test]
fn good_manners_lose_nothing_on_ext4() {
    good_manners_lose_nothing(FileSystem::Ext4);
}

#[test]
fn good_manners_lose_nothing_on_xfs() {
    good_manners_lose_nothing(FileSystem::Xfs);
}

#[test]
fn each_mistake_is_found_out_on_ext4() {
    each_mistake_is_found_out(FileSystem::Ext4);
}

#[test]
fn each_mistake_is_found_out_on_xfs() {
    each_mistake_is_found_out(FileSystem::Xfs);
}

fn good_manners_lose_nothing(file_system: FileSystem) {
    for manners in [SYNC_THEN_ACKNOWLEDGE, DSYNC_THEN_ACKNOWLEDGE] {
        let Some((_scratch, mut disk)) = disk(file_system, manners) else {
            return;
        };
        // Enough cuts that one came between a write and its sync; a durable write alone leaves
        // hardly a moment for it.
        let enough = |disk: &PowerCutDisk, seed| {
            let dropped = disk.counters().dropped_sectors > 0;
            seed >= CUTS && (dropped || manners == DSYNC_THEN_ACKNOWLEDGE)
        };
        let mut seed = 0;
        while !enough(&disk, seed) {
            assert!(seed < CUTS_UNTIL_FOUND_OUT_MAX, "no cut hit anything");
            assert_eq!(
                lost_by_a_cut(&mut disk, manners, seed),
                0,
                "{manners}, seed {seed}"
            );
            seed += 1;
        }
    }
}

fn each_mistake_is_found_out(file_system: FileSystem) {
    for manners in [NO_SYNC, ACKNOWLEDGE_THEN_SYNC, SYNC_BESIDE_THE_WRITE] {
        let Some((_scratch, mut disk)) = disk(file_system, manners) else {
            return;
        };
        let found_out =
            (0..CUTS_UNTIL_FOUND_OUT_MAX).find(|seed| lost_by_a_cut(&mut disk, manners, *seed) > 0);
        assert!(found_out.is_some(), "{manners}");
    }
}

fn disk(file_system: FileSystem, name: &str) -> Option<(Scratch, PowerCutDisk)> {
    let mkfs = if file_system == FileSystem::Xfs {
        Need::MkfsXfs
    } else {
        Need::MkfsExt4
    };
    if !require(&[Need::Mounts, Need::Fuse, Need::Loop, mkfs]) {
        return None;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap();
    let disk = PowerCutDisk::new(&scratch, DiskOptions::new(file_system)).unwrap();
    Some((scratch, disk))
}

/// How many acknowledged records a cut loses to a writer with these manners.
fn lost_by_a_cut(disk: &mut PowerCutDisk, manners: &str, seed: u64) -> usize {
    let directory = disk.path().join(format!("cut-{seed}"));
    prepare(&directory);
    // Without delays few cuts would come between a write and its sync.
    disk.inject(Faults {
        write_delay: Duration::ZERO..Duration::from_millis(2),
        sync_delay: Duration::ZERO..Duration::from_millis(2),
        ..Faults::default()
    });
    let mut writer = Writer::start(manners, &directory);
    let mut acknowledged = writer.acknowledged_at_least(10 + 5 * (seed % 10) as usize);
    let report = disk.power_off(seed);
    acknowledged.extend(writer.kill());
    disk.power_on().unwrap();
    println!("{manners}, {} acknowledged; {report}", acknowledged.len());
    acknowledged.retain(|(file, number)| !is_there(&directory, *file, *number));
    std::fs::remove_dir_all(&directory).unwrap();
    acknowledged.len()
}

/// Files as segments are, and an anchor.
fn prepare(directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    for name in (0..FILES)
        .map(|file| file.to_string())
        .chain(["anchor".to_owned()])
    {
        let mut file = File::create_new(directory.join(name)).unwrap();
        file.write_all(&vec![0; RECORD_BYTES * RECORDS_MAX as usize])
            .unwrap();
        file.sync_all().unwrap();
    }
    File::open(directory).unwrap().sync_all().unwrap();
    File::open(directory.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
}

fn is_there(directory: &Path, file: u64, number: u64) -> bool {
    let mut read = [0; RECORD_BYTES];
    let file_path = directory.join(file.to_string());
    File::open(file_path)
        .unwrap()
        .read_exact_at(&mut read, position(number))
        .unwrap();
    read == Record::new(file, number).0
}

fn position(number: u64) -> u64 {
    number * RECORD_BYTES as u64
}

/// The writer process and what it has acknowledged: (file, number of the record).
struct Writer {
    process: Child,
    acknowledged: mpsc::Receiver<(u64, u64)>,
}

impl Writer {
    fn start(manners: &str, directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_writer", "--nocapture"]);
        command
            .env(MANNERS, manners)
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let (sender, acknowledged) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines {
                let parsed = line
                    .strip_prefix("ack ")
                    .and_then(|line| line.split_once(' '));
                let Some((file, number)) = parsed else {
                    continue;
                };
                let _ = sender.send((file.parse().unwrap(), number.parse().unwrap()));
            }
        });
        Self {
            process,
            acknowledged,
        }
    }

    fn acknowledged_at_least(&mut self, count: usize) -> Vec<(u64, u64)> {
        let limit = Duration::from_secs(60);
        (0..count)
            .map(|_| self.acknowledged.recv_timeout(limit).unwrap())
            .collect()
    }

    /// Kills it; what it has acknowledged that wasn't known yet.
    fn kill(&mut self) -> Vec<(u64, u64)> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.acknowledged.iter().collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the writer process does, on one thread per file, until it is killed or its disk fails.
/// Nothing, where it isn't the child of another test.
#[test]
fn the_writer() {
    let (Ok(manners), Some(directory)) = (std::env::var(MANNERS), std::env::var_os(DIRECTORY))
    else {
        return;
    };
    let directory = Path::new(&directory);
    println!();
    std::thread::scope(|scope| {
        for file in 0..FILES {
            let manners = manners.as_str();
            scope.spawn(move || (0..RECORDS_MAX).all(|n| write(manners, directory, file, n)));
        }
    });
}

/// Writes one record; false if the disk has failed.
fn write(manners: &str, directory: &Path, name: u64, number: u64) -> bool {
    let mut options = OpenOptions::new();
    let open = options
        .write(true)
        .custom_flags(O_DIRECT)
        .open(directory.join(name.to_string()));
    let (Ok(file), Ok(anchor)) = (open, File::open(directory.join("anchor"))) else {
        return false;
    };
    let record = Record::new(name, number);
    let acknowledge = || writeln!(std::io::stdout(), "ack {name} {number}").is_ok();
    let write = || file.write_all_at(&record.0, position(number)).is_ok();
    let sync = || anchor.sync_data().is_ok();
    match manners {
        SYNC_THEN_ACKNOWLEDGE => write() && sync() && acknowledge(),
        DSYNC_THEN_ACKNOWLEDGE => {
            let written = sys::write_durably_at(&file, &record.0, position(number));
            written.is_ok_and(|bytes| bytes == RECORD_BYTES) && acknowledge()
        }
        NO_SYNC => write() && acknowledge(),
        ACKNOWLEDGE_THEN_SYNC => write() && acknowledge() && sync(),
        SYNC_BESIDE_THE_WRITE => {
            let both = std::thread::scope(|scope| {
                let writing = scope.spawn(write);
                let synced = sync();
                writing.join().unwrap() && synced
            });
            both && acknowledge()
        }
        _ => panic!("unknown manners: {manners}"),
    }
}
