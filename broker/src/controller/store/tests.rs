//! The store on a disk whose power goes at every operation, on one that is full, and on one whose
//! bits flip: what was acknowledged is there, or the start is refused; nothing else ever appears.

mod disk;

use ringway_wire::request::ConfigEntry;
use ringway_wire::{NodeId, TopicId};

use super::*;
use disk::{Disk, Random};

/// Small enough that a few commands make a snapshot.
const SNAPSHOT_AFTER: u64 = 700;

/// The command at an index, always the same: topics come, change and go, and some are refused.
fn command(index: u64) -> Command {
    let name = format!("topic-{}", index % 7);
    match index {
        1 => Command::CreateCluster { cluster_id: 5 },
        2 => Command::RegisterBroker {
            node: NodeId(1),
            incarnation: 5,
        },
        _ => match index % 4 {
            0 => Command::ReserveProducerIds { count: 10 },
            1 => Command::AlterTopic {
                name,
                config: vec![ConfigEntry {
                    key: "retention_ms".to_owned(),
                    value: format!("{index}s"),
                }],
            },
            2 => Command::DeleteTopic { name },
            _ => Command::CreateTopic {
                id: TopicId(index.into()),
                name,
                partitions: 2,
                replication_factor: 0,
                config: Vec::new(),
                created_us: 1,
            },
        },
    }
}

/// The state after the first `count` commands.
fn expected(count: u64) -> Metadata {
    let mut state = Metadata::default();
    for index in 1..=count {
        let _ = state.apply(&command(index), index);
    }
    state
}

/// Appends commands up to index `until`, in rounds of one to three, with snapshots between, and
/// returns how many were acknowledged at the end or when the disk failed.
fn work(store: &mut Store<Disk>, state: &mut Metadata, until: u64) -> u64 {
    while state.applied() < until {
        let first = state.applied() + 1;
        let last = (first + first % 3).min(until);
        let round: Vec<_> = (first..=last).map(command).collect();
        match store.append(&round) {
            Ok(index) => assert_eq!(index, first),
            Err(_) => break,
        }
        for (index, command) in (first..).zip(&round) {
            let _ = state.apply(command, index);
        }
        if store.wants_snapshot() {
            let _ = store.snapshot(state);
            store.snapshot_after(store.end.max(SNAPSHOT_AFTER));
        }
    }
    state.applied()
}

fn open(disk: &Disk) -> Result<(Store<Disk>, Metadata, Option<Cut>), OpenError> {
    let (mut store, state, cut) = Store::open(disk.clone())?;
    store.snapshot_after(SNAPSHOT_AFTER);
    Ok((store, state, cut))
}

