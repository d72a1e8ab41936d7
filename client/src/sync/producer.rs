//! The producer's synchronous face.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use ringway_wire::request::Reply;
use ringway_wire::{MetadataEpoch, PartitionIndex};

use crate::builder::{ProducerBuilder, WhenFull};
use crate::calls::GetIdentity;
use crate::core::delivery::{Delivered, Delivery};
use crate::core::outbox::Submission;
use crate::core::producer::{self as core, Action, Answer, PushError, Transmit};
use crate::error::{BuildError, ProduceError};
use crate::limits::{CATCH_UP_MAX, LOOK_PAUSE};
use crate::machine::now_us;
use crate::record::Record;
use crate::sync::Client;
use crate::sync::connection::Outcome;
use crate::sync::link::{Asking, Link};
use crate::typed::{Bytes, Scratch, TypedRecord, Writable, encode, layout_of};

impl ProducerBuilder<Client> {
    /// Builds the producer; an idempotent one gets its id from the cluster.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for a value out of range, [`BuildError::Request`] when no id could
    /// be had.
    pub fn build(self) -> Result<Producer, BuildError> {
        self.start(None)
    }

    /// Builds a producer of values of a type; else like [`ProducerBuilder::build`].
    ///
    /// # Errors
    /// Those of [`ProducerBuilder::build`].
    pub fn build_typed<T: Writable>(self) -> Result<Producer<T>, BuildError> {
        self.start(Some(layout_of::<T>()))
    }

    fn start<T>(self, layout: Option<u64>) -> Result<Producer<T>, BuildError> {
        let settings = core::Settings {
            layout,
            ..self.settings()?
        };
        let mut link = self.client.link();
        let identity = match settings.idempotent {
            true => Some(link.call(&GetIdentity)?),
            false => None,
        };
        Ok(Producer {
            core: core::Producer::new(settings, identity, self.on_batch),
            link,
            when_full: self.when_full,
            renewal: None,
            metadata_version: 0,
            looked_at: Instant::now(),
            scratch: Scratch::default(),
            values: PhantomData,
        })
    }
}

/// Sends records. [`Producer::poll`] it often, or call what polls: [`Producer::wait`],
/// [`Producer::flush`]. [`Producer::close`] it: one that is dropped gives up what is not
/// acknowledged yet.
///
/// A `Producer` sends values that are bytes. A `Producer<T>` sends values of a type as they are, by
/// [`ProducerBuilder::build_typed`]; its `send` takes a `&T` or a [`TypedRecord`].
pub struct Producer<T = Bytes> {
    core: core::Producer,
    link: Link,
    when_full: WhenFull,
    /// The question for a new producer id.
    renewal: Option<Asking>,
    /// The metadata that the core knows.
    metadata_version: u64,
    /// When the sockets were looked at last.
    looked_at: Instant,
    scratch: Scratch,
    values: PhantomData<fn(T)>,
}

impl Producer {
    /// Sends a record to the partition that its key decides, or, without a key, to each in turn,
    /// batch by batch. Waits only while the buffer is full or for the metadata of a topic that is
    /// new to the producer. It sends what is due when it begins or fills a batch, and looks at
    /// the sockets when that wasn't done for 50 µs; else it only copies the record.
    ///
    /// Records for a partition are appended in the order in which they are sent.
    ///
    /// # Errors
    /// [`ProduceError::UnknownTopic`], [`ProduceError::TooLarge`], [`ProduceError::BufferFull`],
    /// [`ProduceError::Request`] when the topic's metadata can't be had.
    pub fn send<'a>(
        &mut self,
        topic: &str,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        self.push(topic, None, &record.into())
    }

    /// Sends a record to a partition of the caller's choice; else like [`Producer::send`].
    ///
    /// # Errors
    /// Those of [`Producer::send`] and [`ProduceError::UnknownPartition`].
    pub fn send_to<'a>(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        self.push(topic, Some(partition), &record.into())
    }
}

impl<T: Writable> Producer<T> {
    /// Sends a value as it is; else like [`Producer::send`] of bytes.
    ///
    /// # Errors
    /// Those of [`Producer::send`] of bytes and [`ProduceError::NotArchived`].
    pub fn send<'a>(
        &mut self,
        topic: &str,
        record: impl Into<TypedRecord<'a, T>>,
    ) -> Result<Delivery, ProduceError>
    where
        T: 'a,
    {
        self.push_typed(topic, None, record.into())
    }

    /// Sends a value as it is; else like [`Producer::send_to`] of bytes.
    ///
    /// # Errors
    /// Those of [`Producer::send_to`] of bytes and [`ProduceError::NotArchived`].
    pub fn send_to<'a>(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<TypedRecord<'a, T>>,
    ) -> Result<Delivery, ProduceError>
    where
        T: 'a,
    {
        self.push_typed(topic, Some(partition), record.into())
    }

    fn push_typed(
        &mut self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: TypedRecord<'_, T>,
    ) -> Result<Delivery, ProduceError> {
        let encoded = encode(topic, record, self.scratch.take())?;
        let pushed = self.push(topic, partition, &encoded.as_record());
        self.scratch.keep(encoded.archive);
        pushed
    }
}

