//! The well-behaved client: a producer that sends at fixed times whatever happens, and a consumer
//! at the tail. Latencies count from the time at which a record was due, so that waiting before it
//! was sent isn't left out.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_client::{Client, NewTopic, PartitionIndex, StartAt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::figures::{Measure, Phase};

/// The topic that it has for itself.
const TOPIC: &str = "paced";
const VALUE_BYTES: usize = 256;
/// No test is about how fast it is; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Shared {
    start: Instant,
    phase: AtomicU8,
    over: AtomicBool,
    acknowledged: Mutex<Measure>,
    delivered: Mutex<Measure>,
}

fn locked(measure: &Mutex<Measure>) -> MutexGuard<'_, Measure> {
    measure.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(crate) struct Paced {
    runtime: Runtime,
    shared: Arc<Shared>,
    producer: JoinHandle<u64>,
    consumer: tokio::task::JoinHandle<Vec<u64>>,
    partitions: u32,
}

/// What became of it all.
pub(crate) struct Report {
    /// Records sent, each of which was acknowledged and delivered once and in order.
    pub(crate) records: u64,
    /// From when a record was due to its acknowledgement.
    pub(crate) acknowledged: Measure,
    /// From when a record was due to its delivery to the consumer.
    pub(crate) delivered: Measure,
}

impl Paced {
    /// Starts a client that sends a record every so often, in turn to each partition of its topic.
    pub(crate) fn start(address: &str, every: Duration, partitions: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            start: Instant::now(),
            phase: AtomicU8::new(Phase::Between.number()),
            over: AtomicBool::new(false),
            acknowledged: Mutex::new(Measure::new()),
            delivered: Mutex::new(Measure::new()),
        });
        let client = runtime.block_on(async {
            let client = Client::connect(address).await.unwrap();
            let topic = NewTopic::new(TOPIC).partitions(partitions);
            client.admin().create_topic(topic).await.unwrap();
            client
        });
        let consumer = runtime.spawn(consume(client.clone(), Arc::clone(&shared), partitions));
        let (handle, told) = (runtime.handle().clone(), Arc::clone(&shared));
        let producer =
            std::thread::spawn(move || produce(&handle, &client, &told, every, partitions));
        Self {
            runtime,
            shared,
            producer,
            consumer,
            partitions,
        }
    }

    /// What is due from now on counts for this phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase.number(), Ordering::Relaxed);
    }

    /// Sends no more, and waits until all has arrived.
    pub(crate) fn finish(self) -> Report {
        self.shared.over.store(true, Ordering::Relaxed);
        let records = self.producer.join().expect("every record is acknowledged");
        let seen = self.runtime.block_on(async {
            let all = timeout(PATIENCE, self.consumer).await;
            all.expect("every record is delivered").unwrap()
        });
        assert_eq!(seen.iter().sum::<u64>(), records, "{seen:?}");
        assert_eq!(seen.len(), self.partitions as usize);
        Report {
            records,
            acknowledged: locked(&self.shared.acknowledged).clone(),
            delivered: locked(&self.shared.delivered).clone(),
        }
    }
}

/// A record's value: its number, when it was due, and the phase that it counts for. The last of a
/// partition says so.
fn value(number: u64, due: Duration, phase: Phase, last: bool) -> [u8; VALUE_BYTES] {
    let mut value = [number as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[8..16].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
    value[16] = phase.number();
    value[17] = u8::from(last);
    value
}

fn produce(
    handle: &tokio::runtime::Handle,
    client: &Client,
    shared: &Arc<Shared>,
    every: Duration,
    partitions: u32,
) -> u64 {
    let producer = handle.block_on(client.producer().build()).unwrap();
    let begin = shared.start.elapsed();
    let mut number = 0;
    let mut last = 0;
    while last < partitions {
        last += u32::from(shared.over.load(Ordering::Relaxed));
        let due = begin + every * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_sub(shared.start.elapsed()));
        let phase = Phase::from_number(shared.phase.load(Ordering::Relaxed));
        let partition = PartitionIndex((number % u64::from(partitions)) as u32);
        let value = value(number, due, phase, last > 0);
        let sending = producer.send_to(TOPIC, partition, &value);
        let delivery = handle.block_on(sending).unwrap();
        let shared = Arc::clone(shared);
        handle.spawn(async move {
            delivery.await.expect("it is acknowledged");
            let took = shared.start.elapsed() - due;
            locked(&shared.acknowledged).record(phase, took);
        });
        number += 1;
    }
    handle.block_on(producer.close()).unwrap();
    number
}

/// Reads until every partition's last record has come, each record in its turn; tells how many
/// there were of each partition.
async fn consume(client: Client, shared: Arc<Shared>, partitions: u32) -> Vec<u64> {
    let mut consumer = client.consumer().build();
    consumer.assign(TOPIC, None, StartAt::Start).await.unwrap();
    let mut seen = vec![0; partitions as usize];
    let mut ended = 0;
    while ended < partitions {
        let batch = consumer.next_batch().await.unwrap();
        let now = shared.start.elapsed();
        let partition = batch.partition().0;
        for record in &batch {
            let value = record.value.expect("a value");
            let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap());
            let count = &mut seen[partition as usize];
            let turn = *count * u64::from(partitions) + u64::from(partition);
            assert_eq!(number(0), turn, "partition {partition} is in order");
            assert_eq!(record.offset.0, *count, "and has each record once");
            *count += 1;
            let due = Duration::from_nanos(number(8));
            let phase = Phase::from_number(value[16]);
            locked(&shared.delivered).record(phase, now.saturating_sub(due));
            ended += u32::from(value[17] != 0);
        }
    }
    seen
}
