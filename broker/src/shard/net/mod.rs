//! A shard's side of the network: accepting, receiving, cutting into requests, sending replies; all
//! on the shard's ring, with bounded memory for every client.
//!
//! A shard accepts on its own port. On the shared port, shard 0 accepts for all and deals the
//! connections out in turn: an accept on every shard would wake one shard for each connection too,
//! but always the one that waited first, so that most connections would land there.

mod connection;
mod frames;
mod id;
mod limits;
mod listeners;
mod memory;
mod outbox;
mod refusal;
mod taking;
mod turns;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use ringway_engine::buffer::Slice;
use ringway_wire::request::{Reply, Request, RequestKind};
use ringway_wire::{ErrorCode, Fault, ShardId};

use crate::flight::Event as Flown;
use crate::metrics::ShardMetrics;
use crate::shard::clock;
use crate::shard::ring::{Completion, Memory, Owner, Ring, Role};
use connection::{Connection, Phase, Receiving};
pub(crate) use id::{ConnectionId, SHARDS_MAX};
pub use limits::NetworkLimits;
use listeners::Listeners;
pub(crate) use listeners::{Port, listeners};
pub(crate) use refusal::refused;
use ringway_engine::shard::Token;
use turns::Turns;

/// Bytes of a decoder above which a connection counts as one with a large frame on its way.
const LARGE_BYTES: usize = 64 << 10;
/// Deadlines are in seconds; looking for those that are over more often than this is for nothing.
const SWEEP_EVERY_NS: u64 = 20_000_000;

/// How a request will be answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// With this.
    Now(Reply),
    /// Later, by [`Network::reply`] or [`Network::reply_frame`].
    Later,
    /// Never: the client doesn't want an answer.
    Never,
}

/// Whoever answers requests.
pub(crate) trait Requests {
    /// Takes a request whose last byte came at `received_ns`.
    fn request(&mut self, token: Token, received_ns: u64, request: Request, data: &[u8])
    -> Verdict;

    /// Whether no more requests should come for now.
    fn is_congested(&self) -> bool;

    /// Nobody waits for the replies to a connection any more.
    fn gone(&mut self, source: u64);

    /// A connection came in on the shared port: here it is back, if it is this shard's turn.
    fn deal(&mut self, socket: OwnedFd) -> Option<OwnedFd>;
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Network {
    shard: ShardId,
    /// As they were configured.
    configured: NetworkLimits,
    /// As they are with the connections that are open.
    limits: NetworkLimits,
    metrics: Arc<ShardMetrics>,
    listeners: Listeners,
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    /// Connections to be looked at this turn: something to send, or something may go on.
    listed: Vec<ConnectionId>,
    /// Connections that stopped because the answering side was congested.
    congested: Vec<ConnectionId>,
    /// Connections with requests that wait for their turn.
    turns: Turns,
    /// When the shard's turn began, and the clock as it was read last.
    turn_ns: u64,
    clock_ns: u64,
    /// Requests that will be answered, of all connections.
    unanswered: usize,
    receive_bytes: usize,
    unsent_bytes: usize,
    /// When connections that don't take their replies are looked for again.
    relief_ns: u64,
    /// Waiting for receive memory, in their order.
    starved: VecDeque<ConnectionId>,
    /// The one that goes on although memory is short, and since when.
    elected: Option<(ConnectionId, u64)>,
    next_sweep_ns: Option<u64>,
    /// When the next sweep may be at the earliest: with thousands of connections each takes a while.
    sweep_from_ns: u64,
    /// No more requests are taken.
    draining: bool,
}

impl Network {
    /// A network without connections.
    pub(crate) fn new(
        shard: ShardId,
        limits: NetworkLimits,
        listeners: Listeners,
        metrics: Arc<ShardMetrics>,
    ) -> Self {
        Self {
            shard,
            configured: limits.clone(),
            limits,
            metrics,
            listeners,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            listed: Vec::new(),
            congested: Vec::new(),
            turns: Turns::default(),
            turn_ns: 0,
            clock_ns: 0,
            unanswered: 0,
            receive_bytes: 0,
            unsent_bytes: 0,
            relief_ns: 0,
            starved: VecDeque::new(),
            elected: None,
            next_sweep_ns: None,
            sweep_from_ns: 0,
            draining: false,
        }
    }

