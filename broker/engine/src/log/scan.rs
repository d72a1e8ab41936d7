//! Reading one segment forward from a known position, batch by batch, up to the first thing that
//! isn't the log's next batch. Shared by recovery and by the rebuilding of side files.

use ringway_wire::batch::BatchHeader;
use ringway_wire::limits::BATCH_HEADER_BYTES;
use ringway_wire::{LogId, Offset, Position};

use crate::device::SegmentName;
use crate::limits::{block_ceil, block_floor};
use crate::log::chain::{Chain, Refusal, check_body};
use crate::log::epochs::Epochs;
use crate::log::index::SparseIndex;
use crate::log::limits::{
    PRODUCER_EXPIRY_US, RECOVERY_READ_BYTES_MAX, RECOVERY_READ_BYTES_MIN, RECOVERY_READ_GROWTH,
};
use crate::log::producers::Producers;
use crate::log::side::Side;

/// The device couldn't read what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device can't read the segment")]
pub struct ReadFailed;

/// What follows from the batches up to a point in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) chain: Chain,
    pub(super) epochs: Epochs,
    pub(super) producers: Producers,
}

impl Replay {
    /// The start of a log of which nothing is known before `offset`.
    pub(super) const fn start(log_id: LogId, offset: Offset) -> Self {
        Self {
            chain: Chain::start(log_id, offset),
            epochs: Epochs::new(),
            producers: Producers::new(),
        }
    }

    /// The state behind a sealed segment.
    pub(super) fn after(side: &Side) -> Self {
        let latest = side.epochs.latest();
        Self {
            chain: Chain {
                log_id: side.log_id,
                next_offset: side.next_offset,
                last_header_crc: Some(side.last_header_crc),
                last_epoch: latest.map_or_else(Default::default, |latest| latest.epoch),
                last_append_time_us: side.last_append_time_us,
            },
            epochs: side.epochs.clone(),
            producers: side.producers.clone(),
        }
    }

    /// The log goes on in another segment: the time to forget producers, as when it was written.
    fn begin_segment(&mut self) {
        let last_us = self.chain.last_append_time_us;
        self.producers
            .expire(last_us.saturating_sub(PRODUCER_EXPIRY_US));
    }

    fn apply(&mut self, header: &BatchHeader) {
        self.chain.advance(header);
        self.epochs.observe(header.leader_epoch, header.base_offset);
        self.producers.record(header);
    }
}

/// What comes after a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// Another read.
    More,
    /// Nothing: the segment's batches end at [`Scan::position`].
    Ended(Refusal),
}

/// A segment being read.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) name: SegmentName,
    pub(super) base: Offset,
    pub(super) file_bytes: u64,
    /// End of the batches accepted so far.
    pub(super) position: Position,
    pub(super) index: SparseIndex,
    /// The bytes from the block's start up to `position`; `None` while they weren't read.
    pub(super) tail: Option<Vec<u8>>,
    /// Bytes from `position` on that are needed to go on.
    needed: u64,
    /// Bytes of the next read, if not more are needed.
    read_bytes: u64,
}

impl Scan {
    /// A scan of the segment from its start.
    pub(super) fn new(name: SegmentName, base: Offset, file_bytes: u64) -> Self {
        let index = SparseIndex::new(base, file_bytes);
        Self::resume(name, file_bytes, Position(0), index)
    }

    /// A scan from `position` on, up to which `index` knows the segment.
    pub(super) fn resume(
        name: SegmentName,
        file_bytes: u64,
        position: Position,
        index: SparseIndex,
    ) -> Self {
        let aligned = block_floor(position.0) == position.0;
        Self {
            name,
            base: index.start(),
            file_bytes,
            position,
            index,
            tail: aligned.then(Vec::new),
            needed: BATCH_HEADER_BYTES as u64,
            read_bytes: RECOVERY_READ_BYTES_MIN,
        }
    }

