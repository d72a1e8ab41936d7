//! Cold reads: direct reads of sealed segments and of what the tail cache has forgotten, within a
//! budget, every batch checked before it is handed out from the very buffer it was read into.

use ringway_wire::batch::{BatchHeader, check_crcs};
use ringway_wire::limits::BATCH_HEADER_BYTES;
use ringway_wire::{ErrorCode, Fault, Offset, Position};

use crate::buffer::Slice;
use crate::device::{DeviceError, FileId, Op, Outcome};
use crate::limits::{BLOCK_BYTES, READ_BYTES, READER_PATIENCE_NS, block_ceil, block_floor};
use crate::log::{Side, SparseIndex};
use crate::shard::budget::Next;
use crate::shard::event::{Effect, Note};
use crate::shard::fetch::{FetchTask, Want, wanted};
use crate::shard::partition::{Cursor, IndexState, Partition, State};
use crate::shard::seek::Then;
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;

/// A segment as a reader sees it.
struct Readable {
    file: FileId,
    /// End of the bytes that may be read.
    end: u64,
    /// First offset after it, where that is known.
    next_base: Offset,
}

/// What was found in the bytes of one read.
enum Found {
    /// Batches to hand out, ending before an offset and a position.
    Batches {
        slices: Vec<Slice>,
        next: Offset,
        position: u64,
    },
    /// The first batch appended late enough.
    Time { then: Then, offset: Offset },
    /// Nothing yet: go on at this batch with a read of so many bytes.
    Further {
        expected: Offset,
        position: u64,
        read_bytes: usize,
    },
    /// The segment ends here.
    SegmentEnd(Offset),
    /// The batch at an offset is damaged.
    Damaged {
        reason: String,
        offset: Offset,
        next: Option<Offset>,
        position: u64,
    },
}

impl Shard {
    /// The task, unless its partition is deleted or being deleted: then it is answered.
    fn unless_deleted(&mut self, task: FetchTask) -> Option<FetchTask> {
        let partition = self.partitions[task.partition].as_deref();
        if partition.is_some_and(|partition| partition.state != State::Deleting) {
            return Some(task);
        }
        let fault = Fault::new(ErrorCode::UnknownTopic, "the topic was deleted");
        self.fail_task(&task, fault, Offset(0));
        None
    }

    /// Looks up where to read for a task, or starts loading the index that knows.
    pub(super) fn place(&mut self, task: FetchTask) {
        let Some(mut task) = self.unless_deleted(task) else {
            return;
        };
        let index = task.partition;
        let partition = self.partitions[index].as_deref().expect("it exists");
        let offset = task.expected;
        let Some(base) = partition.segment_of(offset) else {
            if offset < partition.log_start {
                return self.replace(task);
            }
            let message = format!("{} has no segment for offset {offset}", partition.log);
            let (fault, safe) = (
                Fault::new(ErrorCode::DamagedBatch, message),
                partition.log_end,
            );
            return self.fail_task(&task, fault, safe);
        };
        task.base = base;
        let known = partition
            .cursors
            .iter()
            .find(|at| at.offset == offset && at.base == base);
        if let (Some(cursor), Want::Batches(_)) = (known, task.want) {
            task.position = cursor.position.0;
            self.reads.push(task);
            return;
        }
        let floor = |sparse: &SparseIndex, want: &Want| match want {
            Want::Batches(_) => sparse.floor(offset),
            Want::Since(search) | Want::Beginning(search) => sparse.floor_time(search.time_us),
        };
        let entry = match partition.index_of(base) {
            (Some(writer), _) => floor(&writer.index, &task.want),
            (None, Some(IndexState::Loaded(sparse))) => floor(sparse, &task.want),
            (None, Some(IndexState::OnDisk)) => {
                let log = partition.log;
                let pending = Pending::LoadSide {
                    partition: index,
                    base,
                    task,
                };
                self.submit(Op::LoadSide { log, base }, pending);
                return;
            }
            (None, _) => floor(&SparseIndex::new(base, 0), &task.want),
        };
        task.position = entry.position.0;
        task.expected = entry.base_offset;
        self.reads.push(task);
    }

    pub(super) fn side_loaded(
        &mut self,
        index: usize,
        base: Offset,
        task: FetchTask,
        result: Result<Outcome, DeviceError>,
    ) {
        let Some(task) = self.unless_deleted(task) else {
            return;
        };
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        let log = partition.log;
        let Some(sealed) = partition.sealed_at(base) else {
            return self.place(task);
        };
        let side = match result {
            Ok(Outcome::Side(Some(bytes))) => Side::decode(&bytes, log.log_id(), base).ok(),
            _ => None,
        };
        match side {
            Some(side) => {
                sealed.index = IndexState::Loaded(side.index);
                self.index_loaded(index, base);
            }
            None => {
                sealed.index = IndexState::Missing;
                self.rebuild_side(index, base);
            }
        }
        self.place(task);
    }

