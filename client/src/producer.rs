//! The producer's asynchronous face.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway_wire::PartitionIndex;
use ringway_wire::batch::RecordRef;
use ringway_wire::request::Reply;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::builder::{ProducerBuilder, WhenFull};
use crate::calls::GetIdentity;
use crate::client::Client;
use crate::connection::{Respond, Submission, Teller};
use crate::core::Token;
use crate::core::backoff::Backoff;
use crate::core::delivery::Delivery;
use crate::core::producer::{self as core, Action, Answer, PushError, Transmit};
use crate::driver::{Driven, drive};
use crate::error::{BuildError, ConnectionLost, ProduceError};
use crate::machine::{now_us, random};
use crate::record::Record;
use crate::shared::{Shared, lock};
use crate::typed::{Bytes, Scratch, TypedRecord, Writable, encode, layout_of};

impl ProducerBuilder<Client> {
    /// Builds the producer; an idempotent one gets its id from the cluster.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for a value out of range, [`BuildError::Request`] when no id could
    /// be had.
    pub async fn build(self) -> Result<Producer, BuildError> {
        self.start(None).await
    }

    /// Builds a producer of values of a type; else like [`ProducerBuilder::build`].
    ///
    /// # Errors
    /// Those of [`ProducerBuilder::build`].
    pub async fn build_typed<T: Writable>(self) -> Result<Producer<T>, BuildError> {
        self.start(Some(layout_of::<T>())).await
    }

    async fn start<T>(self, layout: Option<u64>) -> Result<Producer<T>, BuildError> {
        let settings = core::Settings {
            layout,
            ..self.settings()?
        };
        let identity = match settings.idempotent {
            true => Some(self.client.shared().call(&GetIdentity).await?),
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
            scratch: Scratch::default(),
            values: PhantomData,
            _client: self.client,
        })
    }
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
///
/// A `Producer` sends values that are bytes. A `Producer<T>` sends values of a type as they are, by
/// [`ProducerBuilder::build_typed`]; its `send` takes a `&T` or a [`TypedRecord`].
pub struct Producer<T = Bytes> {
    inner: Arc<Inner>,
    when_full: WhenFull,
    driver: AbortHandle,
    scratch: Scratch,
    values: PhantomData<fn(T)>,
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
}

impl<T: Writable> Producer<T> {
    /// Sends a value as it is; else like [`Producer::send`] of bytes.
    ///
    /// # Errors
    /// Those of [`Producer::send`] of bytes and [`ProduceError::NotArchived`].
    pub async fn send<'a>(
        &self,
        topic: &str,
        record: impl Into<TypedRecord<'a, T>>,
    ) -> Result<Delivery, ProduceError>
    where
        T: 'a,
    {
        self.push_typed(topic, None, record.into()).await
    }

    /// Sends a value as it is; else like [`Producer::send_to`] of bytes.
    ///
    /// # Errors
    /// Those of [`Producer::send_to`] of bytes and [`ProduceError::NotArchived`].
    pub async fn send_to<'a>(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<TypedRecord<'a, T>>,
    ) -> Result<Delivery, ProduceError>
    where
        T: 'a,
    {
        self.push_typed(topic, Some(partition), record.into()).await
    }

    async fn push_typed(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: TypedRecord<'_, T>,
    ) -> Result<Delivery, ProduceError> {
        let encoded = encode(topic, record, self.scratch.take())?;
        let pushed = self.push(topic, partition, &encoded.as_record()).await;
        self.scratch.keep(encoded.archive);
        pushed
    }
}

impl<T> Producer<T> {
    async fn push(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &Record<'_>,
    ) -> Result<Delivery, ProduceError> {
        let inner = &*self.inner;
        let record = record
            .as_ref(now_us)
            .ok_or_else(|| core::headers_too_large(topic, record.size()))?;
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

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Producer<T> {
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

impl Inner {
    /// Gives the record to the core, which gets to know the topic first if need be. `None`: the
    /// buffer is full.
    async fn push_known(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &RecordRef<'_>,
    ) -> Result<Option<Delivery>, ProduceError> {
        let mut asked = false;
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
                Err(PushError::TopicNotKnown) => {
                    self.shared.topic(topic).await?;
                    self.learn_topic(topic)?;
                }
                Err(PushError::TopicBehind(epoch)) => {
                    self.shared.wait_for_topic(topic, epoch).await;
                    self.learn_topic(topic)?;
                    lock(&self.core).make_do(topic);
                }
                // Somebody may have added it since.
                Err(PushError::Never(ProduceError::UnknownPartition { .. }))
                    if partition.is_some() && !asked =>
                {
                    asked = true;
                    self.shared.topic_with(topic, partition).await?;
                    self.learn_topic(topic)?;
                }
                Err(PushError::Never(error)) => return Err(error),
            }
        }
    }

    /// Tells the core what is known of a topic. That is read under the core's lock, so that the
    /// driver's newer view isn't replaced by an older one.
    fn learn_topic(&self, topic: &str) -> Result<(), ProduceError> {
        let mut core = lock(&self.core);
        let view = self.shared.known_topic(topic);
        core.update_topic(topic, view.as_ref(), random());
        match view {
            Some(view) if !core.knows(topic) => Err(ProduceError::AllRetired { topic: view.name }),
            _ => Ok(()),
        }
    }

    fn transmit(self: &Arc<Self>, transmit: Transmit) {
        let token = transmit.token;
        let Some(connection) = self.shared.leader(transmit.to) else {
            self.answer(token, Answer::NoLeader);
            return;
        };
        let request = transmit.request(self.shared.config.request_timeout);
        connection.submit(Submission {
            request: request.into(),
            data: Some(transmit.bytes),
            who: Teller {
                respond: Arc::clone(self) as Arc<dyn Respond>,
                token,
            },
            deadline: self.shared.request_deadline(Duration::ZERO),
            answered: !transmit.written_is_delivered,
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
            if let Ok(identity) = self.shared.call(&GetIdentity).await {
                lock(&self.core).set_identity(identity);
                self.wake.notify_one();
                return;
            }
            sleep(backoff.next(random())).await;
        }
    }
}

impl Driven for Inner {
    /// Only the driver calls this: the batches of a partition go to the connection in the order in
    /// which the core gives them.
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

    fn update_topics(&self) {
        let mut core = lock(&self.core);
        let names: Vec<_> = core.topics().map(Arc::clone).collect();
        for name in names {
            let view = self.shared.known_topic(&name);
            core.update_topic(&name, view.as_ref(), random());
        }
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn shared(&self) -> &Shared {
        &self.shared
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
