//! Disks that fill up, fail, hang or forget a bit: each has its named state and its clear error,
//! what isn't touched by it goes on, and what can heal heals.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use ringway_client::{ConsumeError, ErrorCode, ProduceError};
use ringway_testing::{
    DiskError, DiskOptions, Faults, FileSystem, LoopFs, LoopFsOptions, Need, PowerCutDisk, require,
    sys,
};

use crate::plain::{Pass, Plain, page, states, wait_until};
use crate::power_cut::needs;
use crate::site::{Site, alone, scratch};

const SEGMENT_BYTES: u64 = 64 << 10;
/// A delivery time-out for records that are expected to fail.
const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_secs(3_600);

/// A value that occurs once, of 1,000 bytes.
fn value(number: usize) -> Vec<u8> {
    let mut value = format!("record {number:06} ").into_bytes();
    value.resize(1_000, b'a' + (number % 26) as u8);
    value
}

/// Sends so many records, each in a batch of its own, and expects them to be acknowledged.
fn fill(plain: &Plain, topic: &str, partition: u32, numbers: std::ops::Range<usize>) {
    for number in numbers {
        plain.produce(topic, partition, &value(number)).unwrap();
    }
}

fn values(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(value).collect()
}

fn code(error: &ProduceError) -> Option<ErrorCode> {
    error.code()
}

#[test]
fn a_full_disk_stops_appends_with_a_clear_error_and_heals() {
    if !require(&[Need::Mounts, Need::Loop, Need::MkfsExt4]) {
        return;
    }
    let _alone = alone();
    let scratch = scratch("full");
    let disk = LoopFs::new(&scratch, LoopFsOptions::new(FileSystem::Ext4, 96 << 20)).unwrap();
    let mut site = Site::new(&scratch, &disk.path().join("data"));
    site.start(1);
    let admin = site.broker().admin();
    let plain = Plain::connect(&site.address(), SOON);
    plain.create("t", 1, SEGMENT_BYTES);
    fill(&plain, "t", 0, 0..20);
    let filler = disk.path().join("filler");
    take_all_space(&filler);
    let mut acknowledged = 20;
    let error = loop {
        match plain.produce("t", 0, &value(acknowledged)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "the disk is never full");
    };
    let said = error.to_string();
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!(states(admin, "t"), ["full"]);
    assert_eq!(
        read_acknowledged(&plain, acknowledged),
        values(0..acknowledged)
    );
    std::fs::remove_file(&filler).unwrap();
    // The record that was given up may have been appended all the same.
    wait_until("it heals", || plain.produce("t", 0, b"healed").is_ok());
    assert_eq!(states(admin, "t"), ["ready"]);
    fill(&plain, "t", 0, 900_000..900_200);
    let check = |plain: &Plain| {
        let all = plain.read("t", 0).values();
        assert_eq!(all[..acknowledged], values(0..acknowledged));
        assert_eq!(all[all.len() - 200..], values(900_000..900_200));
        all
    };
    let all = check(&plain);
    site.kill();
    site.start(1);
    assert_eq!(check(&Plain::connect(&site.address(), SOON)), all);
}

/// What was acknowledged; a record whose outcome is not known may follow.
fn read_acknowledged(plain: &Plain, count: usize) -> Vec<Vec<u8>> {
    let mut all = plain.read("t", 0).values();
    all.truncate(count);
    all
}

/// Leaves nothing, down to the last block.
fn take_all_space(path: &Path) {
    let file = File::create(path).unwrap();
    let mut end = 0;
    for step in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
        while sys::allocate(&file, end + step).is_ok() {
            end += step;
        }
    }
    file.sync_all().unwrap();
}

/// The segments of a topic's partition, in the order of their offsets.
fn segments(data_dir: &Path, partition: u32) -> Vec<PathBuf> {
    let topics = std::fs::read_dir(data_dir.join("topics")).unwrap();
    let mut found: Vec<PathBuf> = topics
        .map(|topic| topic.unwrap().path().join(partition.to_string()))
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| path.file_stem().is_some_and(|name| name != "next"))
        .collect();
    found.sort();
    found
}

