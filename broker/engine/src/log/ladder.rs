//! How large the next segment is, how much of it is filled with zeros ahead of the writer, and how
//! much space may be kept ready. Idle partitions cost little, busy ones roll seldom.

use std::ops::Range;
use std::time::Duration;

use crate::limits::{block_ceil, block_floor};
use crate::log::limits::{
    POOL_BYTES_MAX, POOL_DISK_SHARE, PREPARE_TIME, SEGMENT_BYTES_MIN, SEGMENT_FILL_TIME,
    SEGMENT_STEP, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, WINDOW_TIME, ZERO_WHOLE_BYTES_MAX,
};

/// How fast a partition was written lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes appended.
    pub bytes: u64,
    /// In how long.
    pub over: Duration,
}

impl Pace {
    /// Bytes that come in `time` at this pace, rounded down.
    #[must_use]
    pub fn bytes_in(&self, time: Duration) -> u64 {
        let over_ns = self.over.as_nanos().max(1);
        let bytes = u128::from(self.bytes) * time.as_nanos() / over_ns;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// The length of a partition's next segment, in bytes, a multiple of the block.
///
/// The first is 64 KiB. Each next one is the size that fills in ten seconds at the pace of the
/// last, but at most four times and at least a quarter of it: so a burst doesn't cost a partition
/// 256 MiB, and a partition at 1 GB/s reaches that after 87 MiB. It is at most
/// `segment_bytes_max`, the topic's `segment_bytes`, except for a single batch of `batch_bytes`
/// that needs more.
#[must_use]
pub fn segment_bytes(
    previous_bytes: Option<u64>,
    pace: Pace,
    batch_bytes: u64,
    segment_bytes_max: u64,
) -> u64 {
    let wanted = match previous_bytes {
        None => SEGMENT_BYTES_MIN,
        Some(previous) => {
            let previous = class_bytes(previous);
            let wanted = class_bytes(pace.bytes_in(SEGMENT_FILL_TIME));
            wanted.clamp(
                previous / SEGMENT_STEP,
                previous.saturating_mul(SEGMENT_STEP),
            )
        }
    };
    let wanted = wanted.max(class_bytes(batch_bytes)).max(SEGMENT_BYTES_MIN);
    block_ceil(wanted.min(segment_bytes_max).max(batch_bytes))
}

/// The largest segment of a partition that is to keep so many bytes: a rung of the ladder of at
/// most a quarter of them, because the oldest bytes go a segment at a time.
#[must_use]
pub fn retained_segment_bytes(retention_bytes: u64) -> u64 {
    let mut class = SEGMENT_BYTES_MIN;
    while class < 1 << 60 && class * SEGMENT_STEP <= retention_bytes / 4 {
        class *= SEGMENT_STEP;
    }
    class
}

/// The smallest rung of the ladder that holds `bytes`: 64 KiB times a power of four.
fn class_bytes(bytes: u64) -> u64 {
    let mut class = SEGMENT_BYTES_MIN;
    while class < bytes && class < 1 << 60 {
        class *= SEGMENT_STEP;
    }
    class
}

/// Whether it is time to prepare the next segment: this one is three quarters full, or a quarter
/// and will be full within a second at its pace. Preparing takes several syncs on a thread that
/// has other work; a small segment of a busy partition is full before they are over.
#[must_use]
pub fn next_is_due(position: u64, file_bytes: u64, pace: Pace) -> bool {
    let left = file_bytes.saturating_sub(position);
    left <= file_bytes / 4 || (position >= file_bytes / 4 && pace.bytes_in(PREPARE_TIME) >= left)
}

/// Bytes of a new segment that are filled with zeros before it is used: all of a small one, of a
/// large one the writer's window.
#[must_use]
pub fn filled_at_first(file_bytes: u64, pace: Pace) -> u64 {
    if file_bytes <= ZERO_WHOLE_BYTES_MAX {
        file_bytes
    } else {
        window_bytes(pace).min(file_bytes)
    }
}

/// How far ahead of the writer zeros are kept, in bytes, a multiple of the block: what it writes
/// in half a second, between 1 and 16 MiB.
#[must_use]
pub fn window_bytes(pace: Pace) -> u64 {
    block_floor(
        pace.bytes_in(WINDOW_TIME)
            .clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX),
    )
}

/// The range to fill with zeros next, once half of the window has been written over; `None` while
/// there is enough. `filled` is the end of the zeros, a multiple of the block, or behind it when
/// the writer has overtaken them.
#[must_use]
pub fn fill_due(
    position: u64,
    filled: u64,
    window_bytes: u64,
    file_bytes: u64,
) -> Option<Range<u64>> {
    let start = block_ceil(position.max(filled));
    let end = block_ceil(position.saturating_add(window_bytes)).min(file_bytes);
    let ahead = filled.saturating_sub(position);
    (ahead <= window_bytes / 2 && start < end).then_some(start..end)
}

/// Most bytes that segments prepared ahead and segments to be recycled may take together on a
/// disk of `disk_bytes`: a twentieth of it, at most 8 GiB.
#[must_use]
pub const fn pool_bytes_max(disk_bytes: u64) -> u64 {
    let share = disk_bytes / POOL_DISK_SHARE;
    if share < POOL_BYTES_MAX {
        share
    } else {
        POOL_BYTES_MAX
    }
}

/// Whether a removed segment of `file_bytes` is kept to be recycled, with `pooled_bytes` kept
/// already: only one that has a size of the ladder, so that it will fit somebody.
#[must_use]
pub fn is_recycled(file_bytes: u64, pooled_bytes: u64, disk_bytes: u64) -> bool {
    file_bytes == class_bytes(file_bytes)
        && pooled_bytes.saturating_add(file_bytes) <= pool_bytes_max(disk_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn pace(bytes_per_second: u64) -> Pace {
        Pace {
            bytes: bytes_per_second,
            over: Duration::from_secs(1),
        }
    }

    fn climb(pace: Pace, segment_bytes_max: u64, steps: usize) -> Vec<u64> {
        let mut previous = None;
        let step = |_| {
            previous = Some(segment_bytes(previous, pace, 1_000, segment_bytes_max));
            previous.unwrap()
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn sizes_climb_to_ten_seconds_of_the_pace() {
        let full = [
            64 * KIB,
            256 * KIB,
            MIB,
            4 * MIB,
            16 * MIB,
            64 * MIB,
            256 * MIB,
            256 * MIB,
        ];
        assert_eq!(climb(pace(1_000 * MIB), 256 * MIB, 8), full);
        assert_eq!(climb(pace(MIB), 256 * MIB, 7)[4..], [16 * MIB; 3]);
        assert_eq!(climb(pace(0), 256 * MIB, 3), [64 * KIB; 3]);
        assert_eq!(
            climb(pace(1_000 * MIB), 10 * MIB, 6)[3..],
            [4 * MIB, 10 * MIB, 10 * MIB]
        );
    }

    #[test]
    fn sizes_come_down_by_single_steps() {
        assert_eq!(
            segment_bytes(Some(256 * MIB), pace(10), 1_000, 256 * MIB),
            64 * MIB
        );
        assert_eq!(
            segment_bytes(Some(64 * KIB), pace(10), 1_000, 256 * MIB),
            64 * KIB
        );
    }

    #[test]
    fn a_small_retention_means_small_segments() {
        let sizes = [0, 255 * KIB, MIB, 4 * MIB, 100 * MIB, 1 << 40];
        let segments = sizes.map(retained_segment_bytes);
        assert_eq!(segments[..4], [64 * KIB, 64 * KIB, 256 * KIB, MIB]);
        assert_eq!(segments[4..], [16 * MIB, 256 << 30]);
        assert!(retained_segment_bytes(u64::MAX) <= u64::MAX / 4);
    }

    #[test]
    fn a_batch_always_fits() {
        assert_eq!(segment_bytes(None, pace(0), 5 * MIB, 256 * MIB), 16 * MIB);
        assert_eq!(
            segment_bytes(None, pace(0), 5 * MIB + 16, MIB),
            5 * MIB + 4 * KIB
        );
        assert_eq!(segment_bytes(Some(MIB), pace(0), 100, 16 * KIB), 16 * KIB);
    }

    #[test]
    fn zeros_stay_ahead_of_the_writer() {
        assert_eq!(filled_at_first(MIB, pace(0)), MIB);
        assert_eq!(filled_at_first(256 * MIB, pace(8 * MIB)), 4 * MIB);
        assert_eq!(window_bytes(pace(1_000 * MIB)), 16 * MIB);
        assert_eq!(fill_due(100, 4 * MIB, 4 * MIB, 256 * MIB), None);
        assert_eq!(
            fill_due(2 * MIB, 4 * MIB, 4 * MIB, 256 * MIB),
            Some(4 * MIB..6 * MIB)
        );
        assert_eq!(
            fill_due(9 * MIB + 5, 4 * MIB, 4 * MIB, 256 * MIB),
            Some(9 * MIB + 4 * KIB..13 * MIB + 4 * KIB)
        );
        assert_eq!(fill_due(255 * MIB, 256 * MIB, 4 * MIB, 256 * MIB), None);
    }

    #[test]
    fn the_pool_is_bounded_and_takes_what_fits_others() {
        assert_eq!(pool_bytes_max(100 << 30), 5 << 30);
        assert_eq!(pool_bytes_max(10 << 40), 8 << 30);
        assert!(is_recycled(256 * MIB, 4 << 30, 100 << 30));
        assert!(!is_recycled(256 * MIB, 5 << 30, 100 << 30));
        assert!(!is_recycled(10 * MIB, 0, 100 << 30));
        let slow = Pace {
            bytes: 48 * KIB,
            over: Duration::from_secs(60),
        };
        assert!(next_is_due(48 * KIB, 64 * KIB, slow));
        assert!(!next_is_due(48 * KIB - 1, 64 * KIB, slow));
        let fast = Pace {
            bytes: 48 * KIB,
            over: Duration::from_secs(1),
        };
        assert!(next_is_due(16 * KIB, 64 * KIB, fast));
        assert!(
            !next_is_due(16 * KIB - 1, 64 * KIB, fast),
            "its pace isn't known yet"
        );
        assert!(!next_is_due(16 * KIB, 256 * KIB, fast));
    }

    proptest! {
        #[test]
        fn sizes_keep_their_bounds(
            previous in prop::option::of(0..u64::MAX), bytes: u64, ns: u64,
            batch_bytes in 0..65 * MIB, max in 4 * KIB..1 << 40,
        ) {
            let pace = Pace { bytes, over: Duration::from_nanos(ns) };
            let size = segment_bytes(previous, pace, batch_bytes, max);
            prop_assert!(size >= batch_bytes);
            prop_assert!(size <= max.max(batch_bytes).next_multiple_of(4 * KIB));
            prop_assert!(size.is_multiple_of(4 * KIB) && size > 0);
        }

        /// A writer that never waits for zeros it hasn't asked for: the ranges join up, lie in
        /// the file, and none is filled behind the writer.
        #[test]
        fn fills_join_up(
            steps in prop::collection::vec(1..3 * MIB, 1..200), rate in 0..64 * MIB,
        ) {
            let (file, window) = (64 * MIB, window_bytes(pace(rate)));
            let mut filled = filled_at_first(file, pace(rate));
            let mut position = 0;
            for step in steps {
                position += step;
                if position > file {
                    break;
                }
                if let Some(range) = fill_due(position, filled, window, file) {
                    prop_assert!(range.start >= filled && range.start >= position);
                    prop_assert!(range.start.is_multiple_of(4 * KIB) && range.end <= file);
                    filled = range.end;
                }
                let enough = filled.saturating_sub(position) > window / 2;
                prop_assert!(enough || block_ceil(position.max(filled)) == file);
            }
        }
    }
}