    /// The next read: where, and how many bytes, both whole blocks. `None` when the file has
    /// nothing more to say.
    pub(super) fn wanted(&self) -> Option<(Position, usize)> {
        if self.left() < BATCH_HEADER_BYTES as u64 && self.tail.is_some() {
            return None;
        }
        let start = block_floor(self.position.0);
        let end = block_ceil(self.position.0 + self.needed).max(start + self.read_bytes);
        let end = end.min(block_ceil(self.file_bytes.max(self.position.0)));
        Some((Position(start), (end - start) as usize))
    }

    fn left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.position.0)
    }

    /// Takes the bytes of the read that was wanted; fewer only where the file ends.
    pub(super) fn read(&mut self, replay: &mut Replay, bytes: &[u8]) -> Scanned {
        let start = block_floor(self.position.0);
        if self
            .wanted()
            .is_some_and(|(_, wanted)| bytes.len() < wanted)
        {
            self.file_bytes = self.file_bytes.min(start + bytes.len() as u64);
        }
        self.read_bytes = (self.read_bytes * RECOVERY_READ_GROWTH).min(RECOVERY_READ_BYTES_MAX);
        let outcome = loop {
            let rest = bytes
                .get((self.position.0 - start) as usize..)
                .unwrap_or_default();
            match self.next(replay, rest) {
                Ok(true) => {}
                Ok(false) => break Scanned::More,
                Err(refusal) => break Scanned::Ended(refusal),
            }
        };
        let block = block_floor(self.position.0);
        let tail = bytes.get((block - start) as usize..(self.position.0 - start) as usize);
        self.tail = tail.map(<[u8]>::to_vec).or(self.tail.take());
        outcome
    }

    /// Accepts the batch at the start of `rest`; `false` when more of it has to be read.
    fn next(&mut self, replay: &mut Replay, rest: &[u8]) -> Result<bool, Refusal> {
        self.needed = BATCH_HEADER_BYTES as u64;
        if self.left() < self.needed {
            return Err(Refusal::FileEnds);
        }
        if rest.len() < BATCH_HEADER_BYTES {
            return Ok(false);
        }
        let header = replay.chain.header(rest)?;
        let batch_bytes = u64::from(header.batch_bytes);
        if batch_bytes > self.left() {
            return Err(Refusal::BeyondFile {
                batch_bytes,
                left: self.left(),
            });
        }
        let Some(batch) = rest.get(..header.batch_bytes as usize) else {
            self.needed = batch_bytes;
            return Ok(false);
        };
        check_body(&header, batch)?;
        self.index
            .add(header.base_offset, self.position, header.append_time_us);
        if self.position.0 == 0 {
            replay.begin_segment();
        }
        replay.apply(&header);
        self.position = self.position.plus(batch_bytes);
        Ok(true)
    }

    /// Takes that the read failed. Less is asked for first, so that one bad block costs only the
    /// batches in it.
    pub(super) fn failed(&mut self) -> Scanned {
        let (least, asked) = (
            self.least(),
            self.wanted().map_or(0, |(_, bytes)| bytes as u64),
        );
        if asked > least {
            self.read_bytes = RECOVERY_READ_BYTES_MIN;
            return Scanned::More;
        }
        Scanned::Ended(Refusal::Unreadable)
    }

    /// Bytes of the shortest read that can be of use.
    fn least(&self) -> u64 {
        let start = block_floor(self.position.0);
        let needed = block_ceil(self.position.0 + self.needed) - start;
        needed.max(RECOVERY_READ_BYTES_MIN)
    }

    /// The segment's side file, if its batches end here.
    pub(super) fn side(&self, replay: &Replay) -> Side {
        Side {
            log_id: replay.chain.log_id,
            base_offset: self.base,
            next_offset: replay.chain.next_offset,
            end: self.position,
            last_header_crc: replay.chain.last_header_crc.unwrap_or(0),
            last_append_time_us: replay.chain.last_append_time_us,
            index: self.index.clone(),
            epochs: replay.epochs.clone(),
            producers: replay.producers.clone(),
        }
    }
}
