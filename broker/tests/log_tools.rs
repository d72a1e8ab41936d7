//! `log verify` and `log dump` on data directories that real brokers left, whole and damaged.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringway_broker::log_tools::{
    DumpOptions, Finding, Selection, Verified, VerifyOptions, dump, verify,
};
use ringway_client::{Client, NewTopic, PartitionIndex, Record};
use ringway_testing::{BrokerOptions, BrokerProcess, Random, Scratch};
use ringway_wire::Offset;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");
const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: u64 = 600;

fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

/// Writes `RECORDS` records of 1,000 bytes into each of two partitions of small segments.
fn fill(broker: &BrokerProcess) {
    let address = broker.listen().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&address).await.unwrap();
        let topic = NewTopic::new("orders")
            .partitions(2)
            .config("segment_bytes", "131072");
        client.admin().create_topic(topic).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for number in 0..RECORDS {
            for partition in 0..2 {
                let value = format!("{partition}/{number}/").repeat(250);
                let record = Record::value(&value.as_bytes()[..1_000]);
                let sent = producer.send_to("orders", PartitionIndex(partition), record);
                drop(sent.await.unwrap());
            }
            // Batches of a few records each.
            if number % 7 == 0 {
                producer.flush().await.unwrap();
            }
        }
        producer.flush().await.unwrap();
    });
}

/// A data directory that a broker left in order.
fn stopped(scratch: &Scratch) -> PathBuf {
    let broker = BrokerOptions::new(BINARY, scratch).shards(2).start();
    let mut broker = broker.unwrap();
    fill(&broker);
    broker.signal(libc::SIGTERM).unwrap();
    assert!(broker.wait(PATIENCE).unwrap().unwrap().success());
    scratch.path().join("data")
}

fn verified(data_dir: &Path) -> Verified {
    let options = VerifyOptions {
        selection: Selection {
            data_dir: data_dir.to_owned(),
            ..Selection::default()
        },
        json: true,
    };
    verify(&options, &mut Vec::new()).unwrap()
}

/// A copy to be damaged.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([from, to])
        .status();
    assert!(status.unwrap().success());
}

/// The segments of partition 0, by offset.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let topic = fs::read_dir(data_dir.join("topics")).unwrap().next();
    let partition = topic.unwrap().unwrap().path().join("0");
    let files = fs::read_dir(partition).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let is_segment = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "log") && !path.ends_with("next.log")
    };
    files.retain(is_segment);
    files.sort();
    files
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, position).unwrap();
}

fn only(verified: &Verified) -> &Finding {
    assert!(!verified.whole);
    let [finding] = &verified.damage[..] else {
        panic!("{:#?}", verified.damage);
    };
    finding
}

/// Where the batches of partition 0 are: file, position, end.
fn batches(data_dir: &Path) -> Vec<(String, u64, u64)> {
    let options = DumpOptions {
        selection: Selection {
            data_dir: data_dir.to_owned(),
            topic: Some("orders".to_owned()),
            partition: Some(0),
        },
        from: Offset(0),
        to: Offset(u64::MAX),
        records: false,
        json: true,
    };
    let mut out = Vec::new();
    assert!(dump(&options, &mut out).unwrap());
    let lines = String::from_utf8(out).unwrap();
    let batch = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let position = value["position"].as_u64()?;
        let file = value["file"].as_str()?.to_owned();
        (value["event"] == "batch")
            .then(|| (file, position, position + value["bytes"].as_u64().unwrap()))
    };
    lines.lines().filter_map(batch).collect()
}

