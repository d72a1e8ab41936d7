//! Readers beside writers: waiting fetches, cold reads at segment borders and at the durable end.

use ringway_wire::request::{FetchRequest, Reply};
use ringway_wire::{ErrorCode, Offset};

use super::rig::{LOG, Rig, plain, shard_config};
use crate::device::Op;
use crate::limits::STEPS_PER_TURN_MAX;
use crate::shard::{Event, ShardConfig};

fn fetch(offset: u64, wait_ms: u32) -> FetchRequest {
    FetchRequest {
        topic: LOG.topic,
        partition: LOG.partition,
        offset: Offset(offset),
        bytes_max: 1 << 20,
        wait_ms,
        ..FetchRequest::default()
    }
}

/// A shard that keeps next to nothing in memory.
fn forgetful() -> Rig {
    let config = ShardConfig {
        cache_bytes_max: 0,
        ..shard_config()
    };
    let mut rig = Rig::without_partitions(config, 8 << 20);
    rig.open(LOG);
    rig.run();
    rig
}

#[test]
fn a_fetch_that_waits_for_more_than_came_keeps_its_deadline() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    rig.produce(&plain(&[b"b"]));
    rig.run();
    rig.produce(&plain(&[b"c"]));
    let first = rig.fetch(1, 1_000);
    let second = rig.fetch(2, 1_000);
    rig.run_for(900_000_000);
    rig.finish_held(0, None);
    rig.run();
    assert!(rig.answered(first) && !rig.answered(second));
    assert_eq!(rig.shard.counters().waiting, 1);
    rig.run_for(200_000_000);
    assert!(rig.answered(second), "a second is over");
    assert_eq!(rig.shard.counters().waiting, 0);
}

#[test]
fn thousands_of_waiting_fetches_are_forgotten_and_answered_in_bounded_steps() {
    let count = 2 * STEPS_PER_TURN_MAX + 10;
    let mut rig = Rig::new(1 << 20);
    for _ in 0..count {
        rig.request_of(2, fetch(0, 60_000).into(), &[]);
        rig.request_of(3, fetch(0, 1_000).into(), &[]);
    }
    let waiting = |rig: &Rig| rig.shard.counters().waiting as usize;
    assert_eq!(waiting(&rig), 2 * count);
    rig.shard.apply(Event::Gone { source: 2 }, rig.now);
    let mut steps = Vec::new();
    while rig.shard.next_deadline_ns() == Some(0) {
        let before = waiting(&rig);
        rig.shard.turn(rig.now);
        steps.push(before - waiting(&rig));
    }
    assert_eq!(steps, [STEPS_PER_TURN_MAX, STEPS_PER_TURN_MAX, 10]);
    rig.now.mono_ns += 2_000_000_000;
    let replies = rig.turn_replies();
    assert_eq!(replies, 0, "it has not turned");
    let mut answered = 0;
    let due = |rig: &Rig| {
        rig.shard
            .next_deadline_ns()
            .is_some_and(|at| at <= rig.now.mono_ns)
    };
    while due(&rig) {
        rig.shard.turn(rig.now);
        let step = rig.turn_replies();
        // Some other deadlines may be among them.
        assert!(step <= STEPS_PER_TURN_MAX, "{step}");
        answered += step;
    }
    assert_eq!((answered, waiting(&rig)), (count, 0));
}

#[test]
fn fetches_of_a_connection_that_is_gone_are_forgotten() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    let request = fetch(1, 60_000);
    let stays = rig.request_of(1, request.into(), &[]);
    let gone = rig.request_of(2, request.into(), &[]);
    rig.run();
    assert_eq!(rig.shard.counters().waiting, 2);
    rig.shard.apply(Event::Gone { source: 2 }, rig.now);
    rig.run();
    assert_eq!(rig.shard.counters().waiting, 1);
    rig.append(&plain(&[b"b"]));
    assert!(rig.answered(stays) && !rig.answered(gone));
    assert_eq!(rig.shard.counters().waiting, 0);
    assert_eq!(
        rig.shard.next_deadline_ns().map(|ns| ns < 10_000_000_000),
        Some(true)
    );
}

