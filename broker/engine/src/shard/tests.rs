//! A shard on a disk in memory that never fails: what every produce and fetch relies on.

use std::collections::HashMap;

use ringway_wire::batch::{BatchBuilder, BatchLimits, CheckedBatch, ProducerStamp, RecordRef};
use ringway_wire::request::{
    Acks, FetchRequest, ListOffsetsRequest, OffsetAt, ProduceRequest, Reply, Request,
};
use ringway_wire::{
    CorrelationId, ErrorCode, LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, ShardId, TopicId, TopicPartition,
};

use super::{Effect, Event, Note, PartitionConfig, Shard, ShardConfig, SyncScope, Token};
use crate::device::{DeviceError, Done, FileId, Op, OpId, Outcome};
use crate::time::Now;

const LOG: TopicPartition = TopicPartition {
    topic: TopicId(7),
    partition: PartitionIndex(0),
};

/// The shard with its disk and the replies it gave.
struct Rig {
    shard: Shard,
    now: Now,
    files: HashMap<FileId, Vec<u8>>,
    sides: HashMap<Offset, Vec<u8>>,
    replies: HashMap<u32, (Reply, Vec<u8>)>,
    ops: Vec<&'static str>,
    held: Vec<(OpId, Op)>,
    hold: bool,
    full: bool,
    tokens: u32,
}

impl Rig {
    fn new(segment_bytes: u64) -> Self {
        let config = ShardConfig {
            sync_scope: SyncScope::Device,
            cache_bytes_max: 4 << 20,
            ..ShardConfig::new(ShardId(0))
        };
        let mut rig = Self {
            shard: Shard::new(config),
            now: Now {
                mono_ns: 1,
                unix_us: 1_000,
            },
            files: HashMap::new(),
            sides: HashMap::new(),
            replies: HashMap::new(),
            ops: Vec::new(),
            held: Vec::new(),
            hold: false,
            full: false,
            tokens: 0,
        };
        let config = PartitionConfig {
            topic_epoch: MetadataEpoch(1),
            leader_epoch: LeaderEpoch(1),
            segment_bytes,
            record_bytes_max: 4 << 20,
        };
        let open = Event::Open {
            log: LOG,
            config,
            files: Vec::new(),
            checkpoint: None,
        };
        rig.shard.apply(open, rig.now);
        rig.run();
        rig
    }

    /// Turns until nothing is left to do.
    fn run(&mut self) {
        loop {
            self.now.mono_ns += 1_000;
            self.now.unix_us += 1;
            self.shard.turn(self.now);
            let mut done = Vec::new();
            while let Some(effect) = self.shard.next_effect() {
                match effect {
                    Effect::Device(id, op) if self.hold => self.held.push((id, op)),
                    Effect::Device(id, op) => done.push(self.carry_out(id, op)),
                    Effect::Reply { token, reply, data } => {
                        let bytes = data.iter().flat_map(|part| part.to_vec()).collect();
                        self.replies.insert(token.correlation.0, (reply, bytes));
                    }
                    Effect::Declare { .. } | Effect::Note(_) => {}
                }
            }
            if done.is_empty() {
                return;
            }
            for done in done {
                self.shard.apply(Event::Done(done), self.now);
            }
        }
    }

    fn release(&mut self) {
        self.hold = false;
        for (id, op) in std::mem::take(&mut self.held) {
            let done = self.carry_out(id, op);
            self.shard.apply(Event::Done(done), self.now);
        }
        self.run();
    }

