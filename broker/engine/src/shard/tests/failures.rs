//! Writes, preparations and flushes that fail: nothing that isn't durable counts, the partition
//! says in which state it is, and a drain ends all the same.

use ringway_wire::ErrorCode;
use ringway_wire::Offset;

use super::rig::{LOG, Rig, io_error, log, plain, shard_config};
use crate::device::DeviceError;
use crate::shard::{Event, Note};

fn value(bytes: usize) -> Vec<u8> {
    vec![5; bytes]
}

fn states(rig: &Rig) -> Vec<String> {
    let state = |note: &Note| match note {
        Note::State { state, .. } => Some(state.clone()),
        _ => None,
    };
    rig.notes.iter().filter_map(state).collect()
}

/// A partition with a round in flight, and behind it batches that fill the segment and begin the
/// next one, which has a file.
fn two_segments_to_write() -> (Rig, u32, u32) {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    rig.produce(&plain(&[b"b"]));
    rig.run();
    let first = rig.produce(&plain(&[&value(50_000)]));
    let second = rig.produce(&plain(&[&value(50_000)]));
    rig.run();
    rig.finish_held(0, None);
    rig.run();
    assert_eq!(rig.held_kinds(), ["write", "write"]);
    (rig, first, second)
}

#[test]
fn a_write_without_space_leaves_no_gap_in_what_is_durable() {
    let (mut rig, first, second) = two_segments_to_write();
    rig.finish_held(0, Some(DeviceError::Full));
    rig.finish_held(0, None);
    rig.run();
    assert_eq!(rig.produced(first), Err(ErrorCode::StorageFull));
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFull));
    let asked = rig.seek(i64::MAX);
    rig.run();
    assert_eq!(rig.found(asked).high_watermark, Offset(2));
    assert_eq!(rig.held.len(), 0, "it is tried again later, not at once");
    rig.hold_kinds.clear();
    rig.run_for(1_000_000_000);
    assert_eq!(rig.append(&plain(&[b"c"])), Offset(4));
    assert_eq!(rig.read_from(0, 5).len(), 5);
    assert_eq!(rig.shard.counters().pending_bytes, 0);
}

#[test]
fn a_write_without_space_behind_one_that_was_made_is_tried_later() {
    let (mut rig, first, second) = two_segments_to_write();
    rig.finish_held(1, Some(DeviceError::Full));
    rig.finish_held(0, None);
    rig.run();
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFull));
    assert_eq!(rig.produced(first), Ok(Offset(2)), "it is durable");
    assert_eq!(rig.held.len(), 0, "it is tried again later, not at once");
    rig.release();
    rig.run_for(1_000_000_000);
    assert_eq!(rig.read_from(0, 4).len(), 4);
}

#[test]
fn a_failed_partition_is_not_healed_by_a_full_disk() {
    let (mut rig, _, _) = two_segments_to_write();
    rig.finish_held(0, Some(io_error()));
    rig.finish_held(0, Some(DeviceError::Full));
    rig.release();
    rig.run_for(3_000_000_000);
    let produced = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(produced), Err(ErrorCode::StorageFailed));
    assert_eq!(states(&rig).len(), 1);
    assert_eq!(rig.shard.counters().pending_bytes, 0);
}

#[test]
fn preparing_ahead_without_space_fails_nobody() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write", "prepare"];
    let produced = rig.produce(&plain(&[&value(60_000)]));
    rig.run();
    rig.finish_held(rig.held_of("prepare"), Some(DeviceError::Full));
    rig.run();
    assert!(!rig.answered(produced), "its write is under way");
    rig.release();
    assert_eq!(rig.produced(produced), Ok(Offset(1)));
    assert!(states(&rig).is_empty());
}

#[test]
fn a_segment_that_cannot_be_named_is_a_named_state() {
    let mut rig = Rig::new(1 << 20);
    rig.hold_kinds = vec!["name"];
    rig.append(&plain(&[b"a"]));
    rig.finish_held(0, Some(io_error()));
    rig.hold_kinds.clear();
    rig.run_for(2_000_000_000);
    assert!(states(&rig)[0].contains("named"), "{:?}", states(&rig));
    let produced = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(produced), Err(ErrorCode::StorageFailed));
    assert_eq!(rig.read_from(0, 1).len(), 1);
    rig.restart();
    assert_eq!(rig.append(&plain(&[b"c"])), Offset(1));
    assert_eq!(rig.read_from(0, 2).len(), 2);
}

