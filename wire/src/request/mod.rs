//! Requests and replies as types, and how they stand in the head of a frame.
//!
//! Each request has a number, and its reply the same number with [`crate::frame::REPLY`] set. The
//! data of a produce request is one batch, that of a fetch reply whole batches; all others have
//! none.

mod fetch;
mod hello;
mod metadata;
mod produce;
mod topics;
mod trim;

pub use fetch::{FetchReply, FetchRequest, ListOffsetsReply, ListOffsetsRequest, OffsetAt};
pub use hello::{HelloReply, HelloRequest};
pub use metadata::{
    BrokerMetadata, MetadataReply, MetadataRequest, PartitionMetadata, PartitionState,
    TimestampSource, TopicMetadata,
};
pub use produce::{
    Acks, Durability, InitProducerReply, InitProducerRequest, ProduceReply, ProduceRequest,
    StageTimes,
};
pub use topics::{
    AddPartitionsReply, AddPartitionsRequest, AlterTopicRequest, ConfigEntry, CreateTopicReply,
    CreateTopicRequest, DeleteTopicRequest, DescribeTopicReply, DescribeTopicRequest, TopicReply,
};
pub use trim::{TrimBefore, TrimReply, TrimRequest};

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{ErrorCode, Fault};
use crate::frame::{REPLY, encode_head};
use crate::ids::CorrelationId;
use crate::limits::FRAME_HEAD_BYTES_MAX;

/// A request's or reply's place in the head of a frame.
pub trait Head: Sized {
    /// Writes the fields in their order.
    fn encode(&self, out: &mut Writer);

    /// Reads the fields in their order.
    ///
    /// # Errors
    /// [`DecodeError`] names the first field that is wrong.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads the fields from a whole head; nothing may be left, but behind those of hello.
    ///
    /// # Errors
    /// [`DecodeError`] names the first field that is wrong.
    fn from_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(head);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// The head's bytes.
    fn to_head(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.encode(&mut out);
        out.into_bytes()
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $number:literal $request:ident $reply:ident,)*) => {
        /// The number of each request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum RequestKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl RequestKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The kind of a number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }
        }

        /// Any request, without its data.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[$doc])* $name($request),)*
        }

        impl Request {
            /// The request's kind.
            #[must_use]
            pub const fn kind(&self) -> RequestKind {
                match self { $(Self::$name(_) => RequestKind::$name,)* }
            }

            /// The head's bytes.
            #[must_use]
            pub fn to_head(&self) -> Vec<u8> {
                match self { $(Self::$name(request) => request.to_head(),)* }
            }

            /// Reads the request of a kind from a whole head.
            ///
            /// # Errors
            /// [`DecodeError`] names the first field that is wrong.
            pub fn from_head(kind: RequestKind, head: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $(RequestKind::$name => $request::from_head(head).map(Self::$name),)*
                }
            }
        }

        /// Any reply, without its data.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reply {
            $($(#[$doc])* $name($reply),)*
        }

        impl Reply {
            /// The kind of the request that this answers.
            #[must_use]
            pub const fn kind(&self) -> RequestKind {
                match self { $(Self::$name(_) => RequestKind::$name,)* }
            }

            /// The head's bytes.
            #[must_use]
            pub fn to_head(&self) -> Vec<u8> {
                match self { $(Self::$name(reply) => reply.to_head(),)* }
            }

            /// The reply that says why a request of a kind failed, and nothing else.
            #[must_use]
            #[allow(clippy::needless_update, reason = "some replies have no other field")]
            pub fn failed(kind: RequestKind, fault: Fault) -> Self {
                let fault = Some(fault);
                match kind {
                    $(RequestKind::$name => Self::$name($reply { fault, ..$reply::default() }),)*
                }
            }

            /// Reads the reply to a request of a kind from a whole head.
            ///
            /// # Errors
            /// [`DecodeError`] names the first field that is wrong.
            pub fn from_head(kind: RequestKind, head: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $(RequestKind::$name => $reply::from_head(head).map(Self::$name),)*
                }
            }
        }

        $(impl From<$request> for Request {
            fn from(request: $request) -> Self {
                Self::$name(request)
            }
        })*
    };
}

requests! {
    /// Agrees on a protocol version; the first request on every connection.
    Hello = 1 HelloRequest HelloReply,
    /// Who leads what, and where.
    Metadata = 2 MetadataRequest MetadataReply,
    /// Appends a batch.
    Produce = 3 ProduceRequest ProduceReply,
    /// Reads batches; waits for new ones.
    Fetch = 4 FetchRequest FetchReply,
    /// Finds an offset by time or at an end.
    ListOffsets = 5 ListOffsetsRequest ListOffsetsReply,
    /// Creates a topic.
    CreateTopic = 6 CreateTopicRequest CreateTopicReply,
    /// Changes a topic's configuration.
    AlterTopic = 7 AlterTopicRequest TopicReply,
    /// Deletes a topic with its records.
    DeleteTopic = 8 DeleteTopicRequest TopicReply,
    /// A topic's configuration.
    DescribeTopic = 9 DescribeTopicRequest DescribeTopicReply,
    /// Gets a producer id for idempotent sending.
    InitProducer = 10 InitProducerRequest InitProducerReply,
    /// Adds partitions to a topic.
    AddPartitions = 11 AddPartitionsRequest AddPartitionsReply,
    /// Removes a partition's oldest records.
    Trim = 12 TrimRequest TrimReply,
}

impl Request {
    /// The frame's bytes up to the data, of which there are `data` bytes.
    ///
    /// # Panics
    /// When the head or the frame is above the limit: see [`crate::frame::FrameHeader::new`].
    #[must_use]
    pub fn to_frame(&self, correlation: CorrelationId, data: usize) -> Vec<u8> {
        encode_head(self.kind().number(), correlation, &self.to_head(), data)
    }
}

impl Reply {
    /// The frame's bytes up to the data, of which there are `data` bytes. A head above the limit
    /// (the metadata of very many topics) becomes an error reply that says so.
    ///
    /// # Panics
    /// When data goes with a reply whose head is above the limit, or is itself above it.
    #[must_use]
    pub fn to_frame(&self, correlation: CorrelationId, data: usize) -> Vec<u8> {
        let kind = self.kind();
        let mut head = self.to_head();
        if head.len() > FRAME_HEAD_BYTES_MAX {
            assert!(data == 0, "replies with data have short heads");
            let message = format!(
                "the reply takes {} bytes, above the limit of {FRAME_HEAD_BYTES_MAX}: ask for less",
                head.len()
            );
            head = Self::failed(kind, Fault::new(ErrorCode::ReplyTooLarge, message)).to_head();
        }
        encode_head(kind.number() | REPLY, correlation, &head, data)
    }
}
