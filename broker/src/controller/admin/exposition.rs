//! The shards' numbers in Prometheus' text format: seconds and bytes, `_total` for what only
//! rises, one family with a `shard` label for all shards.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::metrics::{BUCKETS, Histogram, ShardMetrics};

/// The head of a family.
pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP ringway_{name} {help}\n# TYPE ringway_{name} {kind}"
    );
}

/// Every number of every shard.
pub(super) fn shards(shards: &[Arc<ShardMetrics>]) -> String {
    let mut text = String::new();
    let Some(any) = shards.first() else {
        return text;
    };
    for (place, (name, help, _)) in any.counters().enumerate() {
        let values = shards.iter().map(|shard| shard.counters().nth(place));
        numbers(&mut text, &format!("{name}_total"), "counter", help, values);
    }
    for (place, (name, help, _)) in any.gauges().enumerate() {
        let values = shards.iter().map(|shard| shard.gauges().nth(place));
        numbers(&mut text, name, "gauge", help, values);
    }
    for (place, (name, help, _)) in any.histograms().enumerate() {
        let name = format!("{name}_seconds");
        family(&mut text, &name, "histogram", help.trim());
        for (shard, metrics) in shards.iter().enumerate() {
            if let Some((.., histogram)) = metrics.histograms().nth(place) {
                buckets(&mut text, &name, shard, histogram);
            }
        }
    }
    text
}

fn numbers<'a>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl Iterator<Item = Option<(&'a str, &'a str, u64)>>,
) {
    family(text, name, kind, help.trim());
    for (shard, value) in values.enumerate() {
        let value = value.map_or(0, |(.., value)| value);
        let _ = writeln!(text, "ringway_{name}{{shard=\"{shard}\"}} {value}");
    }
}

fn buckets(text: &mut String, name: &str, shard: usize, histogram: &Histogram) {
    let (counts, sum_ns) = histogram.read();
    let mut so_far = 0;
    for (bucket, count) in counts.iter().enumerate().take(BUCKETS) {
        so_far += count;
        let bound = Histogram::bound_ns(bucket)
            .map_or_else(|| "+Inf".to_owned(), |ns| (ns as f64 / 1e9).to_string());
        let labels = format!("shard=\"{shard}\",le=\"{bound}\"");
        let _ = writeln!(text, "ringway_{name}_bucket{{{labels}}} {so_far}");
    }
    let seconds = sum_ns as f64 / 1e9;
    let _ = writeln!(text, "ringway_{name}_sum{{shard=\"{shard}\"}} {seconds}");
    let _ = writeln!(text, "ringway_{name}_count{{shard=\"{shard}\"}} {so_far}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics: Vec<_> = (0..2).map(|_| Arc::new(ShardMetrics::default())).collect();
        metrics[1].received_bytes.add(77);
        metrics[1].produce.observe(2_000);
        metrics[1].produce.observe(10_000_000_000);
        let text = shards(&metrics);
        for line in [
            "# TYPE ringway_received_bytes_total counter",
            "ringway_received_bytes_total{shard=\"0\"} 0",
            "ringway_received_bytes_total{shard=\"1\"} 77",
            "# HELP ringway_connections Open connections.",
            "# TYPE ringway_connections gauge",
            "# TYPE ringway_produce_seconds histogram",
            "ringway_produce_seconds_bucket{shard=\"1\",le=\"0.000001536\"} 0",
            "ringway_produce_seconds_bucket{shard=\"1\",le=\"0.000002048\"} 1",
            "ringway_produce_seconds_bucket{shard=\"1\",le=\"4.294967296\"} 1",
            "ringway_produce_seconds_bucket{shard=\"1\",le=\"+Inf\"} 2",
            "ringway_produce_seconds_sum{shard=\"1\"} 10.000002",
            "ringway_produce_seconds_count{shard=\"1\"} 2",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        // No family twice, no sample twice, every sample of a family that was announced.
        let mut seen = HashSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} is not of {family}");
                assert!(
                    seen.insert(line.rsplit_once(' ').unwrap().0),
                    "{line} twice"
                );
            }
        }
    }
}
