//! Pauses between repeats: doubling, capped, and spread at random so that clients don't march in
//! step. The random number comes from the driver.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

/// Counts repeats since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    repeats: u32,
}

impl Backoff {
    /// The next pause: between half and all of 10 ms, 20 ms, 40 ms … 1 s.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1 << self.repeats.min(16));
        self.repeats = self.repeats.saturating_add(1);
        let half = doubled.min(BACKOFF_MAX) / 2;
        let spread_ns = random % (half.as_nanos() as u64 + 1);
        half + Duration::from_nanos(spread_ns)
    }

    /// Starts over.
    pub(crate) fn reset(&mut self) {
        self.repeats = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_start_over() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..9)
            .map(|repeat| {
                let mut copy = Backoff { repeats: repeat };
                let least = copy.clone().next(0);
                let next = backoff.next(least.as_nanos() as u64);
                assert_eq!(least * 2, next);
                let _ = copy.next(0);
                next.as_millis()
            })
            .collect();
        assert_eq!(longest, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0), BACKOFF_MIN / 2);
        assert_eq!(Backoff { repeats: u32::MAX }.next(0), BACKOFF_MAX / 2);
    }
}
