//! What the client knows of the cluster: brokers with their ports, topics with their leaders; and
//! when that has to be asked again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use ringway_wire::batch::Codec;
use ringway_wire::request::{
    BrokerMetadata, MetadataReply, PartitionMetadata, TimestampSource, TopicMetadata,
};
use ringway_wire::{
    ErrorCode, MetadataEpoch, NodeId, PartitionIndex, ShardId, TopicId, TopicPartition,
};

use crate::config::Address;
use crate::error::RequestError;
use crate::limits::REFRESH_PAUSE;

/// A topic as last heard of.
#[derive(Clone, Debug)]
pub(crate) struct TopicView {
    pub(crate) name: Arc<str>,
    pub(crate) topic: TopicId,
    pub(crate) epoch: MetadataEpoch,
    /// What producers compress with unless they were told otherwise.
    pub(crate) codec: Codec,
    /// Which time a record's timestamp is.
    pub(crate) timestamp: TimestampSource,
    pub(crate) partitions: Arc<[PartitionMetadata]>,
}

impl TopicView {
    /// A partition of the topic.
    pub(crate) fn at(&self, partition: PartitionIndex) -> Result<TopicPartition, RequestError> {
        let partitions = self.partitions.len() as u32;
        if partition.0 >= partitions {
            return Err(RequestError::UnknownPartition {
                topic: self.name.to_string(),
                partition,
                partitions,
            });
        }
        let topic = self.topic;
        Ok(TopicPartition { topic, partition })
    }
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug)]
struct Route {
    node: NodeId,
    shard: ShardId,
}

/// Where a broker listens.
#[derive(Debug)]
struct Ports {
    shared: Address,
    shards: Vec<u16>,
}

impl Ports {
    fn new(broker: &BrokerMetadata) -> Self {
        Self {
            shared: Address {
                host: broker.host.as_str().into(),
                port: broker.port,
            },
            shards: broker.shard_ports.clone(),
        }
    }
}

/// The ports of a partition's leader.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// The broker's shared port.
    pub(crate) shared: Address,
    /// That of the shard that owns the partition, if it has one.
    pub(crate) own: Option<Address>,
}

/// Brokers and topics. Every change raises `version`.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    version: u64,
    brokers: HashMap<NodeId, Ports>,
    topics: HashMap<Arc<str>, TopicView>,
    names: HashMap<TopicId, Arc<str>>,
    /// Topics to ask for again.
    stale: HashSet<Arc<str>>,
    refreshed: Option<Instant>,
}

impl Metadata {
    /// Counts the changes.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// A topic by name.
    pub(crate) fn topic(&self, name: &str) -> Option<&TopicView> {
        self.topics.get(name)
    }

    /// Brokers to ask: the one that answered last, those known, those to begin with.
    pub(crate) fn candidates(&self, good: Option<Address>, begin: &[Address]) -> Vec<Address> {
        let mut found: Vec<Address> = good.into_iter().collect();
        let known = self.brokers.values().map(|ports| &ports.shared);
        for address in known.chain(begin) {
            if !found.contains(address) {
                found.push(address.clone());
            }
        }
        found
    }

    /// Where a partition's requests go, if that is known.
    pub(crate) fn leader(&self, of: TopicPartition) -> Option<Leader> {
        let route = self.route(of.topic, of.partition)?;
        let ports = self.brokers.get(&route.node)?;
        let own = ports.shards.get(usize::from(route.shard.0));
        Some(Leader {
            shared: ports.shared.clone(),
            own: own.map(|&port| Address {
                host: Arc::clone(&ports.shared.host),
                port,
            }),
        })
    }

    /// Who leads a partition.
    fn route(&self, topic: TopicId, partition: PartitionIndex) -> Option<Route> {
        let view = self.topics.get(self.names.get(&topic)?)?;
        let found = view.partitions.get(partition.0 as usize)?;
        Some(Route {
            node: found.leader,
            shard: found.shard,
        })
    }

    /// Takes an answer. Topics that it says don't exist are forgotten; an answer older than what
    /// is known is not taken.
    pub(crate) fn apply(&mut self, reply: MetadataReply, now: Instant) {
        self.refreshed = Some(now);
        self.version += 1;
        if !reply.brokers.is_empty() {
            self.brokers = reply
                .brokers
                .into_iter()
                .map(|each| (each.node, Ports::new(&each)))
                .collect();
        }
        for topic in reply.topics {
            self.stale.remove(topic.name.as_str());
            match &topic.fault {
                None => self.learn(topic),
                Some(fault) if fault.code == ErrorCode::UnknownTopic => self.forget(&topic.name),
                Some(_) => {}
            }
        }
    }

