//! Rates, percentiles and hot partitions from two made-up looks.

use super::super::sample::{parse_metrics, parse_status};
use super::*;

fn sample(at_s: u64, metrics: &str, partitions: &str) -> Sample {
    let status = format!(
        r#"{{"broker":{{"node":1,"version":"1","pid":7,"started_us":1000000,"state":"serving",
        "reason":null,"listen":"l"}},"shards":[{{"shard":0,"responds":true}},
        {{"shard":1,"responds":false}}],"topics":[{{"name":"t","id":"a",
        "partitions":[{partitions}]}}]}}"#
    );
    Sample {
        at: Duration::from_secs(at_s),
        unix_us: 1_000_000 * (at_s as i64 + 1),
        shards: parse_metrics(metrics).unwrap(),
        status: parse_status(status.as_bytes()).unwrap(),
    }
}

fn partition(number: u32, state: &str, log_end: u64, log_bytes: u64) -> String {
    format!(
        r#"{{"partition":{number},"shard":0,"state":"{state}","log_start":0,
        "high_watermark":{log_end},"log_end":{log_end},"log_bytes":{log_bytes}}}"#
    )
}

fn histogram(shard: u32, counts: [u64; 4], sum: f64) -> String {
    let bounds = ["0.001", "0.002", "0.004", "+Inf"];
    let mut text = String::new();
    for (bound, count) in bounds.iter().zip(counts) {
        text +=
            &format!("ringway_turn_seconds_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {count}\n");
    }
    text + &format!("ringway_turn_seconds_sum{{shard=\"{shard}\"}} {sum}\n")
}

#[test]
fn rates_are_those_of_the_interval() {
    let metrics = |records: u64, connections: u64| {
        format!(
            "ringway_produced_records_total{{shard=\"0\"}} {records}\n\
             ringway_produced_records_total{{shard=\"1\"}} 50\n\
             ringway_connections{{shard=\"0\"}} {connections}\n"
        )
    };
    let before = sample(10, &(metrics(100, 9) + &histogram(0, [0; 4], 1.0)), "");
    let after = sample(14, &(metrics(500, 3) + &histogram(0, [0; 4], 2.0)), "");
    let report = report(&before, &after).unwrap();
    assert_eq!(report.seconds, 4.0);
    assert_eq!(report.shards[0].records_per_second, 100.0);
    assert_eq!(report.shards[0].connections, 3.0);
    assert_eq!(report.shards[0].busy, 0.25);
    assert_eq!(report.shards[1].records_per_second, 0.0);
    assert_eq!(report.total.records_per_second, 100.0);
    assert_eq!(report.broker.up_seconds, 14);
    assert!(report.shards[0].responds && !report.shards[1].responds);
    assert!(!report.total.responds);
}

#[test]
fn percentiles_are_upper_bounds_over_all_shards() {
    let before = histogram(0, [10, 10, 10, 10], 0.0) + &histogram(1, [0; 4], 0.0);
    let after = histogram(0, [908, 1000, 1010, 1010], 0.0) + &histogram(1, [0, 0, 1, 1], 0.0);
    let report = report(&sample(0, &before, ""), &sample(1, &after, "")).unwrap();
    let turn = report.stages.last().unwrap();
    assert_eq!(turn.count, 1001);
    assert_eq!(turn.p50_us, Some(1_000.0));
    assert_eq!(turn.p99_us, Some(4_000.0));
    assert_eq!(turn.max_us, Some(4_000.0));
    let idle = &report.stages[0];
    assert_eq!((idle.count, idle.p50_us, idle.max_us), (0, None, None));
}

#[test]
fn what_is_beyond_the_bounds_has_none() {
    let after = histogram(0, [0, 0, 0, 5], 0.0);
    let report = report(&sample(0, "", ""), &sample(1, &after, "")).unwrap();
    let turn = report.stages.last().unwrap();
    assert_eq!((turn.count, turn.p50_us, turn.max_us), (5, None, None));
}

#[test]
fn hot_partitions_come_by_their_rate_and_those_in_trouble_first() {
    let all = |states: [(&str, u64, u64); 4]| {
        let each = states.iter().enumerate();
        let each =
            each.map(|(number, (state, end, bytes))| partition(number as u32, state, *end, *bytes));
        each.collect::<Vec<_>>().join(",")
    };
    let before = all([
        ("ready", 10, 100),
        ("ready", 5, 50),
        ("ready", 7, 70),
        ("ready", 1, 9),
    ]);
    let after = all([
        ("ready", 12, 90),
        ("ready", 105, 1_050),
        ("ready", 7, 70),
        ("full", 1, 9),
    ]);
    let report = report(&sample(0, "", &before), &sample(2, "", &after)).unwrap();
    let order: Vec<_> = report
        .partitions
        .iter()
        .map(|found| found.partition)
        .collect();
    assert_eq!(order, [3, 1, 0], "the idle one is left out");
    let hot = &report.partitions[1];
    assert_eq!(
        (hot.records_per_second, hot.bytes_per_second),
        (50.0, 500.0)
    );
    // Retention took more than was written.
    assert_eq!(report.partitions[2].bytes_per_second, 0.0);
    assert_eq!(report.broker.partitions, 4);
}

#[test]
fn a_broker_that_was_restarted_is_looked_at_anew() {
    let before = sample(0, "", "");
    let mut after = sample(1, "", "");
    assert!(report(&before, &after).is_some());
    after.status.broker.pid = 8;
    assert_eq!(report(&before, &after), None);
    assert_eq!(report(&before, &before), None, "no time has passed");
}
