//! Checkpoints: what a shard knows of its partitions, saved every second, so that a start reads
//! only what was written after it. Two slots in turn, so that a torn one leaves the other.

use std::collections::BTreeMap;

use ringway_wire::limits::ALIGNMENT;
use ringway_wire::{
    DecodeError, LeaderEpoch, Offset, PartitionIndex, Position, Reader, TopicId, TopicPartition,
    Writer,
};

use crate::log::codec::{count, illegal, put_varint};
use crate::log::envelope::{self, Assembled, SavedError};
use crate::log::epochs::Epochs;
use crate::log::index::SparseIndex;
use crate::log::limits::CHECKPOINT_INDEX_ENTRIES_MAX;
use crate::log::producers::Producers;

/// The first four bytes: "RWC1" read as little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"RWC1");

/// A partition at a moment of which everything is durable.
///
/// Capture an entry at the log's end and write it once the durable end has passed that point: its
/// producers and epochs are those of the position, neither older nor newer. A segment may be
/// removed only after a checkpoint with a later `log_start` and `segment_base` is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// The partition.
    pub log: TopicPartition,
    /// Base offset of the segment being written; `next_offset` before its first batch, also when
    /// there is no file yet.
    pub segment_base: Offset,
    /// Where the next batch goes in that segment: a proven durable end.
    pub position: Position,
    /// The offset that it gets.
    pub next_offset: Offset,
    /// The first offset still in the log.
    pub log_start: Offset,
    /// The latest leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Header CRC of the last batch; 0 before the first.
    pub last_header_crc: u32,
    /// Append time of the last batch, in microseconds since 1970; `i64::MIN` before the first.
    pub last_append_time_us: i64,
    /// The segment's index. A coarser one of at most [`CHECKPOINT_INDEX_ENTRIES_MAX`] entries is
    /// written, so that a start needs no scan and a checkpoint stays small.
    pub index: SparseIndex,
    /// The leader epochs.
    pub epochs: Epochs,
    /// The producers as after the last batch.
    pub producers: Producers,
}

/// Bytes of the shortest entry.
const ENTRY_ENCODED_BYTES_MIN: usize = 16 + 4 + 4 * 8 + 4 + 4 + 8 + 2 + 1 + 1;

impl CheckpointEntry {
    /// Which of two entries of one partition is the newer, by what only ever rises.
    fn age(&self) -> (LeaderEpoch, Offset, Offset) {
        (self.leader_epoch, self.next_offset, self.log_start)
    }

    /// The entry as it will stand in a checkpoint.
    #[must_use]
    pub fn encoded(&self) -> EncodedEntry {
        EntryFields {
            log: self.log,
            segment_base: self.segment_base,
            position: self.position,
            next_offset: self.next_offset,
            log_start: self.log_start,
            leader_epoch: self.leader_epoch,
            last_header_crc: self.last_header_crc,
            last_append_time_us: self.last_append_time_us,
            index: &self.index,
            epochs: &self.epochs,
            producers: &self.producers,
        }
        .encoded()
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let log = TopicPartition {
            topic: TopicId(reader.u128("topic id")?),
            partition: PartitionIndex(reader.u32("partition")?),
        };
        let segment_base = Offset(reader.u64("segment base")?);
        let entry = Self {
            log,
            segment_base,
            position: Position(reader.u64("position")?),
            next_offset: Offset(reader.u64("next offset")?),
            log_start: Offset(reader.u64("log start")?),
            leader_epoch: LeaderEpoch(reader.u32("leader epoch")?),
            last_header_crc: reader.u32("last header CRC")?,
            last_append_time_us: reader.i64("last append time")?,
            index: SparseIndex::decode(reader, segment_base)?,
            epochs: Epochs::decode(reader)?,
            producers: Producers::decode(reader)?,
        };
        entry.check()?;
        Ok(entry)
    }

