//! The command line and the broker of this workspace, process against process, on a real disk: all
//! that went in comes out, in order, also after a restart.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::time::Duration;

use support::broker::{Broker, data};
use support::{Ringway, finish, noise, signal};

const LINES: u32 = 100_000;

/// Reads everything and checks that each number came once, in order within its partition.
fn check_lines(ringway: &Ringway) {
    let run = ringway
        .run("consume numbers --until-end --format %p~%o~%v\\n")
        .done();
    let mut last: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
    let mut seen = vec![false; LINES as usize + 1];
    for line in run.text().lines() {
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let (partition, offset, number) = (words[0] as u32, words[1], words[2] as u32);
        if let Some(&(before, smaller)) = last.get(&partition) {
            assert!(
                before + 1 == offset && smaller < number,
                "{line} after {before} {smaller}"
            );
        }
        last.insert(partition, (offset, number));
        assert!(
            !std::mem::replace(&mut seen[number as usize], true),
            "{number} came twice"
        );
    }
    assert!(seen[1..].iter().all(|&seen| seen), "every number came");
    assert_eq!(last.len(), 4, "every partition is used");
}

/// Reports of `top` until one is right; then Ctrl-C.
fn watch(broker: &Broker, right: impl Fn(&serde_json::Value) -> bool) {
    let line = format!(
        "top --interval 200ms --output json --admin {}",
        broker.admin
    );
    let mut top = broker.ringway().start(&line);
    let lines = BufReader::new(top.stdout.take().expect("it is piped")).lines();
    let seen = lines.take(300).any(|line| {
        let report = serde_json::from_str(&line.expect("it is text")).expect("it is JSON");
        right(&report)
    });
    assert!(seen, "no report was right");
    signal(&top, "INT");
    finish(top).done();
}

#[test]
fn top_shows_who_is_busy() {
    let data = data("cli-top");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    ringway.run("topic create busy").done();
    ringway.run("topic create idle").done();
    let mut producing = ringway.start("produce busy");
    let mut input = producing.stdin.take().expect("it is piped");
    let feeding = std::thread::spawn(move || while input.write_all(b"a line\n").is_ok() {});
    watch(&broker, |report| {
        let stages = report["stages"].as_array().unwrap();
        let durable = stages
            .iter()
            .find(|stage| stage["stage"] == "produce: whole");
        let hot = &report["partitions"][0];
        hot["topic"] == "busy"
            && hot["records_per_second"].as_f64() > Some(0.0)
            && report["partitions"][1].is_null()
            && report["total"]["records_per_second"].as_f64() > Some(0.0)
            && report["shards"].as_array().unwrap().len() == 2
            && durable.unwrap()["p99_us"].as_f64() > Some(0.0)
    });
    let once = format!("top --once --interval 200ms --admin {}", broker.admin);
    let run = ringway.run(&once).done();
    for part in ["SHARD", "produce: durable", "serving", "2 topics"] {
        assert!(run.text().contains(part), "{part} in {}", run.text());
    }
    signal(&producing, "KILL");
    let _ = producing.wait();
    feeding.join().expect("writing doesn't panic");
    // Its client port is no admin server, and says so.
    let run = ringway.run(&format!("top --once --admin {}", broker.address));
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("--admin"), "{}", run.err);
    broker.stop();
    let run = ringway.run(&once);
    assert_eq!(run.code, 3, "{}", run.err);
}

