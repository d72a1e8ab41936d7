//! Retention: records that are too old or too many leave at the log's start, a segment at a time.
//!
//! The order is what makes it safe: first a checkpoint that says where the log starts is durable,
//! then readers hear of it, then the segments below go, oldest first, each once nothing uses it.

use std::time::Duration;

use ringway_wire::Offset;

use crate::device::{DeviceError, Op, Outcome, SegmentName};
use crate::limits::{
    AGES_LOADED_AT_ONCE, RETENTION_LOOK_NS_MAX, RETENTION_LOOK_NS_MIN, RETENTION_LOOKS_PER_TURN,
    SURPLUS_BYTES_MAX,
};
use crate::log::Side;
use crate::shard::checkpointing::Needed;
use crate::shard::event::{Effect, Note};
use crate::shard::partition::{Expired, Partition, State};
use crate::shard::writer::SegmentWriter;
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;

/// Who is looked at for what is too old, and when.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Partitions that changed in what retention goes by.
    listed: Vec<usize>,
    /// The next partition of the look at all of them that is under way.
    cursor: Option<usize>,
    /// When the first of those looked at will have something too old, by the wall clock.
    due_us: Option<i64>,
    timer_set: bool,
    /// Side files that are being read for the age of their segments.
    loading: usize,
    /// Bytes of segments given up since a checkpoint was made due for it.
    surplus_bytes: u64,
}

/// What retention makes of a partition.
struct Verdict {
    /// Where the log may start.
    start: Offset,
    /// A segment whose age has to be known first.
    unknown: Option<Offset>,
    /// When the next records will be too old, in microseconds since 1970.
    due_us: Option<i64>,
}

impl Partition {
    /// The offset after the last of a sealed segment, by its ordinal.
    fn sealed_end(&self, ordinal: usize) -> Offset {
        match self.sealed.get(ordinal + 1) {
            Some(next) => next.base,
            None => self.writers.front().map_or(self.log_end, |next| next.base),
        }
    }

    fn retained(&self, unix_us: i64) -> Verdict {
        let mut verdict = Verdict {
            start: self.start_wanted,
            unknown: None,
            due_us: None,
        };
        if let Some(time) = self.config.retention {
            self.retain_by_age(unix_us, time, &mut verdict);
        }
        if let Some(bytes) = self.config.retention_bytes {
            verdict.start = verdict.start.max(self.start_by_bytes(bytes));
        }
        verdict
    }

    /// Segments go once their last record is too old; the one being written, which nothing
    /// follows, is emptied when all of it is.
    fn retain_by_age(&self, unix_us: i64, time: Duration, verdict: &mut Verdict) {
        let time_us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let is_old = |ended_us: i64| ended_us < unix_us.saturating_sub(time_us);
        let due_us = |ended_us: i64| Some(ended_us.saturating_add(time_us).saturating_add(1));
        for (ordinal, sealed) in self.sealed.iter().enumerate() {
            let end = self.sealed_end(ordinal);
            if end <= verdict.start {
                continue;
            }
            match sealed.ended_us {
                None => {
                    verdict.unknown = Some(sealed.base);
                    return;
                }
                Some(ended_us) if is_old(ended_us) => verdict.start = end,
                Some(ended_us) => {
                    verdict.due_us = due_us(ended_us);
                    return;
                }
            }
        }
        if verdict.start == self.log_end {
            return;
        }
        if is_old(self.last_append_time_us) && self.durable_end == self.log_end {
            verdict.start = self.log_end;
        } else {
            verdict.due_us = due_us(self.last_append_time_us);
        }
    }

    /// The oldest sealed segments go as long as all of them take more than so many bytes.
    fn start_by_bytes(&self, bytes_max: u64) -> Offset {
        let mut bytes = self.log_bytes();
        let mut start = self.log_start;
        for (ordinal, sealed) in self.sealed.iter().enumerate() {
            let last = self.writers.is_empty() && ordinal + 1 == self.sealed.len();
            if bytes <= bytes_max || last {
                break;
            }
            bytes -= sealed.file_bytes;
            start = self.sealed_end(ordinal);
        }
        start
    }

    /// How many of the oldest sealed segments lie below an offset. The last one with a durable
    /// record and a name is none of them although all of it may be gone: should the checkpoints
    /// be lost, it tells the next offset.
    fn segments_below(&self, offset: Offset) -> usize {
        let tells = |writer: &SegmentWriter| writer.durable > 0 && self.is_named(writer);
        let stays = !self.writers.front().is_some_and(tells);
        let all = self.sealed.len().saturating_sub(usize::from(stays));
        let below = |ordinal: &usize| self.sealed_end(*ordinal) <= offset;
        (0..all).take_while(below).count()
    }

