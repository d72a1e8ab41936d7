//! The producer: which partition a record goes to, what leaves when, and what became of it. Records
//! go in by `push`, answers by `answer`, and `poll` says what to do.

mod lane;
mod ledger;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_wire::batch::{BatchBytes, BatchFull, BatchLimits, Codec, RecordRef};
use ringway_wire::limits::HEADERS_BYTES_MAX;
use ringway_wire::request::{Acks, ProduceReply, ProduceRequest};
use ringway_wire::{
    MetadataEpoch, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition,
};

use crate::core::Token;
use crate::core::delivery::{Delivery, OnBatch};
use crate::core::mapping::Partitions;
use crate::core::metadata::TopicView;
use crate::core::partitioner::{Partitioning, Sticky, candidate};
use crate::core::producer::lane::{Lane, Step, charge};
use crate::core::producer::ledger::Ledger;
use crate::error::{ConnectionLost, ProduceError};

/// How a producer works.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) acks: Acks,
    pub(crate) linger: Duration,
    pub(crate) limits: BatchLimits,
    pub(crate) in_flight: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) buffer_bytes: usize,
    pub(crate) idempotent: bool,
    pub(crate) trace: bool,
    /// The layout of values that are archives; `None` for bytes.
    pub(crate) layout: Option<u64>,
    pub(crate) partitioning: Partitioning,
    /// Instead of each topic's own.
    pub(crate) codec: Option<Codec>,
}

impl Settings {
    /// Whether writing a batch to the socket is all that is waited for.
    pub(crate) fn written_is_delivered(&self) -> bool {
        self.acks == Acks::None
    }
}

/// The producer as the broker knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

/// A batch to be sent to whoever leads the partition.
#[derive(Clone, Debug)]
pub(crate) struct Transmit {
    pub(crate) token: Token,
    pub(crate) to: TopicPartition,
    pub(crate) bytes: Arc<BatchBytes>,
    /// Time that is left for its delivery.
    timeout: Duration,
    acks: Acks,
    trace: bool,
    /// Whether no reply comes, and its last byte's leaving is all that is waited for.
    pub(crate) written_is_delivered: bool,
}

impl Transmit {
    /// The request, to be answered within the time that is left, but no later than `timeout_max`.
    pub(crate) fn request(&self, timeout_max: Duration) -> ProduceRequest {
        let timeout = self.timeout.min(timeout_max);
        ProduceRequest {
            topic: self.to.topic,
            partition: self.to.partition,
            acks: self.acks,
            trace: self.trace,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Send a batch, and give its [`Answer`].
    Send(Transmit),
    /// Get a producer id and call [`Producer::set_identity`].
    GetIdentity,
    /// Ask for a topic's metadata again and call [`Producer::update_topic`].
    Refresh(Arc<str>),
}

/// What became of a sending.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The broker replied.
    Reply(ProduceReply),
    /// The last byte went to the socket, and with acks none that is all.
    Written,
    /// The connection is gone, or there never was one.
    Lost(ConnectionLost),
    /// Nobody is known to lead the partition.
    NoLeader,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum PushError {
    /// The topic is not known here: [`Producer::update_topic`] first.
    TopicNotKnown,
    /// A reply told of a newer epoch of the topic, in which the record may belong elsewhere:
    /// [`Producer::update_topic`] first, or [`Producer::make_do`] if that can't be had.
    TopicBehind(MetadataEpoch),
    /// The buffer is full.
    Full,
    /// It never will be.
    Never(ProduceError),
}

/// The error for a record whose headers can't be encoded.
pub(crate) fn headers_too_large(topic: &str, bytes: usize) -> ProduceError {
    ProduceError::TooLarge {
        topic: topic.into(),
        what: "a header",
        bytes,
        limit: HEADERS_BYTES_MAX,
    }
}

/// A record that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) delivery: Delivery,
    /// [`Producer::poll`] has something to say.
    pub(crate) urgent: bool,
}

#[derive(Debug)]
struct Topic {
    topic: TopicId,
    /// The lane of each partition that was used.
    lanes: Vec<Option<u32>>,
    partitions: Partitions,
    /// The epoch of what is known.
    epoch: MetadataEpoch,
    /// The newest epoch that a reply told of.
    heard: MetadataEpoch,
    /// Whether records wait for what is known to be as new as what was heard of.
    behind: bool,
    /// For records without a key.
    sticky: Sticky,
    /// For round-robin.
    turn: u64,
    /// What its batches are compressed with.
    codec: Codec,
}

impl Topic {
    /// A reply told of an epoch. Records wait for each newer one once.
    fn hear_of(&mut self, epoch: MetadataEpoch) {
        if epoch > self.heard {
            self.heard = epoch;
            self.behind = true;
        }
    }
}

/// How a record came to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    /// It sticks to the others of its batch.
    Sticky,
    /// It was the partition's turn.
    InTurn,
    /// By its key or by somebody's choice.
    Firmly,
}

