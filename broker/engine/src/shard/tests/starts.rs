//! Starts after crashes at awkward moments: what a checkpoint may say, left-over files, damage.

use ringway_wire::batch::ProducerStamp;
use ringway_wire::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence};

use super::rig::{LOG, Rig, batch, io_error, log, plain};
use crate::device::SegmentName;
use crate::log::CheckpointEntry;
use crate::shard::{Event, Note};

fn value(bytes: usize) -> Vec<u8> {
    vec![9; bytes]
}

fn base(offset: u64) -> (ringway_wire::TopicPartition, SegmentName) {
    (LOG, SegmentName::Base(Offset(offset)))
}

fn damages(rig: &Rig) -> Vec<&Note> {
    let is_damage = |note: &&Note| matches!(note, Note::Damaged { .. });
    rig.notes.iter().filter(is_damage).collect()
}

#[test]
fn a_log_goes_on_where_it_ended() {
    let mut rig = Rig::new(1 << 20);
    for count in 1..40 {
        rig.append(&plain(&[&value(700 * count as usize)]));
        if count % 7 == 0 {
            rig.run_for(1_200_000_000);
        }
        if count % 3 == 0 {
            rig.restart();
        }
        assert_eq!(rig.read_from(0, count).len() as u64, count);
    }
}

#[test]
fn a_refused_batch_begins_no_segment() {
    let mut rig = Rig::new(1 << 20);
    rig.hold_kinds = vec!["name"];
    rig.append(&plain(&[&value(40_000)]));
    let mut bad = plain(&[&value(40_000)]);
    *bad.last_mut().unwrap() ^= 1;
    bad[200] ^= 1;
    let refused = rig.produce(&bad);
    rig.run_for(1_500_000_000);
    assert_eq!(rig.produced(refused), Err(ErrorCode::CorruptBatch));
    assert!(rig.files.contains_key(&(LOG, SegmentName::Next)));
    let entry = rig.checkpointed(LOG);
    assert_eq!(entry, None, "no start would find a segment by that name");
    rig.restart();
    assert_eq!(rig.read_from(0, 1).len(), 1);
}

#[test]
fn an_empty_segment_makes_way_for_a_larger_batch() {
    let mut rig = Rig::new(1 << 20);
    rig.files.insert(base(0), vec![0; 64 << 10]);
    rig.restart();
    assert_eq!(rig.append(&plain(&[&value(300_000)])), Offset(0));
    assert_eq!(rig.append(&plain(&[&value(300_000)])), Offset(1));
    assert_eq!(rig.read_from(0, 2).len(), 2);
    rig.restart();
    assert_eq!(rig.read_from(0, 2).len(), 2);
}

#[test]
fn a_left_over_next_segment_is_made_anew() {
    for bytes in [0, 1_000, 5_000, 64 << 10, 1 << 20] {
        let mut rig = Rig::new(1 << 20);
        rig.append(&plain(&[&value(40_000)]));
        rig.files
            .insert((LOG, SegmentName::Next), vec![0xaa; bytes]);
        rig.restart();
        for _ in 0..4 {
            rig.append(&plain(&[&value(40_000)]));
        }
        assert_eq!(rig.read_from(0, 5).len(), 5);
        rig.restart();
        assert_eq!(rig.read_from(0, 5).len(), 5);
    }
}

#[test]
fn a_left_over_segment_is_gone_before_its_name_is_used() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[&value(40_000)]));
    rig.run_for(1_200_000_000);
    rig.files.insert(base(2), vec![0; 64 << 10]);
    rig.crash();
    rig.hold_kinds = vec!["remove"];
    rig.open(LOG);
    rig.run();
    let requests: Vec<u32> = (0..4)
        .map(|_| {
            let request = rig.produce(&plain(&[&value(40_000)]));
            rig.run();
            request
        })
        .collect();
    rig.release();
    rig.run();
    for (request, offset) in requests.into_iter().zip(1..) {
        if rig.produced(request) != Err(ErrorCode::PartitionRecovering) {
            assert_eq!(rig.produced(request), Ok(Offset(offset)));
        }
    }
    rig.append(&plain(&[b"last"]));
    let end = rig.append(&plain(&[b"last"])).0 + 1;
    assert_eq!(rig.read_from(0, end).len() as u64, end);
}

