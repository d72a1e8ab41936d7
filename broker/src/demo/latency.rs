//! Latencies in HDR histograms: over the whole run for the summary, and since the last look for
//! the live line.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The range of the histograms, in nanoseconds, with three significant digits within.
const LOWEST_NS: u64 = 1;
const HIGHEST_NS: u64 = 600_000_000_000;

/// An empty histogram of nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("the bounds are legal")
}

/// Latencies of one kind.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    total: Histogram<u64>,
    recent: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let empty =
            || Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("the bounds are legal");
        Self {
            total: empty(),
            recent: empty(),
        }
    }
}

impl Latency {
    /// Counts `count` times of `ns` nanoseconds each.
    pub(super) fn record(&mut self, ns: u64, count: u64) {
        self.total.saturating_record_n(ns, count);
        self.recent.saturating_record_n(ns, count);
    }

    /// Percentiles over all.
    pub(super) fn total(&self) -> Percentiles {
        Percentiles::of(&self.total)
    }

    /// Percentiles since the last call of this.
    pub(super) fn take_recent(&mut self) -> Percentiles {
        let percentiles = Percentiles::of(&self.recent);
        self.recent.reset();
        percentiles
    }
}

/// What a histogram says, in microseconds. All zero when there is nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    /// Half are no longer.
    pub(super) p50: f64,
    /// 90 in 100 are no longer.
    pub(super) p90: f64,
    /// 99 in 100.
    pub(super) p99: f64,
    /// 999 in 1000.
    pub(super) p999: f64,
    /// The longest.
    pub(super) max: f64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_ones_start_anew_and_all_are_kept() {
        let mut latency = Latency::default();
        assert_eq!(latency.total(), Percentiles::default());
        latency.record(1_000_000, 99);
        latency.record(50_000_000, 1);
        let recent = latency.take_recent();
        assert!((recent.p50 - 1_000.0).abs() < 2.0, "{recent:?}");
        assert!((recent.max - 50_000.0).abs() < 100.0, "{recent:?}");
        latency.record(2_000_000, 1);
        assert!((latency.take_recent().max - 2_000.0).abs() < 4.0);
        assert_eq!(latency.total().max, recent.max);
    }
}
