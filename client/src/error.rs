//! What can go wrong, one type per verb. Each says what it is about and what to do next.

use std::sync::Arc;
use std::time::Duration;

use ringway_wire::batch::Codec;
use ringway_wire::{ErrorCode, Fault, Offset, PartitionIndex};

/// Why a connection is gone, and with it the requests on it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{address}: {why}")]
pub struct ConnectionLost {
    /// The listener, "host:port".
    pub address: Arc<str>,
    /// What happened.
    pub why: Arc<str>,
    /// Whether the request may have reached the broker.
    pub sent: bool,
    /// What the broker said if it refused the connection.
    pub refused: Option<Fault>,
}

/// Why there is no client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No broker was named.
    #[error("no broker is named: give at least one host:port")]
    NoBroker,
    /// A broker's address can't be read.
    #[error("{text:?} is not an address: expected host:port or [v6]:port")]
    Address {
        /// What was given.
        text: String,
    },
    /// None of the brokers could be reached.
    #[error("no broker can be reached ({}): is one running there?", list(.tried))]
    Unreachable {
        /// What happened at each.
        tried: Vec<ConnectionLost>,
    },
    /// The broker and this client have no protocol version in common, or it refused for another
    /// reason.
    #[error("the broker refused: {0}")]
    Refused(Fault),
}

fn list(tried: &[ConnectionLost]) -> String {
    let each: Vec<_> = tried.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// Why a request failed: metadata, offsets, topics, producer ids.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The topic doesn't exist.
    #[error("topic {topic} doesn't exist: create it with `ringway topic create {topic}`")]
    UnknownTopic {
        /// The topic's name.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition}: it has {partitions}")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// The broker refused.
    #[error("{what}: {fault}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The broker's answer.
        fault: Fault,
    },
    /// No broker answered. If `lost.sent`, a change may have been made all the same.
    #[error("{what}: no broker answered within {within:?}: {lost}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// How long was tried.
        within: Duration,
        /// What happened last.
        lost: ConnectionLost,
    },
    /// A broker's answer makes no sense.
    #[error("{what}: the broker's answer can't be read: {why}")]
    Malformed {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The client was dropped while the request was under way.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// The broker's error code, if it answered with one.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::UnknownTopic { .. } => Some(ErrorCode::UnknownTopic),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Refused { fault, .. } => Some(fault.code),
            Self::Unreachable { .. } | Self::Malformed { .. } | Self::Closed => None,
        }
    }
}

/// Why a producer can't be built.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BuildError {
    /// A setting is out of its range.
    #[error("{setting} can't be {value}: {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// No producer id could be had.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a record was not delivered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceError {
    /// The topic doesn't exist, or not any more.
    #[error("topic {topic} doesn't exist: create it with `ringway topic create {topic}`")]
    UnknownTopic {
        /// The topic's name.
        topic: Arc<str>,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition}: it has {partitions}")]
    UnknownPartition {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// The partition is retired: its records can be read, and no new ones come.
    #[error("{topic}/{partition} is retired and takes no new records: send to another")]
    Retired {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition asked for.
        partition: PartitionIndex,
    },
    /// The topic has no partition that takes new records.
    #[error("topic {topic} takes no new records: its partitions are all retired")]
    AllRetired {
        /// The topic's name.
        topic: Arc<str>,
    },
    /// The record is above a limit of the batch format or of the producer's buffer.
    #[error("{topic}: {what} of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// The topic's name.
        topic: Arc<str>,
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The buffer is full and the producer was told not to wait.
    #[error(
        "{topic}: {buffer_bytes} bytes are waiting for acknowledgements: send later, raise \
         buffer_bytes or let the producer block"
    )]
    BufferFull {
        /// The topic's name.
        topic: Arc<str>,
        /// The buffer's limit in bytes.
        buffer_bytes: usize,
    },
    /// The delivery time-out is over.
    #[error("{topic}/{partition}: not acknowledged within {within:?}{}{}", maybe(*.maybe_written), because(.last))]
    TimedOut {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The delivery time-out.
        within: Duration,
        /// Whether the batch was sent, so that it may have been appended all the same.
        maybe_written: bool,
        /// What happened last.
        last: Option<Arc<str>>,
    },
    /// The broker refused the batch for good.
    #[error("{topic}/{partition}: {fault}")]
    Refused {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The broker's answer.
        fault: Fault,
    },
    /// An earlier batch of the partition failed for good, and this one was given up with it so
    /// that the order holds. It was not appended, unless `maybe_written`.
    #[error("{topic}/{partition}: given up behind an earlier batch that failed: {cause}")]
    Behind {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// Whether the batch was sent without an answer, so that it may have been appended.
        maybe_written: bool,
        /// Why the earlier batch failed.
        cause: Arc<ProduceError>,
    },
    /// A typed value can't be archived.
    #[error("{topic}: the {type_name} can't be archived: {why}")]
    NotArchived {
        /// The topic's name.
        topic: Arc<str>,
        /// The value's type.
        type_name: &'static str,
        /// rkyv's reason.
        why: String,
    },
    /// The metadata of the topic couldn't be had.
    #[error(transparent)]
    Request(Arc<RequestError>),
    /// The producer was closed or dropped before the record was acknowledged.
    #[error("{topic}/{partition}: the producer was closed before the acknowledgement")]
    Closed {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
    },
}

