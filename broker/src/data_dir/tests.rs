//! A data directory's life: made, used again, refused when it is somebody else's.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::testing::scratch;

fn open(root: &Path) -> Result<DataDir, DataDirError> {
    DataDir::open(root, Duration::ZERO, |_, _| {})
}

const LOG: TopicPartition = TopicPartition {
    topic: TopicId(0xabc),
    partition: PartitionIndex(3),
};

#[test]
fn a_new_directory_is_made_and_used_again() {
    let scratch = scratch("fresh");
    let root = scratch.path().join("deep").join("data");
    let data_dir = open(&root).unwrap();
    assert_eq!(
        fs::read_to_string(root.join("FORMAT")).unwrap(),
        "ringway 1\n"
    );
    let pid = fs::read_to_string(root.join("lock")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    assert!(data_dir.partitions().unwrap().is_empty());
    drop(data_dir);
    open(&root).unwrap();
}

#[test]
fn a_second_broker_is_refused_by_name_and_pid() {
    let scratch = scratch("second");
    let first = open(scratch.path()).unwrap();
    let text = open(scratch.path()).unwrap_err().to_string();
    assert!(text.contains(scratch.path().to_str().unwrap()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    drop(first);
    open(scratch.path()).unwrap();
}

#[test]
fn another_process_is_waited_for_only_when_it_is_dead() {
    let scratch = scratch("process");
    drop(open(scratch.path()).unwrap());
    let lock = scratch.path().join("lock");
    let script = "exec 9<>\"$0\"; flock -x 9; echo $$ > \"$0\"; echo held; read line";
    let mut child = Command::new("sh")
        .args(["-c", script, lock.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    let wait = Duration::from_secs(60);
    let refused = DataDir::open(scratch.path(), wait, |_, _| {}).unwrap_err();
    assert!(
        matches!(&refused, DataDirError::InUse { holder, .. } if *holder == child.id().to_string()),
        "a holder that lives isn't waited for: {refused}"
    );
    child.kill().unwrap();
    DataDir::open(scratch.path(), wait, |_, _| {}).expect("a holder that is dead lets go");
    child.wait().unwrap();
}

#[test]
fn a_dead_holder_whose_writes_do_not_end_is_named() {
    let scratch = scratch("dead");
    let data_dir = open(scratch.path()).unwrap();
    // No process has this number: the largest is 2^22.
    fs::write(scratch.path().join("lock"), "99999999\n").unwrap();
    let mut told = Vec::new();
    let wait = Duration::from_millis(1_200);
    let error = DataDir::open(scratch.path(), wait, |holder, waited| {
        told.push((holder.to_owned(), waited));
    })
    .unwrap_err();
    assert!(
        matches!(error, DataDirError::StillWritten { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("99999999"), "{error}");
    assert_eq!(told.len(), 1, "{told:?}");
    drop(data_dir);
}

#[test]
fn newer_and_foreign_directories_are_refused_untouched() {
    let scratch = scratch("foreign");
    let newer = scratch.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("FORMAT"), "ringway 7\n").unwrap();
    let error = open(&newer).unwrap_err();
    assert!(
        matches!(error, DataDirError::Newer { found: 7, .. }),
        "{error}"
    );
    let older = scratch.path().join("older");
    fs::create_dir(&older).unwrap();
    fs::write(older.join("FORMAT"), "ringway 0\n").unwrap();
    let error = open(&older).unwrap_err();
    assert!(
        matches!(error, DataDirError::Older { found: 0, .. }),
        "{error}"
    );
    let foreign = scratch.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "").unwrap();
    let text = open(&foreign).unwrap_err().to_string();
    assert!(text.contains("thesis.tex"), "{text}");
    for (directory, entries) in [(newer, 1), (older, 1), (foreign, 1)] {
        assert_eq!(fs::read_dir(directory).unwrap().count(), entries);
    }
    let other = scratch.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("FORMAT"), "something else").unwrap();
    assert!(matches!(open(&other), Err(DataDirError::Foreign { .. })));
}

#[test]
fn a_new_file_system_is_no_foreign_directory() {
    let scratch = scratch("lost-found");
    let root = scratch.path().join("volume");
    fs::create_dir_all(root.join("lost+found")).unwrap();
    open(&root).unwrap();
}

#[test]
fn partitions_and_segments_are_listed_and_leftovers_are_removed() {
    let scratch = scratch("list");
    let data_dir = open(scratch.path()).unwrap();
    assert!(data_dir.segments(LOG).unwrap().is_empty());
    let layout = data_dir.layout().clone();
    create_durably(&layout.partition(LOG)).unwrap();
    for (name, bytes) in [(SegmentName::Next, 3), (SegmentName::Base(Offset(12)), 2)] {
        fs::write(layout.segment(LOG, name), vec![0; bytes]).unwrap();
    }
    fs::write(layout.segment(LOG, SegmentName::Base(Offset(2))), b"x").unwrap();
    fs::write(layout.side(LOG, Offset(2)), b"side").unwrap();
    let leftover = temporary(&layout.segment(LOG, SegmentName::Next));
    fs::write(&leftover, b"half").unwrap();
    assert_eq!(data_dir.partitions().unwrap(), [LOG]);
    let found = data_dir.segments(LOG).unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|file| (file.name, file.bytes))
        .collect();
    let base = |offset| SegmentName::Base(Offset(offset));
    assert_eq!(found, [(base(2), 1), (base(12), 2), (SegmentName::Next, 3)]);
    drop(data_dir);
    let data_dir = open(scratch.path()).unwrap();
    assert!(!leftover.exists());
    fs::write(layout.partition(LOG).join("000.log"), b"").unwrap();
    let text = data_dir.segments(LOG).unwrap_err().to_string();
    assert!(text.contains("000.log"), "{text}");
}

#[test]
fn checkpoints_of_all_shards_are_found() {
    let scratch = scratch("checkpoints");
    let data_dir = open(scratch.path()).unwrap();
    for (shard, slot) in [(0, Slot::A), (0, Slot::B), (12, Slot::B)] {
        let path = data_dir.layout().checkpoint(ShardId(shard), slot);
        let generation = u64::from(slot == Slot::B);
        let checkpoint = ringway_engine::log::Checkpoint {
            generation,
            entries: Vec::new(),
        };
        fs::write(path, checkpoint.encode()).unwrap();
    }
    let found = data_dir.checkpoints().unwrap();
    let next: Vec<_> = found
        .iter()
        .map(|(shard, slots)| (shard.0, slots.next_slot))
        .collect();
    assert_eq!(next, [(0, Slot::A), (12, Slot::A)]);
}
