//! The image of the metadata that every shard holds: topics by name and by id, and the answers
//! that any shard gives from it.

use std::collections::{BTreeMap, HashMap};

use ringway_wire::limits::{FRAME_HEAD_BYTES_MAX, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use ringway_wire::request::{
    BrokerMetadata, DescribeTopicReply, DescribeTopicRequest, HelloReply, HelloRequest,
    MetadataReply, MetadataRequest, PartitionMetadata, PartitionState, TopicMetadata,
};
use ringway_wire::{ErrorCode, Fault, NodeId, PartitionIndex, ShardId, TopicId, TopicPartition};

use crate::limits::{METADATA_BROKERS_BYTES, METADATA_PARTITION_BYTES};
use crate::meta::delta::Delta;
use crate::meta::route::shard_of;
use crate::meta::state::{no_such_topic, shown};
use crate::meta::topic::{Broker, Topic};
use crate::shard::PartitionConfig;

/// Where a broker is reached, as metadata names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Host name or address.
    pub host: String,
    /// The port that any request may use.
    pub port: u16,
    /// The port of each shard, by shard id.
    pub shard_ports: Vec<u16>,
}

/// The metadata as one broker's shards know it. Which broker, and how many shards it has, is this
/// process's own matter and no part of the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    node: NodeId,
    shards: u16,
    cluster_id: u128,
    brokers: BTreeMap<NodeId, Broker>,
    topics: HashMap<TopicId, Topic>,
    names: BTreeMap<String, TopicId>,
}

