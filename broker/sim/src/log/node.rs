//! One broker's life: a shard on a simulated disk, from a start to a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringway_engine::device::{DeviceError, Done, FileId, Op, OpId, Outcome, SegmentName};
use ringway_engine::log::{Slots, merge};
use ringway_engine::shard::{Effect, Event, Note, PartitionConfig, Shard, Token};
use ringway_engine::time::Now;
use ringway_wire::request::{Durability, Request};
use ringway_wire::{
    CorrelationId, LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, ProducerId, TopicId,
    TopicPartition,
};

use crate::device::{Failures, SimDevice};
use crate::log::clients::{Producer, Reader};
use crate::log::coverage::Coverage;
use crate::log::history::{Broken, History, ensure};
use crate::log::profile::Profile;
use crate::log::replies::Waiting;
use crate::log::sabotage::{Sabotage, Saboteur};
use crate::random::Random;
use crate::trace::Trace;

/// What outlives a broker: the clients, the metadata, the time.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) history: History,
    pub(super) producers: Vec<Producer>,
    pub(super) readers: Vec<Reader>,
    /// The leader epoch of all partitions; each start opens a new one.
    pub(super) epoch: u32,
    pub(super) now: Now,
    producer_next: u64,
}

impl World {
    pub(super) fn new(profile: &Profile) -> Self {
        let now = Now {
            mono_ns: 1_000_000,
            unix_us: 1_700_000_000_000_000,
        };
        let mut world = Self {
            history: History::default(),
            producers: Vec::new(),
            readers: Vec::new(),
            epoch: 0,
            now,
            producer_next: 1,
        };
        for log in 0..profile.partitions {
            world.add_log(profile.memory.has(log));
        }
        world
    }

    /// A new partition with its clients.
    pub(super) fn add_log(&mut self, memory: bool) -> usize {
        let log = self.history.logs.len();
        let topic = TopicId(0x7000 + log as u128);
        let place = TopicPartition {
            topic,
            partition: PartitionIndex(0),
        };
        self.history.add_log(place, memory);
        for _ in 0..2 {
            let id = self.new_producer();
            self.producers.push(Producer::new(log, Some(id)));
        }
        self.producers.push(Producer::new(log, None));
        self.readers.push(Reader::new(log, false));
        self.readers.push(Reader::new(log, true));
        log
    }

    pub(super) fn new_producer(&mut self) -> ProducerId {
        let id = ProducerId(self.producer_next);
        self.producer_next += 1;
        id
    }

    /// Partitions that exist.
    pub(super) fn live_logs(&self) -> Vec<usize> {
        let logs = &self.history.logs;
        (0..logs.len()).filter(|&log| !logs[log].deleted).collect()
    }

    fn disconnect(&mut self) {
        for producer in &mut self.producers {
            producer.disconnect();
        }
        for reader in &mut self.readers {
            reader.waiting = false;
        }
    }
}

/// Called after every submission and completion.
pub(super) type Observer<'a> = &'a mut dyn FnMut(&Node) -> Result<(), Broken>;

/// What all broker lives of a run have in common.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) profile: Rc<Profile>,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
}

/// The connection of all producers.
const PRODUCERS: u64 = 2;
/// The connection of all readers.
pub(super) const READERS: u64 = 1;

/// A running broker.
pub(super) struct Node {
    pub(super) profile: Rc<Profile>,
    pub(super) shard: Shard,
    pub(super) device: SimDevice,
    pub(super) world: World,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) waiting: BTreeMap<u32, Waiting>,
    /// Submissions and completions so far.
    pub(super) operations: u64,
    /// Partitions that refuse appends until the next start.
    pub(super) failed: Vec<usize>,
    /// What the shard said of each partition when it was open.
    pub(super) opened: BTreeMap<TopicPartition, Opened>,
    /// Damage is possible: what can't be read is no broken promise.
    pub(super) damage_expected: bool,
    pub(super) drained: bool,
    /// A clean stop couldn't write everything.
    unwritten: bool,
    saboteur: Saboteur,
    kinds: BTreeMap<OpId, Kind>,
    /// Files that were called `next.log` when the broker started.
    found_next: BTreeSet<FileId>,
    correlation: u32,
}

/// What an operation in flight is, as far as counts are concerned.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Write,
    Sync,
    Read,
    Other,
}

/// The end of a recovery.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) log_end: Offset,
    pub(super) scanned_bytes: u64,
}