const fn maybe(written: bool) -> &'static str {
    if written {
        " (it may have been appended)"
    } else {
        ""
    }
}

fn because(last: &Option<Arc<str>>) -> String {
    last.as_ref()
        .map_or_else(String::new, |last| format!(": {last}"))
}

impl From<RequestError> for ProduceError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::UnknownTopic { topic } => Self::UnknownTopic {
                topic: topic.into(),
            },
            error => Self::Request(Arc::new(error)),
        }
    }
}

impl ProduceError {
    /// The broker's error code, if it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::UnknownTopic { .. } => Some(ErrorCode::UnknownTopic),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Refused { fault, .. } => Some(fault.code),
            Self::Behind { cause, .. } => cause.code(),
            Self::Request(error) => error.code(),
            _ => None,
        }
    }
}

/// Why a consumer has no batch to give. A partition with an error stands still until
/// the consumer's `seek`; the others go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// No partition is assigned.
    #[error("no partition is assigned: call assign first")]
    NotAssigned,
    /// The partition is not among those assigned.
    #[error("{topic}/{partition} is not assigned: call assign first")]
    NotAssignedHere {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
    },
    /// Every partition stands still after an error that was reported before.
    #[error("every assigned partition stands still after an error: seek to go on")]
    Stopped,
    /// The topic or partition doesn't exist any more.
    #[error("{topic}/{partition} doesn't exist any more")]
    Gone {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The position is below the log's start or above its end.
    #[error(
        "{topic}/{partition}: offset {offset} is not in the log, which goes from {log_start} to \
         {high_watermark}: seek to go on"
    )]
    OffsetOutOfRange {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// First offset that is still there.
        log_start: Offset,
        /// The offset after the last one that can be read.
        high_watermark: Offset,
    },
    /// Records that were read are no longer in the log.
    #[error(
        "{topic}/{partition}: the log was cut behind offset {offset}; what was read from \
         {safe_offset} on is gone: seek there to go on"
    )]
    LogTruncated {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// Where to go on.
        safe_offset: Offset,
    },
    /// A batch is damaged on the broker's disk.
    #[error(
        "{topic}/{partition}: the batch at offset {offset} is damaged on disk: seek to \
         {safe_offset} to go on behind it ({message})"
    )]
    Damaged {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// First offset after the damage.
        safe_offset: Offset,
        /// The broker's words.
        message: String,
    },
    /// A batch arrived that doesn't pass its checks or doesn't belong there.
    #[error(
        "{topic}/{partition}: the broker sent a wrong batch at offset {offset}: {why}: seek to \
         {offset} to ask again"
    )]
    WrongBatch {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// What is wrong.
        why: String,
    },
    /// A batch's values are not of the type that the consumer reads.
    #[error(
        "{topic}/{partition}: the batch at offset {offset} has {}, not of {type_name}, which is \
         {expected:016x}: read it with the type that wrote it, or as bytes, or seek to go on \
         behind it", layout(*.found)
    )]
    WrongLayout {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// The type that the consumer reads.
        type_name: &'static str,
        /// Its layout.
        expected: u64,
        /// The batch's layout; 0 where values are bytes.
        found: u64,
    },
    /// A value is not an archive of its type, though its batch says so.
    #[error(
        "{topic}/{partition}: the value at offset {offset} is no {type_name}: {why}: seek behind \
         it to go on"
    )]
    WrongValue {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The record's offset.
        offset: Offset,
        /// The type that the consumer reads.
        type_name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A batch is compressed with a codec that this build leaves out.
    #[error(
        "{topic}/{partition}: the batch at offset {offset} is compressed with {codec}, which this \
         client was built without: build it with the feature `{codec}`"
    )]
    CodecMissing {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// The batch's codec.
        codec: Codec,
    },
    /// The broker refused to serve the partition.
    #[error("{topic}/{partition}: {fault}")]
    Refused {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The broker's answer.
        fault: Fault,
    },
    /// Metadata or an offset couldn't be had.
    #[error(transparent)]
    Request(#[from] RequestError),
}

fn layout(found: u64) -> String {
    match found {
        0 => "values that are bytes".to_owned(),
        found => format!("values of the layout {found:016x}"),
    }
}

impl ConsumeError {
    /// The offset where reading can go on after a seek, if the error names one.
    #[must_use]
    pub const fn safe_offset(&self) -> Option<Offset> {
        match self {
            Self::LogTruncated { safe_offset, .. } | Self::Damaged { safe_offset, .. } => {
                Some(*safe_offset)
            }
            Self::OffsetOutOfRange {
                offset,
                log_start,
                high_watermark,
                ..
            } => Some(if offset.0 < log_start.0 {
                *log_start
            } else {
                *high_watermark
            }),
            Self::WrongBatch { offset, .. } => Some(*offset),
            Self::WrongValue { offset, .. } => Some(offset.plus(1)),
            _ => None,
        }
    }
}
