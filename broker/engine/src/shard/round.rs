//! Commit rounds: what gathered while the device was busy is written and made durable together.
//!
//! A round belongs to the shard. If it is one small write, that write is itself durable. Otherwise
//! all writes are done first, and only after their completions one flush (or one sync per file)
//! follows. At most one round is in flight, so no two writes ever touch the same block at once.

use ringway_wire::{ErrorCode, Fault, Offset, Position};

use crate::buffer::Slice;
use crate::device::{DeviceError, FileId, Op};
use crate::limits::{DSYNC_BYTES_MAX, ROUND_WRITES_MAX};
use crate::shard::event::Note;
use crate::shard::partition::State;
use crate::shard::produce::RoundClock;
use crate::shard::writer::Write;
use crate::shard::{Pending, ROUND_TIMES_MAX, RoundTimes, Shard, SyncScope};
use crate::time::Now;

/// One write of a round.
#[derive(Debug)]
struct RoundWrite {
    partition: usize,
    /// The segment's base offset.
    base: Offset,
    file: FileId,
    /// The segment is durable up to here when the round is over.
    end: u64,
    bytes: usize,
    allocates: bool,
    failed: bool,
}

/// The round in flight.
#[derive(Debug)]
pub(super) struct Round {
    writes: Vec<RoundWrite>,
    /// Writes, then syncs, whose completions are still to come.
    outstanding: usize,
    /// Whether the only write is itself durable.
    lone: bool,
    /// The lone write, to be tried without durability should it fail.
    again: Option<(Position, Vec<Slice>)>,
    /// Why the lone write failed, while it is tried again.
    lone_error: Option<DeviceError>,
    sync_error: Option<DeviceError>,
    started_ns: u64,
    written_ns: u64,
}

impl Shard {
    /// Starts a round with everything that can be written, if none is in flight.
    pub(super) fn start_round(&mut self, now: Now) {
        if self.device_failed.is_some() {
            self.forget_dirty();
        }
        if self.round.is_some() {
            return;
        }
        self.list_gathered(now);
        let mut planned: Vec<(RoundWrite, Write)> = Vec::new();
        for _ in 0..self.dirty.len() {
            if planned.len() >= ROUND_WRITES_MAX {
                break;
            }
            let index = self.dirty.pop_front().expect("the length was asked for");
            self.plan_writes(index, &mut planned);
        }
        if planned.is_empty() {
            return;
        }
        let lone = self.config.lone_durable_write
            && planned.len() == 1
            && planned[0].0.bytes <= DSYNC_BYTES_MAX;
        let mut round = Round {
            writes: Vec::with_capacity(planned.len()),
            outstanding: planned.len(),
            lone,
            again: None,
            lone_error: None,
            sync_error: None,
            started_ns: now.mono_ns,
            written_ns: now.mono_ns,
        };
        for (ordinal, (round_write, write)) in planned.into_iter().enumerate() {
            let (file, position, parts) = (round_write.file, write.position, write.parts);
            round.again = lone.then(|| (position, parts.clone()));
            let op = Op::Write {
                file,
                position,
                parts,
                durable: lone,
            };
            self.submit(op, Pending::RoundWrite(ordinal));
            round.writes.push(round_write);
        }
        self.round = Some(round);
        self.reads.written(now.mono_ns);
    }

    /// Nothing will be written any more.
    fn forget_dirty(&mut self) {
        while let Some(index) = self.dirty.pop_front() {
            if let Some(partition) = self.partition(index) {
                partition.dirty = false;
            }
        }
    }

