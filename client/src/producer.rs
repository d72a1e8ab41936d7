//! The producer's asynchronous face.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use ringway_wire::PartitionIndex;
use ringway_wire::batch::{BatchLimits, RecordRef};
use ringway_wire::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADERS_BYTES_MAX};
use ringway_wire::request::{Acks, InitProducerRequest, ProduceRequest, Reply};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};

use crate::client::Client;
use crate::connection::{Respond, Submission};
use crate::core::Token;
use crate::core::backoff::Backoff;
use crate::core::delivery::{BatchReport, Delivery, OnBatch};
use crate::core::producer::{
    self as core, Action, Answer, Identity, PushError, Settings, Transmit,
};
use crate::error::{BuildError, ConnectionLost, ProduceError, RequestError};
use crate::limits::{
    BATCH_BYTES_DEFAULT, BATCH_RECORDS_DEFAULT, BUFFER_BYTES_DEFAULT, DELIVERY_TIMEOUT_DEFAULT,
    IN_FLIGHT_MAX,
};
use crate::record::Record;
use crate::shared::{Repeat, Shared, lock, now_us, random, refused};

/// What [`Producer::send`] does while the buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits for acknowledgements to make room.
    #[default]
    Block,
    /// Fails with [`ProduceError::BufferFull`].
    Error,
}

/// Settings of a producer; the defaults are right for most.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ProducerBuilder {
    client: Client,
    acks: Acks,
    linger: Duration,
    batch_bytes: usize,
    batch_records: usize,
    in_flight: usize,
    delivery_timeout: Duration,
    buffer_bytes: usize,
    when_full: WhenFull,
    idempotent: bool,
    trace: bool,
    on_batch: Option<OnBatch>,
}

impl ProducerBuilder {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            acks: Acks::All,
            linger: Duration::ZERO,
            batch_bytes: BATCH_BYTES_DEFAULT,
            batch_records: BATCH_RECORDS_DEFAULT,
            in_flight: IN_FLIGHT_MAX,
            delivery_timeout: DELIVERY_TIMEOUT_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            when_full: WhenFull::Block,
            idempotent: true,
            trace: false,
            on_batch: None,
        }
    }

    /// When the broker acknowledges; all by default. With none, a delivery resolves when its batch
    /// was written to the socket, nothing is repeated after that, and a loss goes unnoticed.
    pub const fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// How long a batch that isn't full waits for more records. With 0, the default, it leaves as
    /// soon as its partition has room in flight, and what comes meanwhile gathers in the next one.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes after which a batch is full; 1 MiB by default, at most 64 MiB. A larger record goes
    /// alone.
    pub const fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Records after which a batch is full; 10,000 by default, at most 1,048,576.
    pub const fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Batches of one partition that may be under way at once, 1 to 5; 5 by default. A producer
    /// that is not idempotent has one, so that repeats keep the order.
    pub const fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches;
        self
    }

    /// Time after which a record that is not acknowledged is given up; 120 s by default.
    pub const fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Bytes of records that may wait for acknowledgement; 64 MiB by default. The largest record
    /// that can be sent is bounded by it.
    pub const fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What happens when the buffer is full; by default sending waits.
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether the broker recognises repeated batches, so that each is appended once and the order
    /// holds; true by default. Without it a repeat after a lost answer may append a batch twice.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Whether deliveries say where the broker spent the time; false by default.
    pub const fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Has `told` called for every batch when it is acknowledged or given up, before its deliveries
    /// resolve and before a flush that waits for it returns: for those who count instead of keeping
    /// each record's [`Delivery`]. Records that [`Producer::send`] refuses are in no batch. `told`
    /// runs on the client's tasks and must be quick; it may not call the producer.
    pub fn on_batch(mut self, told: impl Fn(&BatchReport<'_>) + Send + Sync + 'static) -> Self {
        self.on_batch = Some(OnBatch::new(told));
        self
    }

    /// Builds the producer; an idempotent one gets its id from the cluster.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for a value out of range, [`BuildError::Request`] when no id could
    /// be had.
    pub async fn build(self) -> Result<Producer, BuildError> {
        let settings = self.settings()?;
        let identity = match settings.idempotent {
            true => Some(get_identity(self.client.shared()).await?),
            false => None,
        };
        let inner = Arc::new(Inner {
            core: Mutex::new(core::Producer::new(settings, identity, self.on_batch)),
            wake: Notify::new(),
            space: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            shared: Arc::clone(self.client.shared()),
        });
        let driver = tokio::spawn(drive(Arc::clone(&inner))).abort_handle();
        Ok(Producer {
            inner,
            when_full: self.when_full,
            driver,
            _client: self.client,
        })
    }

    fn settings(&self) -> Result<Settings, BuildError> {
        let wrong = |setting, value: usize, why| {
            Err(BuildError::Setting {
                setting,
                value: value.to_string(),
                why,
            })
        };
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight) {
            return wrong("in_flight", self.in_flight, "it is between 1 and 5");
        }
        if !(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            return wrong(
                "batch_bytes",
                self.batch_bytes,
                "it is between 1 and 64 MiB",
            );
        }
        if !(1..=BATCH_RECORDS_MAX).contains(&self.batch_records) {
            return wrong(
                "batch_records",
                self.batch_records,
                "it is between 1 and 2^20",
            );
        }
        if self.buffer_bytes == 0 {
            return wrong("buffer_bytes", 0, "no record would fit");
        }
        for (setting, value) in [
            ("linger", self.linger),
            ("delivery_timeout", self.delivery_timeout),
        ] {
            if value > DURATION_MAX {
                let (value, why) = (format!("{value:?}"), "it is at most a year");
                return Err(BuildError::Setting {
                    setting,
                    value,
                    why,
                });
            }
        }
        // A batch that is lost on the way would leave a gap that nobody hears of.
        let idempotent = self.idempotent && self.acks != Acks::None;
        let repeats_reorder = !idempotent && self.acks != Acks::None;
        Ok(Settings {
            acks: self.acks,
            linger: self.linger,
            limits: BatchLimits {
                bytes_max: self.batch_bytes,
                records_max: self.batch_records,
            },
            in_flight: if repeats_reorder { 1 } else { self.in_flight },
            delivery_timeout: self.delivery_timeout,
            buffer_bytes: self.buffer_bytes,
            idempotent,
            trace: self.trace,
        })
    }
}

