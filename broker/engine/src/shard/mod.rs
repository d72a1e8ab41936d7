//! A shard: partitions with one owner, fed with events, asked for effects.
//!
//! A driver calls [`Shard::apply`] for each event, [`Shard::turn`] once after all of them, and
//! then carries out the effects. Nothing in here waits.

mod budget;
mod checkpointing;
mod delete;
mod event;
mod fetch;
mod open;
mod partition;
mod produce;
mod read;
mod rebuild;
mod retention;
mod round;
mod seek;
mod space;
mod stable;
mod status;
mod tail;
mod timers;
mod trim;
mod writer;

#[cfg(test)]
mod tests;

pub use event::{Effect, Event, FoundFile, Note, PartitionConfig, Token};
pub use status::PartitionStatus;

use std::collections::{BTreeSet, HashMap, VecDeque};

use ringway_wire::{Offset, ShardId, TopicPartition};

use crate::buffer::Pool;
use crate::device::{DeviceError, Done, FileId, Op, OpId};
use crate::limits::STEPS_PER_TURN_MAX;
use crate::shard::budget::Reads;
use crate::shard::checkpointing::Checkpointing;
use crate::shard::fetch::FetchTask;
use crate::shard::open::Opening;
use crate::shard::partition::{Expired, Partition, State};
use crate::shard::rebuild::Rebuilding;
use crate::shard::retention::Retention;
use crate::shard::round::Round;
use crate::shard::stable::Unsynced;
use crate::shard::timers::{TimerId, Timers};
use crate::time::Now;

/// What one flush makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncScope {
    /// Every file's writes on the device: one flush for all.
    Device,
    /// Only the file that is synced: one sync each.
    File,
}

/// How a shard is set up. Equal for its whole life.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard this is.
    pub id: ShardId,
    /// What one flush makes durable.
    pub sync_scope: SyncScope,
    /// Bytes of memory for append buffers and tail caches together.
    pub cache_bytes_max: usize,
    /// Bytes appended and not yet durable; above it producers are told to come back.
    pub pending_bytes_max: usize,
    /// Bytes acknowledged from memory, in topics of that durability, and not yet durable: what a
    /// crash may lose. Above it acknowledgements wait for the disk.
    pub unsynced_bytes_max: u64,
    /// How long such bytes may have been acknowledged for, in nanoseconds. When the disk takes
    /// longer, nothing more is acknowledged from memory.
    pub unsynced_ns_max: u64,
    /// Bytes of cold reads in memory, from the disk to the last send; with writes beside them a
    /// part of it is read at the same time.
    pub read_bytes_max: usize,
    /// Bytes of cold reads in a second; `None` is no limit.
    pub read_bytes_per_second: Option<u64>,
    /// Whether a lone small write may be made durable by itself. Off for devices on which that is
    /// dearer than a flush.
    pub lone_durable_write: bool,
    /// Time between checkpoints, in nanoseconds.
    pub checkpoint_ns: u64,
    /// Bytes appended that make a checkpoint due earlier.
    pub checkpoint_bytes: u64,
}

impl ShardConfig {
    /// The defaults, for a shard of that number.
    #[must_use]
    pub const fn new(id: ShardId) -> Self {
        Self {
            id,
            sync_scope: SyncScope::File,
            cache_bytes_max: 128 << 20,
            pending_bytes_max: 64 << 20,
            unsynced_bytes_max: 16 << 20,
            unsynced_ns_max: 200_000_000,
            read_bytes_max: 16 << 20,
            read_bytes_per_second: None,
            lone_durable_write: true,
            checkpoint_ns: 1_000_000_000,
            checkpoint_bytes: 64 << 20,
        }
    }
}

/// What an operation in flight is for.
#[derive(Debug)]
enum Pending {
    /// One of the commit round's writes, by its ordinal.
    RoundWrite(usize),
    /// One of the commit round's syncs.
    RoundSync,
    Prepare(usize),
    Fill {
        partition: usize,
        base: Offset,
        end: u64,
    },
    Name(usize),
    Discard(usize),
    SaveSide {
        partition: usize,
        base: Offset,
    },
    Read(FetchTask),
    LoadSide {
        partition: usize,
        base: Offset,
        task: FetchTask,
    },
    Recover(usize),
    RecoverSync(usize),
    RecoverRemove(usize),
    RebuildSide(usize),
    RebuildRead {
        partition: usize,
        base: Offset,
    },
    LoadAge {
        partition: usize,
        base: Offset,
    },
    /// A segment below the log's start is being removed.
    Expire {
        partition: usize,
        segment: Expired,
    },
    Checkpoint,
    Remove(usize),
    RemovePartition(usize),
}