    /// Whether the fields agree with each other, as [`Checkpoint::decode`] demands of every entry:
    /// one that doesn't makes the whole checkpoint useless.
    ///
    /// # Errors
    /// [`DecodeError::Illegal`] names the first that doesn't.
    pub fn check(&self) -> Result<(), DecodeError> {
        if self.log_start > self.next_offset {
            return illegal("log start", self.log_start.0);
        }
        let empty = self.position.0 == 0;
        if self.segment_base > self.next_offset || empty != (self.segment_base == self.next_offset)
        {
            return illegal("segment base", self.segment_base.0);
        }
        if !self.position.0.is_multiple_of(ALIGNMENT as u64) {
            return illegal("position", self.position.0);
        }
        Ok(())
    }
}

/// What a [`CheckpointEntry`] says, lent by the partition that it is about.
#[derive(Clone, Copy, Debug)]
pub struct EntryFields<'a> {
    /// As in [`CheckpointEntry`], and so are all the others.
    pub log: TopicPartition,
    /// Base offset of the segment being written.
    pub segment_base: Offset,
    /// Where the next batch goes in that segment.
    pub position: Position,
    /// The offset that it gets.
    pub next_offset: Offset,
    /// The first offset still in the log.
    pub log_start: Offset,
    /// The latest leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Header CRC of the last batch.
    pub last_header_crc: u32,
    /// Append time of the last batch, in microseconds since 1970.
    pub last_append_time_us: i64,
    /// The segment's index, as fine as it is in memory.
    pub index: &'a SparseIndex,
    /// The leader epochs.
    pub epochs: &'a Epochs,
    /// The producers as after the last batch.
    pub producers: &'a Producers,
}

/// Where the segment's base and the log's start stand in an entry's bytes.
const SEGMENT_BASE_AT: usize = 16 + 4;
const LOG_START_AT: usize = SEGMENT_BASE_AT + 3 * 8;

impl EntryFields<'_> {
    /// The entry as it will stand in a checkpoint.
    #[must_use]
    pub fn encoded(&self) -> EncodedEntry {
        let mut out = Writer::default();
        out.u128(self.log.topic.0);
        out.u32(self.log.partition.0);
        out.u64(self.segment_base.0);
        out.u64(self.position.0);
        out.u64(self.next_offset.0);
        debug_assert_eq!(out.len(), LOG_START_AT, "it is patched there");
        out.u64(self.log_start.0);
        out.u32(self.leader_epoch.0);
        out.u32(self.last_header_crc);
        out.i64(self.last_append_time_us);
        let thinned = self.index.thinned(CHECKPOINT_INDEX_ENTRIES_MAX);
        thinned.encode(&mut out);
        self.epochs.encode(&mut out);
        self.producers.encode(&mut out);
        EncodedEntry {
            log: self.log,
            next_offset: self.next_offset,
            bytes: out.into_bytes().into_boxed_slice(),
        }
    }
}

/// An entry in the bytes that a checkpoint has for it: encoded once, when the partition was looked
/// at, and put into every checkpoint until there is a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEntry {
    log: TopicPartition,
    next_offset: Offset,
    bytes: Box<[u8]>,
}

impl EncodedEntry {
    /// The partition.
    #[must_use]
    pub const fn log(&self) -> TopicPartition {
        self.log
    }

    /// The offset behind everything that the entry tells of.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Base offset of the segment that a start reads first.
    #[must_use]
    pub fn segment_base(&self) -> Offset {
        self.offset_at(SEGMENT_BASE_AT)
    }

    /// The first offset still in the log.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.offset_at(LOG_START_AT)
    }

    fn offset_at(&self, at: usize) -> Offset {
        let bytes = self.bytes[at..].first_chunk();
        Offset(u64::from_le_bytes(*bytes.expect("it has every field")))
    }

    /// Raises the first offset that is still in the log. False, and nothing is changed, when that
    /// lies behind what the entry tells of: then only a newer entry can say so.
    pub fn raise_log_start(&mut self, to: Offset) -> bool {
        let told_of = to <= self.next_offset;
        if told_of && to > self.log_start() {
            self.bytes[LOG_START_AT..][..8].copy_from_slice(&to.0.to_le_bytes());
        }
        told_of
    }

    /// Bytes that it takes in a checkpoint.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A checkpoint that is put together entry by entry, so that nobody waits for all of it at once.
