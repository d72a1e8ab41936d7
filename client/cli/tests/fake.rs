//! Every command against a broker in memory: what goes in comes out, what is refused is told, and
//! the exit codes are those of the contract.

#[path = "../../tests/fake_broker/mod.rs"]
mod fake_broker;
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use fake_broker::{FakeBroker, Fate};
use ringway_wire::ErrorCode;
use ringway_wire::request::Request;
use support::{Ringway, finish, noise, read, signal};

fn start() -> (FakeBroker, Ringway) {
    let broker = FakeBroker::with_shards(2);
    let ringway = Ringway::new(broker.address());
    (broker, ringway)
}

fn lines(count: u32) -> Vec<u8> {
    (1..=count)
        .map(|number| format!("{number}\n"))
        .collect::<String>()
        .into_bytes()
}

#[test]
fn a_topic_lives_and_dies() {
    let (_broker, ringway) = start();
    let created = ringway
        .run("topic create orders --partitions 3 --config retention_ms=5")
        .done();
    assert_eq!(created.text(), "created orders with 3 partitions\n");
    let listed = ringway.run("topic list").done();
    assert_eq!(listed.text(), "TOPIC   PARTITIONS\norders           3\n");
    ringway
        .run("topic alter orders --config retention_ms=7 --config codec=none")
        .done();
    let described = ringway.run("topic describe orders").done();
    assert!(
        described.text().contains("retention_ms  7\n"),
        "{}",
        described.text()
    );
    let json = ringway
        .run("--output json topic describe orders")
        .done()
        .json();
    assert_eq!(json["config"]["codec"], "none");
    assert_eq!(json["partitions"][2]["leader"], 1);
    assert_eq!(json["partitions"][2]["end"], 0);
    let json = ringway.run("topic list --output json").done().json();
    assert_eq!(json["topics"][0]["partitions"], 3);
    ringway.run("topic delete orders").done();
    assert_eq!(
        ringway.run("--output json topic list").done().json()["topics"],
        serde_json::json!([])
    );
}

#[test]
fn a_topic_grows_and_is_trimmed() {
    let (_broker, ringway) = start();
    ringway.run("topic create orders --partitions 2").done();
    ringway
        .feed("produce orders --batch-records 1 --partition 1", &lines(10))
        .done();
    let grown = ringway.run("topic add-partitions orders --to 5").done();
    assert_eq!(grown.text(), "orders has 5 partitions now\n");
    let line = "topic add-partitions orders --to 6 --output json";
    assert_eq!(ringway.run(line).done().json()["partitions"], 6);
    let refused = ringway.run("topic add-partitions orders --to 6");
    assert_eq!(refused.code, 5);
    assert!(refused.err.contains("6 partitions"), "{}", refused.err);

    let trim = "topic trim orders --partition 1 --before";
    let trimmed = ringway.run(&format!("{trim} 4")).done();
    assert_eq!(trimmed.text(), "orders/1 starts at offset 4 now\n");
    let left = ringway.run("consume orders --until-end").done();
    assert_eq!(left.text().lines().count(), 6);
    assert_eq!(ringway.run(&format!("{trim} 11")).code, 5);
    let json = ringway.run(&format!("{trim} @9000000000000 --output json"));
    assert_eq!(json.done().json()["start"], 10);
    for wrong in ["-1", "@", "soon", "4.5"] {
        assert_eq!(ringway.run(&format!("{trim} {wrong}")).code, 2, "{wrong}");
    }
    let nowhere = ringway.run("topic trim orders --partition 6 --before 0");
    assert_eq!(nowhere.code, 4, "{}", nowhere.err);
}

#[test]
fn exit_codes_are_a_contract() {
    let (broker, ringway) = start();
    broker.create_topic("t", 2);
    assert_eq!(ringway.run("topic create t --partitions 1").code, 5);
    assert_eq!(ringway.run("topic create a/b --partitions 1").code, 5);
    assert_eq!(ringway.run("topic alter t --config nonsense=1").code, 5);
    for line in [
        "topic describe none",
        "topic delete none",
        "topic alter none --config a=1",
        "topic add-partitions none --to 2",
        "topic trim none --partition 0 --before 1",
        "offsets none",
        "consume none --until-end",
        "produce none",
    ] {
        let run = ringway.run(line);
        assert_eq!(run.code, 4, "{line}: {}", run.err);
        let remedy = "`ringway topic create none --partitions N`";
        assert!(run.err.contains(remedy), "{line}: {}", run.err);
    }
    assert_eq!(ringway.run("consume t --partition 2 --until-end").code, 4);
    assert_eq!(ringway.run("produce t --partition 2").code, 4);
    assert_eq!(
        ringway
            .run("consume t --partition 1 --from 1 --until-end")
            .code,
        5
    );
    assert_eq!(ringway.run("produce t --input chunks").code, 2);
    assert_eq!(ringway.run("produce t --batch-bytes 1G").code, 2);
    assert_eq!(ringway.run("topic frobnicate").code, 2);
    assert_eq!(ringway.run("--broker nowhere topic list").code, 2);
    // A port of the reserved range 0 can't have a listener.
    let run = ringway.run("--broker 127.0.0.1:1 --output json topic list");
    assert_eq!(run.code, 3, "{}", run.err);
    let error: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(error["error"], "environment");
    assert_eq!(error["exit"], 3);
}

