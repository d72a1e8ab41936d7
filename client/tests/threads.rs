//! The synchronous face starts no thread, whatever it does. The broker runs in another process, so
//! that only the client's threads are counted.
#![cfg(target_os = "linux")]

mod fake_broker;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use fake_broker::FakeBroker;
use ringway_client::sync::Client;
use ringway_client::{NewTopic, Record, StartAt};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// Marks the line with the address among what the test harness prints.
const ADDRESS: &str = "the address is ";

/// Not a test: the broker of the other process. It ends with its standard input.
#[test]
#[ignore = "it is the other process of the test below"]
fn broker() {
    let broker = FakeBroker::with_shards(2);
    println!("\n{ADDRESS}{}", broker.address());
    let _ = std::io::stdin().read(&mut [0]);
}

struct Broker(Child);

impl Broker {
    fn start() -> std::result::Result<(Self, String), Box<dyn std::error::Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "broker", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let broker = Self(child);
        for line in lines {
            if let Some(address) = line?.strip_prefix(ADDRESS) {
                return Ok((broker, address.to_owned()));
            }
        }
        Err("the broker never said its address".into())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("Linux shows threads")
        .count()
}

#[test]
fn no_thread_is_started() -> Result {
    let (broker, address) = Broker::start()?;
    let before = threads();
    let client = Client::connect(&address)?;
    client
        .admin()
        .create_topic(NewTopic::new("t").partitions(4))?;
    let mut producer = client.producer().batch_records(100).build()?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    let mut read = 0;
    for number in 0..10_000_u32 {
        let key = number.to_le_bytes();
        drop(producer.send("t", Record::value("value").key(&key))?);
        if let Some(batch) = consumer.try_next_batch()? {
            read += batch.len();
        }
        if number % 1_000 == 0 {
            assert_eq!(threads(), before, "while sending and reading");
        }
    }
    producer.flush()?;
    while read < 10_000 {
        read += consumer.next_batch()?.len();
    }
    assert_eq!(threads(), before, "with everything read");
    drop(broker);
    let delivery = producer.send("t", b"to nobody")?;
    for _ in 0..1_000 {
        producer.poll();
        assert!(consumer.try_next_batch()?.is_none());
    }
    assert!(delivery.result().is_none());
    assert_eq!(threads(), before, "without a broker");
    let watched = std::thread::spawn(threads).join().expect("it only counts");
    assert_eq!(watched, before + 1, "a thread would be seen");
    Ok(())
}
