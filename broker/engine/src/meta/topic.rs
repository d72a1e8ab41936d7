//! What the metadata consists of: brokers, topics and their partitions.

use std::fmt;

use ringway_wire::{LeaderEpoch, MetadataEpoch, NodeId, PartitionIndex, TopicId, TopicPartition};

use crate::meta::config::TopicConfig;

/// Counts the changes of one partition's place: of its leader, its epoch, its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionEpoch(pub u32);

impl fmt::Display for PartitionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A broker that has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number in the cluster.
    pub node: NodeId,
    /// Random, made at each start of its process.
    pub incarnation: u128,
    /// Index of the log entry that registered this incarnation: rises with each start.
    pub epoch: u64,
}

/// Who leads a partition, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The broker that leads it.
    pub leader: NodeId,
    /// Rises with every election, and with every start of its leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with every change of this record.
    pub partition_epoch: PartitionEpoch,
}

impl Partition {
    /// A partition nobody has led before.
    #[must_use]
    pub const fn new(leader: NodeId) -> Self {
        Self {
            leader,
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
        }
    }
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity, never used again.
    pub id: TopicId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Index of the log entry that changed it last: rises with every change, and a new topic of an
    /// old name starts above the old one.
    pub epoch: MetadataEpoch,
    /// When it was created, in microseconds since 1970.
    pub created_us: i64,
    /// Replicas of each partition.
    pub replication_factor: u16,
    /// Its configuration.
    pub config: TopicConfig,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// The partition of an index.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// Every partition with its index.
    pub fn indexed(&self) -> impl ExactSizeIterator<Item = (PartitionIndex, &Partition)> {
        let index = |(index, partition)| (PartitionIndex(index as u32), partition);
        self.partitions.iter().enumerate().map(index)
    }

    /// The name of one partition in the cluster.
    #[must_use]
    pub const fn at(&self, partition: PartitionIndex) -> TopicPartition {
        TopicPartition {
            topic: self.id,
            partition,
        }
    }
}
