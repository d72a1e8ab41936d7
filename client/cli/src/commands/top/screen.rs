//! A report for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::{Report, ShardReport, StageReport};
use crate::table::{Side, Table};
use crate::units::{bytes, count, plural};

/// The whole picture, with at most `limit` shards and partitions.
pub(super) fn render(report: &Report, limit: usize) -> String {
    let mut text = head(report);
    text.push('\n');
    text += &shards(report, limit);
    text.push('\n');
    text += &stages(&report.stages);
    text.push('\n');
    text += &partitions(report, limit);
    text
}

fn head(report: &Report) -> String {
    let broker = &report.broker;
    let up = humantime::format_duration(Duration::from_secs(broker.up_seconds));
    let reason = broker.reason.as_deref();
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let total = &report.total;
    let mut text = format!(
        "ringway-broker {} (node {}, pid {}) on {}: {}{reason}, up {up}\n",
        broker.version, broker.node, broker.pid, broker.listen, broker.state
    );
    let _ = writeln!(
        text,
        "{} {}, {} {}, {} {}, {} in memory; {} waiting for the disk, {} for clients",
        count(broker.topics as u64),
        plural(broker.topics as u64, "topic", "topics"),
        count(broker.partitions as u64),
        plural(broker.partitions as u64, "partition", "partitions"),
        count(total.connections as u64),
        plural(total.connections as u64, "connection", "connections"),
        bytes(total.cache_bytes),
        bytes(total.pending_bytes),
        bytes(total.unsent_bytes),
    );
    text
}

