//! `ringway produce`: input to records, records to the producer, deliveries to a summary.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringway_client::{
    BatchReport, Client, Durability, ErrorCode, NewTopic, PartitionIndex, ProduceError, Producer,
    Record, RequestError,
};
use tokio::sync::Notify;

use crate::args::{GlobalArgs, InputShape, ProduceArgs};
use crate::commands::connect;
use crate::commands::offsets::chosen;
use crate::exit::{Exit, Failure};
use crate::input::{Cutter, Piece, Shape, Source};
use crate::interrupt::Interrupt;
use crate::limits::INTERRUPT_GRACE;
use crate::output::{print_json, tell};
use crate::progress::Progress;
use crate::tally::Tally;

/// Carries out `ringway produce`.
pub(super) async fn run(global: &GlobalArgs, args: &ProduceArgs) -> Result<(), Failure> {
    args.check()?;
    let client = connect(global).await?;
    if let Some(partitions) = args.create {
        create(&client, &args.topic, partitions).await?;
    }
    chosen(&client, &args.topic, args.partition).await?;
    let outcome = Arc::new(Outcome::new(args));
    let producer = build(&client, args, &outcome).await?;
    let environment = |error: std::io::Error| Failure::new(Exit::Environment, error.to_string());
    let mut interrupt = Interrupt::watch().map_err(environment)?;
    let mut source = Source::start(std::io::stdin()).map_err(environment)?;

    let started = Instant::now();
    let mut sending = Sending::new(args, &producer, &outcome, !global.json());
    let stop = tokio::select! {
        result = sending.pump(&mut source, shape(args)) => match result {
            Ok(()) => Stop::End,
            Err(failure) => Stop::Input(failure),
        },
        () = interrupt.asked() => Stop::Interrupted,
        () = outcome.hopeless.notified() => Stop::Hopeless,
    };
    flush(&producer, &mut interrupt, matches!(stop, Stop::Interrupted)).await;
    let time = started.elapsed();
    sending.finish();
    summarise(global, &outcome, stop, time)
}

/// Waits for the acknowledgements of what was sent: to the end, or once an end was asked for, some
/// seconds. What came of them is in the tally.
async fn flush(producer: &Producer, interrupt: &mut Interrupt, interrupted: bool) {
    let mut flushed = pin!(producer.flush());
    if !interrupted {
        tokio::select! {
            _ = &mut flushed => return,
            () = interrupt.asked() => {}
        }
    }
    let _ = tokio::time::timeout(INTERRUPT_GRACE, flushed).await;
}

/// Why reading stopped.
#[derive(Debug)]
enum Stop {
    /// At the end of the input.
    End,
    /// The input can't be read or cut.
    Input(Failure),
    /// The user asked for it.
    Interrupted,
    /// A failure that the next record would meet too.
    Hopeless,
}

/// Creates the topic unless it exists.
async fn create(client: &Client, topic: &str, partitions: u32) -> Result<(), Failure> {
    let admin = client.admin();
    match admin.describe_topic(topic).await {
        Err(RequestError::UnknownTopic { .. }) => {}
        other => return other.map(|_| ()).map_err(Failure::from),
    }
    match admin
        .create_topic(NewTopic::new(topic).partitions(partitions))
        .await
    {
        // Somebody else was faster.
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => Ok(()),
        other => other.map(|_| ()).map_err(Failure::from),
    }
}

async fn build(
    client: &Client,
    args: &ProduceArgs,
    outcome: &Arc<Outcome>,
) -> Result<Producer, Failure> {
    let outcome = Arc::clone(outcome);
    let mut builder = client
        .producer()
        .profile(args.profile.into())
        .acks(args.acks.into())
        .trace(args.trace)
        .on_batch(move |report| outcome.batch(report));
    if let Some(bytes) = args.batch_bytes {
        builder = builder.batch_bytes(bytes);
    }
    if let Some(records) = args.batch_records {
        builder = builder.batch_records(records as usize);
    }
    if let Some(codec) = args.codec {
        builder = builder.codec(codec);
    }
    Ok(builder.build().await?)
}

fn shape(args: &ProduceArgs) -> Shape {
    match (args.input, args.value_bytes) {
        (InputShape::Chunks, Some(bytes)) => Shape::Chunks(bytes),
        (InputShape::Frames, _) => Shape::Frames,
        (InputShape::Lines | InputShape::Chunks, _) => {
            let separator = args
                .key_separator
                .as_ref()
                .map(|separator| separator.0.clone());
            Shape::Lines { separator }
        }
    }
}

/// What became of the records so far; filled by the producer, batch by batch.
struct Outcome {
    tally: Mutex<Tally>,
    /// Told when going on makes no sense.
    hopeless: Notify,
}