    /// Takes the segments that lie below the log's start out of use, but for what a start with the
    /// newest checkpoint would read: how many, and how many of those remain.
    fn expire_segments(&mut self) -> (usize, usize) {
        let below_start = self.segments_below(self.log_start);
        let needless = self.segments_below(self.log_start.min(self.checkpoint_base));
        let expired = self.sealed.drain(..needless).map(|sealed| Expired {
            base: sealed.base,
            file: sealed.file,
            file_bytes: sealed.file_bytes,
        });
        self.expired.extend(expired);
        (needless, below_start - needless)
    }
}

impl Shard {
    /// Something that retention goes by has changed: it is looked at in this turn.
    pub(super) fn watch_retention(&mut self, index: usize) {
        self.retention.listed.push(index);
    }

    /// Sees to it that the partitions are looked at now and then while there are records.
    pub(super) fn set_retention_timer(&mut self, now: Now) {
        if !self.retention.timer_set {
            self.retention.timer_set = true;
            let due_ns = now.mono_ns + RETENTION_LOOK_NS_MIN;
            self.timers.set(due_ns, Timer::Retention);
        }
    }

    pub(super) fn retention_due(&mut self) {
        let at = &mut self.retention;
        if at.cursor.is_none() {
            at.cursor = Some(0);
            at.due_us = None;
        }
    }

    /// Looks at the partitions that changed and, when it is time, at some of all of them.
    pub(super) fn advance_retention(&mut self, now: Now) {
        while let Some(index) = self.retention.listed.pop() {
            self.look(index, now);
        }
        if let Some(first) = self.retention.cursor {
            self.look_at_some(first, now);
        }
        if self.retention.cursor.is_none() && !self.retention.timer_set {
            self.set_retention_timer_when_due(now);
        }
    }

    /// Looks at the partitions from one on, some each turn.
    fn look_at_some(&mut self, first: usize, now: Now) {
        let end = self.partitions.len().min(first + RETENTION_LOOKS_PER_TURN);
        for index in first..end {
            if self.retention.loading >= AGES_LOADED_AT_ONCE {
                // The end of one of them goes on.
                self.retention.cursor = Some(index);
                return;
            }
            self.look(index, now);
        }
        if end < self.partitions.len() {
            self.retention.cursor = Some(end);
            self.timers.set(now.mono_ns, Timer::Retention);
        } else {
            self.retention.cursor = None;
            self.retention.timer_set = false;
        }
    }

    fn set_retention_timer_when_due(&mut self, now: Now) {
        let Some(due_us) = self.retention.due_us else {
            return;
        };
        // By the wall clock, which may be set meanwhile.
        let wait_us = u64::try_from(due_us.saturating_sub(now.unix_us)).unwrap_or(0);
        let wait_ns = wait_us
            .saturating_mul(1_000)
            .clamp(RETENTION_LOOK_NS_MIN, RETENTION_LOOK_NS_MAX);
        self.retention.timer_set = true;
        self.timers.set(now.mono_ns + wait_ns, Timer::Retention);
    }

