//! Submission: the contract is checked here, and what an operation will do is decided.

use ringway_engine::buffer::Slice;
use ringway_engine::device::{DeviceError, FileId, Op, OpId, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::TopicPartition;

use crate::device::Held;
use crate::device::block::Data;
use crate::device::disk::Disk;
use crate::device::task::{Flight, Inode, Task};

/// Stops at a breach of the contract by the engine.
macro_rules! contract {
    ($condition:expr, $($text:tt)+) => {
        assert!($condition, "the device's contract is broken: {}", format_args!($($text)+))
    };
}
pub(super) use contract;

fn blocks(bytes: u64, what: &str) -> usize {
    contract!(
        bytes.is_multiple_of(BLOCK_BYTES as u64),
        "{what} of {bytes} is no multiple of 4096"
    );
    (bytes / BLOCK_BYTES as u64) as usize
}

fn check_address(bytes: &[u8]) {
    let address = bytes.as_ptr() as usize;
    contract!(
        address.is_multiple_of(BLOCK_BYTES),
        "memory at {address:#x} is not aligned"
    );
}

/// What was submitted is still there at the completion.
pub(super) fn check_frozen(data: &[Data], parts: &[Slice]) {
    let held = parts.iter().flat_map(|part| part.chunks_exact(BLOCK_BYTES));
    for (block, (submitted, now)) in data.iter().zip(held).enumerate() {
        let Data::Bytes(submitted) = submitted else {
            unreachable!("a write brings bytes")
        };
        contract!(
            **submitted == *now,
            "block {block} of a write changed while it was in flight"
        );
    }
}

impl Disk {
    pub(super) fn declare(&mut self, file: FileId, log: TopicPartition, name: SegmentName) {
        contract!(
            !self.ids.contains_key(&file),
            "{file:?} stands for two segments"
        );
        let inode = self.find((log, name));
        self.ids.insert(file, inode);
    }

    fn inode(&self, file: FileId) -> Inode {
        let inode = self.ids.get(&file).copied().flatten();
        contract!(
            inode.is_some(),
            "{file:?} was used before it was declared or prepared"
        );
        let inode = inode.expect("it was just checked");
        contract!(
            self.files[inode].visible.is_some(),
            "{file:?} was used after its removal"
        );
        inode
    }

    pub(super) fn submit(&mut self, id: OpId, op: Op) -> Option<Held> {
        contract!(
            self.flights.iter().all(|flight| flight.id != id),
            "{id:?} was used twice"
        );
        let error = self.draw_failure(&op);
        let (task, held) = self.task(op);
        let mark = self.ordinal + 1;
        let flight = Flight {
            id,
            task,
            step: 0,
            mark,
            error,
        };
        self.check_overlap(&flight);
        self.flights.push(flight);
        held
    }

    fn draw_failure(&mut self, op: &Op) -> Option<DeviceError> {
        let failures = self.config.failures;
        let chance = match op {
            Op::Write { .. } => failures.write,
            Op::Flush | Op::Sync { .. } => failures.sync,
            Op::Read { .. } => failures.read,
            Op::Prepare { .. } => failures.full,
            _ => failures.housekeeping,
        };
        if !self.random.chance(chance) {
            return None;
        }
        Some(match op {
            Op::Prepare { .. } => DeviceError::Full,
            _ => DeviceError::Failed("input/output error (simulated)".to_owned()),
        })
    }

    fn task(&mut self, op: Op) -> (Task, Option<Held>) {
        let task = match op {
            Op::Write {
                file,
                position,
                parts,
                durable,
            } => {
                let (inode, start) = (self.inode(file), blocks(position.0, "a position"));
                let data = self.write_data(inode, start, &parts);
                let task = Task::Write {
                    inode,
                    start,
                    data,
                    durable,
                };
                return (task, Some(Held::Parts(parts)));
            }
            Op::Read {
                file,
                position,
                buffer,
                bytes,
            } => {
                let (inode, start) = (self.inode(file), blocks(position.0, "a position"));
                check_address(&buffer);
                contract!(
                    bytes > 0 && bytes <= buffer.len(),
                    "{bytes} bytes don't fit the buffer"
                );
                let task = Task::Read {
                    inode,
                    start,
                    blocks: blocks(bytes as u64, "a length"),
                };
                return (task, Some(Held::Buffer(buffer)));
            }
            Op::Flush => Task::Flush,
            Op::Sync { file } => Task::Sync {
                inode: self.inode(file),
            },
            Op::Prepare {
                file,
                log,
                bytes,
                filled,
            } => {
                contract!(
                    filled <= bytes && bytes > 0,
                    "{filled} of {bytes} bytes can't be filled"
                );
                // A `next.log` that is there already is replaced.
                let known = self.ids.get(&file).copied().flatten();
                let named = known.is_some_and(|inode| {
                    self.files[inode].visible != Some((log, SegmentName::Next))
                });
                contract!(!named, "{file:?} is prepared but is a segment already");
                let (blocks, filled) = (blocks(bytes, "a length"), blocks(filled, "a filled part"));
                Task::Prepare {
                    file,
                    log,
                    blocks,
                    filled,
                    inode: None,
                }
            }
            Op::Fill { file, start, end } => self.fill_task(file, start.0, end.0),
            Op::Name { file, base } => {
                let inode = self.inode(file);
                let (log, name) = self.files[inode].visible.expect("it was just checked");
                contract!(
                    name == SegmentName::Next,
                    "{file:?} has the name {name:?} already"
                );
                let taken = self.find((log, SegmentName::Base(base)));
                let in_use = taken
                    .is_some_and(|inode| self.files[inode].blocks.iter().any(|block| block.in_use));
                contract!(!in_use, "the name {base} belongs to a segment in use");
                Task::Name { inode, log, base }
            }
            Op::SaveSide { log, base, bytes } => Task::SaveSide { log, base, bytes },
            Op::LoadSide { log, base } => Task::LoadSide { log, base },
            Op::SaveCheckpoint { bytes } => {
                let one = |flight: &Flight| matches!(flight.task, Task::SaveCheckpoint { .. });
                contract!(
                    !self.flights.iter().any(one),
                    "two checkpoints are in flight"
                );
                let slot = usize::from(self.slots[1].saved < self.slots[0].saved);
                Task::SaveCheckpoint { bytes, slot }
            }
            Op::Remove { file } => {
                let inode = self.inode(file);
                let used = self
                    .flights
                    .iter()
                    .any(|flight| flight.uses() == Some(inode));
                contract!(!used, "{file:?} is removed while it is in use");
                Task::Remove { inode }
            }
            Op::RemovePartition { log } => Task::RemovePartition { log },
        };
        (task, None)
    }

    fn write_data(&self, inode: Inode, start: usize, parts: &[Slice]) -> Vec<Data> {
        let mut data = Vec::new();
        for part in parts {
            check_address(part);
            contract!(!part.is_empty(), "a part is empty");
            blocks(part.len() as u64, "a part's length");
            data.extend(part.chunks_exact(BLOCK_BYTES).map(Data::from_bytes));
        }
        let (end, len) = (start + data.len(), self.files[inode].blocks.len());
        contract!(!data.is_empty(), "a write of nothing");
        contract!(end <= len, "a write goes to block {end} of a file of {len}");
        data
    }

    fn fill_task(&self, file: FileId, start: u64, end: u64) -> Task {
        let inode = self.inode(file);
        let (start, end) = (blocks(start, "a position"), blocks(end, "a position"));
        let blocks = &self.files[inode].blocks;
        contract!(
            start < end && end <= blocks.len(),
            "a fill of {start}..{end}"
        );
        let written = blocks[start..end].iter().any(|block| block.in_use);
        contract!(
            !written,
            "a fill of {start}..{end} goes over what was written"
        );
        Task::Fill { inode, start, end }
    }

    /// At most one write in flight touches a block, and a file is used only once it is prepared.
    fn check_overlap(&self, flight: &Flight) {
        for other in &self.flights {
            if let (Some((inode, range)), Some((of, others))) = (flight.changes(), other.changes())
            {
                let apart = inode != of || range.end <= others.start || others.end <= range.start;
                contract!(
                    apart,
                    "blocks {range:?} and {others:?} are in flight at once"
                );
            }
            if let Task::Remove { inode } = other.task {
                contract!(
                    flight.uses() != Some(inode),
                    "a file is used during its removal"
                );
            }
            if let (Task::Name { inode, .. }, Task::Name { inode: of, .. }) =
                (&flight.task, &other.task)
            {
                contract!(inode != of, "a file is named twice at once");
            }
        }
    }
}