#[test]
fn what_a_broker_left_in_order_or_was_killed_over_is_whole() {
    let scratch = scratch("log-tools-whole");
    let data_dir = stopped(&scratch);
    let found = verified(&data_dir);
    assert!(found.whole, "{:#?}", found.damage);
    assert_eq!(
        found.notes,
        [],
        "after a stop in order nothing is left over"
    );
    assert_eq!(found.totals.records, 2 * RECORDS);
    assert!(found.totals.segments >= 8, "{:?}", found.totals);
    for partition in &found.partitions {
        assert_eq!((partition.log_start, partition.log_end), (0, RECORDS));
        assert_eq!(partition.epochs.len(), 1);
    }
    // Killed while it writes, again and again.
    for round in 0..5 {
        let broker = BrokerOptions::new(BINARY, &scratch).shards(2).start();
        let mut broker = broker.unwrap();
        let address = broker.listen().to_string();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (told, hear) = std::sync::mpsc::channel();
        let load = runtime.spawn(async move {
            let client = Client::connect(&address).await.unwrap();
            let producer = client.producer().build().await.unwrap();
            let value = vec![round; 3_000];
            let mut sent = 0;
            while let Ok(delivery) = producer.send("orders", Record::value(&value)).await {
                sent += 1;
                // The one that is awaited has many behind it.
                if sent % 100 == 0 && delivery.await.is_ok() {
                    let _ = told.send(());
                }
            }
        });
        hear.recv_timeout(PATIENCE).unwrap();
        hear.recv_timeout(PATIENCE).unwrap();
        broker.kill().unwrap();
        load.abort();
        let found = verified(&data_dir);
        assert!(found.whole, "round {round}: {:#?}", found.damage);
        assert!(found.totals.records > 2 * RECORDS);
    }
}

#[test]
fn any_flipped_byte_is_found_where_it_is() {
    let scratch = scratch("log-tools-flips");
    let data_dir = stopped(&scratch);
    let batches = batches(&data_dir);
    assert!(batches.len() > 60, "{}", batches.len());
    let mut random = Random::new(7);
    for _ in 0..120 {
        let batch = random.below(batches.len() as u64) as usize;
        let (file, start, end) = &batches[batch];
        let position = start + random.below(end - start);
        let path = data_dir.join(file);
        flip(&path, position);
        let found = verified(&data_dir);
        let finding = only(&found);
        assert_eq!(finding.file.as_ref(), Some(file), "{finding}");
        assert_eq!(finding.position, Some(*start), "{position}: {finding}");
        assert_eq!(finding.topic.as_deref(), Some("orders"));
        assert_eq!(finding.partition, Some(0));
        flip(&path, position);
    }
    assert!(verified(&data_dir).whole);
}

#[test]
fn every_other_damage_is_named() {
    let scratch = scratch("log-tools-damage");
    let whole = stopped(&scratch);
    let data_dir = scratch.path().join("copy");
    let kind = |damage: &dyn Fn(&Path)| {
        copy(&whole, &data_dir);
        damage(&data_dir);
        let found = verified(&data_dir);
        let kinds: Vec<_> = found.damage.iter().map(|finding| finding.kind).collect();
        (kinds, found)
    };
    let side = |path: &Path| path.with_extension("side");

    let (kinds, found) = kind(&|dir| fs::remove_file(&segments(dir)[1]).unwrap());
    assert_eq!(kinds, ["missing_segment"], "{:#?}", found.damage);
    let lost = &found.damage[0];
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse().ok();
    assert_eq!(lost.first_offset, base(&segments(&whole)[1]));
    assert_eq!(lost.end_offset, base(&segments(&whole)[2]));

    let (kinds, found) = kind(&|dir| fs::remove_file(&segments(dir)[0]).unwrap());
    assert_eq!(kinds, ["lost_head"], "{:#?}", found.damage);

    let (kinds, found) = kind(&|dir| fs::remove_file(segments(dir).last().unwrap()).unwrap());
    assert_eq!(kinds, ["lost_tail"], "{:#?}", found.damage);
    assert_eq!(found.damage[0].end_offset, Some(RECORDS));

    let (kinds, found) = kind(&|dir| {
        let segment = &segments(dir)[1];
        File::options()
            .write(true)
            .open(segment)
            .unwrap()
            .set_len(8192)
            .unwrap();
    });
    assert_eq!(kinds, ["missing"], "{:#?}", found.damage);

    let (kinds, found) = kind(&|dir| flip(&side(&segments(dir)[0]), 40));
    assert_eq!(kinds, ["side_file"], "{:#?}", found.damage);

    // Another segment's side file under this one's name.
    let (kinds, found) = kind(&|dir| {
        let segments = segments(dir);
        fs::copy(side(&segments[0]), side(&segments[1])).unwrap();
    });
    assert_eq!(kinds, ["side_file"], "{:#?}", found.damage);

    // A crash tears one slot of a checkpoint, never both.
    let (kinds, found) = kind(&|dir| {
        let slots = ["checkpoint-0.a", "checkpoint-0.b"].map(|slot| dir.join(slot));
        let there = slots.iter().find(|slot| slot.exists()).unwrap().clone();
        flip(&there, 30);
        for slot in slots.iter().filter(|slot| **slot != there) {
            fs::copy(&there, slot).unwrap();
        }
    });
    assert_eq!(kinds, ["checkpoint"; 2], "{:#?}", found.damage);
    let (kinds, found) = kind(&|dir| {
        let slots = ["checkpoint-0.a", "checkpoint-0.b"].map(|slot| dir.join(slot));
        fs::write(
            slots
                .iter()
                .find(|slot| !slot.exists())
                .unwrap_or(&slots[0]),
            b"torn",
        )
        .unwrap();
    });
    assert!(kinds.is_empty(), "{:#?}", found.damage);
    assert_eq!(found.notes[0].kind, "checkpoint_slot");

    let (kinds, found) = kind(&|dir| {
        for entry in fs::read_dir(dir.join("metadata")).unwrap() {
            flip(&entry.unwrap().path(), 9);
        }
    });
    assert_eq!(kinds, ["metadata"], "{:#?}", found.damage);
    // The records are whole all the same.
    assert_eq!(found.totals.records, 2 * RECORDS);

    // Segments of two partitions changed places.
    let (kinds, found) = kind(&|dir| {
        let mine = segments(dir)[0].clone();
        let other = mine
            .parent()
            .unwrap()
            .with_file_name("1")
            .join(mine.file_name().unwrap());
        fs::rename(&mine, dir.join("swap")).unwrap();
        fs::rename(&other, &mine).unwrap();
        fs::rename(dir.join("swap"), &other).unwrap();
    });
    assert_eq!(kinds, ["other_log"; 2], "{:#?}", found.damage);
}