#[test]
fn lines_are_spread_and_keep_their_order() {
    let (broker, ringway) = start();
    let summary = ringway.feed(
        "produce t --create 4 --batch-records 500 --output json",
        &lines(20_000),
    );
    let summary = summary.done().json();
    assert_eq!(summary["records"], 20_000);
    assert_eq!(summary["acknowledged"], 20_000);
    assert_eq!(summary["failed"], 0);
    let partitions: Vec<_> = (0..4)
        .map(|partition| broker.records("t", partition))
        .collect();
    assert!(
        partitions.iter().all(|records| records.len() > 1_000),
        "all are used"
    );

    let run = ringway
        .run("consume t --until-end --format %p~%o~%v\\n")
        .done();
    let mut seen: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
    for line in run.text().lines() {
        let mut words = line.split(' ');
        let partition = words.next().unwrap().parse().unwrap();
        let offset = words.next().unwrap().parse().unwrap();
        seen.entry(partition)
            .or_default()
            .push((offset, words.next().unwrap().parse().unwrap()));
    }
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 20_000);
    for records in seen.values() {
        assert!(
            records
                .windows(2)
                .all(|two| two[0].0 + 1 == two[1].0 && two[0].1 < two[1].1)
        );
    }
    let plain = ringway.run("consume t --until-end").done();
    let mut numbers: Vec<u32> = plain
        .text()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=20_000));

    let offsets = ringway.run("offsets t --output json").done().json();
    assert_eq!(offsets["records"], 20_000);
    assert_eq!(offsets["partitions"][1]["end"], partitions[1].len());
    let table = ringway.run("offsets t").done();
    assert_eq!(table.text().lines().count(), 6, "{}", table.text());
}

#[test]
fn any_bytes_come_back_as_they_were() {
    let (broker, ringway) = start();
    let input = noise(3_000_001);
    let run = ringway
        .feed(
            "produce t --create 1 --input chunks --value-bytes 64K",
            &input,
        )
        .done();
    assert!(
        run.err.starts_with("46 records (3.00 MB) to t in "),
        "{}",
        run.err
    );
    let run = ringway.run("consume t --until-end --format raw").done();
    assert!(run.out == input);

    broker.create_topic("frames", 1);
    let frames: Vec<u8> = [b"" as &[u8], b"a\n", &input[..70_000]]
        .iter()
        .flat_map(|value| [&(value.len() as u32).to_le_bytes(), *value].concat())
        .collect();
    ringway
        .feed("produce frames --input frames", &frames)
        .done();
    let values: Vec<_> = broker
        .records("frames", 0)
        .into_iter()
        .map(|r| r.value.unwrap())
        .collect();
    assert_eq!(values.len(), 3);
    assert!(values[0].is_empty() && values[1] == b"a\n" && values[2] == input[..70_000]);

    broker.create_topic("torn", 1);
    let run = ringway.feed("produce torn --input frames", &frames[..9]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("input byte 4"), "{}", run.err);
    assert_eq!(
        broker.records("torn", 0).len(),
        1,
        "what came before is sent"
    );
}

#[test]
fn empty_lines_and_a_missing_last_line_feed_are_kept() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    ringway.feed("produce t", b"a\r\n\nlast").done();
    let values: Vec<_> = broker
        .records("t", 0)
        .into_iter()
        .map(|r| r.value.unwrap())
        .collect();
    assert_eq!(values, [b"a\r".to_vec(), Vec::new(), b"last".to_vec()]);
    assert_eq!(
        ringway.run("consume t --until-end").done().out,
        b"a\r\n\nlast\n"
    );
    ringway.run("produce t").done();
    assert_eq!(broker.records("t", 0).len(), 3, "no input is no record");
}

