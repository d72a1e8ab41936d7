//! The consumer's asynchronous face.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use ringway_wire::batch::BatchBytes;
use ringway_wire::request::{FetchRequest, Reply};
use ringway_wire::{Offset, PartitionIndex, TopicPartition};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::batch::Batch;
use crate::builder::{ConsumerBuilder, StartAt};
use crate::client::Client;
use crate::connection::{Respond, Submission, Teller};
use crate::core::Token;
use crate::core::fetch::{Action, Answer, Fetcher, Opener};
use crate::driver::{Driven, drive};
use crate::error::{ConnectionLost, ConsumeError, RequestError};
use crate::machine::random;
use crate::shared::{Shared, lock};
use crate::typed::{Bytes, Readable, TypedBatch};

impl ConsumerBuilder<Client> {
    /// Builds the consumer; it reads nothing until partitions are assigned.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn build(self) -> Consumer {
        self.start()
    }

    /// Builds a consumer of values of a type; else like [`ConsumerBuilder::build`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn build_typed<T: Readable>(self) -> Consumer<T> {
        self.start()
    }

    fn start<T>(self) -> Consumer<T> {
        let settings = self.settings();
        let inner = Arc::new_cyclic(|itself| Inner {
            core: Mutex::new(Fetcher::new(settings)),
            wake: Notify::new(),
            news: Notify::new(),
            fetch_wait: settings.fetch_wait,
            shared: Arc::clone(self.client.shared()),
            itself: itself.clone(),
        });
        let driver = tokio::spawn(drive(Arc::clone(&inner))).abort_handle();
        Consumer {
            inner,
            driver,
            opener: Opener::default(),
            client: self.client,
            values: PhantomData,
        }
    }
}

/// What a consumer, its driver and its connections share.
#[derive(Debug)]
struct Inner {
    core: Mutex<Fetcher>,
    /// Tells the driver that the core's timers have changed.
    wake: Notify,
    /// Tells the consumer that there is something to hand out.
    news: Notify,
    fetch_wait: Duration,
    shared: Arc<Shared>,
    itself: Weak<Self>,
}

/// Reads partitions from chosen places on. Fetches ahead in the background, also while nobody
/// waits in [`Consumer::next_batch`].
///
/// A `Consumer` reads values as bytes. A `Consumer<T>` reads archives of a type, checked and in
/// place, by [`ConsumerBuilder::build_typed`]; its `next_batch` gives a [`TypedBatch`].
pub struct Consumer<T = Bytes> {
    inner: Arc<Inner>,
    driver: AbortHandle,
    opener: Opener,
    /// Keeps the client's connections open.
    client: Client,
    values: PhantomData<fn() -> T>,
}

impl<T> Consumer<T> {
    /// Reads partitions of a topic beside those assigned before; without `partitions`, all of
    /// them and, from their starts, those that are added later. A partition that is assigned
    /// already starts again at the given place. Nothing changes if it fails or is cancelled.
    ///
    /// # Errors
    /// [`ConsumeError::Request`]: no such topic or partition, or no broker answered.
    pub async fn assign(
        &mut self,
        topic: &str,
        partitions: Option<&[PartitionIndex]>,
        from: StartAt,
    ) -> Result<(), ConsumeError> {
        let shared = &self.inner.shared;
        let last = partitions.and_then(|chosen| chosen.iter().max().copied());
        let view = shared.topic_with(topic, last).await?;
        let all: Vec<_>;
        let chosen = match partitions {
            Some(chosen) => chosen,
            None => {
                all = view.partitions.iter().map(|each| each.partition).collect();
                &all
            }
        };
        let mut starts = Vec::with_capacity(chosen.len());
        for &partition in chosen {
            let at = view.at(partition)?;
            starts.push((at, self.resolve(topic, partition, from).await?));
        }
        {
            let mut core = lock(&self.inner.core);
            for (at, offset) in starts {
                core.assign(&view, at.partition, offset);
            }
            if partitions.is_none() {
                core.follow(&view.name);
                // Partitions may have been added since that view was taken.
                core.update_topic(topic, shared.known_topic(topic).as_ref());
            }
        }
        self.inner.pump();
        Ok(())
    }

    /// The offset of a place.
    async fn resolve(
        &self,
        topic: &str,
        partition: PartitionIndex,
        at: StartAt,
    ) -> Result<Offset, RequestError> {
        let at = match at.known() {
            Ok(offset) => return Ok(offset),
            Err(at) => at,
        };
        let admin = self.client.admin();
        Ok(admin.offsets(topic, partition, at).await?.offset)
    }

    /// Stops reading a topic.
    pub fn unassign(&mut self, topic: &str) {
        lock(&self.inner.core).unassign(topic);
        self.inner.pump();
    }

