//! A producer's part of one partition: records gather in batches, batches leave in order, and what
//! failed leaves again in that order before anything newer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_wire::batch::{BatchBuilder, BatchBytes, BatchFull, Codec, ProducerStamp, RecordRef};
use ringway_wire::limits::ENTRY_BYTES;
use ringway_wire::{ErrorCode, Fault, Sequence, TopicPartition};

use crate::core::backoff::Backoff;
use crate::core::delivery::{BatchOutcome, Delivered};
use crate::core::faults::metadata_in_doubt;
use crate::core::producer::ledger::Ledger;
use crate::core::producer::{Answer, Identity, Settings};
use crate::error::ProduceError;

/// A batch that still takes records, or waits to be sealed.
#[derive(Debug)]
struct Building {
    batch: u64,
    builder: BatchBuilder,
    outcome: Arc<BatchOutcome>,
    started: Instant,
    charged: usize,
}

/// A sealed batch. Its bytes and sequence never change again.
#[derive(Debug)]
struct Flight {
    batch: u64,
    /// Counts the lane's sealed batches.
    ordinal: u64,
    bytes: Arc<BatchBytes>,
    records: u32,
    outcome: Arc<BatchOutcome>,
    started: Instant,
    charged: usize,
    /// No answer to the last sending yet.
    on_wire: bool,
    /// It was sent with nothing before it under way: a gap in sequences isn't another's fault.
    alone: bool,
    /// Some sending of it had no clear answer.
    maybe_written: bool,
    /// Its delivery time is over; only the answer is awaited.
    abandoned: bool,
}

impl Building {
    fn resolve(&self, result: Result<Delivered, ProduceError>) {
        self.outcome
            .resolve(self.builder.record_count() as u32, result);
    }
}

impl Flight {
    fn resolve(&self, result: Result<Delivered, ProduceError>) {
        self.outcome.resolve(self.records, result);
    }
}

/// From this batch on, sequences don't connect to what the broker has.
#[derive(Debug)]
struct Gap {
    batch: u64,
    cause: Arc<ProduceError>,
}

/// What a lane wants now.
#[derive(Debug)]
pub(super) enum Step {
    /// To send this batch.
    Send {
        batch: u64,
        bytes: Arc<BatchBytes>,
        timeout: Duration,
    },
    /// A producer id other than the one it had.
    Identity,
    /// Nothing before [`Lane::deadline`] or an answer.
    Wait,
}

/// What pushing a record did.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) batch: u64,
    pub(super) index: u32,
    pub(super) outcome: Arc<BatchOutcome>,
    /// The lane may have something to send or a new deadline.
    pub(super) urgent: bool,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    pub(super) topic_partition: TopicPartition,
    /// What the next batches are compressed with.
    pub(super) codec: Codec,
    identity: Option<Identity>,
    /// The identity that a gap made useless here.
    burnt: Option<Identity>,
    next_sequence: Sequence,
    /// Batches sealed so far.
    sealed: u64,
    building: VecDeque<Building>,
    /// Sealed before, to be sent again; older than everything in `building`.
    again: VecDeque<Flight>,
    /// Under way; older than everything in `again`.
    flying: VecDeque<Flight>,
    /// Something failed: nothing leaves until all that is under way was answered.
    draining: bool,
    gap: Option<Gap>,
    backoff: Backoff,
    resume_at: Option<Instant>,
    last_failure: Option<Arc<str>>,
    /// Whether the lane is in the producer's list of those to look at.
    pub(super) queued: bool,
    /// When the producer's timer looks at the lane.
    pub(super) timer: Option<Instant>,
}

impl Lane {
    pub(super) fn new(name: Arc<str>, topic_partition: TopicPartition, codec: Codec) -> Self {
        Self {
            name,
            topic_partition,
            codec,
            identity: None,
            burnt: None,
            next_sequence: Sequence(0),
            sealed: 0,
            building: VecDeque::new(),
            again: VecDeque::new(),
            flying: VecDeque::new(),
            draining: false,
            gap: None,
            backoff: Backoff::default(),
            resume_at: None,
            last_failure: None,
            queued: false,
            timer: None,
        }
    }

    /// The batch that would take the record, unless a new one has to be begun for it.
    pub(super) fn open_batch(&self, record: &RecordRef<'_>, settings: &Settings) -> Option<u64> {
        let open = self.building.back()?;
        let bytes = open.builder.batch_bytes() + charge(record);
        let fits = !full(&open.builder, settings) && bytes <= settings.limits.bytes_max;
        fits.then_some(open.batch)
    }