#[test]
fn draining_ends_after_the_device_has_failed() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    rig.produce(&plain(&[b"b"]));
    rig.run();
    // Dirty behind the round in flight, and a checkpoint that waits for it.
    rig.produce(&plain(&[b"c"]));
    rig.run_for(1_100_000_000);
    let error = io_error();
    rig.shard.apply(Event::DeviceFailed { error }, rig.now);
    rig.release();
    rig.shard.apply(Event::Drain, rig.now);
    rig.run_for(5_000_000_000);
    assert!(rig.notes.contains(&Note::Drained));
}

#[test]
fn draining_ends_with_a_checkpoint_of_what_was_written_last() {
    let mut rig = Rig::new(1 << 20);
    rig.open(log(1));
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write", "flush"];
    rig.produce(&plain(&[b"b"]));
    rig.run();
    rig.produce_to(log(1), &plain(&[b"x"]));
    rig.shard.apply(Event::Drain, rig.now);
    rig.run_for(1_000_000_000);
    assert!(!rig.notes.contains(&Note::Drained));
    rig.release();
    rig.run_for(1_000_000_000);
    assert!(rig.notes.contains(&Note::Drained));
    assert_eq!(rig.checkpointed(LOG).unwrap().next_offset, Offset(2));
    assert_eq!(rig.checkpointed(log(1)).unwrap().next_offset, Offset(1));
}

#[test]
fn draining_ends_while_checkpoints_fail() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.failing.insert("save checkpoint", io_error());
    rig.shard.apply(Event::Drain, rig.now);
    rig.run_for(5_000_000_000);
    assert!(rig.notes.contains(&Note::Drained));
}

#[test]
fn a_checkpoint_does_not_wait_for_a_partition_that_cannot_write() {
    let mut rig = Rig::new(1 << 20);
    rig.open(log(1));
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["prepare"];
    rig.produce_to(log(1), &plain(&[b"x"]));
    rig.run_for(2_000_000_000);
    assert_eq!(rig.checkpointed(LOG).unwrap().next_offset, Offset(1));
}

#[test]
fn a_failed_partition_gives_back_the_memory_of_what_it_will_never_write() {
    let mut rig = Rig::new(64 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    for _ in 0..8 {
        rig.produce(&plain(&[&value(1 << 20)]));
    }
    rig.run();
    rig.finish_held(0, Some(io_error()));
    rig.run();
    let bytes = rig.shard.counters().buffer_bytes;
    assert!(bytes < 1 << 20, "{bytes} bytes are kept");
    assert_eq!(rig.read_from(0, 1).len(), 1);
}

#[test]
fn a_segment_without_space_fails_only_what_would_be_in_it() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    let first = rig.produce(&plain(&[&value(40_000)]));
    rig.failing.insert("prepare", DeviceError::Full);
    let second = rig.produce(&plain(&[&value(40_000)]));
    rig.run();
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFull));
    assert!(!rig.answered(first), "its write is under way");
    rig.failing.clear();
    rig.release();
    assert_eq!(rig.produced(first), Ok(Offset(1)));
    rig.run_for(1_000_000_000);
    assert_eq!(rig.read_from(0, 3).len(), 3);
}

#[test]
fn the_largest_batch_takes_little_more_memory_than_itself() {
    let mut rig = Rig::without_partitions(shard_config(), 1 << 20);
    rig.open(LOG);
    rig.run();
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    rig.produce(&plain(&[&value(5 << 20)]));
    rig.run();
    let bytes = rig.shard.counters().buffer_bytes;
    assert!(bytes < 6 << 20, "{bytes} bytes");
    rig.release();
    assert_eq!(rig.read_from(0, 2).len(), 2);
}

#[test]
fn a_lone_write_whose_flush_failed_fails_the_device() {
    let mut rig = Rig::new(1 << 20);
    rig.open(log(1));
    rig.append(&plain(&[b"a"]));
    rig.failing.insert("durable write", io_error());
    let failed = rig.produce(&plain(&[b"b"]));
    rig.run();
    assert_eq!(rig.produced(failed), Err(ErrorCode::StorageFailed));
    rig.failing.clear();
    let other = rig.produce_to(log(1), &plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(other), Err(ErrorCode::StorageFailed));
    let told = |note: &Note| matches!(note, Note::FlushFailed { .. });
    assert!(rig.notes.iter().any(told), "the other shards are told");
}

#[test]
fn a_lone_write_that_fails_as_a_write_fails_its_partition_only() {
    let mut rig = Rig::new(1 << 20);
    rig.open(log(1));
    rig.append(&plain(&[b"a"]));
    rig.failing.insert("durable write", io_error());
    rig.failing.insert("write", io_error());
    let failed = rig.produce(&plain(&[b"b"]));
    rig.run();
    assert_eq!(rig.produced(failed), Err(ErrorCode::StorageFailed));
    rig.failing.clear();
    let other = rig.produce_to(log(1), &plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(other), Ok(Offset(0)));
}
