//! The side file of a sealed segment: its index, and everything that was known after its last
//! batch, so that neither a seek nor a recovery has to read the segment.

use ringway_wire::limits::ALIGNMENT;
use ringway_wire::{DecodeError, LogId, Offset, Position};

use crate::log::codec::illegal;
use crate::log::envelope::{self, SavedError};
use crate::log::epochs::Epochs;
use crate::log::index::SparseIndex;
use crate::log::producers::Producers;

/// The first four bytes: "RWS1" read as little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"RWS1");

/// What is kept beside a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The partition's name in its batches.
    pub log_id: LogId,
    /// The segment's first offset.
    pub base_offset: Offset,
    /// The offset after its last record: the next segment's base.
    pub next_offset: Offset,
    /// Where its batches end in the file; what follows is zeros or a former life's.
    pub end: Position,
    /// Header CRC of its last batch.
    pub last_header_crc: u32,
    /// Append time of its last batch, the largest in it, in microseconds since 1970.
    pub last_append_time_us: i64,
    /// Where its offsets and times are.
    pub index: SparseIndex,
    /// The partition's epochs up to the segment's end.
    pub epochs: Epochs,
    /// The partition's producers as after the segment's last batch.
    pub producers: Producers,
}

impl Side {
    /// The file's bytes; it may be padded with anything.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        envelope::seal(MAGIC, |out| {
            out.u64(self.log_id.0);
            out.u64(self.base_offset.0);
            out.u64(self.next_offset.0);
            out.u64(self.end.0);
            out.i64(self.last_append_time_us);
            out.u32(self.last_header_crc);
            self.index.encode(out);
            self.epochs.encode(out);
            self.producers.encode(out);
        })
    }

    /// Reads the side file of the segment of `log_id` that begins at `base_offset`.
    ///
    /// # Errors
    /// [`SavedError`] names the first thing that is wrong: the segment has to be read instead.
    pub fn decode(bytes: &[u8], log_id: LogId, base_offset: Offset) -> Result<Self, SavedError> {
        let mut reader = envelope::open(MAGIC, bytes)?;
        for (field, wanted) in [("log id", log_id.0), ("base offset", base_offset.0)] {
            let found = reader.u64(field)?;
            if found != wanted {
                return Err(SavedError::Other {
                    field,
                    wanted,
                    found,
                });
            }
        }
        let side = Self {
            log_id,
            base_offset,
            next_offset: Offset(reader.u64("next offset")?),
            end: Position(reader.u64("end")?),
            last_append_time_us: reader.i64("last append time")?,
            last_header_crc: reader.u32("last header CRC")?,
            index: SparseIndex::decode(&mut reader, base_offset)?,
            epochs: Epochs::decode(&mut reader)?,
            producers: Producers::decode(&mut reader)?,
        };
        reader.finish()?;
        side.check()?;
        Ok(side)
    }

    /// Whether the fields agree with each other, as [`Side::decode`] demands.
    ///
    /// # Errors
    /// [`DecodeError::Illegal`] names the first that doesn't.
    pub fn check(&self) -> Result<(), DecodeError> {
        if self.next_offset <= self.base_offset {
            return illegal("next offset", self.next_offset.0);
        }
        if self.end.0 == 0 || !self.end.0.is_multiple_of(ALIGNMENT as u64) {
            return illegal("end", self.end.0);
        }
        if let Some(last) = self.index.entries().last()
            && (last.base_offset >= self.next_offset || last.position >= self.end)
        {
            return illegal("index entry offset", last.base_offset.0);
        }
        match self.epochs.latest() {
            Some(latest) if latest.first_offset > self.next_offset => {
                illegal("first offset of an epoch", latest.first_offset.0)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