/// Longest linger and delivery time-out.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Gets a producer id from the cluster.
async fn get_identity(shared: &Shared) -> Result<Identity, RequestError> {
    let what = || "a producer id".to_owned();
    let reply = shared
        .request(what, InitProducerRequest.into(), Repeat::Harmless)
        .await?;
    let Reply::InitProducer(reply) = reply else {
        unreachable!("replies are of their kind")
    };
    refused(what, reply.fault.as_ref(), None)?;
    Ok(Identity {
        id: reply.producer_id,
        epoch: reply.producer_epoch,
    })
}

/// What a producer, its driver and its connections share.
#[derive(Debug)]
struct Inner {
    core: Mutex<core::Producer>,
    /// Tells the driver that the core has something to do.
    wake: Notify,
    /// Tells the sender whose turn it is that there is room.
    space: Notify,
    /// Senders that wait for room, first come, first served.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    shared: Arc<Shared>,
}

/// Sends records. All methods take `&self`: share it between tasks, by reference or in an `Arc`.
/// [`Producer::close`] it: one that is dropped gives up what is not acknowledged yet.
#[derive(Debug)]
pub struct Producer {
    inner: Arc<Inner>,
    when_full: WhenFull,
    driver: AbortHandle,
    /// Keeps the client's connections open.
    _client: Client,
}

