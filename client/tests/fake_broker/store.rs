//! Topics and their logs in memory, with a real broker's answers to everything that the protocol
//! can ask: epochs, duplicates, ends, times.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_wire::batch::{
    BatchBytes, CheckedBatch, LeaderStamp, RecordView, check_header, check_produced, stamp,
};
use ringway_wire::request::{
    AlterTopicRequest, BrokerMetadata, ConfigEntry, DescribeTopicReply, Durability, FetchReply,
    FetchRequest, InitProducerReply, ListOffsetsReply, ListOffsetsRequest, MetadataReply,
    MetadataRequest, OffsetAt, PartitionMetadata, ProduceReply, ProduceRequest, StageTimes,
    TopicMetadata, TrimBefore, TrimReply, TrimRequest,
};
use ringway_wire::{
    ErrorCode, Fault, LeaderEpoch, MetadataEpoch, NodeId, Offset, PartitionIndex, ProducerId,
    Sequence, ShardId, TopicId, TopicPartition,
};

use super::Stored;

/// Batches of each producer that are remembered.
const PRODUCER_BATCHES: usize = 5;

struct Batch {
    base: Offset,
    next: Offset,
    append_time_us: i64,
    bytes: BatchBytes,
}

#[derive(Default)]
struct Partition {
    leader_epoch: LeaderEpoch,
    shard: ShardId,
    log_start: Offset,
    next: Offset,
    prev_header_crc: u32,
    batches: Vec<Batch>,
    /// First sequence, record count and base offset of the last batches of each producer.
    producers: HashMap<ProducerId, Vec<(Sequence, u32, Offset)>>,
}

struct Topic {
    id: TopicId,
    epoch: MetadataEpoch,
    created_us: i64,
    config: BTreeMap<String, String>,
    partitions: Vec<Partition>,
}

/// All topics.
pub(super) struct Store {
    shards: u16,
    topics: BTreeMap<String, Topic>,
    ids: u128,
    producer_ids: u64,
    epochs: u64,
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros() as i64
}

fn fault(code: ErrorCode, message: impl Into<String>) -> Fault {
    Fault::new(code, message)
}

