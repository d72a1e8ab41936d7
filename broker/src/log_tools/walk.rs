//! The walk along a segment, batch by batch, that goes on behind damage: what is whole, what is
//! not, and where the next whole batch begins. Pure: bytes come from a [`Source`].

use ringway_engine::log::{Chain, ReadFailed, Refusal};
use ringway_wire::Offset;
use ringway_wire::batch::{
    BATCH_MAGIC, BatchBytes, BatchError, BatchHeader, CheckedBatch, Inflater, StoredBatch,
    check_header,
};
use ringway_wire::limits::{ALIGNMENT, BATCH_HEADER_BYTES};

/// Unit in which an unreadable part of a file is passed over, in bytes.
const BLOCK_BYTES: u64 = ringway_engine::limits::BLOCK_BYTES as u64;
const STEP_BYTES: u64 = ALIGNMENT as u64;

/// A file that can be read anywhere.
pub(super) trait Source {
    /// Up to `wanted` bytes from `position` on, fewer only where the file ends; aligned to 16 where
    /// `position` is.
    ///
    /// # Errors
    /// [`ReadFailed`] when the device doesn't give them.
    fn bytes(&mut self, position: u64, wanted: usize) -> Result<&[u8], ReadFailed>;
}

/// What is wrong with a batch, or with the place where one should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Defect {
    /// It doesn't follow the batch before, or is none.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A CRC, or the structure under right CRCs.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// It goes beyond where the segment ends.
    #[error("the batch goes on to offset {next}, the segment ends at {end}")]
    Overlaps {
        /// The offset after the batch.
        next: Offset,
        /// The offset after the segment.
        end: Offset,
    },
}

impl Defect {
    /// A word for programs.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::FileEnds | Refusal::BeyondFile { .. }) => "missing",
            Self::Refused(Refusal::OtherLog { .. }) => "other_log",
            Self::Refused(Refusal::Offset { .. }) | Self::Overlaps { .. } => "gap",
            Self::Refused(Refusal::Epoch { .. }) => "epoch",
            Self::Refused(Refusal::Chain { .. }) => "chain",
            Self::Refused(Refusal::TimeBack { .. }) => "time",
            Self::Refused(Refusal::Unreadable) => "unreadable",
            Self::Refused(Refusal::Body { .. }) => "body_crc",
            Self::Refused(Refusal::Header(error)) | Self::Batch(error) => batch_kind(error),
        }
    }
}

const fn batch_kind(error: &BatchError) -> &'static str {
    match error {
        BatchError::Crc { part, .. } => match part.as_bytes() {
            b"body" => "body_crc",
            b"record" => "record_crc",
            _ => "header_crc",
        },
        BatchError::Magic(_) => "no_batch",
        _ => "malformed",
    }
}

/// Opens batches, compressed ones too. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct Opener {
    inflater: Inflater,
    space: BatchBytes,
}

impl Opener {
    /// Checks a batch with both its CRCs and everything else, and opens it; `None` where it is
    /// compressed with a codec that this build doesn't have.
    ///
    /// # Errors
    /// [`BatchError`] names the first thing that is wrong.
    pub(super) fn open<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> Result<Option<CheckedBatch<'a>>, BatchError> {
        let stored = StoredBatch::check(bytes)?;
        if let Some(batch) = stored.uncompressed() {
            return Ok(Some(batch));
        }
        if !stored.codec().available() {
            return Ok(None);
        }
        stored.inflate(&mut self.inflater, &mut self.space)?;
        CheckedBatch::check_inflated(&self.space).map(Some)
    }
}

/// What comes next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A batch in its place, `header.batch_bytes` from `position` on.
    Batch {
        /// Where it begins.
        position: u64,
        /// Its header, which is right.
        header: Box<BatchHeader>,
        /// What is wrong behind the header.
        defect: Option<Defect>,
        /// Whether its records were looked at.
        opened: bool,
    },
    /// The log is broken here.
    Broken {
        /// Where the next batch should begin.
        position: u64,
        /// The first offset that is not there.
        from: Offset,
        /// The offset at which the log goes on; equal to `from` when nothing is missing and only
        /// the order is wrong.
        to: Offset,
        /// Where it goes on in this segment, if it does.
        resumed: Option<u64>,
        /// What is wrong at `position`.
        defect: Defect,
    },
}

/// A walk through one segment.
#[derive(Debug)]
pub(super) struct Walk {
    /// What the next batch has to follow.
    pub(super) chain: Chain,
    /// Where the next batch should begin.
    pub(super) position: u64,
    /// Bytes in which batches can lie.
    limit: u64,
    /// The offset after the segment's last.
    end: Offset,
    opener: Opener,
}

impl Walk {
    /// A walk from the start of a segment whose batches lie in the first `limit` bytes and end
    /// before offset `end`.
    pub(super) fn new(chain: Chain, limit: u64, end: Offset) -> Self {
        Self {
            chain,
            position: 0,
            limit,
            end,
            opener: Opener::default(),
        }
    }