#[test]
fn a_write_error_fails_one_partition_and_the_others_go_on() {
    if !require(&needs(FileSystem::Ext4)) {
        return;
    }
    let _alone = alone();
    let scratch = scratch("eio");
    let disk = PowerCutDisk::new(&scratch, DiskOptions::ext4()).unwrap();
    let data_dir = disk.path().join("data");
    let mut site = Site::new(&scratch, &data_dir);
    site.start(1);
    let admin = site.broker().admin();
    let plain = Plain::connect(&site.address(), SOON);
    plain.create("t", 2, 1 << 20);
    for partition in [0, 1] {
        fill(&plain, "t", partition, 0..10);
    }
    let segment = segments(&data_dir, 0).pop().unwrap();
    disk.inject(Faults {
        write_error: Some(DiskError::Io),
        write_error_in: Some(disk.extents(&segment).unwrap()),
        ..Faults::default()
    });
    let error = plain.produce("t", 0, &value(10)).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::StorageFailed), "{error}");
    assert!(error.to_string().contains("t/0"), "{error}");
    let error = plain.produce("t", 0, &value(11)).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::StorageFailed), "{error}");
    fill(&plain, "t", 1, 10..30);
    let states = states(admin, "t");
    assert!(states[0].starts_with("failed"), "{states:?}");
    assert_eq!(states[1], "ready");
    assert_eq!(plain.read("t", 0).values(), values(0..10));
    assert_eq!(plain.read("t", 1).values(), values(0..30));
    disk.heal();
    site.kill();
    site.start(1);
    let plain = Plain::connect(&site.address(), SOON);
    plain.produce("t", 0, b"again").unwrap();
    let all = plain.read("t", 0).values();
    assert_eq!(all[..10], values(0..10));
    assert_eq!(all.last().unwrap(), b"again");
}

/// One flush fails, whichever kind of commit round it belonged to. Whatever any shard has written
/// and not yet flushed may be gone, so none may acknowledge anything any more.
fn a_failed_flush_stops_every_shard(name: &str, lone: bool) {
    if !require(&needs(FileSystem::Ext4)) {
        return;
    }
    let _alone = alone();
    let scratch = scratch(name);
    let mut disk = PowerCutDisk::new(&scratch, DiskOptions::ext4()).unwrap();
    let mut site = Site::new(&scratch, &disk.path().join("data"));
    site.start(2);
    let admin = site.broker().admin();
    let plain = Plain::connect(&site.address(), SOON);
    plain.create("t", 8, 1 << 20);
    for partition in 0..8 {
        fill(&plain, "t", partition, 0..10);
    }
    disk.inject(Faults {
        sync_error: Some(DiskError::Io),
        ..Faults::default()
    });
    let failing = if lone { 0..1 } else { 0..8 };
    let deliveries: Vec<_> = failing
        .map(|partition| plain.send("t", partition, &value(10)))
        .collect();
    for delivery in deliveries {
        let error = plain.run(delivery).unwrap_err();
        assert_eq!(code(&error), Some(ErrorCode::StorageFailed), "{error}");
    }
    // The next flush would succeed; what it flushes is not all that was written.
    disk.heal();
    let refused = |partition| {
        let produced = plain.produce("t", partition, &value(11));
        produced.is_err_and(|error| code(&error) == Some(ErrorCode::StorageFailed))
    };
    wait_until("no shard acknowledges any more", || (0..8).all(refused));
    assert_ne!(page(admin, "/healthz"), "serving\n");
    for partition in 0..8 {
        assert_eq!(plain.read("t", partition).values(), values(0..10));
    }
    disk.power_off(1);
    site.kill();
    disk.power_on().unwrap();
    site.start(2);
    let plain = Plain::connect(&site.address(), SOON);
    for partition in 0..8 {
        plain.produce("t", partition, b"again").unwrap();
        let all = plain.read("t", partition).values();
        assert_eq!(all[..10], values(0..10));
    }
}

#[test]
fn a_failed_shared_flush_stops_every_shard() {
    a_failed_flush_stops_every_shard("flush", false);
}