impl Store {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards,
            topics: BTreeMap::new(),
            ids: 100,
            producer_ids: 0,
            epochs: 0,
        }
    }

    fn epoch(&mut self) -> MetadataEpoch {
        self.epochs += 1;
        MetadataEpoch(self.epochs)
    }

    pub(super) fn create(
        &mut self,
        name: &str,
        partitions: u32,
        config: &[ConfigEntry],
    ) -> Result<(TopicId, MetadataEpoch), Fault> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 249 || !name.chars().all(legal) {
            return Err(fault(
                ErrorCode::InvalidTopicName,
                format!("{name:?} is no name"),
            ));
        }
        if self.topics.contains_key(name) {
            return Err(fault(
                ErrorCode::TopicExists,
                format!("topic {name} exists"),
            ));
        }
        check_config(config)?;
        self.ids += 1;
        let (id, epoch) = (TopicId(self.ids), self.epoch());
        let shards = self.shards;
        let partition = |index: u32| Partition {
            leader_epoch: LeaderEpoch(1),
            shard: ShardId((index % u32::from(shards)) as u16),
            ..Partition::default()
        };
        let topic = Topic {
            id,
            epoch,
            created_us: now_us(),
            config: config
                .iter()
                .map(|e| (e.key.clone(), e.value.clone()))
                .collect(),
            partitions: (0..partitions).map(partition).collect(),
        };
        self.topics.insert(name.to_owned(), topic);
        Ok((id, epoch))
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), Fault> {
        self.epoch();
        self.topics
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| unknown(name))
    }

    /// Grows a topic to so many partitions.
    pub(super) fn add_partitions(
        &mut self,
        name: &str,
        partitions: u32,
    ) -> Result<MetadataEpoch, Fault> {
        let (epoch, shards) = (self.epoch(), self.shards);
        let topic = self.topics.get_mut(name).ok_or_else(|| unknown(name))?;
        let present = topic.partitions.len() as u32;
        if partitions <= present {
            let problem = format!("topic {name} has {present} partitions already");
            return Err(fault(ErrorCode::InvalidPartitions, problem));
        }
        topic.epoch = epoch;
        for index in present..partitions {
            topic.partitions.push(Partition {
                leader_epoch: LeaderEpoch(1),
                shard: ShardId((index % u32::from(shards)) as u16),
                ..Partition::default()
            });
        }
        Ok(epoch)
    }

    pub(super) fn forget_producers(&mut self) {
        let topics = self.topics.values_mut();
        for partition in topics.flat_map(|topic| &mut topic.partitions) {
            partition.producers.clear();
        }
    }

    pub(super) fn alter(&mut self, request: &AlterTopicRequest) -> Result<(), Fault> {
        check_config(&request.config)?;
        let epoch = self.epoch();
        let topic = self
            .topics
            .get_mut(&request.name)
            .ok_or_else(|| unknown(&request.name))?;
        topic.epoch = epoch;
        for entry in &request.config {
            topic.config.insert(entry.key.clone(), entry.value.clone());
        }
        Ok(())
    }

    pub(super) fn describe(&self, name: &str) -> DescribeTopicReply {
        let Some(topic) = self.topics.get(name) else {
            return DescribeTopicReply {
                fault: Some(unknown(name)),
                ..Default::default()
            };
        };
        let entry = |(key, value): (&String, &String)| ConfigEntry {
            key: key.clone(),
            value: value.clone(),
        };
        DescribeTopicReply {
            fault: None,
            topic: topic.id,
            epoch: topic.epoch,
            created_us: topic.created_us,
            replication_factor: 1,
            config: topic.config.iter().map(entry).collect(),
            partitions: topic.partition_metadata(),
        }
    }

    pub(super) fn metadata(&self, request: &MetadataRequest, ports: &[u16]) -> MetadataReply {
        let names: Vec<&str> = match &request.topics {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => self.topics.keys().map(String::as_str).collect(),
        };
        let topic = |name: &str| match self.topics.get(name) {
            None => TopicMetadata {
                fault: Some(unknown(name)),
                name: name.to_owned(),
                ..Default::default()
            },
            Some(topic) => TopicMetadata {
                fault: None,
                name: name.to_owned(),
                topic: topic.id,
                epoch: topic.epoch,
                partitions: topic.partition_metadata(),
                ..Default::default()
            },
        };
        MetadataReply {
            fault: None,
            brokers: vec![BrokerMetadata {
                node: NodeId(1),
                host: "127.0.0.1".to_owned(),
                port: ports[0],
                shard_ports: ports[1..].to_vec(),
            }],
            topics: names.into_iter().map(topic).collect(),
        }
    }

    pub(super) fn init_producer(&mut self) -> InitProducerReply {
        self.producer_ids += 1;
        InitProducerReply {
            producer_id: ProducerId(self.producer_ids),
            ..InitProducerReply::default()
        }
    }

    fn partition(
        &mut self,
        id: TopicId,
        partition: PartitionIndex,
    ) -> Result<(MetadataEpoch, &mut Partition), Fault> {
        let found = self.topics.values_mut().find(|topic| topic.id == id);
        let topic = found.ok_or_else(|| unknown(&id.to_string()))?;
        let epoch = topic.epoch;
        match topic.partitions.get_mut(partition.0 as usize) {
            Some(partition) => Ok((epoch, partition)),
            None => Err(fault(
                ErrorCode::UnknownPartition,
                format!("no partition {partition}"),
            )),
        }
    }

    pub(super) fn produce(&mut self, request: &ProduceRequest, data: &[u8]) -> ProduceReply {
        let appended = self.partition(request.topic, request.partition).and_then(
            |(topic_epoch, partition)| {
                let log = TopicPartition {
                    topic: request.topic,
                    partition: request.partition,
                };
                let (base_offset, append_time_us) = partition.append(log, data)?;
                Ok(ProduceReply {
                    fault: None,
                    topic_epoch,
                    base_offset,
                    append_time_us,
                    log_start: partition.log_start,
                    durability: Durability::Fsync,
                    stages: request.trace.then_some(StageTimes {
                        received_ns: 1_000,
                        queued_ns: 2_000,
                        written_ns: 300_000,
                        durable_ns: 40_000,
                    }),
                })
            },
        );
        appended.unwrap_or_else(|fault| ProduceReply {
            fault: Some(fault),
            ..Default::default()
        })
    }

    pub(super) fn fetch(&mut self, request: &FetchRequest) -> (FetchReply, Vec<u8>) {
        let (topic_epoch, partition) = match self.partition(request.topic, request.partition) {
            Ok(found) => found,
            Err(fault) => {
                return (
                    FetchReply {
                        fault: Some(fault),
                        ..Default::default()
                    },
                    Vec::new(),
                );
            }
        };
        let mut reply = FetchReply {
            fault: None,
            topic_epoch,
            leader_epoch: partition.leader_epoch,
            log_start: partition.log_start,
            high_watermark: partition.next,
            safe_offset: Offset(0),
        };
        let range = partition.log_start..=partition.next;
        if !range.contains(&request.offset) {
            let message = format!("offset {} is not in {range:?}", request.offset);
            reply.fault = Some(fault(ErrorCode::OffsetOutOfRange, message));
        }
        let mut data = Vec::new();
        if reply.fault.is_none() {
            partition.read(request, &mut data);
        }
        (reply, data)
    }

    pub(super) fn list_offsets(&mut self, request: &ListOffsetsRequest) -> ListOffsetsReply {
        match self.partition(request.topic, request.partition) {
            Err(fault) => ListOffsetsReply {
                fault: Some(fault),
                ..Default::default()
            },
            Ok((topic_epoch, partition)) => ListOffsetsReply {
                fault: None,
                topic_epoch,
                leader_epoch: partition.leader_epoch,
                offset: partition.find(request.at),
                log_start: partition.log_start,
                high_watermark: partition.next,
                log_bytes: partition.batches.iter().map(|b| b.bytes.len() as u64).sum(),
            },
        }
    }

    /// Whole batches go, as far as none of them has a record that stays.
    pub(super) fn trim(&mut self, request: &TrimRequest) -> TrimReply {
        let trimmed = self.partition(request.topic, request.partition).and_then(
            |(topic_epoch, partition)| {
                let before = match request.before {
                    TrimBefore::Offset(offset) => offset,
                    TrimBefore::AppendTimeUs(time_us) => {
                        partition.find(OffsetAt::AppendTimeUs(time_us))
                    }
                };
                if before > partition.next {
                    let problem = format!("the partition ends at offset {}", partition.next);
                    return Err(fault(ErrorCode::OffsetOutOfRange, problem));
                }
                partition.batches.retain(|batch| batch.next > before);
                partition.log_start = partition.log_start.max(before);
                Ok(TrimReply {
                    fault: None,
                    topic_epoch,
                    log_start: partition.log_start,
                })
            },
        );
        trimmed.unwrap_or_else(|fault| TrimReply {
            fault: Some(fault),
            ..Default::default()
        })
    }

    fn named(&self, topic: &str, partition: PartitionIndex) -> &Partition {
        &self.topics[topic].partitions[partition.0 as usize]
    }

    pub(super) fn records(&self, topic: &str, partition: PartitionIndex) -> Vec<Stored> {
        let mut records = Vec::new();
        for batch in &self.named(topic, partition).batches {
            let checked = CheckedBatch::check(&batch.bytes).unwrap();
            records.extend(checked.records().map(|record| stored(&record)));
        }
        records
    }

    pub(super) fn batch_count(&self, topic: &str, partition: PartitionIndex) -> usize {
        self.named(topic, partition).batches.len()
    }

    pub(super) fn cut(&mut self, topic: &str, partition: PartitionIndex, below: Offset) {
        let topic = self.topics.get_mut(topic).unwrap();
        let partition = &mut topic.partitions[partition.0 as usize];
        partition.batches.retain(|batch| batch.next > below);
        partition.log_start = partition.batches.first().map_or(partition.next, |b| b.base);
    }

    pub(super) fn move_leaders(&mut self) {
        let (shards, epoch) = (self.shards, self.epoch());
        for topic in self.topics.values_mut() {
            topic.epoch = epoch;
            for partition in &mut topic.partitions {
                partition.leader_epoch.0 += 1;
                partition.shard = ShardId((partition.shard.0 + 1) % shards);
            }
        }
    }
}

