//! A partition on the shard that owns it: its log's pointers, segments, tail cache and whoever
//! waits for it.

use std::collections::{BTreeMap, VecDeque};

use ringway_wire::batch::{
    BatchError, BatchHeader, LeaderStamp, check_header, check_produced, stamp,
};
use ringway_wire::{ErrorCode, Fault, Offset, Position, TopicPartition};

use crate::buffer::Pool;
use crate::device::FileId;
use crate::log::ladder::{Pace, retained_segment_bytes, segment_bytes};
use crate::log::limits::PRODUCER_EXPIRY_US;
use crate::log::{Epochs, Producers, SparseIndex, Verdict};
use crate::shard::event::{PartitionConfig, Token};
use crate::shard::tail::{CachedBatch, TailCache};
use crate::shard::timers::TimerId;
use crate::shard::writer::{Seal, SegmentWriter};
use crate::time::Now;

/// What a partition can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Everything.
    Ready,
    /// Reads; appends wait for space on the disk.
    Full,
    /// Reads; a write failed, or a flush of the device did.
    Failed(String),
    /// Nothing any more: the topic was deleted.
    Deleting,
}

/// The file prepared for the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is none.
    None,
    /// It is being made.
    Preparing { file: FileId, bytes: u64 },
    /// It is there, under the name `next.log`.
    Ready {
        file: FileId,
        bytes: u64,
        filled: u64,
    },
    /// It became a segment and is being given that segment's name.
    Naming { file: FileId, base: Offset },
    /// It became a segment, and giving it that segment's name failed.
    Unnamed { file: FileId, base: Offset },
    /// It was too small and is being removed.
    Discarding,
}

/// A segment that is all durable and not appended to any more.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) base: Offset,
    pub(super) file: FileId,
    /// Bytes of the file.
    pub(super) file_bytes: u64,
    /// Append time of its first batch, in microseconds since 1970, once known.
    pub(super) began_us: Option<i64>,
    /// Append time of its last batch, in microseconds since 1970, once known.
    pub(super) ended_us: Option<i64>,
    pub(super) index: IndexState,
}

/// A segment below the log's start, on its way to being removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expired {
    pub(super) base: Offset,
    pub(super) file: FileId,
    pub(super) file_bytes: u64,
}

/// A request to trim that waits until the log's start is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingTrim {
    pub(super) token: Token,
    /// Where the log is to start.
    pub(super) to: Offset,
}

/// Whether a sealed segment's index is in memory.
#[derive(Debug)]
pub(super) enum IndexState {
    /// It can be loaded.
    OnDisk,
    /// It is here.
    Loaded(SparseIndex),
    /// There is none: read from the segment's start.
    Missing,
}

/// A produce request whose batch is appended and not yet durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingAck {
    pub(super) next_offset: Offset,
    pub(super) base_offset: Offset,
    pub(super) append_time_us: i64,
    pub(super) token: Token,
    pub(super) trace: bool,
    pub(super) deadline_ns: u64,
    pub(super) received_ns: u64,
    pub(super) appended_ns: u64,
}

/// A fetch that waits for new records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) token: Token,
    pub(super) request: ringway_wire::request::FetchRequest,
}

/// Where a cold reader will go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) offset: Offset,
    pub(super) base: Offset,
    pub(super) position: Position,
}

/// Places of cold readers remembered per partition.
const CURSORS_MAX: usize = 16;

