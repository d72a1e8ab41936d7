//! Golden bytes of a checkpoint, the choice between slots, and merging across shard counts.

use proptest::prelude::*;
use ringway_wire::batch::BatchHeader;
use ringway_wire::{ProducerEpoch, ProducerId};

use super::*;

fn entry(topic: u128, leader_epoch: u32, next_offset: u64) -> CheckpointEntry {
    let mut index = SparseIndex::new(Offset(1_000), 4 << 20);
    index.add(Offset(1_300), Position(70_000), 2_000);
    let mut epochs = Epochs::new();
    epochs
        .open(LeaderEpoch(leader_epoch), Offset(1_100))
        .unwrap();
    let mut producers = Producers::new();
    producers.record(&BatchHeader {
        producer_id: ProducerId(0xabcd),
        producer_epoch: ProducerEpoch(3),
        base_offset: Offset(1_300),
        append_time_us: 2_000,
        ..BatchHeader::default()
    });
    CheckpointEntry {
        log: TopicPartition {
            topic: TopicId(topic),
            partition: PartitionIndex(2),
        },
        segment_base: Offset(1_000),
        position: Position(80_000),
        next_offset: Offset(next_offset),
        log_start: Offset(500),
        leader_epoch: LeaderEpoch(leader_epoch),
        last_header_crc: 0xdead_beef,
        last_append_time_us: 2_500,
        index,
        epochs,
        producers,
    }
}

fn checkpoint(generation: u64) -> Checkpoint {
    Checkpoint {
        generation,
        entries: vec![entry(7, 4, 2_000), entry(8, 5, 3_000 + generation)],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut lines, line| {
        line.iter().for_each(|byte| lines += &format!("{byte:02x}"));
        lines + "\n"
    })
}

#[test]
fn the_bytes_are_those_of_version_1() {
    assert_eq!(hex(&checkpoint(9).encode()), include_str!("golden.hex"));
}

/// However many entries were expected, the file is the same.
#[test]
fn a_checkpoint_in_steps_is_the_same_file() {
    let entries: Vec<CheckpointEntry> = (0..200).map(|topic| entry(topic, 4, 2_000)).collect();
    let whole = Checkpoint {
        generation: 3,
        entries,
    };
    for expected in [0, 1, 200, 100_000] {
        let mut assembly = Assembly::begin(3, expected, 0);
        for entry in &whole.entries {
            assembly.push(&entry.encoded());
        }
        let bytes = assembly.finish();
        assert_eq!(bytes, whole.encode());
        assert_eq!(Checkpoint::decode(&bytes), Ok(whole.clone()));
    }
}

#[test]
fn an_encoded_entry_learns_that_the_log_begins_later() {
    let mut encoded = entry(7, 4, 2_000).encoded();
    assert_eq!(encoded.log_start(), Offset(500));
    assert!(encoded.raise_log_start(Offset(1_999)));
    assert!(encoded.raise_log_start(Offset(700)), "it never goes back");
    assert!(!encoded.raise_log_start(Offset(2_001)), "it tells of less");
    let raised = CheckpointEntry {
        log_start: Offset(1_999),
        ..entry(7, 4, 2_000)
    };
    assert_eq!(encoded, raised.encoded());
    assert_eq!(encoded.log_start(), Offset(1_999));
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    let good = checkpoint(9).encode();
    assert_eq!(Checkpoint::decode(&good), Ok(checkpoint(9)));
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Checkpoint::decode(&bytes).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(
            Checkpoint::decode(&good[..length]).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let wrong: [fn(&mut CheckpointEntry); 5] = [
        |entry| entry.log_start = Offset(2_001),
        |entry| entry.segment_base = Offset(2_000),
        |entry| entry.segment_base = Offset(2_001),
        |entry| entry.position = Position(0),
        |entry| entry.position = Position(80_001),
    ];
    for (ordinal, wrong) in wrong.into_iter().enumerate() {
        let mut checkpoint = checkpoint(1);
        wrong(&mut checkpoint.entries[0]);
        let refused = Checkpoint::decode(&checkpoint.encode());
        assert!(
            matches!(refused, Err(SavedError::Fields(_))),
            "{ordinal}: {refused:?}"
        );
    }
}

#[test]
fn the_newest_readable_slot_is_used_and_not_overwritten() {
    let (old, new) = (checkpoint(8).encode(), checkpoint(9).encode());
    let mut torn = new.clone();
    torn[40..].fill(0);
    let zeros = vec![0; 4096];
    for (a, b, newest, next_slot, unreadable) in [
        (None, None, None, Slot::A, 0),
        (Some(&zeros), Some(&Vec::new()), None, Slot::A, 0),
        (Some(&old), Some(&new), Some(9), Slot::A, 0),
        (Some(&new), Some(&old), Some(9), Slot::B, 0),
        (Some(&old), Some(&torn), Some(8), Slot::B, 1),
        (Some(&torn), Some(&old), Some(8), Slot::A, 1),
        (Some(&torn), None, None, Slot::A, 1),
        (Some(&torn), Some(&torn), None, Slot::A, 2),
    ] {
        let slots = Slots::read(a.map(Vec::as_slice), b.map(Vec::as_slice));
        assert_eq!(
            slots.newest.as_ref().map(|newest| newest.generation),
            newest
        );
        assert_eq!(slots.next_slot, next_slot);
        assert_eq!(slots.unreadable.len(), unreadable);
        assert_eq!(
            slots.next_generation(),
            newest.map_or(0, |newest| newest + 1)
        );
    }
}

#[test]
fn of_several_entries_the_newest_wins_in_any_order() {
    let one = |entry: CheckpointEntry| Checkpoint {
        generation: entry.next_offset.0,
        entries: vec![entry],
    };
    let newest = entry(7, 5, 1_500);
    let mut checkpoints = [
        one(entry(7, 4, 9_000)),
        one(newest.clone()),
        one(entry(7, 5, 1_400)),
        checkpoint(3),
    ];
    for _ in 0..checkpoints.len() {
        checkpoints.rotate_left(1);
        let merged = merge(checkpoints.clone());
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[&newest.log], newest);
    }
}

#[test]
fn a_large_index_is_written_coarser() {
    let mut entry = entry(7, 5, 2_000);
    entry.index = SparseIndex::new(Offset(1_000), 64 << 20);
    for step in 1..500 {
        entry
            .index
            .add(Offset(1_000 + step), Position(step * 65_536), step as i64);
    }
    let written = Checkpoint {
        generation: 1,
        entries: vec![entry.clone()],
    };
    let read = Checkpoint::decode(&written.encode()).unwrap();
    assert_eq!(
        read.entries[0].index,
        entry.index.thinned(CHECKPOINT_INDEX_ENTRIES_MAX)
    );
}

proptest! {
    /// Fields of any kind under a right CRC: nothing panics, and what is read is consistent.
    #[test]
    fn arbitrary_fields_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let sealed = envelope::seal(MAGIC, |out| out.bytes(&bytes));
        if let Ok(checkpoint) = Checkpoint::decode(&sealed) {
            prop_assert_eq!(checkpoint.encode(), sealed);
        }
        prop_assert!(Checkpoint::decode(&bytes).is_err());
    }
}