impl Pending {
    /// The partition that counts the operation among those on its files. A round counts its
    /// writes itself, until the round is over.
    const fn partition(&self) -> Option<usize> {
        match self {
            Self::Prepare(index)
            | Self::Name(index)
            | Self::Discard(index)
            | Self::Remove(index)
            | Self::RemovePartition(index)
            | Self::RebuildSide(index)
            | Self::RebuildRead {
                partition: index, ..
            }
            | Self::LoadAge {
                partition: index, ..
            }
            | Self::Expire {
                partition: index, ..
            }
            | Self::Fill {
                partition: index, ..
            }
            | Self::SaveSide {
                partition: index, ..
            }
            | Self::LoadSide {
                partition: index, ..
            } => Some(*index),
            Self::Read(task) => Some(task.partition),
            _ => None,
        }
    }

    /// The segment that isn't removed while the operation is in flight. A writer's operations need
    /// no such pin: a segment is sealed only after them.
    const fn pinned(&self) -> Option<Offset> {
        match self {
            Self::Read(task) => Some(task.base),
            Self::RebuildRead { base, .. } | Self::SaveSide { base, .. } => Some(*base),
            _ => None,
        }
    }
}

/// What is due at a deadline.
#[derive(Debug)]
enum Timer {
    /// A fetch has waited long enough.
    Waiter(usize),
    /// Preparing a segment failed a while ago.
    RetrySpace(usize),
    /// Look for produce requests whose time ran out.
    AckScan,
    /// A checkpoint is due.
    Checkpoint,
    /// The next step of a checkpoint: more of it, or it has waited long enough for partitions that
    /// are being written.
    Checkpointing,
    /// More partitions are to be opened.
    Openings,
    /// Something of a topic with durability `memory` has gathered for long enough.
    Unsynced,
    /// The reads' budget for the next moment.
    Reads,
    /// Look for records that are too old.
    Retention,
}

/// Numbers of a shard that people and metrics want to see. All count up, but those that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of batches appended.
    pub append_bytes: u64,
    /// Produce requests that repeated a batch.
    pub duplicates: u64,
    /// Commit rounds finished.
    pub rounds: u64,
    /// Of them, those that were one durable write.
    pub lone_rounds: u64,
    /// Writes finished.
    pub writes: u64,
    /// Bytes written, tail blocks and padding included.
    pub write_bytes: u64,
    /// Syncs and flushes finished.
    pub syncs: u64,
    /// Bytes of batches handed out.
    pub fetch_bytes: u64,
    /// Fetch replies with batches from the tail cache.
    pub tail_reads: u64,
    /// Bytes of those batches.
    pub tail_bytes: u64,
    /// Cold reads finished.
    pub cold_reads: u64,
    /// Bytes of cold reads.
    pub cold_read_bytes: u64,
    /// Produce requests that found the memory full.
    pub overloaded: u64,
    /// Bytes of memory that cold reads have, until the last of it is sent; goes up and down.
    pub read_buffer_bytes: u64,
    /// Batches found damaged.
    pub damaged: u64,
    /// Segments removed by retention or trimming.
    pub removed_segments: u64,
    /// Bytes of those segments.
    pub removed_bytes: u64,
    /// Partitions open; goes up and down.
    pub partitions: u64,
    /// Fetches waiting; goes up and down.
    pub waiting: u64,
    /// Bytes appended and not durable; goes up and down.
    pub pending_bytes: u64,
    /// Bytes acknowledged from memory and not durable; goes up and down.
    pub unsynced_bytes: u64,
    /// Bytes of buffers in use; goes up and down.
    pub buffer_bytes: u64,
}

/// What one finished commit round was: the lengths of its stages, in nanoseconds, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTimes {
    /// When it was over, by the monotonic clock.
    pub ended_ns: u64,
    /// Its writes, one for each segment.
    pub writes: u32,
    /// Bytes that they wrote.
    pub bytes: u64,
    /// From the first append of the round to its start.
    pub queued_ns: u64,
    /// From the start to the last write's completion.
    pub written_ns: u64,
    /// From there to the end of the sync.
    pub durable_ns: u64,
}

