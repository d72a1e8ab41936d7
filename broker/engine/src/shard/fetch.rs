//! Fetches: from the tail cache where it reaches back far enough, from disk otherwise, or waiting
//! for what isn't there yet.

use ringway_wire::request::{
    FetchReply, FetchRequest, ListOffsetsReply, ListOffsetsRequest, OffsetAt, Reply,
};
use ringway_wire::{ErrorCode, Fault, Offset, TopicPartition};

use crate::buffer::Slice;
use crate::limits::{BLOCK_BYTES, FETCH_BYTES_MAX, READ_BYTES, STEPS_PER_TURN_MAX, WAITERS_MAX};
use crate::shard::delete::shutdown_fault;
use crate::shard::event::{Effect, Token};
use crate::shard::partition::{Partition, Waiter};
use crate::shard::seek::{Then, TimeSearch};
use crate::shard::tail::Wanted;
use crate::shard::timers::TimerId;
use crate::shard::trim::trim_fault;
use crate::shard::{Shard, Timer};
use crate::time::Now;

/// What a cold reader looks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// Batches from an offset on.
    Batches(FetchRequest),
    /// The first batch appended at or after a time.
    Since(TimeSearch),
    /// When a segment began, on the way to such a batch.
    Beginning(TimeSearch),
}

/// A request that needs the disk, between two reads.
#[derive(Debug)]
pub(super) struct FetchTask {
    pub(super) token: Token,
    pub(super) partition: usize,
    pub(super) want: Want,
    /// The segment to read from.
    pub(super) base: Offset,
    /// Where in it.
    pub(super) position: u64,
    /// Offset of the batch at that position.
    pub(super) expected: Offset,
    /// Bytes to read; more than usual for a large batch.
    pub(super) read_bytes: usize,
}

fn fetch_fault(partition: Option<&Partition>, fault: Fault, safe_offset: Offset) -> Reply {
    let base = partition.map_or_else(FetchReply::default, fetch_ok);
    Reply::Fetch(FetchReply {
        fault: Some(fault),
        safe_offset,
        ..base
    })
}

fn fetch_ok(partition: &Partition) -> FetchReply {
    FetchReply {
        fault: None,
        topic_epoch: partition.config.topic_epoch,
        leader_epoch: partition.config.leader_epoch,
        log_start: partition.log_start,
        high_watermark: partition.high_watermark(),
        safe_offset: Offset(0),
    }
}

impl Shard {
    pub(super) fn fetch(&mut self, token: Token, request: FetchRequest, now: Now) {
        let log = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let index = match self.find(log) {
            Ok(index) => index,
            Err(fault) => return self.reply(token, fetch_fault(None, fault, Offset(0))),
        };
        let partition = self.partitions[index]
            .as_deref()
            .expect("it was just found");
        if let Err((fault, safe_offset)) = check_place(partition, &request) {
            let reply = fetch_fault(Some(partition), fault, safe_offset);
            return self.reply(token, reply);
        }
        if !self.answer_fetch(index, token, &request) {
            self.wait(index, token, request, now);
        }
    }

    /// Answers a fetch from memory or starts reading; false when there is nothing to read yet.
    fn answer_fetch(&mut self, index: usize, token: Token, request: &FetchRequest) -> bool {
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        if request.offset >= partition.high_watermark() {
            return false;
        }
        let slices = partition
            .tail
            .read(&wanted(request, partition.high_watermark()));
        if !slices.is_empty() {
            self.counters.tail_reads += 1;
            let bytes = slices.iter().map(|slice| slice.len() as u64);
            self.counters.tail_bytes += bytes.sum::<u64>();
            self.reply_batches(index, token, slices);
            return true;
        }
        let task = FetchTask {
            token,
            partition: index,
            want: Want::Batches(*request),
            base: Offset(0),
            position: 0,
            expected: request.offset,
            read_bytes: read_bytes(request),
        };
        self.place(task);
        true
    }

