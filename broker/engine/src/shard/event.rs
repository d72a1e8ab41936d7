//! What a shard is told and what it asks for: the whole interface between the engine and a driver.

use std::time::Duration;

use ringway_wire::request::{Durability, Reply, Request};
use ringway_wire::{CorrelationId, LeaderEpoch, MetadataEpoch, Offset, TopicPartition};

use crate::buffer::Slice;
use crate::device::{DeviceError, Done, FileId, Op, OpId, SegmentName};
use crate::log::CheckpointEntry;

/// Who waits for a reply, in the driver's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The connection, never used again in the same run.
    pub source: u64,
    /// The request.
    pub correlation: CorrelationId,
}

/// What a partition has to follow of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// Counts the changes of the topic.
    pub topic_epoch: MetadataEpoch,
    /// The epoch in which this broker leads the partition.
    pub leader_epoch: LeaderEpoch,
    /// Largest segment, in bytes.
    pub segment_bytes: u64,
    /// When a record may be acknowledged and shown.
    pub durability: Durability,
    /// Largest record, in bytes of key, value, headers and tag.
    pub record_bytes_max: usize,
    /// How long records stay after their append at least; `None` is for ever.
    pub retention: Option<Duration>,
    /// Bytes of the partition's segments above which the oldest go; `None` is no limit.
    pub retention_bytes: Option<u64>,
}

/// A file found in a partition's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its name.
    pub name: SegmentName,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A produce, fetch, list-offsets or trim request for a partition of this shard.
    Request {
        /// Who waits.
        token: Token,
        /// When its last byte came, in nanoseconds of [`crate::time::Now::mono_ns`].
        received_ns: u64,
        /// The request.
        request: &'a Request,
        /// Its data.
        data: &'a [u8],
    },
    /// An operation is finished.
    Done(Done),
    /// A connection is gone: nobody waits for its replies any more.
    Gone {
        /// The connection.
        source: u64,
    },
    /// This shard owns a partition from now on.
    Open {
        /// The partition.
        log: TopicPartition,
        /// What it has to follow.
        config: PartitionConfig,
        /// The segments in its directory.
        files: Vec<FoundFile>,
        /// What the checkpoint says of it.
        checkpoint: Option<Box<CheckpointEntry>>,
    },
    /// A partition's topic was changed.
    Configure {
        /// The partition.
        log: TopicPartition,
        /// What it has to follow now.
        config: PartitionConfig,
    },
    /// A partition's topic was deleted: its records go.
    Delete {
        /// The partition.
        log: TopicPartition,
    },
    /// Another shard saw a flush of the shared device fail: nothing can be made durable any more.
    DeviceFailed {
        /// What failed.
        error: DeviceError,
    },
    /// No more requests will come: finish what was accepted and write a checkpoint.
    Drain,
}

/// Something to be done.
#[derive(Debug)]
pub enum Effect {
    /// From now on this number stands for this segment.
    Declare {
        /// The number.
        file: FileId,
        /// The partition.
        log: TopicPartition,
        /// The segment.
        name: SegmentName,
    },
    /// Carry out an operation and come back with [`Event::Done`].
    Device(OpId, Op),
    /// Answer a request.
    Reply {
        /// Who waits.
        token: Token,
        /// The answer.
        reply: Reply,
        /// Batches behind it.
        data: Vec<Slice>,
    },
    /// End a connection that takes nothing of what was read from disk for it, while others wait for
    /// the memory.
    HangUp {
        /// The connection.
        source: u64,
    },
    /// Something that people and metrics should hear of.
    Note(Note),
}

/// Something worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A partition is ready.
    Opened {
        /// The partition.
        log: TopicPartition,
        /// Its first offset.
        log_start: Offset,
        /// Its next offset.
        log_end: Offset,
        /// Bytes that recovery read.
        scanned_bytes: u64,
        /// What recovery cut off, if anything.
        cut: Option<String>,
    },
    /// Records were removed from a partition's start, by retention or because somebody asked.
    Trimmed {
        /// The partition.
        log: TopicPartition,
        /// Its first offset now; durable.
        log_start: Offset,
        /// Segments that hold nothing any more, and are being removed.
        segments: usize,
    },
    /// A segment below a partition's start couldn't be removed; it will be tried again.
    NotRemoved {
        /// The partition.
        log: TopicPartition,
        /// The segment's first offset.
        base: Offset,
        /// Why.
        error: DeviceError,
    },
    /// A partition was deleted and its files are gone.
    Deleted {
        /// The partition.
        log: TopicPartition,
    },
    /// A partition changed into a state in which it can't do everything, or back.
    State {
        /// The partition.
        log: TopicPartition,
        /// "ready", "full", "failed", "damaged" with the reason.
        state: String,
    },
    /// A batch on disk is damaged.
    Damaged {
        /// The partition.
        log: TopicPartition,
        /// The first offset that can't be read.
        offset: Offset,
        /// What is wrong with it.
        reason: String,
    },
    /// A flush failed: the driver must tell every shard of this device.
    FlushFailed {
        /// What failed.
        error: DeviceError,
    },
    /// Records that were acknowledged from memory can't be written before the end: the disk is full
    /// or has failed.
    Unwritten {
        /// The partition.
        log: TopicPartition,
        /// The first offset that is not on the disk.
        from: Offset,
        /// The offset after the last one that was acknowledged.
        to: Offset,
    },
    /// Draining is over: everything accepted is durable, the checkpoint is written.
    Drained,
}
