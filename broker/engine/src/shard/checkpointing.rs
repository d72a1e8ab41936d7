//! Checkpoints: where recovery begins, so that a start doesn't depend on how long the log is.
//!
//! A partition's entry describes a state that is durable. A partition that is being written gives
//! its state as it is, and the entry counts once everything in it is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use crate::device::{DeviceError, Op};
use crate::limits::{CHECKPOINT_STEP_BYTES, CHECKPOINT_STEP_PARTITIONS};
use crate::log::{Assembly, CheckpointEntry, EncodedEntry, EntryFields, Side, SparseIndex};
use crate::shard::partition::{Partition, State};
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;
use ringway_wire::{Offset, Position, TopicPartition};

/// How long a due checkpoint waits for the partitions that are being written, in nanoseconds.
const COLLECT_NS_MAX: u64 = 200_000_000;

/// What a start with a checkpoint needs of a partition's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needed {
    /// Where the log starts.
    pub(super) start: Offset,
    /// The segment that is read first.
    pub(super) base: Offset,
}

/// How far the checkpoint is that is being made.
#[derive(Debug, Default)]
enum Stage {
    /// None is.
    #[default]
    Idle,
    /// The states of these partitions are looked at, some each turn.
    Collecting { left: VecDeque<usize> },
    /// States that are not durable yet are waited for, until then at most.
    Waiting { until_ns: u64 },
    /// The entries are put together, some each turn: those up to `last` are in.
    Assembling {
        assembly: Assembly,
        last: Option<TopicPartition>,
    },
    /// It is being saved.
    Saving,
}

/// What the next checkpoint will say and when it is due.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    /// A durable state of each partition that holds anything, also of those not yet recovered.
    entries: BTreeMap<TopicPartition, EncodedEntry>,
    /// Bytes of all of them.
    entry_bytes: usize,
    /// States that count as soon as everything in them is durable.
    captured: HashMap<usize, EncodedEntry>,
    /// Partitions whose state may be another than their entry's.
    listed: VecDeque<usize>,
    /// Partitions with segments that are to go and which the last checkpoint still needs.
    starts: BTreeSet<usize>,
    /// What the checkpoint that is being made needs of them, or less.
    saving_starts: Vec<(usize, Needed)>,
    generation: u64,
    /// Bytes appended when the last checkpoint was begun.
    append_bytes: u64,
    /// Whether anything happened since then that it doesn't say.
    changed: bool,
    timer_set: bool,
    stage: Stage,
    due: bool,
}

impl Checkpointing {
    /// The next turn begins a checkpoint, or the first after the one being made is saved.
    pub(super) const fn make_due(&mut self) {
        self.due = true;
        self.changed = true;
    }

    /// Whether nothing is under way or due.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle) && !self.due
    }

    /// What an earlier run said of a partition stays true until there is something newer.
    pub(super) fn inherit(&mut self, entry: &CheckpointEntry) {
        self.set(entry.encoded());
    }

    fn set(&mut self, entry: EncodedEntry) {
        self.entry_bytes += entry.bytes();
        if let Some(before) = self.entries.insert(entry.log(), entry) {
            self.entry_bytes -= before.bytes();
        }
    }

    /// A partition is no more.
    pub(super) fn forget(&mut self, index: usize, log: TopicPartition) {
        if let Some(entry) = self.entries.remove(&log) {
            self.entry_bytes -= entry.bytes();
        }
        self.captured.remove(&index);
        self.starts.remove(&index);
        self.changed = true;
    }

    /// The next checkpoint is waited for to remove segments.
    pub(super) fn await_start(&mut self, index: usize) {
        self.starts.insert(index);
    }

    /// From the next checkpoint on a partition is to start at an offset.
    pub(super) fn raise_start(&mut self, index: usize, log: TopicPartition, start: Offset) {
        self.await_start(index);
        if let Some(entry) = self.entries.get_mut(&log) {
            raise(entry, start);
        }
    }

    /// The durable end of a segment counts if nothing newer is known.
    fn set_sealed(&mut self, entry: EncodedEntry) {
        let known = self.entries.get(&entry.log());
        if known.is_none_or(|known| known.next_offset() < entry.next_offset()) {
            self.set(entry);
            self.changed = true;
        }
    }

    /// A partition's state will never be durable.
    pub(super) fn forget_captured(&mut self, index: usize) {
        self.captured.remove(&index);
    }

    /// Continues the numbering of checkpoints found at the start.
    pub(super) fn continue_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// Adds the next entries to the checkpoint; true when all are in.
    fn assemble(&mut self) -> bool {
        let Stage::Assembling { assembly, last } = &mut self.stage else {
            return false;
        };
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        for (log, entry) in self.entries.range((from, Bound::Unbounded)) {
            if bytes >= CHECKPOINT_STEP_BYTES {
                return false;
            }
            bytes += entry.bytes();
            assembly.push(entry);
            *last = Some(*log);
        }
        true
    }
}