impl Topic {
    fn partition_metadata(&self) -> Vec<PartitionMetadata> {
        let metadata = |(index, partition): (usize, &Partition)| PartitionMetadata {
            partition: PartitionIndex(index as u32),
            leader: NodeId(1),
            shard: partition.shard,
            leader_epoch: partition.leader_epoch,
            ..Default::default()
        };
        self.partitions.iter().enumerate().map(metadata).collect()
    }
}

impl Partition {
    fn append(&mut self, log: TopicPartition, data: &[u8]) -> Result<(Offset, i64), Fault> {
        let mut bytes = BatchBytes::new();
        bytes.extend_from_slice(data);
        let header = *check_produced(&bytes)
            .map_err(|error| fault(ErrorCode::CorruptBatch, error.to_string()))?
            .header();
        let now = now_us();
        if header.producer_id != ProducerId::NONE {
            let known = self.producers.entry(header.producer_id).or_default();
            let expected = known.last().map_or(Sequence(0), |last| last.0.plus(last.1));
            let duplicate = known
                .iter()
                .find(|batch| batch.0 == header.first_sequence && batch.1 == header.record_count);
            if let Some(duplicate) = duplicate {
                return Ok((duplicate.2, now));
            }
            if header.first_sequence != expected {
                let message = format!("sequence {}, not {expected}", header.first_sequence);
                let code = match known.is_empty() {
                    true => ErrorCode::UnknownProducer,
                    false => ErrorCode::OutOfOrderSequence,
                };
                return Err(fault(code, message));
            }
            known.push((header.first_sequence, header.record_count, self.next));
            if known.len() > PRODUCER_BATCHES {
                known.remove(0);
            }
        }
        let base = self.next;
        self.prev_header_crc = stamp(
            &mut bytes,
            &LeaderStamp {
                log_id: log.log_id(),
                base_offset: base,
                append_time_us: now,
                leader_epoch: self.leader_epoch,
                prev_header_crc: self.prev_header_crc,
            },
        );
        self.next = base.plus(header.record_count.into());
        self.batches.push(Batch {
            base,
            next: self.next,
            append_time_us: now,
            bytes,
        });
        Ok((base, now))
    }

