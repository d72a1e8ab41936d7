//! Following the metadata: which partitions this shard owns, and what they have to keep to.

use std::collections::BTreeSet;

use ringway_engine::meta::{Delta, Image, Topic};
use ringway_engine::shard::Event;
use ringway_engine::time::Now;
use ringway_wire::{PartitionIndex, TopicId, TopicPartition};

use super::Shard;
use crate::data_dir::segments;

impl Shard {
    /// The metadata as it is. With the first, the shard opens its partitions and its port.
    pub(super) fn follow_image(&mut self, image: Image, now: Now) -> Result<(), String> {
        let first = self.dispatch.image.is_none();
        let mut topics: BTreeSet<TopicId> = image.topics().map(|topic| topic.id).collect();
        topics.extend(self.owned.keys().map(|log| log.topic));
        self.dispatch.image = Some(image);
        // Reading a directory for each of many partitions is no turn that anybody waits for.
        self.pulse.asleep();
        let followed = topics
            .into_iter()
            .try_for_each(|topic| self.follow_topic(topic, now));
        self.pulse.awake();
        if first {
            self.network.listen(&mut self.ring);
        }
        followed
    }

    /// What has changed since.
    pub(super) fn follow_deltas(&mut self, deltas: &[Delta], now: Now) -> Result<(), String> {
        let Some(image) = &mut self.dispatch.image else {
            return Err("changes of the metadata came before the metadata".to_owned());
        };
        let mut topics = BTreeSet::new();
        for delta in deltas {
            image.apply(delta);
            topics.extend(topic_of(delta));
        }
        topics
            .into_iter()
            .try_for_each(|topic| self.follow_topic(topic, now))
    }

    /// Hands partitions over to the engine, tells it what has changed, and takes those away whose
    /// topic is gone.
    fn follow_topic(&mut self, id: TopicId, now: Now) -> Result<(), String> {
        let Some(image) = &self.dispatch.image else {
            return Ok(());
        };
        let Some(topic) = image.topic(id) else {
            self.delete_topic(id, now);
            return Ok(());
        };
        let mine = |log: &TopicPartition| image.owner(*log) == Some(self.dispatch.here);
        let logs = Topic::indexed(topic).map(|(index, _)| topic.at(index));
        let configs: Vec<_> = logs
            .filter(mine)
            .filter_map(|log| Some((log, image.partition_config(log)?)))
            .collect();
        // One look for a new topic instead of one for each of its partitions.
        let stored = self.data_dir.layout().topic(id).exists();
        for (log, config) in configs {
            let known = self.owned.insert(log, config);
            if known == Some(config) {
                continue;
            }
            let event = match known {
                Some(_) => Event::Configure { log, config },
                None => Event::Open {
                    log,
                    config,
                    files: match stored {
                        true => segments(self.data_dir.layout(), log).map_err(|e| e.to_string())?,
                        false => Vec::new(),
                    },
                    checkpoint: self.recovered.entry(log).map(Box::new),
                },
            };
            self.dispatch.machine.apply(event, now);
        }
        Ok(())
    }

    fn delete_topic(&mut self, topic: TopicId, now: Now) {
        let at = |partition| TopicPartition {
            topic,
            partition: PartitionIndex(partition),
        };
        let range = self.owned.range(at(0)..=at(u32::MAX));
        let logs: Vec<TopicPartition> = range.map(|(&log, _)| log).collect();
        for log in logs {
            self.owned.remove(&log);
            self.dispatch.machine.apply(Event::Delete { log }, now);
        }
    }
}

fn topic_of(delta: &Delta) -> Option<TopicId> {
    match delta {
        Delta::TopicCreated(topic) => Some(topic.id),
        Delta::TopicAltered { id, .. }
        | Delta::PartitionsAdded { id, .. }
        | Delta::TopicDeleted { id }
        | Delta::LeadersChanged { id, .. } => Some(*id),
        Delta::ClusterCreated { .. }
        | Delta::BrokerRegistered(_)
        | Delta::ProducerIdsReserved { .. } => None,
    }
}