#[test]
fn batches_of_any_size_are_read_from_disk() {
    let mut rig = forgetful();
    let sizes = [
        100, 5_000, 600_000, 40, 3_000_000, 200_000, 7_000_000, 1, 65_536,
    ];
    for size in sizes {
        rig.append(&plain(&[&vec![3; size]]));
    }
    for offset in 0..sizes.len() as u64 {
        let records = rig.read_from(offset, sizes.len() as u64);
        let expected = &sizes[offset as usize..];
        assert!(
            records
                .iter()
                .map(|record| record.1.len())
                .eq(expected.iter().copied())
        );
    }
    assert!(rig.ops.contains(&"read"));
}

#[test]
fn a_reader_of_the_active_segment_sees_what_is_durable_and_no_more() {
    let mut rig = forgetful();
    for _ in 0..5 {
        rig.append(&plain(&[&[1; 2_000]]));
    }
    rig.hold_kinds = vec!["write", "durable write"];
    rig.produce(&plain(&[&[2; 9_000]]));
    rig.run();
    rig.produce(&plain(&[&[3; 9_000]]));
    rig.run();
    assert_eq!(rig.read_from(0, 5).len(), 5);
    let waits = rig.fetch(5, 0);
    rig.run();
    assert_eq!(rig.fetched(waits), []);
    rig.release();
    assert_eq!(rig.read_from(0, 7).len(), 7);
}

#[test]
fn a_segment_may_be_sealed_while_it_is_read() {
    let mut rig = forgetful();
    rig.append(&plain(&[&[1; 30_000]]));
    rig.hold_kinds = vec!["read"];
    let fetch = rig.fetch(0, 0);
    rig.run();
    for _ in 0..20 {
        rig.append(&plain(&[&[1; 30_000]]));
    }
    rig.release();
    assert_eq!(rig.fetched(fetch)[0].0, 0);
}

#[test]
fn a_damaged_batch_is_passed_on_the_way_to_a_later_one() {
    let mut rig = forgetful();
    for _ in 0..10 {
        rig.append(&plain(&[&[1; 3_000]]));
    }
    let segment = (LOG, crate::device::SegmentName::Base(Offset(0)));
    let bytes = rig.files.get_mut(&segment).unwrap();
    bytes[3 * 3_200 + 2_000] ^= 1;
    let mut damaged = Vec::new();
    let mut read = Vec::new();
    for offset in 0..10 {
        let request = rig.fetch(offset, 0);
        rig.run();
        let Reply::Fetch(reply) = &rig.replies[&request].0 else {
            panic!("another reply")
        };
        match &reply.fault {
            Some(fault) => {
                assert_eq!(fault.code, ErrorCode::DamagedBatch);
                assert!(reply.safe_offset > Offset(offset), "no reader is sent back");
                damaged.push(offset);
            }
            None => read.push(offset),
        }
    }
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert_eq!(read.len(), 9);
}

/// A shard that has some MB to be read from the disk, and room for so much of it.
fn cold(read_bytes_max: usize) -> Rig {
    let config = ShardConfig {
        cache_bytes_max: 0,
        read_bytes_max,
        ..shard_config()
    };
    let mut rig = Rig::without_partitions(config, 8 << 20);
    rig.open(LOG);
    for _ in 0..100 {
        rig.append(&plain(&[&[3; 60_000]]));
    }
    rig.now.mono_ns += 1_000_000_000;
    rig
}