/// All partitions that a producer sends to.
#[derive(Debug)]
pub(crate) struct Producer {
    settings: Settings,
    identity: Option<Identity>,
    /// Lanes that wait for a new identity; it was asked for if there are any.
    unnamed: Vec<u32>,
    topics: HashMap<Arc<str>, Topic>,
    lanes: Vec<Option<Lane>>,
    vacant: Vec<u32>,
    ready: VecDeque<u32>,
    timers: BTreeSet<(Instant, u32)>,
    doubts: VecDeque<Arc<str>>,
    ledger: Ledger,
    /// Batches below this number leave without waiting for linger.
    flush_below: u64,
}

impl Producer {
    pub(crate) fn new(
        settings: Settings,
        identity: Option<Identity>,
        on_batch: Option<OnBatch>,
    ) -> Self {
        Self {
            settings,
            identity,
            unnamed: Vec::new(),
            topics: HashMap::new(),
            lanes: Vec::new(),
            vacant: Vec::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            doubts: VecDeque::new(),
            ledger: Ledger::new(on_batch),
            flush_below: 0,
        }
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The topics that were made known.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// Whether a topic was made known that takes records.
    pub(crate) fn knows(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Takes a record for a topic; its partition is the one given, its key's, or the next in turn.
    pub(crate) fn push(
        &mut self,
        topic: &str,
        partition: Option<PartitionIndex>,
        record: &RecordRef<'_>,
        now: Instant,
    ) -> Result<Taken, PushError> {
        let bytes = charge(record);
        if bytes > self.settings.buffer_bytes {
            return Err(PushError::Never(ProduceError::TooLarge {
                topic: topic.into(),
                what: "a record",
                bytes,
                limit: self.settings.buffer_bytes,
            }));
        }
        if self.ledger.held_bytes() + bytes > self.settings.buffer_bytes {
            return Err(PushError::Full);
        }
        let (name, known) = self
            .topics
            .get_key_value(topic)
            .ok_or(PushError::TopicNotKnown)?;
        let place_is_known = partition.is_some_and(|given| known.partitions.is_active(given));
        if known.behind && !place_is_known {
            return Err(PushError::TopicBehind(known.heard));
        }
        let name = Arc::clone(name);
        let (partition, chosen) = match self.firmly(&name, known, partition, record)? {
            Some(partition) => (partition, Chosen::Firmly),
            None if self.settings.partitioning.is_by_key() => {
                (self.sticky(&name, record), Chosen::Sticky)
            }
            None => (known.partitions.active_at(known.turn), Chosen::InTurn),
        };
        let index = self.lane_of(&name, partition);
        let lane = self.lanes[index as usize]
            .as_mut()
            .expect("lanes in use are there");
        let pushed = lane
            .push(record, now, &self.settings, &mut self.ledger)
            .map_err(|full| push_error(full, topic))?;
        match (chosen, self.topics.get_mut(&name)) {
            (Chosen::Sticky, Some(topic)) => topic.sticky.went_into(pushed.batch),
            (Chosen::InTurn, Some(topic)) => topic.turn += 1,
            _ => {}
        }
        let urgent = pushed.urgent && self.look_at(index);
        Ok(Taken {
            delivery: Delivery::new(pushed.outcome, pushed.index),
            urgent,
        })
    }

    /// The partition that was given, or the one that follows from the record alone.
    fn firmly(
        &self,
        name: &Arc<str>,
        topic: &Topic,
        given: Option<PartitionIndex>,
        record: &RecordRef<'_>,
    ) -> Result<Option<PartitionIndex>, PushError> {
        let chosen = match (given, &self.settings.partitioning) {
            (Some(given), _) => given,
            (None, Partitioning::Own(own)) => {
                own.partition(&candidate(name, record), &topic.partitions)
            }
            (None, Partitioning::RoundRobin) => return Ok(None),
            (None, Partitioning::ByKey) => {
                return Ok(record.key.map(|key| topic.partitions.of_key(key)));
            }
        };
        check_partition(name, chosen, &topic.partitions)?;
        Ok(Some(chosen))
    }

    /// The partition for a record that goes where the others of its batch go.
    fn sticky(&mut self, name: &str, record: &RecordRef<'_>) -> PartitionIndex {
        let topic = self.topics.get_mut(name).expect("the topic was found");
        let current = topic.sticky.current().0 as usize;
        let lane = topic.lanes.get(current).copied().flatten();
        let lane = lane.and_then(|lane| self.lanes[lane as usize].as_ref());
        let open = lane.and_then(|lane| lane.open_batch(record, &self.settings));
        topic.sticky.choose(open, &topic.partitions)
    }

    /// The lane of a partition, made when it is first used.
    fn lane_of(&mut self, name: &Arc<str>, partition: PartitionIndex) -> u32 {
        let topic = self.topics.get_mut(name).expect("the topic was found");
        let slot = &mut topic.lanes[partition.0 as usize];
        if let Some(index) = *slot {
            return index;
        }
        let to = TopicPartition {
            topic: topic.topic,
            partition,
        };
        let lane = Some(Lane::new(Arc::clone(name), to, topic.codec));
        let index = match self.vacant.pop() {
            Some(index) => {
                self.lanes[index as usize] = lane;
                index
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() as u32 - 1
            }
        };
        *slot = Some(index);
        index
    }

    /// Puts a lane on the list of those to look at; true when it wasn't there.
    fn look_at(&mut self, index: u32) -> bool {
        match self.lanes[index as usize].as_mut() {
            Some(lane) if !lane.queued => {
                lane.queued = true;
                self.ready.push_back(index);
                true
            }
            _ => false,
        }
    }

    /// What to do now; to be called until there is nothing.
    pub(crate) fn poll(&mut self, now: Instant, random: u64) -> Option<Action> {
        if let Some(name) = self.doubts.pop_front() {
            return Some(Action::Refresh(name));
        }
        while let Some(&(at, index)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(lane) = self.lanes[index as usize].as_mut() {
                lane.timer = None;
                self.look_at(index);
            }
        }
        while let Some(index) = self.ready.pop_front() {
            if let Some(action) = self.poll_lane(index, now, random) {
                return Some(action);
            }
        }
        None
    }

    fn poll_lane(&mut self, index: u32, now: Instant, random: u64) -> Option<Action> {
        let lane = self.lanes[index as usize].as_mut()?;
        lane.queued = false;
        let (settings, ledger) = (&self.settings, &mut self.ledger);
        lane.expire(now, random, settings, ledger);
        let step = lane.step(now, settings, self.identity, self.flush_below, ledger);
        let to = lane.topic_partition;
        match step {
            Step::Send {
                batch,
                bytes,
                timeout,
            } => {
                self.look_at(index);
                let token = Token {
                    slot: index,
                    number: batch,
                };
                Some(Action::Send(Transmit {
                    token,
                    to,
                    bytes,
                    timeout,
                    acks: self.settings.acks,
                    trace: self.settings.trace,
                    written_is_delivered: self.settings.written_is_delivered(),
                }))
            }
            Step::Identity => {
                self.arm(index, now);
                let asked = !self.unnamed.is_empty();
                if !self.unnamed.contains(&index) {
                    self.unnamed.push(index);
                }
                (!asked).then_some(Action::GetIdentity)
            }
            Step::Wait => {
                self.arm(index, now);
                None
            }
        }
    }

    /// Sets the lane's timer, unless it is set to an earlier time.
    fn arm(&mut self, index: u32, now: Instant) {
        let Some(lane) = self.lanes[index as usize].as_mut() else {
            return;
        };
        let Some(at) = lane.deadline(now, &self.settings, self.flush_below) else {
            return;
        };
        if lane.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        if let Some(timer) = lane.timer.replace(at) {
            self.timers.remove(&(timer, index));
        }
        self.timers.insert((at, index));
    }

    /// When to poll again if nothing happens before; whoever polls all the time needs none.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The topic that a sending belongs to, if it is still known.
    pub(crate) fn topic_of(&self, token: Token) -> Option<TopicId> {
        let lane = self.lanes.get(token.slot as usize)?.as_ref()?;
        // A lane's place is used again when its topic is gone.
        lane.awaits(token.number)
            .then_some(lane.topic_partition.topic)
    }

    /// Takes what became of a sending. Answers to what was given up are not taken.
    pub(crate) fn answer(&mut self, token: Token, answer: Answer, now: Instant, random: u64) {
        let found = self
            .lanes
            .get_mut(token.slot as usize)
            .and_then(Option::as_mut)
            .filter(|lane| lane.awaits(token.number));
        let Some(lane) = found else { return };
        if let Answer::Reply(reply) = &answer
            && let Some(topic) = self.topics.get_mut(&lane.name)
        {
            topic.hear_of(reply.topic_epoch);
        }
        let (settings, ledger) = (&self.settings, &mut self.ledger);
        if lane.answer(token.number, answer, now, random, settings, ledger) {
            let name = Arc::clone(&lane.name);
            if !self.doubts.contains(&name) {
                self.doubts.push_back(name);
            }
        }
        self.look_at(token.slot);
    }

    /// Takes a new producer id for what is sent from here on.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
        for index in std::mem::take(&mut self.unnamed) {
            self.look_at(index);
        }
    }

    /// Takes what is known of a topic now. `None`: it doesn't exist. What was sent to partitions
    /// that are gone fails.
    pub(crate) fn update_topic(&mut self, name: &str, view: Option<&TopicView>, random: u64) {
        let known = self.topics.get(name).map(|topic| topic.topic);
        let now = view.map(|view| view.topic);
        if known.is_some() && known != now {
            let topic = self.topics.remove(name).expect("the topic is known");
            self.drop_lanes(
                topic.lanes,
                &ProduceError::UnknownTopic { topic: name.into() },
            );
        }
        // A topic in which nothing takes records is as good as none.
        let Some(view) = view else { return };
        let Some(active) = Partitions::of_topic(&view.partitions) else {
            return;
        };
        let partitions = view.partitions.len();
        let codec = self.settings.codec.unwrap_or(view.codec);
        let topic = self
            .topics
            .entry(Arc::clone(&view.name))
            .or_insert_with(|| Topic {
                topic: view.topic,
                lanes: Vec::new(),
                sticky: Sticky::new(random, &active),
                turn: random >> 1,
                partitions: active.clone(),
                epoch: view.epoch,
                heard: view.epoch,
                behind: false,
                codec,
            });
        topic.partitions = active;
        topic.epoch = view.epoch;
        topic.heard = topic.heard.max(view.epoch);
        topic.behind &= topic.epoch < topic.heard;
        topic.codec = codec;
        for &lane in topic.lanes.iter().flatten() {
            if let Some(lane) = self.lanes[lane as usize].as_mut() {
                lane.codec = codec;
            }
        }
        let gone = topic.lanes.split_off(partitions.min(topic.lanes.len()));
        topic.lanes.resize(partitions, None);
        for (place, lane) in gone.into_iter().enumerate() {
            let error = ProduceError::UnknownPartition {
                topic: name.into(),
                partition: PartitionIndex((partitions + place) as u32),
                partitions: partitions as u32,
            };
            self.drop_lanes(vec![lane], &error);
        }
    }

    /// Goes on with what is known of a topic although something newer was heard of.
    pub(crate) fn make_do(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.behind = false;
        }
    }