    /// Goes on elsewhere in a partition; also after an error has stopped it. Nothing changes if it
    /// fails or is cancelled.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssignedHere`] and [`ConsumeError::Request`].
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        let missing = || ConsumeError::NotAssignedHere {
            topic: topic.to_owned(),
            partition,
        };
        self.position(topic, partition).ok_or_else(missing)?;
        let offset = self.resolve(topic, partition, to).await?;
        if !lock(&self.inner.core).seek(topic, partition, offset) {
            return Err(missing());
        }
        self.inner.pump();
        Ok(())
    }

    async fn next<B>(
        &mut self,
        open: impl Fn(Batch) -> Result<B, ConsumeError>,
    ) -> Result<B, ConsumeError> {
        loop {
            let taken = {
                let mut core = lock(&self.inner.core);
                match core.take() {
                    None => core.in_vain().map(Err),
                    taken => taken,
                }
            };
            let Some(taken) = taken else {
                self.inner.news.notified().await;
                continue;
            };
            let parcel = taken?;
            // What was handed out has made room.
            self.inner.pump();
            let opened = self.opener.open(&parcel);
            let batch = opened.map_err(|why| lock(&self.inner.core).reject(&parcel, &why))?;
            return open(batch).inspect_err(|_| lock(&self.inner.core).put_back(&parcel));
        }
    }

    /// The offset that the partition's next batch starts at; `None` if it isn't assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        lock(&self.inner.core).position(topic, partition)
    }

    /// What is assigned: topic, partition and position.
    #[must_use]
    pub fn assignment(&self) -> Vec<(String, PartitionIndex, Offset)> {
        let core = lock(&self.inner.core);
        let all = core.positions();
        all.map(|(topic, partition, offset)| (topic.to_string(), partition, offset))
            .collect()
    }
}

impl Consumer {
    /// The next batch, of each partition in turn; waits until there is one. It may be cancelled
    /// (used in `select!`, under a time-out) and loses nothing. Lost connections and changes of
    /// leaders are dealt with inside.
    ///
    /// # Errors
    /// [`ConsumeError`]: one partition stands still until a seek, the others go on.
    pub async fn next_batch(&mut self) -> Result<Batch, ConsumeError> {
        self.next(Ok).await
    }
}

impl<T: Readable> Consumer<T> {
    /// The next batch, with every value checked; else like [`Consumer::next_batch`] of bytes.
    ///
    /// # Errors
    /// Those of [`Consumer::next_batch`] of bytes, [`ConsumeError::WrongLayout`] and
    /// [`ConsumeError::WrongValue`].
    pub async fn next_batch(&mut self) -> Result<TypedBatch<T>, ConsumeError> {
        self.next(TypedBatch::open).await
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.driver.abort();
        // Fetches under way keep the core alive; what they bring is of no use any more.
        lock(&self.inner.core).clear();
    }
}

impl Inner {
    /// Carries out what the core asks for. Any thread may do it: a partition has one fetch at a
    /// time, so no two can change places.
    fn pump(&self) {
        loop {
            let action = lock(&self.core).poll(Instant::now());
            match action {
                None => return,
                Some(Action::Refresh(name)) => self.shared.doubt(&name),
                Some(Action::Fetch { token, request }) => self.fetch(token, request),
            }
        }
    }

    fn fetch(&self, token: Token, request: FetchRequest) {
        let of = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let leader = self.shared.leader(of);
        let (Some(connection), Some(respond)) = (leader, self.itself.upgrade()) else {
            self.answer(token, Answer::Lost);
            return;
        };
        connection.submit(Submission {
            request: request.into(),
            data: None,
            who: Teller { respond, token },
            deadline: self.shared.request_deadline(self.fetch_wait),
            answered: true,
        });
    }

    fn answer(&self, token: Token, answer: Answer) {
        let sooner = {
            let mut core = lock(&self.core);
            let before = core.next_poll();
            core.answer(token, answer, Instant::now(), random());
            core.next_poll() != before
        };
        if sooner {
            self.wake.notify_one();
        }
        self.news.notify_one();
    }
}

impl Driven for Inner {
    fn pump(self: &Arc<Self>) -> Option<Instant> {
        Inner::pump(self);
        lock(&self.core).next_poll()
    }

    fn update_topics(&self) {
        let mut core = lock(&self.core);
        let names: Vec<_> = core.topics().map(Arc::clone).collect();
        for name in names {
            let view = self.shared.known_topic(&name);
            core.update_topic(&name, view.as_ref());
        }
        self.news.notify_one();
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Respond for Inner {
    fn replied(&self, token: Token, reply: Reply, data: &[u8]) {
        let Reply::Fetch(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        let (awaited, topic) = {
            let core = lock(&self.core);
            (core.awaits(token), core.topic_of(token))
        };
        if !awaited {
            return;
        }
        let epoch = reply.topic_epoch;
        let bytes = (!data.is_empty()).then(|| {
            let mut bytes = BatchBytes::with_capacity(data.len());
            bytes.extend_from_slice(data);
            Arc::new(bytes)
        });
        self.answer(token, Answer::Reply(reply, bytes));
        self.pump();
        if let Some(topic) = topic {
            self.shared.note_epoch(topic, epoch);
        }
    }

    fn written(&self, _: Token) {}

    fn lost(&self, token: Token, _: ConnectionLost) {
        self.answer(token, Answer::Lost);
        self.wake.notify_one();
    }
}
