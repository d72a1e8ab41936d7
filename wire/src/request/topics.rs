//! Creating, changing, growing, deleting and describing topics.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::{MetadataEpoch, TopicId};
use crate::limits::CONFIG_ENTRIES_MAX;
use crate::request::Head;
use crate::request::metadata::PartitionMetadata;

/// One key of a topic's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub key: String,
    /// Its value as text.
    pub value: String,
}

impl Head for ConfigEntry {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.key);
        out.string(&self.value);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.string("config key")?.to_owned(),
            value: reader.string("config value")?.to_owned(),
        })
    }
}

fn encode_config(config: &[ConfigEntry], out: &mut Writer) {
    out.list(config, |out, entry| entry.encode(out));
}

fn decode_config(reader: &mut Reader<'_>) -> Result<Vec<ConfigEntry>, DecodeError> {
    reader.list_up_to("config", CONFIG_ENTRIES_MAX, 4, ConfigEntry::decode)
}

/// Creates a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateTopicRequest {
    /// Its name: `[A-Za-z0-9._-]{1,249}`.
    pub name: String,
    /// Partitions; at least 1.
    pub partitions: u32,
    /// Replicas of each partition; 0 leaves it to the cluster.
    pub replication_factor: u16,
    /// Keys that differ from their defaults.
    pub config: Vec<ConfigEntry>,
}

impl Head for CreateTopicRequest {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.name);
        out.u32(self.partitions);
        out.u16(self.replication_factor);
        encode_config(&self.config, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.string("name")?.to_owned(),
            partitions: reader.u32("partitions")?,
            replication_factor: reader.u16("replication_factor")?,
            config: decode_config(reader)?,
        })
    }
}

/// The new topic, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateTopicReply {
    /// Why the topic was not created, if so.
    pub fault: Option<Fault>,
    /// The new topic.
    pub topic: TopicId,
    /// Its metadata epoch.
    pub epoch: MetadataEpoch,
}

impl Head for CreateTopicReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u128(self.topic.0);
        out.u64(self.epoch.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic: TopicId(reader.u128("topic")?),
            epoch: MetadataEpoch(reader.u64("epoch")?),
        })
    }
}

/// Changes keys of a topic's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlterTopicRequest {
    /// The topic's name.
    pub name: String,
    /// The keys to set; an empty value goes back to the default.
    pub config: Vec<ConfigEntry>,
}

impl Head for AlterTopicRequest {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.name);
        encode_config(&self.config, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.string("name")?.to_owned(),
            config: decode_config(reader)?,
        })
    }
}

/// Adds partitions to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddPartitionsRequest {
    /// The topic's name.
    pub name: String,
    /// Partitions that the topic shall have: more than it has.
    pub partitions: u32,
}

impl Head for AddPartitionsRequest {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.name);
        out.u32(self.partitions);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.string("name")?.to_owned(),
            partitions: reader.u32("partitions")?,
        })
    }
}

/// Whether a topic has more partitions now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddPartitionsReply {
    /// Why not, if so.
    pub fault: Option<Fault>,
    /// The topic's metadata epoch from now on.
    pub epoch: MetadataEpoch,
}

impl Head for AddPartitionsReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.epoch.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            epoch: MetadataEpoch(reader.u64("epoch")?),
        })
    }
}

/// Deletes a topic and its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteTopicRequest {
    /// The topic's name.
    pub name: String,
}

impl Head for DeleteTopicRequest {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.name);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.string("name")?.to_owned(),
        })
    }
}

/// Whether a topic was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicReply {
    /// Why not, if so.
    pub fault: Option<Fault>,
}

impl Head for TopicReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
        })
    }
}

/// Asks for all about a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeTopicRequest {
    /// The topic's name.
    pub name: String,
}

impl Head for DescribeTopicRequest {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.name);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.string("name")?.to_owned(),
        })
    }
}

/// All about a topic, or why there is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeTopicReply {
    /// Why there is nothing, if so.
    pub fault: Option<Fault>,
    /// The topic.
    pub topic: TopicId,
    /// Counts its changes.
    pub epoch: MetadataEpoch,
    /// When it was created, in microseconds since 1970.
    pub created_us: i64,
    /// Replicas of each partition.
    pub replication_factor: u16,
    /// Every key with the value in force.
    pub config: Vec<ConfigEntry>,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionMetadata>,
}

impl Head for DescribeTopicReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u128(self.topic.0);
        out.u64(self.epoch.0);
        out.i64(self.created_us);
        out.u16(self.replication_factor);
        encode_config(&self.config, out);
        out.list(&self.partitions, |out, partition| partition.encode(out));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic: TopicId(reader.u128("topic")?),
            epoch: MetadataEpoch(reader.u64("epoch")?),
            created_us: reader.i64("created_us")?,
            replication_factor: reader.u16("replication_factor")?,
            config: decode_config(reader)?,
            partitions: reader.list("partitions", 15, PartitionMetadata::decode)?,
        })
    }
}