#[test]
fn a_reader_of_much_leaves_others_their_turn() {
    let mut rig = cold(2 << 20);
    rig.hold_kinds = vec!["read"];
    let many: Vec<u32> = (0..40)
        .map(|offset| rig.request_of(1, fetch(offset, 0).into(), &[]))
        .collect();
    rig.run();
    let one = rig.request_of(2, fetch(50, 0).into(), &[]);
    let mut ended = 0;
    while !rig.answered(one) {
        rig.finish_held(0, None);
        rig.run();
        ended += 1;
    }
    assert!(ended < 10, "{ended} reads came before it");
    rig.release();
    rig.run_for(1_000_000_000);
    assert!(many.iter().all(|it| rig.answered(*it)));
}

#[test]
fn what_is_read_counts_until_it_is_sent_and_who_takes_nothing_is_hung_up_on() {
    let mut rig = cold(4 << 20);
    rig.keep_data = true;
    let many: Vec<u32> = (0..40)
        .map(|offset| rig.request_of(1, fetch(offset, 0).into(), &[]))
        .collect();
    rig.run();
    assert!(rig.shard.counters().read_buffer_bytes <= 4 << 20);
    assert!(!rig.answered(many[39]));
    let other = rig.request_of(2, fetch(50, 0).into(), &[]);
    rig.run_for(4_000_000_000);
    assert!(!rig.answered(other) && rig.hung_up.is_empty());
    rig.run_for(2_000_000_000);
    assert_eq!(rig.hung_up, [1]);
    rig.shard.apply(Event::Gone { source: 1 }, rig.now);
    rig.kept.clear();
    rig.run_for(100_000_000);
    assert!(rig.answered(other));
    assert_eq!(rig.hung_up, [1], "nobody else");
}

#[test]
fn a_reader_that_takes_what_it_gets_is_never_hung_up_on() {
    let mut rig = cold(4 << 20);
    rig.keep_data = true;
    let many: Vec<u32> = (0..40)
        .map(|offset| rig.request_of(1, fetch(offset, 0).into(), &[]))
        .collect();
    let other = rig.request_of(2, fetch(50, 0).into(), &[]);
    for _ in 0..60 {
        rig.run_for(3_000_000_000);
        rig.kept.clear();
    }
    assert!(rig.answered(other) && many.iter().all(|it| rig.answered(*it)));
    assert!(rig.hung_up.is_empty());
}

#[test]
fn reads_leave_most_of_the_device_to_writes() {
    let mut rig = cold(8 << 20);
    rig.hold_kinds = vec!["read", "write", "durable write"];
    rig.produce(&plain(&[b"x"]));
    rig.run();
    for offset in 0..40 {
        rig.fetch(offset, 0);
    }
    rig.run();
    let reads = |rig: &Rig| -> usize {
        let bytes = |(_, op): &(_, Op)| match op {
            Op::Read { bytes, .. } => *bytes,
            _ => 0,
        };
        rig.held.iter().map(bytes).sum()
    };
    let beside = reads(&rig);
    let write = rig.held_of("durable write");
    rig.finish_held(write, None);
    rig.run_for(20_000_000);
    let read = rig.held_of("read");
    rig.finish_held(read, None);
    rig.run();
    let alone = reads(&rig);
    assert!(
        (1 << 20..=2 << 20).contains(&beside) && alone >= 2 * beside,
        "{beside} beside writes, {alone} without"
    );
    rig.release();
}

#[test]
fn cold_reads_take_nothing_from_the_tail_cache() {
    let config = ShardConfig {
        cache_bytes_max: 1 << 20,
        ..shard_config()
    };
    let mut rig = Rig::without_partitions(config, 8 << 20);
    rig.open(LOG);
    for _ in 0..100 {
        rig.append(&plain(&[&[3; 60_000]]));
    }
    rig.keep_data = true;
    for offset in 0..40 {
        rig.fetch(offset, 0);
    }
    rig.run();
    let before = rig.shard.counters().cold_reads;
    assert!(before >= 8, "{before}");
    let tail = rig.fetch(95, 0);
    rig.run();
    assert!(rig.answered(tail));
    assert_eq!(rig.shard.counters().cold_reads, before);
}
