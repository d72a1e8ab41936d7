//! Retention and trimming by a real broker on a real disk: the space that records leave is freed
//! and used again while they keep coming, and whoever still reads old records gets those.
//!
//! More than the usual: `RINGWAY_RETENTION_BYTES=10000000000` for the load.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringway_client::{Client, NewTopic, OffsetAt, PartitionIndex, Producer, Record, TrimBefore};
use ringway_testing::{BrokerOptions, BrokerProcess, Scratch, metric, variable};
use ringway_wire::batch::{BatchBytes, CheckedBatch};
use ringway_wire::frame::FrameDecoder;
use ringway_wire::limits::FRAME_BYTES_MAX;
use ringway_wire::request::{FetchReply, FetchRequest, Head as _, HelloRequest, Request};
use ringway_wire::{CorrelationId, ErrorCode, Offset, TopicId};
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "busy";
const PARTITIONS: u32 = 2;
const SEGMENT_BYTES: u64 = 1 << 20;
const RETENTION_BYTES: u64 = 8 << 20;
/// Bytes of one record's value.
const VALUE_BYTES: usize = 8_000;
/// What may come while segments wait for the checkpoint that lets them go, and as much in segments
/// that wait to be recycled. It is due once they are 16 MiB; a busy machine takes its time for it.
const SURPLUS_BYTES: u64 = 64 << 20;

fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn start(scratch: &Scratch) -> BrokerProcess {
    let options = BrokerOptions::new(BINARY, scratch).shards(1);
    // Small, so that readers of old records meet the disk.
    let options = options.argument("--cache-bytes").argument("16777216");
    options.start().unwrap()
}

async fn create(client: &Client, partitions: u32, retention_bytes: Option<u64>) {
    let topic = NewTopic::new(TOPIC)
        .partitions(partitions)
        .config("segment_bytes", SEGMENT_BYTES.to_string());
    let topic = match retention_bytes {
        Some(bytes) => topic.config("retention_bytes", bytes.to_string()),
        None => topic,
    };
    client.admin().create_topic(topic).await.unwrap();
}

/// What the record with this number says: no two are alike, whatever part of them is looked at.
fn value(number: u64) -> Vec<u8> {
    let words = (0..VALUE_BYTES as u64 / 8).map(|word| number * 1_000_003 + word);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Appends so many bytes of records to each partition and waits until they are durable. `next` is
/// the number of the next record of each.
async fn append(producer: &Producer, partitions: u32, next: &mut u64, bytes: u64) {
    let end = *next + bytes / VALUE_BYTES as u64;
    while *next < end {
        let value = value(*next);
        for partition in 0..partitions {
            let sent = producer.send_to(TOPIC, PartitionIndex(partition), Record::value(&value));
            drop(sent.await.unwrap());
        }
        *next += 1;
    }
    producer.flush().await.unwrap();
}

/// Bytes of all files in a directory.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It went meanwhile.
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[track_caller]
fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn log_verify_finds_nothing(data_dir: &Path) {
    let mut verify = Command::new(BINARY);
    let verify = verify.args(["log", "verify"]).arg(data_dir).output();
    let verify = verify.unwrap();
    let (out, err) = (verify.stdout, verify.stderr);
    let text = String::from_utf8_lossy(&out) + String::from_utf8_lossy(&err);
    assert!(verify.status.success(), "log verify: {text}");
}

#[test]
fn retention_under_load_frees_space_and_uses_it_again() {
    let all_bytes = variable("RINGWAY_RETENTION_BYTES", 400 << 20);
    let scratch = scratch("load");
    let broker = start(&scratch);
    let (admin, data_dir) = (broker.admin(), scratch.path().join("data"));
    let runtime = runtime();
    let (client, producer) = runtime.block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        create(&client, PARTITIONS, Some(RETENTION_BYTES)).await;
        let producer = client.producer().batch_bytes(128 << 10).build().await;
        (client, producer.unwrap())
    });
    let mut next = 0;
    let mut load = |bytes: u64| {
        let each = bytes / u64::from(PARTITIONS);
        runtime.block_on(append(&producer, PARTITIONS, &mut next, each));
    };
    // Until the first space is used again, all of it is new.
    load(all_bytes / 4);
    wait_until("segments go", || {
        metric(admin, "removed_segments_total") > 0
    });
    load(all_bytes / 8);
    let counters = ["produced_bytes", "zeroed_bytes", "removed_segments"];
    let counters = counters.map(|name| format!("{name}_total"));
    let before = counters.each_ref().map(|name| metric(admin, name));
    let topics = u64::from(PARTITIONS) * (RETENTION_BYTES + 3 * SEGMENT_BYTES);
    let most = topics + 2 * SURPLUS_BYTES;
    let mut largest = 0;
    for _ in 0..20 {
        load(all_bytes / 32);
        let bytes = disk_bytes(&data_dir);
        largest = largest.max(bytes);
        assert!(bytes <= most, "{bytes} bytes on disk, {most} are enough");
    }
    let after = counters.each_ref().map(|name| metric(admin, name));
    let [produced, zeroed, removed] = [0, 1, 2].map(|at| after[at] - before[at]);
    let recycled = metric(admin, "recycled_segments_total");
    println!(
        "{produced} bytes appended, {zeroed} of zeros, {removed} segments removed, {recycled} \
         recycled since the start, {largest} bytes on disk at most"
    );
    assert!(removed >= 50 * u64::from(PARTITIONS), "{removed} segments");
    assert!(zeroed * 10 < produced, "{zeroed} bytes of zeros");
    // Once nothing comes any more, what stays is what is to be kept.
    let bytes = || disk_bytes(&data_dir.join("topics"));
    wait_until("surplus goes", || bytes() <= topics);
    for partition in 0..PARTITIONS {
        let at = PartitionIndex(partition);
        let admin = client.admin();
        let ends = runtime.block_on(admin.offsets(TOPIC, at, OffsetAt::End));
        let ends = ends.unwrap();
        let kept = (ends.high_watermark.0 - ends.log_start.0) * VALUE_BYTES as u64;
        assert!(ends.high_watermark == Offset(next), "all is there");
        assert!(kept > RETENTION_BYTES / 2, "only {kept} bytes are left");
    }
    stop(broker);
    log_verify_finds_nothing(&data_dir);
}

