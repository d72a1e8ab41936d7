//! One look at a broker: its metrics and its status, as numbers.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// What can't be read of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {part} can't be read: {problem}")]
pub(super) struct Unreadable {
    part: &'static str,
    problem: String,
}

/// A histogram: by rising bound in seconds, how many observations up to it; and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    pub(super) counts: Vec<(f64, u64)>,
    pub(super) sum_seconds: f64,
}

/// The numbers of one shard, by their names without `ringway_`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ShardNumbers {
    numbers: HashMap<String, f64>,
    histograms: HashMap<String, Buckets>,
}

impl ShardNumbers {
    /// A counter or a gauge; 0 where this broker has none of that name.
    pub(super) fn number(&self, name: &str) -> f64 {
        self.numbers.get(name).copied().unwrap_or(0.0)
    }

    /// A histogram, if this broker has one of that name.
    pub(super) fn histogram(&self, name: &str) -> Option<&Buckets> {
        self.histograms.get(name)
    }
}

/// Every shard's numbers, from the text of `/metrics`.
///
/// # Errors
/// [`Unreadable`] names the first line that is none of a shard's numbers and looks like one.
pub(super) fn parse_metrics(text: &str) -> Result<BTreeMap<u32, ShardNumbers>, Unreadable> {
    let mut shards: BTreeMap<u32, ShardNumbers> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("ringway_")) {
        let unreadable = || Unreadable {
            part: "metrics",
            problem: format!("the line {line:?}"),
        };
        let (name, value) = line.rsplit_once(' ').ok_or_else(unreadable)?;
        let value: f64 = value.parse().map_err(|_| unreadable())?;
        let Some((name, labels)) = name.split_once('{') else {
            continue;
        };
        let name = name.trim_start_matches("ringway_");
        let label = |wanted: &str| {
            let labels = labels.trim_end_matches('}').split(',');
            let mut found = labels.filter_map(|label| label.split_once('='));
            let value = found.find(|(name, _)| *name == wanted)?.1;
            Some(value.trim_matches('"'))
        };
        let Some(shard) = label("shard") else {
            continue;
        };
        let shard = shards
            .entry(shard.parse().map_err(|_| unreadable())?)
            .or_default();
        if let Some(bound) = label("le") {
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().map_err(|_| unreadable())?,
            };
            let name = name.trim_end_matches("_bucket").to_owned();
            let histogram = shard.histograms.entry(name).or_default();
            histogram.counts.push((bound, value as u64));
        } else if let Some(name) = name.strip_suffix("_seconds_sum") {
            let histogram = shard.histograms.entry(format!("{name}_seconds"));
            histogram.or_default().sum_seconds = value;
        } else {
            shard.numbers.insert(name.to_owned(), value);
        }
    }
    Ok(shards)
}

/// What `/status` says, as far as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Status {
    pub(super) broker: BrokerStatus,
    pub(super) shards: Vec<ShardStatus>,
    pub(super) topics: Vec<TopicStatus>,
}

/// The broker as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct BrokerStatus {
    pub(super) node: u32,
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) started_us: i64,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) listen: String,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct ShardStatus {
    pub(super) shard: u32,
    pub(super) responds: bool,
}

/// A topic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct TopicStatus {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) partitions: Vec<PartitionStatus>,
}

/// A partition; without offsets where its shard doesn't respond.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct PartitionStatus {
    pub(super) partition: u32,
    pub(super) shard: Option<u32>,
    pub(super) state: String,
    #[serde(default)]
    pub(super) log_start: u64,
    #[serde(default)]
    pub(super) high_watermark: u64,
    #[serde(default)]
    pub(super) log_end: u64,
    #[serde(default)]
    pub(super) log_bytes: u64,
}

/// Reads the JSON of `/status`.
///
/// # Errors
/// [`Unreadable`] says what is missing in it.
pub(super) fn parse_status(json: &[u8]) -> Result<Status, Unreadable> {
    serde_json::from_slice(json).map_err(|error| Unreadable {
        part: "status",
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_histograms_are_found_by_shard() {
        let text = "\
# HELP ringway_requests_total Requests received.
# TYPE ringway_requests_total counter
ringway_requests_total{shard=\"0\"} 5
ringway_requests_total{shard=\"11\"} 7
ringway_produce_seconds_bucket{shard=\"0\",le=\"0.000001\"} 1
ringway_produce_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3
ringway_produce_seconds_sum{shard=\"0\"} 0.5
ringway_produce_seconds_count{shard=\"0\"} 3
ringway_build_info{version=\"0.1.0\"} 1
ringway_serving 1
something_else{shard=\"0\"} nonsense
";
        let shards = parse_metrics(text).unwrap();
        assert_eq!(shards[&0].number("requests_total"), 5.0);
        assert_eq!(shards[&11].number("requests_total"), 7.0);
        assert_eq!(shards[&11].number("of_another_version"), 0.0);
        let produce = shards[&0].histogram("produce_seconds").unwrap();
        assert_eq!(produce.counts, [(1e-6, 1), (f64::INFINITY, 3)]);
        assert_eq!(produce.sum_seconds, 0.5);
        assert_eq!(shards[&11].histogram("produce_seconds"), None);
        assert_eq!(shards.len(), 2);
        assert!(parse_metrics("ringway_x{shard=\"0\"} y").is_err());
    }

    #[test]
    fn a_status_needs_what_is_shown_and_may_have_more() {
        let json = br#"{"broker":{"node":1,"version":"1","pid":7,"started_us":5,"state":"serving",
            "reason":null,"listen":"l","more":1},"metadata":{},"shards":[],"topics":[{"name":"t",
            "id":"x","partitions":[{"partition":0,"shard":null,"state":"unknown"}]}]}"#;
        let status = parse_status(json).unwrap();
        assert_eq!(status.topics[0].partitions[0].state, "unknown");
        assert!(parse_status(b"{}").is_err());
    }
}
