//! The consumer's synchronous face.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use ringway_wire::request::{FetchRequest, Reply};
use ringway_wire::{Offset, PartitionIndex, TopicPartition};

use crate::admin::{LeaderCall, ListOffsets};
use crate::batch::Batch;
use crate::builder::{ConsumerBuilder, StartAt};
use crate::core::Token;
use crate::core::fetch::{Action, Answer, Fetcher, Opener};
use crate::core::outbox::Submission;
use crate::error::{ConsumeError, RequestError};
use crate::limits::LOOK_PAUSE;
use crate::sync::Client;
use crate::sync::connection::Outcome;
use crate::sync::link::Link;
use crate::typed::{Bytes, Readable, TypedBatch};

impl ConsumerBuilder<Client> {
    /// Builds the consumer; it reads nothing until partitions are assigned.
    #[must_use]
    pub fn build(self) -> Consumer {
        self.start()
    }

    /// Builds a consumer of values of a type; else like [`ConsumerBuilder::build`].
    #[must_use]
    pub fn build_typed<T: Readable>(self) -> Consumer<T> {
        self.start()
    }

    fn start<T>(self) -> Consumer<T> {
        let settings = self.settings();
        Consumer {
            core: Fetcher::new(settings),
            opener: Opener::default(),
            link: self.client.link(),
            fetch_wait: settings.fetch_wait,
            metadata_version: 0,
            looked_at: Instant::now(),
            values: PhantomData,
        }
    }
}

/// Reads partitions from chosen places on. Fetches ahead whenever it is polled, and every call that
/// gives a batch polls.
///
/// A `Consumer` reads values as bytes. A `Consumer<T>` reads archives of a type, checked and in
/// place, by [`ConsumerBuilder::build_typed`]; it gives each batch as a [`TypedBatch`].
pub struct Consumer<T = Bytes> {
    core: Fetcher,
    opener: Opener,
    link: Link,
    fetch_wait: Duration,
    /// The metadata that the core knows.
    metadata_version: u64,
    /// When the sockets were looked at last.
    looked_at: Instant,
    values: PhantomData<fn() -> T>,
}

impl<T> Consumer<T> {
    /// Reads partitions of a topic beside those assigned before; without `partitions`, all of
    /// them and, from their starts, those that are added later. A partition that is assigned
    /// already starts again at the given place. Waits for the broker's answers; nothing changes if
    /// it fails.
    ///
    /// # Errors
    /// [`ConsumeError::Request`]: no such topic or partition, or no broker answered.
    pub fn assign(
        &mut self,
        topic: &str,
        partitions: Option<&[PartitionIndex]>,
        from: StartAt,
    ) -> Result<(), ConsumeError> {
        let last = partitions.and_then(|chosen| chosen.iter().max().copied());
        let view = self.link.topic_with(topic, last)?;
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
            starts.push((at, self.resolve(topic, partition, from)?));
        }
        for (at, offset) in starts {
            self.core.assign(&view, at.partition, offset);
        }
        if partitions.is_none() {
            self.core.follow(&view.name);
        }
        self.poll();
        Ok(())
    }

    /// The offset of a place.
    fn resolve(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        at: StartAt,
    ) -> Result<Offset, RequestError> {
        let at = match at.known() {
            Ok(offset) => return Ok(offset),
            Err(at) => at,
        };
        let call = ListOffsets {
            topic,
            partition,
            at,
        };
        let make = |to| call.request(to);
        let reply = self
            .link
            .call_leader(|| call.what(), topic, partition, make)?;
        Ok(call.read(reply)?.offset)
    }

    /// Stops reading a topic.
    pub fn unassign(&mut self, topic: &str) {
        self.core.unassign(topic);
    }

    /// Goes on elsewhere in a partition; also after an error has stopped it. Waits for the broker's
    /// answer unless `to` is an offset; nothing changes if it fails.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssignedHere`] and [`ConsumeError::Request`].
    pub fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        if self.position(topic, partition).is_none() {
            return Err(ConsumeError::NotAssignedHere {
                topic: topic.to_owned(),
                partition,
            });
        }
        let offset = self.resolve(topic, partition, to)?;
        self.core.seek(topic, partition, offset);
        self.poll();
        Ok(())
    }

    /// Sends fetches that are due and takes what came, without waiting. Whether there was anything
    /// to do. [`Consumer::try_next_batch`] polls by itself.
    pub fn poll(&mut self) -> bool {
        self.turn(Instant::now())
    }

    fn try_next<B>(
        &mut self,
        open: impl Fn(Batch) -> Result<B, ConsumeError>,
    ) -> Result<Option<B>, ConsumeError> {
        let now = Instant::now();
        let mut turned = now >= self.looked_at + LOOK_PAUSE;
        if turned {
            self.turn(now);
        }
        loop {
            if let Some(taken) = self.core.take() {
                let parcel = taken?;
                // What was handed out has made room.
                self.pump(now);
                let opened = self.opener.open(&parcel);
                let batch = match opened {
                    Ok(batch) => batch,
                    Err(why) => return Err(self.core.reject(&parcel, &why)),
                };
                let opened = open(batch).inspect_err(|_| self.core.put_back(&parcel));
                return opened.map(Some);
            }
            if turned {
                break;
            }
            self.turn(now);
            turned = true;
        }
        match self.core.in_vain() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    fn next_within<B>(
        &mut self,
        time: Duration,
        open: impl Fn(Batch) -> Result<B, ConsumeError>,
    ) -> Result<Option<B>, ConsumeError> {
        let begun = Instant::now();
        loop {
            let batch = self.try_next(&open)?;
            if batch.is_some() || begun.elapsed() >= time {
                return Ok(batch);
            }
            self.link.rest(false);
        }
    }

    /// The offset that the partition's next batch starts at; `None` if it isn't assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        self.core.position(topic, partition)
    }

    /// What is assigned: topic, partition and position.
    #[must_use]
    pub fn assignment(&self) -> Vec<(String, PartitionIndex, Offset)> {
        let all = self.core.positions();
        all.map(|(topic, partition, offset)| (topic.to_string(), partition, offset))
            .collect()
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.looked_at = now;
        let mut busy = self.link.turn(now);
        while let Some((token, outcome)) = self.link.next_event() {
            busy = true;
            let answer = match outcome {
                Outcome::Replied(Reply::Fetch(reply), data) => {
                    let topic = self.core.topic_of(token);
                    self.link.note_epoch(topic, reply.topic_epoch);
                    Answer::Reply(reply, data)
                }
                Outcome::Replied(..) | Outcome::Written => {
                    unreachable!("fetches have replies of their kind")
                }
                Outcome::Lost(_) => Answer::Lost,
            };
            let random = self.link.random();
            self.core.answer(token, answer, now, random);
        }
        self.update_topics();
        busy | self.pump(now)
    }

    /// Carries out what the core asks for.
    fn pump(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(action) = self.core.poll(now) {
            busy = true;
            match action {
                Action::Refresh(name) => {
                    self.link.metadata().doubt(&name);
                }
                Action::Fetch { token, request } => self.fetch(token, request, now),
            }
        }
        busy
    }

    fn fetch(&mut self, token: Token, request: FetchRequest, now: Instant) {
        let of = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let submission = Submission {
            request: request.into(),
            data: None,
            who: token,
            deadline: self.link.request_deadline(now, self.fetch_wait),
            answered: true,
        };
        if !self.link.submit(of, submission) {
            let random = self.link.random();
            self.core.answer(token, Answer::Lost, now, random);
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
            let view = self.link.metadata().topic(&name);
            self.core.update_topic(&name, view);
        }
    }
}

