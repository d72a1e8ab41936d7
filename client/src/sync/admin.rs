//! Administration's synchronous face.

use ringway_wire::request::{BrokerMetadata, OffsetAt, TrimBefore};
use ringway_wire::{MetadataEpoch, Offset, PartitionIndex, TopicId};

use crate::admin::{
    AddPartitions, AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, GetAllMetadata, LeaderCall,
    ListOffsets, NewTopic, PartitionOffsets, TopicDescription, TopicSummary, Trim, summaries,
};
use crate::calls::Call;
use crate::error::RequestError;
use crate::sync::link::Link;

/// Administration over connections of its own; every call waits for the broker's answer.
#[derive(Debug)]
pub struct Admin {
    link: Link,
}

impl Admin {
    pub(super) const fn new(link: Link) -> Self {
        Self { link }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with `topic_exists`, `invalid_topic_name`, `invalid_partitions`
    /// or `invalid_config`; [`RequestError::Unreachable`], where `lost.sent` says that the topic
    /// may have been created all the same.
    pub fn create_topic(&mut self, topic: NewTopic) -> Result<TopicId, RequestError> {
        self.link.call(&CreateTopic(&topic))
    }

    /// Sets configuration keys of a topic; an empty value goes back to the default.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`]; [`RequestError::Refused`] with `invalid_config`;
    /// [`RequestError::Unreachable`].
    pub fn alter_topic(
        &mut self,
        name: &str,
        config: &[(String, String)],
    ) -> Result<(), RequestError> {
        self.change(name, &AlterTopic { name, config })
    }

    /// Adds partitions to a topic, so that it has `partitions` of them; gives the topic's new
    /// metadata epoch. Producers use the new ones from their next request.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`]; [`RequestError::Refused`] with `invalid_partitions` when it
    /// has as many or more, or that many can't be had; [`RequestError::Unreachable`], where
    /// `lost.sent` says that they may have been added all the same.
    pub fn add_partitions(
        &mut self,
        name: &str,
        partitions: u32,
    ) -> Result<MetadataEpoch, RequestError> {
        self.change(name, &AddPartitions { name, partitions })
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`], where `lost.sent` says
    /// that the topic may have been deleted all the same.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), RequestError> {
        self.change(name, &DeleteTopic(name))
    }

    /// All about a topic.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] and [`RequestError::Unreachable`].
    pub fn describe_topic(&mut self, name: &str) -> Result<TopicDescription, RequestError> {
        self.link.call(&DescribeTopic(name))
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub fn list_topics(&mut self) -> Result<Vec<TopicSummary>, RequestError> {
        let call = GetAllMetadata { topics: true };
        Ok(summaries(self.link.call(&call)?))
    }

    /// The brokers of the cluster and their ports, by id.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`].
    pub fn brokers(&mut self) -> Result<Vec<BrokerMetadata>, RequestError> {
        let call = GetAllMetadata { topics: false };
        let mut brokers = self.link.call(&call)?.brokers;
        brokers.sort_by_key(|broker| broker.node);
        Ok(brokers)
    }

    /// The offset of a place in a partition, and the partition's ends.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`], [`RequestError::UnknownPartition`],
    /// [`RequestError::Refused`] and [`RequestError::Unreachable`].
    pub fn offsets(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        at: OffsetAt,
    ) -> Result<PartitionOffsets, RequestError> {
        let call = ListOffsets {
            topic,
            partition,
            at,
        };
        self.call_leader(&call)
    }

    /// Removes a partition's oldest records, before retention would; gives the first offset that
    /// is left. When it returns, what was before that offset doesn't come back, whatever crashes.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`], [`RequestError::UnknownPartition`];
    /// [`RequestError::Refused`] with `offset_out_of_range` for an offset above the high watermark;
    /// [`RequestError::Unreachable`].
    pub fn trim(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        before: TrimBefore,
    ) -> Result<Offset, RequestError> {
        let call = Trim {
            topic,
            partition,
            before,
        };
        self.call_leader(&call)
    }

    /// Changes a topic; what is known of it here is in doubt then.
    fn change<C: Call>(&mut self, name: &str, call: &C) -> Result<C::Output, RequestError> {
        let changed = self.link.call(call)?;
        self.link.metadata().doubt(&name.into());
        Ok(changed)
    }

    fn call_leader<C: LeaderCall>(&mut self, call: &C) -> Result<C::Output, RequestError> {
        let (topic, partition) = call.of();
        let reply =
            self.link
                .call_leader(|| call.what(), topic, partition, |to| call.request(to))?;
        call.read(reply)
    }
}
