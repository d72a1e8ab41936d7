//! Deleting a partition: everybody who waits is told, what is in flight is waited for, then the
//! files go.

use ringway_wire::{ErrorCode, Fault, Offset, TopicPartition};

use crate::device::{FileId, Op};
use crate::shard::event::Note;
use crate::shard::partition::{Next, State};
use crate::shard::{Pending, Shard};

/// What a shard that shuts down answers.
pub(super) fn shutdown_fault() -> Fault {
    let message = "the broker is shutting down: use another or try again later";
    Fault::new(ErrorCode::ShuttingDown, message)
}

impl Shard {
    pub(super) fn delete(&mut self, log: TopicPartition) {
        let Some(index) = self.by_log.remove(&log) else {
            self.opening.delete(log);
            return;
        };
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let fault = partition.deleted_fault();
        if !matches!(partition.state, State::Failed(_)) {
            self.counters.pending_bytes -= partition.pending_bytes();
        }
        partition.state = State::Deleting;
        let timer = partition.retry.take();
        self.forget_unsynced(index);
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        self.fail_acks(index, Offset(0), &fault);
        self.fail_waiters(index, &fault);
        self.fail_trims(index, &fault);
        self.checkpointing.forget(index, log);
        self.fail_queued_reads(|task| task.partition == index, &fault);
        self.counters.partitions -= 1;
        self.advance_delete(index);
    }

    /// Answers every fetch that waits: the broker is shutting down.
    pub(super) fn refuse_readers_for_shutdown(&mut self) {
        let fault = shutdown_fault();
        for index in 0..self.partitions.len() {
            self.fail_waiters(index, &fault);
        }
        self.fail_queued_reads(|_| true, &fault);
    }

    /// Answers every produce request that still waits: its batch may be durable or not.
    pub(super) fn fail_acks_for_shutdown(&mut self) {
        let fault = shutdown_fault();
        for index in std::mem::take(&mut self.ack_waiting) {
            self.fail_acks(index, Offset(0), &fault);
        }
    }

    /// Answers every trim that still waits: no more checkpoints are made.
    pub(super) fn fail_trims_for_shutdown(&mut self) {
        let fault = shutdown_fault();
        for index in 0..self.partitions.len() {
            self.fail_trims(index, &fault);
        }
    }

    /// Goes on deleting once nothing is in flight on the partition's files.
    pub(super) fn advance_delete(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if partition.state != State::Deleting || partition.in_flight > 0 {
            return;
        }
        let mut files: Vec<FileId> = partition
            .sealed
            .drain(..)
            .map(|sealed| sealed.file)
            .collect();
        files.extend(partition.expired.drain(..).map(|segment| segment.file));
        files.extend(partition.writers.drain(..).filter_map(|writer| writer.file));
        if let Next::Ready { file, .. } = partition.next {
            files.push(file);
        }
        partition.next = Next::None;
        partition.tail.clear();
        let log = partition.log;
        if files.is_empty() {
            self.submit(Op::RemovePartition { log }, Pending::RemovePartition(index));
            return;
        }
        for file in files {
            self.submit(Op::Remove { file }, Pending::Remove(index));
        }
    }

    /// What couldn't be removed is removed at the next start: metadata doesn't name it any more.
    pub(super) fn partition_removed(&mut self, index: usize) {
        if let Some(partition) = self.partitions[index].take() {
            self.note(Note::Deleted { log: partition.log });
        }
    }
}