    /// A walk from `position` on, to wherever batches of the log go on in the first `limit` bytes.
    pub(super) fn onwards(chain: Chain, position: u64, limit: u64) -> Self {
        Self {
            position,
            ..Self::new(chain, limit, Offset(u64::MAX))
        }
    }

    /// The next batch or break; `None` behind the last one.
    pub(super) fn next(&mut self, source: &mut impl Source) -> Option<Step> {
        if self.chain.next_offset >= self.end {
            return None;
        }
        let left = self.limit.saturating_sub(self.position);
        if left < BATCH_HEADER_BYTES as u64 {
            return Some(self.broken(None, Refusal::FileEnds.into()));
        }
        let Ok(bytes) = source.bytes(self.position, BATCH_HEADER_BYTES) else {
            return Some(self.look_on(source, Refusal::Unreadable.into()));
        };
        if bytes.len() < BATCH_HEADER_BYTES {
            return Some(self.broken(None, Refusal::FileEnds.into()));
        }
        let refusal = match self.chain.header(bytes) {
            Ok(header) => match self.fits(&header, left) {
                Ok(()) => return Some(self.batch(header, source)),
                Err(defect) => defect,
            },
            Err(refusal) => refusal.into(),
        };
        // A right batch of this log in the wrong place is where the log goes on.
        if self.own(self.position, source).is_some() {
            return Some(self.broken_at(self.position, source, refusal));
        }
        Some(self.look_on(source, refusal))
    }

    fn fits(&self, header: &BatchHeader, left: u64) -> Result<(), Defect> {
        let batch_bytes = u64::from(header.batch_bytes);
        if batch_bytes > left {
            return Err(Refusal::BeyondFile { batch_bytes, left }.into());
        }
        let (next, end) = (header.next_offset(), self.end);
        if next > end {
            return Err(Defect::Overlaps { next, end });
        }
        Ok(())
    }

    fn batch(&mut self, header: BatchHeader, source: &mut impl Source) -> Step {
        let position = self.position;
        let opened = match source.bytes(position, header.batch_bytes as usize) {
            Ok(bytes) => check(&mut self.opener, bytes),
            Err(ReadFailed) => Err(Refusal::Unreadable.into()),
        };
        self.chain.advance(&header);
        self.position += u64::from(header.batch_bytes);
        Step::Batch {
            position,
            header: Box::new(header),
            opened: opened.as_ref().is_ok_and(|opened| *opened),
            defect: opened.err(),
        }
    }

    /// Looks for the next right batch of this log behind a place where there is none.
    fn look_on(&mut self, source: &mut impl Source, defect: Defect) -> Step {
        let mut at = self.position + STEP_BYTES;
        while at + BATCH_HEADER_BYTES as u64 <= self.limit {
            let Ok(magic) = source.bytes(at, size_of::<u32>()) else {
                at = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
                continue;
            };
            if magic == BATCH_MAGIC.to_le_bytes() && self.own(at, source).is_some() {
                return self.broken_at(at, source, defect);
            }
            at += STEP_BYTES;
        }
        self.broken(None, defect)
    }

    /// The header at `at` if it is a whole batch's of this log, at or behind the next offset.
    fn own(&self, at: u64, source: &mut impl Source) -> Option<BatchHeader> {
        let bytes = source.bytes(at, BATCH_HEADER_BYTES).ok()?;
        let header = check_header(bytes, true).ok()?;
        let ours =
            header.log_id == self.chain.log_id && header.base_offset >= self.chain.next_offset;
        (ours && self.fits(&header, self.limit - at).is_ok()).then_some(header)
    }

    /// Goes on with the right batch at `at`, whatever it follows.
    fn broken_at(&mut self, at: u64, source: &mut impl Source, defect: Defect) -> Step {
        match self.own(at, source) {
            Some(header) => self.broken(Some((at, header)), defect),
            None => self.broken(None, defect),
        }
    }

    fn broken(&mut self, resumed: Option<(u64, BatchHeader)>, defect: Defect) -> Step {
        let (position, from) = (self.position, self.chain.next_offset);
        let to = match &resumed {
            Some((_, header)) => header.base_offset,
            None => self.end,
        };
        let chain = &mut self.chain;
        chain.next_offset = to;
        chain.last_header_crc = None;
        if let Some((at, header)) = &resumed {
            self.position = *at;
            // What goes back is told once, and what follows is compared with it.
            chain.last_epoch = header.leader_epoch;
            chain.last_append_time_us = header.append_time_us;
        } else {
            self.position = self.limit;
        }
        Step::Broken {
            position,
            from,
            to,
            resumed: resumed.map(|(at, _)| at),
            defect,
        }
    }
}

/// Checks everything behind a right header: the body's CRC, the structure, and every record by its
/// own CRC, where the records can be seen: `true` then.
fn check(opener: &mut Opener, bytes: &[u8]) -> Result<bool, Defect> {
    let Some(batch) = opener.open(bytes)? else {
        return Ok(false);
    };
    for record in batch.records() {
        record.verify()?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
