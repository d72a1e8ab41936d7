//! One run through a broker that is up: publish, consume, verify, until every record is accounted
//! for. All of it is a client's work over sockets; nothing here knows the broker's inside.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringway_client::{
    Acks, Batch, Client, Consumer, NewTopic, OffsetAt, PartitionIndex, ProduceError, Producer,
    Record, StartAt,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::DemoError;
use super::clock::Clock;
use super::cpu::{Cores, CpuMark};
use super::interrupt::Interrupt;
use super::latency::{Latency, Percentiles};
use super::ledger::{Ledger, Sent, StagePercentiles};
use super::live::Live;
use super::problem::{Kind, Problem};
use super::sample::Reading;
use super::sampler::{Sampled, Sampler};
use super::verify::Verifier;

/// The topic that is published to.
pub(super) const TOPIC: &str = "telemetry";
/// Time after which a record without an acknowledgement is given up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the consumer waits for the next record when all are known to be durable.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the live line changes.
const LIVE_PERIOD: Duration = Duration::from_millis(500);

/// What a run consists of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How long to publish.
    pub(super) time: Duration,
    /// Partitions of the topic.
    pub(super) partitions: u32,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From the first look at `/proc` to the last acknowledgement.
    pub(super) time: Duration,
    /// Whether it was ended early on request.
    pub(super) interrupted: bool,
    /// What was read.
    pub(super) sampled: Sampled,
    /// What each partition was sent.
    pub(super) sent: Vec<Sent>,
    /// Batches acknowledged.
    pub(super) batches: u64,
    /// Records consumed.
    pub(super) received: u64,
    /// From sending to acknowledgement.
    pub(super) durable: Percentiles,
    /// Where the broker spent its share of that.
    pub(super) stages: StagePercentiles,
    /// From the look at `/proc` to the verified record.
    pub(super) end_to_end: Percentiles,
    /// CPU time, from the first look to the last record verified.
    pub(super) cores: Cores,
    /// All that was wrong.
    pub(super) problems: Vec<Problem>,
}

/// The receiving side.
#[derive(Debug)]
struct Arrivals {
    verifier: Verifier,
    end_to_end: Latency,
}

/// What both sides and the live line share.
#[derive(Clone, Debug)]
struct Books {
    clock: Clock,
    ledger: Arc<Mutex<Ledger>>,
    arrivals: Arc<Mutex<Arrivals>>,
}

fn lock<T>(books: &Mutex<T>) -> MutexGuard<'_, T> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    fn new(partitions: u32) -> Self {
        Self {
            clock: Clock::start(),
            ledger: Arc::new(Mutex::new(Ledger::new(partitions))),
            arrivals: Arc::new(Mutex::new(Arrivals {
                verifier: Verifier::new(partitions),
                end_to_end: Latency::default(),
            })),
        }
    }

    fn arrived(&self, batch: &Batch) {
        let mut arrivals = lock(&self.arrivals);
        let Arrivals {
            verifier,
            end_to_end,
        } = &mut *arrivals;
        for record in batch {
            if let Some(sample) = verifier.record(batch.partition().0, &record) {
                let age_ns = self.clock.now_ns().saturating_sub(sample.time_ns);
                end_to_end.record(age_ns, 1);
            }
        }
    }
}

/// Publishes to the broker at `address` and verifies what comes back.
///
/// # Errors
/// [`DemoError`] when it can't begin; what goes wrong after that is in the outcome.
pub(super) async fn run(
    address: &str,
    plan: Plan,
    interrupt: Interrupt,
    live: &mut Live,
) -> Result<Outcome, DemoError> {
    let client = Client::connect(address).await?;
    client
        .admin()
        .create_topic(NewTopic::new(TOPIC).partitions(plan.partitions))
        .await?;
    let books = Books::new(plan.partitions);
    let producer = producer(&client, &books).await?;
    let mut consumer = client.consumer().build();
    consumer.assign(TOPIC, None, StartAt::Start).await?;

    let start_ns = books.clock.now_ns();
    let mark = CpuMark::now();
    let (sampler, readings) = Sampler::start(Path::new("/proc"), books.clock, plan.time)
        .map_err(|source| DemoError::System("starting the sampler's thread", source))?;
    let interrupted = interrupt.stops(sampler.stop_handle());
    let (all_sent, ended) = watch::channel(None);
    let consuming = tokio::spawn(consume(consumer, books.clone(), ended));
    let work = async {
        let problem = publish(readings, &producer, plan.partitions, &books).await;
        // The first failure of a batch; all of them are in the books.
        let closed = producer.close().await;
        let sent_all_ns = books.clock.now_ns();
        if let Err(error) = problem.and(closed) {
            let problems = &mut lock(&books.ledger).problems;
            problems.add(Kind::NotAcknowledged, 0, || error.to_string());
        }
        all_sent.send_replace(Some(lock(&books.ledger).sent()));
        consuming.await.expect("the consumer's task doesn't panic");
        Duration::from_nanos(sent_all_ns - start_ns)
    };
    let time = watch_over(work, &books, live).await;
    let sampled = sampler.join();
    let wall = Duration::from_nanos(books.clock.now_ns() - start_ns);
    let cores = mark.cores_since(sampled.cpu_time, wall);
    check_ends(&client, &books).await;
    let interrupted = interrupted.load(Ordering::Relaxed);
    Ok(books.outcome(time, interrupted, sampled, cores))
}