#[test]
fn a_failed_flush_of_a_lone_write_stops_every_shard() {
    a_failed_flush_stops_every_shard("lone-flush", true);
}

#[test]
fn a_broker_waits_for_the_last_writes_of_a_killed_one() {
    if !require(&needs(FileSystem::Xfs)) {
        return;
    }
    let _alone = alone();
    let scratch = scratch("in-flight");
    let disk = PowerCutDisk::new(&scratch, DiskOptions::xfs()).unwrap();
    let mut site = Site::new(&scratch, &disk.path().join("data"));
    site.start(1);
    let plain = Plain::connect(&site.address(), NEVER);
    plain.create("t", 1, 1 << 20);
    fill(&plain, "t", 0, 0..10);
    disk.inject(Faults {
        write_delay: NEVER..NEVER + Duration::from_secs(1),
        ..Faults::default()
    });
    let before = disk.counters().delayed;
    let hanging = plain.send("t", 0, &value(10));
    wait_until("the write hangs", || disk.counters().delayed > before);
    site.kill();
    let options = site.options(1);
    let (sender, started) = mpsc::channel();
    let starting = std::thread::spawn(move || sender.send(options.start()).is_ok());
    let early = started.recv_timeout(Duration::from_secs(3));
    assert!(
        early.is_err(),
        "a broker took the directory while another's write was in flight: {early:?}"
    );
    disk.heal();
    let second = started.recv().unwrap().unwrap();
    assert!(starting.join().unwrap());
    let log = second.log();
    assert!(log.contains("waiting for the last writes"), "{log}");
    // The same producer goes on where it was: its record is there once.
    plain.run(hanging).unwrap();
    assert_eq!(plain.read("t", 0).values(), values(0..11));
}

#[test]
fn a_flipped_byte_is_reported_and_never_served() {
    let _alone = alone();
    let scratch = scratch("flip");
    let data_dir = scratch.path().join("data");
    let mut site = Site::new(&scratch, &data_dir);
    site.start(1);
    let plain = Plain::connect(&site.address(), SOON);
    plain.create("t", 2, SEGMENT_BYTES);
    for partition in [0, 1] {
        fill(&plain, "t", partition, 0..200);
    }
    drop(plain);
    site.kill();
    let files = segments(&data_dir, 0);
    assert!(files.len() > 2, "there are sealed segments: {files:?}");
    let damaged = [3, 90, 150];
    for number in damaged {
        flip(&files, &value(number));
    }
    site.start(1);
    let admin = site.broker().admin();
    let plain = Plain::connect(&site.address(), SOON);
    let pass = plain.read("t", 0);
    check_damage(&pass, &damaged);
    assert!(crate::plain::metric(admin, "damaged_batches_total") > 0);
    assert_eq!(plain.read("t", 1).values(), values(0..200));
    plain.produce("t", 1, b"goes on").unwrap();
}

/// Every record but those that are damaged, and one error for each of these.
fn check_damage(pass: &Pass, damaged: &[usize]) {
    let found: Vec<usize> = pass
        .errors
        .iter()
        .map(|error| match error {
            ConsumeError::Damaged {
                topic,
                partition,
                offset,
                safe_offset,
                ..
            } => {
                assert_eq!((&**topic, partition.0), ("t", 0), "{error}");
                assert_eq!(safe_offset.0, offset.0 + 1, "{error}");
                offset.0 as usize
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(found, damaged);
    let expected: Vec<_> = (0..200)
        .filter(|number| !damaged.contains(number))
        .map(|number| (number as u64, value(number)))
        .collect();
    assert!(pass.records == expected, "other records than were sent");
}

/// Flips a bit in the middle of a value, wherever it lies.
fn flip(files: &[PathBuf], value: &[u8]) {
    for path in files {
        let bytes = std::fs::read(path).unwrap();
        let Some(at) = bytes.windows(20).position(|piece| piece == &value[..20]) else {
            continue;
        };
        let at = at + value.len() / 2;
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
        file.sync_all().unwrap();
        return;
    }
    panic!("the record is in no segment");
}