    fn drop_lanes(&mut self, lanes: Vec<Option<u32>>, error: &ProduceError) {
        for index in lanes.into_iter().flatten() {
            let Some(mut lane) = self.lanes[index as usize].take() else {
                continue;
            };
            lane.fail(error, &mut self.ledger);
            if let Some(timer) = lane.timer {
                self.timers.remove(&(timer, index));
            }
            if lane.queued {
                self.ready.retain(|&each| each != index);
            }
            self.unnamed.retain(|&each| each != index);
            // Sequences of this id don't start at 0 any more, should the partition come back.
            if lane.has_identity() {
                self.identity = None;
            }
            self.vacant.push(index);
        }
    }

    /// Makes everything pushed so far leave without waiting for linger.
    pub(crate) fn hasten(&mut self) {
        self.flush_below = self.ledger.above_all();
        for index in 0..self.lanes.len() as u32 {
            self.look_at(index);
        }
    }

    /// Hastens everything pushed so far, and gives a delivery of each batch that is not resolved.
    pub(crate) fn flush(&mut self) -> Vec<Delivery> {
        self.hasten();
        let outcomes = self.lanes.iter().flatten().flat_map(Lane::outcomes);
        outcomes
            .map(|each| Delivery::new(Arc::clone(each), 0))
            .collect()
    }