    /// Whether batches carried sequences from here.
    pub(super) const fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Adds a record to the open batch, or to a new one when that is full.
    pub(super) fn push(
        &mut self,
        record: &RecordRef<'_>,
        now: Instant,
        settings: &Settings,
        ledger: &mut Ledger,
    ) -> Result<Pushed, BatchFull> {
        let mut urgent = false;
        let fits = match self.building.back_mut() {
            Some(open) => match open.builder.push(record) {
                Ok(()) => true,
                Err(BatchFull::Full) => false,
                Err(too_large) => return Err(too_large),
            },
            None => false,
        };
        if !fits {
            let mut builder = ledger.builder(settings);
            if let Err(too_large) = builder.push(record) {
                ledger.recycle(builder);
                return Err(too_large);
            }
            urgent = true;
            self.building.push_back(Building {
                batch: ledger.next_batch(),
                builder,
                outcome: ledger.outcome(&self.name, self.topic_partition.partition),
                started: now,
                charged: 0,
            });
        }
        let open = self.building.back_mut().expect("a batch was opened");
        let charge = charge(record);
        open.charged += charge;
        ledger.charge(charge);
        Ok(Pushed {
            batch: open.batch,
            index: open.builder.record_count() as u32 - 1,
            outcome: Arc::clone(&open.outcome),
            urgent: urgent || full(&open.builder, settings),
        })
    }

    /// What to do now; to be called until it waits.
    pub(super) fn step(
        &mut self,
        now: Instant,
        settings: &Settings,
        identity: Option<Identity>,
        flush_below: u64,
        ledger: &mut Ledger,
    ) -> Step {
        if self.draining || !self.has_room(settings) {
            return Step::Wait;
        }
        if self.resume_at.is_some_and(|at| now < at) {
            return Step::Wait;
        }
        self.resume_at = None;
        if let Some(flight) = self.again.pop_front() {
            return self.launch(flight, now, settings);
        }
        if self.gap.is_some() {
            if !self.flying.is_empty() {
                return Step::Wait;
            }
            self.gap = None;
            self.burnt = self.identity.take().or(self.burnt);
            self.next_sequence = Sequence(0);
        }
        if self
            .due_at(settings, flush_below)
            .is_none_or(|due| now < due)
        {
            return Step::Wait;
        }
        if settings.idempotent && self.identity.is_none() {
            match identity {
                Some(fresh) if Some(fresh) != self.burnt => self.identity = Some(fresh),
                _ => return Step::Identity,
            }
        }
        let flight = self.seal(ledger);
        self.launch(flight, now, settings)
    }

    /// Whether one more batch may be under way. What counts is the distance to the oldest without
    /// an answer, whatever was answered in between: the broker must still remember that one when
    /// it has to be repeated.
    fn has_room(&self, settings: &Settings) -> bool {
        let next = self
            .again
            .front()
            .map_or(self.sealed, |flight| flight.ordinal);
        let oldest = self.flying.front().map_or(next, |flight| flight.ordinal);
        next - oldest < settings.in_flight as u64
    }

    /// When the oldest batch being built is due to leave.
    fn due_at(&self, settings: &Settings, flush_below: u64) -> Option<Instant> {
        let front = self.building.front()?;
        let due =
            self.building.len() > 1 || front.batch < flush_below || full(&front.builder, settings);
        Some(if due {
            front.started
        } else {
            front.started + settings.linger
        })
    }

    fn seal(&mut self, ledger: &mut Ledger) -> Flight {
        let mut front = self.building.pop_front().expect("a batch is due");
        let identity = self.identity.unwrap_or_default();
        let stamp = ProducerStamp {
            id: identity.id,
            epoch: identity.epoch,
            first_sequence: self.next_sequence,
        };
        let sealed = front
            .builder
            .seal_with(stamp, self.codec, ledger.compressor())
            .expect("a batch begins with a record");
        if self.identity.is_some() {
            self.next_sequence = self.next_sequence.plus(sealed.record_count);
        }
        ledger.recycle(front.builder);
        self.sealed += 1;
        Flight {
            batch: front.batch,
            ordinal: self.sealed - 1,
            bytes: Arc::new(sealed.bytes),
            records: sealed.record_count,
            outcome: front.outcome,
            started: front.started,
            charged: front.charged,
            on_wire: false,
            alone: false,
            maybe_written: false,
            abandoned: false,
        }
    }

    fn launch(&mut self, mut flight: Flight, now: Instant, settings: &Settings) -> Step {
        flight.on_wire = true;
        flight.alone = self.flying.is_empty();
        let left = (flight.started + settings.delivery_timeout).saturating_duration_since(now);
        let (batch, bytes) = (flight.batch, Arc::clone(&flight.bytes));
        self.flying.push_back(flight);
        Step::Send {
            batch,
            bytes,
            timeout: left,
        }
    }