    fn plan_writes(&mut self, index: usize, planned: &mut Vec<(RoundWrite, Write)>) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        partition.dirty = false;
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return;
        }
        let mut count = 0;
        if partition.state == State::Full && partition.retry.is_some() {
            return;
        }
        for writer in &mut partition.writers {
            let Some(write) = writer.next_write(&self.pool) else {
                // Later segments wait: what is durable has no gaps.
                if writer.is_durable() {
                    continue;
                }
                break;
            };
            let round_write = RoundWrite {
                partition: index,
                base: writer.base,
                file: writer.file.expect("only a segment with a file is written"),
                end: write.end,
                bytes: write.bytes,
                allocates: write.allocates,
                failed: false,
            };
            let complete = write.end == writer.end;
            planned.push((round_write, write));
            count += 1;
            if !complete {
                break;
            }
        }
        partition.in_flight += count;
    }

    pub(super) fn round_written(&mut self, ordinal: usize, error: Option<DeviceError>, now: Now) {
        if self.is_lone_failure(error.as_ref()) {
            return;
        }
        let round = self
            .round
            .as_mut()
            .expect("a write belongs to the round in flight");
        round.outstanding -= 1;
        round.writes[ordinal].failed = error.is_some();
        let (index, base) = (round.writes[ordinal].partition, round.writes[ordinal].base);
        let last = round.outstanding == 0;
        self.counters.writes += 1;
        self.counters.write_bytes += round.writes[ordinal].bytes as u64;
        if let Some(error) = error {
            self.write_failed(index, base, &error, now);
        }
        if !last {
            return;
        }
        let round = self.round.as_mut().expect("it is in flight");
        round.written_ns = now.mono_ns;
        if round.lone || round.writes.iter().all(|write| write.failed) {
            self.finish_round(now);
            return;
        }
        self.sync_round();
    }

    /// Finds out what failed when a lone durable write did. Most devices carry it out as a write
    /// and a flush, and a failed flush may have dropped anybody's writes. So the same write is
    /// tried without durability: if it succeeds, it was the flush. True while that takes care of
    /// the completion.
    fn is_lone_failure(&mut self, error: Option<&DeviceError>) -> bool {
        let round = self.round.as_mut().expect("a write is in flight");
        if let Some(error) = round.lone_error.take_if(|_| error.is_none()) {
            self.end_round_without_effect();
            self.fail_device(error, true);
            return true;
        }
        let failed = error.filter(|error| matches!(error, DeviceError::Failed(_)));
        let (Some(error), Some((position, parts))) = (failed, round.again.take()) else {
            return false;
        };
        round.lone_error = Some(error.clone());
        let op = Op::Write {
            file: round.writes[0].file,
            position,
            parts,
            durable: false,
        };
        self.submit(op, Pending::RoundWrite(0));
        true
    }

    /// After all writes: one flush, or a sync of each file that it wouldn't cover.
    fn sync_round(&mut self) {
        let round = self.round.as_mut().expect("its writes are done");
        let scope = self.config.sync_scope;
        let mut files: Vec<FileId> = round
            .writes
            .iter()
            .filter(|write| !write.failed && (write.allocates || scope == SyncScope::File))
            .map(|write| write.file)
            .collect();
        files.sort_unstable();
        files.dedup();
        // A sync of any file flushes the device, but only submitted after all writes were done.
        let flush = scope == SyncScope::Device && files.is_empty();
        round.outstanding = files.len() + usize::from(flush);
        if flush {
            self.submit(Op::Flush, Pending::RoundSync);
        }
        for file in files {
            self.submit(Op::Sync { file }, Pending::RoundSync);
        }
    }

    pub(super) fn round_synced(&mut self, error: Option<DeviceError>, now: Now) {
        let round = self
            .round
            .as_mut()
            .expect("a sync belongs to the round in flight");
        round.outstanding -= 1;
        round.sync_error = round.sync_error.take().or(error);
        self.counters.syncs += 1;
        if round.outstanding > 0 {
            return;
        }
        if let Some(error) = round.sync_error.clone() {
            // What the device has is not known any more, so nothing of this round counts.
            self.end_round_without_effect();
            self.fail_device(error, true);
            return;
        }
        self.finish_round(now);
    }

    fn end_round_without_effect(&mut self) {
        let round = self.round.take().expect("it is in flight");
        for write in &round.writes {
            if let Some(partition) = self.partitions[write.partition].as_deref_mut() {
                partition.in_flight -= 1;
            }
            self.advance_delete(write.partition);
        }
    }

    /// What was written is durable: acknowledge it and show it to readers.
    fn finish_round(&mut self, now: Now) {
        if self.device_failed.is_some() {
            // Another shard's flush failed meanwhile: a sync that succeeds after it proves nothing.
            return self.end_round_without_effect();
        }
        let round = self.round.take().expect("it is in flight");
        let clock = RoundClock {
            started_ns: round.started_ns,
            written_ns: round.written_ns,
            durable_ns: now.mono_ns,
        };
        self.counters.rounds += 1;
        self.reads.written(now.mono_ns);
        self.counters.lone_rounds += u64::from(round.lone);
        self.record_times(&round, clock);
        // Behind a write that failed a partition's later ones would leave a gap.
        let mut failed = None;
        for write in &round.writes {
            if write.failed {
                failed = Some(write.partition);
            }
            self.write_over(write, failed == Some(write.partition));
        }
        for write in &round.writes {
            let index = write.partition;
            self.acknowledge(index, Some(clock));
            self.captured_durable(index);
            self.advance_trims(index);
            self.wake_waiters(index);
            self.retire_writers(index);
            self.want_space(index, now);
            self.mark_dirty(index);
            self.advance_delete(index);
        }
    }

    fn record_times(&mut self, round: &Round, clock: RoundClock) {
        let first = round.writes.first().and_then(|write| {
            let partition = self.partitions[write.partition].as_deref()?;
            partition.acks.front().map(|ack| ack.appended_ns)
        });
        if self.round_times.len() == ROUND_TIMES_MAX {
            self.round_times.pop_front();
        }
        self.round_times.push_back(RoundTimes {
            ended_ns: clock.durable_ns,
            writes: round.writes.len() as u32,
            bytes: round.writes.iter().map(|write| write.bytes as u64).sum(),
            queued_ns: clock
                .started_ns
                .saturating_sub(first.unwrap_or(clock.started_ns)),
            written_ns: clock.written_ns - clock.started_ns,
            durable_ns: clock.durable_ns - clock.written_ns,
        });
    }

    /// A write is over; unless it is `lost`, what it wrote is durable.
    fn write_over(&mut self, write: &RoundWrite, lost: bool) {
        let Some(partition) = self.partitions[write.partition].as_deref_mut() else {
            return;
        };
        partition.in_flight -= 1;
        // Their pending bytes were taken off the count when they got into these states.
        let over = matches!(partition.state, State::Failed(_) | State::Deleting);
        if lost || over {
            return;
        }
        let writer = partition
            .writers
            .iter_mut()
            .find(|writer| writer.base == write.base)
            .expect("a segment stays while a write of it is in flight");
        let before = writer.durable;
        let next_offset = writer.made_durable(write.end);
        self.counters.pending_bytes -= write.end - before;
        if let Some(next_offset) = next_offset {
            self.advance_durable(write.partition, next_offset);
        }
        // While a retry is due, something else of it has found no space.
        let Some(partition) = self.partitions[write.partition].as_deref() else {
            return;
        };
        if partition.state == State::Full && partition.retry.is_none() {
            self.set_state(write.partition, State::Ready);
        }
    }

    /// A write failed: the partition stops appending; the others go on.
    fn write_failed(&mut self, index: usize, base: Offset, error: &DeviceError, now: Now) {
        match error {
            DeviceError::Full => self.no_space(index, base, now),
            DeviceError::Failed(reason) => {
                self.fail_partition(index, &format!("a write failed: {reason}"));
            }
        }
    }

    /// Takes a partition out of use for appends, with an answer to everybody who waits for one.
    pub(super) fn fail_partition(&mut self, index: usize, reason: &str) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return;
        }
        let message = format!(
            "{}: {reason}; whether the batch is kept is not known",
            partition.log
        );
        self.counters.pending_bytes -= partition.pending_bytes();
        partition.give_up_pending();
        self.keep_unsynced(index);
        self.checkpointing.forget_captured(index);
        self.set_state(index, State::Failed(reason.to_owned()));
        let fault = Fault::new(ErrorCode::StorageFailed, message);
        self.fail_acks(index, Offset(0), &fault);
        self.fail_trims(index, &fault);
    }

    /// A flush failed, here or on another shard: the device may have dropped anybody's writes.
    pub(super) fn fail_device(&mut self, error: DeviceError, seen_here: bool) {
        if self.device_failed.is_some() {
            return;
        }
        self.device_failed = Some(error.clone());
        for index in 0..self.partitions.len() {
            self.fail_partition(index, &format!("a flush of the device failed: {error}"));
        }
        if seen_here {
            self.note(Note::FlushFailed { error });
        }
    }
}
