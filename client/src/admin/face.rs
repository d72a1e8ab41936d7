//! Administration's asynchronous face.

use ringway_wire::request::{BrokerMetadata, OffsetAt, TrimBefore};
use ringway_wire::{MetadataEpoch, Offset, PartitionIndex, TopicId};

use crate::admin::{
    AddPartitions, AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, GetAllMetadata, LeaderCall,
    ListOffsets, NewTopic, PartitionOffsets, TopicDescription, TopicSummary, Trim, summaries,
};
use crate::client::Client;
use crate::error::RequestError;

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
        self.client.shared().call(&CreateTopic(&topic)).await
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
        let call = AlterTopic { name, config };
        self.client.shared().call(&call).await?;
        self.client.shared().doubt(&name.into());
        Ok(())
    }

    /// Adds partitions to a topic, so that it has `partitions` of them; gives the topic's new
    /// metadata epoch. Producers use the new ones from their next request; keys move only to the
    /// new ones.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`]; [`RequestError::Refused`] with `invalid_partitions` when it
    /// has as many or more, or that many can't be had; [`RequestError::Unreachable`], where
    /// `lost.sent` says that they may have been added all the same.
    pub async fn add_partitions(
        &self,
        name: &str,
        partitions: u32,
    ) -> Result<MetadataEpoch, RequestError> {
        let call = AddPartitions { name, partitions };
        let epoch = self.client.shared().call(&call).await?;
        self.client.shared().doubt(&name.into());
        Ok(epoch)
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`], where `lost.sent` says
    /// that the topic may have been deleted all the same.
    pub async fn delete_topic(&self, name: &str) -> Result<(), RequestError> {
        self.client.shared().call(&DeleteTopic(name)).await?;
        self.client.shared().doubt(&name.into());
        Ok(())
    }

    /// All about a topic.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`].
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, RequestError> {
        self.client.shared().call(&DescribeTopic(name)).await
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, RequestError> {
        let call = GetAllMetadata { topics: true };
        Ok(summaries(self.client.shared().call(&call).await?))
    }

    /// The brokers of the cluster and their ports, by id.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub async fn brokers(&self) -> Result<Vec<BrokerMetadata>, RequestError> {
        let call = GetAllMetadata { topics: false };
        let mut brokers = self.client.shared().call(&call).await?.brokers;
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
        self.call_leader(&call).await
    }

    /// Removes a partition's oldest records, before retention would; gives the first offset that
    /// is left. When it returns, what was before that offset doesn't come back, whatever crashes.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`], [`RequestError::UnknownPartition`];
    /// [`RequestError::Refused`] with `offset_out_of_range` for an offset above the high watermark;
    /// [`RequestError::Unreachable`].
    pub async fn trim(
        &self,
        topic: &str,
        partition: PartitionIndex,
        before: TrimBefore,
    ) -> Result<Offset, RequestError> {
        let call = Trim {
            topic,
            partition,
            before,
        };
        self.call_leader(&call).await
    }

    async fn call_leader<C: LeaderCall>(&self, call: &C) -> Result<C::Output, RequestError> {
        let (topic, partition) = call.of();
        let shared = self.client.shared();
        let reply = shared
            .request_leader(|| call.what(), topic, partition, |to| call.request(to))
            .await?;
        call.read(reply)
    }
}
