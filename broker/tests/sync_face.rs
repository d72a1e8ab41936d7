//! The client's synchronous face against a broker on a real disk: one thread sends and reads, and
//! polls both by itself. All that went in comes out, once and in order, with every codec.
//!
//! In the suite this is small. At full size, which needs a release build:
//!
//! ```sh
//! RINGWAY_SYNC_LINES=2000000 RINGWAY_SYNC_BYTES=1000000000 \
//!   cargo test --release -p ringway-broker --test sync_face -- --nocapture --test-threads 1
//! ```

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ringway_client::sync::{Client, Consumer, Producer};
use ringway_client::{Codec, NewTopic, Offset, OffsetAt, PartitionIndex, StartAt};
use ringway_testing::{BrokerOptions, BrokerProcess, Scratch};

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];
/// No test is about how fast it is.
const PATIENCE: Duration = Duration::from_secs(600);
const VALUE_BYTES: usize = 64 << 10;
const PARTITIONS: u32 = 4;

fn size(variable: &str, otherwise: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => otherwise,
    }
}

fn broker(name: &str) -> (BrokerProcess, Client) {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap();
    let broker = BrokerOptions::new(env!("CARGO_BIN_EXE_ringway-broker"), &scratch)
        .shards(2)
        .start()
        .unwrap();
    let client = Client::connect(&broker.listen().to_string()).unwrap();
    (broker, client)
}

fn topic(client: &Client, kind: &str, codec: Codec, partitions: u32) -> String {
    let name = format!("{kind}-{codec}");
    let topic = NewTopic::new(&name).partitions(partitions);
    client.admin().create_topic(topic).unwrap();
    name
}

fn pair(client: &Client, topic: &str, codec: Codec) -> (Producer, Consumer) {
    let producer = client.producer().codec(codec).build().unwrap();
    let mut consumer = client.consumer().build();
    consumer.assign(topic, None, StartAt::Start).unwrap();
    (producer, consumer)
}

/// Says how long it took and how many bytes are on disk; no test depends on either.
fn report(client: &Client, topic: &str, begun: Instant, bytes: usize) {
    let took = begun.elapsed();
    let mut admin = client.admin();
    let stored: u64 = (0..PARTITIONS)
        .map_while(|partition| {
            let found = admin.offsets(topic, PartitionIndex(partition), OffsetAt::End);
            found.ok().map(|found| found.log_bytes)
        })
        .sum();
    println!("{topic}: {bytes} bytes of values in {took:.1?}, {stored} bytes in the log");
}

/// What came of numbered lines.
struct Lines {
    seen: Vec<bool>,
    count: usize,
    last: [(Option<Offset>, usize); PARTITIONS as usize],
    bytes: usize,
}

impl Lines {
    fn new(lines: usize) -> Self {
        Self {
            seen: vec![false; lines],
            count: 0,
            last: [(None, 0); PARTITIONS as usize],
            bytes: 0,
        }
    }

    /// Takes a batch if there is one: each line once, offsets without gaps, and the order of sending
    /// within each partition.
    fn take(&mut self, consumer: &mut Consumer) -> bool {
        let Some(batch) = consumer.try_next_batch().unwrap() else {
            return false;
        };
        let partition = batch.partition();
        let (last, before) = &mut self.last[partition.0 as usize];
        for record in &batch {
            let value = record.value.expect("each line is a value");
            let number: usize = std::str::from_utf8(value).unwrap().parse().unwrap();
            assert!(
                !std::mem::replace(&mut self.seen[number], true),
                "{number} came twice"
            );
            let expected = last.map_or(Offset(0), |last| last.plus(1));
            assert_eq!(record.offset, expected, "partition {partition}");
            assert!(
                last.is_none() || *before < number,
                "{number} behind {before}"
            );
            (*last, *before) = (Some(record.offset), number);
            self.count += 1;
            self.bytes += value.len();
        }
        true
    }
}

#[test]
fn lines_arrive_once_and_in_order() {
    let lines = size("RINGWAY_SYNC_LINES", 60_000);
    let (mut broker, client) = broker("sync-lines");
    for codec in CODECS {
        let topic = topic(&client, "lines", codec, PARTITIONS);
        let (mut producer, mut consumer) = pair(&client, &topic, codec);
        let (begun, mut read, mut line) = (Instant::now(), Lines::new(lines), String::new());
        for number in 0..lines {
            line.clear();
            write!(line, "{number}").unwrap();
            drop(producer.send(&topic, &line).unwrap());
            if number % 64 == 0 {
                producer.poll();
                read.take(&mut consumer);
            }
        }
        producer.flush().unwrap();
        let sent = begun.elapsed();
        while read.count < lines {
            if !read.take(&mut consumer) {
                std::thread::yield_now();
            }
            assert!(begun.elapsed() < PATIENCE, "{} of {lines} came", read.count);
        }
        assert!(read.seen.iter().all(|&seen| seen));
        assert!(!read.take(&mut consumer), "more came than was sent");
        println!("{topic}: {lines} lines sent in {sent:.1?}");
        report(&client, &topic, begun, read.bytes);
    }
    assert!(broker.stop(PATIENCE).unwrap().success());
}

/// The value of a number: noise, with a quarter that a codec can make something of.
fn fill(value: &mut [u8], number: u64) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (word, bytes) in value.chunks_exact_mut(8).enumerate() {
        if word % 512 >= 128 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        bytes.copy_from_slice(&state.to_le_bytes());
    }
}

#[test]
fn large_values_arrive_byte_for_byte() {
    let bytes = size("RINGWAY_SYNC_BYTES", 16 << 20);
    let values = bytes.div_ceil(VALUE_BYTES) as u64;
    let last_bytes = bytes - (values as usize - 1) * VALUE_BYTES;
    let bytes_of = |number: u64| match number + 1 == values {
        true => last_bytes,
        false => VALUE_BYTES,
    };
    let (mut broker, client) = broker("sync-bytes");
    for codec in CODECS {
        let topic = topic(&client, "bytes", codec, 1);
        let (mut producer, mut consumer) = pair(&client, &topic, codec);
        let (mut value, mut expected) = (vec![0; VALUE_BYTES], vec![0; VALUE_BYTES]);
        let (begun, mut sent, mut read, mut came) = (Instant::now(), 0, 0, 0);
        while read < values {
            if sent < values {
                fill(&mut value, sent);
                drop(producer.send(&topic, &value[..bytes_of(sent)]).unwrap());
                sent += 1;
            } else {
                producer.poll();
            }
            while let Some(batch) = consumer.try_next_batch().unwrap() {
                for record in &batch {
                    assert_eq!(record.offset, Offset(read));
                    fill(&mut expected, read);
                    let found = record.value.expect("each has a value");
                    assert!(found == &expected[..bytes_of(read)], "value {read} differs");
                    came += found.len();
                    read += 1;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{read} of {values} came");
        }
        producer.close().unwrap();
        assert_eq!(came, bytes);
        report(&client, &topic, begun, came);
    }
    assert!(broker.stop(PATIENCE).unwrap().success());
}