/// A partition and everything that the shard knows of it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) log: TopicPartition,
    pub(super) config: PartitionConfig,
    pub(super) state: State,

    /// First offset that is still there; a durable checkpoint says so, or will never say less.
    pub(super) log_start: Offset,
    /// Where the log is to start once a checkpoint that says so is durable; at least `log_start`.
    pub(super) start_wanted: Offset,
    /// The segment that a start with the newest durable checkpoint reads first.
    pub(super) checkpoint_base: Offset,
    /// Offset of the next record.
    pub(super) log_end: Offset,
    /// Offset up to which everything is durable.
    pub(super) durable_end: Offset,
    /// Offset up to which everything may be shown: `durable_end`, or beyond it in a topic with
    /// durability `memory`.
    pub(super) stable_end: Offset,
    /// Bytes between the two.
    pub(super) unsynced_bytes: u64,
    /// When the oldest batch that isn't durable was appended, in a topic with durability `memory`.
    pub(super) oldest_ns: Option<u64>,
    pub(super) last_header_crc: u32,
    pub(super) last_append_time_us: i64,
    pub(super) epochs: Epochs,
    pub(super) producers: Producers,

    /// Sealed segments, by base offset.
    pub(super) sealed: Vec<Sealed>,
    /// Segments below `log_start` that are not yet removed, oldest first.
    pub(super) expired: VecDeque<Expired>,
    /// One of them is being removed.
    pub(super) removing: bool,
    /// Operations in flight that keep a segment from being removed, by its base offset.
    pub(super) pins: BTreeMap<Offset, usize>,
    /// The append time of a sealed segment's last batch is being looked up.
    pub(super) aging: bool,
    pub(super) trims: Vec<PendingTrim>,
    /// Segments not yet sealed, by base offset; the last is appended to.
    pub(super) writers: VecDeque<SegmentWriter>,
    pub(super) next: Next,

    pub(super) tail: TailCache,
    pub(super) acks: VecDeque<PendingAck>,
    /// Whether the shard's list of partitions with acknowledgements that wait has it.
    pub(super) acks_listed: bool,
    /// Fetches that wait, by the timer that ends it.
    pub(super) waiters: BTreeMap<TimerId, Waiter>,
    pub(super) cursors: VecDeque<Cursor>,

    /// Whether the shard's list of partitions with something to write has it.
    pub(super) dirty: bool,
    /// Operations in flight on its files.
    pub(super) in_flight: usize,
    /// A retry of the failed preparation is due.
    pub(super) retry: Option<TimerId>,
    /// Whether the next checkpoint's list of changed partitions has it.
    pub(super) checkpoint_listed: bool,
}

/// What came of a produce request.
#[derive(Debug)]
pub(super) enum Appended {
    /// Its batch is in the log, ending before `next_offset`.
    Batch {
        base_offset: Offset,
        next_offset: Offset,
        append_time_us: i64,
        new_chunk: bool,
    },
    /// It repeats a batch that is in the log, ending before `next_offset`.
    Duplicate {
        base_offset: Offset,
        next_offset: Offset,
        append_time_us: i64,
    },
}

impl Partition {
    /// The offset after the last one that readers may see.
    pub(super) const fn high_watermark(&self) -> Offset {
        self.stable_end
    }