#[test]
fn what_was_appended_is_there_at_the_next_start() {
    let disk = Disk::new();
    for until in [1, 2, 9, 10, 40, 41] {
        let (mut store, mut state, cut) = open(&disk).unwrap();
        assert_eq!(cut, None);
        assert_eq!(work(&mut store, &mut state, until), until);
        drop(store);
        let (_, state, cut) = open(&disk).unwrap();
        assert_eq!(cut, None);
        assert_eq!(state, expected(until));
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    let disk = Disk::new();
    let (mut store, mut state, _) = open(&disk).unwrap();
    work(&mut store, &mut state, 30);
    store.snapshot(&state).unwrap();
    let names = disk.names();
    assert_eq!(names, [format::log_name(31), format::snapshot_name(30)]);
    // Nothing has come since: nothing is written again.
    let operations = disk.operations();
    store.snapshot(&state).unwrap();
    assert_eq!(disk.operations(), operations);
    let (_, state, _) = open(&disk).unwrap();
    assert_eq!(state, expected(30));
}

/// Cuts the power at operation `at` of a run, twice: in the work and in the recovery after it.
fn crash_at(at: u64, seed: u64) -> bool {
    let disk = Disk::new();
    disk.cut_power_at(at, seed);
    let mut acknowledged = 0;
    if let Ok((mut store, mut state, _)) = open(&disk) {
        acknowledged = work(&mut store, &mut state, 40);
    }
    let crashed = disk.power_is_off();
    disk.restore_power();
    let mut random = Random::new(seed ^ at);
    // Some recoveries are cut short too.
    disk.cut_power_at(disk.operations() + random.below(12), seed + 1);
    let _ = open(&disk);
    disk.restore_power();

    let (mut store, mut state, _) =
        open(&disk).unwrap_or_else(|error| panic!("at {at}, seed {seed}: {error}"));
    let applied = state.applied();
    assert!(
        applied >= acknowledged,
        "at {at}, seed {seed}: {applied} of {acknowledged}"
    );
    assert_eq!(state, expected(applied), "at {at}, seed {seed}");
    assert_eq!(work(&mut store, &mut state, 60), 60, "at {at}, seed {seed}");
    drop(store);
    let (_, state, cut) = open(&disk).unwrap();
    assert_eq!((state, cut), (expected(60), None), "at {at}, seed {seed}");
    crashed
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    for seed in 0..20 {
        let mut at = 0;
        while crash_at(at, seed) {
            at += 1;
        }
        assert!(at > 60, "the work has {at} operations only");
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = || {
        let disk = Disk::new();
        disk.cut_power_at(50, 7);
        let (mut store, mut state, _) = open(&disk).unwrap();
        work(&mut store, &mut state, 40);
        disk.restore_power();
        disk.contents()
    };
    assert_eq!(run(), run());
}

/// A disk with an un-replaced log of `count` records, and the position after each.
fn plain_log(count: u64) -> (Disk, Vec<u64>) {
    let disk = Disk::new();
    let (mut store, ..) = Store::open(disk.clone()).unwrap();
    let mut ends = vec![store.end];
    for index in 1..=count {
        store.append(&[command(index)]).unwrap();
        ends.push(store.end);
    }
    (disk, ends)
}

#[test]
fn a_log_cut_anywhere_is_a_prefix() {
    let (disk, ends) = plain_log(12);
    let whole = disk.contents();
    let length = *ends.last().unwrap();
    for cut_at in ends[0]..=length {
        disk.set_contents(&whole);
        disk.clone().set_len(&format::log_name(1), cut_at).unwrap();
        let (mut store, mut state, cut) = open(&disk).unwrap();
        let records = ends.iter().filter(|end| **end <= cut_at).count() as u64 - 1;
        assert_eq!(state, expected(records), "cut at {cut_at}");
        assert_eq!(cut.is_some(), !ends.contains(&cut_at), "cut at {cut_at}");
        assert_eq!(work(&mut store, &mut state, 14), 14);
        assert_eq!(open(&disk).unwrap().1, expected(14));
    }
}

#[test]
fn a_flipped_bit_below_the_durable_end_is_refused_and_never_believed() {
    let (disk, ends) = plain_log(12);
    let whole = disk.contents();
    let length = *ends.last().unwrap();
    let tail = ends[ends.len() - 2];
    let name = format::log_name(1);
    for byte in 0..length {
        disk.set_contents(&whole);
        disk.flip(&name, byte, (byte % 8) as u32);
        match open(&disk) {
            Err(OpenError::Damaged { .. } | OpenError::Version { .. }) => {
                assert!(
                    byte < tail,
                    "byte {byte} is in the last record, which may be torn"
                );
            }
            Err(error) => panic!("byte {byte}: {error}"),
            Ok((_, state, cut)) => {
                assert!(byte >= tail, "byte {byte} was durable");
                assert_eq!(state, expected(11), "byte {byte}");
                assert!(cut.is_some_and(|cut| cut.position == tail), "byte {byte}");
            }
        }
    }
}

#[test]
fn a_record_of_another_life_is_not_taken_for_the_next() {
    let (disk, ends) = plain_log(12);
    let name = format::log_name(1);
    let mut bytes = Vec::new();
    Record {
        index: 13,
        durable_index: 0,
        prev_crc: 77,
        payload: &command(13).to_bytes(),
    }
    .encode(&mut bytes);
    disk.clone().write_at(&name, ends[12], &bytes).unwrap();
    let (_, state, cut) = open(&disk).unwrap();
    assert_eq!(state, expected(12));
    assert!(cut.is_some_and(|cut| cut.position == ends[12]));
    assert_eq!(open(&disk).unwrap().2, None, "it was cut for good");
}

#[test]
fn a_damaged_or_missing_snapshot_is_refused() {
    let disk = Disk::new();
    let (mut store, mut state, _) = open(&disk).unwrap();
    work(&mut store, &mut state, 30);
    store.snapshot(&state).unwrap();
    drop(store);
    let whole = disk.contents();
    let name = format::snapshot_name(30);
    let length = disk.read(&name).unwrap().len() as u64;
    for byte in (0..length).step_by(5) {
        disk.set_contents(&whole);
        disk.flip(&name, byte, 3);
        let error = open(&disk).unwrap_err().to_string();
        assert!(error.contains(&name), "byte {byte}: {error}");
    }
    disk.set_contents(&whole);
    disk.clone().remove(&name).unwrap();
    assert!(
        open(&disk)
            .unwrap_err()
            .to_string()
            .contains("nothing after record 0")
    );
    disk.set_contents(&whole);
    disk.clone().remove(&format::log_name(31)).unwrap();
    assert!(open(&disk).unwrap_err().to_string().contains("is gone"));
}

#[test]
fn a_full_disk_heals() {
    let disk = Disk::new();
    let (mut store, mut state, _) = open(&disk).unwrap();
    work(&mut store, &mut state, 5);
    // The last has room for the first two commands, whole.
    for room in [0, 10, 40, 150] {
        disk.fill(Some(room));
        let refused = store.append(&[command(6), command(7), command(9)]);
        assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
        disk.fill(None);
        assert_eq!(
            open(&disk).unwrap().1,
            expected(5),
            "nothing half-written stays"
        );
    }
    disk.fill(Some(100));
    assert!(matches!(store.snapshot(&state), Err(AppendError::Full(_))));
    disk.fill(None);
    assert_eq!(work(&mut store, &mut state, 20), 20);
    assert_eq!(open(&disk).unwrap().1, expected(20));
}

#[test]
fn after_a_failed_sync_nothing_is_promised_any_more() {
    let disk = Disk::new();
    let (mut store, mut state, _) = open(&disk).unwrap();
    work(&mut store, &mut state, 5);
    disk.fail_next_sync();
    let failed = store.append(&[command(6)]).unwrap_err();
    assert!(failed.to_string().contains("restart"), "{failed}");
    assert_eq!(
        store.append(&[command(6)]),
        Err(failed.clone()),
        "it isn't tried again"
    );
    assert_eq!(store.snapshot(&state), Err(failed));
    assert!(!store.wants_snapshot());
}

#[test]
fn files_of_another_version_are_refused_by_name() {
    let (disk, _) = plain_log(2);
    let name = format::log_name(1);
    disk.flip(&name, 8, 0);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, OpenError::Version { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("start the version that wrote it"),
        "{error}"
    );
}

#[test]
fn real_files_behave_alike() {
    let directory = std::env::temp_dir().join(format!("ringway-store-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let files = || DiskFiles::in_directory(&directory).unwrap();
    let (mut store, mut state, _) = Store::open(files()).unwrap();
    for index in 1..=20 {
        store.append(&[command(index)]).unwrap();
        let _ = state.apply(&command(index), index);
        if index == 10 {
            store.snapshot(&state).unwrap();
        }
    }
    let end = store.end;
    drop(store);
    std::fs::write(directory.join("snapshot-00000000000000000020.tmp"), "half").unwrap();
    let log = directory.join(format::log_name(11));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend([7; 100]);
    std::fs::write(&log, bytes).unwrap();
    let (_, state, cut) = Store::open(files()).unwrap();
    assert_eq!(state, expected(20));
    assert_eq!(cut.map(|cut| (cut.position, cut.bytes)), Some((end, 100)));
    let (_, state, cut) = Store::open(files()).unwrap();
    assert_eq!((state, cut), (expected(20), None));
    let names = files().list().unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}