    pub(super) fn queue_read(&mut self, task: FetchTask) {
        self.reads.push(task);
    }

    /// Starts reads that wait, as far as the budget goes.
    pub(super) fn start_reads(&mut self, now: Now) {
        self.reads.look_around(now.mono_ns);
        loop {
            match self.reads.next(now.mono_ns) {
                Next::Read(task) => self.start_read(task, now),
                Next::Nothing => break,
                Next::At(at_ns) => {
                    if !self.reads.timer_set {
                        self.reads.timer_set = true;
                        self.timers.set(at_ns, Timer::Reads);
                    }
                    break;
                }
            }
        }
        if let Some(source) = self.reads.stalled(now.mono_ns, READER_PATIENCE_NS) {
            self.effects.push_back(Effect::HangUp { source });
        }
    }

    pub(super) fn reads_due(&mut self) {
        self.reads.timer_set = false;
    }

    /// Answers the reads of some tasks that wait for their turn with a fault.
    pub(super) fn fail_queued_reads(&mut self, of: impl Fn(&FetchTask) -> bool, fault: &Fault) {
        for task in self.reads.take_waiting() {
            if of(&task) {
                self.fail_task(&task, fault.clone(), Offset(0));
            } else {
                self.reads.push(task);
            }
        }
    }

    fn start_read(&mut self, task: FetchTask, now: Now) {
        let Some(mut task) = self.unless_deleted(task) else {
            return;
        };
        let partition = self.partitions[task.partition]
            .as_deref()
            .expect("it exists");
        let Some(segment) = readable(partition, task.base) else {
            // The segment is gone or was sealed under the same base meanwhile: look again.
            return self.replace(task);
        };
        let position = block_floor(task.position);
        let limit = block_ceil(segment.end).saturating_sub(position) as usize;
        let bytes = task.read_bytes.min(limit);
        if bytes == 0 {
            return self.segment_ended(task, segment.next_base);
        }
        task.read_bytes = bytes;
        let buffer = self.reads.begin(task.token.source, bytes, now.mono_ns);
        let position = Position(position);
        let op = Op::Read {
            file: segment.file,
            position,
            buffer,
            bytes,
        };
        self.submit(op, Pending::Read(task));
    }

    fn replace(&mut self, task: FetchTask) {
        let partition = self.partitions[task.partition]
            .as_deref()
            .expect("it exists");
        if let Want::Since(search) | Want::Beginning(search) = task.want {
            return self.find_time(task.partition, task.token, search);
        }
        if task.expected < partition.log_start {
            let message = format!("{} begins at offset {}", partition.log, partition.log_start);
            let safe_offset = partition.log_start;
            let fault = Fault::new(ErrorCode::OffsetOutOfRange, message);
            return self.fail_task(&task, fault, safe_offset);
        }
        self.place(task);
    }

    pub(super) fn read_done(
        &mut self,
        task: FetchTask,
        result: Result<Outcome, DeviceError>,
        now: Now,
    ) {
        self.reads.end(task.token.source, task.read_bytes);
        let Some(task) = self.unless_deleted(task) else {
            return;
        };
        let index = task.partition;
        let partition = self.partitions[index].as_deref().expect("it exists");
        let slice = match result {
            Ok(Outcome::Read { buffer, bytes }) => buffer.freeze(bytes),
            Ok(_) => unreachable!("a read brings bytes"),
            Err(error) => {
                let message = format!("{} can't be read from disk: {error}", partition.log);
                let fault = Fault::new(ErrorCode::StorageFailed, message);
                return self.fail_task(&task, fault, Offset(0));
            }
        };
        self.counters.cold_reads += 1;
        self.counters.cold_read_bytes += slice.len() as u64;
        let Some(segment) = readable(partition, task.base) else {
            return self.replace(task);
        };
        if let Want::Beginning(search) = task.want {
            return self.beginning_read(&task, search, &slice);
        }
        match search(partition, &task, &segment, &slice) {
            Found::Batches {
                slices,
                next,
                position,
            } => {
                let cursor = Cursor {
                    offset: next,
                    base: task.base,
                    position: Position(position),
                };
                self.partition(index).expect("it exists").remember(cursor);
                let source = task.token.source;
                self.reads.hold(source, &slice, now.mono_ns);
                self.reply_batches(index, task.token, slices);
            }
            Found::Time { then, offset } => self.time_found(index, task.token, then, offset),
            Found::Further {
                expected,
                position,
                read_bytes,
            } => {
                let task = FetchTask {
                    expected,
                    position,
                    read_bytes,
                    ..task
                };
                self.reads.push(task);
            }
            Found::SegmentEnd(next) => self.segment_ended(task, next),
            Found::Damaged {
                reason,
                offset,
                next,
                position,
            } => {
                let task = FetchTask {
                    expected: offset,
                    ..task
                };
                self.found_damage(&task, &segment, reason, next, position);
            }
        }
    }