    /// Bytes appended and not durable.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.writers.iter().map(SegmentWriter::pending_bytes).sum()
    }

    /// Bytes of the partition's batches on disk, to within the unused ends of sealed segments.
    pub(super) fn log_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.file_bytes).sum();
        sealed + self.writers.iter().map(|writer| writer.end).sum::<u64>()
    }

    /// Why nothing can be appended, if so.
    pub(super) fn append_fault(&self) -> Option<Fault> {
        match &self.state {
            State::Ready => None,
            State::Full => Some(self.full_fault()),
            State::Failed(_) | State::Deleting => self.failed_fault(),
        }
    }

    /// Why nothing of it can be changed, if so.
    pub(super) fn failed_fault(&self) -> Option<Fault> {
        match &self.state {
            State::Ready | State::Full => None,
            State::Failed(reason) => Some(Fault::new(
                ErrorCode::StorageFailed,
                format!(
                    "{} takes no more records: {reason}; see the broker's log",
                    self.log
                ),
            )),
            State::Deleting => Some(self.deleted_fault()),
        }
    }

    pub(super) fn full_fault(&self) -> Fault {
        let message = format!(
            "the disk is full: {} takes records again as soon as space is freed",
            self.log
        );
        Fault::new(ErrorCode::StorageFull, message)
    }

    pub(super) fn deleted_fault(&self) -> Fault {
        Fault::new(
            ErrorCode::UnknownTopic,
            format!("the topic of {} was deleted", self.log),
        )
    }

    /// Appends a producer's batch to the log in memory.
    pub(super) fn append(&mut self, data: &[u8], now: Now, pool: &Pool) -> Result<Appended, Fault> {
        let header = produced_header(data)?;
        let bytes = data.len();
        let record_bytes_max = self.config.record_bytes_max;
        // A segment begins with a batch that is appended, not with one that is refused.
        let mut new_segment = self.segment_for(bytes, now);
        let writer = match new_segment.as_mut() {
            Some(segment) => segment,
            None => self.writers.back_mut().expect("it has room for the batch"),
        };
        let space = writer.reserve(bytes, pool);
        space.copy_from_slice(data);
        // Before anything in the header is believed: a flipped sequence must not pass for a
        // duplicate.
        let batch = check_produced(space).map_err(|error| corrupt(&error))?;
        if header.inflated_bytes() > record_bytes_max {
            check_records(&batch, record_bytes_max)?;
        }
        match self.producers.check(&header) {
            Verdict::Append => {}
            Verdict::Duplicate {
                base_offset,
                append_time_us,
            } => {
                let next_offset = base_offset.plus(header.record_count.into());
                return Ok(Appended::Duplicate {
                    base_offset,
                    next_offset,
                    append_time_us,
                });
            }
            Verdict::Refuse { code, message } => return Err(Fault::new(code, message)),
        }
        let append_time_us = now.unix_us.max(self.last_append_time_us);
        let leader = LeaderStamp {
            log_id: self.log.log_id(),
            base_offset: self.log_end,
            append_time_us,
            leader_epoch: self.config.leader_epoch,
            prev_header_crc: self.last_header_crc,
        };
        let header_crc = stamp(space, &leader);
        let base = self.log_end;
        let next = base.plus(header.record_count.into());
        if writer.end == 0 {
            writer.began_us = Some(append_time_us);
        }
        writer.index.add(base, Position(writer.end), append_time_us);
        let (bytes, new_chunk) = writer.commit(bytes, next, now.mono_ns);
        if let Some(segment) = new_segment {
            self.begin_segment(segment);
        }
        self.last_header_crc = header_crc;
        let epoch = self.config.leader_epoch;
        self.tail.push(CachedBatch {
            base,
            next,
            append_time_us,
            bytes,
        });
        let header = BatchHeader {
            base_offset: base,
            append_time_us,
            leader_epoch: epoch,
            ..header
        };
        self.producers.record(&header);
        self.log_end = next;
        self.last_append_time_us = append_time_us;
        Ok(Appended::Batch {
            base_offset: base,
            next_offset: next,
            append_time_us,
            new_chunk,
        })
    }

    /// A segment for a batch that the last one has no room for.
    fn segment_for(&self, bytes: usize, now: Now) -> Option<SegmentWriter> {
        let last = self.writers.back();
        if last.is_some_and(|last| last.fits(bytes)) {
            return None;
        }
        let planned = match self.next {
            Next::Ready { bytes: ready, .. } | Next::Preparing { bytes: ready, .. }
                if ready >= bytes as u64 && self.writers.iter().all(|w| w.file.is_some()) =>
            {
                ready
            }
            _ => self.planned_bytes(bytes, now),
        };
        let chunk_bytes = last.map_or(0, SegmentWriter::chunk_bytes);
        let began_ns = now.mono_ns;
        Some(SegmentWriter::new(
            self.log_end,
            planned,
            chunk_bytes,
            began_ns,
        ))
    }

    /// Appends go on in another segment, which holds the first of them already.
    fn begin_segment(&mut self, segment: SegmentWriter) {
        if let Some(last) = self.writers.back_mut() {
            // By append times, so that a restart or a replica comes to the same state.
            let before_us = self.last_append_time_us.saturating_sub(PRODUCER_EXPIRY_US);
            self.producers.expire(before_us);
            last.seal = Some(Box::new(Seal {
                next_offset: self.log_end,
                last_header_crc: self.last_header_crc,
                last_append_time_us: self.last_append_time_us,
                epochs: self.epochs.clone(),
                producers: self.producers.clone(),
            }));
        }
        self.writers.push_back(segment);
    }

    /// Bytes of the segment to prepare next, with room for a batch.
    pub(super) fn planned_bytes(&self, batch_bytes: usize, now: Now) -> u64 {
        let last = self.writers.back();
        let kept = self.config.retention_bytes.map(retained_segment_bytes);
        segment_bytes(
            last.map(|last| last.bytes),
            last.map_or_else(Pace::default, |last| last.pace(now.mono_ns)),
            batch_bytes as u64,
            kept.map_or(self.config.segment_bytes, |kept| {
                kept.min(self.config.segment_bytes)
            }),
        )
    }

    /// Whether a segment's file durably has its name.
    pub(super) fn is_named(&self, writer: &SegmentWriter) -> bool {
        let naming = match self.next {
            Next::Naming { base, .. } | Next::Unnamed { base, .. } => base == writer.base,
            _ => false,
        };
        writer.file.is_some() && !naming
    }

    /// Base offset of the segment that an offset is in.
    pub(super) fn segment_of(&self, offset: Offset) -> Option<Offset> {
        let writer = self
            .writers
            .iter()
            .rev()
            .find(|writer| writer.base <= offset);
        if let Some(writer) = writer {
            return Some(writer.base);
        }
        let at = self.sealed.partition_point(|sealed| sealed.base <= offset);
        at.checked_sub(1).map(|at| self.sealed[at].base)
    }

    /// The sealed segment that begins at an offset.
    pub(super) fn sealed_at(&mut self, base: Offset) -> Option<&mut Sealed> {
        let at = self
            .sealed
            .binary_search_by_key(&base, |sealed| sealed.base)
            .ok()?;
        self.sealed.get_mut(at)
    }

    /// The index of a segment: one that is written has one, of a sealed one it depends.
    pub(super) fn index_of(&self, base: Offset) -> (Option<&SegmentWriter>, Option<&IndexState>) {
        let writer = self.writers.iter().find(|writer| writer.base == base);
        let sealed = self
            .sealed
            .binary_search_by_key(&base, |sealed| sealed.base);
        (writer, sealed.ok().map(|at| &self.sealed[at].index))
    }

    /// An operation in flight keeps a segment from being removed.
    pub(super) fn pin(&mut self, segment: Option<Offset>) {
        if let Some(base) = segment {
            *self.pins.entry(base).or_default() += 1;
        }
    }

    /// It is over.
    pub(super) fn unpin(&mut self, segment: Option<Offset>) {
        if let Some(base) = segment
            && let Some(count) = self.pins.get_mut(&base)
        {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&base);
            }
        }
    }

    /// Remembers where a cold reader will go on.
    pub(super) fn remember(&mut self, cursor: Cursor) {
        self.cursors.retain(|known| known.offset != cursor.offset);
        if self.cursors.len() == CURSORS_MAX {
            self.cursors.pop_front();
        }
        self.cursors.push_back(cursor);
    }

    /// Adds a request that waits until the log may be acknowledged up to its batch's end.
    pub(super) fn wait_stable(&mut self, ack: PendingAck) {
        let at = self
            .acks
            .partition_point(|known| known.next_offset <= ack.next_offset);
        self.acks.insert(at, ack);
    }

    /// Nothing is written any more: frees what was appended and nobody was told of.
    pub(super) fn give_up_pending(&mut self) {
        self.tail.drop_from(self.stable_end);
        for writer in &mut self.writers {
            writer.give_up_pending();
        }
    }

    /// Takes out the requests whose time ran out.
    pub(super) fn late_acks(&mut self, now_ns: u64) -> Vec<PendingAck> {
        let mut late = Vec::new();
        self.acks.retain(|ack| {
            let is_late = ack.deadline_ns <= now_ns;
            if is_late {
                late.push(*ack);
            }
            !is_late
        });
        late
    }

    /// Everything up to an offset is durable: bytes that may have been acknowledged before.
    pub(super) fn advance_durable(&mut self, to: Offset) -> u64 {
        assert!(
            self.durable_end <= to && to <= self.log_end,
            "durable_end ≤ log_end"
        );
        let (from, shown_end) = (self.durable_end, self.stable_end.min(to));
        let synced = match self.unsynced_bytes {
            0 => 0,
            _ => self
                .tail
                .from(from)
                .take_while(|batch| batch.next <= shown_end)
                .map(|batch| batch.bytes.len() as u64)
                .sum(),
        };
        self.unsynced_bytes -= synced;
        self.durable_end = to;
        self.stable_end = self.stable_end.max(to);
        synced
    }
}

