//! A data shard: one thread, one core, one ring, the partitions that it owns, and a loop that fits
//! on one page. Decisions are the engine's; everything here carries something out.

pub(crate) mod clock;
mod dispatch;
mod follow;
mod mesh;
pub(crate) mod net;
mod notes;
pub(crate) mod ring;
mod setup;
mod watchdog;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use ringway_engine::device::{Done, Op, OpId};
use ringway_engine::log::Slot;
use ringway_engine::shard::{Effect, Event, PartitionConfig};
use ringway_engine::time::Now;
use ringway_wire::TopicPartition;

use crate::config::Idle;
use crate::data_dir::DataDir;
use crate::device::{After, Disk};
use crate::flight::{Event as Flown, JobKind, Lap, Step};
use crate::housekeeper::{HousekeeperProxy, Job};
use crate::metrics::ShardMetrics;
use crate::shard_proxy::{ShardInbox, ToController, ToShard};
use dispatch::Dispatch;
use mesh::Message;
pub use mesh::{Mesh, mesh};
pub use net::NetworkLimits;
use net::{ConnectionId, Network, Verdict};
use ring::{Completion, Owner, Ring, Role, Wait};
pub use ring::{RingCounters, RingError};
pub use setup::{Recovered, ShardSetup, StartError, start};
pub use watchdog::{Pulse, Watchdog};

/// A turn longer than this is counted: somebody's tail latency.
const SLOW_TURN_NS: u64 = 5_000_000;
/// How long a shard that has something for a full queue sleeps before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// How long the last requests of other shards may take, replies at the end, and closing after it.
const LAST_REQUESTS_MAX_NS: u64 = 2_000_000_000;
const LAST_REPLIES_MAX_NS: u64 = 3_000_000_000;
const LAST_CLOSING_MAX_NS: u64 = 1_000_000_000;

/// How far a shard is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No more requests are read here, but other shards may still forward some.
    Stopping {
        since_ns: u64,
    },
    /// Nothing more is accepted; what was is being made durable.
    Draining,
    /// All is durable; the last replies are on their way.
    Drained {
        since_ns: u64,
    },
    /// Connections are being closed.
    Closing {
        since_ns: u64,
    },
}

/// See the module.
#[derive(Debug)]
struct Shard {
    dispatch: Dispatch,
    network: Network,
    disk: Disk,
    ring: Ring,
    inbox: ShardInbox,
    housekeeper: HousekeeperProxy,
    data_dir: Arc<DataDir>,
    recovered: Arc<Recovered>,
    /// The partitions handed to the engine.
    owned: BTreeMap<TopicPartition, PartitionConfig>,
    checkpoint_slot: Slot,
    /// Jobs that the housekeeper's queue had no room for.
    jobs: VecDeque<(OpId, Job)>,
    /// What follows from jobs when they are done, by the operation.
    after: HashMap<OpId, After>,
    /// What the controller's queue had no room for.
    reports: VecDeque<ToController>,
    completions: Vec<Completion>,
    idle: Idle,
    phase: Phase,
    /// Other shards that have said that no more requests come from them.
    last_requests: usize,
    all_open_told: bool,
    /// Something happened after the engine's turn.
    again: bool,
    pulse: Arc<Pulse>,
    metrics: Arc<ShardMetrics>,
}

impl Shard {
    /// Turns until the shard is stopped.
    ///
    /// # Errors
    /// What makes it impossible to go on.
    fn run(&mut self) -> Result<(), String> {
        let bell = self.inbox.wake().as_raw_fd();
        self.listen_to_bell(bell);
        while !self.is_over() {
            let now = clock::now();
            self.dispatch.now = now;
            self.again = false;
            let mut lap = Lap::begin(&self.metrics.flight, now.mono_ns);
            self.network.begin_turn(now.mono_ns);
            self.take_messages(now)?;
            lap.next(&self.metrics.flight, Step::Completions, clock::mono_ns());
            self.reap(now);
            self.network
                .resume(&mut self.ring, &mut self.dispatch, now.mono_ns);
            // Read again, so that the checks and copies of this turn count as waiting.
            let turned = clock::now();
            lap.next(&self.metrics.flight, Step::Engine, turned.mono_ns);
            self.dispatch.machine.turn(turned);
            self.carry_out(turned);
            lap.next(&self.metrics.flight, Step::Sending, clock::mono_ns());
            self.network
                .flush(&mut self.ring, &mut self.dispatch, now.mono_ns);
            self.dispatch.mesh.flush();
            self.report();
            self.rest(now, &lap)
                .map_err(|error| format!("io_uring_enter failed: {error}"))?;
        }
        Ok(())
    }

    fn listen_to_bell(&mut self, bell: i32) {
        let owner = Owner {
            role: Role::Wake,
            id: 0,
        };
        self.ring.listen_to_bell(owner, bell);
    }

