//! The example client of the documents, against a broker and the command line: what one of them
//! produces the other consumes, value by value, and what it should refuse it refuses.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Command, Stdio};

use ringway_testing::{Need, require};
use support::broker::{Broker, data};
use support::{Run, feed, finish, read};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");
const LINES: u32 = 10_000;

/// Starts Python in the folder of the example, which stays as it is.
fn python(words: &[&str]) -> Child {
    Command::new("python3")
        .args(words)
        .current_dir(EXAMPLES)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs")
}

/// Starts the example; the words of its command line are split at spaces.
fn start(broker: &Broker, line: &str) -> Child {
    let mut words = vec!["ringway_min.py", "--broker", &broker.address];
    words.extend(line.split(' '));
    python(&words)
}

fn example(broker: &Broker, line: &str, input: &[u8]) -> Run {
    feed(start(broker, line), input)
}

/// Lines of all kinds: empty ones, UTF-8, no UTF-8, CR, long ones; the last one lacks its LF.
fn lines() -> Vec<u8> {
    let mut lines = Vec::new();
    for number in 0..LINES {
        match number % 7 {
            0 => {}
            1 => lines.extend(format!("Größe {number} 漢字 🚀").into_bytes()),
            2 => lines.extend([0xff, 0xfe, b'\r', 0, 0x80]),
            3 => lines.extend(vec![b'x'; number as usize]),
            _ => lines.extend(number.to_string().into_bytes()),
        }
        lines.push(b'\n');
    }
    lines.extend(b"the last one");
    lines
}

/// Lines with keys and without: of the former, some have an empty key or an empty value.
fn keyed_lines() -> Vec<u8> {
    let mut lines = Vec::new();
    for number in 0..LINES {
        let line = match number % 11 {
            0 => format!("without a key {number}\n"),
            1 => format!(":{number} has an empty one\n"),
            2 => format!("key-{}:\n", number % 251),
            _ => format!("schlüssel-{}:value {number}:x\n", number % 251),
        };
        lines.extend(line.into_bytes());
    }
    lines
}

