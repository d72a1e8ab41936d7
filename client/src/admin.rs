//! Topics and offsets: creating, changing, describing, deleting, looking up.

use ringway_wire::request::{
    AlterTopicRequest, BrokerMetadata, ConfigEntry, CreateTopicRequest, DeleteTopicRequest,
    DescribeTopicRequest, ListOffsetsRequest, MetadataReply, MetadataRequest, OffsetAt,
    PartitionMetadata, Reply, Request,
};
use ringway_wire::{LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use crate::calls::refused;
use crate::client::Client;
use crate::core::inquiry::Repeat;
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
        let what = || format!("topic {}", topic.name);
        let request = CreateTopicRequest {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            config: entries(&topic.config),
        };
        let reply = self
            .client
            .shared()
            .request(what, request.into(), Repeat::IfUnsent)
            .await?;
        let Reply::CreateTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(what, reply.fault.as_ref(), None)?;
        Ok(reply.topic)
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
        let what = || format!("topic {name}");
        let request = AlterTopicRequest {
            name: name.to_owned(),
            config: entries(config),
        };
        let reply = self
            .client
            .shared()
            .request(what, request.into(), Repeat::IfUnsent)
            .await?;
        let Reply::AlterTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(what, reply.fault.as_ref(), Some(name))
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`], where `lost.sent` says
    /// that the topic may have been deleted all the same.
    pub async fn delete_topic(&self, name: &str) -> Result<(), RequestError> {
        let what = || format!("topic {name}");
        let request = DeleteTopicRequest {
            name: name.to_owned(),
        };
        let reply = self
            .client
            .shared()
            .request(what, request.into(), Repeat::IfUnsent)
            .await?;
        let Reply::DeleteTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(what, reply.fault.as_ref(), Some(name))?;
        self.client.shared().doubt(&name.into());
        Ok(())
    }

    /// All about a topic.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`].
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, RequestError> {
        let what = || format!("topic {name}");
        let request = DescribeTopicRequest {
            name: name.to_owned(),
        };
        let reply = self
            .client
            .shared()
            .request(what, request.into(), Repeat::Harmless)
            .await?;
        let Reply::DescribeTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(what, reply.fault.as_ref(), Some(name))?;
        Ok(TopicDescription {
            name: name.to_owned(),
            topic: reply.topic,
            epoch: reply.epoch,
            created_us: reply.created_us,
            replication_factor: reply.replication_factor,
            config: reply
                .config
                .into_iter()
                .map(|entry| (entry.key, entry.value))
                .collect(),
            partitions: reply.partitions,
        })
    }

    async fn metadata(&self, topics: Option<Vec<String>>) -> Result<MetadataReply, RequestError> {
        let what = || "metadata".to_owned();
        let request = MetadataRequest { topics };
        let reply = self
            .client
            .shared()
            .request(what, request.into(), Repeat::Harmless)
            .await?;
        let Reply::Metadata(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(what, reply.fault.as_ref(), None)?;
        Ok(reply)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, RequestError> {
        let found = self.metadata(None).await?.topics.into_iter();
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
        Ok(topics)
    }

    /// The brokers of the cluster and their ports, by id.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn brokers(&self) -> Result<Vec<BrokerMetadata>, RequestError> {
        let mut brokers = self.metadata(Some(Vec::new())).await?.brokers;
        brokers.sort_by_key(|broker| broker.node);
        Ok(brokers)
    }

    /// The offset of a place in a partition, and the partition's ends.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`], [`RequestError::UnknownPartition`],
    /// [`RequestError::Refused`] and [`RequestError::Unreachable`].
    pub async fn offsets(
        &self,
        topic: &str,
        partition: PartitionIndex,
        at: OffsetAt,
    ) -> Result<PartitionOffsets, RequestError> {
        let call = ListOffsets {
            topic,
            partition,
            at,
        };
        let shared = self.client.shared();
        let make = |to| call.request(to);
        let reply = shared
            .request_leader(|| call.what(), topic, partition, make)
            .await?;
        call.read(reply)
    }
}

/// Looks up an offset and the ends of a partition, at its leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListOffsets<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: PartitionIndex,
    pub(crate) at: OffsetAt,
}

impl ListOffsets<'_> {
    pub(crate) fn what(&self) -> String {
        format!("offsets of {}/{}", self.topic, self.partition)
    }

    pub(crate) fn request(&self, to: TopicPartition) -> Request {
        ListOffsetsRequest {
            topic: to.topic,
            partition: to.partition,
            at: self.at,
        }
        .into()
    }

    pub(crate) fn read(&self, reply: Reply) -> Result<PartitionOffsets, RequestError> {
        let Reply::ListOffsets(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.topic))?;
        Ok(PartitionOffsets {
            offset: reply.offset,
            log_start: reply.log_start,
            high_watermark: reply.high_watermark,
            log_bytes: reply.log_bytes,
            leader_epoch: reply.leader_epoch,
        })
    }
}

fn entries(config: &[(String, String)]) -> Vec<ConfigEntry> {
    let entry = |(key, value): &(String, String)| ConfigEntry {
        key: key.clone(),
        value: value.clone(),
    };
    config.iter().map(entry).collect()
}