    fn carry_out(&mut self, id: OpId, op: Op) -> Done {
        let outcome = match op {
            Op::Write {
                file,
                position,
                parts,
                durable,
            } => {
                self.ops
                    .push(if durable { "durable write" } else { "write" });
                let image = self
                    .files
                    .get_mut(&file)
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
                Outcome::Done
            }
            Op::Flush => {
                self.ops.push("flush");
                Outcome::Done
            }
            Op::Sync { .. } => {
                self.ops.push("sync");
                Outcome::Done
            }
            Op::Read {
                file,
                position,
                mut buffer,
                bytes,
            } => {
                self.ops.push("read");
                let image = &self.files[&file];
                let start = (position.0 as usize).min(image.len());
                let end = (start + bytes).min(image.len());
                buffer[..end - start].copy_from_slice(&image[start..end]);
                Outcome::Read {
                    buffer,
                    bytes: end - start,
                }
            }
            Op::Prepare { .. } if self.full => {
                return Done {
                    op: id,
                    result: Err(DeviceError::Full),
                };
            }
            Op::Prepare {
                file,
                bytes,
                filled,
                ..
            } => {
                self.files.insert(file, vec![0; bytes as usize]);
                Outcome::Prepared { filled }
            }
            Op::SaveSide { base, bytes, .. } => {
                self.sides.insert(base, bytes);
                Outcome::Done
            }
            Op::LoadSide { base, .. } => Outcome::Side(self.sides.get(&base).cloned()),
            _ => Outcome::Done,
        };
        Done {
            op: id,
            result: Ok(outcome),
        }
    }

    fn request(&mut self, request: Request, data: &[u8]) -> u32 {
        self.tokens += 1;
        let token = Token {
            source: 1,
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

    fn produce(&mut self, batch: &[u8]) -> u32 {
        let request = ProduceRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            acks: Acks::All,
            trace: true,
            timeout_ms: 10_000,
        };
        self.request(request.into(), batch)
    }

    fn fetch(&mut self, offset: u64, wait_ms: u32) -> u32 {
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

    fn produced(&self, request: u32) -> Result<Offset, ErrorCode> {
        let Some((Reply::Produce(reply), _)) = self.replies.get(&request) else {
            panic!("no produce reply");
        };
        reply
            .fault
            .as_ref()
            .map_or(Ok(reply.base_offset), |fault| Err(fault.code))
    }

    fn fetched(&self, request: u32) -> Vec<(u64, Vec<u8>)> {
        let Some((Reply::Fetch(reply), data)) = self.replies.get(&request) else {
            panic!("no fetch reply");
        };
        assert_eq!(reply.fault, None);
        let mut bytes = rkyv_aligned(data);
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let batch = CheckedBatch::check(&bytes).expect("what is handed out is whole");
            for record in batch.records() {
                records.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
            }
            let size = batch.bytes().len();
            let rest = bytes[size..].to_vec();
            bytes = rkyv_aligned(&rest);
        }
        records
    }
}

fn rkyv_aligned(bytes: &[u8]) -> ringway_wire::batch::BatchBytes {
    let mut aligned = ringway_wire::batch::BatchBytes::new();
    aligned.extend_from_slice(bytes);
    aligned
}

fn batch(values: &[&[u8]], producer: ProducerStamp) -> Vec<u8> {
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

fn plain(values: &[&[u8]]) -> Vec<u8> {
    batch(values, ProducerStamp::default())
}

#[test]
fn a_lone_small_batch_costs_one_durable_write() {
    let mut rig = Rig::new(1 << 20);
    let first = rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.ops.clear();
    let second = rig.produce(&plain(&[b"b", b"c"]));
    rig.run();
    assert_eq!(rig.produced(first), Ok(Offset(0)));
    assert_eq!(rig.produced(second), Ok(Offset(1)));
    assert_eq!(rig.ops, ["durable write"]);
    let fetch = rig.fetch(0, 0);
    rig.run();
    let expected: Vec<(u64, Vec<u8>)> =
        [(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())].into();
    assert_eq!(rig.fetched(fetch), expected);
    assert_eq!(rig.ops, ["durable write"], "a tail read costs no disk read");
}

#[test]
fn nothing_is_acknowledged_or_shown_before_it_is_durable() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.hold = true;
    let second = rig.produce(&plain(&[b"b"]));
    let fetch = rig.fetch(1, 60_000);
    rig.run();
    assert!(!rig.replies.contains_key(&second));
    assert!(!rig.replies.contains_key(&fetch));
    rig.release();
    assert_eq!(rig.produced(second), Ok(Offset(1)));
    assert_eq!(rig.fetched(fetch), [(1, b"b".to_vec())]);
}

#[test]
fn a_long_log_rolls_and_is_read_back_from_disk() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![7; 10_000];
    for _ in 0..1_000 {
        let produced = rig.produce(&plain(&[&value, &value]));
        rig.run();
        assert!(rig.produced(produced).is_ok());
    }
    assert!(
        rig.files.len() > 30,
        "the log rolled: {} files",
        rig.files.len()
    );
    let mut offset = 0;
    while offset < 2_000 {
        let fetch = rig.fetch(offset, 0);
        rig.run();
        let records = rig.fetched(fetch);
        assert_eq!(records[0].0, offset);
        assert!(records.iter().all(|record| record.1 == value));
        offset = records.last().unwrap().0 + 1;
    }
    assert_eq!(offset, 2_000);
    assert!(rig.ops.contains(&"read"));
}

