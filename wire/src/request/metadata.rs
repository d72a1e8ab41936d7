//! Metadata: brokers, topics, and which shard of which broker leads each partition.

use crate::batch::Codec;
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::{LeaderEpoch, MetadataEpoch, NodeId, PartitionIndex, ShardId, TopicId};
use crate::limits::{METADATA_TOPICS_MAX, TOPIC_NAME_BYTES_MAX};
use crate::request::Head;

/// Asks for some topics or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataRequest {
    /// The topics by name, at most [`METADATA_TOPICS_MAX`], each of at most
    /// [`TOPIC_NAME_BYTES_MAX`] bytes; `None` asks for all.
    pub topics: Option<Vec<String>>,
}

impl Head for MetadataRequest {
    fn encode(&self, out: &mut Writer) {
        out.flag(self.topics.is_some());
        if let Some(topics) = &self.topics {
            out.list(topics, |out, topic| out.string(topic));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let some = reader.flag("topics")?;
        let read = |reader: &mut Reader<'_>| {
            let name = reader.string("topic")?;
            match name.len() {
                0..=TOPIC_NAME_BYTES_MAX => Ok(name.to_owned()),
                length => Err(DecodeError::Illegal {
                    field: "the length of a topic's name",
                    value: length as u64,
                }),
            }
        };
        Ok(Self {
            topics: some
                .then(|| reader.list_up_to("topics", METADATA_TOPICS_MAX, 2, read))
                .transpose()?,
        })
    }
}

/// A broker and its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerMetadata {
    /// The broker.
    pub node: NodeId,
    /// Host name or address.
    pub host: String,
    /// The port that any request may use.
    pub port: u16,
    /// The port of each shard, by shard id.
    pub shard_ports: Vec<u16>,
}

impl Head for BrokerMetadata {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.node.0);
        out.string(&self.host);
        out.u16(self.port);
        out.list(&self.shard_ports, |out, &port| out.u16(port));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(reader.u32("node")?),
            host: reader.string("host")?.to_owned(),
            port: reader.u16("port")?,
            shard_ports: reader.list("shard_ports", 2, |reader| reader.u16("shard_port"))?,
        })
    }
}

/// What a partition takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PartitionState {
    /// It is read and appended to.
    #[default]
    Active = 0,
    /// It is read until it is empty, and takes no new records.
    Retired = 1,
}

/// Which time a record's timestamp is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TimestampSource {
    /// The time that its producer gave it.
    #[default]
    Producer = 0,
    /// The time of its batch's append at the leader: the consumer shows this one.
    Append = 1,
}

/// A partition and who leads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The partition.
    pub partition: PartitionIndex,
    /// The broker that leads it.
    pub leader: NodeId,
    /// The shard of that broker that owns it.
    pub shard: ShardId,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Whether it takes new records.
    pub state: PartitionState,
}

impl Head for PartitionMetadata {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.partition.0);
        out.u32(self.leader.0);
        out.u16(self.shard.0);
        out.u32(self.leader_epoch.0);
        out.u8(self.state as u8);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            partition: PartitionIndex(reader.u32("partition")?),
            leader: NodeId(reader.u32("leader")?),
            shard: ShardId(reader.u16("shard")?),
            leader_epoch: LeaderEpoch(reader.u32("leader_epoch")?),
            state: match reader.flag("state")? {
                false => PartitionState::Active,
                true => PartitionState::Retired,
            },
        })
    }
}

fn decode_codec(reader: &mut Reader<'_>) -> Result<Codec, DecodeError> {
    let number = reader.u8("codec")?;
    Codec::from_number(number).ok_or(DecodeError::Illegal {
        field: "codec",
        value: number.into(),
    })
}

/// A topic and its partitions, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Why the topic can't be used, if so.
    pub fault: Option<Fault>,
    /// The topic's name.
    pub name: String,
    /// The topic.
    pub topic: TopicId,
    /// Counts the changes of this topic.
    pub epoch: MetadataEpoch,
    /// What producers compress with unless they were told otherwise.
    pub codec: Codec,
    /// Which time a record's timestamp is.
    pub timestamp: TimestampSource,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionMetadata>,
}

impl Head for TopicMetadata {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.string(&self.name);
        out.u128(self.topic.0);
        out.u64(self.epoch.0);
        out.u8(self.codec.number());
        out.u8(self.timestamp as u8);
        out.list(&self.partitions, |out, partition| partition.encode(out));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            name: reader.string("name")?.to_owned(),
            topic: TopicId(reader.u128("topic")?),
            epoch: MetadataEpoch(reader.u64("epoch")?),
            codec: decode_codec(reader)?,
            timestamp: match reader.flag("timestamp")? {
                false => TimestampSource::Producer,
                true => TimestampSource::Append,
            },
            partitions: reader.list("partitions", 15, PartitionMetadata::decode)?,
        })
    }
}

/// The cluster as the answering broker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataReply {
    /// Why there is no answer, if so.
    pub fault: Option<Fault>,
    /// The brokers.
    pub brokers: Vec<BrokerMetadata>,
    /// The topics asked for.
    pub topics: Vec<TopicMetadata>,
}

impl Head for MetadataReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.list(&self.brokers, |out, broker| broker.encode(out));
        out.list(&self.topics, |out, topic| topic.encode(out));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            brokers: reader.list("brokers", 12, BrokerMetadata::decode)?,
            topics: reader.list("topics", 34, TopicMetadata::decode)?,
        })
    }
}
