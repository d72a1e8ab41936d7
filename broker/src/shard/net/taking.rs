//! From received bytes to requests: when a connection's frames are taken, and when they wait.

use super::connection::{Phase, Receiving};
use super::turns::{AT_ONCE_NS_MAX, SLICE_NS, TURN_NS_MAX};
use super::{ConnectionId, Network, Requests, frames};
use crate::shard::clock;
use crate::shard::ring::{Completion, Ring};

/// Why no more frames of a connection are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// There is no whole frame.
    Empty,
    /// It may not go on, or not now.
    Held,
    /// Its time is over.
    Time,
}

impl Network {
    /// A turn of the shard begins.
    pub(crate) const fn begin_turn(&mut self, now_ns: u64) {
        self.turn_ns = now_ns;
        self.clock_ns = now_ns;
    }

    pub(super) fn received(
        &mut self,
        ring: &mut Ring,
        mut completion: Completion,
        requests: &mut impl Requests,
        now_ns: u64,
    ) {
        let id = ConnectionId::from_source(completion.owner.id);
        let buffer = completion.received.take();
        let connection = self
            .connection(id)
            .expect("a connection outlives its operations");
        if !completion.more {
            connection.receiving = Receiving::Off;
        }
        let closing = connection.phase == Phase::Closing;
        if let Some(buffer) = buffer {
            let bytes = ring.received(&buffer);
            if connection.takes_replies() {
                connection.decoder.push(bytes);
                connection.last_byte_ns = now_ns;
            }
            self.metrics.received_bytes.add(bytes.len() as u64);
            ring.give_back(buffer);
        }
        if closing {
            // This may have been the last that it waited for.
            return self.list(id);
        }
        match completion.result {
            Ok(bytes) => {
                if bytes == 0 {
                    // What it sent before it left counts.
                    self.end_of_stream(id);
                }
                self.take_at_once(id, requests, now_ns);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                _ => return self.close(id, requests),
            },
        }
        self.count_receive_bytes(id, now_ns);
        self.stop_or_go_on(ring, id);
    }

    fn end_of_stream(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id) {
            connection.ended = true;
        }
    }

    /// Takes frames as they come from a connection that asks little; others wait for their turn.
    fn take_at_once(&mut self, id: ConnectionId, requests: &mut impl Requests, now_ns: u64) {
        let (clock_ns, in_time) = (self.clock_ns, self.clock_ns < self.turn_ns + AT_ONCE_NS_MAX);
        let waiting = self.turns.len();
        let Some(connection) = self.connection(id) else {
            return;
        };
        let credit_ns = connection.credit.at(clock_ns, waiting);
        if !connection.queued && credit_ns > 0 && in_time {
            return self.take_for(id, requests, now_ns, credit_ns);
        }
        connection.held_back = true;
        self.queue(id);
    }

    /// Has the connections that wait have some requests taken, in turn, until the turn's time for
    /// that is over.
    pub(super) fn take_turns(&mut self, requests: &mut impl Requests, now_ns: u64) {
        if self.turns.is_empty() {
            return;
        }
        let end = clock::mono_ns() + TURN_NS_MAX;
        loop {
            let Some(id) = self.turns.next() else {
                return;
            };
            let (clock_ns, waiting) = (self.clock_ns, self.turns.len());
            let Some(connection) = self.connection(id) else {
                continue;
            };
            connection.queued = false;
            let credit_ns = connection.credit.at(clock_ns, waiting);
            self.take_for(id, requests, now_ns, credit_ns.max(SLICE_NS));
            self.count_receive_bytes(id, now_ns);
            self.list(id);
            if self.clock_ns >= end {
                return;
            }
        }
    }

    /// Puts a connection that may have whole frames into the queue for its turn.
    pub(super) fn queue(&mut self, id: ConnectionId) {
        let (limits, clock_ns, draining) = (self.limits.clone(), self.clock_ns, self.draining);
        let waiting = self.turns.len();
        let Some(connection) = self.connection(id) else {
            return;
        };
        let waits = connection.held_back && !connection.queued && !connection.congested;
        let left = connection.ended && connection.takes_replies();
        if waits && (left || (connection.takes_requests(&limits) && !draining)) {
            connection.queued = true;
            let has_credit = connection.credit.at(clock_ns, waiting) > 0;
            self.turns.add(id, has_credit);
        }
    }

    /// Takes whole frames of a connection for so long, but for the last one.
    fn take_for(
        &mut self,
        id: ConnectionId,
        requests: &mut impl Requests,
        now_ns: u64,
        allowed_ns: u64,
    ) {
        let begin_ns = clock::mono_ns();
        self.clock_ns = begin_ns;
        let stop = self.take_until(id, requests, now_ns, begin_ns + allowed_ns);
        let spent_ns = self.clock_ns - begin_ns;
        let draining = self.draining;
        let Some(connection) = self.connection(id) else {
            return;
        };
        connection.credit.spend(spent_ns);
        connection.held_back = stop != Stop::Empty;
        // Whoever has left reads no replies but the last, and what may not be taken now never is.
        let left = connection.ended && connection.takes_replies();
        if left && (draining || (!connection.congested && stop != Stop::Time)) {
            return self.close(id, requests);
        }
        if stop == Stop::Time {
            self.queue(id);
        }
    }

    fn take_until(
        &mut self,
        id: ConnectionId,
        requests: &mut impl Requests,
        now_ns: u64,
        end_ns: u64,
    ) -> Stop {
        let share = self.limits.unanswered_share(self.open);
        loop {
            let Self {
                slots,
                limits,
                metrics,
                congested,
                ..
            } = self;
            let connection = slots[id.slot as usize].connection.as_deref_mut();
            let connection = connection.expect("frames are taken from open connections");
            if self.draining || connection.congested || !connection.takes_requests(limits) {
                return Stop::Held;
            }
            if requests.is_congested() {
                connection.congested = true;
                congested.push(id);
                return Stop::Held;
            }
            if self.clock_ns >= end_ns {
                return Stop::Time;
            }
            let most = match self.unanswered >= limits.unanswered_total_max {
                true => limits.unanswered_max.min(share),
                false => limits.unanswered_max,
            };
            let before = (connection.outbox.bytes(), connection.unanswered.len());
            let taken = frames::take(connection, requests, metrics, (now_ns, most));
            self.unsent_bytes += connection.outbox.bytes() - before.0;
            self.unanswered += connection.unanswered.len() - before.1;
            if taken == frames::Taken::Nothing {
                return Stop::Empty;
            }
            if taken == frames::Taken::Refused {
                metrics.connections_faulted.add(1);
                requests.gone(id.source());
            }
            self.clock_ns = clock::mono_ns();
            self.list(id);
        }
    }
}
