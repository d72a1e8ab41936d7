//! Deleting a partition: everybody who waits is told, what is in flight is waited for, then the
//! files go.

use ringway_wire::request::{FetchReply, Reply};
use ringway_wire::{ErrorCode, Fault, TopicPartition};

use crate::device::{FileId, Op};
use crate::shard::event::Note;
use crate::shard::partition::{Next, State};
use crate::shard::{Pending, Shard};

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
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        self.fail_acks(index, &fault);
        self.fail_waiters(index, &fault);
        self.checkpointing.forget(index);
        self.counters.partitions -= 1;
        self.advance_delete(index);
    }

    /// Answers every fetch that waits at a partition with a fault.
    pub(super) fn fail_waiters(&mut self, index: usize, fault: &Fault) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let waiters = std::mem::take(&mut partition.waiters);
        self.counters.waiting -= waiters.len() as u64;
        for waiter in waiters {
            self.timers.cancel(waiter.timer);
            let reply = FetchReply {
                fault: Some(fault.clone()),
                ..FetchReply::default()
            };
            self.reply(waiter.token, Reply::Fetch(reply));
        }
    }

    /// Answers every waiting fetch: the broker is shutting down.
    pub(super) fn fail_waiters_for_shutdown(&mut self) {
        let message = "the broker is shutting down: use another or try again later";
        let fault = Fault::new(ErrorCode::ShuttingDown, message);
        for index in 0..self.partitions.len() {
            self.fail_waiters(index, &fault);
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
