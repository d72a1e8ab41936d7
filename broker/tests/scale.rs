//! What a broker is asked to bear without work: ten thousand empty partitions, a thousand consumers
//! that wait, and nothing at all.
//!
//! ```sh
//! cargo test --release -p ringway-broker --test scale -- --nocapture --test-threads 1
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway_client::{Client, NewTopic, PartitionIndex};
use ringway_testing::{BrokerOptions, BrokerProcess, Scratch, metric, proc_number, sys, variable};
use ringway_wire::CorrelationId;
use ringway_wire::request::{FetchRequest, HelloRequest, Request};

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");
/// No test is about how fast it is.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most that an empty partition may take of the disk and of memory, in bytes.
const DISK_BYTES_MAX: u64 = 16 << 10;
const MEMORY_BYTES_MAX: u64 = 32 << 10;
/// How long idle processes are looked at.
const LOOKED_AT: Duration = Duration::from_secs(5);

fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a process has of the machine.
#[derive(Clone, Copy, Debug)]
struct Taken {
    memory_bytes: u64,
    disk_bytes: u64,
    descriptors: usize,
}

impl Taken {
    fn by(broker: &BrokerProcess, data: &Path) -> Self {
        let descriptors = format!("/proc/{}/fd", broker.pid());
        Self {
            memory_bytes: proc_number(broker.pid(), "status", "VmRSS") << 10,
            disk_bytes: disk_bytes(data),
            descriptors: fs::read_dir(descriptors).unwrap().count(),
        }
    }
}

/// Bytes that a directory has of the disk, with everything in it.
fn disk_bytes(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).unwrap();
    own + entries
        .map(|entry| disk_bytes(&entry.unwrap().path()))
        .sum::<u64>()
}

#[test]
fn ten_thousand_empty_partitions_take_next_to_nothing() {
    let partitions = variable("RINGWAY_SCALE_PARTITIONS", 10_000);
    let scratch = scratch("scale-partitions");
    let options = BrokerOptions::new(BINARY, &scratch).ready_within(PATIENCE);
    let data = scratch.path().join("data");
    let mut broker = options.start().unwrap();
    let before = Taken::by(&broker, &data);
    let begun = Instant::now();
    runtime().block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        let topic = NewTopic::new("many").partitions(partitions as u32);
        client.admin().create_topic(topic).await.unwrap();
    });
    let admin = broker.admin();
    wait_until("all are open", || metric(admin, "partitions") == partitions);
    println!("{partitions} partitions made in {:?}", begun.elapsed());
    check("made", before, Taken::by(&broker, &data), partitions);
    broker.stop(PATIENCE).unwrap();
    let begun = Instant::now();
    let mut broker = options.start().unwrap();
    let admin = broker.admin();
    wait_until("all are open", || metric(admin, "partitions") == partitions);
    println!(
        "{partitions} partitions open again in {:?}",
        begun.elapsed()
    );
    check("open again", before, Taken::by(&broker, &data), partitions);
    runtime().block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for partition in [0, partitions / 2, partitions - 1] {
            let partition = PartitionIndex(partition as u32);
            let sent = producer.send_to("many", partition, "x").await.unwrap();
            assert_eq!(sent.await.unwrap().offset.map(|at| at.0), Some(0));
        }
    });
    broker.stop(PATIENCE).unwrap();
}

#[track_caller]
fn check(when: &str, before: Taken, after: Taken, partitions: u64) {
    let memory = after.memory_bytes.saturating_sub(before.memory_bytes) / partitions;
    let disk = after.disk_bytes.saturating_sub(before.disk_bytes) / partitions;
    println!("{when}: {memory} bytes of memory and {disk} of disk each, {after:?}");
    assert!(memory <= MEMORY_BYTES_MAX, "{memory} bytes of memory each");
    assert!(disk <= DISK_BYTES_MAX, "{disk} bytes of disk each");
    assert!(
        after.descriptors < before.descriptors + 16,
        "{} descriptors, {} before",
        after.descriptors,
        before.descriptors
    );
}