    /// Whether a sending of this batch has no answer yet.
    pub(super) fn awaits(&self, batch: u64) -> bool {
        let mut flying = self.flying.iter();
        flying.any(|each| each.batch == batch && each.on_wire)
    }

    /// Takes what became of a sending; true when the metadata is in doubt.
    pub(super) fn answer(
        &mut self,
        batch: u64,
        answer: Answer,
        now: Instant,
        random: u64,
        settings: &Settings,
        ledger: &mut Ledger,
    ) -> bool {
        let found = self
            .flying
            .iter()
            .position(|each| each.batch == batch && each.on_wire);
        let Some(place) = found else { return false };
        let doubt = match answer {
            Answer::Written => self.delivered(place, None, ledger),
            Answer::Reply(mut reply) => match reply.fault.take() {
                None => {
                    let delivered = Delivered {
                        topic_partition: self.topic_partition,
                        partition: self.topic_partition.partition,
                        offset: Some(reply.base_offset),
                        append_time_us: reply.append_time_us,
                        durability: Some(reply.durability),
                        stages: reply.stages,
                    };
                    self.delivered(place, Some(delivered), ledger)
                }
                Some(fault) => self.refused(place, fault, settings, ledger),
            },
            Answer::Lost(lost) => {
                self.flying[place].maybe_written |= lost.sent && !settings.written_is_delivered();
                self.repeat(place, lost.to_string().into())
            }
            Answer::NoLeader => self.repeat(place, "no broker leads the partition".into()),
        };
        self.settle(now, random, ledger);
        doubt
    }

    fn delivered(&mut self, place: usize, to: Option<Delivered>, ledger: &mut Ledger) -> bool {
        let flight = self.flying.remove(place).expect("the place was just found");
        flight.resolve(Ok(to.unwrap_or(Delivered {
            topic_partition: self.topic_partition,
            partition: self.topic_partition.partition,
            offset: None,
            append_time_us: 0,
            durability: None,
            stages: None,
        })));
        ledger.free(flight.charged);
        self.backoff.reset();
        self.last_failure = None;
        false
    }

    fn refused(
        &mut self,
        place: usize,
        fault: Fault,
        settings: &Settings,
        ledger: &mut Ledger,
    ) -> bool {
        let alone = self.flying[place].alone;
        match fault.code {
            // The batch before failed, and with it the broker's idea of what comes next: a
            // producer whose very first batch failed isn't even known.
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer if !alone => {
                self.flying[place].on_wire = false;
                self.draining = true;
                return false;
            }
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => {
                return self.repeat(place, fault.to_string().into());
            }
            code if code.retriable() => {
                self.flying[place].maybe_written |= code == ErrorCode::TimedOut;
                self.repeat(place, fault.to_string().into());
                return metadata_in_doubt(code);
            }
            _ => {}
        }
        let appended = fault.code == ErrorCode::DuplicateSequence;
        let flight = self.flying.remove(place).expect("the place was just found");
        let error = self.refusal(fault);
        flight.resolve(Err(error.clone()));
        ledger.free(flight.charged);
        if !appended && settings.idempotent {
            self.break_off(flight.batch, error);
        }
        false
    }

    fn refusal(&self, fault: Fault) -> ProduceError {
        let (topic, partition) = (Arc::clone(&self.name), self.topic_partition.partition);
        ProduceError::Refused {
            topic,
            partition,
            fault,
        }
    }

    /// Sends the batch again once everything under way is answered.
    fn repeat(&mut self, place: usize, why: Arc<str>) -> bool {
        self.flying[place].on_wire = false;
        self.draining = true;
        self.last_failure = Some(why);
        true
    }

    /// Nothing behind `batch` can connect to it any more.
    fn break_off(&mut self, batch: u64, cause: ProduceError) {
        self.draining = true;
        if self.gap.as_ref().is_none_or(|gap| batch < gap.batch) {
            self.gap = Some(Gap {
                batch,
                cause: Arc::new(cause),
            });
        }
    }

    /// Once everything under way is answered: what has to go again stands ready, in order.
    fn settle(&mut self, now: Instant, random: u64, ledger: &mut Ledger) {
        if !self.draining || self.flying.iter().any(|each| each.on_wire) {
            return;
        }
        self.draining = false;
        while let Some(flight) = self.flying.pop_back() {
            self.again.push_front(flight);
        }
        self.give_up_behind_gap(ledger);
        if !self.again.is_empty() {
            self.resume_at = Some(now + self.backoff.next(random));
        }
    }