    /// Gives up everything that is not acknowledged.
    pub(crate) fn abort(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            let (topic, partition) = (Arc::clone(&lane.name), lane.topic_partition.partition);
            lane.fail(&ProduceError::Closed { topic, partition }, &mut self.ledger);
        }
    }

    /// Whether room was made in the buffer since the last call.
    pub(crate) const fn take_freed(&mut self) -> bool {
        self.ledger.take_freed()
    }

    /// Bytes of records that are not acknowledged or given up.
    #[cfg(test)]
    pub(crate) const fn held_bytes(&self) -> usize {
        self.ledger.held_bytes()
    }
}

/// Refuses a partition that isn't there or takes no records.
fn check_partition(
    topic: &Arc<str>,
    partition: PartitionIndex,
    partitions: &Partitions,
) -> Result<(), PushError> {
    if partitions.is_active(partition) {
        return Ok(());
    }
    let topic = Arc::clone(topic);
    Err(PushError::Never(if partition.0 < partitions.count() {
        ProduceError::Retired { topic, partition }
    } else {
        ProduceError::UnknownPartition {
            topic,
            partition,
            partitions: partitions.count(),
        }
    }))
}

fn push_error(full: BatchFull, topic: &str) -> PushError {
    match full {
        BatchFull::TooLarge { bytes, limit } => PushError::Never(ProduceError::TooLarge {
            topic: topic.into(),
            what: "a part of a record",
            bytes,
            limit,
        }),
        // A new batch takes any record that is not too large.
        BatchFull::Full => PushError::Full,
    }
}
