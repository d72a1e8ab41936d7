//! A load that goes on while brokers come and go: producers that keep sending through every
//! restart, each of their records written down before it is sent, and a consumer that watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringway_client::{
    Client, ConsumeError, Consumer, Delivery, ErrorCode, NewTopic, PartitionIndex, ProduceError,
    Producer, Record, StartAt,
};
use ringway_testing::Random;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{Violation, check};
use crate::history::{History, Outcome, Place, Reading, Sightings};
use crate::identity::{Content, Identity, Lane, VALUE_BYTES_MAX};

/// Records of a lane that wait for their acknowledgement.
const WINDOW: usize = 48;
/// Longest time without any progress: the test has failed then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Delivery time-out of the producer that gives up early.
const IMPATIENCE: Duration = Duration::from_millis(150);
/// Partitions of the topic of everybody.
const WIDE_PARTITIONS: u32 = 6;

/// The topic of one slow producer, which sends one record at a time.
pub(crate) const LONE: &str = "lone";
/// The topic into which all others send.
pub(crate) const WIDE: &str = "wide";

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nobody.
    Quiet,
    /// The one producer of the lone topic: each of its records is a commit round.
    Lone,
    /// Everybody.
    Wide,
    /// Nobody any more.
    Over,
}

/// What a load is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadOptions {
    /// Decides sizes and pauses.
    pub(crate) seed: u64,
    /// Producers that send to every partition of the wide topic. One more gives up early, and one
    /// has the lone topic.
    pub(crate) producers: u32,
    /// Of both topics, in bytes.
    pub(crate) segment_bytes: u64,
    /// Of both topics, in bytes, if their oldest records are to go.
    pub(crate) retention_bytes: Option<u64>,
}

/// A running load. Dropping it stops it wherever it is.
pub(crate) struct Load {
    address: String,
    runtime: Runtime,
    shared: Arc<Shared>,
    mood: watch::Sender<Mood>,
    lanes: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
}

struct Shared {
    history: Mutex<History>,
    sightings: Mutex<Sightings>,
    /// Where each partition began when it was last read.
    starts: Mutex<BTreeMap<Place, u64>>,
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane's part in the load.
struct Sender {
    lane: Lane,
    place: Place,
    producer: Arc<Producer>,
    shared: Arc<Shared>,
    mood: watch::Receiver<Mood>,
    random: Random,
    window: usize,
}

impl Load {
    /// Makes the topics and the producers; nobody sends yet.
    pub(crate) fn start(address: &str, options: LoadOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut places = vec![place(LONE, 0)];
        for _ in 0..=options.producers {
            places.extend((0..WIDE_PARTITIONS).map(|partition| place(WIDE, partition)));
        }
        let shared = Arc::new(Shared {
            history: Mutex::new(History::new(options.seed as u32, places.clone())),
            sightings: Mutex::default(),
            starts: Mutex::default(),
        });
        let (mood, moods) = watch::channel(Mood::Quiet);
        let (lanes, watcher) = runtime.block_on(async {
            create_topics(address, options).await;
            let mut producers = Vec::new();
            for number in 0..options.producers + 2 {
                let impatient = number == options.producers + 1;
                producers.push(Arc::new(producer(address, impatient).await));
            }
            let lanes = places.into_iter().enumerate().map(|(lane, place)| {
                let lone = place.topic == LONE;
                let owner = lane.div_ceil(WIDE_PARTITIONS as usize);
                let sender = Sender {
                    lane: Lane(lane as u32),
                    place,
                    producer: Arc::clone(&producers[owner]),
                    shared: Arc::clone(&shared),
                    mood: moods.clone(),
                    random: Random::for_item(options.seed, &[lane as u64]),
                    window: if lone { 1 } else { WINDOW },
                };
                tokio::spawn(sender.run())
            });
            let lanes = lanes.collect();
            let client = Client::connect(address).await.unwrap();
            (lanes, tokio::spawn(watch_all(client, Arc::clone(&shared))))
        });
        Self {
            address: address.to_owned(),
            runtime,
            shared,
            mood,
            lanes,
            watcher,
        }
    }

