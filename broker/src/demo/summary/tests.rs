//! The summary's verdict, and that text and JSON say the same.

use ringway_tuning::SyncScope;

use super::super::problem::Kind;
use super::super::sampler::{Sampled, SourceCount};
use super::*;

const PLAN: Plan = Plan {
    time: Duration::from_secs(20),
    partitions: 4,
};

fn ready() -> Ready {
    Ready {
        listen: "127.0.0.1:4000".to_owned(),
        shards: vec!["127.0.0.1:4001".to_owned()],
        admin: "127.0.0.1:4002".to_owned(),
        pid: 1,
    }
}

fn disk(barriers: bool, kept: bool) -> Disk {
    Disk {
        directory: "./ringway-demo-12ab".to_owned(),
        kept,
        device: "sda1".to_owned(),
        file_system: "ext4".to_owned(),
        volatile_cache: Some(true),
        barriers,
        sync_scope: SyncScope::Device,
        sync_scope_reason: "one flush covers all files".to_owned(),
        durable_write_us: Percentiles::default(),
        durable_writes: 500,
    }
}

fn outcome(received: u64, problems: Vec<Problem>) -> Outcome {
    let mut counts = [SourceCount::default(); Source::ALL.len()];
    counts[0] = SourceCount {
        readings: 10,
        samples: 1_200_000,
    };
    Outcome {
        time: Duration::from_secs(20),
        interrupted: false,
        sampled: Sampled {
            counts,
            cpu_time: Duration::ZERO,
        },
        sent: vec![
            Sent {
                records: 600_000,
                value_bytes: 6_000_000,
                acknowledged: 600_000,
                hash: 1,
            };
            2
        ],
        batches: 1_200,
        received,
        durable: Percentiles::default(),
        stages: StagePercentiles::default(),
        end_to_end: Percentiles::default(),
        cores: Cores::default(),
        problems,
    }
}

fn summary(received: u64, problems: Vec<Problem>) -> Summary {
    Summary::new(
        outcome(received, problems),
        PLAN,
        &ready(),
        disk(true, false),
    )
}

#[test]
fn a_faultless_run_is_verified_with_its_rate() {
    let summary = summary(1_200_000, Vec::new());
    assert!(summary.verified());
    let text = summary.text();
    for part in [
        "Every record arrived exactly as sent: 1,200,000",
        "60,000 records/s over 20.0 s",
        "1000 records a batch",
        "in the broker, p50  received     0 µs   queued     0 µs",
        "not readable here",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
    assert_eq!(json["verified"], true);
    assert_eq!(json["records"]["received"], 1_200_000);
    assert_eq!(json["records_per_second"], 60_000.0);
    assert_eq!(json["sources"][0]["source"], "cpu");
    assert_eq!(json["disk"]["sync_scope"], "device");
}

#[test]
fn a_problem_or_a_missing_record_is_a_failure() {
    let summary_of_loss = summary(1_199_999, Vec::new());
    assert!(!summary_of_loss.verified());
    assert!(summary_of_loss.text().starts_with("FAILED"));
    let problem = Problem {
        kind: Kind::Damaged,
        count: 2,
        first: "partition 1, offset 7: a CRC".to_owned(),
    };
    let summary = summary(1_200_000, vec![problem]);
    assert!(!summary.verified());
    let text = summary.text();
    assert!(
        text.contains("damaged (2): partition 1, offset 7: a CRC"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
    assert_eq!(json["verified"], false);
    assert_eq!(json["problems"][0]["kind"], "damaged");
}

#[test]
fn a_run_without_a_record_proves_nothing() {
    let mut outcome = outcome(0, Vec::new());
    outcome.sampled.counts = [SourceCount::default(); Source::ALL.len()];
    outcome.sent.clear();
    let summary = Summary::new(outcome, PLAN, &ready(), disk(true, false));
    assert!(!summary.verified());
}

#[test]
fn the_introduction_promises_no_more_than_the_disk_keeps() {
    let text = introduction(PLAN, &ready(), &disk(true, false));
    assert!(text.contains("no power cut takes it"), "{text}");
    assert!(
        text.contains("for 20 seconds") && text.contains("1 shard,"),
        "{text}"
    );
    assert!(text.contains("removed at the end"), "{text}");
    let text = introduction(PLAN, &ready(), &disk(false, true));
    assert!(
        text.contains("without barriers") && !text.contains("no power cut"),
        "{text}"
    );
    assert!(text.contains("(stays)"), "{text}");
}