    fn learn(&mut self, mut topic: TopicMetadata) {
        let known = self.topics.get(topic.name.as_str());
        if known.is_some_and(|known| known.topic == topic.topic && known.epoch > topic.epoch) {
            return;
        }
        topic.partitions.sort_unstable_by_key(|each| each.partition);
        let contiguous = topic.partitions.iter().enumerate();
        if !contiguous
            .clone()
            .all(|(index, each)| each.partition.0 as usize == index)
        {
            return;
        }
        self.forget(&topic.name);
        let name: Arc<str> = topic.name.into();
        self.names.insert(topic.topic, Arc::clone(&name));
        let view = TopicView {
            name: Arc::clone(&name),
            topic: topic.topic,
            epoch: topic.epoch,
            codec: topic.codec,
            timestamp: topic.timestamp,
            partitions: topic.partitions.into(),
        };
        self.topics.insert(name, view);
    }

    fn forget(&mut self, name: &str) {
        if let Some(view) = self.topics.remove(name) {
            self.names.remove(&view.topic);
        }
    }

    /// Notes the epoch that a reply carried; true when the topic has to be asked for again.
    pub(crate) fn note_epoch(&mut self, topic: TopicId, epoch: MetadataEpoch) -> bool {
        let known = self
            .names
            .get(&topic)
            .and_then(|name| self.topics.get(name));
        match known {
            Some(view) if view.epoch < epoch => self.stale.insert(Arc::clone(&view.name)),
            _ => false,
        }
    }

    /// Notes that a topic's view is wrong or in doubt; true when it wasn't known yet.
    pub(crate) fn doubt(&mut self, name: &Arc<str>) -> bool {
        self.stale.insert(Arc::clone(name))
    }

    /// Whether there is anything to ask for again.
    #[cfg(feature = "sync")]
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The topics to ask for again, by name, and when.
    pub(crate) fn refresh_due(&self, now: Instant) -> Option<(Instant, Vec<String>)> {
        if self.stale.is_empty() {
            return None;
        }
        let due = self
            .refreshed
            .map_or(now, |at| (at + REFRESH_PAUSE).max(now));
        Some((
            due,
            self.stale.iter().map(|name| name.to_string()).collect(),
        ))
    }

    /// Notes that a refresh failed, so that the next one waits its turn.
    pub(crate) const fn refresh_failed(&mut self, now: Instant) {
        self.refreshed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use ringway_wire::{Fault, LeaderEpoch};

    use super::*;

    fn topic(name: &str, id: u128, epoch: u64, leaders: &[u32]) -> TopicMetadata {
        let partitions = leaders
            .iter()
            .enumerate()
            .map(|(index, &leader)| PartitionMetadata {
                partition: PartitionIndex(index as u32),
                leader: NodeId(leader),
                shard: ShardId(index as u16),
                leader_epoch: LeaderEpoch(1),
                ..PartitionMetadata::default()
            });
        TopicMetadata {
            fault: None,
            name: name.to_owned(),
            topic: TopicId(id),
            epoch: MetadataEpoch(epoch),
            partitions: partitions.collect(),
            ..TopicMetadata::default()
        }
    }

    fn reply(topic: TopicMetadata) -> MetadataReply {
        MetadataReply {
            topics: vec![topic],
            ..MetadataReply::default()
        }
    }

    #[test]
    fn a_newer_epoch_asks_for_a_refresh_once_and_an_older_answer_changes_nothing() {
        let now = Instant::now();
        let mut metadata = Metadata::default();
        metadata.apply(reply(topic("t", 1, 5, &[1, 2])), now);
        assert_eq!(
            metadata.route(TopicId(1), PartitionIndex(1)).unwrap().node,
            NodeId(2)
        );
        assert!(!metadata.note_epoch(TopicId(1), MetadataEpoch(5)));
        assert!(metadata.note_epoch(TopicId(1), MetadataEpoch(6)));
        assert!(
            !metadata.note_epoch(TopicId(1), MetadataEpoch(6)),
            "asked for already"
        );
        let (due, names) = metadata.refresh_due(now).unwrap();
        assert_eq!((due, names), (now + REFRESH_PAUSE, vec!["t".to_owned()]));
        metadata.apply(reply(topic("t", 1, 4, &[9])), now);
        assert_eq!(metadata.topic("t").unwrap().epoch, MetadataEpoch(5));
        assert!(metadata.refresh_due(now).is_none());
    }

    #[test]
    fn a_deleted_topic_is_forgotten_and_a_new_one_of_its_name_replaces_it() {
        let now = Instant::now();
        let mut metadata = Metadata::default();
        metadata.apply(reply(topic("t", 1, 5, &[1])), now);
        metadata.apply(reply(topic("t", 2, 1, &[1])), now);
        assert!(metadata.route(TopicId(1), PartitionIndex(0)).is_none());
        assert!(metadata.route(TopicId(2), PartitionIndex(0)).is_some());
        let mut gone = topic("t", 0, 0, &[]);
        gone.fault = Some(Fault::new(ErrorCode::UnknownTopic, ""));
        metadata.apply(reply(gone), now);
        assert!(metadata.topic("t").is_none());
    }

    #[test]
    fn partitions_with_holes_are_not_believed() {
        let mut metadata = Metadata::default();
        let mut wrong = topic("t", 1, 5, &[1, 1]);
        wrong.partitions[1].partition = PartitionIndex(7);
        metadata.apply(reply(wrong), Instant::now());
        assert!(metadata.topic("t").is_none());
    }
}
