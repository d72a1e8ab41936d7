//! The worst that a recycled segment can hold where this life hasn't written yet: a whole batch of
//! the same log, with the very offset that is due next.

use ringway_engine::device::SegmentName;
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::batch::{
    BatchBuilder, BatchHeader, BatchLimits, CheckedBatch, LeaderStamp, ProducerStamp, RecordRef,
    stamp,
};
use ringway_wire::{LeaderEpoch, Offset, TopicPartition};

use crate::device::SimDevice;
use crate::random::Random;

/// Puts such batches behind the ends of a log's segments, and into those without any; whether
/// there was a place for one.
pub(super) fn haunt(
    device: &mut SimDevice,
    log: TopicPartition,
    epoch: LeaderEpoch,
    random: &mut Random,
) -> bool {
    let mut haunted = false;
    for file in device.list(log) {
        let bytes = device.segment_bytes(log, file.name);
        let (end, next) = match file.name {
            SegmentName::Base(base) => end_of(&bytes, base),
            // It would continue the log wherever that ends.
            SegmentName::Next => match device
                .list(log)
                .iter()
                .rev()
                .find_map(|file| base(file.name))
            {
                Some(base) => {
                    let segment = device.segment_bytes(log, SegmentName::Base(base));
                    (0, end_of(&segment, base).1)
                }
                None => (0, Offset(0)),
            },
        };
        if end.is_multiple_of(BLOCK_BYTES) {
            let ghost = ghost(log, next, epoch, random);
            haunted |= device.choose_former_life(log, file.name, end / BLOCK_BYTES, &ghost);
        }
    }
    haunted
}

const fn base(name: SegmentName) -> Option<Offset> {
    match name {
        SegmentName::Base(base) => Some(base),
        SegmentName::Next => None,
    }
}

/// Where the batches of a segment end, and the offset that is due there.
fn end_of(bytes: &[u8], base: Offset) -> (usize, Offset) {
    let (mut at, mut next) = (0, base);
    while let Some(header) = batch_at(&bytes[at..], next) {
        at += header.batch_bytes as usize;
        next = header.next_offset();
    }
    (at, next)
}

fn batch_at(bytes: &[u8], offset: Offset) -> Option<BatchHeader> {
    let aligned = {
        let mut aligned = ringway_wire::batch::BatchBytes::new();
        let header = ringway_wire::batch::check_header(bytes, true).ok()?;
        aligned.extend_from_slice(bytes.get(..header.batch_bytes as usize)?);
        aligned
    };
    let batch = CheckedBatch::check(&aligned).ok()?;
    (batch.header().base_offset == offset).then(|| *batch.header())
}

/// A whole, well-formed batch that was never appended in this life.
fn ghost(
    log: TopicPartition,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    random: &mut Random,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let record = RecordRef {
        value: Some(b"from a former life"),
        ..RecordRef::default()
    };
    builder.push(&record).expect("the batch has room");
    let mut bytes = builder
        .seal(ProducerStamp::default())
        .expect("there is a record")
        .bytes;
    let leader = LeaderStamp {
        log_id: log.log_id(),
        base_offset,
        append_time_us: i64::MAX / 2,
        leader_epoch,
        prev_header_crc: random.next_u64() as u32,
    };
    stamp(&mut bytes, &leader);
    bytes.to_vec()
}