    /// Applies a partition's retention.
    fn look(&mut self, index: usize, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return;
        }
        let verdict = partition.retained(now.unix_us);
        if let Some(base) = verdict.unknown
            && !partition.aging
        {
            partition.aging = true;
            let (log, partition) = (partition.log, index);
            self.retention.loading += 1;
            let pending = Pending::LoadAge { partition, base };
            self.submit(Op::LoadSide { log, base }, pending);
        }
        let due_us = [self.retention.due_us, verdict.due_us];
        self.retention.due_us = due_us.into_iter().flatten().min();
        self.want_start(index, verdict.start);
        self.expire(index);
        if self
            .partition(index)
            .is_some_and(|at| !at.expired.is_empty())
        {
            self.look_again();
        }
    }

    /// A removal may have to be tried again, without haste.
    fn look_again(&mut self) {
        self.retention.due_us = self.retention.due_us.or(Some(i64::MAX));
    }

    /// A side file that was read for its segment's age. Without one the segment is taken to be as
    /// young as anything that was in the log at the start.
    pub(super) fn age_loaded(
        &mut self,
        index: usize,
        base: Offset,
        result: Result<Outcome, DeviceError>,
    ) {
        self.retention.loading -= 1;
        let Some(partition) = self.partition(index) else {
            return;
        };
        partition.aging = false;
        let (log_id, youngest_us) = (partition.log.log_id(), partition.last_append_time_us);
        let side = match result {
            Ok(Outcome::Side(Some(bytes))) => Side::decode(&bytes, log_id, base).ok(),
            _ => None,
        };
        if let Some(sealed) = partition.sealed_at(base) {
            sealed.ended_us = Some(side.map_or(youngest_us, |side| side.last_append_time_us));
        }
        self.watch_retention(index);
    }

    /// The log is to start at an offset below the high watermark as soon as a checkpoint says so:
    /// not before everything below it is durable.
    pub(super) fn want_start(&mut self, index: usize, to: Offset) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if to <= partition.start_wanted {
            return;
        }
        assert!(
            to <= partition.high_watermark(),
            "log_start ≤ high_watermark"
        );
        let given_up = partition.sealed.iter().filter(|sealed| {
            let before = partition.start_wanted;
            (before..to).contains(&sealed.base)
        });
        self.retention.surplus_bytes += given_up.map(|sealed| sealed.file_bytes).sum::<u64>();
        partition.start_wanted = to;
        let (log, is_full) = (partition.log, partition.state == State::Full);
        self.checkpointing.raise_start(index, log, to);
        self.list_for_checkpoint(index);
        // Others wait for the space, or it is used again.
        if is_full || self.retention.surplus_bytes >= SURPLUS_BYTES_MAX {
            self.retention.surplus_bytes = 0;
            self.checkpointing.make_due();
        }
    }

    /// A checkpoint that says where the log starts is durable: it does from now on.
    pub(super) fn start_saved(&mut self, index: usize, needed: Needed) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if partition.state == State::Deleting {
            return;
        }
        partition.checkpoint_base = partition.checkpoint_base.max(needed.base);
        let raised = needed.start > partition.log_start;
        if raised {
            partition.log_start = needed.start;
            partition.tail.drop_below(needed.start);
            partition.cursors.retain(|at| at.offset >= needed.start);
        }
        let (log, log_start) = (partition.log, partition.log_start);
        if partition.start_wanted > log_start {
            // The state that the entry tells of ends before that: a newer one will do.
            self.await_checkpoint(index);
        }
        self.answer_trims(index);
        let segments = self.expire(index);
        if raised || segments > 0 {
            self.note(Note::Trimmed {
                log,
                log_start,
                segments,
            });
        }
    }

    fn await_checkpoint(&mut self, index: usize) {
        self.checkpointing.await_start(index);
        self.list_for_checkpoint(index);
    }

    /// Begins to remove the segments below the log's start; how many there are more.
    pub(super) fn expire(&mut self, index: usize) -> usize {
        let Some(partition) = self.partition(index) else {
            return 0;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return 0;
        }
        let (count, remaining) = partition.expire_segments();
        if remaining > 0 {
            self.await_checkpoint(index);
        }
        self.advance_removal(index);
        count
    }

    /// Removes the oldest segment below the log's start, one at a time, so that what is left has
    /// no gap, and not while anything in flight uses it. Of a failed partition everything stays,
    /// and what a stop leaves the next start removes.
    pub(super) fn advance_removal(&mut self, index: usize) {
        let draining = self.draining();
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let stays = matches!(partition.state, State::Failed(_) | State::Deleting);
        if partition.removing || stays || draining {
            return;
        }
        let free = |first: &Expired| !partition.pins.contains_key(&first.base);
        if !partition.expired.front().is_some_and(free) {
            return;
        }
        let segment = partition.expired.pop_front().expect("there is a first");
        partition.removing = true;
        let (file, partition) = (segment.file, index);
        self.submit(Op::Remove { file }, Pending::Expire { partition, segment });
    }

    pub(super) fn segment_removed(
        &mut self,
        index: usize,
        segment: Expired,
        error: Option<DeviceError>,
    ) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        partition.removing = false;
        let (log, base) = (partition.log, segment.base);
        match error {
            None => {
                self.counters.removed_segments += 1;
                self.counters.removed_bytes += segment.file_bytes;
                self.advance_removal(index);
            }
            Some(error) => {
                // The next look tries again; until then those behind it wait, too.
                let file = self.new_file();
                let partition = self.partitions[index].as_deref_mut().expect("it exists");
                partition.expired.push_front(Expired { file, ..segment });
                let name = SegmentName::Base(base);
                self.effects.push_back(Effect::Declare { file, log, name });
                self.note(Note::NotRemoved { log, base, error });
                self.look_again();
            }
        }
    }
}