fn corrupt(error: &BatchError) -> Fault {
    let code = match error {
        BatchError::Codec(_) => ErrorCode::UnsupportedCodec,
        _ => ErrorCode::CorruptBatch,
    };
    Fault::new(code, error.to_string())
}

/// The header of a batch that is as long as it says.
fn produced_header(data: &[u8]) -> Result<BatchHeader, Fault> {
    let header = check_header(data, false).map_err(|error| corrupt(&error))?;
    let bytes = header.batch_bytes as usize;
    if data.len() == bytes {
        return Ok(header);
    }
    let message = format!("a batch of {bytes} bytes came with {} bytes", data.len());
    Err(Fault::new(ErrorCode::CorruptBatch, message))
}

fn check_records(
    batch: &ringway_wire::batch::StoredBatch<'_>,
    record_bytes_max: usize,
) -> Result<(), Fault> {
    let largest = batch
        .entries()
        .iter()
        .map(|entry| entry.record_bytes())
        .max()
        .unwrap_or(0);
    if largest <= record_bytes_max as u64 {
        return Ok(());
    }
    let message = format!(
        "a record of {largest} bytes is above the topic's limit of {record_bytes_max}; \
         raise record_bytes_max with `ringway topic alter`"
    );
    Err(Fault::new(ErrorCode::RecordTooLarge, message))
}
