//! Checkpoints: where recovery begins, so that a start doesn't depend on how long the log is.
//!
//! A partition's entry describes a state that is durable. A partition that is being written gives
//! its state as it is, and the entry counts once everything in it is durable.

use std::collections::{BTreeMap, HashMap};

use crate::device::{DeviceError, Op};
use crate::log::{Checkpoint, CheckpointEntry, SparseIndex};
use crate::shard::partition::{Partition, State};
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;
use ringway_wire::{Position, TopicPartition};

/// How long a due checkpoint waits for the partitions that are being written, in nanoseconds.
const COLLECT_NS_MAX: u64 = 200_000_000;

/// What the next checkpoint will say and when it is due.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    /// A durable state of each partition that holds anything, also of those not yet recovered.
    entries: BTreeMap<TopicPartition, CheckpointEntry>,
    /// States that count as soon as everything in them is durable.
    captured: HashMap<usize, CheckpointEntry>,
    /// Partitions whose state may be another than their entry's.
    listed: Vec<usize>,
    generation: u64,
    /// Bytes appended when the last checkpoint was begun.
    append_bytes: u64,
    /// Whether anything happened since then that it doesn't say.
    changed: bool,
    timer_set: bool,
    /// A checkpoint is being collected, until then at most.
    collecting_until_ns: Option<u64>,
    saving: bool,
    due: bool,
}

impl Checkpointing {
    /// The next turn begins a checkpoint.
    pub(super) const fn make_due(&mut self) {
        self.due = true;
        self.changed = true;
    }

    /// Whether nothing is under way or due.
    pub(super) const fn is_idle(&self) -> bool {
        !self.saving && !self.due && self.collecting_until_ns.is_none()
    }

    /// What an earlier run said of a partition stays true until there is something newer.
    pub(super) fn inherit(&mut self, entry: CheckpointEntry) {
        self.entries.insert(entry.log, entry);
    }

    /// A partition is no more.
    pub(super) fn forget(&mut self, index: usize, log: TopicPartition) {
        self.entries.remove(&log);
        self.captured.remove(&index);
        self.changed = true;
    }

    /// A partition's state will never be durable.
    pub(super) fn forget_captured(&mut self, index: usize) {
        self.captured.remove(&index);
    }

    /// Continues the numbering of checkpoints found at the start.
    pub(super) fn continue_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }
}

/// The state of a partition, all of it appended bytes counted.
fn entry(partition: &Partition) -> Option<CheckpointEntry> {
    if partition.log_end.0 == 0 {
        return None;
    }
    let writer = partition.writers.back();
    let empty = SparseIndex::new(partition.log_end, 0);
    Some(CheckpointEntry {
        log: partition.log,
        segment_base: writer.map_or(partition.log_end, |writer| writer.base),
        position: Position(writer.map_or(0, |writer| writer.end)),
        next_offset: partition.log_end,
        leader_epoch: partition.config.leader_epoch,
        last_header_crc: partition.last_header_crc,
        last_append_time_us: partition.last_append_time_us,
        log_start: partition.log_start,
        epochs: partition.epochs.clone(),
        producers: partition.producers.clone(),
        index: writer.map_or(empty, |writer| writer.index.clone()),
    })
}

impl Shard {
    /// A partition's state has changed.
    pub(super) fn list_for_checkpoint(&mut self, index: usize) {
        self.checkpointing.changed = true;
        if let Some(partition) = self.partitions[index].as_deref_mut()
            && !partition.checkpoint_listed
        {
            partition.checkpoint_listed = true;
            self.checkpointing.listed.push(index);
        }
    }

    /// More of a partition is durable: perhaps all of the state that was captured.
    pub(super) fn captured_durable(&mut self, index: usize) {
        self.list_for_checkpoint(index);
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        let captured = self.checkpointing.captured.get(&index);
        if captured.is_some_and(|entry| entry.next_offset <= partition.durable_end)
            && let Some(entry) = self.checkpointing.captured.remove(&index)
        {
            self.checkpointing.entries.insert(entry.log, entry);
        }
    }

    pub(super) const fn checkpoint_due(&mut self) {
        self.checkpointing.timer_set = false;
        self.checkpointing.due = true;
    }

    /// Moves the checkpoint on: collects states when it is due, saves it when they are there.
    pub(super) fn advance_checkpoint(&mut self, now: Now) {
        let at = &mut self.checkpointing;
        if self.device_failed.is_some() {
            // What would be saved couldn't be made durable.
            at.due = false;
            at.collecting_until_ns = None;
            return;
        }
        if at.saving {
            return;
        }
        if at.collecting_until_ns.is_none() {
            let bytes = self.counters.append_bytes - at.append_bytes;
            let due = at.due || bytes >= self.config.checkpoint_bytes;
            at.due = due && at.changed;
            if !at.due {
                if at.changed && !at.timer_set {
                    at.timer_set = true;
                    let due_ns = now.mono_ns + self.config.checkpoint_ns;
                    self.timers.set(due_ns, Timer::Checkpoint);
                }
                return;
            }
            self.collect(now);
        }
        let until_ns = self.checkpointing.collecting_until_ns.unwrap_or(0);
        if self.checkpointing.captured.is_empty() || now.mono_ns >= until_ns {
            self.save_checkpoint();
        }
    }

    /// Takes the states of the partitions that changed; of one that is being written it counts
    /// later.
    fn collect(&mut self, now: Now) {
        let until_ns = now.mono_ns + COLLECT_NS_MAX;
        let at = &mut self.checkpointing;
        at.due = false;
        at.changed = false;
        at.append_bytes = self.counters.append_bytes;
        at.collecting_until_ns = Some(until_ns);
        for index in std::mem::take(&mut at.listed) {
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
            let Some(entry) = entry(partition) else {
                continue;
            };
            if entry.next_offset <= partition.durable_end {
                at.entries.insert(entry.log, entry);
            } else {
                at.captured.insert(index, entry);
            }
        }
        if !at.captured.is_empty() {
            self.timers.set(until_ns, Timer::Collected);
        }
    }

    fn save_checkpoint(&mut self) {
        let at = &mut self.checkpointing;
        at.collecting_until_ns = None;
        at.saving = true;
        at.generation += 1;
        let bytes = Checkpoint::encode_entries(at.generation, at.entries.values());
        self.submit(Op::SaveCheckpoint { bytes }, Pending::Checkpoint);
    }

    pub(super) fn checkpoint_saved(&mut self, error: Option<DeviceError>) {
        self.checkpointing.saving = false;
        if error.is_some() {
            // Recovery begins at the one before; the next turn to come tries again.
            self.checkpointing.changed = true;
        }
    }
}