impl Node {
    /// Starts a broker on what a crash has left.
    pub(super) fn start(
        ways: &Ways,
        mut device: SimDevice,
        mut world: World,
        random: Random,
    ) -> Self {
        let profile = &ways.profile;
        world.epoch += 1;
        world.disconnect();
        world.history.crashed();
        device.set_failures(Failures::default());
        for log in world.history.logs.iter().filter(|log| log.deleted) {
            device.remove_orphan(log.log);
        }
        let slots = device.checkpoints();
        let slots = Slots::read(
            slots.first().map(Vec::as_slice),
            slots.get(1).map(Vec::as_slice),
        );
        let mut shard = Shard::new(profile.shard.clone());
        shard.continue_checkpoints(slots.next_generation());
        let mut entries = merge(slots.newest);
        let mut node = Self {
            profile: Rc::clone(profile),
            coverage: ways.coverage.clone(),
            shard,
            device,
            world,
            random,
            trace: ways.trace.clone(),
            waiting: BTreeMap::new(),
            operations: 0,
            failed: Vec::new(),
            opened: BTreeMap::new(),
            damage_expected: false,
            drained: false,
            unwritten: false,
            saboteur: Saboteur::new(ways.sabotage),
            kinds: BTreeMap::new(),
            found_next: BTreeSet::new(),
            correlation: 0,
        };
        for log in node.world.live_logs() {
            let place = node.world.history.logs[log].log;
            let checkpoint = entries.remove(&place).map(Box::new);
            node.open(log, checkpoint);
        }
        node
    }

    fn open(&mut self, log: usize, checkpoint: Option<Box<ringway_engine::log::CheckpointEntry>>) {
        let config = self.config_of(log);
        let log = self.world.history.logs[log].log;
        let files = self.device.list(log);
        self.shard.apply(
            Event::Open {
                log,
                config,
                files,
                checkpoint,
            },
            self.world.now,
        );
    }

    pub(super) fn config_of(&self, log: usize) -> PartitionConfig {
        PartitionConfig {
            topic_epoch: MetadataEpoch(1),
            leader_epoch: LeaderEpoch(self.world.epoch),
            segment_bytes: self.profile.segment_bytes,
            durability: match self.world.history.logs[log].memory {
                true => Durability::Memory,
                false => Durability::Fsync,
            },
            record_bytes_max: 1 << 20,
            retention: self.profile.retention,
            retention_bytes: self.profile.retention_bytes,
        }
    }

    /// A partition that didn't exist before.
    pub(super) fn create(&mut self) {
        let memory = self.profile.memory.has(self.world.history.logs.len());
        let log = self.world.add_log(memory);
        self.open(log, None);
    }

    /// Waits until every partition is open, with the device at work.
    pub(super) fn open_all(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        self.pump(observer)?;
        for _ in 0..100_000 {
            if self.shard.all_open() {
                // Faults begin when clients do.
                self.saboteur.open = true;
                return self.pump(observer);
            }
            ensure!(
                self.complete(observer)?,
                "recovery stops with nothing in flight"
            );
        }
        Err("recovery doesn't end".to_owned())
    }

    /// Does `steps` things, whatever comes.
    pub(super) fn run(&mut self, steps: u64, observer: Observer<'_>) -> Result<(), Broken> {
        self.device.set_failures(self.profile.failures);
        for _ in 0..steps {
            self.step(observer)?;
        }
        Ok(())
    }

    /// Lets the device or a client or the clock do something.
    pub(super) fn step(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        let busy = self.saboteur.is_busy(&self.device);
        if busy && self.random.chance(self.profile.device_turns) {
            self.complete(observer)?;
            return Ok(());
        }
        match self.random.below(100) {
            0..96 => self.act(observer)?,
            96..98 => self.pass(1_000_000),
            _ => self.jump(),
        }
        self.pump(observer)
    }

    /// Time passes, up to so many nanoseconds.
    pub(super) fn pass(&mut self, ns_max: u64) {
        let ns = self.random.between(1, ns_max);
        self.pass_exactly(ns);
    }

    fn pass_exactly(&mut self, ns: u64) {
        self.world.now.mono_ns += ns;
        self.world.now.unix_us += (ns / 1_000) as i64;
        if self.random.chance(5) {
            // Somebody sets the wall clock.
            self.world.now.unix_us += self.random.below(2_000) as i64 - 1_000;
        }
    }

    /// Time passes until the shard wants something.
    pub(super) fn jump(&mut self) {
        match self.shard.next_deadline_ns() {
            Some(at) => self.pass_exactly(at.saturating_sub(self.world.now.mono_ns) + 1),
            None => self.pass_exactly(1_000_000),
        }
    }

