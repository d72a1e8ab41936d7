//! What can be made to go wrong on a disk that has power, and what has happened on it.

use std::ops::Range;
use std::time::Duration;

/// The error that an injected fault answers with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskError {
    /// EIO.
    Io,
    /// ENOSPC, as from a thinly provisioned disk that has run out.
    NoSpace,
}

/// The faults in force. The default is none: `Faults { sync_error: Some(DiskError::Io),
/// ..Faults::default() }`.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every write fails, and changes nothing. The file system's own writes too: ext4 and XFS stop
    /// for good when their journal can't be written. See `write_error_in`.
    pub write_error: Option<DiskError>,
    /// Limits `write_error` to writes that touch one of these ranges of the image, as
    /// [`PowerCutDisk::extents`](crate::PowerCutDisk::extents) gives them for a file.
    pub write_error_in: Option<Vec<Range<u64>>>,
    /// Every sync fails. The writes that it should have covered will never be durable.
    pub sync_error: Option<DiskError>,
    /// Every read fails.
    pub read_error: Option<DiskError>,
    /// How long a write takes before it happens, drawn per write from this range. Writes overtake
    /// each other and syncs overtake writes. A cut, and healing the disk, end all delays: an hour
    /// is a disk that hangs until then.
    pub write_delay: Range<Duration>,
    /// How long a sync takes before anything becomes durable, drawn per sync from this range.
    pub sync_delay: Range<Duration>,
}

impl Faults {
    /// The error for a write of this range of the image.
    pub(super) fn write_error_at(&self, range: &Range<u64>) -> Option<DiskError> {
        let hits = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        match &self.write_error_in {
            Some(ranges) if !ranges.iter().any(hits) => None,
            _ => self.write_error,
        }
    }
}

/// Counts since the disk was made; none goes back at a cut.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Writes that the disk took.
    pub writes: u64,
    /// Bytes of those writes.
    pub written_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Reads that succeeded.
    pub reads: u64,
    /// Cuts.
    pub cuts: u64,
    /// Sectors of 512 bytes, counted per write, that cuts have dropped.
    pub dropped_sectors: u64,
    /// Writes of which a cut has kept a part.
    pub torn_writes: u64,
    /// Reads, writes and syncs that an injected fault has failed.
    pub failed_reads: u64,
    /// See `failed_reads`.
    pub failed_writes: u64,
    /// See `failed_reads`.
    pub failed_syncs: u64,
    /// Writes and syncs that were delayed.
    pub delayed: u64,
    /// Reads that returned a flipped bit.
    pub flipped_reads: u64,
    /// Requests refused because the power was off.
    pub without_power: u64,
    /// Writes made durable unasked because the cache was full.
    pub destaged: u64,
}
