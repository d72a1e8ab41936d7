//! Error codes: what a reply says went wrong. Their numbers are part of the protocol and never
//! change their meaning.

use std::fmt;

use crate::codec::{DecodeError, Reader, Writer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal $retriable:literal,)*) => {
        /// What went wrong, as a number that every client can rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code's name on the command line, in logs and in documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may succeed later or at another broker.
            #[must_use]
            pub const fn retriable(self) -> bool {
                match self { $(Self::$name => $retriable,)* }
            }

            /// The code of a number; a number from a newer broker is `Internal`.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number { $($code => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// A defect of the broker.
    Internal = 1 "internal" false,
    /// The request can't be decoded; the connection is closed after the reply.
    MalformedRequest = 2 "malformed_request" false,
    /// No protocol version is spoken by both sides.
    UnsupportedVersion = 3 "unsupported_version" false,
    /// A request before hello, or of a kind that this broker doesn't know.
    UnexpectedRequest = 4 "unexpected_request" false,
    /// The reply would be larger than a frame's head may be: ask for less at once.
    ReplyTooLarge = 5 "reply_too_large" false,
    /// The topic doesn't exist. Retriable by refreshing metadata only where the caller expects it.
    UnknownTopic = 10 "unknown_topic" false,
    /// A topic of that name exists already.
    TopicExists = 11 "topic_exists" false,
    /// The name doesn't match `[A-Za-z0-9._-]{1,249}`.
    InvalidTopicName = 12 "invalid_topic_name" false,
    /// The number of partitions or replicas can't be had.
    InvalidPartitions = 13 "invalid_partitions" false,
    /// A configuration key is unknown or its value is out of range.
    InvalidConfig = 14 "invalid_config" false,
    /// The topic has no such partition.
    UnknownPartition = 15 "unknown_partition" false,
    /// Another broker leads the partition: refresh the metadata.
    NotLeader = 20 "not_leader" true,
    /// The request's leader epoch is older than the partition's: refresh the metadata.
    FencedLeaderEpoch = 21 "fenced_leader_epoch" true,
    /// The request's leader epoch is newer than the broker knows: try again.
    UnknownLeaderEpoch = 22 "unknown_leader_epoch" true,
    /// The partition is still being recovered.
    PartitionRecovering = 23 "partition_recovering" true,
    /// Fewer replicas are in sync than the topic asks for.
    NotEnoughReplicas = 24 "not_enough_replicas" true,
    /// The batch failed its checks: CRC, counts, bounds.
    CorruptBatch = 30 "corrupt_batch" false,
    /// The batch is larger than the broker accepts.
    BatchTooLarge = 31 "batch_too_large" false,
    /// A record is larger than the topic accepts.
    RecordTooLarge = 32 "record_too_large" false,
    /// The batch is compressed with a codec that this broker doesn't know.
    UnsupportedCodec = 33 "unsupported_codec" false,
    /// The batch doesn't follow the producer's last one; an earlier batch is missing.
    OutOfOrderSequence = 40 "out_of_order_sequence" false,
    /// The producer's state has expired or never was: get a new producer id.
    UnknownProducer = 41 "unknown_producer" false,
    /// A newer user of the producer id has taken over.
    FencedProducer = 42 "fenced_producer" false,
    /// The batch repeats one that is too old to look up: it was appended, its offset is forgotten.
    DuplicateSequence = 43 "duplicate_sequence" false,
    /// The offset is below the log's start or above its end.
    OffsetOutOfRange = 50 "offset_out_of_range" false,
    /// What the consumer has read is no longer in the log; the safe offset is in the reply.
    LogTruncated = 51 "log_truncated" false,
    /// The batch at this offset is damaged on disk and is not served.
    DamagedBatch = 52 "damaged_batch" false,
    /// The disk is full: appends wait, reads go on.
    StorageFull = 60 "storage_full" true,
    /// The partition's storage failed: appends are refused until the broker is restarted.
    StorageFailed = 61 "storage_failed" false,
    /// The broker is at a limit of its memory: try again.
    Overloaded = 62 "overloaded" true,
    /// The request's time ran out; a write may or may not have happened.
    TimedOut = 63 "timed_out" true,
    /// The broker is shutting down.
    ShuttingDown = 64 "shutting_down" true,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error code with the facts in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// What went wrong.
    pub code: ErrorCode,
    /// The facts, for people: what, where and what to do next.
    pub message: String,
}

impl Fault {
    /// A fault with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// `None` is code 0 without a message.
    pub(crate) fn encode(fault: Option<&Self>, out: &mut Writer) {
        match fault {
            None => out.u16(0),
            Some(fault) => {
                out.u16(fault.code.number());
                out.string(&fault.message);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        match reader.u16("error code")? {
            0 => Ok(None),
            number => {
                let message = reader.string("error message")?.to_owned();
                Ok(Some(Self {
                    code: ErrorCode::from_number(number),
                    message,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_read_back() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(
                pair[0].number() < pair[1].number(),
                "{} and {}",
                pair[0],
                pair[1]
            );
        }
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), code);
        }
        assert_eq!(ErrorCode::from_number(9_999), ErrorCode::Internal);
    }
}