    /// One operation of the device ends; false when none is in flight.
    pub(super) fn complete(&mut self, observer: Observer<'_>) -> Result<bool, Broken> {
        let Some(done) = self.saboteur.wait(&mut self.device) else {
            return Ok(false);
        };
        self.pass(20_000);
        self.operations += 1;
        self.trace_done(&done);
        self.count_done(&done);
        self.shard.apply(Event::Done(done), self.world.now);
        observer(self)?;
        self.pump(observer)?;
        Ok(true)
    }

    /// Gives the shard a turn and carries out what it wants.
    pub(super) fn pump(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        self.shard.turn(self.world.now);
        while let Some(effect) = self.shard.next_effect() {
            match effect {
                Effect::Declare { file, log, name } => {
                    use ringway_engine::device::Device;
                    if name == SegmentName::Next && !self.saboteur.open {
                        self.found_next.insert(file);
                    }
                    self.device.declare(file, log, name);
                }
                Effect::Device(id, op) => {
                    self.operations += 1;
                    self.trace_op(id, &op);
                    self.count_op(id, &op);
                    self.saboteur.submit(&mut self.device, id, op);
                    observer(self)?;
                }
                Effect::Reply { token, reply, data } => {
                    let correlation = token.correlation.0;
                    let bytes: u64 = data.iter().map(|slice| slice.len() as u64).sum();
                    self.trace
                        .record(&[3, correlation.into(), bytes], || format!("{reply:?}"));
                    self.reply(correlation, reply, &data)?;
                }
                Effect::HangUp { source } => {
                    return Err(format!("{source} was hung up on, it takes what it gets"));
                }
                Effect::Note(note) => self.note(note)?,
            }
        }
        Ok(())
    }

    /// Sends a request; its answer goes to `waiting`, if one comes.
    pub(super) fn request(&mut self, request: &Request, data: &[u8], waiting: Option<Waiting>) {
        self.correlation += 1;
        // Producers and readers have a connection each.
        let source = if matches!(request, Request::Produce(_)) {
            PRODUCERS
        } else {
            READERS
        };
        let token = Token {
            source,
            correlation: CorrelationId(self.correlation),
        };
        if let Some(waiting) = waiting {
            self.waiting.insert(self.correlation, waiting);
        }
        let kind = u64::from(request.kind().number());
        let correlation = self.correlation;
        self.trace
            .record(&[2, kind, correlation.into(), data.len() as u64], || {
                format!(
                    "request {correlation}: {request:?} with {} bytes",
                    data.len()
                )
            });
        let received_ns = self.world.now.mono_ns;
        let event = Event::Request {
            token,
            received_ns,
            request,
            data,
        };
        self.shard.apply(event, self.world.now);
    }

    fn note(&mut self, note: Note) -> Result<(), Broken> {
        self.trace.record(&[4], || format!("{note:?}"));
        match note {
            Note::Opened {
                log,
                log_start,
                log_end,
                scanned_bytes,
                cut,
            } => {
                let at = self.world.history.logs.iter();
                let at = at.clone().position(|known| known.log == log);
                if let Some(at) = at.filter(|_| !self.damage_expected) {
                    self.allow_retention(at);
                    self.world.history.told_start(at, log_start)?;
                }
                if cut.is_some() {
                    self.coverage.hit("log cut");
                }
                self.opened.insert(
                    log,
                    Opened {
                        log_end,
                        scanned_bytes,
                    },
                );
            }
            Note::Unwritten { log, from, to } => {
                let full = self.profile.device.capacity_bytes < u64::MAX;
                ensure!(
                    full || self.profile.has_failures(),
                    "{log} from {from} to {to} is not written at a clean stop"
                );
                self.unwritten = true;
            }
            Note::Drained => {
                self.coverage.hit("clean stop");
                if !self.unwritten {
                    self.world.history.all_durable();
                }
                self.drained = true;
            }
            Note::State { log, state } => {
                let faults = self.profile.has_failures() || self.damage_expected;
                let full = state.starts_with("full") || state.starts_with("ready");
                ensure!(faults || full, "{log} became {state}");
                if state.starts_with("failed") {
                    self.mark_failed(log);
                }
            }
            Note::FlushFailed { error } => {
                // A durable write is a flush, too.
                let failures = self.profile.failures;
                ensure!(
                    failures.sync + failures.write > 0,
                    "a flush failed: {error}"
                );
                self.failed = (0..self.world.history.logs.len()).collect();
            }
            Note::Damaged {
                log,
                offset,
                reason,
            } => {
                ensure!(
                    self.damage_expected,
                    "{log} is damaged at {offset}: {reason}"
                );
                self.coverage.hit("damage found");
            }
            Note::Trimmed { .. } => self.coverage.hit("log start raised"),
            Note::NotRemoved { error, .. } => ensure!(
                self.profile.has_failures(),
                "a segment couldn't be removed: {error}"
            ),
            Note::Deleted { .. } => self.coverage.hit("topic deleted"),
        }
        Ok(())
    }