    /// Goes on in the next segment, or ends with what that means.
    fn segment_ended(&mut self, task: FetchTask, next: Offset) {
        let partition = self.partitions[task.partition]
            .as_deref()
            .expect("it exists");
        // What isn't durable is not looked for on the disk: the tail cache has it.
        let durable_end = partition.durable_end;
        if next < durable_end && next > task.base {
            let task = FetchTask {
                expected: next,
                read_bytes: READ_BYTES,
                ..task
            };
            return self.place(task);
        }
        match task.want {
            Want::Since(search) | Want::Beginning(search) => {
                let offset = partition.first_in_memory_since(search.time_us);
                self.time_found(task.partition, task.token, search.then, offset);
            }
            Want::Batches(_) => {
                let reason = "the segment ends before it".to_owned();
                let segment = Readable {
                    file: FileId(0),
                    end: 0,
                    next_base: next,
                };
                self.found_damage(&task, &segment, reason, None, 0);
            }
        }
    }

    /// Reports a damaged batch; it is never handed out.
    fn found_damage(
        &mut self,
        task: &FetchTask,
        segment: &Readable,
        reason: String,
        next: Option<Offset>,
        position: u64,
    ) {
        let partition = self.partitions[task.partition]
            .as_deref()
            .expect("it exists");
        let log = partition.log;
        let offset = task.expected;
        let beyond = |sparse: &SparseIndex| {
            let at = |entry: &&crate::log::IndexEntry| {
                entry.position.0 > position && entry.base_offset > offset
            };
            sparse
                .entries()
                .iter()
                .find(at)
                .map(|entry| entry.base_offset)
        };
        let indexed = match partition.index_of(task.base) {
            (Some(writer), _) => beyond(&writer.index),
            (None, Some(IndexState::Loaded(sparse))) => beyond(sparse),
            _ => None,
        };
        let safe = next
            .or(indexed)
            .unwrap_or(segment.next_base)
            .min(partition.high_watermark());
        let message = format!(
            "{log} is damaged at offset {offset}: {reason}; what follows begins at offset {safe}"
        );
        self.counters.damaged += 1;
        self.note(Note::Damaged {
            log,
            offset,
            reason,
        });
        self.fail_task(task, Fault::new(ErrorCode::DamagedBatch, message), safe);
    }
}

/// The segment that begins at an offset, with what of it may be read.
fn readable(partition: &Partition, base: Offset) -> Option<Readable> {
    let next_writer = |base: Offset| {
        let next = partition.writers.iter().find(|writer| writer.base > base);
        next.map_or(partition.log_end, |writer| writer.base)
    };
    if let Ok(at) = partition
        .sealed
        .binary_search_by_key(&base, |sealed| sealed.base)
    {
        let sealed = &partition.sealed[at];
        let next_sealed = partition.sealed.get(at + 1).map(|next| next.base);
        let next_base = next_sealed.unwrap_or_else(|| next_writer(base));
        return Some(Readable {
            file: sealed.file,
            end: sealed.file_bytes,
            next_base,
        });
    }
    let writer = partition
        .writers
        .iter()
        .find(|writer| writer.base == base)?;
    Some(Readable {
        file: writer.file?,
        end: writer.durable,
        next_base: next_writer(base),
    })
}

