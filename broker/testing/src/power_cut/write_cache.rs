//! The volatile write cache, as a pure machine: it holds writes in the order of their arrival, lays
//! them over what is durable, gives them out at a sync, and decides their fate at a cut.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::random::Random;

/// What the cache counts in. A logical block has one or eight of them.
pub(super) const SECTOR_BYTES: usize = 512;

/// A run of bytes at an offset of the image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) bytes: Arc<[u8]>,
    /// The part of `bytes` that counts, and what lies at `offset + part.start`.
    pub(super) part: Range<usize>,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    offset: u64,
    bytes: Arc<[u8]>,
}

/// The newest version of a sector that isn't durable yet.
#[derive(Debug)]
struct Newest {
    number: u64,
    bytes: Arc<[u8]>,
    at: usize,
}

/// Writes that aren't durable yet.
#[derive(Debug, Default)]
pub(super) struct WriteCache {
    pending: VecDeque<Pending>,
    newest: HashMap<u64, Newest>,
    bytes: usize,
    arrived: u64,
}

impl WriteCache {
    /// Takes a write; offset and length are multiples of a sector.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(
            is_aligned(offset, bytes.len()),
            "the layer refuses unaligned writes"
        );
        let bytes: Arc<[u8]> = bytes.into();
        let number = self.arrived;
        self.arrived += 1;
        self.bytes += bytes.len();
        for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
            let newest = Newest {
                number,
                bytes: Arc::clone(&bytes),
                at,
            };
            self.newest.insert(sector_of(offset + at as u64), newest);
        }
        self.pending.push_back(Pending {
            number,
            offset,
            bytes,
        });
    }

    /// Replaces, in bytes read from what is durable, those for which there is something newer.
    pub(super) fn lay_over(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset + buffer.len() as u64;
        let mut position = offset;
        while position < end {
            let within = (position % SECTOR_BYTES as u64) as usize;
            let length = (SECTOR_BYTES - within).min((end - position) as usize);
            if let Some(newest) = self.newest.get(&sector_of(position)) {
                let into = (position - offset) as usize;
                let from = newest.at + within;
                buffer[into..into + length].copy_from_slice(&newest.bytes[from..from + length]);
            }
            position += length as u64;
        }
    }

    /// How many writes have arrived: what a sync that comes in now covers.
    pub(super) fn mark(&self) -> u64 {
        self.arrived
    }

    /// Bytes held, each write counted whole.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives out the writes before `mark`, to be made durable in this order.
    pub(super) fn take_before(&mut self, mark: u64) -> Vec<Run> {
        let mut taken = Vec::new();
        while let Some(pending) = self.pop_before(mark) {
            for sector in sectors(pending.offset, pending.bytes.len()) {
                if self
                    .newest
                    .get(&sector)
                    .is_some_and(|newest| newest.number == pending.number)
                {
                    self.newest.remove(&sector);
                }
            }
            let part = 0..pending.bytes.len();
            taken.push(Run {
                offset: pending.offset,
                bytes: pending.bytes,
                part,
            });
        }
        taken
    }

    /// Gives out the oldest writes until at most `bytes` are left.
    pub(super) fn take_down_to(&mut self, bytes: usize) -> Vec<Run> {
        let mut excess = self.bytes.saturating_sub(bytes);
        let oldest = self.pending.iter().take_while(|pending| {
            let more = excess > 0;
            excess = excess.saturating_sub(pending.bytes.len());
            more
        });
        let mark = oldest.last().map_or(0, |pending| pending.number + 1);
        self.take_before(mark)
    }

    /// The writes before `mark` will never be durable, but read back until they're overwritten.
    pub(super) fn doom_before(&mut self, mark: u64) {
        while self.pop_before(mark).is_some() {}
    }

    fn pop_before(&mut self, mark: u64) -> Option<Pending> {
        if self.pending.front()?.number >= mark {
            return None;
        }
        let pending = self.pending.pop_front()?;
        self.bytes -= pending.bytes.len();
        Some(pending)
    }

    /// Decides what becomes durable at a cut. Says nothing about order: `survivors` are to be
    /// written in the order given.
    pub(super) fn decide(&self, seed: u64, block_bytes: usize) -> Fate {
        let mut fate = Fate {
            survivors: Vec::new(),
            report: CutReport::new(seed),
        };
        let mood = Mood::draw(&mut Random::new(seed));
        let mut versions: HashMap<u64, u64> = HashMap::new();
        for pending in &self.pending {
            let version = versions.entry(pending.offset).or_default();
            let length = pending.bytes.len();
            // By what the write is, not by when it came: threads race, and a seed should not.
            let item = [pending.offset, length as u64, *version];
            *version += 1;
            let kept = mood.keep(&mut Random::for_item(seed, &item), length / block_bytes);
            fate.report
                .count(pending.offset, length, &kept, block_bytes);
            fate.survivors.extend(kept.into_iter().map(|blocks| Run {
                offset: pending.offset,
                bytes: Arc::clone(&pending.bytes),
                part: blocks.start * block_bytes..blocks.end * block_bytes,
            }));
        }
        fate
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self {
            arrived: self.arrived,
            ..Self::default()
        };
    }
}