#[test]
fn what_follows_the_logs_end_is_no_damage() {
    let scratch = scratch("log-tools-tail");
    let data_dir = stopped(&scratch);
    let (file, start, end) = batches(&data_dir).pop().unwrap();
    let path = data_dir.join(file);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    // Garbage; the start of a batch of a former life; a batch that is torn.
    let mut last = vec![0; (end - start) as usize];
    file.read_exact_at(&mut last, start).unwrap();
    for tail in [&[0x5a; 300][..], &last[..last.len() - 16]] {
        file.write_all_at(tail, end).unwrap();
        let found = verified(&data_dir);
        assert!(found.whole, "{:#?}", found.damage);
        assert_eq!(found.totals.records, 2 * RECORDS);
    }
}

#[test]
fn a_batch_that_decays_before_a_checkpoint_covers_it_shows_by_what_follows() {
    let scratch = scratch("log-tools-decay");
    let data_dir = stopped(&scratch);
    for entry in fs::read_dir(&data_dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("checkpoint-")
        {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(verified(&data_dir).whole, "a checkpoint only saves time");
    let batches = batches(&data_dir);
    let (last, ..) = batches.last().unwrap();
    let in_last = batches.iter().filter(|(file, ..)| file == last).count();
    let (file, start, _) = &batches[batches.len() - 3];
    assert!(in_last > 3 && file == last, "{in_last}");
    flip(&data_dir.join(file), start + 300);
    let found = verified(&data_dir);
    assert!(found.whole, "{:#?}", found.damage);
    let torn = found
        .notes
        .iter()
        .find(|note| note.kind == "torn_tail")
        .unwrap();
    assert_eq!(torn.position, Some(*start));
    assert!(
        torn.problem.ends_with("; 2 whole batches follow it"),
        "{torn}"
    );
}

/// Batches of both codecs are opened, and what only shows behind the compression is found.
#[test]
fn compressed_batches_are_looked_into() {
    let scratch = scratch("log-tools-codec");
    let mut broker = BrokerOptions::new(BINARY, &scratch).start().unwrap();
    let address = broker.listen().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&address).await.unwrap();
        let topic = NewTopic::new("packed").config("codec", "lz4");
        client.admin().create_topic(topic).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for number in 0..50 {
            let value = format!("{number} ").repeat(300);
            drop(
                producer
                    .send("packed", Record::value(&value))
                    .await
                    .unwrap(),
            );
        }
        producer.flush().await.unwrap();
    });
    broker.signal(libc::SIGTERM).unwrap();
    assert!(broker.wait(PATIENCE).unwrap().unwrap().success());
    let data_dir = scratch.path().join("data");
    let found = verified(&data_dir);
    assert!(found.whole, "{:#?}", found.damage);
    assert_eq!(
        (found.totals.records, found.totals.unopened_batches),
        (50, 0)
    );
    let options = DumpOptions {
        selection: Selection {
            data_dir,
            ..Selection::default()
        },
        from: Offset(49),
        to: Offset(50),
        records: true,
        json: false,
    };
    let mut out = Vec::new();
    assert!(dump(&options, &mut out).unwrap());
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains(", lz4") && text.contains("value \"49 49 49"),
        "{text}"
    );
}