fn sorted(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_one_produces_the_other_consumes() {
    if !require(&[Need::Python3]) {
        return;
    }
    let data = data("example-values");
    let broker = Broker::start(&data);
    let ringway = broker.ringway();
    example(&broker, "create ours", b"").done();
    ringway.run("topic create theirs").done();

    let lines = lines();
    example(&broker, "produce ours", &lines).done();
    ringway.feed("produce theirs", &lines).done();
    let mut wanted = lines;
    wanted.push(b'\n');
    for topic in ["ours", "theirs"] {
        let line = format!("consume {topic} --until-end");
        assert!(ringway.run(&line).done().out == wanted, "{topic}: ringway");
        let line = format!("consume {topic} --from-start --exit-at-end");
        let run = example(&broker, &line, b"").done();
        assert!(run.out == wanted, "{topic}: the example");
    }
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

/// What `ringway` reads: the records with a key of each partition, in order, and the others' values.
fn places(broker: &Broker, topic: &str) -> (BTreeMap<String, Vec<String>>, BTreeSet<String>) {
    let line = format!("consume {topic} --until-end --format %p\\t%k\\t%v\\n");
    let run = broker.ringway().run(&line).done();
    let (mut keyed, mut others) = (BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
    for line in run.text().lines() {
        let (partition, record) = line.split_once('\t').expect("a partition");
        if record.contains("without a key") {
            assert!(others.insert(record.to_owned()), "{record} came twice");
        } else {
            let of_partition = keyed.entry(partition.to_owned()).or_default();
            of_partition.push(record.to_owned());
        }
    }
    (keyed, others)
}

#[test]
fn keys_go_where_the_command_line_sends_them() {
    if !require(&[Need::Python3]) {
        return;
    }
    let data = data("example-keys");
    let broker = Broker::start(&data);
    let lines = keyed_lines();
    example(&broker, "create ours --partitions 2", b"").done();
    example(&broker, "produce ours --key-separator :", &lines).done();
    let line = "produce theirs --key-separator : --create 2";
    broker.ringway().feed(line, &lines).done();

    let (ours, theirs) = (places(&broker, "ours"), places(&broker, "theirs"));
    assert!(ours == theirs, "every key in its partition, in order");
    assert_eq!(ours.0.len(), 2, "both partitions have keys");
    assert_eq!(ours.1.len(), LINES.div_ceil(11) as usize);

    let run = example(&broker, "consume theirs --from-start --exit-at-end", b"").done();
    let values = String::from_utf8(lines).expect("it is text");
    let values = values.lines().map(|line| match line.split_once(':') {
        Some((_key, value)) => value.to_owned() + "\n",
        None => line.to_owned() + "\n",
    });
    let values: String = values.collect();
    assert!(sorted(&run.out) == sorted(values.as_bytes()));
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

#[test]
fn it_follows_a_topic_and_says_what_a_broker_refused() {
    if !require(&[Need::Python3]) {
        return;
    }
    let data = data("example-follow");
    let broker = Broker::start(&data);
    for command in ["produce", "consume"] {
        let run = example(&broker, &format!("{command} t"), b"x\n");
        assert_eq!(run.code, 1);
        assert!(run.err.contains("error 10: "), "{}", run.err);
    }
    example(&broker, "create t --partitions 3", b"").done();
    let again = example(&broker, "create t", b"");
    assert!(again.err.contains("error 11: "), "{}", again.err);

    let mut follower = start(&broker, "consume t --from-start");
    for round in 0..6 {
        let line = format!("round {round}\n");
        if round % 2 == 0 {
            broker.ringway().feed("produce t", line.as_bytes()).done();
        } else {
            example(&broker, "produce t", line.as_bytes()).done();
        }
        assert_eq!(read(&mut follower, line.len()), line.as_bytes());
    }
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    broker.stop();
    let _ = fs::remove_dir_all(&data);
}

/// A batch with the leader's part filled in, damaged in one place after another.
const DAMAGES: &str = r#"
import struct
from ringway_min import *

def sealed(batch, **leader):
    body_crc = crc32c(batch[48:])
    header = Header(*HEADER.unpack_from(batch))._replace(body_crc=body_crc, **leader)
    bytes_ = HEADER.pack(*header)
    header_crc = crc32c(bytes_[48:], crc32c(bytes_[:44]))
    return HEADER.pack(*header._replace(header_crc=header_crc)) + bytes(batch[128:])

def verdict(batch, offset=7, last=None):
    try:
        list(read_records(read_header(memoryview(batch), 5, offset, last), memoryview(batch)))
    except ValueError as wrong:
        return str(wrong)
    return "whole"

def flipped(batch, at):
    return batch[:at] + bytes([batch[at] ^ 4]) + batch[at + 1:]

batch = sealed(encode_batch([(b"k", b"value"), (None, b"")], 1, 0, 0), log_id=5, base_offset=7)
for at in range(len(batch)):
    assert verdict(flipped(batch, at)) != "whole", at
print(verdict(batch), verdict(flipped(batch, 0)), verdict(flipped(batch, 16)),
      verdict(flipped(batch, 200)), verdict(sealed(flipped(batch, 128 + 64))),
      verdict(sealed(flipped(batch, len(batch) - 16))), verdict(batch[:-16]),
      verdict(batch, last=Header(header_crc=9)), verdict(batch, offset=9),
      verdict(sealed(batch, log_id=6)), sep="\n")
"#;

#[test]
fn it_names_the_check_that_a_damaged_batch_fails() {
    if !require(&[Need::Python3]) {
        return;
    }
    let run = finish(python(&["-c", DAMAGES])).done();
    let wanted = [
        "whole",
        "magic and version",
        "header CRC",
        "body CRC",
        "record CRC at offset 7",
        "root",
        "lengths",
        "chain",
        "offset",
        "log id",
    ];
    assert_eq!(run.text().lines().collect::<Vec<_>>(), wanted);
}

/// The examples of the documents, key by key and partition by partition.
const EXAMPLES_OF_THE_DOCUMENTS: &str = r#"
import re
from ringway_min import *

def tables(path):
    for line in open(path, encoding="utf-8"):
        if line.startswith("| "):
            yield [cell.strip().strip("`") for cell in line.strip(" |\n").split("|")]

assert crc32c(b"123456789") == 0xe3069283
counted = 0
for row in tables("../format.md"):
    if len(row) == 3 and re.fullmatch("[0-9a-f]{32}", row[0]):
        topic = int(row[0], 16).to_bytes(16, "little")
        assert log_id(topic, int(row[1])) == int(row[2], 16), row
        counted += 1
for row in tables("../protocol.md"):
    key = row[0].replace("(empty)", "").encode()
    if len(row) == 7 and row[1].startswith("0x"):
        for count, to in zip((1, 4, 5, 100, 100_000), row[2:]):
            assert partition_of(key, range(count), count) == int(to), row
        counted += 1
    elif len(row) == 4 and re.fullmatch("[0-9]+( *[,-] *[0-9]+)*", row[2]) and row[3].isdigit():
        count, retired = int(row[1]), set()
        for part in row[2].split(","):
            first, _, last = part.partition("-")
            retired |= set(range(int(first), int(last or first) + 1))
        active = [p for p in range(count) if p not in retired]
        assert partition_of(key, active, count) == int(row[3]), row
        counted += 1
text = open("../format.md", encoding="utf-8").read()
rows = re.findall("^ *[0-9]+  ((?:[0-9a-f]{2} +){16})", text, re.M)
example = memoryview(bytes.fromhex("".join(rows)))
header = read_header(example, log_id((1).to_bytes(16, "little"), 0), 7, None)
assert list(read_records(header, example)) == [(7, b"42.7 km")]
time.time_ns = lambda: header.first_timestamp_us * 1000
sent = bytearray(example)
sent[8:40], sent[44:48] = bytes(32), bytes(4)
assert encode_batch([(b"car", b"42.7 km")], 9, 0, 0) == sent
print(counted)
"#;

#[test]
fn it_agrees_with_the_examples_of_the_documents() {
    if !require(&[Need::Python3]) {
        return;
    }
    let run = finish(python(&["-c", EXAMPLES_OF_THE_DOCUMENTS])).done();
    assert_eq!(run.text(), "19\n", "rows of the tables");
}