impl Producer {
    /// Sends a record to the partition that its key decides, or, without a key, to each in turn,
    /// batch by batch. Waits only while the buffer is full or the topic is not known yet; the
    /// delivery that it gives resolves with the acknowledgement. If it is cancelled while it
    /// waits, the record is not sent.
    ///
    /// Records that one task sends to a partition are appended in that order.
    ///
    /// # Errors
    /// [`ProduceError::UnknownTopic`], [`ProduceError::TooLarge`], [`ProduceError::BufferFull`],
    /// [`ProduceError::Request`] when the topic's metadata can't be had.
    pub async fn send<'a>(
        &self,
        topic: &str,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        self.push(topic, None, &record.into()).await
    }

    /// Sends a record to a partition of the caller's choice; else like [`Producer::send`].
    ///
    /// # Errors
    /// Those of [`Producer::send`] and [`ProduceError::UnknownPartition`].
    pub async fn send_to<'a>(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        self.push(topic, Some(partition), &record.into()).await
    }

    async fn push(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &Record<'_>,
    ) -> Result<Delivery, ProduceError> {
        let inner = &*self.inner;
        let Some(record) = record.as_ref(now_us) else {
            let bytes = record.size();
            return Err(too_large(topic, "a header", bytes, HEADERS_BYTES_MAX));
        };
        // Others who wait for room go first.
        if inner.waiting.load(Ordering::Relaxed) == 0 {
            let pushed = inner.push_known(topic, partition, &record).await?;
            if let Some(delivery) = pushed {
                // A task that sends without ever waiting lets the driver have its turn.
                tokio::task::coop::consume_budget().await;
                return Ok(delivery);
            }
        }
        if self.when_full == WhenFull::Error {
            let buffer_bytes = lock(&inner.core).settings().buffer_bytes;
            return Err(ProduceError::BufferFull {
                topic: topic.into(),
                buffer_bytes,
            });
        }
        let _counted = Waiting::new(&inner.waiting);
        let _turn = inner.turn.lock().await;
        loop {
            if let Some(delivery) = inner.push_known(topic, partition, &record).await? {
                return Ok(delivery);
            }
            lock(&inner.core).hasten();
            inner.wake.notify_one();
            inner.space.notified().await;
        }
    }

    /// Waits until everything sent before is acknowledged or given up; doesn't wait for lingers.
    ///
    /// # Errors
    /// The first failure among the batches that it waited for.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let waiting = lock(&self.inner.core).flush();
        self.inner.wake.notify_one();
        let mut result = Ok(());
        for delivery in waiting {
            let delivered = delivery.await.map(drop);
            result = result.and(delivered);
        }
        result
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// Those of [`Producer::flush`].
    pub async fn close(self) -> Result<(), ProduceError> {
        self.flush().await
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.driver.abort();
        lock(&self.inner.core).abort();
    }
}

/// Counts a sender that waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_large(topic: &str, what: &'static str, bytes: usize, limit: usize) -> ProduceError {
    ProduceError::TooLarge {
        topic: topic.into(),
        what,
        bytes,
        limit,
    }
}

impl Inner {
    /// Gives the record to the core, which gets to know the topic first if need be. `None`: the
    /// buffer is full.
    async fn push_known(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &RecordRef<'_>,
    ) -> Result<Option<Delivery>, ProduceError> {
        loop {
            let taken = lock(&self.core).push(topic, partition, record, Instant::now());
            match taken {
                Ok(taken) => {
                    if taken.urgent {
                        self.wake.notify_one();
                    }
                    return Ok(Some(taken.delivery));
                }
                Err(PushError::Full) => return Ok(None),
                Err(PushError::TooLarge { what, bytes, limit }) => {
                    return Err(too_large(topic, what, bytes, limit));
                }
                Err(PushError::NoPartition {
                    partition,
                    partitions,
                }) => {
                    let topic = topic.into();
                    return Err(ProduceError::UnknownPartition {
                        topic,
                        partition,
                        partitions,
                    });
                }
                Err(PushError::TopicNotKnown) => {
                    let view = self
                        .shared
                        .topic(topic)
                        .await
                        .map_err(|error| match error {
                            RequestError::UnknownTopic { topic } => ProduceError::UnknownTopic {
                                topic: topic.into(),
                            },
                            error => ProduceError::Request(Arc::new(error)),
                        })?;
                    lock(&self.core).update_topic(topic, Some(&view), random());
                }
            }
        }
    }

