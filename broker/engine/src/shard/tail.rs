//! The tail cache of a partition: the newest batches, in the append buffers where they were built,
//! so that readers at the end of the log cost neither a disk read nor a copy.

use std::collections::VecDeque;

use ringway_wire::Offset;

use crate::buffer::Slice;

/// A batch in memory.
#[derive(Clone, Debug)]
pub(super) struct CachedBatch {
    pub(super) base: Offset,
    pub(super) next: Offset,
    pub(super) append_time_us: i64,
    pub(super) bytes: Slice,
}

/// The newest batches of a partition, without gaps.
#[derive(Debug, Default)]
pub(super) struct TailCache {
    batches: VecDeque<CachedBatch>,
}

/// How much a reader wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) offset: Offset,
    /// Offset before which everything may be seen.
    pub(super) end: Offset,
    pub(super) bytes_max: usize,
    pub(super) records_max: u64,
}

impl TailCache {
    /// Adds the batch that follows the last one.
    pub(super) fn push(&mut self, batch: CachedBatch) {
        debug_assert!(
            self.batches
                .back()
                .is_none_or(|last| last.next == batch.base)
        );
        self.batches.push_back(batch);
    }

    /// First offset in the cache.
    pub(super) fn start(&self) -> Option<Offset> {
        self.batches.front().map(|batch| batch.base)
    }

    /// The batches that begin at or behind an offset.
    pub(super) fn from(&self, offset: Offset) -> impl Iterator<Item = &CachedBatch> {
        let first = self.batches.partition_point(|batch| batch.base < offset);
        self.batches.range(first..)
    }

    /// Whole batches from `wanted.offset` on, neighbours in memory joined; empty when the cache
    /// doesn't reach back so far or nothing may be seen yet.
    pub(super) fn read(&self, wanted: &Wanted) -> Vec<Slice> {
        let mut slices: Vec<Slice> = Vec::new();
        if self.start().is_none_or(|start| wanted.offset < start) {
            return slices;
        }
        let first = self
            .batches
            .partition_point(|batch| batch.next <= wanted.offset);
        let (mut bytes, mut records) = (0, 0);
        for batch in self.batches.range(first..) {
            bytes += batch.bytes.len();
            records += batch.next.0 - batch.base.0;
            let over = bytes > wanted.bytes_max || records > wanted.records_max;
            if batch.next > wanted.end || (over && !slices.is_empty()) {
                break;
            }
            match slices.last_mut().and_then(|last| last.joined(&batch.bytes)) {
                Some(joined) => *slices.last_mut().expect("it was just joined") = joined,
                None => slices.push(batch.bytes.clone()),
            }
        }
        slices
    }

    /// The first batch appended at or after a time; `None` when the cache can't tell because all
    /// of it is as new, or none is.
    pub(super) fn first_since(&self, append_time_us: i64) -> Option<Offset> {
        let first = self.batches.front()?;
        if first.append_time_us >= append_time_us {
            return None;
        }
        let index = self
            .batches
            .partition_point(|batch| batch.append_time_us < append_time_us);
        self.batches.get(index).map(|batch| batch.base)
    }

    /// Forgets the batches that end at or before an offset.
    pub(super) fn drop_below(&mut self, offset: Offset) {
        while self
            .batches
            .front()
            .is_some_and(|batch| batch.next <= offset)
        {
            self.batches.pop_front();
        }
    }

    /// Forgets the batches that begin at or behind an offset.
    pub(super) fn drop_from(&mut self, offset: Offset) {
        let kept = self.batches.partition_point(|batch| batch.base < offset);
        self.batches.truncate(kept);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.batches = VecDeque::new();
    }
}
