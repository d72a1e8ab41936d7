//! Topics with durability `memory`: acknowledged and shown when appended, within bounds of bytes
//! and time; written in time; and beyond the bounds as durable as every other topic.

use ringway_wire::request::{Durability, Reply, TrimBefore};
use ringway_wire::{ErrorCode, Offset};

use super::rig::{LOG, Rig, io_error, log, plain, shard_config};
use crate::device::DeviceError;
use crate::shard::{Event, Note, ShardConfig};

const MS: u64 = 1_000_000;

fn config() -> ShardConfig {
    ShardConfig {
        unsynced_bytes_max: 64 << 10,
        unsynced_ns_max: 200 * MS,
        ..shard_config()
    }
}

fn rig() -> Rig {
    let mut rig = Rig::without_partitions(config(), 1 << 20);
    rig.durability = Durability::Memory;
    rig.open(LOG);
    rig.run();
    rig
}

fn said(rig: &Rig, request: u32) -> Durability {
    match rig.replies.get(&request) {
        Some((Reply::Produce(reply), _)) => reply.durability,
        other => panic!("no produce reply: {other:?}"),
    }
}

#[test]
fn a_batch_is_acknowledged_and_shown_before_anything_is_written() {
    let mut rig = rig();
    let waiting = rig.fetch(0, 60_000);
    rig.hold = true;
    let produced = rig.produce(&plain(&[b"a"]));
    assert_eq!(rig.turn_replies(), 2, "in the very turn");
    assert_eq!(rig.produced(produced), Ok(Offset(0)));
    assert_eq!(said(&rig, produced), Durability::Memory);
    assert_eq!(rig.fetched(waiting), [(0, b"a".to_vec())]);
    assert_eq!(
        rig.shard.counters().unsynced_bytes,
        rig.shard.counters().append_bytes
    );
}

#[test]
fn what_gathers_is_written_together_after_half_the_time() {
    let mut rig = rig();
    rig.append(&plain(&[b"first"]));
    rig.run_for(150 * MS);
    rig.ops.clear();
    for _ in 0..20 {
        rig.append(&plain(&[b"x"]));
    }
    rig.run_for(90 * MS);
    assert!(rig.ops.is_empty(), "{:?} came early", rig.ops);
    rig.run_for(20 * MS);
    assert_eq!(rig.ops, ["durable write"]);
    assert_eq!(rig.shard.counters().unsynced_bytes, 0);
    assert_eq!(rig.shard.counters().pending_bytes, 0);
    rig.restart();
    assert_eq!(rig.read_from(0, 21).len(), 21);
}

#[test]
fn a_part_of_the_bytes_is_written_at_once() {
    let mut rig = rig();
    rig.append(&plain(&[&[1; 6_000]]));
    rig.run();
    assert_eq!(rig.shard.counters().rounds, 0);
    rig.append(&plain(&[&[1; 6_000]]));
    rig.append(&plain(&[&[1; 6_000]]));
    rig.run();
    assert_eq!(rig.shard.counters().rounds, 1);
    assert_eq!(rig.shard.counters().unsynced_bytes, 0);
}

#[test]
fn no_more_bytes_are_acknowledged_than_may_be_lost() {
    let mut rig = rig();
    rig.append(&plain(&[b"first"]));
    rig.run_for(300 * MS);
    rig.hold_kinds = vec!["durable write", "write"];
    let batch = plain(&[&[1; 10_000]]);
    let asked: Vec<u32> = (0..10).map(|_| rig.produce(&batch)).collect();
    rig.run();
    let fit = (64 << 10) / batch.len();
    assert!(fit > 3 && fit < 9, "{fit}");
    let answered = |rig: &Rig| asked.iter().filter(|&&it| rig.answered(it)).count();
    assert_eq!(answered(&rig), fit);
    let fetch = rig.fetch(1 + fit as u64, 0);
    rig.run();
    assert_eq!(rig.fetched(fetch), [], "nor shown");
    rig.release();
    assert_eq!(answered(&rig), 10);
    assert_eq!(said(&rig, asked[0]), Durability::Memory);
    assert_eq!(said(&rig, asked[9]), Durability::Fsync);
    assert_eq!(rig.read_from(0, 11).len(), 11);
}

#[test]
fn nothing_more_is_acknowledged_when_the_disk_takes_too_long() {
    let mut rig = rig();
    rig.append(&plain(&[b"first"]));
    rig.run_for(300 * MS);
    rig.hold_kinds = vec!["durable write", "write"];
    rig.append(&plain(&[b"second"]));
    rig.run_for(190 * MS);
    rig.append(&plain(&[b"third"]));
    rig.run_for(20 * MS);
    let late = rig.produce(&plain(&[b"fourth"]));
    rig.run();
    assert!(!rig.answered(late));
    rig.release();
    assert_eq!(rig.produced(late), Ok(Offset(3)));
    rig.append(&plain(&[b"fifth"]));
    assert_eq!(rig.shard.counters().rounds, 3, "it gathers again");
}

#[test]
fn a_busy_memory_topic_holds_up_no_durable_one() {
    let mut rig = rig();
    rig.durability = Durability::Fsync;
    rig.open(log(1));
    rig.run();
    rig.append(&plain(&[b"memory"]));
    let produced = rig.produce_to(log(1), &plain(&[b"durable"]));
    rig.run();
    assert_eq!(rig.produced(produced), Ok(Offset(0)));
    assert_eq!(said(&rig, produced), Durability::Fsync);
    assert_eq!(rig.shard.counters().rounds, 1, "of the durable one alone");
    assert!(rig.shard.counters().unsynced_bytes > 0);
}

