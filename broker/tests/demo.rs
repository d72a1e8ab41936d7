//! The demo as a newcomer runs it: the binary, this machine's telemetry, a real disk. It must end
//! with every record verified, leave nothing behind, or leave a log that the next broker serves.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringway_client::{Client, OffsetAt, PartitionIndex};
use ringway_testing::{BrokerOptions, Scratch};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");

fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

/// The demo in a directory.
fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .current_dir(directory)
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// The summary of a run that must be a success.
fn summary(mut demo: Command) -> Value {
    let output = demo.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{log}", output.status);
    assert_eq!(text.lines().count(), 1, "one object, nothing else: {text}");
    serde_json::from_str(&text).unwrap()
}

fn directories(parent: &Path) -> Vec<String> {
    let entries = fs::read_dir(parent).unwrap().map(Result::unwrap);
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    directories
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn number(value: &Value) -> u64 {
    let number = value.as_u64();
    number.unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn every_record_arrives_and_nothing_stays() {
    let scratch = scratch("demo");
    let summary = summary(demo(scratch.path(), &["--seconds", "3", "--json"]));
    assert_eq!(summary["verified"], true, "{summary}");
    assert_eq!(summary["problems"], Value::Array(Vec::new()));
    let records = &summary["records"];
    let sent = number(&records["sent"]);
    assert!(sent > 0, "{summary}");
    for count in ["sampled", "acknowledged", "received"] {
        assert_eq!(number(&records[count]), sent, "{count} in {summary}");
    }
    for latency in ["produce_to_durable_us", "end_to_end_us"] {
        let at = |percentile: &str| summary[latency][percentile].as_f64().unwrap();
        assert!(0.0 < at("p50") && at("p50") <= at("p999"), "{summary}");
    }
    let sources = summary["sources"].as_array().unwrap();
    let samples = |source: &Value| number(&source["samples"]);
    assert_eq!(sources.iter().map(samples).sum::<u64>(), sent);
    for wanted in ["cpu", "memory", "paging", "processes"] {
        let found = sources.iter().find(|source| source["source"] == wanted);
        assert!(samples(found.unwrap()) > 0, "{wanted}");
    }
    assert_eq!(directories(scratch.path()), Vec::<String>::new());
}

#[test]
fn data_that_stays_is_served_by_the_next_broker() {
    let scratch = scratch("demo-kept");
    let arguments = ["--seconds", "1", "--data-dir", "data"];
    let summary = summary(demo(
        scratch.path(),
        &[&arguments[..], &["--json"]].concat(),
    ));
    let options = BrokerOptions::new(BINARY, &scratch).data_dir(scratch.path().join("data"));
    let mut broker = options.start().unwrap();
    let partitions = u32::try_from(number(&summary["partitions"])).unwrap();
    let stored = records_in(&broker.listen().to_string(), partitions);
    assert_eq!(stored, number(&summary["records"]["sent"]));
    assert!(broker.stop(Duration::from_secs(60)).unwrap().success());
    // What has something in it is not fresh, and is left alone.
    let refused = demo(scratch.path(), &arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("data is not empty"), "{message}");
}

/// The records of all partitions, as their ends say.
fn records_in(address: &str, partitions: u32) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let admin = Client::connect(address).await.unwrap().admin();
        let mut records = 0;
        for partition in (0..partitions).map(PartitionIndex) {
            let offsets = admin.offsets("telemetry", partition, OffsetAt::End).await;
            records += offsets.unwrap().high_watermark.0;
        }
        records
    })
}

#[test]
fn an_early_end_is_an_orderly_one() {
    let scratch = scratch("demo-interrupted");
    let mut demo = demo(scratch.path(), &["--seconds", "3600"]);
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let mut introduction = String::new();
    while !introduction.contains("durable  ") {
        let more = lines.read_line(&mut introduction).unwrap();
        assert_ne!(more, 0, "it ended before it began: {introduction}");
    }
    assert!(introduction.contains("for 3600 seconds"), "{introduction}");
    let data = directories(scratch.path());
    assert!(
        data.len() == 1 && introduction.contains(&data[0]),
        "{data:?}\n{introduction}"
    );
    let kill = Command::new("kill")
        .args(["-INT", &demo.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let status = demo.wait().unwrap();
    assert!(status.success(), "{status}\n{rest}");
    assert!(rest.contains("Ended early, as asked."), "{rest}");
    assert!(rest.contains("Every record arrived exactly"), "{rest}");
    assert_eq!(directories(scratch.path()), Vec::<String>::new());
}