/// What a cut does to the writes in the cache.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) survivors: Vec<Run>,
    pub(super) report: CutReport,
}

/// How a cut treats the writes, per mille. Drawn per cut, so that some cuts lose all, some lose
/// nearly nothing, and most do something between.
#[derive(Debug)]
struct Mood {
    keep: u64,
    tear: u64,
}

impl Mood {
    fn draw(random: &mut Random) -> Self {
        let keep = [0, 100, 300, 500, 700, 900][random.below(6) as usize];
        let tear = if keep == 0 {
            0
        } else {
            [0, 200, 500, 1000][random.below(4) as usize]
        };
        Self { keep, tear }
    }

    /// Which blocks of a write are kept.
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "one run of blocks is what is meant"
    )]
    fn keep(&self, random: &mut Random, blocks: usize) -> Vec<Range<usize>> {
        if blocks < 2 || !random.chance(self.tear) {
            return if random.chance(self.keep) {
                vec![0..blocks]
            } else {
                Vec::new()
            };
        }
        let cut = 1 + random.below(blocks as u64 - 1) as usize;
        match random.below(3) {
            0 => vec![0..cut],
            1 => vec![cut..blocks],
            _ => (0..blocks)
                .filter(|_| random.chance(500))
                .map(|block| block..block + 1)
                .collect(),
        }
    }
}

/// What a cut did, or would do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CutReport {
    /// The seed that repeats it, given the same un-synced writes.
    pub seed: u64,
    /// Writes that no sync had covered.
    pub unsynced_writes: u64,
    /// Those of which only a part became durable.
    pub torn_writes: u64,
    /// Sectors of 512 bytes, counted per write, that became durable.
    pub kept_sectors: u64,
    /// Sectors of 512 bytes, counted per write, that were dropped.
    pub dropped_sectors: u64,
    /// What was dropped, as ranges of bytes of the image, in the order of the writes.
    pub dropped: Vec<Range<u64>>,
}

impl CutReport {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            unsynced_writes: 0,
            torn_writes: 0,
            kept_sectors: 0,
            dropped_sectors: 0,
            dropped: Vec::new(),
        }
    }

    fn count(&mut self, offset: u64, length: usize, kept: &[Range<usize>], block_bytes: usize) {
        let mut position = 0;
        let mut dropped_bytes = 0;
        let end = length..length;
        let kept = kept
            .iter()
            .map(|run| run.start * block_bytes..run.end * block_bytes);
        for run in kept.chain([end]) {
            if position < run.start {
                dropped_bytes += run.start - position;
                self.dropped
                    .push(offset + position as u64..offset + run.start as u64);
            }
            position = run.end;
        }
        let kept_bytes = length - dropped_bytes;
        self.unsynced_writes += 1;
        self.torn_writes += u64::from(dropped_bytes > 0 && kept_bytes > 0);
        self.kept_sectors += (kept_bytes / SECTOR_BYTES) as u64;
        self.dropped_sectors += (dropped_bytes / SECTOR_BYTES) as u64;
    }
}

impl fmt::Display for CutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cut with seed {}: {} un-synced writes, {} of them torn, {} sectors kept, {} dropped",
            self.seed,
            self.unsynced_writes,
            self.torn_writes,
            self.kept_sectors,
            self.dropped_sectors
        )
    }
}

/// Whether a write starts and ends on sectors.
pub(super) fn is_aligned(offset: u64, length: usize) -> bool {
    offset.is_multiple_of(SECTOR_BYTES as u64) && length.is_multiple_of(SECTOR_BYTES)
}

/// The sector that a byte of the image is in.
pub(super) fn sector_of(offset: u64) -> u64 {
    offset / SECTOR_BYTES as u64
}

fn sectors(offset: u64, length: usize) -> Range<u64> {
    sector_of(offset)..sector_of(offset + length as u64)
}

#[cfg(test)]
mod tests;
