//! The clocks, read once a turn. Their origin is the process's, so that times that shards tell each
//! other mean the same.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringway_engine::time::Now;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        mono_ns: mono_ns(),
        // A clock before 1970 is wrong anyway.
        unix_us: unix.map_or(0, |since| since.as_micros() as i64),
    }
}

/// Nanoseconds of the clock that never goes back; never 0.
pub(crate) fn mono_ns() -> u64 {
    ORIGIN.elapsed().as_nanos() as u64 + 1
}