impl Image {
    /// An image without topics, for a broker with `shards` shards.
    ///
    /// # Panics
    /// Without shards.
    #[must_use]
    pub fn new(node: NodeId, shards: u16) -> Self {
        assert!(shards > 0, "a broker has at least one shard");
        Self {
            node,
            shards,
            cluster_id: 0,
            brokers: BTreeMap::new(),
            topics: HashMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// Follows one change.
    ///
    /// # Panics
    /// When the delta doesn't follow what is here: one is missing, and no answer could be right.
    pub fn apply(&mut self, delta: &Delta) {
        let known = "deltas come in their order, none is left out";
        match delta {
            Delta::ClusterCreated { cluster_id } => self.cluster_id = *cluster_id,
            Delta::BrokerRegistered(broker) => {
                self.brokers.insert(broker.node, *broker);
            }
            Delta::TopicCreated(topic) => self.insert(Topic::clone(topic)),
            Delta::TopicAltered { id, epoch, config } => {
                let topic = self.topics.get_mut(id).expect(known);
                topic.epoch = *epoch;
                topic.config = config.as_ref().clone();
            }
            Delta::PartitionsAdded {
                id,
                epoch,
                partitions,
            } => {
                let topic = self.topics.get_mut(id).expect(known);
                topic.epoch = *epoch;
                topic.partitions.extend(partitions);
            }
            Delta::TopicDeleted { id } => {
                let topic = self.topics.remove(id).expect(known);
                self.names.remove(&topic.name);
            }
            Delta::LeadersChanged {
                id,
                epoch,
                partitions,
            } => {
                let topic = self.topics.get_mut(id).expect(known);
                topic.epoch = *epoch;
                for (index, partition) in partitions {
                    topic.partitions[index.0 as usize] = *partition;
                }
            }
            Delta::ProducerIdsReserved { .. } => {}
        }
    }

    fn insert(&mut self, topic: Topic) {
        self.names.insert(topic.name.clone(), topic.id);
        self.topics.insert(topic.id, topic);
    }

    /// The broker whose shards hold this image.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// How many shards that broker has.
    #[must_use]
    pub const fn shards(&self) -> u16 {
        self.shards
    }

    /// The cluster's identity; 0 before it has one.
    #[must_use]
    pub const fn cluster_id(&self) -> u128 {
        self.cluster_id
    }

    /// The topic of an id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The topic of a name.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The shard of this broker that owns a partition; `None` when there is no such partition or
    /// another broker leads it.
    #[must_use]
    pub fn owner(&self, at: TopicPartition) -> Option<ShardId> {
        let partition = self.topic(at.topic)?.partition(at.partition)?;
        (partition.leader == self.node).then(|| shard_of(at, self.shards))
    }

    /// Every partition that one shard of this broker owns.
    pub fn owned_by(&self, shard: ShardId) -> impl Iterator<Item = TopicPartition> {
        let partitions = |topic| Topic::indexed(topic).map(|(index, _)| topic.at(index));
        let owned = move |at: &TopicPartition| self.owner(*at) == Some(shard);
        self.topics().flat_map(partitions).filter(owned)
    }

    /// What the owner of a partition has to follow.
    #[must_use]
    pub fn partition_config(&self, at: TopicPartition) -> Option<PartitionConfig> {
        let topic = self.topic(at.topic)?;
        Some(PartitionConfig {
            topic_epoch: topic.epoch,
            leader_epoch: topic.partition(at.partition)?.leader_epoch,
            segment_bytes: topic.config.segment_bytes,
            durability: topic.config.durability,
            record_bytes_max: topic.config.record_bytes_max as usize,
            retention: topic.config.retention,
            retention_bytes: topic.config.retention_bytes,
        })
    }

    /// Answers hello: the highest version that both sides speak.
    #[must_use]
    pub fn hello_reply(&self, request: &HelloRequest, batch_bytes_max: u32) -> HelloReply {
        let ours = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
        let version = request.version_max.clamp(ours.0, ours.1);
        let spoken = (request.version_min..=request.version_max).contains(&version);
        HelloReply {
            fault: (!spoken).then(|| {
                Fault::new(
                    ErrorCode::UnsupportedVersion,
                    format!(
                        "the client speaks protocol versions {} to {}, this broker {} to {}: \
                         update the older of the two",
                        request.version_min, request.version_max, ours.0, ours.1
                    ),
                )
            }),
            version: if spoken { version } else { 0 },
            node: self.node,
            cluster_id: self.cluster_id,
            batch_bytes_max,
        }
    }

    /// Answers who leads what; unknown names are answered one by one with a fault. The reply fits
    /// a frame whatever was asked.
    #[must_use]
    pub fn metadata_reply(
        &self,
        request: &MetadataRequest,
        addresses: &Addresses,
    ) -> MetadataReply {
        let mut topics = Vec::new();
        let mut bytes_left = FRAME_HEAD_BYTES_MAX - METADATA_BROKERS_BYTES;
        let mut push = |topic: TopicMetadata| {
            let bytes = reply_bytes(&topic);
            topics.push(topic);
            bytes_left.checked_sub(bytes).map(|left| bytes_left = left)
        };
        let all_fit = match &request.topics {
            None => self
                .topics()
                .try_for_each(|topic| push(self.topic_metadata(topic))),
            Some(names) => names
                .iter()
                .try_for_each(|name| push(self.named_metadata(name))),
        };
        let fault = all_fit.is_none().then(|| {
            topics.clear();
            Fault::new(
                ErrorCode::ReplyTooLarge,
                "the answer would be larger than a reply can be: ask for fewer topics at a time",
            )
        });
        MetadataReply {
            fault,
            brokers: vec![BrokerMetadata {
                node: self.node,
                host: addresses.host.clone(),
                port: addresses.port,
                shard_ports: addresses.shard_ports.clone(),
            }],
            topics,
        }
    }

    fn named_metadata(&self, name: &str) -> TopicMetadata {
        match self.topic_named(name) {
            Some(topic) => self.topic_metadata(topic),
            None => TopicMetadata {
                fault: Some(no_such_topic(name)),
                name: name.to_owned(),
                ..TopicMetadata::default()
            },
        }
    }

    fn topic_metadata(&self, topic: &Topic) -> TopicMetadata {
        TopicMetadata {
            fault: None,
            name: topic.name.clone(),
            topic: topic.id,
            epoch: topic.epoch,
            codec: topic.config.codec,
            timestamp: topic.config.timestamp,
            partitions: self.partitions_metadata(topic),
        }
    }

    fn partitions_metadata(&self, topic: &Topic) -> Vec<PartitionMetadata> {
        topic
            .indexed()
            .map(|(index, partition)| PartitionMetadata {
                partition: index,
                leader: partition.leader,
                // Only the leader itself knows its shards; clients ask it.
                shard: self.owner(topic.at(index)).unwrap_or_default(),
                leader_epoch: partition.leader_epoch,
                state: PartitionState::Active,
            })
            .collect()
    }

    /// Answers all about a topic.
    #[must_use]
    pub fn describe_topic(&self, request: &DescribeTopicRequest) -> DescribeTopicReply {
        let Some(topic) = self.topic_named(&request.name) else {
            return DescribeTopicReply {
                fault: Some(no_such_topic(&request.name)),
                ..DescribeTopicReply::default()
            };
        };
        DescribeTopicReply {
            fault: None,
            topic: topic.id,
            epoch: topic.epoch,
            created_us: topic.created_us,
            replication_factor: topic.replication_factor,
            config: topic.config.entries(topic.replication_factor),
            partitions: self.partitions_metadata(topic),
        }
    }

    /// Why a partition can't be used: there is none, or another broker leads it. `None` when it
    /// can.
    pub(crate) fn refusal(&self, topic: TopicId, partition: PartitionIndex) -> Option<Fault> {
        let Some(found) = self.topic(topic) else {
            return Some(Fault::new(
                ErrorCode::UnknownTopic,
                format!("there is no topic with the id {topic}: it was deleted; ask for its name"),
            ));
        };
        let Some(place) = found.partition(partition) else {
            return Some(Fault::new(
                ErrorCode::UnknownPartition,
                format!(
                    "topic {} has no partition {partition}: its partitions are 0 to {}",
                    shown(&found.name),
                    found.partitions.len() - 1
                ),
            ));
        };
        (place.leader != self.node).then(|| {
            Fault::new(
                ErrorCode::NotLeader,
                format!(
                    "broker {} leads partition {partition} of topic {}, not broker {}: refresh \
                     the metadata",
                    place.leader,
                    shown(&found.name),
                    self.node
                ),
            )
        })
    }
}

/// Bytes of a topic in a metadata reply.
fn reply_bytes(topic: &TopicMetadata) -> usize {
    let fault = topic
        .fault
        .as_ref()
        .map_or(0, |fault| 2 + fault.message.len());
    let fixed = 2 + 2 + 16 + 8 + 2 + 4;
    fault + fixed + topic.name.len() + topic.partitions.len() * METADATA_PARTITION_BYTES
}

#[cfg(test)]
mod tests;