#[test]
fn keys_headers_tags_and_times_arrive() {
    let (broker, ringway) = start();
    broker.create_topic("t", 8);
    let line = "produce t --key-separator : --header a=1 --header b= --tag g --timestamp 1500";
    ringway.feed(line, b"k:v:w\nk:x\nnone\n").done();
    let run = ringway
        .run("consume t --until-end --format %k|%v|%h|%g|%t|%s\\n")
        .done();
    let mut lines: Vec<&str> = run.text().lines().collect();
    lines.sort_unstable();
    // Headers take 4 bytes each beside their names and values.
    let expected = [
        "k|v:w|a=1,b=|g|1500|16",
        "k|x|a=1,b=|g|1500|14",
        "|none|a=1,b=|g|1500|16",
    ];
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    let with_key = (0..8).map(|p| broker.records("t", p));
    let with_key = with_key.filter(|records| records.iter().any(|record| record.key.is_some()));
    assert_eq!(with_key.count(), 1, "one key, one partition");

    let json = ringway.run("--output json consume t --until-end").done();
    let keyed = json
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let keyed = keyed.filter(|record: &serde_json::Value| record["key"] == "k");
    let values: Vec<_> = keyed.map(|record| record["value"].clone()).collect();
    assert_eq!(values, ["v:w", "x"]);
}

#[test]
fn reading_starts_and_ends_where_it_is_told_to() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    ringway
        .feed("produce t --batch-records 1", &lines(10))
        .done();
    let read = |line: &str| {
        let run = ringway.run(&format!("consume t {line}")).done();
        run.text()
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(read("--from 7 --until-end"), [8, 9, 10]);
    assert_eq!(read("--from 3 --count 2"), [4, 5]);
    assert_eq!(read("--count 0"), [0; 0]);
    assert_eq!(read("--from end --until-end"), [0; 0]);
    assert_eq!(read("--from @0 --until-end").len(), 10);
    assert_eq!(read("--from @99999999999999 --until-end"), [0; 0]);
    broker.cut("t", 0, 4);
    assert_eq!(read("--until-end"), [5, 6, 7, 8, 9, 10]);
    assert_eq!(read("--from 0 --until-end").len(), 6);
    assert_eq!(
        ringway
            .run("consume t --partition 0 --from 0 --until-end")
            .code,
        5
    );
    broker.create_topic("empty", 5);
    assert!(
        ringway
            .run("consume empty --until-end")
            .done()
            .out
            .is_empty()
    );
}

#[test]
fn what_comes_after_the_start_is_beyond_the_end() {
    let (broker, ringway) = start();
    broker.create_topic("t", 2);
    for partition in [0, 1] {
        let line = format!("produce t --partition {partition}");
        ringway.feed(&line, &lines(10)).done();
    }
    let (asked, wait) = std::sync::mpsc::channel();
    broker.hook(move |request| match request {
        Request::Fetch(fetch) if fetch.partition.0 == 1 => {
            let _ = asked.send(());
            Fate::Late(Duration::from_millis(700))
        }
        _ => Fate::Answer,
    });
    let reader = ringway.start("consume t --until-end --format %p~%v\\n");
    // The ends are known by now. The second partition keeps the reader waiting while both grow.
    wait.recv().unwrap();
    for partition in [0, 1] {
        let line = format!("produce t --partition {partition}");
        ringway.feed(&line, &lines(10)).done();
    }
    let run = finish(reader).done();
    let of = |partition: &str| {
        run.text()
            .lines()
            .filter(|line| line.starts_with(partition))
            .count()
    };
    assert_eq!((of("0 "), of("1 ")), (10, 10));
}

#[test]
fn following_shows_what_comes_and_ctrl_c_ends_it_well() {
    let (_broker, ringway) = start();
    ringway.feed("produce t --create 2", b"one\n").done();
    let mut follower = ringway.start("consume t");
    assert_eq!(read(&mut follower, 4), b"one\n");
    ringway.feed("produce t", b"two\n").done();
    assert_eq!(read(&mut follower, 4), b"two\n");
    signal(&follower, "INT");
    let run = finish(follower).done();
    assert!(run.err.starts_with("2 records from t in "), "{}", run.err);
}

