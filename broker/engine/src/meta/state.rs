//! The metadata itself: a pure function of the log's commands, the same on every broker.

mod snapshot;

use std::collections::BTreeMap;

use ringway_wire::limits::{TOPIC_NAME_BYTES_MAX, TOPIC_PARTITIONS_MAX};
use ringway_wire::request::ConfigEntry;
use ringway_wire::{ErrorCode, Fault, LeaderEpoch, MetadataEpoch, NodeId, TopicId};

use crate::limits::{PARTITIONS_MAX, PRODUCER_IDS_MAX, TOPICS_MAX};
use crate::meta::command::Command;
use crate::meta::config::{ConfigError, TopicConfig};
use crate::meta::delta::Delta;
use crate::meta::image::Image;
use crate::meta::topic::{Broker, Partition, PartitionEpoch, Topic};

pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};

/// Brokers, topics, partitions and producer ids after some prefix of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    applied: u64,
    cluster_id: u128,
    brokers: BTreeMap<NodeId, Broker>,
    topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<String, TopicId>,
    partitions: usize,
    /// Producer ids below this are taken, but for 0, which is nobody.
    producer_ids_end: u64,
}

impl Metadata {
    /// Follows the command at `index` of the log. A refused command stays in the log without
    /// effect, for everybody alike.
    ///
    /// # Errors
    /// The fault to answer with; nothing but the applied index has changed.
    ///
    /// # Panics
    /// When `index` is not above the last one: an entry would count twice.
    pub fn apply(&mut self, command: &Command, index: u64) -> Result<Vec<Delta>, Fault> {
        assert!(
            index > self.applied,
            "entry {index} of the metadata log comes after entry {}",
            self.applied
        );
        self.applied = index;
        self.check(command)?;
        match command {
            Command::CreateCluster { cluster_id } => {
                self.cluster_id = *cluster_id;
                let cluster_id = *cluster_id;
                Ok(vec![Delta::ClusterCreated { cluster_id }])
            }
            Command::RegisterBroker { node, incarnation } => {
                Ok(self.register(*node, *incarnation, index))
            }
            Command::CreateTopic {
                id,
                name,
                partitions,
                replication_factor,
                config,
                created_us,
            } => {
                let topic = Topic {
                    id: *id,
                    name: name.clone(),
                    epoch: MetadataEpoch(index),
                    created_us: *created_us,
                    replication_factor: self.replication_factor(*replication_factor)?,
                    config: TopicConfig::from_entries(config).map_err(|e| refused(name, &e))?,
                    partitions: self.place(*partitions, index),
                };
                Ok(self.create(topic))
            }
            Command::AlterTopic { name, config } => self.alter(name, config, index),
            Command::AddPartitions { name, partitions } => {
                self.add_partitions(name, *partitions, index)
            }
            Command::DeleteTopic { name } => self.delete(name),
            Command::ReserveProducerIds { count } => {
                let first = self.producer_ids_end.max(1);
                self.producer_ids_end = first + u64::from(*count);
                let count = *count;
                Ok(vec![Delta::ProducerIdsReserved { first, count }])
            }
        }
    }

    /// Whether `command` would have an effect now, so that one without need not go into the log.
    ///
    /// # Errors
    /// The fault that [`Self::apply`] would answer with.
    pub fn check(&self, command: &Command) -> Result<(), Fault> {
        match command {
            Command::CreateCluster { cluster_id } => self.check_cluster(*cluster_id),
            Command::RegisterBroker { .. } => Ok(()),
            Command::CreateTopic {
                id,
                name,
                partitions,
                replication_factor,
                config,
                ..
            } => {
                check_name(name)?;
                self.check_new(*id, name)?;
                self.check_partitions(name, *partitions)?;
                let factor = self.replication_factor(*replication_factor)?;
                let config = TopicConfig::from_entries(config).map_err(|e| refused(name, &e))?;
                config.fits(factor).map_err(|e| refused(name, &e))
            }
            Command::AlterTopic { name, config } => self.altered(name, config).map(|_| ()),
            Command::AddPartitions { name, partitions } => {
                self.check_added(name, *partitions).map(|_| ())
            }
            Command::DeleteTopic { name } => self.named(name).map(|_| ()),
            Command::ReserveProducerIds { count } => match count {
                1..=PRODUCER_IDS_MAX => Ok(()),
                count => Err(Fault::new(
                    ErrorCode::Internal,
                    format!(
                        "{count} producer ids can't be reserved at once: 1 to {PRODUCER_IDS_MAX}"
                    ),
                )),
            },
        }
    }

    fn check_cluster(&self, cluster_id: u128) -> Result<(), Fault> {
        let problem = match (self.cluster_id, cluster_id) {
            (0, 0) => "a cluster's id can't be 0".to_owned(),
            (0, _) => return Ok(()),
            (there, _) => format!("the cluster has its id already: {there:032x}"),
        };
        Err(Fault::new(ErrorCode::Internal, problem))
    }

