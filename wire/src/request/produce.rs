//! Produce: one batch for one partition; and the producer ids that make it idempotent.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::{MetadataEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use crate::request::Head;

/// When the broker answers a produce request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Acks {
    /// Never; the batch may be lost without a word.
    None = 0,
    /// When the leader has it on stable storage.
    Leader = 1,
    /// When every in-sync replica has it on stable storage.
    #[default]
    All = 2,
}

impl Acks {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("acks")? {
            0 => Ok(Self::None),
            1 => Ok(Self::Leader),
            2 => Ok(Self::All),
            value => Err(DecodeError::Illegal {
                field: "acks",
                value: value.into(),
            }),
        }
    }
}

/// Where a record is when its acknowledgement comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Durability {
    /// In the memory of the brokers that the acknowledgement speaks for; on stable storage soon.
    Memory = 0,
    /// On their stable storage.
    #[default]
    Fsync = 1,
}

impl Durability {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.flag("durability")? {
            false => Ok(Self::Memory),
            true => Ok(Self::Fsync),
        }
    }
}

/// Appends the batch in the frame's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// When to answer.
    pub acks: Acks,
    /// Whether the reply shall say where the time went.
    pub trace: bool,
    /// Milliseconds after which the broker gives up waiting and answers `timed_out`.
    pub timeout_ms: u32,
}

impl Head for ProduceRequest {
    fn encode(&self, out: &mut Writer) {
        out.u128(self.topic.0);
        out.u32(self.partition.0);
        out.u8(self.acks as u8);
        out.flag(self.trace);
        out.u32(self.timeout_ms);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: TopicId(reader.u128("topic")?),
            partition: PartitionIndex(reader.u32("partition")?),
            acks: Acks::decode(reader)?,
            trace: reader.flag("trace")?,
            timeout_ms: reader.u32("timeout_ms")?,
        })
    }
}

/// Where a produce request's time went inside the broker. Each is the length of a stage, in
/// nanoseconds; one follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// From the request's last byte to its append: waiting for requests before it in the same turn.
    pub received_ns: u64,
    /// From there to the start of its write: its own checks and copy, and waiting for the round
    /// before.
    pub queued_ns: u64,
    /// From the start of the write to its completion.
    pub written_ns: u64,
    /// From the write's completion to that of the sync; 0 where the write was itself durable.
    pub durable_ns: u64,
}

impl Head for StageTimes {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.received_ns);
        out.u64(self.queued_ns);
        out.u64(self.written_ns);
        out.u64(self.durable_ns);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            received_ns: reader.u64("received_ns")?,
            queued_ns: reader.u64("queued_ns")?,
            written_ns: reader.u64("written_ns")?,
            durable_ns: reader.u64("durable_ns")?,
        })
    }
}

/// Where the batch went, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceReply {
    /// Why the batch was not appended, if so.
    pub fault: Option<Fault>,
    /// Counts the changes of the topic: a larger one than the client knows means refresh.
    pub topic_epoch: MetadataEpoch,
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// When the leader appended it, in microseconds since 1970.
    pub append_time_us: i64,
    /// First offset that the partition still has.
    pub log_start: Offset,
    /// Where the batch is now.
    pub durability: Durability,
    /// Where the time went, if the request asked.
    pub stages: Option<StageTimes>,
}

impl Head for ProduceReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.topic_epoch.0);
        out.u64(self.base_offset.0);
        out.i64(self.append_time_us);
        out.u64(self.log_start.0);
        out.u8(self.durability as u8);
        out.flag(self.stages.is_some());
        if let Some(stages) = &self.stages {
            stages.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic_epoch: MetadataEpoch(reader.u64("topic_epoch")?),
            base_offset: Offset(reader.u64("base_offset")?),
            append_time_us: reader.i64("append_time_us")?,
            log_start: Offset(reader.u64("log_start")?),
            durability: Durability::decode(reader)?,
            stages: match reader.flag("stages")? {
                true => Some(StageTimes::decode(reader)?),
                false => None,
            },
        })
    }
}

/// Asks for a producer id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitProducerRequest;

impl Head for InitProducerRequest {
    fn encode(&self, _: &mut Writer) {}

    fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// A producer id that nobody else has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitProducerReply {
    /// Why there is none, if so.
    pub fault: Option<Fault>,
    /// The id.
    pub producer_id: ProducerId,
    /// The epoch to start with.
    pub producer_epoch: ProducerEpoch,
}

impl Head for InitProducerReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.producer_id.0);
        out.u16(self.producer_epoch.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            producer_id: ProducerId(reader.u64("producer_id")?),
            producer_epoch: ProducerEpoch(reader.u16("producer_epoch")?),
        })
    }
}
