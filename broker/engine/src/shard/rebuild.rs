//! Rebuilding the side files of sealed segments that lost theirs, one segment at a time and one
//! read at a time: until then every read in such a segment begins at its start.

use std::collections::VecDeque;

use ringway_wire::Offset;

use crate::device::{DeviceError, Op, Outcome};
use crate::log::{ReadFailed, Rescan, RescanStep, SegmentDamaged, Side};
use crate::shard::event::Note;
use crate::shard::partition::{IndexState, Partition, State};
use crate::shard::{Pending, Shard};

/// Segments whose side files are to be rebuilt.
#[derive(Debug, Default)]
pub(super) struct Rebuilding {
    queue: VecDeque<(usize, Offset)>,
    /// An operation of the first in the queue is in flight.
    busy: bool,
    rescan: Option<Rescan>,
}

impl Partition {
    /// What rebuilding has to know of a sealed segment: its file's length, where it ends, and the
    /// segment before it.
    fn neighbours(&self, base: Offset) -> Option<(u64, Offset, Option<Offset>)> {
        let find = |sealed: &crate::shard::partition::Sealed| sealed.base;
        let at = self.sealed.binary_search_by_key(&base, find).ok()?;
        let next = self.sealed.get(at + 1).map(|next| next.base);
        let end = next.or_else(|| self.writers.front().map(|writer| writer.base));
        let before = at.checked_sub(1).map(|before| self.sealed[before].base);
        let file_bytes = self.sealed[at].file_bytes;
        Some((file_bytes, end.unwrap_or(self.log_end), before))
    }
}

impl Shard {
    /// A segment's side file can't be used.
    pub(super) fn rebuild_side(&mut self, index: usize, base: Offset) {
        self.rebuilding.queue.push_back((index, base));
    }

    /// Does the next step, if none is in flight.
    pub(super) fn advance_rebuilding(&mut self) {
        while !self.rebuilding.busy && !self.draining() {
            let Some(&(index, base)) = self.rebuilding.queue.front() else {
                return;
            };
            let partition = self.partitions[index].as_deref();
            let partition = partition.filter(|partition| partition.state != State::Deleting);
            let Some((log, neighbours)) = partition.map(|at| (at.log, at.neighbours(base))) else {
                self.end_rebuild();
                continue;
            };
            let Some((file_bytes, end, before)) = neighbours else {
                self.end_rebuild();
                continue;
            };
            match (&self.rebuilding.rescan, before) {
                (Some(rescan), _) => self.rebuild_step(index, base, rescan.step()),
                (None, Some(before)) => {
                    self.rebuilding.busy = true;
                    let op = Op::LoadSide { log, base: before };
                    self.submit(op, Pending::RebuildSide(index));
                }
                (None, None) => {
                    let rescan = Rescan::new(log.log_id(), base, file_bytes, end, None);
                    self.rebuilding.rescan = Some(rescan);
                }
            }
        }
    }

    fn end_rebuild(&mut self) {
        self.rebuilding.queue.pop_front();
        self.rebuilding.rescan = None;
    }

    fn rebuild_step(&mut self, index: usize, base: Offset, step: RescanStep) {
        match step {
            RescanStep::Read { position, bytes } => {
                let sealed = self.partition(index).and_then(|at| at.sealed_at(base));
                let Some(file) = sealed.map(|sealed| sealed.file) else {
                    return self.end_rebuild();
                };
                self.rebuilding.busy = true;
                let buffer = self.pool.take(bytes);
                let op = Op::Read {
                    file,
                    position,
                    buffer,
                    bytes,
                };
                let partition = index;
                self.submit(op, Pending::RebuildRead { partition, base });
            }
            RescanStep::Finished(result) => {
                self.end_rebuild();
                self.rebuilt(index, base, result);
            }
        }
    }

    /// The side file of the segment before is here, if there is one: the rest follows from it.
    pub(super) fn rebuild_side_loaded(
        &mut self,
        index: usize,
        result: Result<Outcome, DeviceError>,
    ) {
        self.rebuilding.busy = false;
        let Some(&(_, base)) = self.rebuilding.queue.front() else {
            return;
        };
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        let log_id = partition.log.log_id();
        if let Some((file_bytes, end, Some(before))) = partition.neighbours(base) {
            let side = match result {
                Ok(Outcome::Side(Some(bytes))) => Side::decode(&bytes, log_id, before).ok(),
                _ => None,
            };
            let rescan = Rescan::new(log_id, base, file_bytes, end, side.as_ref());
            self.rebuilding.rescan = Some(rescan);
        }
    }

    pub(super) fn rebuild_read(&mut self, result: Result<Outcome, DeviceError>) {
        self.rebuilding.busy = false;
        let Some(rescan) = &mut self.rebuilding.rescan else {
            return;
        };
        match result {
            Ok(Outcome::Read { buffer, bytes }) => rescan.read(Ok(&buffer[..bytes])),
            _ => rescan.read(Err(ReadFailed)),
        }
    }

    /// A damaged segment stays without a side file; a reader learns where the damage ends.
    fn rebuilt(&mut self, index: usize, base: Offset, result: Result<Box<Side>, SegmentDamaged>) {
        let Some(partition) = self.partition(index) else {
            return;
        };
        let log = partition.log;
        match result {
            Ok(side) => {
                let bytes = side.encode();
                // Retention may have taken it meanwhile.
                let Some(sealed) = partition.sealed_at(base) else {
                    return;
                };
                sealed.ended_us = Some(side.last_append_time_us);
                sealed.index = IndexState::Loaded(side.index);
                self.index_loaded(index, base);
                let partition = index;
                let pending = Pending::SaveSide { partition, base };
                self.submit(Op::SaveSide { log, base, bytes }, pending);
            }
            Err(damage) => {
                self.counters.damaged += 1;
                self.note(Note::Damaged {
                    log,
                    offset: damage.offset,
                    reason: damage.to_string(),
                });
            }
        }
    }
}
