//! Batches as the simulated clients send them, each recognisable wherever it turns up.

use std::rc::Rc;

use ringway_wire::batch::{BatchBuilder, BatchBytes, BatchLimits, ProducerStamp, RecordRef};
use ringway_wire::limits::{BATCH_HEADER_BYTES, LEADER_PART_BYTES};
use ringway_wire::{ProducerId, Sequence};

use crate::random::Random;

/// Ordinal of a batch among all that were ever made in a run.
pub(super) type BatchNumber = usize;

/// How large the batches of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// One to a few records of up to 200 bytes.
    Small,
    /// Exactly so many bytes, of one record: batches end where blocks end.
    Exact(usize),
    /// Anything up to 20 KiB.
    Mixed,
    /// Up to 300 KiB: more than one durable write takes, and than one segment.
    Large,
    /// Now and then 5 MB: segments that are not filled whole when they are prepared, and writes
    /// beyond what was filled.
    Huge,
}

impl Sizes {
    pub(super) fn draw(random: &mut Random) -> Self {
        if random.chance(10) {
            return Self::Huge;
        }
        match random.below(10) {
            0..3 => Self::Small,
            3 => Self::Exact(2048),
            4 => Self::Exact(4096),
            5 => Self::Exact([512, 1024, 8192][random.index(3)]),
            6..9 => Self::Mixed,
            _ => Self::Large,
        }
    }

    /// Lengths of the values of a batch's records.
    fn values(self, random: &mut Random) -> Vec<usize> {
        let some = |random: &mut Random, count_max, bytes_max| {
            let count = random.between(1, count_max);
            (0..count)
                .map(|_| random.below(bytes_max) as usize)
                .collect()
        };
        match self {
            Self::Small => some(random, 4, 200),
            Self::Exact(bytes) => {
                // Header, one entry, the key, the root.
                vec![bytes - BATCH_HEADER_BYTES - 32 - KEY_BYTES - 16]
            }
            Self::Mixed => match random.below(3) {
                0 => some(random, 2, 100),
                1 => some(random, 40, 500),
                _ => vec![random.below(20_000) as usize],
            },
            Self::Huge => match random.below(12) {
                0 => vec![1_000_000; 5],
                1 => vec![random.between(100_000, 300_000) as usize],
                _ => some(random, 3, 2_000),
            },
            Self::Large => match random.below(4) {
                0..2 => some(random, 3, 2_000),
                2 => vec![random.below(40_000) as usize],
                _ => vec![random.between(100_000, 300_000) as usize],
            },
        }
    }
}

const KEY_BYTES: usize = 16;

/// A batch that a client made.
#[derive(Debug)]
pub(super) struct Sent {
    /// Ordinal of the partition that it is for.
    pub(super) log: usize,
    pub(super) bytes: BatchBytes,
    pub(super) records: u32,
    pub(super) producer: Option<(ProducerId, Sequence)>,
}

impl Sent {
    /// Makes batch `number`.
    pub(super) fn make(
        number: BatchNumber,
        log: usize,
        producer: Option<(ProducerId, Sequence)>,
        sizes: Sizes,
        random: &mut Random,
    ) -> Rc<Self> {
        let mut builder = BatchBuilder::new(BatchLimits {
            bytes_max: 8 << 20,
            records_max: 10_000,
        });
        let mut records = 0;
        for (index, value_bytes) in sizes.values(random).into_iter().enumerate() {
            let mut key = [0; KEY_BYTES];
            key[..8].copy_from_slice(&(number as u64).to_le_bytes());
            key[8..].copy_from_slice(&(index as u64).to_le_bytes());
            let value = vec![(number as u8) ^ (index as u8); value_bytes];
            let record = RecordRef {
                key: Some(&key),
                value: Some(&value),
                ..RecordRef::default()
            };
            builder.push(&record).expect("the batch has room");
            records += 1;
        }
        let stamp = producer.map_or_else(ProducerStamp::default, |(id, first_sequence)| {
            ProducerStamp {
                id,
                first_sequence,
                ..ProducerStamp::default()
            }
        });
        let bytes = builder.seal(stamp).expect("there is a record").bytes;
        Rc::new(Self {
            log,
            bytes,
            records,
            producer,
        })
    }

    /// What never changes on its way: all but the leader's part.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[LEADER_PART_BYTES..]
    }

    /// Which batch this is, by the key of its first record.
    pub(super) fn number(key: Option<&[u8]>) -> Option<BatchNumber> {
        let number = key?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*number) as BatchNumber)
    }
}
