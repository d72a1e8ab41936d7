//! Finding a time: a binary search over the segments by when each began. Where that isn't known
//! yet, because an earlier run wrote the segment, its first header is read once.

use ringway_wire::Offset;
use ringway_wire::batch::check_header;

use crate::buffer::Slice;
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::shard::Shard;
use crate::shard::event::Token;
use crate::shard::fetch::{FetchTask, Want};
use crate::shard::partition::Partition;

/// What becomes of the offset of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It is the answer.
    Answer,
    /// What is before it goes.
    Trim,
}

/// A time that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeSearch {
    /// In microseconds since 1970.
    pub(super) time_us: i64,
    pub(super) then: Then,
}

/// Where a time is.
enum Sought {
    /// In this segment, or at the start of the next one.
    In(Offset),
    /// It depends on when this segment began.
    Unknown(Offset),
}

impl Partition {
    /// Base and beginning of a segment, by its ordinal.
    fn segment_start(&self, ordinal: usize) -> (Offset, Option<i64>) {
        match self.sealed.get(ordinal) {
            Some(sealed) => (sealed.base, sealed.began_us),
            None => {
                let writer = &self.writers[ordinal - self.sealed.len()];
                (writer.base, writer.began_us)
            }
        }
    }

    /// The last segment that began before a time, else the first.
    fn seek(&self, time_us: i64) -> Sought {
        let (mut low, mut high) = (0, self.sealed.len() + self.writers.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.segment_start(middle) {
                (base, None) => return Sought::Unknown(base),
                (_, Some(began_us)) if began_us < time_us => low = middle + 1,
                (_, Some(_)) => high = middle,
            }
        }
        Sought::In(self.segment_start(low.saturating_sub(1)).0)
    }

    /// The first batch appended at or after a time of those that aren't durable, or else the end of
    /// what may be shown.
    pub(super) fn first_in_memory_since(&self, time_us: i64) -> Offset {
        let mut batches = self.tail.from(self.durable_end);
        let first = batches.find(|batch| batch.append_time_us >= time_us);
        let end = self.high_watermark();
        first.map_or(end, |batch| batch.base.min(end))
    }

    fn set_began(&mut self, base: Offset, began_us: i64) {
        if let Some(sealed) = self.sealed_at(base) {
            sealed.began_us = Some(began_us);
        } else if let Some(writer) = self.writers.iter_mut().find(|writer| writer.base == base) {
            writer.began_us = Some(began_us);
        }
    }
}

impl Shard {
    /// Looks for the first batch appended at or after a time.
    pub(super) fn find_time(&mut self, index: usize, token: Token, search: TimeSearch) {
        let partition = self.partitions[index].as_deref().expect("it exists");
        let high_watermark = partition.high_watermark();
        if let Some(offset) = partition.tail.first_since(search.time_us) {
            let offset = offset.min(high_watermark);
            return self.time_found(index, token, search.then, offset);
        }
        let newer = partition.last_append_time_us < search.time_us;
        if newer || partition.log_start == high_watermark {
            return self.time_found(index, token, search.then, high_watermark);
        }
        self.seek_time(index, token, search);
    }

    /// The offset of a time is known, perhaps that of a batch whose first records are gone.
    pub(super) fn time_found(&mut self, index: usize, token: Token, then: Then, offset: Offset) {
        let partition = self.partitions[index].as_deref().expect("it exists");
        let offset = offset.max(partition.log_start);
        match then {
            Then::Answer => self.reply_offset(index, token, offset),
            Then::Trim => self.trim_before(index, token, offset),
        }
    }

    /// Looks in a log that isn't empty.
    pub(super) fn seek_time(&mut self, index: usize, token: Token, search: TimeSearch) {
        let partition = self.partitions[index].as_deref().expect("it exists");
        let task = |want, base, read_bytes| FetchTask {
            token,
            partition: index,
            want,
            base,
            position: 0,
            expected: base,
            read_bytes,
        };
        match partition.seek(search.time_us) {
            Sought::In(base) if base >= partition.durable_end => {
                let offset = partition.first_in_memory_since(search.time_us);
                self.time_found(index, token, search.then, offset);
            }
            Sought::In(base) => self.place(task(Want::Since(search), base, READ_BYTES)),
            Sought::Unknown(base) => {
                let task = task(Want::Beginning(search), base, BLOCK_BYTES);
                self.queue_read(task);
            }
        }
    }

    /// The beginning of a segment was read: the search goes on.
    pub(super) fn beginning_read(&mut self, task: &FetchTask, search: TimeSearch, bytes: &Slice) {
        let index = task.partition;
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        let log_id = partition.log.log_id();
        let began_us = match check_header(bytes, true) {
            Ok(header) if header.log_id == log_id && header.base_offset == task.base => {
                header.append_time_us
            }
            // Damaged: whoever reads on from here will say so.
            _ => i64::MIN,
        };
        partition.set_began(task.base, began_us);
        self.seek_time(index, task.token, search);
    }
}
