//! Carrying out operations, one step after the other, so that a crash can come between them.

use std::rc::Rc;

use ringway_engine::device::{DeviceError, FileId, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::{Offset, TopicPartition};

use crate::device::block::Data;
use crate::device::disk::Disk;
use crate::device::file::SimFile;
use crate::device::submit::contract;
use crate::device::task::{Flight, Inode, Task};
use crate::device::{DurableWrite, SyncReach};

/// What came of an operation, without the engine's memory.
#[derive(Debug)]
pub(super) enum Completed {
    Done,
    /// Bytes from the start that are written.
    Prepared(u64),
    Read(Vec<u8>),
    Side(Option<Vec<u8>>),
}

type Step = Option<Result<Completed, DeviceError>>;

const DONE: Step = Some(Ok(Completed::Done));

impl Disk {
    /// Works on operations in flight, any of them, until one is complete.
    pub(super) fn complete(&mut self) -> Option<(Flight, Result<Completed, DeviceError>)> {
        while !self.flights.is_empty() {
            let index = self.random.index(self.flights.len());
            let mut flight = self.flights.swap_remove(index);
            match self.advance(&mut flight) {
                Some(result) => return Some((flight, result)),
                None => self.flights.push(flight),
            }
        }
        None
    }

    /// Does the next step of an operation; `Some` when that was the last.
    pub(super) fn advance(&mut self, flight: &mut Flight) -> Step {
        self.ordinal += 1;
        if let Some(error) = flight.error.clone() {
            self.fail(flight);
            return Some(Err(error));
        }
        let (step, mark) = (flight.step, flight.mark);
        flight.step += 1;
        match &mut flight.task {
            Task::Write {
                inode,
                start,
                data,
                durable,
            } => self.write(*inode, *start, data, *durable, mark),
            Task::Flush => {
                if self.config.sync_reach == SyncReach::Device {
                    self.flush_all(mark);
                }
                DONE
            }
            Task::Sync { inode } => {
                if self.config.sync_reach == SyncReach::Device {
                    self.flush_all(mark);
                }
                self.file(*inode).sync(mark);
                DONE
            }
            Task::Read {
                inode,
                start,
                blocks,
            } => Some(Ok(self.read(*inode, *start, *blocks))),
            Task::Prepare {
                file,
                log,
                blocks,
                filled,
                inode,
            } => self.prepare(step, *file, *log, *blocks, *filled, inode),
            Task::Fill { inode, start, end } => self.fill(step, *inode, *start, *end),
            Task::Name { inode, log, base } => self.name(step, *inode, *log, *base),
            Task::SaveSide { log, base, bytes } => self.save_side(step, (*log, *base), bytes),
            Task::LoadSide { log, base } => {
                let side = self.sides.get(&(*log, *base));
                Some(Ok(Completed::Side(
                    side.and_then(|side| side.visible.clone()),
                )))
            }
            Task::SaveCheckpoint { bytes, slot } => self.save_checkpoint(step, bytes, *slot),
            Task::Remove { inode } => self.remove(*inode),
            Task::RemovePartition { log } => {
                if step == 0 {
                    self.remove_partition(*log);
                    return None;
                }
                self.sync_names();
                DONE
            }
        }
    }

    /// What a failing operation leaves behind.
    fn fail(&mut self, flight: &Flight) {
        match &flight.task {
            Task::Write {
                inode, start, data, ..
            } => self.write_some(*inode, *start, data, 500),
            Task::Flush | Task::Sync { .. } => {
                for inode in 0..self.files.len() {
                    if self.files[inode]
                        .blocks
                        .iter()
                        .any(|block| block.is_dirty())
                    {
                        let file = Rc::make_mut(&mut self.files[inode]);
                        for block in &mut file.blocks {
                            block.forget_some(&mut self.random);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn flush_all(&mut self, mark: u64) {
        for inode in 0..self.files.len() {
            if self.files[inode]
                .blocks
                .iter()
                .any(|block| block.is_dirty())
            {
                self.file(inode).flush(mark);
            }
        }
    }

    fn write(
        &mut self,
        inode: Inode,
        start: usize,
        data: &[Data],
        durable: bool,
        mark: u64,
    ) -> Step {
        let ordinal = self.ordinal;
        if durable && self.config.durable_write == DurableWrite::Flushes {
            match self.config.sync_reach {
                SyncReach::Device => self.flush_all(mark),
                SyncReach::File => self.file(inode).flush(mark),
            }
        }
        let file = self.file(inode);
        file.sized |= durable;
        for (block, data) in file.blocks[start..].iter_mut().zip(data) {
            match durable {
                true => block.write_durable(ordinal, data.clone()),
                false => block.write(ordinal, data.clone()),
            }
            (block.written, block.in_use) = (true, true);
        }
        DONE
    }

    /// Writes each block with a chance of so many in 1,000.
    pub(super) fn write_some(&mut self, inode: Inode, start: usize, data: &[Data], chance: u64) {
        let ordinal = self.ordinal;
        let file = Rc::make_mut(&mut self.files[inode]);
        for (block, data) in file.blocks[start..].iter_mut().zip(data) {
            (block.written, block.in_use) = (true, true);
            if self.random.chance(chance) {
                block.write(ordinal, data.clone());
            }
        }
    }

    fn read(&mut self, inode: Inode, start: usize, blocks: usize) -> Completed {
        let file = &self.files[inode];
        let end = (start + blocks).min(file.blocks.len());
        let mut bytes = vec![0; end.saturating_sub(start) * BLOCK_BYTES];
        for (index, out) in (start..end).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            let mut data = file.blocks[index].visible();
            // A block that is being written may already be there.
            for flight in &self.flights {
                if let Task::Write {
                    inode: of,
                    start,
                    data: new,
                    ..
                } = &flight.task
                    && *of == inode
                    && (*start..*start + new.len()).contains(&index)
                    && self.random.chance(500)
                {
                    data = &new[index - start];
                }
            }
            data.copy_to(out);
        }
        Completed::Read(bytes)
    }

    fn prepare(
        &mut self,
        step: u8,
        file: FileId,
        log: TopicPartition,
        blocks: usize,
        filled: usize,
        inode: &mut Option<Inode>,
    ) -> Step {
        match step {
            0 => {
                let bytes = (blocks * BLOCK_BYTES) as u64;
                if self.used_bytes() + bytes > self.config.capacity_bytes {
                    return Some(Err(DeviceError::Full));
                }
                *inode = Some(self.new_segment(log, blocks));
                None
            }
            1 => {
                let inode = inode.expect("the first step made it");
                self.file(inode).resize(blocks);
                None
            }
            2 => {
                let inode = inode.expect("the first step made it");
                let ordinal = self.ordinal;
                let file = self.file(inode);
                // What a former life has written stays; the rest of the part to be filled is zeros.
                for block in file.blocks[..filled]
                    .iter_mut()
                    .filter(|block| !block.allocated)
                {
                    block.write_durable(ordinal, Data::Zeros);
                }
                None
            }
            _ => {
                let inode = inode.expect("the first step made it");
                let ordinal = self.ordinal;
                let segment = self.file(inode);
                segment.sync(ordinal);
                segment.sized = true;
                let filled = segment.filled_bytes();
                self.sync_names();
                self.ids.insert(file, Some(inode));
                Some(Ok(Completed::Prepared(filled)))
            }
        }
    }

    /// A file that is seen as the partition's `next.log`: a removed one of that size, one of
    /// before the simulation, or an empty one. A file that had the name loses it.
    fn new_segment(&mut self, log: TopicPartition, blocks: usize) -> Inode {
        let place = (log, SegmentName::Next);
        if let Some(before) = self.find(place) {
            let used = self
                .flights
                .iter()
                .any(|flight| flight.uses() == Some(before));
            contract!(!used, "next.log is replaced while it is in use");
            self.unlink(before);
        }
        let fits = |&at: &usize| {
            let file = &self.files[self.free[at]];
            file.blocks.len() == blocks && file.sized
        };
        if let Some(at) = (0..self.free.len()).rev().find(fits) {
            let inode = self.free.remove(at);
            let ordinal = self.ordinal;
            self.file(inode).recycle(place, ordinal);
            return inode;
        }
        let file = if self.random.chance(self.config.recycled) {
            let mut former = SimFile::former(blocks as u64, self.random.next_u64());
            former.recycle(place, self.ordinal);
            former
        } else {
            SimFile::new(place, self.ordinal)
        };
        self.files.push(Rc::new(file));
        self.files.len() - 1
    }

    fn fill(&mut self, step: u8, inode: Inode, start: usize, end: usize) -> Step {
        let ordinal = self.ordinal;
        let file = self.file(inode);
        file.sized |= step > 0;
        for block in &mut file.blocks[start..end] {
            match step {
                0 => block.write(ordinal, Data::Zeros),
                _ => block.write_durable(ordinal, Data::Zeros),
            }
        }
        if step == 0 { None } else { DONE }
    }

    fn name(&mut self, step: u8, inode: Inode, log: TopicPartition, base: Offset) -> Step {
        let place = (log, SegmentName::Base(base));
        if step == 0 {
            if let Some(before) = self.find(place) {
                self.unlink(before);
            }
            let ordinal = self.ordinal;
            self.file(inode).place(Some(place), ordinal);
            return None;
        }
        self.sync_names();
        DONE
    }

    fn save_side(&mut self, step: u8, key: (TopicPartition, Offset), bytes: &[u8]) -> Step {
        let side = self.sides.entry(key).or_default();
        if step == 0 {
            side.visible = Some(bytes.to_vec());
            return None;
        }
        side.durable = Some(bytes.to_vec());
        DONE
    }

    fn save_checkpoint(&mut self, step: u8, bytes: &[u8], slot: usize) -> Step {
        let ordinal = self.ordinal;
        let slot = &mut self.slots[slot];
        slot.bytes = Some(bytes.to_vec());
        if step == 0 {
            slot.saved = 0;
            return None;
        }
        slot.saved = ordinal;
        DONE
    }

    fn remove(&mut self, inode: Inode) -> Step {
        if let Some((log, SegmentName::Base(base))) = self.files[inode].visible
            && let Some(side) = self.sides.get_mut(&(log, base))
        {
            side.visible = None;
        }
        self.unlink(inode);
        DONE
    }
}
