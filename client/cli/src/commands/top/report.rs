//! What has happened between two looks at a broker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::sample::{Buckets, ShardNumbers, Status};

/// One look.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// When, from any origin.
    pub(super) at: Duration,
    /// When, in microseconds since 1970.
    pub(super) unix_us: i64,
    pub(super) shards: BTreeMap<u32, ShardNumbers>,
    pub(super) status: Status,
}

/// See the module. Rates are per second of the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Length of the interval.
    pub(super) seconds: f64,
    pub(super) broker: BrokerReport,
    /// Sums over all shards.
    pub(super) total: ShardReport,
    /// By number.
    pub(super) shards: Vec<ShardReport>,
    /// Those in trouble first, then the busiest; only those that were written to.
    pub(super) partitions: Vec<PartitionReport>,
    /// Times, over all shards.
    pub(super) stages: Vec<StageReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct BrokerReport {
    pub(super) node: u32,
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) listen: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) up_seconds: u64,
    pub(super) topics: usize,
    pub(super) partitions: usize,
}

/// A shard's interval; `shard` is `None` for the sum of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct ShardReport {
    pub(super) shard: Option<u32>,
    pub(super) responds: bool,
    /// Part of the time in which its loop did something, 0 to 1.
    pub(super) busy: f64,
    pub(super) connections: f64,
    pub(super) partitions: f64,
    pub(super) waiting_fetches: f64,
    pub(super) requests_per_second: f64,
    pub(super) faults_per_second: f64,
    pub(super) records_per_second: f64,
    pub(super) produced_bytes_per_second: f64,
    pub(super) fetched_bytes_per_second: f64,
    /// Of those, read from disk.
    pub(super) cold_bytes_per_second: f64,
    pub(super) device_written_bytes_per_second: f64,
    pub(super) rounds_per_second: f64,
    /// Turns longer than 5 ms, in the interval.
    pub(super) slow_turns: f64,
    /// Bytes of produce requests that wait for the disk, and of replies that are not sent.
    pub(super) pending_bytes: f64,
    pub(super) unsent_bytes: f64,
    pub(super) cache_bytes: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct PartitionReport {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) shard: Option<u32>,
    pub(super) state: String,
    pub(super) records_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) log_start: u64,
    pub(super) high_watermark: u64,
    pub(super) log_end: u64,
    pub(super) log_bytes: u64,
}

/// Times of one stage. Each is an upper bound, in microseconds; `null` is beyond all bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct StageReport {
    pub(super) stage: &'static str,
    pub(super) count: u64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) max_us: Option<f64>,
}

/// The stages that are shown, and their histograms.
const STAGES: [(&str, &str); 10] = [
    ("produce: received", "produce_received_seconds"),
    ("produce: queued", "produce_queued_seconds"),
    ("produce: written", "produce_written_seconds"),
    ("produce: durable", "produce_durable_seconds"),
    ("produce: whole", "produce_seconds"),
    ("fetch: whole", "fetch_seconds"),
    ("device: write", "device_write_seconds"),
    ("device: sync", "device_sync_seconds"),
    ("device: read", "device_read_seconds"),
    ("turn of a shard", "turn_seconds"),
];

/// What has happened between two looks; `None` when the broker was started anew meanwhile, or no
/// time has passed.
pub(super) fn report(before: &Sample, after: &Sample) -> Option<Report> {
    let (old, new) = (&before.status.broker, &after.status.broker);
    let seconds = after.at.saturating_sub(before.at).as_secs_f64();
    if (old.pid, old.started_us) != (new.pid, new.started_us) || seconds <= 0.0 {
        return None;
    }
    let shards: Vec<_> = after
        .shards
        .iter()
        .map(|(&shard, numbers)| {
            let empty = ShardNumbers::default();
            let past = before.shards.get(&shard).unwrap_or(&empty);
            let status = after
                .status
                .shards
                .iter()
                .find(|status| status.shard == shard);
            ShardReport {
                shard: Some(shard),
                responds: status.is_some_and(|status| status.responds),
                ..shard_report(past, numbers, seconds)
            }
        })
        .collect();
    let up_us = after.unix_us.saturating_sub(new.started_us).max(0);
    let partitions = after
        .status
        .topics
        .iter()
        .map(|topic| topic.partitions.len());
    Some(Report {
        seconds,
        broker: BrokerReport {
            node: new.node,
            version: new.version.clone(),
            pid: new.pid,
            listen: new.listen.clone(),
            state: new.state.clone(),
            reason: new.reason.clone(),
            up_seconds: up_us as u64 / 1_000_000,
            topics: after.status.topics.len(),
            partitions: partitions.sum(),
        },
        total: total(&shards),
        shards,
        partitions: partitions_report(before, after, seconds),
        stages: STAGES
            .iter()
            .map(|&(stage, name)| stage_report(stage, name, before, after))
            .collect(),
    })
}

