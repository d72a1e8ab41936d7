//! Every single flipped bit in a segment is found, and named where it is; behind it the log goes
//! on.

use std::ops::Range;

use ringway_engine::buffer::{Block, Pool};
use ringway_wire::batch::{
    BatchBuilder, BatchLimits, LeaderStamp, ProducerStamp, RecordRef, at, stamp,
};
use ringway_wire::{LeaderEpoch, LogId};

use super::*;

const LOG: LogId = LogId(0x1122_3344_5566_7788);

/// A segment in memory, a part of which may be unreadable.
struct Memory {
    bytes: Block,
    length: usize,
    bad: Range<usize>,
}

impl Memory {
    fn new(content: &[u8]) -> Self {
        let mut bytes = Pool::new(0).take(content.len());
        bytes[..content.len()].copy_from_slice(content);
        Self {
            bytes,
            length: content.len(),
            bad: 0..0,
        }
    }
}

impl Source for Memory {
    fn bytes(&mut self, position: u64, wanted: usize) -> Result<&[u8], ReadFailed> {
        let start = (position as usize).min(self.length);
        let end = (start + wanted).min(self.length);
        if start < self.bad.end && end > self.bad.start {
            return Err(ReadFailed);
        }
        Ok(&self.bytes[start..end])
    }
}

/// A segment of `batches` batches with three records each, and where each begins.
fn segment(batches: usize) -> (Vec<u8>, Vec<u64>) {
    let (mut bytes, mut positions) = (Vec::new(), Vec::new());
    let mut prev_header_crc = 0;
    for ordinal in 0..batches {
        let mut builder = BatchBuilder::new(BatchLimits::default());
        for record in 0..3 {
            let value = format!("batch {ordinal}, record {record}");
            let record = RecordRef {
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                timestamp_us: 1_000,
                ..RecordRef::default()
            };
            builder.push(&record).unwrap();
        }
        let sealed = builder.seal(ProducerStamp::default()).unwrap();
        let mut batch = sealed.bytes.to_vec();
        let leader = LeaderStamp {
            log_id: LOG,
            base_offset: Offset(3 * ordinal as u64),
            append_time_us: 5_000 + ordinal as i64,
            leader_epoch: LeaderEpoch(1 + ordinal as u32 / 4),
            prev_header_crc,
        };
        prev_header_crc = stamp(&mut batch, &leader);
        positions.push(bytes.len() as u64);
        bytes.extend_from_slice(&batch);
    }
    positions.push(bytes.len() as u64);
    (bytes, positions)
}

fn walk(memory: &mut Memory, batches: usize) -> Vec<Step> {
    let end = Offset(3 * batches as u64);
    let chain = Chain::start(LOG, Offset(0));
    let mut walk = Walk::new(chain, memory.length as u64, end);
    let steps: Vec<_> = std::iter::from_fn(|| walk.next(memory)).collect();
    assert!(walk.chain.next_offset >= end, "a walk comes to its end");
    steps
}

/// The places of what is wrong, and the words for it.
fn defects(steps: &[Step]) -> Vec<(u64, &'static str)> {
    let defect = |step: &Step| match step {
        Step::Batch {
            position,
            defect: Some(defect),
            ..
        }
        | Step::Broken {
            position, defect, ..
        } => Some((*position, defect.kind())),
        Step::Batch { .. } => None,
    };
    steps.iter().filter_map(defect).collect()
}

fn whole(steps: &[Step]) -> usize {
    let is_whole = |step: &&Step| matches!(step, Step::Batch { defect: None, .. });
    steps.iter().filter(is_whole).count()
}

#[test]
fn a_whole_segment_has_its_batches_and_what_is_behind_them_does_not_matter() {
    let (mut bytes, _) = segment(9);
    bytes.extend_from_slice(&[0x5a; 777]);
    let steps = walk(&mut Memory::new(&bytes), 9);
    assert_eq!((steps.len(), whole(&steps)), (9, 9));
}

#[test]
fn every_flipped_bit_is_found_in_its_batch_and_costs_no_other() {
    let (good, positions) = segment(5);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let steps = walk(&mut Memory::new(&bytes), 5);
        let found = defects(&steps);
        let batch = positions.partition_point(|&start| start <= bit as u64 / 8) - 1;
        assert_eq!(found.len(), 1, "bit {bit}: {found:?}");
        assert_eq!(found[0].0, positions[batch], "bit {bit}: {found:?}");
        assert_eq!(whole(&steps), 4, "bit {bit}: {steps:?}");
    }
}