/// CPU time of a process so far, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// CPU time, in hundredths of a second, and turns of the shards while nothing is asked for.
fn idle_for_a_while(broker: &BrokerProcess) -> (u64, u64) {
    let turns = metric(broker.admin(), "turns_total");
    let ticks = cpu_ticks(broker.pid());
    std::thread::sleep(LOOKED_AT);
    let ticks = cpu_ticks(broker.pid()) - ticks;
    (ticks, metric(broker.admin(), "turns_total") - turns)
}

/// A consumer that waits for the next record of a partition.
fn waiting_consumer(port: SocketAddr, topic: ringway_wire::TopicId, partition: u32) -> TcpStream {
    let mut stream = TcpStream::connect(port).unwrap();
    let fetch = FetchRequest {
        topic,
        partition: PartitionIndex(partition),
        bytes_max: 1 << 20,
        wait_ms: 30_000,
        ..FetchRequest::default()
    };
    let hello = Request::from(HelloRequest::default()).to_frame(CorrelationId(1), 0);
    let fetch = Request::from(fetch).to_frame(CorrelationId(2), 0);
    stream.write_all(&[hello, fetch].concat()).unwrap();
    stream
}

#[test]
fn a_thousand_waiting_consumers_take_no_time_and_are_woken() {
    const PARTITIONS: u32 = 8;
    let consumers = variable("RINGWAY_SCALE_CONSUMERS", 1_000) as usize;
    sys::raise_nofile().unwrap();
    let scratch = scratch("scale-consumers");
    let mut broker = BrokerOptions::new(BINARY, &scratch).start().unwrap();
    let runtime = runtime();
    let (client, topic) = runtime.block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        let topic = NewTopic::new("quiet").partitions(PARTITIONS);
        let made = client.admin().create_topic(topic).await.unwrap();
        (client, made)
    });
    let port = broker.shards()[0];
    let mut waiting: Vec<TcpStream> = (0..consumers)
        .map(|number| waiting_consumer(port, topic, number as u32 % PARTITIONS))
        .collect();
    let admin = broker.admin();
    wait_until("all wait", || {
        metric(admin, "waiting_fetches") == consumers as u64
    });
    let (ticks, turns) = idle_for_a_while(&broker);
    println!(
        "{consumers} waiting consumers: {ticks} hundredths of a second of CPU and {turns} turns in {LOOKED_AT:?}"
    );
    assert!(ticks <= 25, "{ticks} hundredths of a second of CPU");
    assert!(turns <= 100, "{turns} turns");
    runtime.block_on(async {
        let producer = client.producer().build().await.unwrap();
        for partition in 0..PARTITIONS {
            let partition = PartitionIndex(partition);
            let sent = producer.send_to("quiet", partition, "woken").await.unwrap();
            sent.await.unwrap();
        }
    });
    for stream in &mut waiting {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = Vec::new();
        while !read.windows(5).any(|bytes| bytes == b"woken") {
            let mut some = [0; 4096];
            let bytes = stream.read(&mut some).unwrap();
            assert!(bytes > 0, "it is not hung up on");
            read.extend_from_slice(&some[..bytes]);
        }
    }
    broker.stop(PATIENCE).unwrap();
}

#[test]
fn a_broker_without_work_takes_no_time() {
    let scratch = scratch("scale-idle");
    let mut broker = BrokerOptions::new(BINARY, &scratch)
        .shards(2)
        .start()
        .unwrap();
    runtime().block_on(async {
        let client = Client::connect(&broker.listen().to_string()).await.unwrap();
        let topic = NewTopic::new("used").partitions(2);
        client.admin().create_topic(topic).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        let sent = producer
            .send_to("used", PartitionIndex(0), "x")
            .await
            .unwrap();
        sent.await.unwrap();
    });
    // The last checkpoint of what was appended.
    std::thread::sleep(Duration::from_secs(2));
    let (ticks, turns) = idle_for_a_while(&broker);
    println!("idle: {ticks} hundredths of a second of CPU and {turns} turns in {LOOKED_AT:?}");
    assert!(ticks <= 10, "{ticks} hundredths of a second of CPU");
    assert!(turns <= 40, "{turns} turns");
    broker.stop(PATIENCE).unwrap();
}
