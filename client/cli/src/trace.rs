//! Where the batches' time went inside the broker: one histogram a stage, one sample a batch.

use hdrhistogram::Histogram;
use ringway_wire::request::StageTimes;

use crate::limits::TRACE_NS_MAX;
use crate::table::{Side, Table};

/// The stages' names, in their order; the last is their sum.
const STAGES: [&str; 5] = ["received", "queued", "written", "durable", "total"];

/// Histograms of stage times.
#[derive(Debug)]
pub(crate) struct Trace {
    stages: [Histogram<u64>; STAGES.len()],
}

impl Trace {
    /// Histograms without samples.
    pub(crate) fn new() -> Self {
        let histogram =
            |_| Histogram::new_with_bounds(1, TRACE_NS_MAX, 3).expect("the bounds are in order");
        Self {
            stages: STAGES.map(histogram),
        }
    }

    /// Adds the times of one batch.
    pub(crate) fn add(&mut self, times: &StageTimes) {
        let lengths = [
            times.received_ns,
            times.queued_ns,
            times.written_ns,
            times.durable_ns,
        ];
        let total = lengths
            .iter()
            .fold(0_u64, |sum, &ns| sum.saturating_add(ns));
        for (histogram, ns) in self
            .stages
            .iter_mut()
            .zip(lengths.into_iter().chain([total]))
        {
            histogram.saturating_record(ns);
        }
    }

    /// Batches with times.
    pub(crate) fn batches(&self) -> u64 {
        self.stages[0].len()
    }

    /// Each stage's name and its min, p50, p99 and max in microseconds.
    fn figures(&self) -> impl Iterator<Item = (&'static str, [f64; 4])> {
        STAGES
            .into_iter()
            .zip(&self.stages)
            .map(|(name, histogram)| {
                let ns = [
                    histogram.min(),
                    histogram.value_at_quantile(0.5),
                    histogram.value_at_quantile(0.99),
                    histogram.max(),
                ];
                (name, ns.map(|ns| ns as f64 / 1_000.0))
            })
    }

    /// The table for people.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new([
            ("STAGE (µs)", Side::Left),
            ("MIN", Side::Right),
            ("P50", Side::Right),
            ("P99", Side::Right),
            ("MAX", Side::Right),
        ]);
        for (name, [min, p50, p99, max]) in self.figures() {
            let cell = |us: f64| format!("{us:.1}");
            table.row([name.to_owned(), cell(min), cell(p50), cell(p99), cell(max)]);
        }
        table.render()
    }

    /// The same figures for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let stages: serde_json::Map<_, _> = self
            .figures()
            .map(|(name, [min, p50, p99, max])| {
                let figures = serde_json::json!({
                    "min_us": min, "p50_us": p50, "p99_us": p99, "max_us": max,
                });
                (name.to_owned(), figures)
            })
            .collect();
        serde_json::json!({ "batches": self.batches(), "stages": stages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_and_their_sum_are_told() {
        let mut trace = Trace::new();
        for factor in 1..=100 {
            trace.add(&StageTimes {
                received_ns: 1_000 * factor,
                queued_ns: 0,
                written_ns: 10_000 * factor,
                durable_ns: 100_000 * factor,
            });
        }
        let json = trace.to_json();
        assert_eq!(json["batches"], 100);
        assert_eq!(json["stages"]["queued"]["max_us"], 0.0);
        let near = |stage: &str, figure: &str, us: f64| {
            let told = json["stages"][stage][figure].as_f64().unwrap();
            assert!(
                (told - us).abs() <= us / 500.0,
                "{stage} {figure}: {told}, not {us}"
            );
        };
        near("received", "p50_us", 50.0);
        near("written", "p99_us", 990.0);
        near("durable", "max_us", 10_000.0);
        near("total", "min_us", 111.0);
        assert_eq!(trace.render().lines().count(), 1 + STAGES.len());
    }

    #[test]
    fn times_beyond_all_bounds_are_kept_at_the_bound() {
        let mut trace = Trace::new();
        trace.add(&StageTimes {
            received_ns: u64::MAX,
            queued_ns: 1,
            ..StageTimes::default()
        });
        assert_eq!(trace.batches(), 1);
    }
}
