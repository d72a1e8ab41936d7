//! A disk that forgets on purpose: it carries out the engine's operations late and in any order,
//! loses what was not synced at a crash, and refuses whatever breaks the contract of
//! [`ringway_engine::device`] with a panic.
//!
//! Assumptions about the medium, the same as the engine's: a block of 4,096 bytes is written whole
//! or not at all and leaves its neighbours alone ([`DeviceConfig::torn_bytes`] can take that back);
//! a synced block stays as it is.

mod block;
mod crash;
mod disk;
mod file;
mod step;
mod submit;
mod task;
#[cfg(test)]
mod tests;

pub use crash::{Crash, Damage};

use std::collections::BTreeMap;

use ringway_engine::buffer::{Block, Slice};
use ringway_engine::device::{Device, Done, FileId, Op, OpId, Outcome, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_engine::shard::FoundFile;
use ringway_wire::TopicPartition;

use crate::device::disk::Disk;
use crate::device::step::Completed;
use crate::device::task::Task;

/// What a durable write makes durable beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableWrite {
    /// Everything that was done before it was submitted: the device has no FUA, so the kernel
    /// flushes after the write.
    Flushes,
    /// Nothing: the device writes through (FUA).
    ItselfOnly,
}

/// What one sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncReach {
    /// All files of the device, though not their metadata.
    Device,
    /// The file alone. [`Op::Flush`] then covers nothing.
    File,
}

/// How often operations fail, of 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Writes: some of their blocks get written all the same.
    pub write: u64,
    /// Flushes and syncs: the cache forgets some of what it held.
    pub sync: u64,
    /// Reads.
    pub read: u64,
    /// Preparations that find no space.
    pub full: u64,
    /// Whatever else the housekeeper does.
    pub housekeeping: u64,
}

/// What kind of disk it is. Equal for its whole life but for `failures`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceConfig {
    /// What a durable write covers.
    pub durable_write: DurableWrite,
    /// What a sync covers.
    pub sync_reach: SyncReach,
    /// How often operations fail.
    pub failures: Failures,
    /// Preparations, of 1,000, that use a segment of before the simulation when the disk has no
    /// removed one of that size.
    pub recycled: u64,
    /// Bytes of the smallest part that is written whole: the block, or a divisor of it.
    pub torn_bytes: usize,
    /// Bytes of all segments together.
    pub capacity_bytes: u64,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            durable_write: DurableWrite::ItselfOnly,
            sync_reach: SyncReach::Device,
            failures: Failures::default(),
            recycled: 300,
            torn_bytes: BLOCK_BYTES,
            capacity_bytes: u64::MAX,
        }
    }
}

/// Memory of the engine that an operation in flight holds.
#[derive(Debug)]
enum Held {
    Parts(Vec<Slice>),
    Buffer(Block),
}

/// The simulated disk. See the module's page.
#[derive(Debug)]
pub struct SimDevice {
    disk: Disk,
    held: BTreeMap<OpId, Held>,
}

impl SimDevice {
    /// An empty disk; what it does with time, order and failures depends on `seed` alone.
    #[must_use]
    pub fn new(config: DeviceConfig, seed: u64) -> Self {
        Self {
            disk: Disk::new(config, seed),
            held: BTreeMap::new(),
        }
    }

    /// Changes how often operations fail from now on.
    pub fn set_failures(&mut self, failures: Failures) {
        self.disk.config.failures = failures;
    }

    /// Nothing fails any more, and there is space.
    pub fn heal(&mut self) {
        self.disk.config.failures = Failures::default();
        self.disk.config.capacity_bytes = u64::MAX;
    }

    /// Both slots of the checkpoint are gone.
    pub fn lose_checkpoints(&mut self) {
        self.disk.slots = Default::default();
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.disk.flights.len()
    }

    /// The segments in a partition's directory, by name.
    #[must_use]
    pub fn list(&self, log: TopicPartition) -> Vec<FoundFile> {
        self.disk.list(log)
    }

    /// The contents of the checkpoint's slots that were ever written.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Vec<u8>> {
        self.disk
            .slots
            .iter()
            .filter_map(|slot| slot.bytes.clone())
            .collect()
    }

    /// A segment's bytes as a read would see them now.
    ///
    /// # Panics
    /// When there is no such segment.
    #[must_use]
    pub fn segment_bytes(&self, log: TopicPartition, name: SegmentName) -> Vec<u8> {
        self.disk.segment_bytes(log, name)
    }

    /// Gives a recycled segment's block other bytes of a former life, if this life hasn't written
    /// it: what such a block holds is anybody's guess, so a simulation may choose the worst. False
    /// when the block has been written.
    pub fn choose_former_life(
        &mut self,
        log: TopicPartition,
        name: SegmentName,
        block: usize,
        bytes: &[u8],
    ) -> bool {
        self.disk.choose_former_life(log, name, block, bytes)
    }

    /// Removes what a partition left behind: metadata doesn't name it any more.
    pub fn remove_orphan(&mut self, log: TopicPartition) {
        self.disk.remove_partition(log);
    }
}

impl Device for SimDevice {
    fn declare(&mut self, file: FileId, log: TopicPartition, name: SegmentName) {
        self.disk.declare(file, log, name);
    }

    fn submit(&mut self, id: OpId, op: Op) {
        let held = self.disk.submit(id, op);
        if let Some(held) = held {
            self.held.insert(id, held);
        }
    }

    fn wait(&mut self) -> Option<Done> {
        let (flight, result) = self.disk.complete()?;
        let held = self.held.remove(&flight.id);
        if let (Task::Write { data, .. }, Some(Held::Parts(parts))) = (&flight.task, &held) {
            submit::check_frozen(data, parts);
        }
        let result = result.map(|completed| match (completed, held) {
            (Completed::Done, _) => Outcome::Done,
            (Completed::Prepared(filled), _) => Outcome::Prepared { filled },
            (Completed::Side(bytes), _) => Outcome::Side(bytes),
            (Completed::Read(bytes), Some(Held::Buffer(mut buffer))) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Outcome::Read {
                    buffer,
                    bytes: bytes.len(),
                }
            }
            (Completed::Read(_), _) => unreachable!("a read holds its buffer"),
        });
        Some(Done {
            op: flight.id,
            result,
        })
    }
}
