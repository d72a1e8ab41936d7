//! What only drivers ask the machine for: random numbers and the time of day.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// A random number, for spreading pauses and first choices.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
