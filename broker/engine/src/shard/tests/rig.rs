//! A shard on a disk in memory: operations can be held back, made to fail, and the shard started
//! again on what the disk holds.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchLimits, CheckedBatch, ProducerStamp, RecordRef,
};
use ringway_wire::request::{
    Acks, Durability, FetchReply, FetchRequest, ListOffsetsReply, ListOffsetsRequest, OffsetAt,
    ProduceRequest, Reply, Request, TrimBefore, TrimRequest,
};
use ringway_wire::{
    CorrelationId, ErrorCode, LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, ShardId, TopicId,
    TopicPartition,
};

use crate::buffer::Slice;
use crate::device::{DeviceError, Done, FileId, Op, OpId, Outcome, SegmentName};
use crate::log::{Checkpoint, CheckpointEntry};
use crate::shard::{
    Effect, Event, FoundFile, Note, PartitionConfig, Shard, ShardConfig, SyncScope, Token,
};
use crate::time::Now;

pub(super) const LOG: TopicPartition = TopicPartition {
    topic: TopicId(7),
    partition: PartitionIndex(0),
};

pub(super) fn log(partition: u32) -> TopicPartition {
    TopicPartition {
        partition: PartitionIndex(partition),
        ..LOG
    }
}

pub(super) fn shard_config() -> ShardConfig {
    ShardConfig {
        sync_scope: SyncScope::Device,
        cache_bytes_max: 4 << 20,
        ..ShardConfig::new(ShardId(0))
    }
}

/// The shard with its disk and the replies it gave.
pub(super) struct Rig {
    pub(super) shard: Shard,
    pub(super) now: Now,
    pub(super) names: HashMap<FileId, (TopicPartition, SegmentName)>,
    pub(super) files: BTreeMap<(TopicPartition, SegmentName), Vec<u8>>,
    pub(super) sides: BTreeMap<(TopicPartition, Offset), Vec<u8>>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) replies: HashMap<u32, (Reply, Vec<u8>)>,
    pub(super) notes: Vec<Note>,
    /// Connections that the shard wants to be ended.
    pub(super) hung_up: Vec<u64>,
    /// What was handed out is kept, as by connections that send nothing.
    pub(super) keep_data: bool,
    pub(super) kept: Vec<Slice>,
    /// What was carried out, but for preparations and the like.
    pub(super) ops: Vec<&'static str>,
    /// The files that were synced.
    pub(super) synced: Vec<SegmentName>,
    pub(super) held: Vec<(OpId, Op)>,
    pub(super) hold: bool,
    /// Operations of these kinds are held back even when others are not.
    pub(super) hold_kinds: Vec<&'static str>,
    /// Operations of these kinds fail.
    pub(super) failing: HashMap<&'static str, DeviceError>,
    segment_bytes: u64,
    pub(super) retention: Option<Duration>,
    pub(super) retention_bytes: Option<u64>,
    /// Of partitions opened, or changed, from now on.
    pub(super) durability: Durability,
    pub(super) leader_epoch: u32,
    tokens: u32,
}

pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Write { durable: true, .. } => "durable write",
        Op::Write { .. } => "write",
        Op::Flush => "flush",
        Op::Sync { .. } => "sync",
        Op::Read { .. } => "read",
        Op::Prepare { .. } => "prepare",
        Op::Fill { .. } => "fill",
        Op::Name { .. } => "name",
        Op::SaveSide { .. } => "save side",
        Op::LoadSide { .. } => "load side",
        Op::SaveCheckpoint { .. } => "save checkpoint",
        Op::Remove { .. } => "remove",
        Op::RemovePartition { .. } => "remove partition",
    }
}

pub(super) fn io_error() -> DeviceError {
    DeviceError::Failed("input/output error".to_owned())
}

impl Rig {
    /// A shard with one empty partition.
    pub(super) fn new(segment_bytes: u64) -> Self {
        let mut rig = Self::without_partitions(shard_config(), segment_bytes);
        rig.open(LOG);
        rig.run();
        rig
    }

    pub(super) fn without_partitions(config: ShardConfig, segment_bytes: u64) -> Self {
        Self {
            shard: Shard::new(config),
            now: Now {
                mono_ns: 1,
                unix_us: 1_000,
            },
            names: HashMap::new(),
            files: BTreeMap::new(),
            sides: BTreeMap::new(),
            checkpoint: None,
            replies: HashMap::new(),
            notes: Vec::new(),
            hung_up: Vec::new(),
            keep_data: false,
            kept: Vec::new(),
            ops: Vec::new(),
            synced: Vec::new(),
            held: Vec::new(),
            hold: false,
            hold_kinds: Vec::new(),
            failing: HashMap::new(),
            segment_bytes,
            retention: None,
            retention_bytes: None,
            durability: Durability::Fsync,
            leader_epoch: 1,
            tokens: 0,
        }
    }