#[test]
fn a_clean_stop_loses_nothing() {
    let mut rig = rig();
    rig.append(&plain(&[b"a"]));
    rig.append(&plain(&[b"b"]));
    rig.shard.apply(Event::Drain, rig.now);
    rig.run();
    assert!(rig.notes.contains(&Note::Drained));
    rig.restart();
    assert_eq!(rig.read_from(0, 2).len(), 2);
}

#[test]
fn a_clean_stop_says_what_a_full_disk_made_it_lose() {
    let mut rig = rig();
    rig.append(&plain(&[b"a"]));
    rig.run_for(300 * MS);
    rig.failing.insert("write", DeviceError::Full);
    rig.failing.insert("durable write", DeviceError::Full);
    rig.append(&plain(&[b"b"]));
    rig.shard.apply(Event::Drain, rig.now);
    rig.run_for(5_000 * MS);
    let (from, to) = (Offset(1), Offset(2));
    assert!(rig.notes.contains(&Note::Unwritten { log: LOG, from, to }));
    assert!(rig.notes.contains(&Note::Drained));
}

#[test]
fn a_crash_loses_the_end_and_readers_hear_of_it() {
    let mut rig = rig();
    rig.append(&plain(&[b"kept"]));
    rig.run_for(300 * MS);
    rig.append(&plain(&[b"lost"]));
    rig.restart();
    let fetch = rig.fetch_after(2, 1);
    rig.run();
    let fault = rig.fetch_reply(fetch).fault.clone().expect("it is gone");
    assert_eq!(fault.code, ErrorCode::LogTruncated);
    assert_eq!(rig.fetch_reply(fetch).safe_offset, Offset(1));
    assert_eq!(rig.append(&plain(&[b"new"])), Offset(1));
    assert_eq!(rig.read_from(0, 2)[1].1, b"new");
}

#[test]
fn what_was_acknowledged_can_be_read_after_a_failure_and_counts_on() {
    let mut rig = rig();
    rig.durability = Durability::Memory;
    rig.open(log(1));
    rig.run();
    rig.append(&plain(&[b"kept"]));
    rig.run_for(300 * MS);
    rig.failing.insert("durable write", io_error());
    rig.failing.insert("write", io_error());
    rig.append(&plain(&[b"unwritten"]));
    rig.run_for(300 * MS);
    let refused = rig.produce(&plain(&[b"more"]));
    rig.run();
    assert_eq!(rig.produced(refused), Err(ErrorCode::StorageFailed));
    assert_eq!(rig.read_from(0, 2)[1].1, b"unwritten");
    rig.failing.clear();
    rig.hold_kinds = vec!["durable write", "write"];
    let other = rig.produce_to(log(1), &plain(&[b"other"]));
    rig.run();
    assert!(
        !rig.answered(other),
        "too much is at risk for too long already"
    );
    rig.release();
    assert_eq!(said(&rig, other), Durability::Fsync);
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.run();
    let other = rig.produce_to(log(1), &plain(&[b"again"]));
    rig.turn_replies();
    assert_eq!(said(&rig, other), Durability::Memory);
}

#[test]
fn a_topic_that_changes_its_durability_shows_no_less_than_before() {
    let mut rig = rig();
    rig.append(&plain(&[b"a"]));
    rig.run_for(300 * MS);
    rig.hold_kinds = vec!["durable write", "write"];
    rig.append(&plain(&[b"b"]));
    rig.durability = Durability::Fsync;
    let config = rig.partition_config();
    rig.shard
        .apply(Event::Configure { log: LOG, config }, rig.now);
    let durable = rig.produce(&plain(&[b"c"]));
    let fetch = rig.fetch(1, 0);
    rig.run();
    assert_eq!(rig.fetched(fetch), [(1, b"b".to_vec())]);
    assert!(!rig.answered(durable));
    rig.release();
    assert_eq!(said(&rig, durable), Durability::Fsync);
    assert_eq!(rig.shard.counters().unsynced_bytes, 0);
    rig.durability = Durability::Memory;
    let config = rig.partition_config();
    rig.shard
        .apply(Event::Configure { log: LOG, config }, rig.now);
    let fast = rig.produce(&plain(&[b"d"]));
    rig.turn_replies();
    assert_eq!(said(&rig, fast), Durability::Memory);
}

#[test]
fn a_trim_to_what_is_only_in_memory_makes_it_durable_first() {
    let mut rig = rig();
    rig.append(&plain(&[b"a"]));
    rig.append(&plain(&[b"b"]));
    let trim = rig.trim(TrimBefore::Offset(Offset(2)));
    rig.run_for(20 * MS);
    assert_eq!(rig.trimmed(trim), Ok(Offset(2)));
    rig.restart();
    assert_eq!(rig.append(&plain(&[b"c"])), Offset(2));
}

#[test]
fn a_time_is_found_among_what_is_on_disk_and_what_is_not() {
    let mut rig = rig();
    let mut times = Vec::new();
    for offset in 0..60_u64 {
        times.push(rig.now.unix_us);
        assert_eq!(rig.append(&plain(&[&[1; 9_000]])), Offset(offset));
        rig.now.unix_us += 1_000;
        if offset == 50 {
            rig.run_for(300 * MS);
            rig.restart();
            rig.hold_kinds = vec!["durable write", "write"];
        }
    }
    assert!(rig.shard.counters().unsynced_bytes > 0);
    for (offset, &time_us) in times.iter().enumerate() {
        let asked = rig.seek(time_us);
        rig.run();
        assert_eq!(rig.found(asked).offset, Offset(offset as u64));
    }
    let beyond = rig.seek(rig.now.unix_us + 1);
    rig.run();
    assert_eq!(rig.found(beyond).offset, Offset(60));
}