#[test]
fn the_program_says_it_with_its_status_and_refuses_a_directory_in_use() {
    let scratch = scratch("log-tools-program");
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .args(arguments)
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let mut broker = BrokerOptions::new(BINARY, &scratch).start().unwrap();
    fill(&broker);
    let (status, _, error) = run(&["log", "verify", "data"]);
    assert_eq!(status, Some(3), "{error}");
    assert!(error.contains("in use by another broker"), "{error}");
    broker.signal(libc::SIGTERM).unwrap();
    assert!(broker.wait(PATIENCE).unwrap().unwrap().success());

    let (status, text, error) = run(&["log", "verify", "data"]);
    assert_eq!(status, Some(0), "{text}{error}");
    assert!(text.contains("topic orders: 2 partitions"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("whole: "),
        "{text}"
    );

    let (status, _, error) = run(&["log", "verify", "data", "--topic", "order"]);
    assert_eq!(status, Some(2));
    assert!(error.contains("there is orders only"), "{error}");
    let all = [
        "log",
        "verify",
        "data",
        "--topic",
        "orders",
        "--partition",
        "2",
    ];
    let (status, _, error) = run(&all);
    assert_eq!(status, Some(2));
    assert!(error.contains("has no partition 2"), "{error}");
    let (status, _, error) = run(&["log", "verify", "nowhere"]);
    assert_eq!(status, Some(3), "{error}");
    let (status, _, error) = run(&["log", "verify", "."]);
    assert_eq!(status, Some(3), "{error}");
    assert!(error.contains("not a Ringway data directory"), "{error}");

    let all = [
        "log",
        "dump",
        "data",
        "--topic",
        "orders",
        "--partition",
        "1",
        "--from",
        "10",
    ];
    let more = ["--to", "12", "--records", "--output", "json"];
    let (status, text, _) = run(&[&all[..], &more].concat());
    assert_eq!(status, Some(0));
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<Value> = lines
        .filter(|line: &Value| line["event"] == "record")
        .collect();
    assert_eq!(records.len(), 2, "{text}");
    assert_eq!(records[0]["offset"], 10);
    assert!(
        records[0]["value"]
            .as_str()
            .unwrap()
            .starts_with("1/10/1/10/")
    );

    let data_dir = scratch.path().join("data");
    let (file, start, _) = batches(&data_dir).swap_remove(3);
    flip(&data_dir.join(&file), start + 200);
    let (status, text, _) = run(&["log", "verify", "data"]);
    assert_eq!(status, Some(1), "{text}");
    let expected = format!("damage: topic orders, partition 0: {file} at {start}: the body CRC");
    assert!(text.contains(&expected), "{text}");
    let (status, text, _) = run(&["log", "verify", "data", "--output", "json"]);
    assert_eq!(status, Some(1), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["damage"][0]["position"], start);
    assert_eq!(value["damage"][0]["kind"], "body_crc");
    assert_eq!(value["whole"], false);
    let (status, text, _) = run(&["log", "dump", "data"]);
    assert_eq!(status, Some(1), "{text}");
}