    pub(super) fn partition_config(&self) -> PartitionConfig {
        PartitionConfig {
            topic_epoch: MetadataEpoch(1),
            leader_epoch: LeaderEpoch(self.leader_epoch),
            segment_bytes: self.segment_bytes,
            durability: self.durability,
            record_bytes_max: 8 << 20,
            retention: self.retention,
            retention_bytes: self.retention_bytes,
        }
    }

    /// Hands a partition over, with what the disk has of it.
    pub(super) fn open(&mut self, log: TopicPartition) {
        let of_log = self.files.iter().filter(|((of, _), _)| *of == log);
        let files = of_log
            .map(|(&(_, name), bytes)| FoundFile {
                name,
                bytes: bytes.len() as u64,
            })
            .collect();
        let open = Event::Open {
            log,
            config: self.partition_config(),
            files,
            checkpoint: self.checkpointed(log).map(Box::new),
        };
        self.shard.apply(open, self.now);
    }

    pub(super) fn checkpointed(&self, log: TopicPartition) -> Option<CheckpointEntry> {
        let entries = &self.checkpoint.as_ref()?.entries;
        entries.iter().find(|entry| entry.log == log).cloned()
    }

    /// The process is gone, with everything that isn't on the disk; a new one starts in a new
    /// epoch, and nothing is open yet.
    pub(super) fn crash(&mut self) {
        self.shard = Shard::new(shard_config());
        self.names.clear();
        self.held.clear();
        self.hold = false;
        self.hold_kinds.clear();
        self.failing.clear();
        self.notes.clear();
        self.ops.clear();
        self.synced.clear();
        self.leader_epoch += 1;
    }

    pub(super) fn restart(&mut self) {
        self.crash();
        self.open(LOG);
        self.run();
    }