    /// Starts to accept.
    pub(crate) fn listen(&mut self, ring: &mut Ring) {
        self.listeners.accept(ring);
    }

    /// Takes a completion of accepting, receiving or sending.
    pub(crate) fn complete(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        requests: &mut impl Requests,
        now_ns: u64,
    ) {
        match completion.owner.role {
            Role::Accept => {
                let socket = self.listeners.accepted(completion, requests, now_ns);
                if let Some(socket) = socket {
                    self.adopt(socket, now_ns);
                }
            }
            Role::Receive => self.received(ring, completion, requests, now_ns),
            _ => self.sent(completion, requests),
        }
    }

    /// Takes a connection.
    pub(crate) fn adopt(&mut self, socket: OwnedFd, now_ns: u64) {
        if self.open >= self.limits.connections_max.min(id::SLOTS_MAX) || self.draining {
            self.metrics.connections_refused.add(1);
            return;
        }
        if let Err(error) = crate::sys::prepare_connection(socket.as_fd(), self.limits.send_max) {
            tracing::debug!(%error, "a new connection is gone already");
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = ConnectionId {
            shard: self.shard,
            slot,
            generation: place.generation,
        };
        let frame_bytes_max = self.limits.frame_bytes_max;
        let connection = Connection::new(id, socket, frame_bytes_max, now_ns);
        place.connection = Some(Box::new(connection));
        self.open += 1;
        self.limits = self.configured.shared_by(self.open);
        self.metrics.connections_accepted.add(1);
        self.metrics.flight.record(Flown::Connected {
            source: id.source(),
            at_ns: now_ns,
        });
        self.metrics.connections.set(self.open as u64);
        self.watch(id);
        self.list(id);
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.connection
            .as_deref_mut()
            .filter(|connection| connection.id == id)
    }

    /// Puts a connection on this turn's list.
    fn list(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id)
            && !connection.listed
        {
            connection.listed = true;
            self.listed.push(id);
        }
    }

    /// Sees to it that the connection's deadline is noticed.
    fn watch(&mut self, id: ConnectionId) {
        let limits = self.limits.clone();
        let deadline = self
            .connection(id)
            .and_then(|connection| connection.deadline(&limits));
        if let Some((at, _)) = deadline {
            self.sweep_at(at);
        }
    }

    /// Sweeps at that time, or soon after it.
    fn sweep_at(&mut self, at_ns: u64) {
        let at_ns = at_ns.max(self.sweep_from_ns);
        self.next_sweep_ns = Some(self.next_sweep_ns.map_or(at_ns, |next| next.min(at_ns)));
    }

    /// Makes the ring receive for a connection exactly as long as it may.
    fn stop_or_go_on(&mut self, ring: &mut Ring, id: ConnectionId) {
        let (limits, draining) = (self.limits.clone(), self.draining);
        let Some(connection) = self.connection(id) else {
            return;
        };
        let may = connection.receives(&limits) && !draining;
        match connection.receiving {
            Receiving::On(key) if !may => {
                ring.cancel(key);
                connection.receiving = Receiving::Stopping;
            }
            Receiving::Off if may => {
                let owner = Owner {
                    role: Role::Receive,
                    id: id.source(),
                };
                let key = ring.receive(owner, connection.socket.as_raw_fd());
                connection.receiving = Receiving::On(key);
            }
            _ => {}
        }
        if connection.decoder.held() > 0 {
            self.watch(id);
        }
    }

    /// Answers a request of one of this shard's connections.
    pub(crate) fn reply(&mut self, token: Token, reply: &Reply, data: Vec<Slice>) {
        let bytes: usize = data.iter().map(|slice| slice.len()).sum();
        if refusal::fault_of(reply).is_some() {
            self.metrics.requests_faulted.add(1);
        }
        if bytes > 0 && self.is_full(token, bytes) {
            return self.overloaded(token);
        }
        let frame = reply.to_frame(token.correlation, bytes);
        self.push_reply(token, frame, data);
    }

    /// Answers with a frame that another shard made.
    pub(crate) fn reply_frame(&mut self, token: Token, frame: Vec<u8>) {
        if frame.len() > LARGE_BYTES && self.is_full(token, frame.len()) {
            return self.overloaded(token);
        }
        self.push_reply(token, frame, Vec::new());
    }