fn shard_report(before: &ShardNumbers, after: &ShardNumbers, seconds: f64) -> ShardReport {
    let risen = |name: &str| (after.number(name) - before.number(name)).max(0.0);
    let rate = |name: &str| risen(name) / seconds;
    let worked = |numbers: &ShardNumbers| {
        let turns = numbers.histogram("turn_seconds");
        turns.map_or(0.0, |turns| turns.sum_seconds)
    };
    ShardReport {
        shard: None,
        responds: true,
        busy: ((worked(after) - worked(before)) / seconds).clamp(0.0, 1.0),
        connections: after.number("connections"),
        partitions: after.number("partitions"),
        waiting_fetches: after.number("waiting_fetches"),
        requests_per_second: rate("requests_total"),
        faults_per_second: rate("requests_faulted_total"),
        records_per_second: rate("produced_records_total"),
        produced_bytes_per_second: rate("produced_bytes_total"),
        fetched_bytes_per_second: rate("fetched_bytes_total"),
        cold_bytes_per_second: rate("fetched_disk_bytes_total"),
        device_written_bytes_per_second: rate("device_written_bytes_total"),
        rounds_per_second: rate("commit_rounds_total"),
        slow_turns: risen("slow_turns_total"),
        pending_bytes: after.number("produce_bytes"),
        unsent_bytes: after.number("send_bytes"),
        cache_bytes: after.number("cache_bytes"),
    }
}

fn total(shards: &[ShardReport]) -> ShardReport {
    let sum = |number: fn(&ShardReport) -> f64| shards.iter().map(number).sum::<f64>();
    ShardReport {
        shard: None,
        responds: shards.iter().all(|shard| shard.responds),
        busy: sum(|shard| shard.busy) / shards.len().max(1) as f64,
        connections: sum(|shard| shard.connections),
        partitions: sum(|shard| shard.partitions),
        waiting_fetches: sum(|shard| shard.waiting_fetches),
        requests_per_second: sum(|shard| shard.requests_per_second),
        faults_per_second: sum(|shard| shard.faults_per_second),
        records_per_second: sum(|shard| shard.records_per_second),
        produced_bytes_per_second: sum(|shard| shard.produced_bytes_per_second),
        fetched_bytes_per_second: sum(|shard| shard.fetched_bytes_per_second),
        cold_bytes_per_second: sum(|shard| shard.cold_bytes_per_second),
        device_written_bytes_per_second: sum(|shard| shard.device_written_bytes_per_second),
        rounds_per_second: sum(|shard| shard.rounds_per_second),
        slow_turns: sum(|shard| shard.slow_turns),
        pending_bytes: sum(|shard| shard.pending_bytes),
        unsent_bytes: sum(|shard| shard.unsent_bytes),
        cache_bytes: sum(|shard| shard.cache_bytes),
    }
}

/// Partitions that were written to, and those in trouble.
fn partitions_report(before: &Sample, after: &Sample, seconds: f64) -> Vec<PartitionReport> {
    let past: HashMap<_, _> = before
        .status
        .topics
        .iter()
        .flat_map(|topic| {
            let id = topic.id.as_str();
            let partitions = topic.partitions.iter();
            partitions.map(move |partition| ((id, partition.partition), partition))
        })
        .collect();
    let mut found = Vec::new();
    for topic in &after.status.topics {
        for partition in &topic.partitions {
            let key = (topic.id.as_str(), partition.partition);
            // One that is new has begun empty; one that was unknown says nothing yet.
            let (end, bytes) = match past.get(&key) {
                Some(past) if past.state == "unknown" => (partition.log_end, partition.log_bytes),
                Some(past) => (past.log_end, past.log_bytes),
                None => (0, 0),
            };
            let records = partition.log_end.saturating_sub(end);
            if records == 0 && is_well(&partition.state) {
                continue;
            }
            found.push(PartitionReport {
                topic: topic.name.clone(),
                partition: partition.partition,
                shard: partition.shard,
                state: partition.state.clone(),
                records_per_second: records as f64 / seconds,
                bytes_per_second: partition.log_bytes.saturating_sub(bytes) as f64 / seconds,
                log_start: partition.log_start,
                high_watermark: partition.high_watermark,
                log_end: partition.log_end,
                log_bytes: partition.log_bytes,
            });
        }
    }
    found.sort_by_key(|partition| {
        let rate = (partition.records_per_second * 1_000.0) as u64;
        (is_well(&partition.state), Reverse(rate))
    });
    found
}

fn is_well(state: &str) -> bool {
    state == "ready"
}

/// The observations of an interval, over all shards, by their bounds.
fn risen(name: &str, before: &Sample, after: &Sample) -> Vec<(f64, u64)> {
    let mut sums: Vec<(f64, u64)> = Vec::new();
    for (shard, numbers) in &after.shards {
        let Some(now) = numbers.histogram(name) else {
            continue;
        };
        let past = before.shards.get(shard);
        let past = past.and_then(|numbers| numbers.histogram(name));
        for (place, &(bound, count)) in now.counts.iter().enumerate() {
            let at_past = |past: &Buckets| past.counts.get(place).map_or(0, |past| past.1);
            let risen = count.saturating_sub(past.map_or(0, at_past));
            match sums.get_mut(place) {
                Some(sum) => sum.1 += risen,
                None => sums.push((bound, risen)),
            }
        }
    }
    sums
}

fn stage_report(stage: &'static str, name: &str, before: &Sample, after: &Sample) -> StageReport {
    let sums = risen(name, before, after);
    let count = sums.last().map_or(0, |last| last.1);
    // The first bound up to which so many observations lie.
    let bound = |wanted: u64| {
        let bucket = sums.iter().find(|(_, up_to)| *up_to >= wanted.max(1))?;
        (count > 0 && bucket.0.is_finite()).then_some(bucket.0 * 1e6)
    };
    let quantile = |quantile: f64| bound((count as f64 * quantile).ceil() as u64);
    StageReport {
        stage,
        count,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: bound(count),
    }
}

#[cfg(test)]
mod tests;
