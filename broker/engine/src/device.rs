//! What the engine asks of a disk and what it hears back. Drivers carry the operations out; the
//! simulator carries them out on a disk that fails on purpose.

pub mod conformance;

use ringway_wire::{Offset, Position, TopicPartition};

use crate::buffer::{Block, Slice};

/// A segment file, by a number that the engine gives it; never used again in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// One operation; never used again in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A segment's name in its partition's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentName {
    /// `<base offset>.log`, 20 digits.
    Base(Offset),
    /// `next.log`: prepared ahead; becomes the next segment when the one before it is full.
    Next,
}

/// An operation on the shard's files.
#[derive(Debug)]
pub enum Op {
    /// Writes the parts one behind the other. Position, addresses and lengths are whole blocks;
    /// the file is already that long. With `durable`, on stable storage when done (RWF_DSYNC),
    /// this write alone.
    Write {
        /// The file.
        file: FileId,
        /// Where in the file; a multiple of the block.
        position: Position,
        /// The bytes, each part a multiple of the block long.
        parts: Vec<Slice>,
        /// Whether the write itself has to be durable when done.
        durable: bool,
    },
    /// Makes durable every write of any file that was done before this was submitted: flushes the
    /// device. Metadata of files (size, name, allocation) is not covered.
    Flush,
    /// Makes durable every write of this file that was done before this was submitted, with its
    /// size and allocation.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Reads into `buffer` from `position` on; both whole blocks. Fewer bytes come at the end of
    /// the file.
    Read {
        /// The file.
        file: FileId,
        /// Where in the file; a multiple of the block.
        position: Position,
        /// Where the bytes go.
        buffer: Block,
        /// Bytes wanted; a multiple of the block.
        bytes: usize,
    },
    /// Makes the partition's `next.log`, `bytes` long, at best from a recycled segment, with the
    /// first `filled` bytes written (zeros or a former life's). Size, allocation, name and
    /// directory are durable when done.
    Prepare {
        /// The new file.
        file: FileId,
        /// Its partition.
        log: TopicPartition,
        /// Bytes of the file.
        bytes: u64,
        /// Bytes to be filled with zeros from the start on.
        filled: u64,
    },
    /// Writes zeros over a range of a prepared file, durably.
    Fill {
        /// The file.
        file: FileId,
        /// First byte; a multiple of the block.
        start: Position,
        /// End; a multiple of the block.
        end: Position,
    },
    /// Renames `next.log` to its base offset, durably.
    Name {
        /// The file.
        file: FileId,
        /// Offset of its first record.
        base: Offset,
    },
    /// Writes the side file of a sealed segment, durably and all or nothing.
    SaveSide {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        base: Offset,
        /// The side file's bytes.
        bytes: Vec<u8>,
    },
    /// Reads the side file of a sealed segment.
    LoadSide {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        base: Offset,
    },
    /// Writes the shard's checkpoint into the older of its two slots, durably.
    SaveCheckpoint {
        /// The checkpoint's bytes.
        bytes: Vec<u8>,
    },
    /// Removes a segment and its side file; its space may be recycled.
    Remove {
        /// The file.
        file: FileId,
    },
    /// Removes the directory of a deleted partition, with whatever is left in it.
    RemovePartition {
        /// The partition.
        log: TopicPartition,
    },
}

impl Op {
    /// Whether the shard's own ring carries it out; the others go to the housekeeper.
    #[must_use]
    pub const fn on_ring(&self) -> bool {
        matches!(
            self,
            Self::Write { .. } | Self::Flush | Self::Sync { .. } | Self::Read { .. }
        )
    }
}

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// Done.
    Done,
    /// A segment is prepared. A recycled one is filled further than was asked for.
    Prepared {
        /// Bytes from the start that are written, with zeros or a former life's.
        filled: u64,
    },
    /// Bytes read; `bytes` may be fewer than wanted at the end of the file.
    Read {
        /// The buffer that the operation brought.
        buffer: Block,
        /// Bytes in it.
        bytes: usize,
    },
    /// A side file's bytes; `None` when there is none.
    Side(Option<Vec<u8>>),
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no space left. It may come back.
    #[error("no space left on the device")]
    Full,
    /// Anything else: what the operating system said.
    #[error("{0}")]
    Failed(String),
}

/// A finished operation.
#[derive(Debug)]
pub struct Done {
    /// The operation.
    pub op: OpId,
    /// What came of it.
    pub result: Result<Outcome, DeviceError>,
}

/// A disk with files, for the engine's tests and simulations and for the conformance of the real
/// one. A shard's loop drives its ring itself.
pub trait Device {
    /// Says which segment a number stands for. Before the first operation on it.
    fn declare(&mut self, file: FileId, log: TopicPartition, name: SegmentName);
    /// Starts an operation.
    fn submit(&mut self, id: OpId, op: Op);
    /// The next finished operation, in any order; `None` when nothing is in flight.
    fn wait(&mut self) -> Option<Done>;
}