    /// Turns until nothing is left to do.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            self.now.mono_ns += 1_000;
            self.now.unix_us += 1;
            self.shard.turn(self.now);
            let done = self.take_effects();
            if done.is_empty() {
                return;
            }
            for done in done {
                self.shard.apply(Event::Done(done), self.now);
            }
        }
        panic!("the shard never comes to rest");
    }

    /// Takes the replies that are there without a turn; how many.
    pub(super) fn turn_replies(&mut self) -> usize {
        let before = self.replies.len();
        for done in self.take_effects() {
            self.shard.apply(Event::Done(done), self.now);
        }
        self.replies.len() - before
    }

    /// Turns whenever the shard wants to be, for so long.
    pub(super) fn run_for(&mut self, ns: u64) {
        let end_ns = self.now.mono_ns + ns;
        self.run();
        while let Some(next_ns) = self.shard.next_deadline_ns()
            && next_ns <= end_ns
        {
            self.now.mono_ns = self.now.mono_ns.max(next_ns);
            self.run();
        }
        self.now.mono_ns = self.now.mono_ns.max(end_ns);
    }

    fn take_effects(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(effect) = self.shard.next_effect() {
            match effect {
                Effect::Device(id, op) if self.hold || self.hold_kinds.contains(&kind(&op)) => {
                    self.held.push((id, op));
                }
                Effect::Device(id, op) => done.push(self.carry_out(id, op)),
                Effect::Reply { token, reply, data } => {
                    let bytes = data.iter().flat_map(|part| part.to_vec()).collect();
                    if self.keep_data {
                        self.kept.extend(data);
                    }
                    self.replies.insert(token.correlation.0, (reply, bytes));
                }
                Effect::Declare { file, log, name } => {
                    self.names.insert(file, (log, name));
                }
                Effect::HangUp { source } => self.hung_up.push(source),
                Effect::Note(note) => self.notes.push(note),
            }
        }
        done
    }

    /// Carries out everything that was held back, and holds nothing back any more.
    pub(super) fn release(&mut self) {
        self.hold = false;
        self.hold_kinds.clear();
        for (id, op) in std::mem::take(&mut self.held) {
            let done = self.carry_out(id, op);
            self.shard.apply(Event::Done(done), self.now);
        }
        self.run();
    }

    /// Ends one operation that was held back, as it comes or with an error.
    pub(super) fn finish_held(&mut self, ordinal: usize, error: Option<DeviceError>) {
        let (id, op) = self.held.remove(ordinal);
        let done = match error {
            Some(error) => Done {
                op: id,
                result: Err(error),
            },
            None => self.carry_out(id, op),
        };
        self.shard.apply(Event::Done(done), self.now);
    }

    pub(super) fn held_kinds(&self) -> Vec<&'static str> {
        self.held.iter().map(|(_, op)| kind(op)).collect()
    }

    pub(super) fn held_of(&self, wanted: &str) -> usize {
        let kinds = self.held_kinds();
        let at = kinds.iter().position(|kind| *kind == wanted);
        at.unwrap_or_else(|| panic!("no {wanted} among {kinds:?}"))
    }

    fn carry_out(&mut self, id: OpId, op: Op) -> Done {
        let kind = kind(&op);
        let silent = ["prepare", "fill", "name", "save side", "save checkpoint"];
        if !silent.contains(&kind) {
            self.ops.push(kind);
        }
        let result = match self.failing.get(kind) {
            Some(error) => Err(error.clone()),
            None => Ok(self.effect_of(op)),
        };
        Done { op: id, result }
    }

    fn effect_of(&mut self, op: Op) -> Outcome {
        match op {
            Op::Write {
                file,
                position,
                parts,
                ..
            } => {
                let image = self
                    .files
                    .get_mut(&self.names[&file])
                    .expect("only prepared files are written");
                let mut at = position.0 as usize;
                for part in parts {
                    assert!(
                        at + part.len() <= image.len(),
                        "writes stay inside the file"
                    );
                    image[at..at + part.len()].copy_from_slice(&part);
                    at += part.len();
                }
            }
            Op::Sync { file } => self.synced.push(self.names[&file].1),
            Op::Read {
                file,
                position,
                mut buffer,
                bytes,
            } => {
                let image = &self.files[&self.names[&file]];
                let start = (position.0 as usize).min(image.len());
                let end = (start + bytes).min(image.len());
                buffer[..end - start].copy_from_slice(&image[start..end]);
                let bytes = end - start;
                return Outcome::Read { buffer, bytes };
            }
            Op::Prepare {
                file,
                bytes,
                filled,
                ..
            } => {
                self.files
                    .insert(self.names[&file], vec![0; bytes as usize]);
                return Outcome::Prepared { filled };
            }
            Op::Name { file, base } => {
                let (log, name) = self.names[&file];
                let image = self.files.remove(&(log, name)).expect("it is there");
                let named = (log, SegmentName::Base(base));
                let before = self.files.insert(named, image);
                assert!(before.is_none(), "no segment is written over");
                self.names.insert(file, named);
            }
            Op::Remove { file } => {
                let (log, name) = self.names[&file];
                self.files.remove(&(log, name));
                if let SegmentName::Base(base) = name {
                    self.sides.remove(&(log, base));
                }
            }
            Op::RemovePartition { log } => self.files.retain(|(of, _), _| *of != log),
            Op::SaveSide { log, base, bytes } => drop(self.sides.insert((log, base), bytes)),
            Op::LoadSide { log, base } => {
                return Outcome::Side(self.sides.get(&(log, base)).cloned());
            }
            Op::SaveCheckpoint { bytes } => {
                self.checkpoint = Some(Checkpoint::decode(&bytes).expect("it was just encoded"));
            }
            Op::Flush | Op::Fill { .. } => {}
        }
        Outcome::Done
    }

    pub(super) fn request(&mut self, request: Request, data: &[u8]) -> u32 {
        self.request_of(1, request, data)
    }

    pub(super) fn request_of(&mut self, source: u64, request: Request, data: &[u8]) -> u32 {
        self.tokens += 1;
        let token = Token {
            source,
            correlation: CorrelationId(self.tokens),
        };
        let received_ns = self.now.mono_ns;
        let event = Event::Request {
            token,
            received_ns,
            request: &request,
            data,
        };
        self.shard.apply(event, self.now);
        self.tokens
    }

    pub(super) fn produce(&mut self, batch: &[u8]) -> u32 {
        self.produce_to(LOG, batch)
    }

    pub(super) fn produce_to(&mut self, log: TopicPartition, batch: &[u8]) -> u32 {
        let request = ProduceRequest {
            topic: log.topic,
            partition: log.partition,
            acks: Acks::All,
            trace: true,
            timeout_ms: 10_000,
        };
        self.request(request.into(), batch)
    }

    pub(super) fn fetch(&mut self, offset: u64, wait_ms: u32) -> u32 {
        let request = FetchRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            offset: Offset(offset),
            bytes_max: 1 << 20,
            wait_ms,
            ..FetchRequest::default()
        };
        self.request(request.into(), &[])
    }

    /// A fetch by a reader who has read up to an offset in an epoch.
    pub(super) fn fetch_after(&mut self, offset: u64, last_epoch: u32) -> u32 {
        let request = FetchRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            offset: Offset(offset),
            last_epoch: Some(LeaderEpoch(last_epoch)),
            bytes_max: 1 << 20,
            ..FetchRequest::default()
        };
        self.request(request.into(), &[])
    }

    pub(super) fn seek(&mut self, time_us: i64) -> u32 {
        let request = ListOffsetsRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            at: OffsetAt::AppendTimeUs(time_us),
        };
        self.request(request.into(), &[])
    }

    pub(super) fn trim(&mut self, before: TrimBefore) -> u32 {
        let request = TrimRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            before,
        };
        self.request(request.into(), &[])
    }

    pub(super) fn trimmed(&self, request: u32) -> Result<Offset, ErrorCode> {
        let Some((Reply::Trim(reply), _)) = self.replies.get(&request) else {
            panic!("no trim reply");
        };
        reply
            .fault
            .as_ref()
            .map_or(Ok(reply.log_start), |fault| Err(fault.code))
    }

    pub(super) fn answered(&self, request: u32) -> bool {
        self.replies.contains_key(&request)
    }

    pub(super) fn produced(&self, request: u32) -> Result<Offset, ErrorCode> {
        let Some((Reply::Produce(reply), _)) = self.replies.get(&request) else {
            panic!("no produce reply");
        };
        reply
            .fault
            .as_ref()
            .map_or(Ok(reply.base_offset), |fault| Err(fault.code))
    }

    /// Appends a batch and waits until it is acknowledged.
    pub(super) fn append(&mut self, batch: &[u8]) -> Offset {
        let request = self.produce(batch);
        self.run();
        self.produced(request).expect("it is acknowledged")
    }

    pub(super) fn fetch_reply(&self, request: u32) -> &FetchReply {
        let Some((Reply::Fetch(reply), _)) = self.replies.get(&request) else {
            panic!("no fetch reply");
        };
        reply
    }

    pub(super) fn fetched(&self, request: u32) -> Vec<(u64, Vec<u8>)> {
        assert_eq!(self.fetch_reply(request).fault, None);
        let mut bytes = aligned(&self.replies[&request].1);
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let batch = CheckedBatch::check(&bytes).expect("what is handed out is whole");
            for record in batch.records() {
                records.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
            }
            let size = batch.bytes().len();
            let rest = bytes[size..].to_vec();
            bytes = aligned(&rest);
        }
        records
    }

    pub(super) fn found(&self, request: u32) -> &ListOffsetsReply {
        let Some((Reply::ListOffsets(reply), _)) = self.replies.get(&request) else {
            panic!("no reply");
        };
        reply
    }

    /// Reads the whole log from an offset on, batch by batch as they come.
    pub(super) fn read_from(&mut self, mut offset: u64, end: u64) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::new();
        while offset < end {
            let fetch = self.fetch(offset, 0);
            self.run();
            let got = self.fetched(fetch);
            let last = got.last().expect("something is there").0;
            records.extend(got.into_iter().filter(|record| record.0 >= offset));
            offset = last + 1;
        }
        records
    }
}

fn aligned(bytes: &[u8]) -> BatchBytes {
    let mut aligned = BatchBytes::new();
    aligned.extend_from_slice(bytes);
    aligned
}

pub(super) fn batch(values: &[&[u8]], producer: ProducerStamp) -> Vec<u8> {
    let limits = BatchLimits {
        bytes_max: 8 << 20,
        records_max: 10_000,
    };
    let mut builder = BatchBuilder::new(limits);
    for value in values {
        builder
            .push(&RecordRef {
                value: Some(value),
                ..RecordRef::default()
            })
            .unwrap();
    }
    builder.seal(producer).unwrap().bytes.to_vec()
}

pub(super) fn plain(values: &[&[u8]]) -> Vec<u8> {
    batch(values, ProducerStamp::default())
}
