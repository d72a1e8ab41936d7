//! The power cut under load, on a disk that forgets what no sync has covered: nothing that was
//! acknowledged is lost, on journalled ext4 and on XFS.

use std::time::{Duration, Instant};

use ringway_testing::{DiskOptions, Faults, FileSystem, Need, PowerCutDisk, Random, require};

use crate::load::{Load, LoadOptions, Mood};
use crate::plain::{PATIENCE, metric, wait_until};
use crate::site::{Site, alone, scratch, variable};

/// `RINGWAY_CRASH_CUTS` sets how often the power is cut on both file systems together.
const CUTS: u64 = 10;
/// The lowest step of the segment ladder: a roll every few records.
const SEGMENT_BYTES: u64 = 64 << 10;
/// A segment and what is written: whatever is sealed goes soon.
const RETENTION_BYTES: u64 = 64 << 10;
/// Room for some hundred cuts; only what is written takes space.
const IMAGE_BYTES: u64 = 2 << 30;

#[test]
fn a_power_cut_under_load_loses_nothing_on_ext4() {
    cut_under_load(FileSystem::Ext4, None);
}

#[test]
fn a_power_cut_under_load_loses_nothing_on_xfs() {
    cut_under_load(FileSystem::Xfs, None);
}

/// Segments are removed and used again all the time: a name or a checkpoint that the cut takes back
/// must bring nothing back, and cost nothing that was to stay.
#[test]
fn a_power_cut_while_retention_removes_segments_loses_nothing_else() {
    cut_under_load(FileSystem::Ext4, Some(RETENTION_BYTES));
}

/// What a disk needs of the machine.
pub(crate) fn needs(file_system: FileSystem) -> [Need; 4] {
    let mkfs = match file_system {
        FileSystem::Xfs => Need::MkfsXfs,
        _ => Need::MkfsExt4,
    };
    [Need::Mounts, Need::Fuse, Need::Loop, mkfs]
}

/// Half of all cuts.
fn cut_under_load(file_system: FileSystem, retention_bytes: Option<u64>) {
    if !require(&needs(file_system)) {
        return;
    }
    let _alone = alone();
    let half = u64::from(file_system == FileSystem::Xfs);
    let cuts = (variable("RINGWAY_CRASH_CUTS", CUTS) + half) / 2;
    let seed = variable("RINGWAY_CRASH_SEED", 1) * 100 + 50 + half;
    let kind = if retention_bytes.is_some() { "r" } else { "" };
    let scratch = scratch(&format!("cut-{half}{kind}"));
    let options = DiskOptions {
        image_bytes: IMAGE_BYTES,
        ..DiskOptions::new(file_system)
    };
    let mut disk = PowerCutDisk::new(&scratch, options).unwrap();
    let mut site = Site::new(&scratch, &disk.path().join("data"));
    site.start(1);
    let options = LoadOptions {
        seed,
        producers: 2,
        segment_bytes: SEGMENT_BYTES,
        retention_bytes,
    };
    let load = Load::start(&site.address(), options);
    let mut random = Random::new(seed);
    let (mut hits, mut lone_rounds, mut flushes) = (0, 0, 0);
    for cut in 1..=cuts {
        disk.inject(delays(&mut random));
        let lone = cut % 3 == 0;
        load.set(if lone { Mood::Lone } else { Mood::Wide });
        load.wait_for(10 + random.below(if lone { 40 } else { 600 }) as usize);
        let admin = site.broker().admin();
        if retention_bytes.is_some() && cut % 2 == 1 {
            // The first checkpoint of its life lets them go.
            load.set(Mood::Wide);
            wait_until("segments go", || {
                metric(admin, "removed_segments_total") > 0
            });
        }
        flushes += metric(admin, "device_syncs_total");
        lone_rounds += metric(admin, "commit_rounds_total")
            .saturating_sub(metric(admin, "device_syncs_total"));
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        let fate = random.next_u64();
        if cut % 4 != 0 {
            wait_closely("the cut would hit something", || {
                disk.foresee(fate).dropped_sectors > 0
            });
        }
        let report = disk.power_off(fate);
        site.kill();
        disk.power_on().unwrap();
        hits += u64::from(report.dropped_sectors > 0);
        site.start(1 + (cut % 2) as u32);
        if cut % 2 == 0 {
            load.set(Mood::Quiet);
        }
        let when = format!("after cut {cut} on {file_system}, seed {seed}, {report}");
        load.verify(&when);
        println!("{when}: {} acknowledged", load.acknowledged());
    }
    let trimmed = load.trimmed();
    load.finish_after_cuts();
    assert_eq!(trimmed > 0, retention_bytes.is_some(), "{trimmed} trimmed");
    assert!(
        hits * 2 >= cuts,
        "only {hits} of {cuts} cuts came between a write and its sync"
    );
    assert!(lone_rounds > 0, "no lone durable write before any cut");
    assert!(flushes > 0, "no flush before any cut");
}

/// Waits for something that comes and goes within a millisecond.
fn wait_closely(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Without delays few cuts would come between a write and its sync.
fn delays(random: &mut Random) -> Faults {
    let mut up_to = || Duration::ZERO..Duration::from_micros(200 + random.below(1_800));
    Faults {
        write_delay: up_to(),
        sync_delay: up_to(),
        ..Faults::default()
    }
}