    /// Hands out batches, all of them below the high watermark and checked.
    pub(super) fn reply_batches(&mut self, index: usize, token: Token, data: Vec<Slice>) {
        let partition = self.partitions[index].as_deref().expect("it exists");
        let reply = Reply::Fetch(fetch_ok(partition));
        self.counters.fetch_bytes += data.iter().map(|slice| slice.len() as u64).sum::<u64>();
        self.effects.push_back(Effect::Reply { token, reply, data });
    }

    fn wait(&mut self, index: usize, token: Token, request: FetchRequest, now: Now) {
        let draining = self.draining();
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        if draining {
            let reply = fetch_fault(Some(partition), shutdown_fault(), Offset(0));
            return self.reply(token, reply);
        }
        if partition.waiters.len() >= WAITERS_MAX {
            let message = format!("{WAITERS_MAX} fetches wait at {} already", partition.log);
            let fault = Fault::new(ErrorCode::Overloaded, message);
            let reply = fetch_fault(Some(partition), fault, Offset(0));
            return self.reply(token, reply);
        }
        if request.wait_ms == 0 {
            return self.reply_batches(index, token, Vec::new());
        }
        let deadline_ns = now.mono_ns + u64::from(request.wait_ms) * 1_000_000;
        let timer = self.timers.set(deadline_ns, Timer::Waiter(index));
        partition.waiters.insert(timer, Waiter { token, request });
        self.waiting.insert((token.source, timer, index));
        self.counters.waiting += 1;
    }

    /// A fetch waits no more.
    fn end_wait(&mut self, index: usize, timer: TimerId) -> Option<Waiter> {
        let waiter = self.partition(index)?.waiters.remove(&timer)?;
        self.timers.cancel(timer);
        self.waiting.remove(&(waiter.token.source, timer, index));
        self.counters.waiting -= 1;
        Some(waiter)
    }

    /// Answers the fetches that wait at a partition for what is there now.
    pub(super) fn wake_waiters(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        let high_watermark = partition.high_watermark();
        let ready = |(&timer, waiter): (&TimerId, &Waiter)| {
            (waiter.request.offset < high_watermark).then_some(timer)
        };
        let ready: Vec<TimerId> = partition.waiters.iter().filter_map(ready).collect();
        for timer in ready {
            if let Some(waiter) = self.end_wait(index, timer) {
                self.answer_fetch(index, waiter.token, &waiter.request);
            }
        }
    }

    pub(super) fn waiter_due(&mut self, index: usize, timer: TimerId) {
        if let Some(waiter) = self.end_wait(index, timer) {
            self.reply_batches(index, waiter.token, Vec::new());
        }
    }

    /// Answers every fetch that waits at a partition with a fault.
    pub(super) fn fail_waiters(&mut self, index: usize, fault: &Fault) {
        while let Some(partition) = self.partition(index)
            && let Some((&timer, _)) = partition.waiters.first_key_value()
        {
            if let Some(waiter) = self.end_wait(index, timer) {
                self.reply(waiter.token, fetch_fault(None, fault.clone(), Offset(0)));
            }
        }
    }

    /// A connection is gone: nothing waits for it any more.
    pub(super) fn forget(&mut self, source: u64) {
        self.reads.forget(source);
        self.gone.push_back(source);
    }

    /// Forgets fetches that wait for connections that are gone: some in each turn, because they
    /// can be very many.
    pub(super) fn forget_waiting(&mut self) {
        let mut left = STEPS_PER_TURN_MAX;
        while let Some(&source) = self.gone.front() {
            let of_source = self.waiting.range((source, TimerId::FIRST, 0)..);
            let gone: Vec<(TimerId, usize)> = of_source
                .take_while(|(of, ..)| *of == source)
                .take(left)
                .map(|&(_, timer, index)| (timer, index))
                .collect();
            left -= gone.len();
            for (timer, index) in gone {
                self.end_wait(index, timer);
            }
            if left == 0 {
                return;
            }
            self.gone.pop_front();
        }
    }

