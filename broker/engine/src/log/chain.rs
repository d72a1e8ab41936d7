//! The chain of batches: which one may follow, and why another may not. Each batch names the
//! header CRC of the one before it, so a batch of a segment's former life is never taken for new.

use ringway_wire::batch::{BatchError, BatchHeader, check_header};
use ringway_wire::limits::LEADER_PART_BYTES;
use ringway_wire::{LeaderEpoch, LogId, Offset};

/// Why bytes in a segment are not the log's next batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file has no room for another batch.
    #[error("the file ends")]
    FileEnds,
    /// No header, or one that is damaged or of a newer build.
    #[error(transparent)]
    Header(#[from] BatchError),
    /// A batch of another partition.
    #[error("the batch belongs to log {found:016x}, not to {wanted:016x}", wanted = .wanted.0, found = .found.0)]
    OtherLog {
        /// This partition's name.
        wanted: LogId,
        /// The batch's.
        found: LogId,
    },
    /// A batch from elsewhere in the partition.
    #[error("the batch begins at offset {found}, not at {wanted}")]
    Offset {
        /// The next offset.
        wanted: Offset,
        /// The batch's.
        found: Offset,
    },
    /// A batch of an older leader.
    #[error("the batch is of epoch {found}, the one before it of {last}")]
    Epoch {
        /// The epoch so far.
        last: LeaderEpoch,
        /// The batch's.
        found: LeaderEpoch,
    },
    /// A batch that followed another one than the last.
    #[error(
        "the batch followed one with header CRC {found:#010x}, the one before it has {wanted:#010x}"
    )]
    Chain {
        /// The last batch's header CRC.
        wanted: u32,
        /// What the batch says it was.
        found: u32,
    },
    /// A batch that was appended before the last one.
    #[error("the batch was appended at {found} µs, the one before it at {last} µs")]
    TimeBack {
        /// The last batch's append time, in microseconds since 1970.
        last: i64,
        /// The batch's.
        found: i64,
    },
    /// A batch longer than the rest of its file.
    #[error("the batch has {batch_bytes} bytes, the file {left} more")]
    BeyondFile {
        /// The batch's length.
        batch_bytes: u64,
        /// What is left of the file.
        left: u64,
    },
    /// A batch whose header is right and whose body isn't: torn, or damaged.
    #[error("the body CRC is {stored:#010x}, its bytes give {computed:#010x}")]
    Body {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// The device didn't give the bytes.
    #[error("the device can't read it")]
    Unreadable,
}

impl Refusal {
    /// Whether it is what one expects behind a log's end: nothing, or whole batches of a former
    /// life. Anything else was a batch that didn't survive.
    #[must_use]
    pub const fn is_plain_end(&self) -> bool {
        match self {
            Self::FileEnds
            | Self::Header(BatchError::Magic(_))
            | Self::OtherLog { .. }
            | Self::Offset { .. }
            | Self::Epoch { .. }
            | Self::Chain { .. }
            | Self::TimeBack { .. } => true,
            Self::Header(_) | Self::BeyondFile { .. } | Self::Body { .. } | Self::Unreadable => {
                false
            }
        }
    }
}

/// What the next batch has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The partition's name.
    pub log_id: LogId,
    /// The offset of the next batch.
    pub next_offset: Offset,
    /// Header CRC of the last batch, 0 before the first; `None` when the batches before were
    /// removed and nothing remembers it.
    pub last_header_crc: Option<u32>,
    /// The epoch so far.
    pub last_epoch: LeaderEpoch,
    /// Append time of the last batch, in microseconds since 1970; `i64::MIN` before the first.
    pub last_append_time_us: i64,
}

impl Chain {
    /// The start of a log whose first batch will be at `offset`.
    #[must_use]
    pub const fn start(log_id: LogId, offset: Offset) -> Self {
        Self {
            log_id,
            next_offset: offset,
            last_header_crc: if offset.0 == 0 { Some(0) } else { None },
            last_epoch: LeaderEpoch(0),
            last_append_time_us: i64::MIN,
        }
    }

    /// Reads the header at the start of `bytes`, at least 128 of them, and checks all that can be
    /// checked without the body.
    ///
    /// # Errors
    /// [`Refusal`] when it isn't the next batch's.
    pub fn header(&self, bytes: &[u8]) -> Result<BatchHeader, Refusal> {
        let header = check_header(bytes, true)?;
        if header.log_id != self.log_id {
            return Err(Refusal::OtherLog {
                wanted: self.log_id,
                found: header.log_id,
            });
        }
        if header.base_offset != self.next_offset {
            return Err(Refusal::Offset {
                wanted: self.next_offset,
                found: header.base_offset,
            });
        }
        if header.leader_epoch < self.last_epoch {
            return Err(Refusal::Epoch {
                last: self.last_epoch,
                found: header.leader_epoch,
            });
        }
        if let Some(wanted) = self.last_header_crc
            && header.prev_header_crc != wanted
        {
            return Err(Refusal::Chain {
                wanted,
                found: header.prev_header_crc,
            });
        }
        if header.append_time_us < self.last_append_time_us {
            return Err(Refusal::TimeBack {
                last: self.last_append_time_us,
                found: header.append_time_us,
            });
        }
        if header.last_offset() == Offset(u64::MAX) {
            return Err(Refusal::Header(BatchError::Field {
                field: "last_offset_delta",
                value: header.last_offset_delta.into(),
                why: "no offset would be left for the next batch",
            }));
        }
        Ok(header)
    }

    /// Goes on behind a batch whose header was accepted.
    pub const fn advance(&mut self, header: &BatchHeader) {
        self.next_offset = header.next_offset();
        self.last_header_crc = Some(header.header_crc);
        self.last_epoch = header.leader_epoch;
        self.last_append_time_us = header.append_time_us;
    }
}

/// Checks the body of a whole batch.
///
/// # Errors
/// [`Refusal::Body`] when its CRC is another.
pub(super) fn check_body(header: &BatchHeader, batch: &[u8]) -> Result<(), Refusal> {
    let computed = crc32c::crc32c(&batch[LEADER_PART_BYTES..]);
    if computed == header.body_crc {
        return Ok(());
    }
    Err(Refusal::Body {
        stored: header.body_crc,
        computed,
    })
}