impl Consumer {
    /// The next batch if one is there, of each partition in turn. Never waits. Lost connections
    /// and changes of leaders are dealt with inside.
    ///
    /// # Errors
    /// [`ConsumeError`]: one partition stands still until a seek, the others go on.
    pub fn try_next_batch(&mut self) -> Result<Option<Batch>, ConsumeError> {
        self.try_next(Ok)
    }

    /// The next batch, if one comes within a time; polls meanwhile.
    ///
    /// # Errors
    /// Those of [`Consumer::try_next_batch`].
    pub fn next_batch_within(&mut self, time: Duration) -> Result<Option<Batch>, ConsumeError> {
        self.next_within(time, Ok)
    }

    /// The next batch, of each partition in turn; polls until there is one.
    ///
    /// # Errors
    /// Those of [`Consumer::try_next_batch`].
    pub fn next_batch(&mut self) -> Result<Batch, ConsumeError> {
        loop {
            if let Some(batch) = self.next_batch_within(Duration::MAX)? {
                return Ok(batch);
            }
        }
    }
}

impl<T: Readable> Consumer<T> {
    /// The next batch if one is there, with every value checked; else like
    /// [`Consumer::try_next_batch`] of bytes.
    ///
    /// # Errors
    /// Those of [`Consumer::try_next_batch`] of bytes, [`ConsumeError::WrongLayout`] and
    /// [`ConsumeError::WrongValue`].
    pub fn try_next_batch(&mut self) -> Result<Option<TypedBatch<T>>, ConsumeError> {
        self.try_next(TypedBatch::open)
    }

    /// The next batch, if one comes within a time; polls meanwhile.
    ///
    /// # Errors
    /// Those of [`Consumer::try_next_batch`].
    pub fn next_batch_within(
        &mut self,
        time: Duration,
    ) -> Result<Option<TypedBatch<T>>, ConsumeError> {
        self.next_within(time, TypedBatch::open)
    }

    /// The next batch; polls until there is one.
    ///
    /// # Errors
    /// Those of [`Consumer::try_next_batch`].
    pub fn next_batch(&mut self) -> Result<TypedBatch<T>, ConsumeError> {
        loop {
            if let Some(batch) = self.next_batch_within(Duration::MAX)? {
                return Ok(batch);
            }
        }
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("core", &self.core)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
