//! The formats that Ringway's clients, brokers and disks share: record batches, frames, requests,
//! replies and error codes. There is no I/O in this crate.
//!
//! Two features decide which codecs batches can be compressed with and inflated from: `lz4`, on by
//! default, and `zstd`, off by default because it builds a C library. The format, and so what a
//! broker takes, is the same with and without them.
//!
//! Modules stand in the order of the data flow: a record goes into a batch, the batch into a
//! request, the request into a frame.

pub mod limits;

mod codec;
mod error;
mod ids;

pub mod batch;
pub mod frame;
pub mod request;

pub use codec::{DecodeError, Reader, Writer};
pub use error::{ErrorCode, Fault};
pub use ids::{
    CorrelationId, LeaderEpoch, LogId, MetadataEpoch, NodeId, Offset, PartitionIndex, Position,
    ProducerEpoch, ProducerId, Sequence, ShardId, TopicId, TopicPartition,
};