    fn check_new(&self, id: TopicId, name: &str) -> Result<(), Fault> {
        if self.names.contains_key(name) {
            return Err(Fault::new(
                ErrorCode::TopicExists,
                format!("there is a topic {} already", shown(name)),
            ));
        }
        if self.topics.contains_key(&id) {
            let problem = format!("the topic id {id} is taken: try again with another");
            return Err(Fault::new(ErrorCode::Internal, problem));
        }
        if self.topics.len() >= TOPICS_MAX {
            let problem =
                format!("the cluster has its most topics, {TOPICS_MAX}: delete one first");
            return Err(Fault::new(ErrorCode::InvalidPartitions, problem));
        }
        Ok(())
    }

    fn check_partitions(&self, name: &str, partitions: u32) -> Result<(), Fault> {
        let fault = |problem| Err(Fault::new(ErrorCode::InvalidPartitions, problem));
        if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
            return fault(format!(
                "topic {} can't have {partitions} partitions: 1 to {TOPIC_PARTITIONS_MAX}",
                shown(name)
            ));
        }
        // A topic that is there already needs room for the new ones only.
        let present = self.named(name).map_or(0, |topic| topic.partitions.len());
        let left = PARTITIONS_MAX.saturating_sub(self.partitions);
        if partitions as usize > present + left {
            return fault(format!(
                "topic {} can't have {partitions} partitions: the cluster has room for {left} more \
                 of {PARTITIONS_MAX}",
                shown(name)
            ));
        }
        Ok(())
    }

    /// The topic that gets more partitions.
    fn check_added(&self, name: &str, partitions: u32) -> Result<&Topic, Fault> {
        let topic = self.named(name)?;
        let present = topic.partitions.len();
        if partitions as usize <= present {
            return Err(Fault::new(
                ErrorCode::InvalidPartitions,
                format!(
                    "topic {} has {present} partition{} already: the new number has to be larger \
                     (partitions are never taken away)",
                    shown(name),
                    if present == 1 { "" } else { "s" }
                ),
            ));
        }
        self.check_partitions(name, partitions)?;
        Ok(topic)
    }

    /// The number of replicas that a topic gets which asks for `wanted`.
    fn replication_factor(&self, wanted: u16) -> Result<u16, Fault> {
        let brokers = self.brokers.len();
        let fault = |problem| Err(Fault::new(ErrorCode::InvalidPartitions, problem));
        match wanted {
            _ if brokers == 0 => fault("no broker has registered yet: try again".to_owned()),
            0 | 1 => Ok(1),
            wanted => fault(format!(
                "{wanted} replicas can't be had: this version keeps one of each partition, on \
                 {brokers} broker{}; ask for 0 (the cluster decides) or 1",
                if brokers == 1 { "" } else { "s" }
            )),
        }
    }

    /// Spreads leaders over the brokers, from another one with every topic.
    fn place(&self, partitions: u32, index: u64) -> Vec<Partition> {
        self.place_from(
            (index % self.brokers.len() as u64) as usize,
            partitions as usize,
        )
    }

    /// Spreads leaders over the brokers, from the one at a place of their order.
    fn place_from(&self, first: usize, partitions: usize) -> Vec<Partition> {
        let nodes: Vec<NodeId> = self.brokers.keys().copied().collect();
        (0..partitions)
            .map(|partition| Partition::new(nodes[(first + partition) % nodes.len()]))
            .collect()
    }

    /// Goes on with the spreading where the topic's last partition is.
    fn add_partitions(
        &mut self,
        name: &str,
        partitions: u32,
        index: u64,
    ) -> Result<Vec<Delta>, Fault> {
        let topic = self.check_added(name, partitions)?;
        let (id, present) = (topic.id, topic.partitions.len());
        let after = topic.partitions.last().map(|last| last.leader);
        let first = self
            .brokers
            .keys()
            .position(|node| Some(*node) == after)
            .map_or(0, |place| place + 1);
        let added = self.place_from(first, partitions as usize - present);
        self.partitions += added.len();
        let topic = self.topics.get_mut(&id).expect("a name stands for a topic");
        topic.epoch = MetadataEpoch(index);
        topic.partitions.extend(&added);
        Ok(vec![Delta::PartitionsAdded {
            id,
            epoch: topic.epoch,
            partitions: added,
        }])
    }

    fn create(&mut self, topic: Topic) -> Vec<Delta> {
        self.names.insert(topic.name.clone(), topic.id);
        self.partitions += topic.partitions.len();
        self.topics.insert(topic.id, topic.clone());
        vec![Delta::TopicCreated(Box::new(topic))]
    }

    fn named(&self, name: &str) -> Result<&Topic, Fault> {
        let id = self.names.get(name).ok_or_else(|| no_such_topic(name))?;
        Ok(&self.topics[id])
    }

    fn altered(&self, name: &str, entries: &[ConfigEntry]) -> Result<TopicConfig, Fault> {
        let topic = self.named(name)?;
        let mut config = topic.config.clone();
        config.apply(entries).map_err(|e| refused(name, &e))?;
        config
            .fits(topic.replication_factor)
            .map_err(|e| refused(name, &e))?;
        Ok(config)
    }

    fn alter(
        &mut self,
        name: &str,
        entries: &[ConfigEntry],
        index: u64,
    ) -> Result<Vec<Delta>, Fault> {
        let config = self.altered(name, entries)?;
        let id = self.named(name)?.id;
        let topic = self.topics.get_mut(&id).expect("a name stands for a topic");
        topic.epoch = MetadataEpoch(index);
        topic.config = config.clone();
        Ok(vec![Delta::TopicAltered {
            id,
            epoch: topic.epoch,
            config: Box::new(config),
        }])
    }

    fn delete(&mut self, name: &str) -> Result<Vec<Delta>, Fault> {
        let id = self.named(name)?.id;
        let topic = self.topics.remove(&id).expect("a name stands for a topic");
        self.names.remove(name);
        self.partitions -= topic.partitions.len();
        Ok(vec![Delta::TopicDeleted { id }])
    }

    /// A new process of a broker leads in new epochs: what the old one wrote but nobody confirmed
    /// may differ from what this one writes in its place.
    fn register(&mut self, node: NodeId, incarnation: u128, index: u64) -> Vec<Delta> {
        let broker = Broker {
            node,
            incarnation,
            epoch: index,
        };
        let same = |known: &Broker| known.incarnation == incarnation;
        if self.brokers.get(&node).is_some_and(same) {
            return Vec::new();
        }
        self.brokers.insert(node, broker);
        let mut deltas = vec![Delta::BrokerRegistered(broker)];
        deltas.extend(
            self.topics
                .values_mut()
                .filter_map(|topic| lead_anew(topic, node, index)),
        );
        deltas
    }

    /// Index of the last command that was followed; 0 before the first.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied
    }

    /// The cluster's identity; 0 before it has one.
    #[must_use]
    pub const fn cluster_id(&self) -> u128 {
        self.cluster_id
    }

    /// Every broker, by its number.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Broker> {
        self.brokers.values()
    }

    /// Every topic, by its name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// The image for a broker's shards, as the deltas up to here would have made it.
    #[must_use]
    pub fn image(&self, node: NodeId, shards: u16) -> Image {
        let mut image = Image::new(node, shards);
        image.apply(&Delta::ClusterCreated {
            cluster_id: self.cluster_id,
        });
        for broker in self.brokers.values() {
            image.apply(&Delta::BrokerRegistered(*broker));
        }
        for topic in self.topics.values() {
            image.apply(&Delta::TopicCreated(Box::new(topic.clone())));
        }
        image
    }
}