/// The machine. See the module's page.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    pool: Pool,
    /// Never used again by another partition, so that late completions find the right one or none.
    partitions: Vec<Option<Box<Partition>>>,
    by_log: HashMap<TopicPartition, usize>,
    opening: Opening,
    dirty: VecDeque<usize>,
    round: Option<Round>,
    unsynced: Unsynced,
    reads: Reads,
    rebuilding: Rebuilding,
    retention: Retention,
    checkpointing: Checkpointing,
    timers: Timers<Timer>,
    /// Fetches that wait: the connection, the timer that ends it, the partition.
    waiting: BTreeSet<(u64, TimerId, usize)>,
    /// Connections that are gone, of which some fetches may still wait.
    gone: VecDeque<u64>,
    pending: HashMap<OpId, Pending>,
    effects: VecDeque<Effect>,
    /// Chunks that are full, oldest first: the partition and the offset below which its tail cache
    /// has to forget to free one.
    evictable: VecDeque<(usize, Offset)>,
    /// Indexes of sealed segments in memory, oldest first.
    indexes: VecDeque<(usize, Offset)>,
    device_failed: Option<DeviceError>,
    /// Partitions with produce requests that wait, at least.
    ack_waiting: Vec<usize>,
    drain: Drain,
    /// The partition whose buffers were taken last.
    shrink_next: usize,
    op_next: u64,
    file_next: u64,
    counters: ShardCounters,
    round_times: VecDeque<RoundTimes>,
}

/// How far a shard is with shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// It isn't.
    No,
    /// What was accepted is being finished.
    Finishing,
    /// The last checkpoint is being saved.
    Saving,
    /// Done.
    Over,
}

/// Idle partitions that a turn takes buffers from at most, when memory is short.
const SHRUNK_PER_TURN: usize = 64;

/// Rounds whose times are kept for whoever asks.
const ROUND_TIMES_MAX: usize = 64;

