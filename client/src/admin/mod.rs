//! Topics and offsets: creating, changing, growing, describing, trimming, deleting, looking up.
//! What is asked and how it is read is the same for every face.

mod calls;
#[cfg(feature = "async")]
mod face;

use ringway_wire::request::{MetadataReply, PartitionMetadata};
use ringway_wire::{LeaderEpoch, MetadataEpoch, Offset, TopicId};

pub(crate) use calls::{
    AddPartitions, AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, GetAllMetadata, LeaderCall,
    ListOffsets, Trim,
};
#[cfg(feature = "async")]
pub use face::Admin;

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    pub(crate) replication_factor: u16,
    pub(crate) config: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic with one partition; names match `[A-Za-z0-9._-]{1,249}`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
            replication_factor: 0,
            config: Vec::new(),
        }
    }

    /// Sets the number of partitions; at least 1.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the replicas of each partition; 0, the default, leaves it to the cluster.
    #[must_use]
    pub const fn replication_factor(mut self, replicas: u16) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// Sets a configuration key.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic: TopicId,
    /// Counts its changes.
    pub epoch: MetadataEpoch,
    /// Its partitions and who leads them, by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// All about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic: TopicId,
    /// Counts its changes.
    pub epoch: MetadataEpoch,
    /// When it was created, in microseconds since 1970.
    pub created_us: i64,
    /// Replicas of each partition.
    pub replication_factor: u16,
    /// Every configuration key with the value in force.
    pub config: Vec<(String, String)>,
    /// Its partitions and who leads them, by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// The offset of a place in a partition, and the partition's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The offset asked for.
    pub offset: Offset,
    /// First offset that is still there.
    pub log_start: Offset,
    /// The offset after the last one that can be read.
    pub high_watermark: Offset,
    /// Bytes of the partition's batches on disk.
    pub log_bytes: u64,
    /// Epoch of the leader that answered.
    pub leader_epoch: LeaderEpoch,
}

/// The topics of an answer that can be used, by name.
pub(crate) fn summaries(reply: MetadataReply) -> Vec<TopicSummary> {
    let found = reply.topics.into_iter();
    let mut topics: Vec<_> = found
        .filter(|topic| topic.fault.is_none())
        .map(|topic| TopicSummary {
            name: topic.name,
            topic: topic.topic,
            epoch: topic.epoch,
            partitions: topic.partitions,
        })
        .collect();
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    topics
}
