//! Operations in flight: what the simulated disk keeps of each, apart from the engine's memory.

use ringway_engine::device::{DeviceError, FileId, OpId};
use ringway_wire::{Offset, TopicPartition};

use crate::device::block::Data;

/// A segment file, by its place in the disk's list.
pub(super) type Inode = usize;

/// What is being done. Positions count blocks.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Write {
        inode: Inode,
        start: usize,
        data: Vec<Data>,
        durable: bool,
    },
    Flush,
    Sync {
        inode: Inode,
    },
    Read {
        inode: Inode,
        start: usize,
        blocks: usize,
    },
    Prepare {
        file: FileId,
        log: TopicPartition,
        blocks: usize,
        filled: usize,
        inode: Option<Inode>,
    },
    Fill {
        inode: Inode,
        start: usize,
        end: usize,
    },
    Name {
        inode: Inode,
        log: TopicPartition,
        base: Offset,
    },
    SaveSide {
        log: TopicPartition,
        base: Offset,
        bytes: Vec<u8>,
    },
    LoadSide {
        log: TopicPartition,
        base: Offset,
    },
    SaveCheckpoint {
        bytes: Vec<u8>,
        slot: usize,
    },
    Remove {
        inode: Inode,
    },
    RemovePartition {
        log: TopicPartition,
    },
}

/// A task and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: OpId,
    pub(super) task: Task,
    /// Steps done.
    pub(super) step: u8,
    /// Ordinal at the submission: what completed before it is what a sync covers.
    pub(super) mark: u64,
    /// Decided at the submission: it will fail.
    pub(super) error: Option<DeviceError>,
}

impl Flight {
    /// The blocks that it changes.
    pub(super) fn changes(&self) -> Option<(Inode, std::ops::Range<usize>)> {
        match &self.task {
            Task::Write {
                inode, start, data, ..
            } => Some((*inode, *start..start + data.len())),
            Task::Fill { inode, start, end } => Some((*inode, *start..*end)),
            _ => None,
        }
    }

    /// The file whose bytes it reads, writes or names.
    pub(super) const fn uses(&self) -> Option<Inode> {
        match &self.task {
            Task::Write { inode, .. }
            | Task::Sync { inode }
            | Task::Read { inode, .. }
            | Task::Fill { inode, .. }
            | Task::Name { inode, .. } => Some(*inode),
            Task::Prepare { inode, .. } => *inode,
            _ => None,
        }
    }
}