#[test]
fn every_offset_is_found_in_sealed_segments() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![1; 3_000];
    for _ in 0..600 {
        rig.produce(&plain(&[&value, &value, &value]));
        rig.run();
    }
    for offset in (0..1_800).step_by(37) {
        let fetch = rig.fetch(offset, 0);
        rig.run();
        let records = rig.fetched(fetch);
        assert!(records[0].0 <= offset && records.last().unwrap().0 >= offset);
    }
}

#[test]
fn a_time_is_found_wherever_it_is() {
    let mut rig = Rig::new(256 << 10);
    let value = vec![1; 30_000];
    let mut times = Vec::new();
    for _ in 0..300 {
        times.push(rig.now.unix_us);
        rig.produce(&plain(&[&value]));
        rig.run();
        rig.now.unix_us += 1_000;
    }
    for (offset, &time_us) in times.iter().enumerate().step_by(23) {
        let request = ListOffsetsRequest {
            topic: LOG.topic,
            partition: LOG.partition,
            at: OffsetAt::AppendTimeUs(time_us),
        };
        let asked = rig.request(request.into(), &[]);
        rig.run();
        let Reply::ListOffsets(reply) = &rig.replies[&asked].0 else {
            panic!("another reply")
        };
        assert_eq!(reply.offset, Offset(offset as u64));
    }
}

#[test]
fn a_batch_sent_twice_is_appended_once_and_acknowledged_when_durable() {
    let mut rig = Rig::new(1 << 20);
    let producer = ProducerStamp {
        id: ProducerId(9),
        epoch: ProducerEpoch(0),
        first_sequence: Sequence(0),
    };
    let bytes = batch(&[b"once"], producer);
    rig.hold = true;
    let first = rig.produce(&bytes);
    let again = rig.produce(&bytes);
    rig.run();
    assert!(
        !rig.replies.contains_key(&again),
        "the first isn't durable yet"
    );
    rig.release();
    assert_eq!(rig.produced(first), Ok(Offset(0)));
    assert_eq!(rig.produced(again), Ok(Offset(0)));
    let late = rig.produce(&bytes);
    rig.run();
    assert_eq!(rig.produced(late), Ok(Offset(0)));
    let fetch = rig.fetch(0, 0);
    rig.run();
    assert_eq!(rig.fetched(fetch).len(), 1);
}

#[test]
fn a_flipped_bit_is_refused_and_leaves_no_trace() {
    let mut rig = Rig::new(1 << 20);
    let good = plain(&[b"good"]);
    for at in 48..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let produced = rig.produce(&bad);
        rig.run();
        assert_eq!(
            rig.produced(produced),
            Err(ErrorCode::CorruptBatch),
            "byte {at}"
        );
    }
    let produced = rig.produce(&good);
    rig.run();
    assert_eq!(rig.produced(produced), Ok(Offset(0)));
}

