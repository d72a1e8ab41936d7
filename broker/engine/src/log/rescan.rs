//! Rebuilding the side file of a sealed segment by reading the segment, in the background.

use ringway_wire::{LogId, Offset, Position};

use crate::device::SegmentName;
use crate::log::chain::Refusal;
use crate::log::scan::{ReadFailed, Replay, Scan, Scanned};
use crate::log::side::Side;

/// What the rebuilding needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum RescanStep {
    /// Read these bytes of the segment and call [`Rescan::read`].
    Read {
        /// Where; a whole block.
        position: Position,
        /// How many; whole blocks, perhaps beyond the file's end.
        bytes: usize,
    },
    /// Nothing: this is the side file, or why there is none.
    Finished(Result<Box<Side>, SegmentDamaged>),
}

/// A sealed segment that doesn't hold all the batches up to the next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {base} is damaged at position {position}, offset {offset} of {end}: {reason}")]
pub struct SegmentDamaged {
    /// The segment.
    pub base: Offset,
    /// Where the first batch that isn't there would begin.
    pub position: Position,
    /// The first offset that isn't there.
    pub offset: Offset,
    /// Where the segment should end.
    pub end: Offset,
    /// What is there instead.
    pub reason: Refusal,
}

/// Reads a sealed segment from start to end.
#[derive(Clone, Debug)]
pub struct Rescan {
    scan: Scan,
    replay: Replay,
    end: Offset,
    ended: Option<Refusal>,
}

impl Rescan {
    /// The segment that begins at `base`, in a file of `file_bytes`, and ends at `end`, the next
    /// one's base. `before` is the side file of the segment before it; without it, or if it
    /// doesn't end at `base`, producers and epochs are only those that appear in the segment.
    #[must_use]
    pub fn new(
        log_id: LogId,
        base: Offset,
        file_bytes: u64,
        end: Offset,
        before: Option<&Side>,
    ) -> Self {
        let before = before.filter(|side| side.log_id == log_id && side.next_offset == base);
        Self {
            scan: Scan::new(SegmentName::Base(base), base, file_bytes),
            replay: before.map_or_else(|| Replay::start(log_id, base), Replay::after),
            end,
            ended: None,
        }
    }

    /// What is needed next; asking again changes nothing.
    #[must_use]
    pub fn step(&self) -> RescanStep {
        let reason = match (&self.ended, self.scan.wanted()) {
            (None, Some((position, bytes))) => return RescanStep::Read { position, bytes },
            (None, None) => Refusal::FileEnds,
            (Some(refusal), _) => refusal.clone(),
        };
        let offset = self.replay.chain.next_offset;
        RescanStep::Finished(if offset == self.end {
            Ok(Box::new(self.scan.side(&self.replay)))
        } else {
            Err(SegmentDamaged {
                base: self.scan.base,
                position: self.scan.position,
                offset,
                end: self.end,
                reason,
            })
        })
    }

    /// Takes what the read brought; fewer bytes only where the file ends.
    pub fn read(&mut self, result: Result<&[u8], ReadFailed>) {
        let scanned = match result {
            Ok(bytes) => self.scan.read(&mut self.replay, bytes),
            Err(ReadFailed) => self.scan.failed(),
        };
        if let Scanned::Ended(refusal) = scanned {
            self.ended = Some(refusal);
        }
    }
}
