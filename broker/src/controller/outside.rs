//! What the controller takes from outside the log: the wall clock and the kernel's random numbers.

use std::fs::File;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

/// 128 random bits from the kernel; never 0.
///
/// # Panics
/// Where /dev/urandom can't be read: identities that might repeat would mix up logs.
pub(super) fn random() -> u128 {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("/dev/urandom is readable");
    u128::from_le_bytes(bytes).max(1)
}

/// Microseconds since 1970 by the wall clock.
pub(super) fn unix_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