    pub(super) fn list_offsets(&mut self, token: Token, request: ListOffsetsRequest, _now: Now) {
        let log = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let index = match self.find(log) {
            Ok(index) => index,
            Err(fault) => {
                let reply = ListOffsetsReply {
                    fault: Some(fault),
                    ..Default::default()
                };
                return self.reply(token, Reply::ListOffsets(reply));
            }
        };
        let partition = self.partitions[index]
            .as_deref_mut()
            .expect("it was just found");
        let high_watermark = partition.high_watermark();
        match request.at {
            OffsetAt::Start => {
                let start = partition.log_start;
                self.reply_offset(index, token, start);
            }
            OffsetAt::End => self.reply_offset(index, token, high_watermark),
            OffsetAt::AppendTimeUs(time_us) => {
                let then = Then::Answer;
                self.find_time(index, token, TimeSearch { time_us, then });
            }
        }
    }

    pub(super) fn reply_offset(&mut self, index: usize, token: Token, offset: Offset) {
        let partition = self.partitions[index].as_deref().expect("it exists");
        let reply = Reply::ListOffsets(ListOffsetsReply {
            fault: None,
            topic_epoch: partition.config.topic_epoch,
            leader_epoch: partition.config.leader_epoch,
            offset,
            log_start: partition.log_start,
            high_watermark: partition.high_watermark(),
            log_bytes: partition.log_bytes(),
        });
        self.reply(token, reply);
    }

    /// Ends a task with a fault.
    pub(super) fn fail_task(&mut self, task: &FetchTask, fault: Fault, safe_offset: Offset) {
        let partition = self.partitions[task.partition].as_deref();
        let reply = match task.want {
            Want::Batches(_) => fetch_fault(partition, fault, safe_offset),
            Want::Since(search) | Want::Beginning(search) if search.then == Then::Trim => {
                trim_fault(partition, fault)
            }
            Want::Since(_) | Want::Beginning(_) => {
                let reply = ListOffsetsReply {
                    fault: Some(fault),
                    ..Default::default()
                };
                Reply::ListOffsets(reply)
            }
        };
        self.reply(task.token, reply);
    }
}

/// Bytes of a cold read for a request: as many as it may have, with the blocks that its ends touch,
/// so that a full batch of the usual limit comes with one read.
fn read_bytes(request: &FetchRequest) -> usize {
    let bytes = request.bytes_max as usize;
    let whole = bytes.clamp(READ_BYTES, 2 * READ_BYTES) + 2 * BLOCK_BYTES;
    whole.next_multiple_of(BLOCK_BYTES)
}

/// How much of the log a request may have.
pub(super) fn wanted(request: &FetchRequest, high_watermark: Offset) -> Wanted {
    Wanted {
        offset: request.offset,
        end: high_watermark,
        bytes_max: (request.bytes_max as usize).min(FETCH_BYTES_MAX),
        records_max: match request.records_max {
            0 => u64::MAX,
            records => records.into(),
        },
    }
}

/// Whether a reader's place is still in this log; where to go on if not.
fn check_place(partition: &Partition, request: &FetchRequest) -> Result<(), (Fault, Offset)> {
    let log = partition.log;
    let (start, end) = (partition.log_start, partition.log_end);
    if let Some(last) = request.last_epoch {
        let current = partition.config.leader_epoch;
        if last > current {
            let message = format!("{log} is led in epoch {current}, you have read epoch {last}");
            return Err((
                Fault::new(ErrorCode::UnknownLeaderEpoch, message),
                Offset(0),
            ));
        }
        let safe = partition.epochs.end_of(last, end);
        if request.offset > safe {
            let message = format!(
                "{log} was cut: records of epoch {last} end at offset {safe}, you have read up to \
                 {}; go on from {safe}",
                request.offset
            );
            return Err((Fault::new(ErrorCode::LogTruncated, message), safe));
        }
    }
    if request.offset < start || request.offset > end {
        let message = format!("{log} has offsets {start} to {end}, not {}", request.offset);
        let nearest = request.offset.clamp(start, end);
        return Err((Fault::new(ErrorCode::OffsetOutOfRange, message), nearest));
    }
    Ok(())
}