    /// Completions become events.
    fn reap(&mut self, now: Now) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            match completion.owner.role {
                Role::Wake if !completion.more => {
                    self.listen_to_bell(self.inbox.wake().as_raw_fd());
                }
                Role::Wake | Role::Cancel => {}
                Role::Open | Role::Disk => {
                    self.disk.complete(&mut self.ring, completion, now.mono_ns);
                }
                Role::Accept | Role::Receive | Role::Send => {
                    let (ring, requests) = (&mut self.ring, &mut self.dispatch);
                    self.network
                        .complete(ring, completion, requests, now.mono_ns);
                }
            }
        }
        self.completions = completions;
        self.take_done(now);
    }

    fn take_done(&mut self, now: Now) {
        while let Some(done) = self.disk.next_done() {
            self.again = true;
            self.dispatch.machine.apply(Event::Done(done), now);
        }
    }

    /// What other threads have sent.
    fn take_messages(&mut self, now: Now) -> Result<(), String> {
        while let Some(message) = self.inbox.take() {
            // A controller that is gone says so again and again.
            if matches!(message, ToShard::Stop) && self.phase != Phase::Serving {
                break;
            }
            self.hear(message, now)?;
        }
        while let Some(message) = self.dispatch.mesh.take() {
            self.hear_shard(message, now);
        }
        while let Some(finished) = self.housekeeper.take() {
            let done = finished.result.is_ok();
            self.metrics.prepared_segments.add(finished.tally.prepared);
            self.metrics.recycled_segments.add(finished.tally.recycled);
            self.metrics.zeroed_bytes.add(finished.tally.zeroed_bytes);
            self.metrics.flight.record(Flown::JobDone {
                id: finished.op.0,
                at_ns: now.mono_ns,
                failed: !done,
            });
            match self.after.remove(&finished.op) {
                Some(After::Named(file)) => self.disk.named(file, done),
                // A slot that may be torn is written again: the other one is whole.
                Some(After::Saved) if done => self.checkpoint_slot = self.checkpoint_slot.other(),
                _ => {}
            }
            let done = Done {
                op: finished.op,
                result: finished.result.map(Into::into),
            };
            self.dispatch.machine.apply(Event::Done(done), now);
        }
        Ok(())
    }

    fn hear(&mut self, message: ToShard, now: Now) -> Result<(), String> {
        match message {
            ToShard::Image(image) => self.follow_image(*image, now)?,
            ToShard::Deltas(deltas) => self.follow_deltas(&deltas, now)?,
            ToShard::Answer { token, reply } => self.network.reply(token, &reply, Vec::new()),
            ToShard::DeviceFailed { reason } => self.device_failed(reason, now),
            ToShard::Scrape(reply) => reply.send(self.status()),
            ToShard::Stop => {
                let since_ns = now.mono_ns;
                self.phase = Phase::Stopping { since_ns };
                self.network.drain(&mut self.ring);
                self.dispatch.mesh.broadcast(|| Message::LastRequest);
            }
        }
        Ok(())
    }

    fn hear_shard(&mut self, message: Message, now: Now) {
        match message {
            Message::Request {
                token,
                received_ns,
                request,
                data,
            } => {
                let verdict = self.dispatch.here(token, received_ns, &request, &data);
                if let Verdict::Now(reply) = verdict {
                    let frame = reply.to_frame(token.correlation, 0);
                    self.dispatch.reply_elsewhere(token, frame);
                }
            }
            Message::Reply { token, frame } => {
                self.dispatch.unanswered = self.dispatch.unanswered.saturating_sub(1);
                self.network.reply_frame(token, frame);
            }
            Message::Gone { source } => self.dispatch.machine.apply(Event::Gone { source }, now),
            Message::Connection(socket) => self.network.adopt(socket, now.mono_ns),
            Message::DeviceFailed { error } => self.device_failed(error.to_string(), now),
            Message::LastRequest => self.last_requests += 1,
        }
    }

    /// The engine's effects become submissions, replies and lines in the log.
    fn carry_out(&mut self, now: Now) {
        while let Some(effect) = self.dispatch.machine.next_effect() {
            match effect {
                Effect::Declare { file, log, name } => self.disk.declare(file, log, name),
                Effect::Device(id, op) => self.start_op(id, op, now),
                Effect::Reply { token, reply, data } => {
                    if ConnectionId::from_source(token.source).shard == self.dispatch.here {
                        self.network.reply(token, &reply, data);
                    } else {
                        let frame = notes::whole_frame(token, &reply, &data);
                        self.dispatch.reply_elsewhere(token, frame);
                    }
                }
                Effect::HangUp { source } => {
                    self.network.hang_up(source, &mut self.dispatch);
                }
                Effect::Note(note) => self.note(note, now),
            }
        }
        self.send_jobs();
        self.take_done(now);
    }

    fn start_op(&mut self, id: OpId, op: Op, now: Now) {
        if op.on_ring() {
            self.disk.submit(&mut self.ring, id, op, now.mono_ns);
            return;
        }
        self.metrics.flight.record(Flown::JobSent {
            kind: job_kind(&op),
            id: id.0,
            at_ns: now.mono_ns,
        });
        let checkpoint = (self.dispatch.here, self.checkpoint_slot);
        match self.disk.hand_over(op, checkpoint) {
            Ok((job, after)) => {
                self.after.extend(after.map(|after| (id, after)));
                self.jobs.push_back((id, job));
            }
            Err(error) => self.disk.refuse(id, error),
        }
    }

    fn send_jobs(&mut self) {
        while let Some((id, job)) = self.jobs.pop_front() {
            if let Err(job) = self.housekeeper.send(id, job) {
                self.jobs.push_front((id, *job));
                return;
            }
        }
    }

    /// Whether there is nothing left to do before the thread ends. A shard that is stopped first
    /// takes what others still forward, makes all of it durable, waits for the replies to what it
    /// forwarded itself, sends them, and then closes its connections. Each step has its time.
    fn is_over(&mut self) -> bool {
        let now_ns = clock::mono_ns();
        let late = |since_ns: u64, most_ns: u64| now_ns > since_ns + most_ns;
        match self.phase {
            Phase::Serving | Phase::Draining => {}
            Phase::Stopping { since_ns } => {
                let last = self.last_requests >= self.dispatch.mesh.others();
                if last || late(since_ns, LAST_REQUESTS_MAX_NS) {
                    self.phase = Phase::Draining;
                    self.dispatch.machine.apply(Event::Drain, clock::now());
                }
            }
            Phase::Drained { since_ns } => {
                let sent = self.network.unsent_bytes() == 0
                    && !self.dispatch.mesh.is_waiting()
                    && self.dispatch.unanswered == 0;
                if sent || late(since_ns, LAST_REPLIES_MAX_NS) {
                    self.phase = Phase::Closing { since_ns: now_ns };
                    self.network.close_all(&mut self.dispatch);
                    self.network
                        .flush(&mut self.ring, &mut self.dispatch, now_ns);
                }
            }
            Phase::Closing { since_ns } => {
                return self.network.connections() == 0 || late(since_ns, LAST_CLOSING_MAX_NS);
            }
        }
        false
    }

    /// Submits what the turn has made, and sleeps until something happens, if nothing has.
    fn rest(&mut self, now: Now, lap: &Lap) -> std::io::Result<()> {
        let turn_ns = lap.end(&self.metrics.flight, clock::mono_ns());
        self.metrics.turns.add(1);
        self.metrics.turn.observe(turn_ns);
        if turn_ns > SLOW_TURN_NS {
            self.metrics.slow_turns.add(1);
            let shard = self.dispatch.here.0;
            self.metrics.flight.stalled(shard, turn_ns);
        }
        let wait = self.wait(now);
        if wait == Wait::No {
            self.pulse.awake();
            return self.ring.enter(Wait::No);
        }
        let wake = Arc::clone(self.inbox.wake());
        wake.announce_sleep();
        let nothing =
            self.inbox.is_empty() && self.dispatch.mesh.is_empty() && self.housekeeper.is_empty();
        let result = if nothing {
            self.metrics.parks.add(1);
            self.pulse.asleep();
            self.ring.enter(wait)
        } else {
            self.ring.enter(Wait::No)
        };
        wake.awake();
        self.pulse.awake();
        result
    }

    /// How long nothing has to be done unless something happens.
    fn wait(&self, now: Now) -> Wait {
        if self.idle == Idle::BusyPoll || self.again || self.network.is_busy() {
            return Wait::No;
        }
        let deadlines = [
            self.dispatch.machine.next_deadline_ns(),
            self.network.next_deadline_ns(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let until = deadline.map(|at| Duration::from_nanos(at.saturating_sub(now.mono_ns)));
        let blocked = !self.jobs.is_empty()
            || !self.reports.is_empty()
            || self.dispatch.mesh.is_waiting()
            || self.phase != Phase::Serving;
        match (until, blocked) {
            (Some(Duration::ZERO), _) => Wait::No,
            (Some(time), false) => Wait::AtMost(time),
            (Some(time), true) => Wait::AtMost(time.min(RETRY_AFTER)),
            (None, true) => Wait::AtMost(RETRY_AFTER),
            (None, false) => Wait::Forever,
        }
    }
}

/// What the flight recorder calls a job of the housekeeper's.
const fn job_kind(op: &Op) -> JobKind {
    match op {
        Op::Prepare { .. } => JobKind::Prepare,
        Op::Fill { .. } => JobKind::Fill,
        Op::Name { .. } => JobKind::Name,
        Op::SaveSide { .. } => JobKind::SaveSide,
        Op::LoadSide { .. } => JobKind::LoadSide,
        Op::SaveCheckpoint { .. } => JobKind::SaveCheckpoint,
        Op::Remove { .. } => JobKind::Remove,
        Op::RemovePartition { .. } => JobKind::RemovePartition,
        _ => JobKind::Other,
    }
}

#[cfg(test)]
mod tests;