#[test]
fn a_left_over_segment_that_stays_keeps_the_partition_closed() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[&value(40_000)]));
    rig.run_for(1_200_000_000);
    rig.files.insert(base(2), vec![0; 64 << 10]);
    rig.crash();
    rig.failing.insert("remove", io_error());
    rig.open(LOG);
    rig.run();
    let produced = rig.produce(&plain(&[b"x"]));
    rig.run();
    assert_eq!(rig.produced(produced), Err(ErrorCode::StorageFailed));
    assert_eq!(rig.read_from(0, 1).len(), 1);
}

/// A log of which the last checkpoint knows more than is there.
fn damaged() -> Rig {
    let mut rig = Rig::new(1 << 20);
    for _ in 0..5 {
        rig.append(&plain(&[&value(40_000)]));
    }
    rig.run_for(1_200_000_000);
    let entry = rig.checkpointed(LOG).unwrap();
    let last = rig.files.get_mut(&base(entry.segment_base.0)).unwrap();
    last.fill(0);
    rig
}

#[test]
fn damage_is_not_forgotten_by_the_next_start() {
    let mut rig = damaged();
    let entry: CheckpointEntry = rig.checkpointed(LOG).unwrap();
    // The segment is gone, so recovery can't begin where the checkpoint says.
    rig.files.remove(&base(entry.segment_base.0));
    for _ in 0..3 {
        rig.restart();
        assert!(!damages(&rig).is_empty());
        let produced = rig.produce(&plain(&[b"x"]));
        rig.run_for(2_500_000_000);
        assert_eq!(rig.produced(produced), Err(ErrorCode::StorageFailed));
    }
}

#[test]
fn nothing_is_removed_from_a_partition_that_a_person_has_to_look_at() {
    let mut rig = Rig::new(1 << 20);
    for _ in 0..20 {
        rig.append(&plain(&[&value(40_000)]));
    }
    let bases: Vec<_> = rig.files.keys().copied().collect();
    rig.checkpoint = None;
    rig.sides.clear();
    rig.files.get_mut(&base(1)).unwrap()[500] ^= 1;
    let files = rig.files.clone();
    rig.restart();
    assert!(!damages(&rig).is_empty(), "of {bases:?}");
    rig.run_for(2_500_000_000);
    assert!(rig.files == files);
    assert!(!rig.ops.contains(&"remove"));
}

#[test]
fn a_checkpoint_keeps_what_it_knew_of_partitions_that_are_still_recovering() {
    let mut rig = Rig::new(1 << 20);
    rig.open(log(1));
    rig.run();
    rig.append(&plain(&[b"a"]));
    rig.produce_to(log(1), &plain(&[b"x"]));
    rig.run_for(2_500_000_000);
    let known = rig.checkpointed(LOG).unwrap();
    rig.crash();
    rig.hold_kinds = vec!["read"];
    rig.open(LOG);
    rig.run();
    let held: Vec<_> = rig.held.drain(..).collect();
    rig.hold_kinds.clear();
    rig.open(log(1));
    rig.run();
    for _ in 0..3 {
        rig.produce_to(log(1), &plain(&[b"y"]));
        rig.run_for(1_200_000_000);
    }
    assert_eq!(rig.checkpointed(log(1)).unwrap().next_offset, Offset(4));
    assert_eq!(rig.checkpointed(LOG), Some(known));
    rig.held = held;
    rig.release();
    rig.append(&plain(&[b"b"]));
    rig.run_for(1_200_000_000);
    assert_eq!(rig.checkpointed(LOG).unwrap().next_offset, Offset(2));
}

#[test]
fn a_checkpoint_under_load_lags_but_comes() {
    let mut rig = Rig::new(64 << 20);
    rig.append(&plain(&[b"a"]));
    let mut seen = Vec::new();
    for _ in 0..40 {
        // Every round leaves the next one something to write.
        rig.hold_kinds = vec!["write", "durable write"];
        rig.produce(&plain(&[&value(100_000)]));
        rig.run_for(100_000_000);
        rig.produce(&plain(&[&value(100_000)]));
        rig.hold_kinds.clear();
        while !rig.held.is_empty() {
            rig.finish_held(0, None);
        }
        rig.hold_kinds = vec!["write", "durable write"];
        rig.run();
        seen.extend(rig.checkpointed(LOG).map(|entry| entry.next_offset));
    }
    seen.dedup();
    assert!(seen.len() >= 3, "checkpoints at {seen:?}");
    rig.restart();
    assert!(damages(&rig).is_empty());
}