    fn give_up_behind_gap(&mut self, ledger: &mut Ledger) {
        let gap = self.gap.as_ref();
        let (topic, partition) = (&self.name, self.topic_partition.partition);
        self.again.retain(|flight| {
            let behind = gap.filter(|gap| flight.batch > gap.batch);
            if let Some(gap) = behind {
                flight.resolve(Err(ProduceError::Behind {
                    topic: Arc::clone(topic),
                    partition,
                    maybe_written: flight.maybe_written,
                    cause: Arc::clone(&gap.cause),
                }));
            }
            let gone = behind.is_some() || flight.abandoned;
            if gone {
                ledger.free(flight.charged);
            }
            !gone
        });
    }

    /// Gives up what is older than the delivery time-out.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        random: u64,
        settings: &Settings,
        ledger: &mut Ledger,
    ) {
        let over = |started: Instant| now >= started + settings.delivery_timeout;
        while let Some(front) = pop_if(&mut self.building, |front| over(front.started)) {
            front.resolve(Err(self.timed_out(settings, false)));
            ledger.free(front.charged);
            ledger.recycle(front.builder);
        }
        let mut broken = None;
        while let Some(front) = pop_if(&mut self.again, |front| over(front.started)) {
            let error = self.timed_out(settings, front.maybe_written);
            front.resolve(Err(error.clone()));
            ledger.free(front.charged);
            broken = broken.or(Some((front.batch, error)));
        }
        for place in 0..self.flying.len() {
            let flight = &self.flying[place];
            if over(flight.started) && !flight.abandoned {
                let error = self.timed_out(settings, true);
                let flight = &mut self.flying[place];
                flight.resolve(Err(error.clone()));
                flight.abandoned = true;
                broken = Some((flight.batch, error))
                    .filter(|_| broken.is_none())
                    .or(broken);
            }
        }
        if let Some((batch, error)) = broken
            && settings.idempotent
        {
            self.break_off(batch, error);
            self.settle(now, random, ledger);
        }
    }

    fn timed_out(&self, settings: &Settings, maybe_written: bool) -> ProduceError {
        ProduceError::TimedOut {
            topic: Arc::clone(&self.name),
            partition: self.topic_partition.partition,
            within: settings.delivery_timeout,
            maybe_written,
            last: self.last_failure.clone(),
        }
    }

    /// When the lane, having nothing to do at `now`, has to be looked at again if nothing happens.
    pub(super) fn deadline(
        &self,
        now: Instant,
        settings: &Settings,
        flush_below: u64,
    ) -> Option<Instant> {
        let oldest = [
            self.flying
                .iter()
                .find(|each| !each.abandoned)
                .map(|each| each.started),
            self.again.front().map(|each| each.started),
            self.building.front().map(|each| each.started),
        ];
        let expiry = oldest.into_iter().flatten().min()? + settings.delivery_timeout;
        let room = !self.draining && self.has_room(settings);
        let next = match self.resume_at {
            Some(at) => Some(at),
            None if room && self.again.is_empty() => self.due_at(settings, flush_below),
            None => None,
        };
        // What is due already waits for something else, which will make itself heard.
        let next = next.filter(|&next| next > now);
        Some(next.map_or(expiry, |next| next.min(expiry)))
    }

    /// Gives up everything, each batch with the error made for it.
    pub(super) fn fail(&mut self, error: &ProduceError, ledger: &mut Ledger) {
        let sealed = self.flying.drain(..).chain(self.again.drain(..));
        for flight in sealed {
            flight.resolve(Err(error.clone()));
            ledger.free(flight.charged);
        }
        for building in self.building.drain(..) {
            building.resolve(Err(error.clone()));
            ledger.free(building.charged);
            ledger.recycle(building.builder);
        }
        self.draining = false;
    }

    /// The outcomes of all batches that are not resolved yet.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Arc<BatchOutcome>> {
        let sealed = self
            .flying
            .iter()
            .chain(&self.again)
            .map(|each| &each.outcome);
        sealed.chain(self.building.iter().map(|each| &each.outcome))
    }
}

/// Bytes that a record takes of the producer's buffer.
pub(super) fn charge(record: &RecordRef<'_>) -> usize {
    record.blob_bytes() + ENTRY_BYTES
}

/// The first item, if it is one to take.
fn pop_if<T>(queue: &mut VecDeque<T>, taken: impl FnOnce(&T) -> bool) -> Option<T> {
    queue
        .front()
        .is_some_and(taken)
        .then(|| queue.pop_front())?
}

fn full(builder: &BatchBuilder, settings: &Settings) -> bool {
    builder.record_count() >= settings.limits.records_max
        || builder.batch_bytes() >= settings.limits.bytes_max
}