#[test]
fn a_full_disk_is_said_and_heals() {
    let mut rig = Rig::new(1 << 20);
    rig.full = true;
    let first = rig.produce(&plain(&[b"a"]));
    rig.run();
    assert_eq!(rig.produced(first), Err(ErrorCode::StorageFull));
    let second = rig.produce(&plain(&[b"b"]));
    assert_eq!(rig.produced_now(second), Err(ErrorCode::StorageFull));
    rig.full = false;
    rig.now.mono_ns += 2_000_000_000;
    rig.run();
    let third = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(
        rig.produced(third),
        Ok(Offset(1)),
        "the first was kept and is written"
    );
}

impl Rig {
    fn produced_now(&mut self, request: u32) -> Result<Offset, ErrorCode> {
        self.run();
        self.produced(request)
    }
}

#[test]
fn many_partitions_share_one_flush() {
    let mut rig = Rig::new(1 << 20);
    let logs: Vec<TopicPartition> = (1..=20)
        .map(|partition| TopicPartition {
            partition: PartitionIndex(partition),
            ..LOG
        })
        .collect();
    for &log in &logs {
        let config = PartitionConfig {
            topic_epoch: MetadataEpoch(1),
            leader_epoch: LeaderEpoch(1),
            segment_bytes: 1 << 20,
            record_bytes_max: 1 << 20,
        };
        let open = Event::Open {
            log,
            config,
            files: Vec::new(),
            checkpoint: None,
        };
        rig.shard.apply(open, rig.now);
    }
    rig.run();
    for round in 0..2 {
        rig.ops.clear();
        for &log in &logs {
            let request = ProduceRequest {
                topic: log.topic,
                partition: log.partition,
                acks: Acks::Leader,
                trace: false,
                timeout_ms: 1_000,
            };
            rig.request(request.into(), &plain(&[b"x"]));
        }
        rig.run();
        if round == 1 {
            assert_eq!(rig.ops.iter().filter(|op| **op == "write").count(), 20);
            assert_eq!(rig.ops.iter().filter(|op| **op == "flush").count(), 1);
            assert_eq!(rig.ops.len(), 21);
        }
    }
}

#[test]
fn draining_ends_with_everything_durable_and_a_checkpoint() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.shard.apply(Event::Drain, rig.now);
    let mut drained = false;
    for _ in 0..20 {
        rig.shard.turn(rig.now);
        rig.now.mono_ns += 1_000_000_000;
        let mut done = Vec::new();
        while let Some(effect) = rig.shard.next_effect() {
            match effect {
                Effect::Device(id, op) => done.push(rig.carry_out(id, op)),
                Effect::Note(Note::Drained) => drained = true,
                _ => {}
            }
        }
        for done in done {
            rig.shard.apply(Event::Done(done), rig.now);
        }
    }
    assert!(drained);
}

#[test]
fn a_failed_flush_elsewhere_stops_acknowledgements_of_the_round_in_flight() {
    let mut rig = Rig::new(1 << 20);
    rig.produce(&plain(&[b"a"]));
    rig.run();
    rig.hold = true;
    let second = rig.produce(&plain(&[b"b"]));
    rig.run();
    let error = DeviceError::Failed("input/output error".to_owned());
    rig.shard.apply(Event::DeviceFailed { error }, rig.now);
    rig.release();
    assert_eq!(rig.produced(second), Err(ErrorCode::StorageFailed));
    let fetch = rig.fetch(0, 0);
    rig.run();
    assert_eq!(
        rig.fetched(fetch),
        [(0, b"a".to_vec())],
        "reads go on, below what was durable"
    );
    let third = rig.produce(&plain(&[b"c"]));
    rig.run();
    assert_eq!(rig.produced(third), Err(ErrorCode::StorageFailed));
}