impl<T> Producer<T> {
    fn push(
        &mut self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &Record<'_>,
    ) -> Result<Delivery, ProduceError> {
        let record = record
            .as_ref(now_us)
            .ok_or_else(|| core::headers_too_large(topic, record.size()))?;
        let (mut hastened, mut asked) = (false, false);
        loop {
            let now = Instant::now();
            match self.core.push(topic, partition, &record, now) {
                Ok(taken) => {
                    if now >= self.looked_at + LOOK_PAUSE {
                        self.turn(now);
                    } else if taken.urgent {
                        self.pump(now);
                    }
                    return Ok(taken.delivery);
                }
                Err(PushError::TopicNotKnown) => {
                    let view = self.link.topic(topic)?;
                    let random = self.link.random();
                    self.core.update_topic(topic, Some(&view), random);
                    if !self.core.knows(topic) {
                        return Err(ProduceError::AllRetired { topic: view.name });
                    }
                }
                // Somebody may have added it since.
                Err(PushError::Never(ProduceError::UnknownPartition { .. }))
                    if partition.is_some() && !asked =>
                {
                    asked = true;
                    self.link.topic_with(topic, partition)?;
                    self.update_topics();
                }
                Err(PushError::TopicBehind(epoch)) => self.catch_up(topic, epoch),
                Err(PushError::Full) if self.when_full == WhenFull::Error => {
                    return Err(ProduceError::BufferFull {
                        topic: topic.into(),
                        buffer_bytes: self.core.settings().buffer_bytes,
                    });
                }
                Err(PushError::Full) => {
                    if !hastened {
                        self.core.hasten();
                        hastened = true;
                    }
                    self.until_freed();
                }
                Err(PushError::Never(error)) => return Err(error),
            }
        }
    }

    /// Turns until the metadata that a reply told of is known, or that takes too long.
    fn catch_up(&mut self, topic: &str, epoch: MetadataEpoch) {
        let until = Instant::now() + CATCH_UP_MAX;
        loop {
            let now = Instant::now();
            let busy = self.turn(now);
            let known = self.link.metadata().topic(topic);
            if now >= until || known.is_none_or(|view| view.epoch >= epoch) {
                return self.core.make_do(topic);
            }
            self.link.rest(busy);
        }
    }

    /// Turns until there is new room in the buffer.
    fn until_freed(&mut self) {
        while !self.core.take_freed() {
            let busy = self.turn(Instant::now());
            self.link.rest(busy);
        }
    }

    /// Sends what is due and takes what came, without waiting. Whether there was anything to do.
    pub fn poll(&mut self) -> bool {
        self.turn(Instant::now())
    }

    /// Polls until a record is acknowledged or given up.
    ///
    /// # Errors
    /// Why it was given up.
    pub fn wait(&mut self, delivery: &Delivery) -> Result<Delivered, ProduceError> {
        loop {
            if let Some(result) = delivery.result() {
                return result;
            }
            let busy = self.poll();
            self.link.rest(busy);
        }
    }

    /// Polls until everything sent before is acknowledged or given up; doesn't wait for lingers.
    ///
    /// # Errors
    /// The first failure among the batches that it waited for.
    pub fn flush(&mut self) -> Result<(), ProduceError> {
        let mut result = Ok(());
        for delivery in self.core.flush() {
            let delivered = self.wait(&delivery).map(drop);
            result = result.and(delivered);
        }
        result
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// Those of [`Producer::flush`].
    pub fn close(mut self) -> Result<(), ProduceError> {
        self.flush()
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.looked_at = now;
        // First what has come: an answer is none that is late, however late it is looked for.
        let mut busy = self.link.turn(now);
        while let Some((token, outcome)) = self.link.next_event() {
            busy = true;
            let answer = match outcome {
                Outcome::Replied(Reply::Produce(reply), _) => {
                    let topic = self.core.topic_of(token);
                    self.link.note_epoch(topic, reply.topic_epoch);
                    Answer::Reply(reply)
                }
                Outcome::Replied(..) => unreachable!("replies are of their kind"),
                Outcome::Written => Answer::Written,
                Outcome::Lost(lost) => Answer::Lost(lost),
            };
            let random = self.link.random();
            self.core.answer(token, answer, now, random);
        }
        self.renew_identity(now);
        self.update_topics();
        busy | self.pump(now)
    }

    /// Carries out what the core asks for.
    fn pump(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            let random = self.link.random();
            let Some(action) = self.core.poll(now, random) else {
                return busy;
            };
            busy = true;
            match action {
                Action::Send(transmit) => self.transmit(transmit, now),
                Action::Refresh(name) => {
                    self.link.metadata().doubt(&name);
                }
                Action::GetIdentity => self.ask_identity(),
            }
        }
    }

    fn transmit(&mut self, transmit: Transmit, now: Instant) {
        let (token, to) = (transmit.token, transmit.to);
        let request = transmit.request(self.link.config().request_timeout);
        let submission = Submission {
            request: request.into(),
            data: Some(transmit.bytes),
            who: token,
            deadline: self.link.request_deadline(now, Duration::ZERO),
            answered: !transmit.written_is_delivered,
        };
        if !self.link.submit(to, submission) {
            let random = self.link.random();
            self.core.answer(token, Answer::NoLeader, now, random);
        }
    }

    fn ask_identity(&mut self) {
        let within = self.link.config().request_timeout;
        self.renewal = Asking::new(&GetIdentity, within).ok();
    }

    /// Goes on asking for a new producer id; gives up only with the producer.
    fn renew_identity(&mut self, now: Instant) {
        let Some(mut asking) = self.renewal.take() else {
            return;
        };
        match asking.poll(&mut self.link, now) {
            None => self.renewal = Some(asking),
            Some(answer) => match asking.read(&GetIdentity, answer) {
                Ok(identity) => self.core.set_identity(identity),
                Err(_) => self.ask_identity(),
            },
        }
    }

    /// Tells the core what is known of its topics, if that has changed.
    fn update_topics(&mut self) {
        let version = self.link.metadata().version();
        if version == self.metadata_version {
            return;
        }
        self.metadata_version = version;
        let names: Vec<_> = self.core.topics().cloned().collect();
        for name in names {
            let random = self.link.random();
            let view = self.link.metadata().topic(&name);
            self.core.update_topic(&name, view, random);
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.core.abort();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("core", &self.core)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