fn lead_anew(topic: &mut Topic, node: NodeId, index: u64) -> Option<Delta> {
    let mut changed = Vec::new();
    for (place, partition) in topic.partitions.iter_mut().enumerate() {
        if partition.leader == node {
            partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
            partition.partition_epoch = PartitionEpoch(partition.partition_epoch.0 + 1);
            changed.push((ringway_wire::PartitionIndex(place as u32), *partition));
        }
    }
    if changed.is_empty() {
        return None;
    }
    topic.epoch = MetadataEpoch(index);
    Some(Delta::LeadersChanged {
        id: topic.id,
        epoch: topic.epoch,
        partitions: changed,
    })
}

fn check_name(name: &str) -> Result<(), Fault> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let problem = match name {
        "" => "it is empty".to_owned(),
        "." | ".." => "it names a directory everywhere else".to_owned(),
        name if name.len() > TOPIC_NAME_BYTES_MAX => {
            format!(
                "it has {} bytes, and at most {TOPIC_NAME_BYTES_MAX} are allowed",
                name.len()
            )
        }
        name if !name.bytes().all(allowed) => "allowed are A-Z a-z 0-9 . _ -".to_owned(),
        _ => return Ok(()),
    };
    Err(Fault::new(
        ErrorCode::InvalidTopicName,
        format!("a topic can't be called {}: {problem}", shown(name)),
    ))
}

fn refused(name: &str, error: &ConfigError) -> Fault {
    Fault::new(
        ErrorCode::InvalidConfig,
        format!("topic {}: {error}", shown(name)),
    )
}

/// The fault of a name that no topic has.
pub(crate) fn no_such_topic(name: &str) -> Fault {
    Fault::new(
        ErrorCode::UnknownTopic,
        format!("there is no topic {}", shown(name)),
    )
}

/// A name from outside, made fit for a message: quoted, and not longer than helps.
pub(crate) fn shown(name: &str) -> String {
    let cut = &name[..name.floor_char_boundary(TOPIC_NAME_BYTES_MAX)];
    let more = if cut.len() < name.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests;
