//! Space for the log: preparing the next segment ahead of the writer, filling large ones in
//! windows, naming a segment that came into use, sealing one that is full.

use crate::device::{DeviceError, Op, Outcome, SegmentName};
use crate::limits::{
    FILL_BYTES, FILL_FIRST_BYTES, FILL_PENDING_BYTES_MAX, INDEXES_MAX, SPACE_RETRY_NS, block_ceil,
    block_floor,
};
use crate::log::Side;
use crate::log::ladder::next_is_due;
use crate::log::limits::INDEXED_SEGMENT_BYTES_MIN;
use crate::shard::event::Effect;
use crate::shard::partition::{IndexState, Next, Sealed, State};
use crate::shard::writer::SegmentWriter;
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;
use ringway_wire::{Offset, Position};

impl Shard {
    /// Starts whatever a partition needs next so that its writer doesn't have to wait.
    pub(super) fn want_space(&mut self, index: usize, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting)
            || partition.retry.is_some()
        {
            return;
        }
        let without_file = partition
            .writers
            .iter()
            .find(|writer| writer.file.is_none());
        match (partition.next, without_file) {
            (Next::Preparing { .. } | Next::Naming { .. } | Next::Discarding, _) => {}
            (Next::Unnamed { .. }, _) => self.name_proven(index),
            (Next::Ready { bytes, .. }, Some(writer)) if bytes >= writer.end => {
                self.begin_segment(index);
            }
            (Next::Ready { file, .. }, Some(_)) => {
                partition.next = Next::Discarding;
                self.submit(Op::Remove { file }, Pending::Discard(index));
            }
            (Next::None, Some(writer)) => {
                let bytes = writer.bytes.max(block_ceil(writer.end));
                self.prepare(index, bytes);
            }
            (Next::None, None) => {
                let last = partition.writers.back();
                let due = |last: &SegmentWriter| {
                    next_is_due(last.end, last.bytes, last.pace(now.mono_ns))
                };
                if last.is_some_and(due) {
                    let bytes = partition.planned_bytes(0, now);
                    self.prepare(index, bytes);
                }
            }
            (Next::Ready { .. }, None) => {}
        }
        self.want_fill(index);
    }

    fn prepare(&mut self, index: usize, bytes: u64) {
        let file = self.new_file();
        let partition = self.partitions[index]
            .as_deref_mut()
            .expect("it wants space");
        partition.next = Next::Preparing { file, bytes };
        let log = partition.log;
        self.effects.push_back(Effect::Declare {
            file,
            log,
            name: SegmentName::Next,
        });
        let op = Op::Prepare {
            file,
            log,
            bytes,
            filled: bytes.min(FILL_FIRST_BYTES),
        };
        self.submit(op, Pending::Prepare(index));
    }

    pub(super) fn prepared(
        &mut self,
        index: usize,
        result: Result<Outcome, DeviceError>,
        now: Now,
    ) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let Next::Preparing { file, bytes } = partition.next else {
            unreachable!("a preparation ends as it began");
        };
        match result {
            Ok(outcome) => {
                let filled = match outcome {
                    Outcome::Prepared { filled } => block_floor(filled.min(bytes)),
                    _ => bytes.min(FILL_FIRST_BYTES),
                };
                partition.next = Next::Ready {
                    file,
                    bytes,
                    filled,
                };
                if partition.state == State::Full && partition.pending_bytes() == 0 {
                    self.set_state(index, State::Ready);
                }
                self.want_space(index, now);
            }
            Err(DeviceError::Full) => {
                partition.next = Next::None;
                let waits = partition
                    .writers
                    .iter()
                    .find(|writer| writer.file.is_none());
                match waits.map(|writer| writer.base) {
                    Some(base) => self.no_space(index, base, now),
                    // Prepared ahead, it isn't missed yet.
                    None => self.retry_space(index, now),
                }
            }
            Err(DeviceError::Failed(reason)) => {
                partition.next = Next::None;
                self.fail_partition(index, &format!("a segment can't be prepared: {reason}"));
            }
        }
    }

    /// The prepared file becomes the segment that waits for one.
    fn begin_segment(&mut self, index: usize) {
        let partition = self.partitions[index]
            .as_deref_mut()
            .expect("it wants space");
        let Next::Ready {
            file,
            bytes,
            filled,
        } = partition.next
        else {
            return;
        };
        let writer = partition
            .writers
            .iter_mut()
            .find(|writer| writer.file.is_none())
            .expect("a segment waits for its file");
        writer.file = Some(file);
        writer.bytes = bytes;
        writer.filled = filled;
        let base = writer.base;
        partition.next = Next::Unnamed { file, base };
        self.name_proven(index);
        self.mark_dirty(index);
    }

    /// Gives the segment in `next.log` its name once everything before it is durable: then a name
    /// proves what lies before it, and a start takes no lost, unacknowledged bytes for damage.
    fn name_proven(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let Next::Unnamed { file, base } = partition.next else {
            return;
        };
        let mut before = partition
            .writers
            .iter()
            .take_while(|writer| writer.base < base);
        if before.all(SegmentWriter::is_durable) {
            partition.next = Next::Naming { file, base };
            self.submit(Op::Name { file, base }, Pending::Name(index));
        }
    }

    pub(super) fn named(&mut self, index: usize, error: Option<DeviceError>, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let Next::Naming { file, base } = partition.next else {
            unreachable!("naming ends as it began");
        };
        match error {
            None => {
                partition.next = Next::None;
                self.list_for_checkpoint(index);
                self.retire_writers(index);
                self.want_space(index, now);
            }
            Some(DeviceError::Full) => {
                partition.next = Next::Unnamed { file, base };
                self.retry_space(index, now);
            }
            Some(DeviceError::Failed(reason)) => {
                partition.next = Next::Unnamed { file, base };
                self.fail_partition(index, &format!("a segment can't be named: {reason}"));
            }
        }
    }

    pub(super) fn discarded(&mut self, index: usize, error: Option<DeviceError>, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        // A file that couldn't be removed is replaced by the next one of that name.
        partition.next = Next::None;
        if error.is_some() {
            self.retry_space(index, now);
            return;
        }
        self.want_space(index, now);
    }

    /// There is no space for what waits to be written behind an offset: say so to everybody who
    /// waits for it, go on reading, and try again later.
    pub(super) fn no_space(&mut self, index: usize, from: Offset, now: Now) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if matches!(partition.state, State::Failed(_) | State::Deleting) {
            return;
        }
        let fault = partition.full_fault();
        self.set_state(index, State::Full);
        self.fail_acks(index, from, &fault);
        self.retry_space(index, now);
    }

    fn retry_space(&mut self, index: usize, now: Now) {
        let timer = self
            .timers
            .set(now.mono_ns + SPACE_RETRY_NS, Timer::RetrySpace(index));
        if let Some(partition) = self.partition(index)
            && let Some(before) = partition.retry.replace(timer)
        {
            self.timers.cancel(before);
        }
    }

    /// Fills the next window of a large segment, if its writer will soon get there slowly.
    fn want_fill(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        // One file operation at a time: a file isn't filled while it is being renamed.
        let naming = matches!(partition.next, Next::Naming { .. } | Next::Unnamed { .. });
        let Some(writer) = partition.writers.back_mut() else {
            return;
        };
        let Some(file) = writer.file else { return };
        let ahead = writer.filled.saturating_sub(writer.end);
        if naming
            || writer.filling
            || writer.fill_failed
            || writer.filled >= writer.bytes
            || ahead > FILL_BYTES / 2
            || writer.is_durable()
            || writer.pending_bytes() >= FILL_PENDING_BYTES_MAX
        {
            return;
        }
        let end = (writer.filled + FILL_BYTES).min(writer.bytes);
        let start = Position(writer.filled);
        writer.filling = true;
        let (base, partition) = (writer.base, index);
        let op = Op::Fill {
            file,
            start,
            end: Position(end),
        };
        self.submit(
            op,
            Pending::Fill {
                partition,
                base,
                end,
            },
        );
    }

    pub(super) fn filled(
        &mut self,
        index: usize,
        base: Offset,
        end: u64,
        error: Option<DeviceError>,
    ) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        if let Some(writer) = partition
            .writers
            .iter_mut()
            .find(|writer| writer.base == base)
        {
            writer.filling = false;
            match error {
                None => writer.filled = end,
                // The writes themselves will meet the reason, if it lasts.
                Some(_) => writer.fill_failed = true,
            }
        }
        self.retire_writers(index);
        self.mark_dirty(index);
    }

    /// Seals segments that are all durable and no longer appended to.
    pub(super) fn retire_writers(&mut self, index: usize) {
        loop {
            let Some(partition) = self.partitions[index].as_deref_mut() else {
                return;
            };
            let first = partition.writers.front();
            // While a fill or a rename of it is in flight the segment stays a writer.
            let busy = first.is_some_and(|first| {
                first.filling
                    || matches!(partition.next,
                    Next::Naming { base, .. } | Next::Unnamed { base, .. } if base == first.base)
            });
            let over = first.is_some_and(|first| first.is_durable() && first.seal.is_some());
            if busy || !over {
                return;
            }
            let writer = partition.writers.pop_front().expect("there is a first");
            let (Some(file), Some(seal)) = (writer.file, writer.seal) else {
                unreachable!("a durable, full segment has a file and a seal");
            };
            let log = partition.log;
            let side = Side {
                log_id: log.log_id(),
                base_offset: writer.base,
                next_offset: seal.next_offset,
                end: Position(writer.end),
                last_header_crc: seal.last_header_crc,
                last_append_time_us: seal.last_append_time_us,
                index: writer.index.clone(),
                epochs: seal.epochs,
                producers: seal.producers,
            };
            let file_bytes = writer.bytes.max(block_ceil(writer.end));
            let indexed = file_bytes >= INDEXED_SEGMENT_BYTES_MIN;
            partition.sealed.push(Sealed {
                base: writer.base,
                file,
                file_bytes,
                began_us: writer.began_us,
                ended_us: Some(seal.last_append_time_us),
                index: match indexed {
                    true => IndexState::Loaded(writer.index),
                    false => IndexState::Missing,
                },
            });
            self.watch_retention(index);
            let base = writer.base;
            if indexed {
                self.index_loaded(index, base);
            }
            self.checkpoint_sealed(index, &side);
            let op = Op::SaveSide {
                log,
                base,
                bytes: side.encode(),
            };
            self.submit(
                op,
                Pending::SaveSide {
                    partition: index,
                    base,
                },
            );
        }
    }

    /// Counts an index that came into memory; the oldest ones go.
    pub(super) fn index_loaded(&mut self, index: usize, base: Offset) {
        self.indexes.push_back((index, base));
        while self.indexes.len() > INDEXES_MAX {
            let (index, base) = self.indexes.pop_front().expect("it is not empty");
            if let Some(sealed) = self.partition(index).and_then(|at| at.sealed_at(base)) {
                sealed.index = IndexState::OnDisk;
            }
        }
    }

    /// Without its side file a segment is still readable, from its start on.
    pub(super) fn side_saved(&mut self, index: usize, base: Offset, error: Option<DeviceError>) {
        if error.is_none() {
            return;
        }
        if let Some(sealed) = self.partition(index).and_then(|at| at.sealed_at(base)) {
            sealed.index = IndexState::Missing;
        }
    }
}