/// Looks through the bytes of one read for what a task wants.
fn search(partition: &Partition, task: &FetchTask, segment: &Readable, bytes: &Slice) -> Found {
    let durable_end = partition.durable_end;
    let read_start = block_floor(task.position);
    let mut at = (task.position - read_start) as usize;
    let mut expected = task.expected;
    let mut gathered = Gathered::default();
    let read_end = read_start + bytes.len() as u64;
    let more = bytes.len() == task.read_bytes && read_end < block_ceil(segment.end);
    loop {
        let position = read_start + at as u64;
        if expected >= segment.next_base || expected >= durable_end {
            return gathered.or(expected, position, Found::SegmentEnd(expected));
        }
        let header = match batch_at(partition, expected, bytes, at) {
            Ok(header) => header,
            Err(BatchAt::Cut { wanted }) if more => {
                let read_bytes = (wanted + 2 * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
                let read_bytes = read_bytes.max(READ_BYTES);
                let further = Found::Further {
                    expected,
                    position,
                    read_bytes,
                };
                return gathered.or(expected, position, further);
            }
            Err(BatchAt::Cut { .. }) => {
                let reason = "it is cut off by the end of the file".to_owned();
                let damaged = Found::Damaged {
                    reason,
                    offset: expected,
                    next: None,
                    position,
                };
                return gathered.or(expected, position, damaged);
            }
            // On the way to the offset that is wanted, damage that shows where it ends is passed.
            Err(BatchAt::Damaged {
                header: Some(header),
                ..
            }) if !wants(task, &header) => *header,
            Err(BatchAt::Damaged { reason, header }) => {
                let damaged = Found::Damaged {
                    reason,
                    offset: expected,
                    next: header.map(|header| header.next_offset()),
                    position,
                };
                return gathered.or(expected, position, damaged);
            }
        };
        let size = header.batch_bytes as usize;
        match task.want {
            Want::Since(search) if header.append_time_us >= search.time_us => {
                return Found::Time {
                    then: search.then,
                    offset: header.base_offset,
                };
            }
            Want::Since(_) | Want::Beginning(_) => {}
            Want::Batches(request) if header.next_offset() > request.offset => {
                let limits = wanted(&request, durable_end);
                let records = u64::from(header.last_offset_delta) + 1;
                if !gathered.take(&limits, bytes.slice(at..at + size), records) {
                    return gathered.or(expected, position, Found::SegmentEnd(expected));
                }
            }
            Want::Batches(_) => {}
        }
        expected = header.next_offset();
        at += size;
    }
}

/// Whether a task looks for this batch or one before it.
fn wants(task: &FetchTask, header: &BatchHeader) -> bool {
    match task.want {
        Want::Since(search) | Want::Beginning(search) => header.append_time_us >= search.time_us,
        Want::Batches(request) => header.next_offset() > request.offset,
    }
}

/// Batches gathered for a reply.
#[derive(Default)]
struct Gathered {
    slices: Vec<Slice>,
    bytes: usize,
    records: u64,
}

impl Gathered {
    /// Adds a batch; false when the reply is full.
    fn take(&mut self, limits: &crate::shard::tail::Wanted, batch: Slice, records: u64) -> bool {
        self.bytes += batch.len();
        self.records += records;
        let over = self.bytes > limits.bytes_max || self.records > limits.records_max;
        if over && !self.slices.is_empty() {
            return false;
        }
        match self.slices.last_mut().and_then(|last| last.joined(&batch)) {
            Some(joined) => *self.slices.last_mut().expect("it was just joined") = joined,
            None => self.slices.push(batch),
        }
        true
    }

    /// The batches, if there are any, else something else.
    fn or(self, next: Offset, position: u64, otherwise: Found) -> Found {
        if self.slices.is_empty() {
            return otherwise;
        }
        Found::Batches {
            slices: self.slices,
            next,
            position,
        }
    }
}

/// Why there is no whole batch.
enum BatchAt {
    /// It goes beyond the bytes read; so many are wanted from its start.
    Cut { wanted: usize },
    /// It fails its checks; its header, if that can be believed.
    Damaged {
        reason: String,
        header: Option<Box<BatchHeader>>,
    },
}

/// Checks the batch at a place in the bytes read: both CRCs, the log's name and its offset.
fn batch_at(
    partition: &Partition,
    expected: Offset,
    bytes: &[u8],
    at: usize,
) -> Result<BatchHeader, BatchAt> {
    let rest = &bytes[at.min(bytes.len())..];
    if rest.len() < BATCH_HEADER_BYTES {
        return Err(BatchAt::Cut {
            wanted: BATCH_HEADER_BYTES,
        });
    }
    let damaged = |reason: String, header| Err(BatchAt::Damaged { reason, header });
    let header = match ringway_wire::batch::check_header(rest, true) {
        Ok(header) => header,
        Err(error) => return damaged(error.to_string(), None),
    };
    if header.log_id != partition.log.log_id() {
        return damaged("it belongs to another log".to_owned(), None);
    }
    if header.base_offset != expected {
        return damaged(
            format!("a batch of offset {} stands there", header.base_offset),
            None,
        );
    }
    if rest.len() < header.batch_bytes as usize {
        return Err(BatchAt::Cut {
            wanted: header.batch_bytes as usize,
        });
    }
    match check_crcs(rest) {
        Ok(header) => Ok(header),
        Err(error) => damaged(error.to_string(), Some(Box::new(header))),
    }
}
