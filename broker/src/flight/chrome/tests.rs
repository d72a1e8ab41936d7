//! What a trace viewer relies on: whole JSON, slices that nest, spans that end, stages that add up.

use std::collections::HashMap;

use serde_json::Value;

use super::super::event::{DeviceKind, JobKind};
use super::*;

const US: u64 = 1_000;

fn trace(recorders: &[FlightRecorder]) -> Vec<Value> {
    let now = (1_700_000_000_000_000, 5_000 * US);
    let flight = Flight::copy("a \"test\"".to_owned(), now, recorders.iter());
    let mut out = Vec::new();
    write_trace(&flight, &mut out).unwrap();
    let mut document: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(document["otherData"]["reason"], "a \"test\"");
    assert_eq!(document["otherData"]["dumped_us"], 5_000.0);
    let Value::Array(events) = document["traceEvents"].take() else {
        panic!("{document}");
    };
    check(&events);
    events
}

fn ns(event: &Value, field: &str) -> u64 {
    (event[field].as_f64().unwrap() * 1e3).round() as u64
}

/// What holds for every trace.
fn check(events: &[Value]) {
    let mut spans: HashMap<(String, String), i32> = HashMap::new();
    let mut slices: HashMap<(u64, u64), Vec<(u64, u64)>> = HashMap::new();
    for event in events {
        assert!(event["name"].is_string() && event["pid"].as_u64() > Some(0));
        let word = |field: &str| event[field].as_str().unwrap().to_owned();
        match event["ph"].as_str().unwrap() {
            "M" | "i" | "B" => {}
            "b" => *spans.entry((word("cat"), word("id"))).or_default() += 1,
            "e" => *spans.entry((word("cat"), word("id"))).or_default() -= 1,
            "X" => {
                let thread = (
                    event["pid"].as_u64().unwrap(),
                    event["tid"].as_u64().unwrap(),
                );
                let start = ns(event, "ts");
                let open = slices.entry(thread).or_default();
                let end = start + ns(event, "dur");
                open.retain(|slice| slice.1 > start);
                for outer in open.iter() {
                    assert!(outer.0 <= start && end <= outer.1, "{event} overlaps");
                }
                open.push((start, end));
            }
            other => panic!("{other}"),
        }
    }
    assert!(
        spans.values().all(|open| (0..=1).contains(open)),
        "{spans:?}"
    );
}

fn named<'a>(events: &'a [Value], name: &str, phase: &str) -> Vec<&'a Value> {
    let wanted = |event: &&Value| event["name"] == name && event["ph"] == phase;
    events.iter().filter(wanted).collect()
}

#[test]
fn an_empty_flight_is_a_trace() {
    let events = trace(&[FlightRecorder::default()]);
    assert_eq!(named(&events, "process_name", "M").len(), 1);
    assert!(named(&events, "turn", "X").is_empty());
}

#[test]
fn a_produce_request_shows_its_stages() {
    let recorder = FlightRecorder::default();
    recorder.record(Event::Accepted {
        kind: RequestKind::Produce,
        source: 0xab,
        correlation: 7,
        received_ns: 100 * US,
        took_ns: 10 * US,
        bytes: 4_096,
        answered: true,
    });
    recorder.record(Event::Round(RoundEvent {
        started_ns: 130 * US,
        written_ns: 200 * US,
        durable_ns: 50 * US,
        writes: 2,
        bytes: 8_192,
    }));
    recorder.record(Event::Answered {
        kind: RequestKind::Produce,
        source: 0xab,
        correlation: 7,
        received_ns: 100 * US,
        took_ns: 290 * US,
        bytes: 60,
    });
    let events = trace(&[recorder]);
    let produce = named(&events, "produce", "b")[0];
    let stages = ["received", "queued", "written", "durable", "answered"]
        .map(|stage| ns(&produce["args"], &format!("{stage}_us")) / US);
    assert_eq!(stages, [10, 20, 200, 50, 10]);
    assert_eq!(
        stages.iter().sum::<u64>(),
        290,
        "the stages are the whole way"
    );
    assert_eq!(produce["args"]["bytes"], 4_096);
    assert_eq!(ns(named(&events, "produce", "e")[0], "ts"), 390 * US);
    let round = named(&events, "round", "X")[0];
    assert_eq!((ns(round, "ts"), ns(round, "dur")), (130 * US, 250 * US));
    assert_eq!(ns(named(&events, "sync", "X")[0], "ts"), 330 * US);
}