    /// Whether so many more bytes are too many for the reply's connection.
    fn is_full(&mut self, token: Token, bytes: usize) -> bool {
        let most = self.limits.unsent_bytes_max;
        let connection = self.connection(ConnectionId::from_source(token.source));
        connection.is_some_and(|connection| {
            let waiting = connection.outbox.bytes();
            waiting > 0 && waiting + bytes > most
        })
    }

    /// Only fetches have large replies, and they can be repeated.
    fn overloaded(&mut self, token: Token) {
        self.metrics.requests_overloaded.add(1);
        let text =
            "more replies wait on this connection than it reads: read them, then fetch again";
        let fault = Fault::new(ErrorCode::Overloaded, text);
        let reply = refused(RequestKind::Fetch, fault);
        self.push_reply(token, reply.to_frame(token.correlation, 0), Vec::new());
    }

    fn push_reply(&mut self, token: Token, frame: Vec<u8>, data: Vec<Slice>) {
        let id = ConnectionId::from_source(token.source);
        let Some(connection) = self.connection(id) else {
            return;
        };
        if !connection.takes_replies() {
            return;
        }
        let asked = connection.unanswered.remove(&token.correlation);
        let answered = usize::from(asked.is_some());
        let before = connection.outbox.bytes();
        connection.outbox.push(frame, data);
        let added = connection.outbox.bytes() - before;
        self.unsent_bytes += added;
        self.unanswered -= answered;
        self.list(id);
        if let Some((kind, received_ns)) = asked {
            let took_ns = clock::mono_ns().saturating_sub(received_ns);
            match kind {
                RequestKind::Produce => self.metrics.produce.observe(took_ns),
                RequestKind::Fetch => self.metrics.fetch.observe(took_ns),
                _ => {}
            }
            self.metrics.flight.record(Flown::Answered {
                kind,
                source: token.source,
                correlation: token.correlation.0,
                received_ns,
                took_ns,
                bytes: added as u32,
            });
        }
    }

    fn sent(&mut self, completion: Completion, requests: &mut impl Requests) {
        let id = ConnectionId::from_source(completion.owner.id);
        let Memory::Message(message) = completion.memory else {
            unreachable!("a send has its message back when it ends");
        };
        let bytes = *completion.result.as_ref().unwrap_or(&0) as usize;
        let connection = self
            .connection(id)
            .expect("a connection outlives its operations");
        connection.outbox.sent(message, bytes);
        self.unsent_bytes -= bytes;
        self.metrics.sent_bytes.add(bytes as u64);
        match completion.result {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => self.close(id, requests),
            _ => self.list(id),
        }
    }

    /// Before the engine's turn: goes on with requests that had to wait, and closes connections
    /// whose time is over.
    pub(crate) fn resume(&mut self, ring: &mut Ring, requests: &mut impl Requests, now_ns: u64) {
        self.listeners.retry(ring, now_ns);
        if self.next_sweep_ns.is_some_and(|at| at <= now_ns) {
            self.sweep(requests, now_ns);
        }
        self.feed_starved();
        if !self.congested.is_empty() && !requests.is_congested() {
            for id in std::mem::take(&mut self.congested) {
                if let Some(connection) = self.connection(id) {
                    connection.congested = false;
                    self.queue(id);
                    self.list(id);
                }
            }
        }
        self.take_turns(requests, now_ns);
    }

    /// The end of a turn: sends what is to be sent.
    pub(crate) fn flush(&mut self, ring: &mut Ring, requests: &mut impl Requests, now_ns: u64) {
        for id in std::mem::take(&mut self.listed) {
            self.attend(ring, id, now_ns);
        }
        self.relieve(requests, now_ns);
        self.metrics.send_bytes.set(self.unsent_bytes as u64);
        self.metrics.receive_bytes.set(self.receive_bytes as u64);
    }

    fn attend(&mut self, ring: &mut Ring, id: ConnectionId, now_ns: u64) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.listed = false;
        if connection.phase != Phase::Closing
            && let Some(message) = connection.outbox.next_message()
        {
            let owner = Owner {
                role: Role::Send,
                id: id.source(),
            };
            ring.send(owner, connection.socket.as_raw_fd(), message);
            connection.send_started_ns = now_ns;
        }
        if matches!(connection.phase, Phase::Refusing { .. }) && connection.outbox.bytes() == 0 {
            connection.phase = match connection.ended {
                true => Phase::Closing,
                false => Phase::Lingering { since_ns: now_ns },
            };
            crate::sys::shut_down(connection.socket.as_fd(), true);
        }
        if connection.phase == Phase::Closing && connection.is_quiet() {
            return self.free(id);
        }
        self.watch(id);
        self.stop_or_go_on(ring, id);
        self.queue(id);
    }