    /// Carries out what the core asks for; when to look again. Only the driver calls this: the
    /// batches of a partition go to the connection in the order in which the core gives them.
    fn pump(self: &Arc<Self>) -> Option<Instant> {
        loop {
            let (action, next) = {
                let mut core = lock(&self.core);
                let action = core.poll(Instant::now(), random());
                if core.take_freed() {
                    self.space.notify_one();
                }
                (action, core.next_poll())
            };
            match action {
                None => return next,
                Some(Action::Send(transmit)) => self.transmit(transmit),
                Some(Action::Refresh(name)) => self.shared.doubt(&name),
                Some(Action::GetIdentity) => {
                    tokio::spawn(Arc::clone(self).renew_identity());
                }
            }
        }
    }

    fn transmit(self: &Arc<Self>, transmit: Transmit) {
        let Transmit {
            token,
            to,
            bytes,
            timeout,
        } = transmit;
        let Some(connection) = self.shared.leader(to) else {
            self.answer(token, Answer::NoLeader);
            return;
        };
        let settings = *lock(&self.core).settings();
        let timeout = timeout.min(self.shared.config.request_timeout);
        let request = ProduceRequest {
            topic: to.topic,
            partition: to.partition,
            acks: settings.acks,
            trace: settings.trace,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        connection.submit(Submission {
            request: request.into(),
            data: Some(bytes),
            respond: Arc::clone(self) as Arc<dyn Respond>,
            token,
            deadline: self.shared.request_deadline(Duration::ZERO),
            answered: !settings.written_is_delivered(),
        });
    }

    fn answer(&self, token: Token, answer: Answer) {
        {
            let mut core = lock(&self.core);
            core.answer(token, answer, Instant::now(), random());
            if core.take_freed() {
                self.space.notify_one();
            }
        }
        self.wake.notify_one();
    }

    /// Gets a new producer id; gives up only with the producer.
    async fn renew_identity(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        // One reference is this task's: the last one when producer, driver and requests are gone.
        while Arc::strong_count(&self) > 1 {
            if let Ok(identity) = get_identity(&self.shared).await {
                lock(&self.core).set_identity(identity);
                self.wake.notify_one();
                return;
            }
            sleep(backoff.next(random())).await;
        }
    }

    /// Tells the core what is known of its topics now.
    fn update_topics(&self) {
        let mut core = lock(&self.core);
        let names: Vec<_> = core.topics().map(Arc::clone).collect();
        for name in names {
            let view = self.shared.known_topic(&name);
            core.update_topic(&name, view.as_ref(), random());
        }
    }
}

impl Respond for Inner {
    fn replied(&self, token: Token, reply: Reply, _: &[u8]) {
        let Reply::Produce(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        let epoch = reply.topic_epoch;
        let topic = lock(&self.core).topic_of(token);
        self.answer(token, Answer::Reply(reply));
        if let Some(topic) = topic {
            self.shared.note_epoch(topic, epoch);
        }
    }

    fn written(&self, token: Token) {
        self.answer(token, Answer::Written);
    }

    fn lost(&self, token: Token, lost: ConnectionLost) {
        self.answer(token, Answer::Lost(lost));
    }
}

/// What the driver is woken by.
enum Woken {
    Core,
    Metadata,
}

/// Carries out what the core asks for, for as long as the producer lives.
async fn drive(inner: Arc<Inner>) {
    let mut changes = inner.shared.changes();
    let mut timer = pin!(sleep_until(Instant::now().into()));
    loop {
        let next = inner.pump();
        if let Some(next) = next
            && timer.deadline() != next.into()
        {
            timer.as_mut().reset(next.into());
        }
        let mut wake = pin!(inner.wake.notified());
        let mut changed = pin!(changes.changed());
        let woken = poll_fn(|context| {
            if wake.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Core);
            }
            if let Poll::Ready(Ok(())) = changed.as_mut().poll(context) {
                return Poll::Ready(Woken::Metadata);
            }
            if next.is_some() && timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Core);
            }
            Poll::Pending
        });
        match woken.await {
            Woken::Core => {}
            Woken::Metadata => inner.update_topics(),
        }
    }
}