impl Outcome {
    fn new(args: &ProduceArgs) -> Self {
        let tally = Mutex::new(Tally::new(&args.topic, args.trace));
        Self {
            tally,
            hopeless: Notify::new(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self, report: &BatchReport<'_>) {
        let records = u64::from(report.records);
        match report.result {
            Ok(delivered) => {
                let base_offset = delivered.offset.map(|offset| offset.0);
                let mut tally = self.tally();
                tally.delivered(report.partition.0, base_offset, records);
                if delivered.durability == Some(Durability::Memory) {
                    tally.in_memory(records);
                }
                if let Some(times) = &delivered.stages {
                    tally.timed(times);
                }
            }
            Err(error) => self.failed(records, error),
        }
    }

    fn failed(&self, records: u64, error: &ProduceError) {
        self.tally()
            .failed(records, name(error), || error.to_string());
        if !concerns_record(error) {
            self.hopeless.notify_one();
        }
    }
}

/// The name under which an error is counted.
fn name(error: &ProduceError) -> &'static str {
    match (error.code(), error) {
        (_, ProduceError::Behind { .. }) => "behind_failed_batch",
        (Some(code), _) => code.name(),
        (None, ProduceError::TooLarge { .. }) => ErrorCode::RecordTooLarge.name(),
        (None, ProduceError::TimedOut { .. }) => ErrorCode::TimedOut.name(),
        (None, ProduceError::Closed { .. }) => "closed",
        (None, _) => "request_failed",
    }
}

/// Whether other records may well be sent after this error.
fn concerns_record(error: &ProduceError) -> bool {
    match error {
        ProduceError::TooLarge { .. } => true,
        ProduceError::Behind { cause, .. } => concerns_record(cause),
        _ => matches!(
            error.code(),
            Some(ErrorCode::RecordTooLarge | ErrorCode::BatchTooLarge)
        ),
    }
}

/// Gives the input's records to the producer.
struct Sending<'a> {
    producer: &'a Producer,
    outcome: &'a Outcome,
    args: &'a ProduceArgs,
    partition: Option<PartitionIndex>,
    /// Records and bytes that the tally hasn't been told yet.
    untold: (u64, u64),
    progress: Progress,
}

impl<'a> Sending<'a> {
    fn new(
        args: &'a ProduceArgs,
        producer: &'a Producer,
        outcome: &'a Outcome,
        progress: bool,
    ) -> Self {
        Self {
            producer,
            outcome,
            args,
            partition: args.partition.map(PartitionIndex),
            untold: (0, 0),
            progress: Progress::start(progress),
        }
    }

    /// Sends the whole input. May be cancelled: what was read and not sent is lost with it.
    async fn pump(&mut self, source: &mut Source, shape: Shape) -> Result<(), Failure> {
        let mut cutter = Cutter::new(shape);
        loop {
            match source.next().await {
                Some(Ok(block)) => {
                    cutter.feed(&block);
                    source.recycle(block);
                }
                Some(Err(error)) => return Err(Failure::input(&error)),
                None => cutter.end(),
            }
            loop {
                match cutter.next() {
                    Ok(Some(piece)) => self.send(piece).await,
                    Ok(None) => break,
                    Err(error) => return Err(Failure::new(Exit::Failed, error.to_string())),
                }
            }
            self.tell();
            if cutter.ended() {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, piece: Piece<'_>) {
        let record = record(self.args, piece);
        let bytes = record.size() as u64;
        let sent = match self.partition {
            Some(partition) => {
                self.producer
                    .send_to(&self.args.topic, partition, record)
                    .await
            }
            None => self.producer.send(&self.args.topic, record).await,
        };
        self.untold.0 += 1;
        self.untold.1 += bytes;
        // The delivery is told by batch.
        if let Err(error) = sent {
            self.outcome.failed(1, &error);
        }
    }

    fn tell(&mut self) {
        let (records, bytes) = std::mem::take(&mut self.untold);
        let so_far = {
            let mut tally = self.outcome.tally();
            tally.sent(records, bytes);
            tally.so_far()
        };
        self.progress.show(so_far.0, so_far.1);
    }

    fn finish(mut self) {
        self.tell();
        self.progress.end();
    }
}

/// The record of a piece of input, with what all of them have in common.
fn record<'a>(args: &'a ProduceArgs, piece: Piece<'a>) -> Record<'a> {
    let mut record = Record::value(piece.value);
    if let Some(key) = piece.key {
        record = record.key(key);
    }
    for header in &args.header {
        record = record.header(&header.key, &header.value);
    }
    if let Some(tag) = &args.tag {
        record = record.tag(tag);
    }
    if let Some(timestamp_us) = args.timestamp {
        record = record.timestamp_us(timestamp_us);
    }
    record
}

fn summarise(
    global: &GlobalArgs,
    outcome: &Outcome,
    stop: Stop,
    time: Duration,
) -> Result<(), Failure> {
    let mut tally = outcome.tally();
    tally.rest_failed("not_acknowledged", || {
        "they may have been appended: the end was asked for before the broker answered".to_owned()
    });
    if global.json() {
        print_json(&tally.to_json(time, matches!(stop, Stop::Interrupted)))?;
    } else {
        tell(&tally.render(time));
    }
    let verdict = tally.verdict();
    match stop {
        Stop::End | Stop::Interrupted => verdict,
        Stop::Hopeless => verdict.map_err(|failure| {
            Failure::new(
                Exit::Failed,
                format!("{failure}; the rest of the input was not read"),
            )
        }),
        Stop::Input(failure) => {
            if let Err(failed) = verdict {
                tell(&format!("ringway: {failed}"));
            }
            Err(failure)
        }
    }
}