/// Where a log starts never goes back, and an entry doesn't say more than it tells of.
fn raise(entry: &mut EncodedEntry, start: Offset) {
    entry.raise_log_start(start.min(entry.next_offset()));
}

/// The state of a partition, all of it appended bytes counted; `None` where there is nothing to
/// tell, or not yet.
fn entry(partition: &Partition) -> Option<EncodedEntry> {
    if partition.log_end.0 == 0 {
        return None;
    }
    let writer = partition.writers.back();
    if !writer.is_none_or(|writer| partition.is_named(writer)) {
        // A start finds the segment that it reads first by its name. It is listed again.
        return None;
    }
    let empty = SparseIndex::new(partition.log_end, 0);
    let fields = EntryFields {
        log: partition.log,
        segment_base: writer.map_or(partition.log_end, |writer| writer.base),
        position: Position(writer.map_or(0, |writer| writer.end)),
        next_offset: partition.log_end,
        leader_epoch: partition.config.leader_epoch,
        last_header_crc: partition.last_header_crc,
        last_append_time_us: partition.last_append_time_us,
        log_start: partition.log_start,
        epochs: &partition.epochs,
        producers: &partition.producers,
        index: writer.map_or(&empty, |writer| &writer.index),
    };
    Some(fields.encoded())
}

impl Shard {
    /// A partition's state has changed.
    pub(super) fn list_for_checkpoint(&mut self, index: usize) {
        self.checkpointing.changed = true;
        if let Some(partition) = self.partitions[index].as_deref_mut()
            && !partition.checkpoint_listed
        {
            partition.checkpoint_listed = true;
            self.checkpointing.listed.push_back(index);
        }
    }

    /// More of a partition is durable: perhaps all of the state that was captured.
    pub(super) fn captured_durable(&mut self, index: usize) {
        self.list_for_checkpoint(index);
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        let captured = self.checkpointing.captured.get(&index);
        if captured.is_some_and(|entry| entry.next_offset() <= partition.durable_end)
            && let Some(mut entry) = self.checkpointing.captured.remove(&index)
        {
            raise(&mut entry, partition.start_wanted);
            self.checkpointing.set(entry);
        }
    }

