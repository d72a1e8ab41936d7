//! A segment while it is written: the append buffer in memory, what of it is on disk, and which
//! bytes the next write takes.
//!
//! The buffer is a row of chunks, each starting at a block of the file. A chunk that begins inside
//! a batch's block holds a copy of that block's first bytes, so the last chunk always has the whole
//! tail block.

use std::collections::VecDeque;
use std::time::Duration;

use ringway_wire::{Offset, Position};

use crate::buffer::{Chunk, Pool, Slice};
use crate::device::FileId;
use crate::limits::{
    BLOCK_BYTES, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, FILL_FIRST_BYTES, ROUND_BYTES_MAX, block_ceil,
    block_floor,
};
use crate::log::ladder::Pace;
use crate::log::{Active, Epochs, Producers, SparseIndex};

/// A chunk and the position of its first byte.
#[derive(Debug)]
struct Placed {
    start: u64,
    chunk: Chunk,
}

/// Where a batch ends.
#[derive(Clone, Copy, Debug)]
struct BatchEnd {
    position: u64,
    next_offset: Offset,
    appended_ns: u64,
}

/// The next write of a segment.
#[derive(Debug)]
pub(super) struct Write {
    /// Where it starts; a multiple of the block.
    pub(super) position: Position,
    /// What it writes.
    pub(super) parts: Vec<Slice>,
    /// Bytes of the parts.
    pub(super) bytes: usize,
    /// The segment's bytes are on disk up to here when it is done.
    pub(super) end: u64,
    /// Whether it goes beyond what was filled before, so that the file's metadata changes.
    pub(super) allocates: bool,
}

/// What is known of the log at the end of a full segment.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) next_offset: Offset,
    pub(super) last_header_crc: u32,
    pub(super) last_append_time_us: i64,
    pub(super) epochs: Epochs,
    pub(super) producers: Producers,
}

/// A segment that is appended to, or was and is not yet all durable.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    /// Offset of its first record.
    pub(super) base: Offset,
    /// Its file; `None` until one is prepared.
    pub(super) file: Option<FileId>,
    /// Bytes that it may take: the file's length, or what will be asked for.
    pub(super) bytes: u64,
    /// Bytes of the file that are written, with zeros or data.
    pub(super) filled: u64,
    /// Whether a fill is in flight: nothing may be written beyond `filled` meanwhile.
    pub(super) filling: bool,
    /// End of the appended batches.
    pub(super) end: u64,
    /// End of what is durable.
    pub(super) durable: u64,
    /// Its sparse index so far.
    pub(super) index: SparseIndex,
    /// What its side file will say, taken when the next segment was begun.
    pub(super) seal: Option<Box<Seal>>,
    /// A fill failed: the rest is left to the writes themselves.
    pub(super) fill_failed: bool,
    /// When this process began to write it, and where its end was then.
    began_ns: u64,
    began_end: u64,
    /// Append time of its first batch, in microseconds since 1970, once known.
    pub(super) began_us: Option<i64>,
    /// A chunk was opened for the batch that is being appended.
    new_chunk: bool,
    /// A write went beyond what was filled, so the file's metadata has to be synced with it.
    unsynced_allocation: bool,
    chunks: VecDeque<Placed>,
    ends: VecDeque<BatchEnd>,
    chunk_bytes: usize,
}

impl SegmentWriter {
    /// A segment without records, begun at a time of the monotonic clock.
    pub(super) fn new(base: Offset, bytes: u64, chunk_bytes: usize, began_ns: u64) -> Self {
        Self {
            base,
            file: None,
            bytes,
            filled: 0,
            filling: false,
            end: 0,
            durable: 0,
            index: SparseIndex::new(base, bytes),
            seal: None,
            fill_failed: false,
            began_ns,
            began_end: 0,
            began_us: None,
            new_chunk: false,
            unsynced_allocation: false,
            chunks: VecDeque::new(),
            ends: VecDeque::new(),
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        }
    }