fn stop(mut broker: BrokerProcess) {
    let status = broker.stop(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", broker.log());
}

/// A connection that asks for much and reads nothing for a while.
struct Slow {
    socket: TcpStream,
    frames: FrameDecoder,
}

impl Slow {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut slow = Self {
            socket,
            frames: FrameDecoder::new(FRAME_BYTES_MAX),
        };
        slow.ask(HelloRequest::default().into());
        slow.reply();
        slow
    }

    fn ask(&mut self, request: Request) {
        let frame = request.to_frame(CorrelationId(1), 0);
        self.socket.write_all(&frame).unwrap();
    }

    /// The next reply's head, and its data where it can be looked at.
    fn reply(&mut self) -> (Vec<u8>, BatchBytes) {
        let lacks = |frames: &FrameDecoder| {
            frames.front().is_none() || frames.lacking().is_some_and(|bytes| bytes > 0)
        };
        while lacks(&self.frames) {
            let read = self.socket.read(self.frames.spare(64 << 10)).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.frames.filled(read);
        }
        let frame = self.frames.next_frame().unwrap().expect("nothing lacks");
        let mut data = BatchBytes::new();
        data.extend_from_slice(frame.data);
        (frame.head.to_vec(), data)
    }
}

/// Looks at all records of a reply; how many there are.
#[track_caller]
fn check_records(data: &BatchBytes) -> u64 {
    let (mut at, mut count) = (0, 0);
    while at < data.len() {
        let batch = CheckedBatch::check(&data[at..]).expect("its checksums are right");
        for record in batch.records() {
            record.verify().expect("its checksum is right");
            let same = record.value == Some(&value(record.offset.0));
            assert!(same, "other bytes are at {}", record.offset);
            count += 1;
        }
        at += batch.bytes().len();
    }
    count
}

fn topic_id(data_dir: &Path) -> TopicId {
    let topics = std::fs::read_dir(data_dir.join("topics")).unwrap();
    let name = topics.flatten().next().unwrap().file_name();
    TopicId(u128::from_str_radix(name.to_str().unwrap(), 16).unwrap())
}

/// A consumer that asked for old records and doesn't read what it is sent. The records are trimmed
/// meanwhile, and the space that they had is written over by others. What it is sent is what it
/// had asked for.
#[test]
fn what_is_being_sent_stays_as_it_was_although_its_segment_is_used_again() {
    let scratch = scratch("held");
    let broker = start(&scratch);
    let (admin, data_dir) = (broker.admin(), scratch.path().join("data"));
    let runtime = runtime();
    let (client, producer) = runtime.block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        create(&client, 1, None).await;
        let producer = client.producer().build().await.unwrap();
        (client, producer)
    });
    let mut next = 0;
    runtime.block_on(append(&producer, 1, &mut next, 64 << 20));
    let mut slow = Slow::connect(broker.shards()[0]);
    const FETCHES: u64 = 12;
    for fetch in 0..FETCHES {
        let request = FetchRequest {
            topic: topic_id(&data_dir),
            offset: Offset(fetch * 300),
            bytes_max: 2 << 20,
            ..FetchRequest::default()
        };
        slow.ask(request.into());
    }
    wait_until("records from disk wait to be sent", || {
        metric(admin, "fetched_disk_bytes_total") > 8 << 20 && metric(admin, "send_bytes") > 0
    });
    let all = TrimBefore::Offset(Offset(next));
    let trimming = client.admin();
    let trimmed = runtime.block_on(trimming.trim(TOPIC, PartitionIndex(0), all));
    assert_eq!(trimmed.unwrap(), Offset(next));
    wait_until("segments go", || {
        metric(admin, "removed_segments_total") > 30
    });
    runtime.block_on(append(&producer, 1, &mut next, 64 << 20));
    assert!(metric(admin, "recycled_segments_total") > 20);
    assert!(metric(admin, "send_bytes") > 0, "it still doesn't read");
    let (mut records, mut refused) = (0, 0);
    for _ in 0..FETCHES {
        let (head, data) = slow.reply();
        match FetchReply::from_head(&head).unwrap().fault {
            None => records += check_records(&data),
            // What wasn't read from disk before the trim.
            Some(fault) if fault.code == ErrorCode::OffsetOutOfRange => refused += 1,
            Some(fault) => panic!("{fault}"),
        }
    }
    println!("{records} records as they were, {refused} fetches refused");
    assert!(records > 500, "{records} records");
    stop(broker);
    log_verify_finds_nothing(&data_dir);
}
