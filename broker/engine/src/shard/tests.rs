//! A shard on a disk in memory: what every produce and fetch relies on. One file per theme beside
//! this one, for what goes wrong.

mod checkpoints;
mod deletes;
mod failures;
mod memory;
mod reads;
mod retention;
mod rig;
mod seeks;
mod starts;
mod trims;

use ringway_wire::batch::ProducerStamp;
use ringway_wire::request::{Acks, ProduceRequest};
use ringway_wire::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, TopicPartition};

use super::{Event, Note};
use crate::device::DeviceError;
use rig::{LOG, Rig, batch, io_error, log, plain};

#[test]
fn a_lone_small_batch_costs_one_durable_write() {
    let mut rig = Rig::new(1 << 20);
    let first = rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.ops.clear();
    let second = rig.produce(&plain(&[b"b", b"c"]));
    rig.run();
    assert_eq!(rig.produced(first), Ok(Offset(0)));
    assert_eq!(rig.produced(second), Ok(Offset(1)));
    assert_eq!(rig.ops, ["durable write"]);
    let fetch = rig.fetch(0, 0);
    rig.run();
    let expected: Vec<(u64, Vec<u8>)> =
        [(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())].into();
    assert_eq!(rig.fetched(fetch), expected);
    assert_eq!(rig.ops, ["durable write"], "a tail read costs no disk read");
}

#[test]
fn nothing_is_acknowledged_or_shown_before_it_is_durable() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.hold = true;
    let second = rig.produce(&plain(&[b"b"]));
    let fetch = rig.fetch(1, 60_000);
    rig.run();
    assert!(!rig.replies.contains_key(&second));
    assert!(!rig.replies.contains_key(&fetch));
    rig.release();
    assert_eq!(rig.produced(second), Ok(Offset(1)));
    assert_eq!(rig.fetched(fetch), [(1, b"b".to_vec())]);
}

#[test]
fn a_long_log_rolls_and_is_read_back_from_disk() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![7; 10_000];
    for _ in 0..1_000 {
        let produced = rig.produce(&plain(&[&value, &value]));
        rig.run();
        assert!(rig.produced(produced).is_ok());
    }
    assert!(
        rig.files.len() > 30,
        "the log rolled: {} files",
        rig.files.len()
    );
    let mut offset = 0;
    while offset < 2_000 {
        let fetch = rig.fetch(offset, 0);
        rig.run();
        let records = rig.fetched(fetch);
        assert_eq!(records[0].0, offset);
        assert!(records.iter().all(|record| record.1 == value));
        offset = records.last().unwrap().0 + 1;
    }
    assert_eq!(offset, 2_000);
    assert!(rig.ops.contains(&"read"));
}

#[test]
fn every_offset_is_found_in_sealed_segments() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![1; 3_000];
    for _ in 0..600 {
        rig.produce(&plain(&[&value, &value, &value]));
        rig.run();
    }
    for offset in (0..1_800).step_by(37) {
        let fetch = rig.fetch(offset, 0);
        rig.run();
        let records = rig.fetched(fetch);
        assert!(records[0].0 <= offset && records.last().unwrap().0 >= offset);
    }
}

#[test]
fn a_time_is_found_wherever_it_is() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![1; 30_000];
    let mut times = Vec::new();
    for _ in 0..300 {
        times.push(rig.now.unix_us);
        rig.produce(&plain(&[&value]));
        rig.run();
        rig.now.unix_us += 1_000;
    }
    for (offset, &time_us) in times.iter().enumerate().step_by(23) {
        let asked = rig.seek(time_us);
        rig.run();
        assert_eq!(rig.found(asked).offset, Offset(offset as u64));
    }
}

#[test]
fn a_batch_sent_twice_is_appended_once_and_acknowledged_when_durable() {
    let mut rig = Rig::new(1 << 20);
    let producer = ProducerStamp {
        id: ProducerId(9),
        epoch: ProducerEpoch(0),
        first_sequence: Sequence(0),
    };
    let bytes = batch(&[b"once"], producer);
    rig.hold = true;
    let first = rig.produce(&bytes);
    let again = rig.produce(&bytes);
    rig.run();
    assert!(
        !rig.replies.contains_key(&again),
        "the first isn't durable yet"
    );
    rig.release();
    assert_eq!(rig.produced(first), Ok(Offset(0)));
    assert_eq!(rig.produced(again), Ok(Offset(0)));
    let late = rig.produce(&bytes);
    rig.run();
    assert_eq!(rig.produced(late), Ok(Offset(0)));
    let fetch = rig.fetch(0, 0);
    rig.run();
    assert_eq!(rig.fetched(fetch).len(), 1);
}

#[test]
fn a_flipped_bit_is_refused_and_leaves_no_trace() {
    let mut rig = Rig::new(1 << 20);
    let good = plain(&[b"good"]);
    for at in 48..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let produced = rig.produce(&bad);
        rig.run();
        assert_eq!(
            rig.produced(produced),
            Err(ErrorCode::CorruptBatch),
            "byte {at}"
        );
    }
    let produced = rig.produce(&good);
    rig.run();
    assert_eq!(rig.produced(produced), Ok(Offset(0)));
}

#[test]
fn a_full_disk_is_said_and_heals() {
    let mut rig = Rig::new(1 << 20);
    rig.failing.insert("prepare", DeviceError::Full);
    let first = rig.produce(&plain(&[b"a"]));
    rig.run();
    assert_eq!(rig.produced(first), Err(ErrorCode::StorageFull));
    let second = rig.produce(&plain(&[b"b"]));
    rig.run();
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFull));
    rig.failing.clear();
    rig.now.mono_ns += 2_000_000_000;
    rig.run();
    let third = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(
        rig.produced(third),
        Ok(Offset(1)),
        "the first was kept and is written"
    );
}

#[test]
fn many_partitions_share_one_flush() {
    let mut rig = Rig::new(1 << 20);
    let logs: Vec<TopicPartition> = (1..=20).map(log).collect();
    for &log in &logs {
        rig.open(log);
    }
    rig.run();
    for round in 0..2 {
        rig.ops.clear();
        for &log in &logs {
            let request = ProduceRequest {
                topic: log.topic,
                partition: log.partition,
                acks: Acks::Leader,
                trace: false,
                timeout_ms: 1_000,
            };
            rig.request(request.into(), &plain(&[b"x"]));
        }
        rig.run();
        if round == 1 {
            assert_eq!(rig.ops.iter().filter(|op| **op == "write").count(), 20);
            assert_eq!(rig.ops.iter().filter(|op| **op == "flush").count(), 1);
            assert_eq!(rig.ops.len(), 21);
        }
    }
}

#[test]
fn draining_ends_with_everything_durable_and_a_checkpoint() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.shard.apply(Event::Drain, rig.now);
    rig.run_for(20_000_000_000);
    assert!(rig.notes.contains(&Note::Drained));
    assert!(rig.checkpointed(LOG).is_some());
}

#[test]
fn a_failed_flush_elsewhere_stops_acknowledgements_of_the_round_in_flight() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.hold = true;
    let second = rig.produce(&plain(&[b"b"]));
    rig.run();
    let error = io_error();
    rig.shard.apply(Event::DeviceFailed { error }, rig.now);
    rig.release();
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFailed));
    let fetch = rig.fetch(0, 0);
    rig.run();
    assert_eq!(
        rig.fetched(fetch),
        [(0, b"a".to_vec())],
        "reads go on, below what was durable"
    );
    let third = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(third), Err(ErrorCode::StorageFailed));
}