#[derive(Debug)]
pub struct Assembly {
    envelope: Assembled,
    generation: u64,
    count: u64,
}

impl Assembly {
    /// Begins a checkpoint of probably so many entries with so many bytes together.
    #[must_use]
    pub fn begin(generation: u64, entries: usize, bytes: usize) -> Self {
        let mut lead = Writer::default();
        lead.u64(generation);
        put_varint(&mut lead, entries as u64);
        Self {
            envelope: Assembled::begin(lead.len(), bytes),
            generation,
            count: 0,
        }
    }

    /// Adds an entry. Each partition has one.
    pub fn push(&mut self, entry: &EncodedEntry) {
        self.count += 1;
        self.envelope.push(&entry.bytes);
    }

    /// The slot's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.envelope.seal(MAGIC, |out| {
            out.u64(self.generation);
            put_varint(out, self.count);
        })
    }
}

/// All partitions of a shard that hold anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Rises by one with each checkpoint that the shard writes.
    pub generation: u64,
    /// The partitions.
    pub entries: Vec<CheckpointEntry>,
}

impl Checkpoint {
    /// The slot's bytes; it may be padded with anything.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut assembly = Assembly::begin(self.generation, self.entries.len(), 0);
        for entry in &self.entries {
            assembly.push(&entry.encoded());
        }
        assembly.finish()
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// [`SavedError`] names the first thing that is wrong; the other slot is to be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let mut reader = envelope::open(MAGIC, bytes)?;
        let generation = reader.u64("generation")?;
        let count = count(
            &mut reader,
            ENTRY_ENCODED_BYTES_MIN,
            usize::MAX,
            "entry count",
        )?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(CheckpointEntry::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self {
            generation,
            entries,
        })
    }
}

/// One of a shard's two places for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `checkpoint-<shard>.a`
    A,
    /// `checkpoint-<shard>.b`
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What a shard's two slots hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The newest checkpoint that can be read, if any.
    pub newest: Option<Checkpoint>,
    /// Where the next one goes: never over the newest.
    pub next_slot: Slot,
    /// Slots that hold something unreadable. One is what a crash in the middle of writing leaves;
    /// two mean that a disk has lost what it had promised to keep.
    pub unreadable: Vec<(Slot, SavedError)>,
}

impl Slots {
    /// Looks through both slots; a slot that is absent, empty or all zeros holds nothing.
    #[must_use]
    pub fn read(a: Option<&[u8]>, b: Option<&[u8]>) -> Self {
        let mut slots = Self {
            newest: None,
            next_slot: Slot::A,
            unreadable: Vec::new(),
        };
        for (slot, bytes) in [(Slot::A, a), (Slot::B, b)] {
            let written = bytes.filter(|bytes| bytes.iter().any(|&byte| byte != 0));
            match written.map(Checkpoint::decode) {
                None => {}
                Some(Err(error)) => slots.unreadable.push((slot, error)),
                Some(Ok(checkpoint)) => {
                    let newest = slots.newest.as_ref().map(|newest| newest.generation);
                    if newest.is_none_or(|newest| newest < checkpoint.generation) {
                        slots.newest = Some(checkpoint);
                        slots.next_slot = slot.other();
                    }
                }
            }
        }
        slots
    }

    /// The generation of the next checkpoint.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.newest
            .as_ref()
            .map_or(0, |newest| newest.generation + 1)
    }
}

/// The newest entry of each partition in the checkpoints of all shards there ever were: a
/// partition may have moved to another shard when their number changed.
#[must_use]
pub fn merge(
    checkpoints: impl IntoIterator<Item = Checkpoint>,
) -> BTreeMap<TopicPartition, CheckpointEntry> {
    let mut merged: BTreeMap<TopicPartition, CheckpointEntry> = BTreeMap::new();
    for entry in checkpoints
        .into_iter()
        .flat_map(|checkpoint| checkpoint.entries)
    {
        match merged.get(&entry.log) {
            Some(newer) if newer.age() >= entry.age() => {}
            _ => drop(merged.insert(entry.log, entry)),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
