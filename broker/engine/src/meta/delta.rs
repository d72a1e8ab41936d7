//! What a command changed, for those who keep an image of the metadata.

use ringway_wire::{MetadataEpoch, PartitionIndex, TopicId};

use crate::meta::config::TopicConfig;
use crate::meta::topic::{Broker, Partition, Topic};

/// One change. The deltas of the log's commands, in their order, make every image the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The cluster has its identity.
    ClusterCreated {
        /// Random, made once.
        cluster_id: u128,
    },
    /// A broker's process is there, for the first time or again.
    BrokerRegistered(Broker),
    /// A topic is new.
    TopicCreated(Box<Topic>),
    /// A topic's configuration has changed.
    TopicAltered {
        /// The topic.
        id: TopicId,
        /// Its epoch from now on.
        epoch: MetadataEpoch,
        /// All of its configuration from now on.
        config: Box<TopicConfig>,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        id: TopicId,
        /// Its epoch from now on.
        epoch: MetadataEpoch,
        /// The new partitions, behind those that it had.
        partitions: Vec<Partition>,
    },
    /// A topic is gone, and its records have to go.
    TopicDeleted {
        /// The topic.
        id: TopicId,
    },
    /// Partitions of one topic have a new leader, or their old one in a new epoch.
    LeadersChanged {
        /// The topic.
        id: TopicId,
        /// Its epoch from now on.
        epoch: MetadataEpoch,
        /// The partitions as they are from now on.
        partitions: Vec<(PartitionIndex, Partition)>,
    },
    /// Producer ids were set aside for whoever proposed it.
    ProducerIdsReserved {
        /// The first of them.
        first: u64,
        /// How many follow one another.
        count: u32,
    },
}
