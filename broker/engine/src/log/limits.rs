//! The limits of what a log keeps beside its batches and of its recovery, and why they fit
//! together.

use std::time::Duration;

use ringway_wire::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES};

use crate::limits::BLOCK_BYTES;

/// A segment's index has an entry for the first batch at or after every multiple of this, in
/// bytes. A 256 MiB segment has at most 4,095 entries.
pub const INDEX_STEP_BYTES: u64 = 64 << 10;
/// A segment file of up to this many bytes has no index: one cold read covers it.
pub const INDEXED_SEGMENT_BYTES_MIN: u64 = (1 << 20) + 1;
/// Entries of an active segment's index that a checkpoint keeps. Checkpoints are rewritten every
/// second; 64 entries place a seek after a restart within 4 MiB in a 256 MiB segment.
pub const CHECKPOINT_INDEX_ENTRIES_MAX: usize = 64;

/// Batches remembered per producer, so that a retry of any batch in flight is recognised.
pub const PRODUCER_BATCHES_MAX: usize = 5;
/// Producers remembered per partition. A remembered producer takes about 130 bytes in memory and
/// about 60 in a checkpoint.
pub const PRODUCERS_MAX: usize = 16_384;
/// Producers forgotten at once, the longest unused first, when there is one too many: their order
/// is then looked for once per this many newcomers.
pub const PRODUCERS_FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// A producer that appended nothing for so long, counted by append times, is forgotten when a
/// segment begins: seven days, in microseconds.
pub const PRODUCER_EXPIRY_US: i64 = 7 * 24 * 3_600 * 1_000_000;

/// Leader epochs remembered per partition; beyond it the two oldest become one.
pub const EPOCHS_MAX: usize = 1_024;

/// Bytes of recovery's first read in a segment, unless a header needs the next block too. After a
/// clean stop it is the only one.
pub const RECOVERY_READ_BYTES_MIN: u64 = BLOCK_BYTES as u64;
/// Recovery's reads grow up to this many bytes, and beyond it only for a batch that is longer.
pub const RECOVERY_READ_BYTES_MAX: u64 = 1 << 20;
/// Each of recovery's reads is this many times as long as the one before.
pub const RECOVERY_READ_GROWTH: u64 = 16;
/// Side files that recovery hands out ready to be written, those of the newest segments that it
/// passed; older ones are left to a rescan, so that memory stays bounded.
pub const RECOVERED_SIDES_MAX: usize = 4;

/// A segment that will be full sooner than this gets its successor prepared early.
pub const PREPARE_TIME: Duration = Duration::from_secs(1);

/// Bytes of the smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Each rung of the ladder of segment sizes is this many times the one below.
pub const SEGMENT_STEP: u64 = 4;
/// How long a segment should take to fill: short enough that a file is of one kind of traffic,
/// long enough that rolls don't count.
pub const SEGMENT_FILL_TIME: Duration = Duration::from_secs(10);
/// A segment of up to this many bytes is filled with zeros whole before it is used.
pub const ZERO_WHOLE_BYTES_MAX: u64 = 1 << 20;
/// How far ahead of the writer a larger one is kept filled.
pub const WINDOW_TIME: Duration = Duration::from_millis(500);
/// At least this many bytes ahead.
pub const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// At most this many bytes ahead: it is written space that may never be used.
pub const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// Segments kept ready take at most one part in this many of the disk,
pub const POOL_DISK_SHARE: u64 = 20;
/// and at most this many bytes.
pub const POOL_BYTES_MAX: u64 = 8 << 30;

const _: () = {
    assert!(
        INDEX_STEP_BYTES.is_multiple_of(BLOCK_BYTES as u64),
        "index steps begin at blocks"
    );
    assert!(
        BATCH_HEADER_BYTES <= BLOCK_BYTES,
        "two blocks hold any header"
    );
    assert!(
        RECOVERY_READ_BYTES_MAX <= BATCH_BYTES_MAX as u64,
        "the longest read is a batch's"
    );
    assert!(
        PRODUCERS_FORGOTTEN_AT_ONCE > 0 && PRODUCERS_FORGOTTEN_AT_ONCE < PRODUCERS_MAX,
        "forgetting makes room and leaves the rest"
    );
    assert!(
        PRODUCER_BATCHES_MAX <= u8::MAX as usize,
        "their count is stored in one byte"
    );
    assert!(
        SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64),
        "segments are whole blocks"
    );
    assert!(
        WINDOW_BYTES_MIN.is_multiple_of(2 * BLOCK_BYTES as u64),
        "half a window is whole blocks"
    );
};
