//! A topic with much in it: filled before the others come, and read from its start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_client::{Client, NewTopic, PartitionIndex, StartAt};
use ringway_wire::TopicId;
use tokio::runtime::Runtime;
use tokio::time::timeout;

const TOPIC: &str = "bulk";
const PARTITION: PartitionIndex = PartitionIndex(0);
pub(crate) const VALUE_BYTES: usize = 64 << 10;
const SEGMENT_BYTES: u64 = 64 << 20;
/// No test is about how fast it is; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The record of a number.
fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// What was filled.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    address: String,
    pub(crate) topic: TopicId,
    pub(crate) records: u64,
}

impl Bulk {
    /// Makes the topic and so many bytes in it.
    pub(crate) fn fill(address: &str, bytes: u64) -> Self {
        let records = bytes / VALUE_BYTES as u64;
        let topic = runtime().block_on(async {
            let client = Client::connect(address).await.unwrap();
            let topic = NewTopic::new(TOPIC).config("segment_bytes", SEGMENT_BYTES.to_string());
            let topic = client.admin().create_topic(topic).await.unwrap();
            let producer = client.producer().build().await.unwrap();
            for number in 0..records {
                let value = value(number);
                let sending = producer.send_to(TOPIC, PARTITION, &value);
                // Closing waits for all of them.
                drop(sending.await.unwrap());
            }
            producer.close().await.unwrap();
            topic
        });
        Self {
            address: address.to_owned(),
            topic,
            records,
        }
    }

    /// Reads from a record on, each in its turn, until the end or until it is told to stop; the
    /// number of the next record.
    pub(crate) fn read(&self, from: u64, stop: &AtomicBool) -> u64 {
        runtime().block_on(async {
            let client = Client::connect(&self.address).await.unwrap();
            let mut consumer = client.consumer().build();
            let only = [PARTITION];
            let start = StartAt::Offset(from);
            consumer.assign(TOPIC, Some(&only), start).await.unwrap();
            let mut next = from;
            while next < self.records && !stop.load(Ordering::Relaxed) {
                let batch = timeout(PATIENCE, consumer.next_batch()).await;
                for record in &batch.expect("records come").unwrap() {
                    assert_eq!(record.offset.0, next);
                    assert!(record.value == Some(&value(next)[..]), "record {next}");
                    next += 1;
                }
            }
            next
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A reader that can be stopped, and goes on where it was.
pub(crate) struct Reader {
    bulk: Bulk,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn new(bulk: &Bulk) -> Self {
        Self {
            bulk: bulk.clone(),
            next: Arc::default(),
            stop: Arc::default(),
            thread: None,
        }
    }

    /// Reads from now on.
    pub(crate) fn go_on(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        let (bulk, next, stop) = (
            self.bulk.clone(),
            Arc::clone(&self.next),
            Arc::clone(&self.stop),
        );
        self.thread = Some(std::thread::spawn(move || {
            let from = next.load(Ordering::Relaxed);
            next.store(bulk.read(from, &stop), Ordering::Relaxed);
        }));
    }

    /// Waits until it has read everything, for so long at most; then it reads no more. Tells how
    /// many records it has read since the first.
    pub(crate) fn pause_after(&mut self, time: Duration) -> u64 {
        let thread = self.thread.take().expect("it reads");
        let begin = std::time::Instant::now();
        while !thread.is_finished() && begin.elapsed() < time {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop.store(true, Ordering::Relaxed);
        thread.join().expect("every record is there");
        self.next.load(Ordering::Relaxed)
    }
}