#[test]
fn a_closed_pipe_ends_quietly_also_while_nothing_comes() {
    let (_broker, ringway) = start();
    ringway.feed("produce t --create 1", &lines(200_000)).done();
    for line in ["consume t", "consume t --until-end"] {
        let mut reader = ringway.start(line);
        assert_eq!(read(&mut reader, 2), b"1\n");
        drop(reader.stdout.take());
        let run = finish(reader);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{line}");
    }
    let mut idle = ringway.start("consume t --from end");
    drop(idle.stdout.take());
    let run = finish(idle);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn ctrl_c_sends_what_was_read() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    let mut follower = ringway.start("consume t");
    let mut producer = ringway.start("produce t");
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\nhalf").unwrap();
    assert_eq!(read(&mut follower, 8), b"one\ntwo\n");
    signal(&producer, "INT");
    let run = finish(producer).done();
    assert!(
        run.err.starts_with("2 records (6 B) to t in "),
        "{}",
        run.err
    );
    assert_eq!(broker.records("t", 0).len(), 2);
    signal(&follower, "TERM");
    finish(follower).done();
}

#[test]
fn ctrl_c_does_not_wait_for_a_broker_that_never_answers() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    let (asked, wait) = std::sync::mpsc::channel();
    broker.hook(move |request| match request {
        Request::Produce(_) => {
            let _ = asked.send(());
            Fate::Ignore
        }
        _ => Fate::Answer,
    });
    let mut producer = ringway.start("produce t --output json");
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    wait.recv().unwrap();
    signal(&producer, "INT");
    let run = finish(producer);
    assert_eq!(run.code, 1, "{}", run.err);
    let summary = run.json();
    assert_eq!(
        (&summary["records"], &summary["failed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(summary["errors"][0]["error"], "not_acknowledged");
    assert_eq!(summary["interrupted"], true);
}

#[test]
fn failed_records_are_counted_by_error() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    let mut batch = 0;
    broker.hook(move |request| match request {
        Request::Produce(_) => {
            batch += 1;
            match batch {
                2 => Fate::refuse(ErrorCode::RecordTooLarge),
                _ => Fate::Answer,
            }
        }
        _ => Fate::Answer,
    });
    let run = ringway.feed("produce t --output json --batch-records 10", &lines(100));
    assert_eq!(run.code, 1);
    let summary = run.json();
    let (failed, acknowledged) = (&summary["failed"], &summary["acknowledged"]);
    assert!(failed.as_u64().unwrap() > 0, "{summary}");
    assert_eq!(
        failed.as_u64().unwrap() + acknowledged.as_u64().unwrap(),
        100
    );
    assert_eq!(
        broker.records("t", 0).len() as u64,
        acknowledged.as_u64().unwrap()
    );
    assert!(run.err.contains(" of 100 records failed ("), "{}", run.err);
    assert!(run.err.contains("record_too_large"), "{}", run.err);
}

#[test]
fn a_failure_that_all_records_would_meet_stops_the_reading() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    broker.hook(|request| match request {
        Request::Produce(_) => Fate::refuse(ErrorCode::StorageFailed),
        _ => Fate::Answer,
    });
    let mut child = ringway.start("produce t");
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || while stdin.write_all(b"endless\n").is_ok() {});
    let run = finish(child);
    feeding.join().unwrap();
    assert_eq!(run.code, 1);
    assert!(run.err.contains("storage_failed"), "{}", run.err);
    assert!(
        run.err.contains("the rest of the input was not read"),
        "{}",
        run.err
    );
}

#[test]
fn a_trace_tells_the_stages() {
    let (_broker, ringway) = start();
    let run = ringway
        .feed("produce t --create 1 --trace --batch-records 1", &lines(20))
        .done();
    let told = |name: &str| {
        let line = run
            .err
            .lines()
            .find(|line| line.starts_with(name))
            .expect(&run.err);
        let mut figures = line
            .split_whitespace()
            .skip(1)
            .map(|us| us.parse::<f64>().unwrap());
        assert_eq!(figures.clone().count(), 4, "{line}");
        figures.nth(1).unwrap()
    };
    assert!((told("written") - 300.0).abs() < 1.0 && (told("total") - 343.0).abs() < 1.0);
    let run = ringway
        .feed("produce t --trace --output json", &lines(20))
        .done();
    let median = run.json()["trace"]["stages"]["durable"]["p50_us"]
        .as_f64()
        .unwrap();
    assert!((median - 40.0).abs() < 0.1, "{median}");
}

#[test]
fn without_acknowledgements_the_records_arrive_too() {
    let (broker, ringway) = start();
    broker.create_topic("t", 1);
    let run = ringway
        .feed("produce t --acks none --output json", &lines(1_000))
        .done();
    assert_eq!(run.json()["failed"], 0);
    let run = ringway.run("consume t --count 1000").done();
    assert_eq!(run.text().lines().count(), 1_000);
}