    /// A segment is all durable: a start can go on behind it, even when what follows waits for
    /// space. Without that a disk that is full before the first checkpoint would never be freed.
    pub(super) fn checkpoint_sealed(&mut self, index: usize, side: &Side) {
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return;
        }
        let end = side.next_offset;
        let fields = EntryFields {
            log: partition.log,
            segment_base: end,
            position: Position(0),
            next_offset: end,
            leader_epoch: partition.config.leader_epoch,
            last_header_crc: side.last_header_crc,
            last_append_time_us: side.last_append_time_us,
            log_start: partition.log_start.min(end),
            epochs: &side.epochs,
            producers: &side.producers,
            index: &SparseIndex::new(end, 0),
        };
        let mut entry = fields.encoded();
        raise(&mut entry, partition.start_wanted);
        self.checkpointing.set_sealed(entry);
    }

    pub(super) const fn checkpoint_due(&mut self) {
        self.checkpointing.timer_set = false;
        self.checkpointing.due = true;
    }

    /// Moves the checkpoint on by one bounded step: begins one when it is due, collects states,
    /// waits for them, puts them together, saves them.
    pub(super) fn advance_checkpoint(&mut self, now: Now) {
        let at = &mut self.checkpointing;
        if self.device_failed.is_some() {
            // What would be saved couldn't be made durable.
            at.due = false;
            if !matches!(at.stage, Stage::Saving) {
                at.stage = Stage::Idle;
            }
            return;
        }
        if matches!(at.stage, Stage::Idle) && !self.begin_checkpoint(now) {
            return;
        }
        if let Stage::Collecting { .. } = self.checkpointing.stage
            && !self.collect(now)
        {
            return self.step_again(now);
        }
        let at = &mut self.checkpointing;
        if let Stage::Waiting { until_ns } = at.stage {
            if !at.captured.is_empty() && now.mono_ns < until_ns {
                return;
            }
            let starts = at.starts.iter().filter_map(|&index| {
                let partition = self.partitions[index].as_deref()?;
                let entry = at.entries.get(&partition.log)?;
                let (start, base) = (entry.log_start(), entry.segment_base());
                Some((index, Needed { start, base }))
            });
            at.saving_starts = starts.collect();
            at.generation += 1;
            let assembly = Assembly::begin(at.generation, at.entries.len(), at.entry_bytes);
            at.stage = Stage::Assembling {
                assembly,
                last: None,
            };
        }
        if let Stage::Assembling { .. } = at.stage {
            if !at.assemble() {
                return self.step_again(now);
            }
            if let Stage::Assembling { assembly, .. } =
                std::mem::replace(&mut at.stage, Stage::Saving)
            {
                let bytes = assembly.finish();
                self.submit(Op::SaveCheckpoint { bytes }, Pending::Checkpoint);
            }
        }
    }

    /// Another turn goes on at once, but whatever came meanwhile has its turn before.
    fn step_again(&mut self, now: Now) {
        self.timers.set(now.mono_ns, Timer::Checkpointing);
    }

    /// Begins a checkpoint if one is due.
    fn begin_checkpoint(&mut self, now: Now) -> bool {
        let at = &mut self.checkpointing;
        let bytes = self.counters.append_bytes - at.append_bytes;
        let due = at.due || bytes >= self.config.checkpoint_bytes;
        at.due = due && at.changed;
        if !at.due {
            if at.changed && !at.timer_set {
                at.timer_set = true;
                let due_ns = now.mono_ns + self.config.checkpoint_ns;
                self.timers.set(due_ns, Timer::Checkpoint);
                self.set_retention_timer(now);
            }
            return false;
        }
        at.due = false;
        at.changed = false;
        at.append_bytes = self.counters.append_bytes;
        at.stage = Stage::Collecting {
            left: std::mem::take(&mut at.listed),
        };
        true
    }

    /// Takes the states of some of the partitions that changed; of one that is being written it
    /// counts later. True when all are taken.
    fn collect(&mut self, now: Now) -> bool {
        let at = &mut self.checkpointing;
        let Stage::Collecting { left } = &mut at.stage else {
            return true;
        };
        let mut left = std::mem::take(left);
        let (mut bytes, mut looked_at) = (0, 0);
        while bytes < CHECKPOINT_STEP_BYTES
            && looked_at < CHECKPOINT_STEP_PARTITIONS
            && let Some(index) = left.pop_front()
        {
            looked_at += 1;
            let Some(partition) = self.partitions[index].as_deref_mut() else {
                continue;
            };
            partition.checkpoint_listed = false;
            // Of a failed partition the last entry stays: what is missing has to be missed again.
            let over = matches!(partition.state, State::Failed(_) | State::Deleting);
            // An older state that isn't durable yet comes first, or none would ever be.
            if over || at.captured.contains_key(&index) {
                continue;
            }
            let Some(mut entry) = entry(partition) else {
                continue;
            };
            bytes += entry.bytes();
            if entry.next_offset() <= partition.durable_end {
                raise(&mut entry, partition.start_wanted);
                at.set(entry);
            } else {
                at.captured.insert(index, entry);
            }
        }
        if !left.is_empty() {
            at.stage = Stage::Collecting { left };
            return false;
        }
        let until_ns = now.mono_ns + COLLECT_NS_MAX;
        at.stage = Stage::Waiting { until_ns };
        if !at.captured.is_empty() {
            self.timers.set(until_ns, Timer::Checkpointing);
        }
        true
    }

    pub(super) fn checkpoint_saved(&mut self, error: Option<DeviceError>) {
        self.checkpointing.stage = Stage::Idle;
        if error.is_some() {
            // Recovery begins at the one before; the next turn to come tries again.
            self.checkpointing.changed = true;
            return;
        }
        for (index, needed) in std::mem::take(&mut self.checkpointing.saving_starts) {
            self.checkpointing.starts.remove(&index);
            self.start_saved(index, needed);
        }
    }
}