    /// Closes connections whose time is over, and finds the next such time.
    fn sweep(&mut self, requests: &mut impl Requests, now_ns: u64) {
        let mut next: Option<u64> = None;
        let mut over = Vec::new();
        for connection in self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.as_deref())
        {
            match connection.deadline(&self.limits) {
                Some((at, reason)) if at <= now_ns => over.push((connection.id, reason)),
                Some((at, _)) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        if let Some((id, since_ns)) = self.elected {
            let end = since_ns + self.limits.send_max.as_nanos() as u64;
            match end <= now_ns {
                true => over.push((id, "its frame took too long while memory was short")),
                false => next = Some(next.map_or(end, |next| next.min(end))),
            }
        }
        self.sweep_from_ns = now_ns + SWEEP_EVERY_NS;
        self.next_sweep_ns = next.map(|at| at.max(self.sweep_from_ns));
        for (id, reason) in over {
            tracing::debug!(connection = id.source(), reason, "closing a connection");
            self.metrics.connections_faulted.add(1);
            self.close(id, requests);
        }
    }

    /// When [`Network::resume`] has something to do by itself.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        [self.next_sweep_ns, self.listeners.next_retry_ns()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the next turn has something to do at once.
    pub(crate) fn is_busy(&self) -> bool {
        !self.listed.is_empty() || !self.turns.is_empty()
    }

    /// Closes both sides; the slot is free when the ring's operations have ended.
    fn close(&mut self, id: ConnectionId, requests: &mut impl Requests) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        if connection.phase == Phase::Closing {
            self.list(id);
            return;
        }
        let told = !connection.takes_replies();
        connection.phase = Phase::Closing;
        let before = connection.outbox.bytes();
        connection.outbox.clear();
        let cleared = before - connection.outbox.bytes();
        let unanswered = std::mem::take(&mut connection.unanswered).len();
        crate::sys::shut_down(connection.socket.as_fd(), false);
        self.unsent_bytes -= cleared;
        self.unanswered -= unanswered;
        if self.elected.is_some_and(|(elected, _)| elected == id) {
            self.elected = None;
        }
        if !told {
            requests.gone(id.source());
        }
        self.list(id);
    }

    fn free(&mut self, id: ConnectionId) {
        let slot = &mut self.slots[id.slot as usize];
        let Some(connection) = slot.connection.take() else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.metrics.flight.record(Flown::Disconnected {
            source: id.source(),
            at_ns: clock::mono_ns(),
        });
        self.free.push(id.slot);
        self.receive_bytes -= connection.counted_bytes;
        self.unsent_bytes -= connection.outbox.bytes();
        self.open -= 1;
        self.limits = self.configured.shared_by(self.open);
        self.metrics.connections.set(self.open as u64);
    }

    /// Stops to accept and to take requests; replies still go out.
    pub(crate) fn drain(&mut self, ring: &mut Ring) {
        self.draining = true;
        self.listeners.stop(ring);
        let ids: Vec<ConnectionId> = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.connection.as_deref()?.id))
            .collect();
        for id in ids {
            self.stop_or_go_on(ring, id);
        }
    }

    /// Bytes of replies that are not sent.
    pub(crate) const fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Connections that are open or closing.
    pub(crate) const fn connections(&self) -> usize {
        self.open
    }

    /// Closes a connection that doesn't read what others wait for. Replies to another shard's
    /// connection are copied, so there it is never one of those.
    pub(crate) fn hang_up(&mut self, source: u64, requests: &mut impl Requests) {
        let id = ConnectionId::from_source(source);
        if id.shard == self.shard && self.connection(id).is_some() {
            tracing::debug!(
                connection = source,
                "closing a connection that doesn't read"
            );
            self.metrics.connections_faulted.add(1);
            self.close(id, requests);
        }
    }

    /// Closes every connection.
    pub(crate) fn close_all(&mut self, requests: &mut impl Requests) {
        let ids: Vec<ConnectionId> = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.connection.as_deref()?.id))
            .collect();
        for id in ids {
            self.close(id, requests);
        }
    }
}
