//! The demo's two clocks: one that only goes forward, for latencies, and the day's, for records.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::sample::Moment;

/// A monotonic clock that starts at zero with the demo. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that shows zero now.
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// This moment on both clocks.
    pub(super) fn moment(self) -> Moment {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970_us = since_1970.map_or(0, |time| time.as_micros());
        Moment {
            time_ns: self.now_ns(),
            timestamp_us: i64::try_from(since_1970_us).unwrap_or(i64::MAX),
        }
    }
}