    /// A segment that recovery has found, to be continued at `end`; `tail_block` holds the bytes
    /// of the last, partly filled block.
    pub(super) fn recovered(
        file: FileId,
        active: &Active,
        index: SparseIndex,
        tail_block: &[u8],
        pool: &Pool,
        now_ns: u64,
    ) -> Self {
        let end = active.position.0;
        assert_eq!(
            tail_block.len() as u64,
            end - block_floor(end),
            "the tail block is whole"
        );
        // What is left of a file that was cut off inside a block can't be written.
        let bytes = block_floor(active.file_bytes);
        let mut writer = Self::new(active.base, bytes, CHUNK_BYTES_MIN, now_ns);
        writer.file = Some(file);
        // A small segment was filled whole when it was prepared; of a large one it isn't known.
        writer.filled = match bytes <= FILL_FIRST_BYTES {
            true => bytes,
            false => block_ceil(end).min(bytes),
        };
        writer.end = end;
        writer.began_end = end;
        writer.durable = end;
        writer.index = index;
        if !tail_block.is_empty() {
            writer.open_chunk(tail_block.len(), tail_block, pool);
        }
        writer
    }

    /// Whether so many more bytes fit.
    pub(super) const fn fits(&self, bytes: usize) -> bool {
        self.end + bytes as u64 <= self.bytes
    }

    /// How fast it was written.
    pub(super) fn pace(&self, now_ns: u64) -> Pace {
        Pace {
            bytes: self.end - self.began_end,
            over: Duration::from_nanos(now_ns.saturating_sub(self.began_ns)),
        }
    }

    /// Whether everything appended is durable.
    pub(super) const fn is_durable(&self) -> bool {
        self.durable == self.end
    }

    /// Bytes appended and not durable.
    pub(super) const fn pending_bytes(&self) -> u64 {
        self.end - self.durable
    }

    /// When the oldest batch that isn't durable was appended.
    pub(super) fn oldest_pending_ns(&self) -> Option<u64> {
        self.ends.front().map(|end| end.appended_ns)
    }

    /// Bytes of chunks that the next segment of this partition should start with.
    pub(super) const fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Bytes of the chunk appended to.
    pub(super) fn chunk_capacity(&self) -> usize {
        self.chunks
            .back()
            .map_or(0, |placed| placed.chunk.capacity())
    }

    /// Space for a batch right behind the last one; it becomes part of the segment with
    /// [`SegmentWriter::commit`].
    pub(super) fn reserve(&mut self, bytes: usize, pool: &Pool) -> &mut [u8] {
        let room = self
            .chunks
            .back()
            .is_some_and(|placed| placed.chunk.capacity() - placed.chunk.len() >= bytes);
        if !room {
            let prefix = self.tail_block();
            let prefix = prefix.as_deref().unwrap_or_default().to_vec();
            self.open_chunk(prefix.len() + bytes, &prefix, pool);
            self.new_chunk = true;
        }
        let last = self
            .chunks
            .back_mut()
            .expect("a chunk was opened if there was none");
        &mut last.chunk.spare()[..bytes]
    }

    fn open_chunk(&mut self, bytes: usize, prefix: &[u8], pool: &Pool) {
        let mut chunk = Chunk::new(pool.take(bytes.max(self.chunk_bytes)));
        chunk.spare()[..prefix.len()].copy_from_slice(prefix);
        chunk.fill(prefix.len());
        self.chunk_bytes = (2 * self.chunk_bytes).min(CHUNK_BYTES_MAX);
        self.chunks.push_back(Placed {
            start: self.end - prefix.len() as u64,
            chunk,
        });
        self.drop_chunks();
    }

    /// The bytes of the partly filled block at the end.
    fn tail_block(&self) -> Option<Slice> {
        let last = self.chunks.back()?;
        let start = (block_floor(self.end) - last.start) as usize;
        (start < last.chunk.len()).then(|| last.chunk.slice(start..last.chunk.len()))
    }

    /// Makes the reserved bytes part of the segment; the batch as shared bytes, and whether it is
    /// the first of its chunk.
    pub(super) fn commit(
        &mut self,
        bytes: usize,
        next_offset: Offset,
        now_ns: u64,
    ) -> (Slice, bool) {
        let last = self.chunks.back_mut().expect("space was reserved");
        let start = last.chunk.len();
        last.chunk.fill(bytes);
        self.end += bytes as u64;
        self.ends.push_back(BatchEnd {
            position: self.end,
            next_offset,
            appended_ns: now_ns,
        });
        let slice = last.chunk.slice(start..start + bytes);
        (slice, std::mem::take(&mut self.new_chunk))
    }

