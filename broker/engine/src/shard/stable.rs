//! What may be acknowledged and shown: in topics with durability `memory` before it is durable, as
//! long as no more than a bounded number of bytes, of a bounded time, could be lost in a crash.
//! Beyond either bound such a topic is acknowledged as every other one is: when it is durable.

use std::collections::BTreeSet;

use ringway_wire::Offset;
use ringway_wire::request::Durability;

use crate::shard::event::Note;
use crate::shard::partition::{Partition, State};
use crate::shard::{Shard, Timer};
use crate::time::Now;

/// What is written together waits for one part in so many of the bounds, so that writing it is
/// over before the rest is reached.
const UNSYNCED_BYTES_PARTS: u64 = 4;
const UNSYNCED_TIME_PARTS: u64 = 2;

/// What the shard has acknowledged or shown, and would lose in a crash.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Bytes of all partitions together.
    bytes: u64,
    /// Partitions with something that isn't durable, by when the oldest of it was appended.
    oldest: BTreeSet<(u64, usize)>,
    timer_set: bool,
}

impl Partition {
    /// The offset after the last one that may be acknowledged.
    pub(super) const fn acknowledged_end(&self) -> Offset {
        match self.config.durability {
            Durability::Memory => self.stable_end,
            Durability::Fsync => self.durable_end,
        }
    }

    /// Whether nobody waits for what isn't durable yet, so that more of it may gather.
    pub(super) fn may_gather(&self) -> bool {
        matches!(self.config.durability, Durability::Memory)
            && self.state == State::Ready
            && self.acks.is_empty()
            && self.stable_end == self.log_end
    }
}

impl Shard {
    /// Acknowledges and shows what the bounds allow of a partition that was appended to.
    pub(super) fn advance_stable(&mut self, index: usize, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if partition.config.durability != Durability::Memory
            || !matches!(partition.state, State::Ready | State::Full)
        {
            return;
        }
        self.track_unsynced(index, now.mono_ns);
        let oldest_ns = self.unsynced.oldest.first().map_or(now.mono_ns, |at| at.0);
        if oldest_ns + self.config.unsynced_ns_max < now.mono_ns {
            return;
        }
        let partition = self.partition(index).expect("it was just there");
        let before = partition.stable_end;
        let mut left = self
            .config
            .unsynced_bytes_max
            .saturating_sub(self.unsynced.bytes);
        let partition = self.partition(index).expect("it was just there");
        let mut taken = 0;
        for batch in partition.tail.from(before) {
            let bytes = batch.bytes.len() as u64;
            if bytes > left {
                break;
            }
            left -= bytes;
            taken += bytes;
            partition.stable_end = batch.next;
        }
        partition.unsynced_bytes += taken;
        self.unsynced.bytes += taken;
        if taken > 0 {
            self.acknowledge(index, None);
            self.wake_waiters(index);
        }
    }

    /// Keeps in mind since when a partition has something that isn't durable.
    fn track_unsynced(&mut self, index: usize, appended_ns: u64) {
        let Some(partition) = self.partition(index) else {
            return;
        };
        if partition.oldest_ns.is_none() && partition.durable_end < partition.log_end {
            partition.oldest_ns = Some(appended_ns);
            self.unsynced.oldest.insert((appended_ns, index));
        }
    }

    /// More of a partition is durable: its end, if it isn't where it was.
    pub(super) fn advance_durable(&mut self, index: usize, to: Offset) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let synced = partition.advance_durable(to);
        self.unsynced.bytes -= synced;
        let Some(before_ns) = partition.oldest_ns else {
            return;
        };
        partition.oldest_ns = partition
            .writers
            .iter()
            .find_map(|writer| writer.oldest_pending_ns());
        let after_ns = partition.oldest_ns;
        self.unsynced.oldest.remove(&(before_ns, index));
        self.unsynced
            .oldest
            .extend(after_ns.map(|oldest_ns| (oldest_ns, index)));
    }

    /// Nothing more of a partition will be made durable. What was acknowledged counts on: nobody
    /// may lose more than the bounds, whatever fails.
    pub(super) fn keep_unsynced(&mut self, index: usize) {
        if let Some(partition) = self.partition(index)
            && partition.unsynced_bytes == 0
        {
            self.forget_unsynced(index);
        }
    }

    /// A partition is being deleted.
    pub(super) fn forget_unsynced(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        self.unsynced.bytes -= std::mem::take(&mut partition.unsynced_bytes);
        if let Some(oldest_ns) = partition.oldest_ns.take() {
            self.unsynced.oldest.remove(&(oldest_ns, index));
        }
    }

    /// Before a round: lists the partitions whose gathered bytes have to be written now, and sees to
    /// it that the others have their turn in time.
    pub(super) fn list_gathered(&mut self, now: Now) {
        if self.unsynced.oldest.is_empty() {
            return;
        }
        let part_ns = self.config.unsynced_ns_max / UNSYNCED_TIME_PARTS;
        let many = self.config.unsynced_bytes_max / UNSYNCED_BYTES_PARTS;
        let due_ns = match self.draining() || self.unsynced.bytes >= many {
            true => u64::MAX,
            false => now.mono_ns.saturating_sub(part_ns),
        };
        let due = self.unsynced.oldest.range(..=(due_ns, usize::MAX));
        let due: Vec<usize> = due.map(|&(_, index)| index).collect();
        for index in due {
            self.mark_dirty_now(index);
        }
        if self.unsynced.timer_set || due_ns == u64::MAX {
            return;
        }
        let next = self.unsynced.oldest.range((due_ns + 1, 0)..).next();
        if let Some(&(oldest_ns, _)) = next {
            self.unsynced.timer_set = true;
            self.timers.set(oldest_ns + part_ns, Timer::Unsynced);
        }
    }

    /// The turn itself looks at what is due.
    pub(super) const fn unsynced_due(&mut self) {
        self.unsynced.timer_set = false;
    }

    /// Whether something is still to be written that can be.
    pub(super) fn has_gathered(&self) -> bool {
        let ready = |index: usize| {
            let partition = self.partitions[index].as_deref();
            partition.is_some_and(|partition| partition.state == State::Ready)
        };
        self.unsynced.oldest.iter().any(|&(_, index)| ready(index))
    }

    /// At the end of a clean stop: says what was acknowledged and could not be written.
    pub(super) fn note_unwritten(&mut self) {
        for (_, index) in std::mem::take(&mut self.unsynced.oldest) {
            if let Some(partition) = self.partitions[index].as_deref()
                && partition.durable_end < partition.stable_end
            {
                let (log, from, to) = (partition.log, partition.durable_end, partition.stable_end);
                self.note(Note::Unwritten { log, from, to });
            }
        }
    }

    /// Bytes acknowledged or shown and not durable.
    pub(super) const fn unsynced_bytes(&self) -> u64 {
        self.unsynced.bytes
    }
}
