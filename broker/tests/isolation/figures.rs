//! Latencies of a client by phase, and how they compare.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// What is going on beside the well-behaved client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// One begins or ends: nothing counts.
    Between,
    /// Nothing.
    Alone,
    /// What the test is about.
    Beside,
}

impl Phase {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Between => 0,
            Self::Alone => 1,
            Self::Beside => 2,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Alone,
            2 => Self::Beside,
            _ => Self::Between,
        }
    }
}

/// Latencies in nanoseconds, up to minutes.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("legal bounds"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.0.saturating_record(took.as_nanos() as u64);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, p999) = (self.at(0.5), self.at(0.99), self.at(0.999));
        let max = self.0.max() as f64 / 1_000.0;
        let count = self.count();
        write!(
            f,
            "p50 {p50:8.0} µs  p99 {p99:8.0} µs  p999 {p999:8.0} µs  max {max:8.0} µs  ({count})"
        )
    }
}

/// One measure, alone and beside.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    pub(crate) alone: Latencies,
    pub(crate) beside: Latencies,
}

impl Measure {
    pub(crate) fn new() -> Self {
        Self {
            alone: Latencies::new(),
            beside: Latencies::new(),
        }
    }

    pub(crate) fn record(&mut self, phase: Phase, took: Duration) {
        match phase {
            Phase::Between => {}
            Phase::Alone => self.alone.record(took),
            Phase::Beside => self.beside.record(took),
        }
    }

    /// The measure as some lines of text.
    pub(crate) fn table(&self, name: &str) -> String {
        let ratio = |quantile| self.beside.at(quantile) / self.alone.at(quantile);
        format!(
            "{name}\n  alone   {}\n  beside  {}\n  ratio   p50 {:.2}  p99 {:.2}  p999 {:.2}\n",
            self.alone,
            self.beside,
            ratio(0.5),
            ratio(0.99),
            ratio(0.999),
        )
    }
}