    /// What to write next, at most a round's share, or `None` when nothing can be written now.
    pub(super) fn next_write(&mut self, pool: &Pool) -> Option<Write> {
        self.file?;
        let start = block_floor(self.durable);
        let mut end = self.end.min(start + ROUND_BYTES_MAX as u64);
        if self.filling {
            end = end.min(self.filled);
        }
        if end <= self.durable {
            return None;
        }
        let mut parts = Vec::with_capacity(self.chunks.len() + 1);
        for (index, placed) in self.chunks.iter().enumerate() {
            let chunk_end = match self.chunks.get(index + 1) {
                Some(next) => next.start,
                None => placed.start + placed.chunk.len() as u64,
            };
            let from = start.max(placed.start);
            let to = block_floor(end.min(chunk_end));
            if from < to {
                let range = (from - placed.start) as usize..(to - placed.start) as usize;
                parts.push(placed.chunk.slice(range));
            }
        }
        if block_floor(end) < end {
            parts.push(self.tail_copy(end, pool));
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        debug_assert_eq!(
            bytes as u64,
            block_ceil(end) - start,
            "parts cover the range"
        );
        // From here on the range belongs to this write: no fill may touch it.
        self.unsynced_allocation |= block_ceil(end) > self.filled;
        self.filled = self.filled.max(block_ceil(end));
        let allocates = self.unsynced_allocation;
        Some(Write {
            position: Position(start),
            parts,
            bytes,
            end,
            allocates,
        })
    }

    /// The tail block as it is now, padded with zeros: a private copy, because more is appended to
    /// the block while it is being written.
    fn tail_copy(&self, end: u64, pool: &Pool) -> Slice {
        let last = self.chunks.back().expect("there are appended bytes");
        let from = (block_floor(end) - last.start) as usize;
        let to = (end - last.start) as usize;
        let mut block = pool.take(BLOCK_BYTES);
        block[..to - from].copy_from_slice(&last.chunk.slice(from..to));
        block[to - from..BLOCK_BYTES].fill(0);
        block.freeze(BLOCK_BYTES)
    }

    /// Bytes up to `end` are durable; the offset after the last batch that this covers.
    pub(super) fn made_durable(&mut self, end: u64) -> Option<Offset> {
        debug_assert!(
            self.durable <= end && end <= self.end,
            "durable never goes back"
        );
        self.durable = end;
        self.unsynced_allocation = false;
        let mut next_offset = None;
        while let Some(first) = self.ends.front()
            && first.position <= end
        {
            next_offset = Some(first.next_offset);
            self.ends.pop_front();
        }
        self.drop_chunks();
        next_offset
    }

    /// Forgets chunks whose bytes are all durable, but for the last.
    fn drop_chunks(&mut self) {
        while self.chunks.len() > 1 && self.chunks[1].start <= block_floor(self.durable) {
            self.chunks.pop_front();
        }
    }

    /// Nothing of it is written any more: frees the append buffer.
    pub(super) fn give_up_pending(&mut self) {
        self.chunks.clear();
        self.ends.clear();
    }

    /// Keeps no more memory than the tail block takes, if everything is durable.
    pub(super) fn shrink(&mut self, pool: &Pool) {
        if !self.is_durable() || self.chunk_capacity() <= BLOCK_BYTES {
            return;
        }
        let prefix = self.tail_block();
        let prefix = prefix.as_deref().unwrap_or_default().to_vec();
        self.chunks.clear();
        self.chunk_bytes = CHUNK_BYTES_MIN;
        if !prefix.is_empty() {
            let mut chunk = Chunk::new(pool.take(BLOCK_BYTES));
            chunk.spare()[..prefix.len()].copy_from_slice(&prefix);
            chunk.fill(prefix.len());
            self.chunks.push_back(Placed {
                start: self.end - prefix.len() as u64,
                chunk,
            });
        }
    }
}
