//! In steady state no face of the client allocates anything per record, and little per batch. The
//! allocator counts for each thread by itself: the scripted broker's threads don't matter.

mod fake_broker;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use fake_broker::FakeBroker;
use ringway_client::*;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counted;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` took it from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `realloc`, as in `dealloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Allocations of this thread so far.
fn count() -> u64 {
    COUNT.get()
}

/// Records of one batch here, and how many batches are measured.
const RECORDS: usize = 1_000;
const BATCHES: u64 = 50;
/// Allocations that a batch may take on its way out or in.
const PER_BATCH_MAX: u64 = 10;
/// Batches before anything is measured: queues, tables and buffers have their size then.
const WARM_UP: u64 = 20;

/// Waits for no acknowledgement and sends nothing by itself: only a full batch leaves.
const LINGER: Duration = Duration::from_secs(600);

/// A header of a name and a value, as it is encoded.
const HEADERS: Headers<'_> = Headers::new(b"\x01\0\x02\0nvv");

fn record(key: &[u8; 4]) -> Record<'_> {
    let record = Record::value("a value of some bytes").key(key).tag("tag");
    record.headers(HEADERS)
}

#[test]
fn the_count_sees_an_allocation() {
    let before = count();
    let mut list = std::hint::black_box(vec![0_u8; 100]);
    list.reserve_exact(10_000);
    assert_eq!(count() - before, 2);
}

/// Allocations of `run` when it sends or reads batch after batch, after the warm-up.
struct Tally {
    batches: u64,
    allocations: u64,
}

impl Tally {
    const fn new() -> Self {
        Self {
            batches: 0,
            allocations: 0,
        }
    }

    /// Takes the allocations of one more batch.
    fn add(&mut self, allocations: u64) {
        self.batches += 1;
        if self.batches > WARM_UP {
            self.allocations += allocations;
        }
    }

    fn check(&self, what: &str) {
        let measured = self.batches - WARM_UP;
        assert!(measured >= BATCHES, "{what}: {measured} batches");
        let most = PER_BATCH_MAX * measured;
        let found = self.allocations;
        println!("{what}: {found} allocations, {measured} batches");
        assert!(
            found <= most,
            "{what}: {found} allocations, {measured} batches"
        );
        assert!(found > 0, "{what}: what is counted here?");
    }
}

#[test]
fn a_thread_of_its_own_sends_and_reads_without_allocating() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = sync::Client::connect(&broker.address())?;
    let builder = client.producer().batch_records(RECORDS).linger(LINGER);
    let mut producer = builder.build()?;
    let mut tally = Tally::new();
    for batch in 0..WARM_UP + BATCHES {
        let before = count();
        for number in 0..RECORDS as u32 {
            let within = count();
            drop(producer.send("t", record(&number.to_le_bytes()))?);
            let inside = number > 0 && number < RECORDS as u32 - 1;
            if batch >= WARM_UP && inside {
                assert_eq!(count(), within, "record {number} of batch {batch}");
            }
        }
        producer.flush()?;
        tally.add(count() - before);
    }
    tally.check("synchronous, sent");

    let mut consumer = client
        .consumer()
        .fetch_bytes(200_000)
        .prefetch_bytes(400_000)
        .build();
    consumer.assign("t", None, StartAt::Start)?;
    let mut tally = Tally::new();
    for _ in 0..WARM_UP + BATCHES {
        let before = count();
        let batch = consumer.next_batch()?;
        let within = count();
        let bytes: usize = batch.records().map(|record| record.size()).sum();
        assert_eq!(count(), within, "reading {bytes} bytes in place");
        assert_eq!(batch.len(), RECORDS);
        drop(batch);
        tally.add(count() - before);
    }
    tally.check("synchronous, read");
    Ok(())
}

#[test]
fn values_of_a_type_are_archived_without_allocating() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = sync::Client::connect(&broker.address())?;
    let builder = client.producer().batch_records(RECORDS).linger(LINGER);
    let mut producer = builder.build_typed::<(u64, String, Vec<u32>)>()?;
    let value = (7, "a string of some length".to_owned(), vec![1, 2, 3]);
    for batch in 0..WARM_UP {
        for number in 0..RECORDS {
            let within = count();
            drop(producer.send("t", &value)?);
            if batch >= WARM_UP / 2 && number > 0 && number < RECORDS - 1 {
                assert_eq!(count(), within, "record {number} of batch {batch}");
            }
        }
        producer.flush()?;
    }
    let mut consumer = client.consumer().build_typed::<(u64, String, Vec<u32>)>();
    consumer.assign("t", None, StartAt::Start)?;
    let batch = consumer.next_batch()?;
    let within = count();
    for record in &batch {
        assert_eq!(
            record.value.map(|value| value.1.as_str()),
            Some(value.1.as_str())
        );
    }
    assert_eq!(count(), within);
    Ok(())
}

/// Everything of the client runs on this thread: the runtime has no other.
#[tokio::test]
async fn a_task_sends_and_reads_without_allocating() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    let builder = client.producer().batch_records(RECORDS).linger(LINGER);
    let producer = builder.build().await?;
    let mut tally = Tally::new();
    for batch in 0..WARM_UP + BATCHES {
        let before = count();
        for number in 0..RECORDS as u32 {
            let within = count();
            drop(producer.send("t", record(&number.to_le_bytes())).await?);
            let inside = number > 0 && number < RECORDS as u32 - 1;
            if batch >= WARM_UP && inside {
                assert_eq!(count(), within, "record {number} of batch {batch}");
            }
        }
        producer.flush().await?;
        tally.add(count() - before);
    }
    tally.check("asynchronous, sent");

    let mut consumer = client
        .consumer()
        .fetch_bytes(200_000)
        .prefetch_bytes(400_000)
        .build();
    consumer.assign("t", None, StartAt::Start).await?;
    let mut tally = Tally::new();
    for _ in 0..WARM_UP + BATCHES {
        let before = count();
        let batch = consumer.next_batch().await?;
        let within = count();
        let bytes: usize = batch.records().map(|record| record.size()).sum();
        assert_eq!(count(), within, "reading {bytes} bytes in place");
        assert_eq!(batch.len(), RECORDS);
        drop(batch);
        tally.add(count() - before);
    }
    tally.check("asynchronous, read");
    Ok(())
}