fn shards(report: &Report, limit: usize) -> String {
    let mut table = Table::new([
        ("SHARD", Side::Right),
        ("BUSY", Side::Right),
        ("CLIENTS", Side::Right),
        ("REQUESTS/S", Side::Right),
        ("FAULTS/S", Side::Right),
        ("RECORDS/S", Side::Right),
        ("IN/S", Side::Right),
        ("OUT/S", Side::Right),
        ("COLD/S", Side::Right),
        ("DISK/S", Side::Right),
        ("ROUNDS/S", Side::Right),
        ("WAITING", Side::Right),
        ("STALLS", Side::Right),
    ]);
    let mut busiest: Vec<_> = report.shards.iter().collect();
    if busiest.len() > limit {
        // Those that don't respond are the ones to look at.
        busiest.sort_by(|a, b| {
            (a.responds, b.busy)
                .partial_cmp(&(b.responds, a.busy))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        busiest.truncate(limit);
    }
    for shard in busiest {
        table.row(shard_row(shard));
    }
    if report.shards.len() > 1 {
        table.row(shard_row(&report.total));
    }
    table.render()
}

fn shard_row(shard: &ShardReport) -> [String; 13] {
    let rounded = |number: f64| count(number.round() as u64);
    let name = match (shard.shard, shard.responds) {
        (Some(shard), true) => shard.to_string(),
        (Some(shard), false) => format!("{shard} (silent)"),
        (None, _) => "all".to_owned(),
    };
    [
        name,
        format!("{:.0} %", shard.busy * 100.0),
        rounded(shard.connections),
        rounded(shard.requests_per_second),
        rounded(shard.faults_per_second),
        rounded(shard.records_per_second),
        bytes(shard.produced_bytes_per_second),
        bytes(shard.fetched_bytes_per_second),
        bytes(shard.cold_bytes_per_second),
        bytes(shard.device_written_bytes_per_second),
        rounded(shard.rounds_per_second),
        rounded(shard.waiting_fetches),
        rounded(shard.slow_turns),
    ]
}

/// A time in microseconds, to three digits, with the unit that suits it.
fn time(us: Option<f64>, count: u64) -> String {
    match us {
        _ if count == 0 => "-".to_owned(),
        None => "> 4 s".to_owned(),
        Some(us) if us < 999.5 => format!("{us:.0} µs"),
        Some(us) if us < 9_995.0 => format!("{:.2} ms", us / 1e3),
        Some(us) if us < 99_950.0 => format!("{:.1} ms", us / 1e3),
        Some(us) if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        Some(us) => format!("{:.2} s", us / 1e6),
    }
}

fn stages(stages: &[StageReport]) -> String {
    let mut table = Table::new([
        ("STAGE", Side::Left),
        ("COUNT", Side::Right),
        ("P50 ≤", Side::Right),
        ("P99 ≤", Side::Right),
        ("P99.9 ≤", Side::Right),
        ("MAX ≤", Side::Right),
    ]);
    for stage in stages {
        table.row([
            stage.stage.to_owned(),
            count(stage.count),
            time(stage.p50_us, stage.count),
            time(stage.p99_us, stage.count),
            time(stage.p999_us, stage.count),
            time(stage.max_us, stage.count),
        ]);
    }
    table.render()
}

fn partitions(report: &Report, limit: usize) -> String {
    if report.partitions.is_empty() {
        return "no partition was written to\n".to_owned();
    }
    let mut table = Table::new([
        ("PARTITION", Side::Left),
        ("SHARD", Side::Right),
        ("RECORDS/S", Side::Right),
        ("BYTES/S", Side::Right),
        ("END", Side::Right),
        ("SIZE", Side::Right),
        ("STATE", Side::Left),
    ]);
    for partition in report.partitions.iter().take(limit) {
        table.row([
            format!("{}/{}", partition.topic, partition.partition),
            partition
                .shard
                .map(|shard| shard.to_string())
                .unwrap_or_default(),
            count(partition.records_per_second.round() as u64),
            bytes(partition.bytes_per_second),
            count(partition.log_end),
            bytes(partition.log_bytes as f64),
            partition.state.clone(),
        ]);
    }
    let mut text = table.render();
    let more = report.partitions.len().saturating_sub(limit);
    if more > 0 {
        let _ = writeln!(text, "and {} more that were written to", count(more as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::{BrokerReport, PartitionReport};
    use super::*;

    #[test]
    fn times_have_three_digits_and_say_when_there_are_none() {
        let us = [1.0, 768.0, 1_536.0, 24_576.0, 393_216.0, 4_294_967.0];
        let shown = us.map(|us| time(Some(us), 1));
        let wanted = ["1 µs", "768 µs", "1.54 ms", "24.6 ms", "393 ms", "4.29 s"];
        assert_eq!(shown, wanted);
        assert_eq!(time(None, 0), "-");
        assert_eq!(time(None, 3), "> 4 s");
    }

    #[test]
    fn only_the_busiest_are_shown_and_the_silent_first() {
        let shard = |number: u32, busy: f64| ShardReport {
            shard: Some(number),
            responds: number != 2,
            busy,
            ..ShardReport::default()
        };
        let report = Report {
            broker: BrokerReport {
                state: "impaired".to_owned(),
                reason: Some("no disk".to_owned()),
                ..BrokerReport::default()
            },
            shards: vec![shard(0, 0.1), shard(1, 0.9), shard(2, 0.0), shard(3, 0.5)],
            partitions: (0..5)
                .map(|partition| PartitionReport {
                    topic: "t".to_owned(),
                    partition,
                    ..PartitionReport::default()
                })
                .collect(),
            ..Report::default()
        };
        let text = render(&report, 2);
        assert!(text.contains("impaired: no disk"), "{text}");
        let first = text.lines().skip(4).take(3).collect::<Vec<_>>();
        assert!(first[0].trim_start().starts_with("2 (silent)"), "{text}");
        assert!(first[1].trim_start().starts_with("1 "), "{text}");
        assert!(first[2].trim_start().starts_with("all"), "{text}");
        assert!(text.contains("t/1") && !text.contains("t/2"), "{text}");
        assert!(text.contains("and 3 more"), "{text}");
    }
}
