//! Topics and offsets: creating, changing, describing, deleting, looking up.

use ringway_wire::request::{BrokerMetadata, OffsetAt, PartitionMetadata};
use ringway_wire::{LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, TopicId};

use crate::client::Client;
use crate::error::RequestError;

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

/// Administration over a client's connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with `topic_exists`, `invalid_topic_name`, `invalid_partitions`
    /// or `invalid_config`; [`RequestError::Unreachable`], where `lost.sent` says that the topic
    /// may have been created all the same.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, RequestError> {
        let _ = (&self.client, topic);
        Err(RequestError::Closed)
    }

    /// Sets configuration keys of a topic; an empty value goes back to the default.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`]; [`RequestError::Refused`] with `invalid_config`;
    /// [`RequestError::Unreachable`].
    pub async fn alter_topic(
        &self,
        name: &str,
        config: &[(String, String)],
    ) -> Result<(), RequestError> {
        let _ = (name, config);
        Err(RequestError::Closed)
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), RequestError> {
        let _ = name;
        Err(RequestError::Closed)
    }

    /// All about a topic.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`].
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, RequestError> {
        let _ = name;
        Err(RequestError::Closed)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, RequestError> {
        Err(RequestError::Closed)
    }

    /// The brokers of the cluster and their ports.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn brokers(&self) -> Result<Vec<BrokerMetadata>, RequestError> {
        Err(RequestError::Closed)
    }

    /// The offset of a place in a partition, and the partition's ends.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`], [`RequestError::UnknownPartition`] and
    /// [`RequestError::Unreachable`].
    pub async fn offsets(
        &self,
        topic: &str,
        partition: PartitionIndex,
        at: OffsetAt,
    ) -> Result<PartitionOffsets, RequestError> {
        let _ = (topic, partition, at);
        Err(RequestError::Closed)
    }
}