#[test]
fn a_request_that_another_shard_answers_is_one_span() {
    let (first, second) = (FlightRecorder::default(), FlightRecorder::default());
    let received_ns = 100 * US;
    second.record(Event::Accepted {
        kind: RequestKind::Fetch,
        source: 1,
        correlation: 2,
        received_ns,
        took_ns: 40 * US,
        bytes: 0,
        answered: true,
    });
    first.record(Event::Answered {
        kind: RequestKind::Fetch,
        source: 1,
        correlation: 2,
        received_ns,
        took_ns: 90 * US,
        bytes: 1_000,
    });
    let events = trace(&[first, second]);
    let fetch = named(&events, "fetch", "b");
    assert_eq!(fetch.len(), 1);
    assert_eq!(fetch[0]["args"]["shard"], 1, "who has answered it");
    assert_eq!(fetch[0]["pid"], 1, "whose connection it is");
}

#[test]
fn what_is_not_over_begins_and_does_not_end() {
    let recorder = FlightRecorder::default();
    recorder.record(Event::JobSent {
        kind: JobKind::Prepare,
        id: 4,
        at_ns: 10 * US,
    });
    recorder.record(Event::Accepted {
        kind: RequestKind::Produce,
        source: 1,
        correlation: 2,
        received_ns: 20 * US,
        took_ns: US,
        bytes: 1,
        answered: true,
    });
    recorder.turn(30 * US);
    recorder.step(Step::Engine);
    let events = trace(&[recorder]);
    assert_eq!(named(&events, "prepare a segment", "b").len(), 1);
    assert_eq!(named(&events, "prepare a segment", "e").len(), 0);
    assert_eq!(
        named(&events, "produce", "b")[0]["args"]["answer"],
        "not yet"
    );
    let turn = named(&events, "turn", "B")[0];
    assert_eq!(turn["args"]["step"], "engine");
    assert_eq!(ns(turn, "ts"), 30 * US);
}

#[test]
fn a_long_turn_shows_its_steps_and_operations_their_bytes() {
    let recorder = FlightRecorder::default();
    for (started, took) in [(100, 10), (200, 70)] {
        recorder.record(Event::Turn {
            started_ns: started * US,
            took_ns: took * US,
            steps_ns: [US, 2 * US, 4 * US],
        });
    }
    recorder.record(Event::Device {
        kind: DeviceKind::DurableWrite,
        id: 9,
        started_ns: 210 * US,
        took_ns: 30 * US,
        bytes: 4_096,
        failed: true,
    });
    recorder.record(Event::JobSent {
        kind: JobKind::SaveCheckpoint,
        id: 10,
        at_ns: 1,
    });
    recorder.record(Event::JobDone {
        id: 10,
        at_ns: 2 * US,
        failed: false,
    });
    let events = trace(&[recorder]);
    assert_eq!(named(&events, "turn", "X").len(), 2);
    let engine = named(&events, "engine", "X");
    assert_eq!(engine.len(), 1, "the short one has no steps");
    assert_eq!(
        (ns(engine[0], "ts"), ns(engine[0], "dur")),
        (203 * US, 4 * US)
    );
    let sending = named(&events, "sending", "X")[0];
    assert_eq!((ns(sending, "ts"), ns(sending, "dur")), (207 * US, 63 * US));
    let write = named(&events, "durable write", "b")[0];
    assert_eq!(write["args"]["bytes"], 4_096);
    assert_eq!(write["args"]["failed"], true);
    assert_eq!(named(&events, "save the checkpoint", "e").len(), 1);
}

#[test]
fn the_last_milliseconds_alone_can_be_had() {
    let recorder = FlightRecorder::default();
    for at_ns in [1_000 * US, 4_500 * US] {
        recorder.record(Event::Connected { source: 1, at_ns });
    }
    let now = (0, 5_000 * US);
    let mut flight = Flight::copy(String::new(), now, [&recorder].into_iter());
    flight.keep_last(1_000 * US);
    assert_eq!(flight.shards[0].events.len(), 1);
    flight.keep_last(u64::MAX);
    assert_eq!(flight.shards[0].events.len(), 1);
}