#[test]
fn what_is_cut_out_is_named_by_its_offsets() {
    let (good, at) = segment(6);
    let mut bytes = good[..at[2] as usize].to_vec();
    bytes.extend_from_slice(&good[at[4] as usize..]);
    let steps = walk(&mut Memory::new(&bytes), 6);
    let Step::Broken {
        position,
        from,
        to,
        resumed,
        defect,
    } = &steps[2]
    else {
        panic!("{steps:?}");
    };
    let range = (*position, *from, *to, *resumed);
    assert_eq!(range, (at[2], Offset(6), Offset(12), Some(at[2])));
    assert_eq!(defect.kind(), "gap");
    assert_eq!(whole(&steps), 4);
}

#[test]
fn zeros_over_several_batches_are_one_finding() {
    let (mut bytes, at) = segment(6);
    bytes[at[1] as usize + 20..at[4] as usize - 20].fill(0);
    let steps = walk(&mut Memory::new(&bytes), 6);
    let Step::Broken {
        position,
        from,
        to,
        resumed,
        ..
    } = &steps[1]
    else {
        panic!("{steps:?}");
    };
    let range = (*position, *from, *to, *resumed);
    assert_eq!(range, (at[1], Offset(3), Offset(12), Some(at[4])));
    assert_eq!(whole(&steps), 3);
}

#[test]
fn a_segment_that_ends_early_lacks_the_rest() {
    let (mut bytes, at) = segment(6);
    bytes.truncate(at[4] as usize + 100);
    let found = defects(&walk(&mut Memory::new(&bytes), 6));
    assert_eq!(found, [(at[4], "missing")]);
    bytes.truncate(at[4] as usize);
    let found = defects(&walk(&mut Memory::new(&bytes), 6));
    assert_eq!(found, [(at[4], "missing")]);
}

#[test]
fn a_batch_of_another_partition_or_life_does_not_pass() {
    let (good, at) = segment(6);
    let restamped = |change: fn(&mut LeaderStamp)| {
        let mut bytes = good.clone();
        let batch = &mut bytes[at[2] as usize..at[3] as usize];
        let header = check_header(batch, true).unwrap();
        let mut leader = LeaderStamp {
            log_id: header.log_id,
            base_offset: header.base_offset,
            append_time_us: header.append_time_us,
            leader_epoch: header.leader_epoch,
            prev_header_crc: header.prev_header_crc,
        };
        change(&mut leader);
        stamp(batch, &leader);
        defects(&walk(&mut Memory::new(&bytes), 6))
    };
    type Case = (fn(&mut LeaderStamp), &'static str);
    let cases: [Case; 5] = [
        (|leader| leader.log_id.0 ^= 1, "other_log"),
        (|leader| leader.base_offset.0 -= 3, "gap"),
        (|leader| leader.leader_epoch.0 -= 1, "epoch"),
        (|leader| leader.prev_header_crc ^= 1, "chain"),
        (|leader| leader.append_time_us -= 2, "time"),
    ];
    for (change, kind) in cases {
        let found = restamped(change);
        assert_eq!(found[0], (at[2], kind), "{found:?}");
    }
}

#[test]
fn a_defect_that_no_crc_shows_is_found() {
    let (mut bytes, at) = segment(3);
    let start = at[1] as usize;
    // A record's own CRC, then the batch's anew: what a defect of a producer would make.
    bytes[start + BATCH_HEADER_BYTES + 8] ^= 1;
    let body = crc32c::crc32c(&bytes[start + at::BATCH_BYTES..at[2] as usize]);
    bytes[start + at::BODY_CRC..][..4].copy_from_slice(&body.to_le_bytes());
    let header = check_header(&bytes[start..], false).unwrap();
    let leader = LeaderStamp {
        log_id: header.log_id,
        base_offset: header.base_offset,
        append_time_us: header.append_time_us,
        leader_epoch: header.leader_epoch,
        prev_header_crc: header.prev_header_crc,
    };
    stamp(&mut bytes[start..at[2] as usize], &leader);
    let found = defects(&walk(&mut Memory::new(&bytes), 3));
    assert_eq!(found[0], (at[1], "record_crc"));
    // The batch behind it followed the one that it was.
    assert_eq!(found[1], (at[2], "chain"));
}

#[test]
fn an_unreadable_block_costs_what_is_in_it() {
    let (bytes, at) = segment(60);
    let mut memory = Memory::new(&bytes);
    memory.bad = 4096..8192;
    let steps = walk(&mut memory, 60);
    let found = defects(&steps);
    let first = at.partition_point(|&start| start <= 4096) - 1;
    let next = at.partition_point(|&start| start < 8192);
    assert!(
        found.iter().all(|(_, kind)| *kind == "unreadable"),
        "{found:?}"
    );
    assert_eq!(found[0].0, at[first]);
    assert_eq!(whole(&steps), 60 - (next - first));
}
