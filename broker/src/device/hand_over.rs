//! The operations that the ring doesn't carry out, as jobs for the housekeeper.

use ringway_engine::device::{DeviceError, Done, FileId, Op, OpId, SegmentName};
use ringway_engine::log::Slot;
use ringway_wire::{ShardId, TopicPartition};

use super::Disk;
use crate::housekeeper::Job;

/// What follows from a job when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The segment has its name, if the job succeeded: tell [`Disk::named`].
    Named(FileId),
    /// The checkpoint slot is whole, if the job succeeded: the next goes to the other.
    Saved,
}

impl Disk {
    /// The job of an operation that is not the ring's. A segment to be removed is closed first.
    ///
    /// # Errors
    /// When the operation is about a file that was never declared.
    ///
    /// # Panics
    /// When the operation is the ring's.
    pub(crate) fn hand_over(
        &mut self,
        op: Op,
        (shard, slot): (ShardId, Slot),
    ) -> Result<(Job, Option<After>), DeviceError> {
        let job = match op {
            Op::Prepare {
                file,
                log,
                bytes,
                filled,
            } => {
                self.files.declare(file, log, SegmentName::Next);
                Job::Prepare { log, bytes, filled }
            }
            Op::Fill { file, start, end } => {
                let (log, name) = self.declared(file)?;
                Job::Fill {
                    log,
                    name,
                    next_name: self.files.next_name(file),
                    start,
                    end,
                }
            }
            Op::Name { file, base } => {
                let (log, _) = self.declared(file)?;
                self.files.naming(file, base);
                return Ok((Job::Name { log, base }, Some(After::Named(file))));
            }
            Op::Remove { file } => {
                let (log, name) = self.declared(file)?;
                self.files.forget(file);
                Job::Remove { log, name }
            }
            Op::SaveCheckpoint { bytes } => {
                let job = Job::SaveCheckpoint { shard, slot, bytes };
                return Ok((job, Some(After::Saved)));
            }
            Op::SaveSide { log, base, bytes } => Job::SaveSide { log, base, bytes },
            Op::LoadSide { log, base } => Job::LoadSide { log, base },
            Op::RemovePartition { log } => {
                self.files.forget_partition(log);
                Job::RemovePartition { log }
            }
            other => panic!("the ring carries out {other:?}"),
        };
        Ok((job, None))
    }

    fn declared(&self, file: FileId) -> Result<(TopicPartition, SegmentName), DeviceError> {
        self.files
            .segment(file)
            .ok_or_else(|| super::undeclared(file))
    }

    /// The segment has its new name, or still the old one.
    pub(crate) fn named(&mut self, file: FileId, done: bool) {
        self.files.named(file, done);
    }

    /// Ends an operation that couldn't be started.
    pub(crate) fn refuse(&mut self, op: OpId, error: DeviceError) {
        let result = Err(error);
        self.done.push_back(Done { op, result });
    }
}
