//! The metadata's bytes in a snapshot, which stands for the log up to its index.
//!
//! Everything is written in the order of ids and names, so that equal states have equal bytes.

use ringway_wire::request::{ConfigEntry, Head};
use ringway_wire::{DecodeError, LeaderEpoch, MetadataEpoch, NodeId, Reader, TopicId, Writer};

use super::Metadata;
use crate::meta::config::{ConfigError, TopicConfig};
use crate::meta::topic::{Broker, Partition, PartitionEpoch, Topic};

/// Version of the bytes that this build writes and reads. What it says never changes.
pub const SNAPSHOT_VERSION: u16 = 1;

/// Why bytes are not a snapshot that this build understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A field is missing or wrong.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// It was written by another version.
    #[error("it has version {0}, and this build reads version {SNAPSHOT_VERSION} only")]
    Version(u16),
    /// A topic's configuration isn't one.
    #[error("topic {name:?}: {error}")]
    Config {
        /// The topic's name.
        name: String,
        /// What is wrong.
        error: ConfigError,
    },
}

impl Metadata {
    /// The state's bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(SNAPSHOT_VERSION);
        out.u64(self.applied);
        out.u128(self.cluster_id);
        out.u64(self.producer_ids_end);
        let brokers: Vec<_> = self.brokers.values().collect();
        out.list(&brokers, |out, broker| {
            out.u32(broker.node.0);
            out.u128(broker.incarnation);
            out.u64(broker.epoch);
        });
        let topics: Vec<_> = self.topics.values().collect();
        out.list(&topics, |out, topic| encode_topic(topic, out));
        out.into_bytes()
    }

    /// Reads a state from all of `bytes`.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with them.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16("snapshot version")?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let mut state = Self {
            applied: reader.u64("applied")?,
            cluster_id: reader.u128("cluster_id")?,
            producer_ids_end: reader.u64("producer_ids_end")?,
            ..Self::default()
        };
        let brokers = reader.list("brokers", 28, decode_broker)?;
        state.brokers = brokers
            .into_iter()
            .map(|broker| (broker.node, broker))
            .collect();
        let topics = reader.list("topics", 40, decode_topic)?;
        reader.finish()?;
        for (mut topic, entries) in topics {
            topic.config =
                TopicConfig::from_entries(&entries).map_err(|error| SnapshotError::Config {
                    name: topic.name.clone(),
                    error,
                })?;
            state.create(topic);
        }
        Ok(state)
    }
}

fn decode_broker(reader: &mut Reader<'_>) -> Result<Broker, DecodeError> {
    Ok(Broker {
        node: NodeId(reader.u32("node")?),
        incarnation: reader.u128("incarnation")?,
        epoch: reader.u64("epoch")?,
    })
}

fn encode_topic(topic: &Topic, out: &mut Writer) {
    out.u128(topic.id.0);
    out.string(&topic.name);
    out.u64(topic.epoch.0);
    out.i64(topic.created_us);
    out.u16(topic.replication_factor);
    out.list(&topic.config.stored(), |out, entry| entry.encode(out));
    out.list(&topic.partitions, |out, partition| {
        out.u32(partition.leader.0);
        out.u32(partition.leader_epoch.0);
        out.u32(partition.partition_epoch.0);
    });
}

/// A topic, and its configuration as it stands there.
fn decode_topic(reader: &mut Reader<'_>) -> Result<(Topic, Vec<ConfigEntry>), DecodeError> {
    let mut topic = Topic {
        id: TopicId(reader.u128("id")?),
        name: reader.string("name")?.to_owned(),
        epoch: MetadataEpoch(reader.u64("epoch")?),
        created_us: reader.i64("created_us")?,
        replication_factor: reader.u16("replication_factor")?,
        config: TopicConfig::default(),
        partitions: Vec::new(),
    };
    let entries = reader.list("config", 4, ConfigEntry::decode)?;
    topic.partitions = reader.list("partitions", 12, |reader| {
        Ok(Partition {
            leader: NodeId(reader.u32("leader")?),
            leader_epoch: LeaderEpoch(reader.u32("leader_epoch")?),
            partition_epoch: PartitionEpoch(reader.u32("partition_epoch")?),
        })
    })?;
    Ok((topic, entries))
}