#[test]
fn a_start_forgets_the_producers_that_were_forgotten_before() {
    let mut rig = Rig::new(64 << 10);
    let stamp = |sequence| ProducerStamp {
        id: ProducerId(9),
        epoch: ProducerEpoch(0),
        first_sequence: Sequence(sequence),
    };
    rig.append(&batch(&[b"once"], stamp(0)));
    rig.now.unix_us += 8 * 24 * 3_600 * 1_000_000;
    for _ in 0..5 {
        rig.append(&plain(&[&value(40_000)]));
    }
    let refused = |rig: &mut Rig| {
        let request = rig.produce(&batch(&[b"twice"], stamp(1)));
        rig.run();
        assert_eq!(rig.produced(request), Err(ErrorCode::UnknownProducer));
    };
    refused(&mut rig);
    // Nothing but the log itself remembers.
    rig.sides.clear();
    rig.checkpoint = None;
    rig.restart();
    refused(&mut rig);
}

#[test]
fn recoveries_share_a_budget_of_memory() {
    let mut rig = Rig::new(64 << 10);
    let large = plain(&[&value(7 << 20)]);
    for partition in 1..=12 {
        rig.open(log(partition));
        let produced = rig.produce_to(log(partition), &large);
        rig.run();
        assert_eq!(rig.produced(produced), Ok(Offset(0)));
    }
    rig.checkpoint = None;
    rig.crash();
    rig.hold_kinds = vec!["read"];
    for partition in 1..=12 {
        rig.open(log(partition));
    }
    rig.run();
    let mut most = 0;
    while !rig.held.is_empty() {
        most = most.max(rig.shard.counters().buffer_bytes);
        rig.finish_held(0, None);
        rig.run();
    }
    assert!(most <= 24 << 20, "{most} bytes at once");
    assert!(rig.shard.all_open());
}

#[test]
fn a_partition_of_an_old_epoch_is_read_only_and_can_be_deleted() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.run_for(1_200_000_000);
    rig.crash();
    rig.leader_epoch = 0;
    rig.open(LOG);
    rig.run();
    let produced = rig.produce(&plain(&[b"b"]));
    assert_eq!(rig.read_from(0, 1).len(), 1);
    assert_eq!(rig.produced(produced), Err(ErrorCode::StorageFailed));
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.run();
    assert!(rig.notes.contains(&Note::Deleted { log: LOG }));
    assert!(rig.files.is_empty());
}

/// Empty ones are open at once, each of them: thousands in a row behind those that take a while.
#[test]
fn a_start_with_many_empty_partitions_among_others_is_no_deeper_for_it() {
    const PARTITIONS: u32 = 20_000;
    let mut rig = Rig::without_partitions(super::rig::shard_config(), 64 << 10);
    for partition in 0..100 {
        rig.open(log(partition));
    }
    rig.run();
    for partition in 0..100 {
        rig.produce_to(log(partition), &plain(&[b"x"]));
    }
    rig.run_for(1_200_000_000);
    rig.crash();
    for partition in 0..PARTITIONS {
        rig.open(log(partition));
    }
    rig.run_for(1_000_000);
    assert!(rig.shard.all_open());
    assert_eq!(rig.shard.counters().partitions, u64::from(PARTITIONS));
}

/// A start finds the segment that a checkpoint names by its name. Where the checkpoint can't be
/// used, what producers have sent to segments that were removed is forgotten.
#[test]
fn a_checkpoint_waits_until_its_segment_has_a_name() {
    let mut rig = Rig::new(64 << 10);
    for _ in 0..4 {
        rig.append(&plain(&[&value(30_000)]));
    }
    rig.run_for(1_200_000_000);
    let before = rig.checkpointed(LOG).expect("everything has its name");
    rig.hold_kinds = vec!["name"];
    rig.append(&plain(&[&value(60_000)]));
    rig.run_for(3_000_000_000);
    assert_eq!(rig.checkpointed(LOG), Some(before));
    rig.release();
    rig.run_for(1_200_000_000);
    assert_eq!(rig.checkpointed(LOG).unwrap().next_offset, Offset(5));
}