impl Shard {
    /// A shard without partitions.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        let pool = Pool::new(config.cache_bytes_max / 4);
        let reads = Reads::new(config.read_bytes_max, config.read_bytes_per_second);
        Self {
            config,
            pool,
            partitions: Vec::new(),
            by_log: HashMap::new(),
            opening: Opening::default(),
            dirty: VecDeque::new(),
            round: None,
            unsynced: Unsynced::default(),
            reads,
            rebuilding: Rebuilding::default(),
            retention: Retention::default(),
            checkpointing: Checkpointing::default(),
            timers: Timers::default(),
            waiting: BTreeSet::new(),
            gone: VecDeque::new(),
            pending: HashMap::new(),
            effects: VecDeque::new(),
            evictable: VecDeque::new(),
            indexes: VecDeque::new(),
            device_failed: None,
            ack_waiting: Vec::new(),
            drain: Drain::No,
            shrink_next: 0,
            op_next: 0,
            file_next: 0,
            counters: ShardCounters::default(),
            round_times: VecDeque::new(),
        }
    }

    /// Continues the numbering of the checkpoints found at the start.
    pub fn continue_checkpoints(&mut self, generation: u64) {
        self.checkpointing.continue_from(generation);
    }

    /// The memory that the shard's buffers come from.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The shard's numbers as they are now.
    #[must_use]
    pub fn counters(&self) -> ShardCounters {
        ShardCounters {
            unsynced_bytes: self.unsynced_bytes(),
            read_buffer_bytes: self.reads.bytes() as u64,
            buffer_bytes: self.pool.used_bytes() as u64,
            ..self.counters
        }
    }

    /// Times of rounds finished since the last call, the newest 64 at most.
    pub fn round_times(&mut self) -> impl Iterator<Item = RoundTimes> + '_ {
        self.round_times.drain(..)
    }

    /// Whether every partition handed over so far is open.
    #[must_use]
    pub fn all_open(&self) -> bool {
        self.opening.is_empty()
    }

    /// The next thing to be done.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Shard::turn`] has to be called again at the latest, by the monotonic clock.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        match self.gone.is_empty() {
            true => self.timers.next_ns(),
            false => Some(0),
        }
    }

    /// Takes in something that happened.
    pub fn apply(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::Request {
                token,
                received_ns,
                request,
                data,
            } => {
                self.request(token, received_ns, request, data, now);
            }
            Event::Done(done) => self.done(done, now),
            Event::Gone { source } => self.forget(source),
            Event::Open {
                log,
                config,
                files,
                checkpoint,
            } => {
                self.open(log, config, files, checkpoint, now);
            }
            Event::Configure { log, config } => self.configure(log, config, now),
            Event::Delete { log } => self.delete(log),
            Event::DeviceFailed { error } => self.fail_device(error, false),
            Event::Drain => self.drain(),
        }
    }

    /// Does what is due: deadlines, recoveries, and a commit round if the device is idle.
    pub fn turn(&mut self, now: Now) {
        for _ in 0..STEPS_PER_TURN_MAX {
            let Some((id, timer)) = self.timers.pop(now.mono_ns) else {
                break;
            };
            self.due(id, timer, now);
        }
        self.forget_waiting();
        self.advance_openings(now);
        self.start_round(now);
        self.start_reads(now);
        self.advance_rebuilding();
        self.advance_retention(now);
        self.evict();
        self.advance_checkpoint(now);
        self.advance_drain(now);
    }

    fn due(&mut self, id: TimerId, timer: Timer, now: Now) {
        match timer {
            Timer::Waiter(index) => self.waiter_due(index, id),
            Timer::RetrySpace(index) => {
                if let Some(partition) = self.partition(index) {
                    partition.retry = None;
                }
                self.want_space(index, now);
                self.mark_dirty(index);
            }
            Timer::AckScan => self.scan_acks(now),
            Timer::Checkpoint => self.checkpoint_due(),
            // The turn itself goes on with it.
            Timer::Checkpointing | Timer::Openings => {}
            Timer::Unsynced => self.unsynced_due(),
            Timer::Reads => self.reads_due(),
            Timer::Retention => self.retention_due(),
        }
    }

    fn done(&mut self, done: Done, now: Now) {
        let Some(pending) = self.pending.remove(&done.op) else {
            debug_assert!(
                false,
                "operation {:?} was never started or ended twice",
                done.op
            );
            return;
        };
        let result = done.result;
        let (owner, pinned) = (pending.partition(), pending.pinned());
        if let Some(partition) = owner.and_then(|index| self.partition(index)) {
            partition.in_flight -= 1;
            partition.unpin(pinned);
        }
        match pending {
            Pending::RoundWrite(ordinal) => self.round_written(ordinal, result.err(), now),
            Pending::RoundSync => self.round_synced(result.err(), now),
            Pending::Prepare(index) => self.prepared(index, result, now),
            Pending::Fill {
                partition,
                base,
                end,
            } => {
                self.filled(partition, base, end, result.err());
            }
            Pending::Name(index) => self.named(index, result.err(), now),
            Pending::Discard(index) => self.discarded(index, result.err(), now),
            Pending::SaveSide { partition, base } => {
                self.side_saved(partition, base, result.err());
            }
            Pending::Read(task) => self.read_done(task, result, now),
            Pending::LoadSide {
                partition,
                base,
                task,
            } => {
                self.side_loaded(partition, base, task, result);
            }
            Pending::Recover(slot) => self.recover_done(slot, result, now),
            Pending::RecoverSync(slot) => self.recover_synced(slot, result.err(), now),
            Pending::RebuildSide(index) => self.rebuild_side_loaded(index, result),
            Pending::RebuildRead { .. } => self.rebuild_read(result),
            Pending::LoadAge { partition, base } => self.age_loaded(partition, base, result),
            Pending::Expire { partition, segment } => {
                self.segment_removed(partition, segment, result.err());
            }
            Pending::RecoverRemove(slot) => self.recover_removed(slot, result.err(), now),
            Pending::Checkpoint => self.checkpoint_saved(result.err()),
            Pending::Remove(_) => {}
            Pending::RemovePartition(index) => self.partition_removed(index),
        }
        if let Some(index) = owner {
            if pinned.is_some() {
                self.advance_removal(index);
            }
            self.advance_delete(index);
        }
    }

    fn submit(&mut self, op: Op, pending: Pending) {
        if let Some(partition) = pending.partition().and_then(|index| self.partition(index)) {
            partition.in_flight += 1;
            partition.pin(pending.pinned());
        }
        let id = OpId(self.op_next);
        self.op_next += 1;
        self.pending.insert(id, pending);
        self.effects.push_back(Effect::Device(id, op));
    }

    fn new_file(&mut self) -> FileId {
        let file = FileId(self.file_next);
        self.file_next += 1;
        file
    }

    fn note(&mut self, note: Note) {
        self.effects.push_back(Effect::Note(note));
    }

    fn partition(&mut self, index: usize) -> Option<&mut Partition> {
        self.partitions[index].as_deref_mut()
    }

    /// Puts a partition into the list of those with something to write, unless more may gather.
    fn mark_dirty(&mut self, index: usize) {
        let partition = self.partitions[index].as_deref();
        let gathers = partition.is_some_and(Partition::may_gather);
        if !gathers {
            self.mark_dirty_now(index);
        }
    }

    fn mark_dirty_now(&mut self, index: usize) {
        if let Some(partition) = self.partitions[index].as_deref_mut()
            && !partition.dirty
            && partition.pending_bytes() > 0
        {
            partition.dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Changes what a partition can do and says so.
    fn set_state(&mut self, index: usize, state: State) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if partition.state == state || partition.state == State::Deleting {
            return;
        }
        let text = match &state {
            State::Ready => "ready".to_owned(),
            State::Full => "full: no space left on the disk".to_owned(),
            State::Failed(reason) => format!("failed: {reason}"),
            State::Deleting => "deleting".to_owned(),
        };
        partition.state = state;
        let log = partition.log;
        self.note(Note::State { log, state: text });
    }

    fn configure(&mut self, log: TopicPartition, config: PartitionConfig, now: Now) {
        if let Some(&index) = self.by_log.get(&log) {
            if let Some(partition) = self.partition(index) {
                // The epoch of a leadership is opened with the partition, not changed here.
                let leader_epoch = partition.config.leader_epoch;
                partition.config = PartitionConfig {
                    leader_epoch,
                    ..config
                };
            }
            self.watch_retention(index);
            self.advance_stable(index, now);
            self.mark_dirty(index);
            return;
        }
        self.opening.configure(log, config);
    }

    /// Forgets cached batches until the buffers fit their budget again.
    fn evict(&mut self) {
        while self.pool.used_bytes() > self.config.cache_bytes_max {
            let Some((index, below)) = self.evictable.pop_front() else {
                self.shrink_idle();
                return;
            };
            if let Some(partition) = self.partition(index) {
                let below = below.min(partition.durable_end);
                partition.tail.drop_below(below);
            }
        }
    }

    /// Takes their append buffers from some of the partitions that have nothing to write, each
    /// turn from the next ones.
    fn shrink_idle(&mut self) {
        for _ in 0..self.partitions.len().min(SHRUNK_PER_TURN) {
            if self.pool.used_bytes() <= self.config.cache_bytes_max {
                return;
            }
            self.shrink_next = (self.shrink_next + 1) % self.partitions.len();
            let Some(partition) = self.partitions[self.shrink_next].as_deref_mut() else {
                continue;
            };
            if !partition.dirty && partition.pending_bytes() == 0 {
                partition.tail.clear();
                if let Some(writer) = partition.writers.back_mut() {
                    writer.shrink(&self.pool);
                }
            }
        }
    }

    fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Finishing;
            self.refuse_readers_for_shutdown();
        }
    }

    /// Whether the broker is shutting down.
    fn draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Once everything that was accepted is durable or can't be: a last checkpoint, then the end.
    fn advance_drain(&mut self, now: Now) {
        let idle = self.round.is_none()
            && self.dirty.is_empty()
            && !self.has_gathered()
            && self.opening.is_empty()
            && self.reads.is_idle()
            && self.pending.is_empty();
        if idle && self.drain == Drain::Finishing {
            self.drain = Drain::Saving;
            self.checkpointing.make_due();
            self.advance_checkpoint(now);
        }
        if self.drain == Drain::Saving && self.pending.is_empty() && self.checkpointing.is_idle() {
            self.drain = Drain::Over;
            self.fail_acks_for_shutdown();
            self.fail_trims_for_shutdown();
            self.note_unwritten();
            self.note(Note::Drained);
        }
    }
}