    fn read(&self, request: &FetchRequest, data: &mut Vec<u8>) {
        let mut records = 0;
        for batch in self
            .batches
            .iter()
            .filter(|batch| batch.next > request.offset)
        {
            let count = check_header(&batch.bytes, true).unwrap().record_count;
            let too_many = request.records_max > 0 && records + count > request.records_max;
            let too_much = data.len() + batch.bytes.len() > request.bytes_max as usize;
            if !data.is_empty() && (too_many || too_much) {
                return;
            }
            records += count;
            data.extend_from_slice(&batch.bytes);
        }
    }

    fn find(&self, at: OffsetAt) -> Offset {
        match at {
            OffsetAt::Start => self.log_start,
            OffsetAt::End => self.next,
            OffsetAt::AppendTimeUs(time_us) => self
                .batches
                .iter()
                .find(|batch| batch.append_time_us >= time_us)
                .map_or(self.next, |batch| batch.base),
        }
    }
}

fn unknown(name: &str) -> Fault {
    fault(ErrorCode::UnknownTopic, format!("no topic {name}"))
}

fn check_config(config: &[ConfigEntry]) -> Result<(), Fault> {
    match config.iter().find(|entry| entry.key.contains("nonsense")) {
        None => Ok(()),
        Some(entry) => Err(fault(
            ErrorCode::InvalidConfig,
            format!("unknown key {}", entry.key),
        )),
    }
}

fn stored(record: &RecordView<'_>) -> Stored {
    Stored {
        offset: record.offset.0,
        timestamp_us: record.timestamp_us,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect(),
        tag: record.tag.map(<[u8]>::to_vec),
    }
}