    fn mark_failed(&mut self, log: TopicPartition) {
        let at = self
            .world
            .history
            .logs
            .iter()
            .position(|known| known.log == log);
        self.failed.extend(at);
    }

    fn count_done(&mut self, done: &Done) {
        let kind = self.kinds.remove(&done.op);
        match (kind, &done.result) {
            (Some(Kind::Write), Err(_)) => self.coverage.hit("write failed"),
            (Some(Kind::Sync), Err(_)) => self.coverage.hit("sync failed"),
            (Some(Kind::Read), Err(_)) => self.coverage.hit("read failed"),
            (Some(Kind::Read), Ok(_)) if self.saboteur.open => self.coverage.hit("cold read"),
            (_, Err(DeviceError::Full)) => self.coverage.hit("no space"),
            (_, Err(_)) => self.coverage.hit("housekeeping failed"),
            _ => {}
        }
    }

    fn count_op(&mut self, id: OpId, op: &Op) {
        let kind = match op {
            Op::Write { durable, .. } => {
                if *durable {
                    self.coverage.hit("durable write");
                }
                Kind::Write
            }
            Op::Flush => {
                self.coverage.hit("flushed");
                Kind::Sync
            }
            Op::Sync { .. } => {
                self.coverage.hit("file synced");
                Kind::Sync
            }
            Op::Read { .. } => Kind::Read,
            Op::Fill { .. } => {
                self.coverage.hit("filled ahead");
                Kind::Other
            }
            Op::SaveSide { .. } => {
                self.coverage.hit("segment sealed");
                Kind::Other
            }
            Op::SaveCheckpoint { .. } => {
                self.coverage.hit("checkpoint saved");
                Kind::Other
            }
            Op::Remove { .. } if self.saboteur.open => {
                self.coverage.hit("segment removed");
                Kind::Other
            }
            Op::Name { file, .. } => {
                if self.found_next.contains(file) {
                    self.coverage.hit("next.log continued");
                }
                Kind::Other
            }
            _ => Kind::Other,
        };
        self.kinds.insert(id, kind);
    }

    fn trace_done(&mut self, done: &Done) {
        let detail = match &done.result {
            Ok(Outcome::Read { buffer, bytes }) => u64::from(crc32c::crc32c(&buffer[..*bytes])),
            Ok(Outcome::Prepared { filled }) => *filled,
            Ok(_) => 0,
            Err(_) => 1,
        };
        self.trace.record(&[1, done.op.0, detail], || {
            format!("done {:?}: {:?}", done.op, done.result)
        });
    }

    fn trace_op(&mut self, id: OpId, op: &Op) {
        let numbers = match op {
            Op::Write {
                file,
                position,
                parts,
                durable,
            } => {
                let crc = parts
                    .iter()
                    .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
                [file.0, position.0, crc.into(), u64::from(*durable)]
            }
            Op::Flush => [1, 0, 0, 0],
            Op::Sync { file } => [2, file.0, 0, 0],
            Op::Read {
                file,
                position,
                bytes,
                ..
            } => [3, file.0, position.0, *bytes as u64],
            Op::Prepare {
                file,
                bytes,
                filled,
                ..
            } => [4, file.0, *bytes, *filled],
            Op::Fill { file, start, end } => [5, file.0, start.0, end.0],
            Op::Name { file, base } => [6, file.0, base.0, 0],
            Op::SaveSide { base, bytes, .. } => [7, base.0, crc32c::crc32c(bytes).into(), 0],
            Op::LoadSide { base, .. } => [8, base.0, 0, 0],
            Op::SaveCheckpoint { bytes } => [9, crc32c::crc32c(bytes).into(), 0, 0],
            Op::Remove { file } => [10, file.0, 0, 0],
            Op::RemovePartition { .. } => [11, 0, 0, 0],
        };
        self.trace.record(
            &[0, id.0, numbers[0], numbers[1], numbers[2], numbers[3]],
            || match op {
                Op::SaveSide { log, base, .. } => format!("submit {id:?}: SaveSide {log} {base}"),
                Op::SaveCheckpoint { bytes } => {
                    format!("submit {id:?}: SaveCheckpoint of {} bytes", bytes.len())
                }
                op => format!("submit {id:?}: {op:?}"),
            },
        );
    }
}