async fn producer(client: &Client, books: &Books) -> Result<Producer, DemoError> {
    let told = books.clone();
    let builder = client
        .producer()
        .acks(Acks::All)
        .trace(true)
        .delivery_timeout(DELIVERY_TIMEOUT)
        .on_batch(move |report| lock(&told.ledger).batch(report, told.clock.now_ns()));
    Ok(builder.build().await?)
}

/// Sends every sample of every reading, each source's to its partition.
async fn publish(
    mut readings: mpsc::Receiver<Reading>,
    producer: &Producer,
    partitions: u32,
    books: &Books,
) -> Result<(), ProduceError> {
    while let Some(reading) = readings.recv().await {
        let partition = reading.source.partition(partitions);
        let (tag, timestamp_us) = (reading.source.name(), reading.timestamp_us);
        for value in reading.values() {
            let sent = (value, tag.as_bytes(), timestamp_us);
            lock(&books.ledger).sending(partition, books.clock.now_ns(), sent);
            let record = Record::value(value).tag(tag).timestamp_us(timestamp_us);
            let sending = producer.send_to(TOPIC, PartitionIndex(partition), record);
            // What becomes of it is told by batch.
            drop(sending.await?);
        }
    }
    Ok(())
}

/// Verifies batches until all that was sent has arrived, or nothing more comes.
async fn consume(
    mut consumer: Consumer,
    books: Books,
    mut all_sent: watch::Receiver<Option<Vec<Sent>>>,
) {
    loop {
        let ended = match &*all_sent.borrow() {
            Some(sent) if lock(&books.arrivals).verifier.has_all(sent) => return,
            sent => sent.is_some(),
        };
        tokio::select! {
            batch = consumer.next_batch() => match batch {
                Ok(batch) => books.arrived(&batch),
                Err(error) => return lock(&books.arrivals).verifier.failed(error.to_string()),
            },
            changed = all_sent.changed(), if !ended => if changed.is_err() {
                return;
            },
            // The verdict will say what is missing.
            () = tokio::time::sleep(PATIENCE), if ended => return,
        }
    }
}

/// Waits for the work, with a live line meanwhile.
async fn watch_over<T>(work: impl Future<Output = T>, books: &Books, live: &mut Live) -> T {
    tokio::pin!(work);
    let mut period = interval_at(Instant::now() + LIVE_PERIOD, LIVE_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            result = &mut work => {
                live.end();
                return result;
            }
            _ = period.tick() => if live.is_shown() {
                let (sent, durable, acknowledged) = {
                    let mut ledger = lock(&books.ledger);
                    let acknowledged = ledger.sent().iter().map(|sent| sent.acknowledged).sum();
                    let sent = ledger.sent().iter().map(|sent| sent.records).sum();
                    (sent, ledger.durable.take_recent(), acknowledged)
                };
                let mut arrivals = lock(&books.arrivals);
                let end_to_end = arrivals.end_to_end.take_recent();
                let (verified, bytes) = arrivals.verifier.received();
                let healthy = arrivals.verifier.is_content();
                drop(arrivals);
                live.show(&super::live::Figures {
                    now_ns: books.clock.now_ns(),
                    sent,
                    acknowledged,
                    verified,
                    bytes,
                    durable,
                    end_to_end,
                    healthy,
                });
            },
        }
    }
}

/// Whether the partitions end where they should: a record too many would not be waited for.
async fn check_ends(client: &Client, books: &Books) {
    let sent = lock(&books.ledger).sent();
    for (partition, sent) in (0..).zip(sent) {
        let index = PartitionIndex(partition);
        let answer = client.admin().offsets(TOPIC, index, OffsetAt::End).await;
        let problems = &mut lock(&books.ledger).problems;
        match answer {
            Ok(offsets) if offsets.high_watermark.0 > sent.records => {
                let (end, records) = (offsets.high_watermark, sent.records);
                problems.add(Kind::TooMany, end.0 - records, || {
                    format!("partition {partition} ends at {end}, and {records} were sent")
                });
            }
            Ok(_) => {}
            Err(error) => problems.add(Kind::NotConsumed, 0, || error.to_string()),
        }
    }
}

impl Books {
    fn outcome(
        &self,
        time: Duration,
        interrupted: bool,
        sampled: Sampled,
        cores: Cores,
    ) -> Outcome {
        let ledger = lock(&self.ledger);
        let arrivals = lock(&self.arrivals);
        let sent = ledger.sent();
        let mut problems = arrivals.verifier.verdict(&sent);
        problems.extend(&ledger.problems);
        let unsettled: u64 = sent
            .iter()
            .map(|sent| sent.records - sent.acknowledged)
            .sum();
        if unsettled > 0 {
            problems.add(Kind::NotAcknowledged, 0, || {
                format!("{unsettled} records were never acknowledged")
            });
        }
        Outcome {
            time,
            interrupted,
            sampled,
            batches: ledger.batches(),
            received: arrivals.verifier.received().0,
            durable: ledger.durable.total(),
            stages: ledger.stages(),
            end_to_end: arrivals.end_to_end.total(),
            cores,
            problems: problems.list(),
            sent,
        }
    }
}