    /// Changes who sends.
    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Waits until so many more records were acknowledged.
    pub(crate) fn wait_for(&self, more: usize) {
        let until = self.shared.history().acknowledged() + more;
        let start = std::time::Instant::now();
        while self.shared.history().acknowledged() < until {
            assert!(
                start.elapsed() < PATIENCE,
                "no {more} acknowledgements within {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How many records were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.history().acknowledged()
    }

    /// Reads everything, and holds it against what producers and the watcher know. The load may go
    /// on meanwhile.
    #[track_caller]
    pub(crate) fn verify(&self, when: &str) {
        let before = self.shared.history().clone();
        let seen = self.shared.sightings().clone();
        let reading = self.runtime.block_on(read_all(&self.address));
        let after = self.shared.history().clone();
        let reading = reading.unwrap_or_else(|error| panic!("{when}: reading failed: {error}"));
        self.note_starts(when, &reading);
        report(when, &check(&before, &after, &reading, &seen));
    }

    /// What was gone stays gone.
    #[track_caller]
    fn note_starts(&self, when: &str, reading: &Reading) {
        let mut starts = self.shared.starts.lock().unwrap();
        for (place, each) in reading {
            let before = starts.insert(place.clone(), each.start).unwrap_or(0);
            let (start, end) = (each.start, each.end);
            assert!(
                start >= before,
                "{when}: {place} began at {before} and begins at {start} (to {end})"
            );
        }
    }

    /// How many partitions have lost their first records.
    pub(crate) fn trimmed(&self) -> usize {
        let starts = self.shared.starts.lock().unwrap();
        starts.values().filter(|start| **start > 0).count()
    }

    /// Lets every producer come to its end, which needs a broker that serves, and verifies once
    /// more; also that the watcher gets to see all of it, and that everything that patient
    /// producers sent is acknowledged in the end.
    #[track_caller]
    pub(crate) fn finish(self) {
        self.end(true);
    }

    /// As [`Self::finish`], where brokers saw their disk go before they went themselves: of what
    /// they had in hand then, they have said that they don't know.
    #[track_caller]
    pub(crate) fn finish_after_cuts(self) {
        self.end(false);
    }

    #[track_caller]
    fn end(mut self, all_acknowledged: bool) {
        self.set(Mood::Over);
        let lanes = std::mem::take(&mut self.lanes);
        self.runtime.block_on(async {
            for lane in lanes {
                let ended = timeout(PATIENCE, lane).await;
                ended.expect("every record is concluded").unwrap();
            }
        });
        let history = self.shared.history().clone();
        let impatient = WIDE_PARTITIONS as usize;
        let patient = &history.lanes[..history.lanes.len() - impatient];
        let all = patient.iter().flat_map(|lane| {
            let sent = lane.sent.iter().enumerate();
            sent.map(move |(sequence, sent)| (&lane.place, sequence, sent.outcome))
        });
        for (place, sequence, outcome) in all.filter(|_| all_acknowledged) {
            let acknowledged = matches!(outcome, Outcome::Acknowledged(_));
            assert!(acknowledged, "record {sequence} to {place}: {outcome:?}");
        }
        let reading = self.runtime.block_on(read_all(&self.address));
        let reading = reading.unwrap_or_else(|error| panic!("at the end: {error}"));
        self.await_watcher(&reading);
        let seen = self.shared.sightings().clone();
        report("at the end", &check(&history, &history, &reading, &seen));
    }

    fn await_watcher(&self, reading: &Reading) {
        let start = std::time::Instant::now();
        let all_seen = || {
            let sightings = self.shared.sightings();
            let end = |place| {
                let records = sightings.records.get(place)?;
                records.last().map(|(offset, _)| offset + 1)
            };
            let mut all = reading.iter();
            all.all(|(place, each)| each.records.is_empty() || end(place) >= Some(each.end))
        };
        loop {
            if all_seen() || self.watcher.is_finished() {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the watcher doesn't get to the end"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn place(topic: &str, partition: u32) -> Place {
    Place {
        topic: topic.to_owned(),
        partition,
    }
}

#[track_caller]
fn report(when: &str, violations: &[Violation]) {
    let shown: Vec<_> = violations
        .iter()
        .take(20)
        .map(ToString::to_string)
        .collect();
    assert!(
        violations.is_empty(),
        "{when}: {} violations, of which the first are\n{}",
        violations.len(),
        shown.join("\n")
    );
}

async fn create_topics(address: &str, options: LoadOptions) {
    let admin = Client::connect(address).await.unwrap().admin();
    for (name, partitions) in [(LONE, 1), (WIDE, WIDE_PARTITIONS)] {
        let topic = NewTopic::new(name)
            .partitions(partitions)
            .config("segment_bytes", options.segment_bytes.to_string());
        let topic = match options.retention_bytes {
            Some(bytes) => topic.config("retention_bytes", bytes.to_string()),
            None => topic,
        };
        admin.create_topic(topic).await.unwrap();
    }
}

async fn producer(address: &str, impatient: bool) -> Producer {
    let client = Client::connect(address).await.unwrap();
    // Small batches, so that several are in flight.
    let builder = client.producer().batch_bytes(128 << 10);
    let builder = match impatient {
        true => builder.delivery_timeout(IMPATIENCE),
        false => builder,
    };
    builder.build().await.unwrap()
}

impl Sender {
    async fn run(mut self) {
        let (queue, deliveries) = mpsc::channel(self.window);
        let conclude = tokio::spawn(conclude_all(Arc::clone(&self.shared), deliveries));
        while self.may_send().await {
            // Room for it first, so that the window is not one larger.
            let Ok(room) = queue.reserve().await else {
                break;
            };
            let value_bytes = value_bytes(&mut self.random);
            let record = self.shared.history().invoke(self.lane, value_bytes);
            match self.send(record).await {
                Ok(delivery) => room.send((record, delivery)),
                Err(error) => {
                    self.shared.history().conclude(record, outcome_of(&error));
                    sleep(Duration::from_millis(5)).await;
                }
            }
            if self.random.chance(20) {
                sleep(Duration::from_micros(self.random.below(4_000))).await;
            }
        }
        drop(queue);
        conclude.await.unwrap();
    }

    /// Waits for its turn; false when all is over.
    async fn may_send(&mut self) -> bool {
        let lone = self.place.topic == LONE;
        let turn = |mood: &Mood| match mood {
            Mood::Quiet => false,
            Mood::Lone => lone,
            Mood::Wide | Mood::Over => true,
        };
        matches!(self.mood.wait_for(turn).await, Ok(mood) if *mood != Mood::Over)
    }

    async fn send(&self, record: Identity) -> Result<Delivery, ProduceError> {
        let (key, value) = record.encode();
        let mut sent = Record::value(&value);
        if let Some(key) = &key {
            sent = sent.key(key);
        }
        let partition = PartitionIndex(self.place.partition);
        self.producer
            .send_to(&self.place.topic, partition, sent)
            .await
    }
}

/// Mostly small, sometimes up to the largest.
fn value_bytes(random: &mut Random) -> u32 {
    let largest = match random.below(100) {
        0..60 => 200,
        60..92 => 4 << 10,
        92..99 => 32 << 10,
        _ => VALUE_BYTES_MAX,
    };
    1 + random.below(u64::from(largest)) as u32
}

async fn conclude_all(shared: Arc<Shared>, mut deliveries: mpsc::Receiver<(Identity, Delivery)>) {
    while let Some((record, delivery)) = deliveries.recv().await {
        let outcome = match delivery.await {
            Ok(delivered) => Outcome::Acknowledged(delivered.offset.map(|offset| offset.0)),
            Err(error) => outcome_of(&error),
        };
        shared.history().conclude(record, outcome);
    }
}

/// What an error says for certain.
pub(crate) fn outcome_of(error: &ProduceError) -> Outcome {
    match error {
        ProduceError::TimedOut { maybe_written, .. }
        | ProduceError::Behind { maybe_written, .. } => match maybe_written {
            true => Outcome::Unknown,
            false => Outcome::Refused,
        },
        ProduceError::Refused { fault, .. } => match fault.code {
            // The device may have taken it all the same.
            ErrorCode::StorageFailed | ErrorCode::TimedOut | ErrorCode::Internal => {
                Outcome::Unknown
            }
            _ => Outcome::Refused,
        },
        ProduceError::Closed { .. } => Outcome::Unknown,
        ProduceError::UnknownTopic { .. }
        | ProduceError::UnknownPartition { .. }
        | ProduceError::Retired { .. }
        | ProduceError::AllRetired { .. }
        | ProduceError::TooLarge { .. }
        | ProduceError::BufferFull { .. }
        | ProduceError::NotArchived { .. }
        | ProduceError::Request(_) => Outcome::Refused,
    }
}

/// Follows both topics from their start, and writes down what it sees.
async fn watch_all(client: Client, shared: Arc<Shared>) {
    let mut consumer = client.consumer().build();
    for topic in [LONE, WIDE] {
        if let Err(error) = consumer.assign(topic, None, StartAt::Start).await {
            shared.sightings().errors.push(error.to_string());
            return;
        }
    }
    loop {
        match consumer.next_batch().await {
            Ok(batch) => {
                let mut sightings = shared.sightings();
                let place = place(batch.topic(), batch.partition().0);
                let seen = sightings.records.entry(place).or_default();
                seen.extend(
                    batch
                        .records()
                        .map(|record| (record.offset.0, Content::read(record.key, record.value))),
                );
            }
            Err(error) => {
                let Some((place, safe)) = overtaken(&error) else {
                    shared.sightings().errors.push(error.to_string());
                    return;
                };
                let sought = seek(&mut consumer, &place, safe).await;
                let mut sightings = shared.sightings();
                // What it saw is gone, and it goes on behind a gap.
                sightings.records.remove(&place);
                sightings
                    .errors
                    .extend(sought.err().map(|error| error.to_string()));
            }
        }
    }
}

/// Where a consumer has to go on that retention was faster than.
fn overtaken(error: &ConsumeError) -> Option<(Place, u64)> {
    match error {
        ConsumeError::OffsetOutOfRange {
            topic,
            partition,
            offset,
            log_start,
            ..
        } if offset < log_start => Some((place(topic, partition.0), log_start.0)),
        _ => None,
    }
}

async fn seek(consumer: &mut Consumer, place: &Place, to: u64) -> Result<(), ConsumeError> {
    let partition = PartitionIndex(place.partition);
    consumer
        .seek(&place.topic, partition, StartAt::Offset(to))
        .await
}

/// Reads both topics from their starts to the ends that they have now.
async fn read_all(address: &str) -> Result<Reading, ConsumeError> {
    let client = Client::connect(address).await.expect("the broker serves");
    let (admin, mut consumer) = (client.admin(), client.consumer().build());
    let mut reading = Reading::new();
    for (topic, partitions) in [(LONE, 1), (WIDE, WIDE_PARTITIONS)] {
        for partition in 0..partitions {
            let at = ringway_client::OffsetAt::End;
            let ends = admin.offsets(topic, PartitionIndex(partition), at).await?;
            let each = reading.entry(place(topic, partition)).or_default();
            (each.start, each.end) = (ends.log_start.0, ends.high_watermark.0);
        }
        consumer.assign(topic, None, StartAt::Start).await?;
    }
    let start = Instant::now();
    while unread(&reading) > 0 {
        let next = timeout(PATIENCE, consumer.next_batch()).await;
        let Ok(batch) = next else {
            // The checker says what is missing.
            break;
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                let (place, safe) = overtaken(&error).ok_or(error)?;
                seek(&mut consumer, &place, safe).await?;
                let each = reading.entry(place).or_default();
                each.records.clear();
                (each.start, each.end) = (safe, each.end.max(safe));
                continue;
            }
        };
        let each = reading
            .entry(place(batch.topic(), batch.partition().0))
            .or_default();
        for record in &batch {
            if each.records.is_empty() {
                // Retention may have gone on since its start was asked for.
                each.start = each.start.max(record.offset.0);
            }
            let content = Content::read(record.key, record.value);
            each.records.push((record.offset.0, content));
        }
        assert!(start.elapsed() < 4 * PATIENCE, "reading takes for ever");
    }
    Ok(reading)
}

/// Partitions that aren't read to their ends yet.
fn unread(reading: &Reading) -> usize {
    let next = |each: &crate::history::PartitionReading| {
        each.records
            .last()
            .map_or(each.start, |(offset, _)| offset + 1)
    };
    reading
        .values()
        .filter(|each| next(each) < each.end)
        .count()
}