#[test]
fn everything_comes_back_also_after_a_restart() {
    let data = data("cli-restart");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    let lines: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let blob = noise(4_000_001);

    ringway.run("topic create numbers --partitions 4").done();
    // Small batches, so that records meet every partition whatever the machine's speed.
    let line = "produce numbers --batch-records 1000 --output json";
    let summary = ringway.feed(line, lines.as_bytes()).done().json();
    assert_eq!(
        (&summary["acknowledged"], &summary["failed"]),
        (&LINES.into(), &0.into())
    );
    let line = "produce blob --create 1 --input chunks --value-bytes 65536 --trace --output json";
    let summary = ringway.feed(line, &blob).done().json();
    assert!(
        summary["trace"]["stages"]["total"]["p50_us"].as_f64() > Some(0.0),
        "{summary}"
    );

    check_lines(&ringway);
    assert!(
        ringway
            .run("consume blob --until-end --format raw")
            .done()
            .out
            == blob
    );
    let offsets = ringway.run("offsets numbers --output json").done().json();
    assert_eq!(offsets["records"], LINES);
    broker.stop();

    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    check_lines(&ringway);
    assert!(
        ringway
            .run("consume blob --until-end --format raw")
            .done()
            .out
            == blob
    );
    assert_eq!(
        ringway.run("offsets numbers --output json").done().json()["records"],
        LINES
    );
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

/// Text compresses, noise doesn't: both kinds of batches, of both codecs, and a topic's own codec.
#[test]
fn everything_comes_back_compressed() {
    let data = data("cli-compressed");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    let lines: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let mut blob = noise(1_000_001);
    blob.extend_from_slice(&b"the same words over and over again\n".repeat(50_000));
    let stored = |topic: &str| {
        let run = ringway
            .run(&format!("offsets {topic} --output json"))
            .done();
        let json = run.json();
        let partitions = json["partitions"]
            .as_array()
            .expect("its partitions")
            .clone();
        let bytes = partitions.iter().map(|each| each["bytes"].as_u64());
        bytes.sum::<Option<u64>>().expect("each has a size")
    };
    ringway.run("topic create plain --partitions 4").done();
    ringway
        .feed("produce plain --batch-records 1000", lines.as_bytes())
        .done();
    for codec in ["lz4", "zstd"] {
        let create = format!("topic create numbers --partitions 4 --config codec={codec}");
        ringway.run(&create).done();
        ringway
            .feed("produce numbers --batch-records 1000", lines.as_bytes())
            .done();
        check_lines(&ringway);
        let (packed, plain) = (stored("numbers"), stored("plain"));
        // The table, 32 bytes a record, stays as it is.
        assert!(packed < plain, "{codec}: {packed} of {plain} bytes");

        let produce = format!(
            "produce blob-{codec} --create 1 --codec {codec} --input chunks --value-bytes 65536"
        );
        ringway.feed(&produce, &blob).done();
        let consume = format!("consume blob-{codec} --until-end --format raw");
        assert!(ringway.run(&consume).done().out == blob, "{codec}");
        let packed = stored(&format!("blob-{codec}"));
        assert!(packed < blob.len() as u64, "{codec}: {packed}");
        ringway.run("topic delete numbers").done();
    }
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

#[test]
fn the_brokers_refusals_have_the_exit_codes_of_the_contract() {
    let data = data("cli-refusals");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    ringway
        .run("topic create t --partitions 2 --config record_bytes_max=1024")
        .done();
    assert_eq!(ringway.run("topic create t --partitions 2").code, 5);
    assert_eq!(ringway.run("topic create a/b --partitions 2").code, 5);
    assert_eq!(ringway.run("topic create u --config nonsense=1").code, 5);
    assert_eq!(
        ringway.run("topic alter t --config retention_ms=soon").code,
        5
    );
    assert_eq!(ringway.run("topic describe none").code, 4);
    let run = ringway.run("consume none --until-end");
    assert_eq!(run.code, 4);
    assert!(
        run.err
            .contains("`ringway topic create none --partitions N`"),
        "{}",
        run.err
    );
    assert_eq!(ringway.run("produce none").code, 4);
    assert_eq!(ringway.run("consume t --partition 2 --until-end").code, 4);
    assert_eq!(
        ringway
            .run("consume t --partition 0 --from 1 --until-end")
            .code,
        5
    );

    let run = ringway.feed("produce t --input chunks --value-bytes 2000", &[7; 2000]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("record_too_large: 1"), "{}", run.err);

    ringway
        .run("topic alter t --config retention_ms=86400000")
        .done();
    let described = ringway.run("topic describe t --output json").done().json();
    assert_eq!(described["config"]["retention_ms"], "86400000");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(2));
    ringway.run("topic delete t").done();
    assert_eq!(ringway.run("offsets t").code, 4);
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

/// Feeds numbered lines to a producer that runs until its input ends, `key` before each.
fn feed_until(producer: &mut Child, numbers: &mut u32, until: impl Fn(u32) -> bool) {
    let input = producer.stdin.as_mut().expect("it is piped");
    while !until(*numbers) {
        writeln!(input, "key-{}:{numbers}", *numbers % 97).expect("it reads");
        *numbers += 1;
        if numbers.is_multiple_of(100) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn partitions_are_added_while_a_producer_runs_and_it_uses_them() {
    let data = data("cli-grow");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    ringway.run("topic create t --partitions 2").done();
    let line = "produce t --key-separator : --batch-records 50 --output json";
    let mut producer = ringway.start(line);
    let mut numbers = 0;
    feed_until(&mut producer, &mut numbers, |sent| sent >= 2_000);
    let grown = ringway.run("topic add-partitions t --to 5 --output json");
    assert_eq!(grown.done().json()["partitions"], 5);
    let records = |partition: usize| {
        let offsets = ringway.run("offsets t --output json").done().json();
        offsets["partitions"][partition]["records"]
            .as_u64()
            .unwrap()
    };
    // However slow the machine: the producer goes on until it has found the new ones.
    let mut target = numbers;
    while (2..5).any(|partition| records(partition) == 0) {
        assert!(target < 1_000_000, "the new partitions are not used");
        target += 1_000;
        feed_until(&mut producer, &mut numbers, |sent| sent >= target);
    }
    // From here on every key goes where it belongs now.
    target += 1_000;
    feed_until(&mut producer, &mut numbers, |sent| sent >= target);
    let summary = finish(producer).done().json();
    assert_eq!(summary["acknowledged"], numbers);

    // Every number once; those of a key in order, first in one partition, then perhaps in a new one.
    let line = "consume t --until-end --format %p~%k~%v\\n";
    let run = ringway.run(line).done();
    let mut by_key: BTreeMap<String, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for line in run.text().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let of_key = by_key.entry(words[1].to_owned()).or_default();
        let place = of_key.entry(words[0].parse().unwrap()).or_default();
        place.push(words[2].parse().unwrap());
    }
    let mut seen = 0;
    for (key, places) in &by_key {
        assert!(places.len() <= 2, "{key}: {:?}", places.keys());
        let old = places.keys().filter(|partition| **partition < 2).count();
        assert!(old <= 1, "{key} was in both old partitions");
        let numbers: Vec<u32> = places.values().flatten().copied().collect();
        assert!(numbers.is_sorted(), "{key} lost its order");
        seen += numbers.len() as u32;
    }
    assert_eq!(seen, numbers);
    let moved = by_key
        .values()
        .filter(|places| places.keys().any(|p| *p >= 2));
    assert!((20..90).contains(&moved.count()), "three of five keys move");

    // After a restart they are still there, and so is what trimming left.
    let before = records(0);
    ringway.run("topic trim t --partition 0 --before 10").done();
    broker.stop();
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    let offsets = ringway.run("offsets t --output json").done().json();
    assert_eq!(offsets["partitions"].as_array().map(Vec::len), Some(5));
    assert_eq!(offsets["partitions"][0]["start"], 10);
    assert_eq!(offsets["partitions"][0]["records"], before - 10);
    let run = ringway.run("topic add-partitions t --to 5");
    assert_eq!(run.code, 5);
    assert!(run.err.contains("5 partitions already"), "{}", run.err);
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

#[test]
fn a_topics_keys_are_acted_on() {
    let data = data("cli-keys");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    let refused = ringway.run("topic create t --config min_in_sync=2");
    assert_eq!(refused.code, 5);
    assert!(refused.err.contains("min_in_sync"), "{}", refused.err);
    let line = "topic create t --config timestamp=append --config durability=memory \
                --config codec=lz4 --config min_in_sync=1";
    ringway.run(line).done();
    let refused = ringway.run("topic alter t --config min_in_sync=2");
    assert_eq!(refused.code, 5);
    let described = ringway.run("topic describe t --output json").done().json();
    for (key, value) in [
        ("timestamp", "append"),
        ("durability", "memory"),
        ("codec", "lz4"),
        ("min_in_sync", "1"),
    ] {
        assert_eq!(described["config"][key], value);
    }

    // The time that is shown is the topic's matter, also of records that are there.
    let text = "many times the same ".repeat(200) + "\n";
    let line = "produce t --timestamp 1000 --profile latency";
    let summary = ringway.feed(line, text.as_bytes()).done();
    assert!(summary.err.contains("from memory"), "{}", summary.err);
    let times = |profile: &str| {
        let line = format!("consume t --until-end --profile {profile} --format %t");
        let text = ringway.run(&line).done().text().to_owned();
        text.parse::<u64>().unwrap()
    };
    assert!(times("latency") > 1_600_000_000_000, "the append's");
    let offsets = ringway.run("offsets t --output json").done().json();
    let bytes = offsets["bytes"].as_u64().unwrap();
    assert!((1..text.len() as u64 / 4).contains(&bytes), "{bytes} bytes");
    ringway.run("topic alter t --config timestamp=").done();
    assert_eq!(times("throughput"), 1_000, "the producer's");
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

#[test]
fn a_follower_sees_records_as_they_come() {
    let data = data("cli-follow");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    ringway.run("topic create t --partitions 3").done();
    let mut follower = ringway.start("consume t --format %k=%v\\n");
    for round in 0..3 {
        let line = format!("k:{round}\n");
        ringway
            .feed("produce t --key-separator :", line.as_bytes())
            .done();
        assert_eq!(
            support::read(&mut follower, 4),
            format!("k={round}\n").as_bytes()
        );
    }
    signal(&follower, "INT");
    let run = finish(follower).done();
    assert!(run.err.starts_with("3 records from t in "), "{}", run.err);
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}
