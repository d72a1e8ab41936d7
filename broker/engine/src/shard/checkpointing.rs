//! Checkpoints: where recovery begins, so that a start doesn't depend on how long the log is.
//!
//! A partition's entry describes a state that is durable. A partition that is being written gives
//! its state at the start of a round that takes all of it; the entry counts once the round is over.

use std::collections::HashMap;

use crate::device::{DeviceError, Op};
use crate::log::{Checkpoint, CheckpointEntry, SparseIndex};
use crate::shard::partition::{Partition, State};
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;
use ringway_wire::{Offset, Position};

/// How long a due checkpoint waits for the partitions that are being written, in nanoseconds.
const COLLECT_NS_MAX: u64 = 200_000_000;

/// What the next checkpoint will say and when it is due.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    /// The durable state of each partition as of the last time it was asked for.
    entries: HashMap<usize, CheckpointEntry>,
    /// States that become durable with the round in flight.
    in_round: HashMap<usize, CheckpointEntry>,
    generation: u64,
    /// Bytes appended when the last checkpoint was begun.
    append_bytes: u64,
    /// Whether anything happened since then that it doesn't say.
    changed: bool,
    timer_set: bool,
    collecting_since_ns: Option<u64>,
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
        !self.saving && !self.due && self.collecting_since_ns.is_none()
    }

    /// A partition is no more.
    pub(super) fn forget(&mut self, index: usize) {
        self.entries.remove(&index);
        self.in_round.remove(&index);
        self.changed = true;
    }

    /// Continues the numbering of checkpoints found at the start.
    pub(super) fn continue_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }
}

/// The state of a partition, all of it appended bytes counted.
fn entry(partition: &Partition) -> Option<CheckpointEntry> {
    if partition.log_end == Offset(0) {
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
    /// A round that takes all of a partition begins: its state counts when the round is over.
    pub(super) fn snapshot_if_whole(&mut self, index: usize) {
        let partition = self.partitions[index]
            .as_deref()
            .expect("it is in the round");
        let whole = partition.writers.iter().all(|writer| writer.file.is_some());
        if whole && let Some(entry) = entry(partition) {
            self.checkpointing.in_round.insert(index, entry);
        }
    }

    /// A round with a partition's writes is over.
    pub(super) fn snapshot_durable(&mut self, index: usize) {
        self.checkpointing.changed = true;
        let Some(entry) = self.checkpointing.in_round.remove(&index) else {
            return;
        };
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        partition.snapshot_wanted = false;
        if partition.durable_end >= entry.next_offset {
            self.checkpointing.entries.insert(index, entry);
        }
    }

    pub(super) fn checkpoint_due(&mut self, _now: Now) {
        self.checkpointing.timer_set = false;
        self.checkpointing.due = true;
    }

    /// Moves the checkpoint on: collects states when it is due, saves it when they are there.
    pub(super) fn advance_checkpoint(&mut self, now: Now) {
        let at = &mut self.checkpointing;
        let bytes = self.counters.append_bytes - at.append_bytes;
        at.due |= bytes >= self.config.checkpoint_bytes;
        if self.device_failed.is_some() {
            // Nothing more becomes durable: the checkpoint before stands.
            at.due = false;
            at.collecting_since_ns = None;
            return;
        }
        if at.saving {
            return;
        }
        if at.collecting_since_ns.is_none() {
            if !at.due {
                if at.changed && !at.timer_set {
                    at.timer_set = true;
                    self.timers
                        .set(now.mono_ns + self.config.checkpoint_ns, Timer::Checkpoint);
                }
                return;
            }
            at.due = false;
            if !at.changed {
                return;
            }
            at.changed = false;
            at.append_bytes = self.counters.append_bytes;
            at.collecting_since_ns = Some(now.mono_ns);
            self.collect();
        }
        let since_ns = self
            .checkpointing
            .collecting_since_ns
            .unwrap_or(now.mono_ns);
        let waits = self
            .partitions
            .iter()
            .flatten()
            .any(|partition| partition.snapshot_wanted && partition.state == State::Ready);
        if !waits || now.mono_ns >= since_ns + COLLECT_NS_MAX {
            self.save_checkpoint();
        }
    }

    /// Takes the state of every partition that is all durable, and asks the others for theirs.
    fn collect(&mut self) {
        for (index, slot) in self.partitions.iter_mut().enumerate() {
            let Some(partition) = slot.as_deref_mut() else {
                continue;
            };
            let known = self.checkpointing.entries.get(&index);
            if known.is_some_and(|known| {
                known.next_offset == partition.log_end
                    && known.log_start == partition.log_start
                    && known.leader_epoch == partition.config.leader_epoch
            }) {
                continue;
            }
            match partition.state {
                State::Deleting => continue,
                State::Ready => {}
                State::Full | State::Failed(_) if partition.pending_bytes() > 0 => continue,
                State::Full | State::Failed(_) => {}
            }
            if partition.pending_bytes() > 0 {
                partition.snapshot_wanted = true;
            } else if let Some(entry) = entry(partition) {
                self.checkpointing.entries.insert(index, entry);
            }
        }
    }

    fn save_checkpoint(&mut self) {
        self.checkpointing.collecting_since_ns = None;
        self.checkpointing.saving = true;
        self.checkpointing.generation += 1;
        let mut entries: Vec<_> = self.checkpointing.entries.values().cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.log);
        let generation = self.checkpointing.generation;
        let bytes = Checkpoint {
            generation,
            entries,
        }
        .encode();
        self.submit(Op::SaveCheckpoint { bytes }, Pending::Checkpoint);
    }

    pub(super) fn checkpoint_saved(&mut self, error: Option<DeviceError>, _now: Now) {
        self.checkpointing.saving = false;
        if error.is_some() {
            // Recovery begins at the one before; the next turn to come tries again.
            self.checkpointing.changed = true;
        }
    }
}
