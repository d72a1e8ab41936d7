//! One client's connection: what it may do when, without any I/O. The network carries it out.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ringway_wire::CorrelationId;
use ringway_wire::frame::FrameDecoder;
use ringway_wire::request::RequestKind;

use super::NetworkLimits;
use super::id::ConnectionId;
use super::outbox::Outbox;
use super::turns::Credit;
use crate::shard::ring::Key;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing but hello is answered.
    Greeting,
    /// Requests are answered.
    Open,
    /// Something was wrong: the last reply is on its way, nothing is read any more.
    Refusing { since_ns: u64 },
    /// All is sent, our side is closed. What still comes is thrown away, so that the last reply
    /// isn't lost to a reset.
    Lingering { since_ns: u64 },
    /// Both sides are closed; operations of the ring are still ending.
    Closing,
}

/// Whether the ring receives for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Off,
    On(Key),
    /// Asked to stop.
    Stopping,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) socket: OwnedFd,
    pub(super) decoder: FrameDecoder,
    pub(super) outbox: Outbox,
    pub(super) phase: Phase,
    pub(super) receiving: Receiving,
    /// Requests that will be answered, with their kind and when their last byte came.
    pub(super) unanswered: HashMap<CorrelationId, (RequestKind, u64)>,
    /// Waits for receive memory of the shard.
    pub(super) starved: bool,
    /// Waits for other shards to take what was passed on to them.
    pub(super) congested: bool,
    /// May have whole frames that were not taken.
    pub(super) held_back: bool,
    /// Waits for its turn to have some of them taken.
    pub(super) queued: bool,
    /// For how long its requests are taken without waiting.
    pub(super) credit: Credit,
    /// The client has sent its last byte.
    pub(super) ended: bool,
    /// Is on the list of those to be looked at this turn.
    pub(super) listed: bool,
    /// Bytes that the decoder takes, as counted in the shard's.
    pub(super) counted_bytes: usize,
    pub(super) opened_ns: u64,
    pub(super) last_byte_ns: u64,
    pub(super) send_started_ns: u64,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, socket: OwnedFd, frame_bytes_max: usize, now: u64) -> Self {
        Self {
            id,
            socket,
            decoder: FrameDecoder::new(frame_bytes_max),
            outbox: Outbox::new(),
            phase: Phase::Greeting,
            receiving: Receiving::Off,
            unanswered: HashMap::new(),
            starved: false,
            congested: false,
            held_back: false,
            queued: false,
            credit: Credit::new(now),
            ended: false,
            listed: false,
            counted_bytes: 0,
            opened_ns: now,
            last_byte_ns: now,
            send_started_ns: now,
        }
    }

    /// Whether requests may be taken from it now: not while more replies wait than it reads.
    pub(super) fn takes_requests(&self, limits: &NetworkLimits) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open)
            && self.outbox.bytes() < limits.unsent_bytes_pause
    }

    /// Whether bytes may be received for it now.
    pub(super) fn receives(&self, limits: &NetworkLimits) -> bool {
        match self.phase {
            _ if self.ended => false,
            Phase::Lingering { .. } => true,
            _ => {
                let behind = self.held_back && self.decoder.held() > limits.large_bytes;
                self.takes_requests(limits) && !self.starved && !self.congested && !behind
            }
        }
    }

    /// Whether an answer still has a reader.
    pub(super) const fn takes_replies(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open)
    }

    /// Whether no operation of the ring refers to it.
    pub(super) fn is_quiet(&self) -> bool {
        self.receiving == Receiving::Off && !self.outbox.is_sending()
    }

    /// When its patience with the client ends, and what is said then.
    pub(super) fn deadline(&self, limits: &NetworkLimits) -> Option<(u64, &'static str)> {
        let after = |start: u64, time: Duration| start + time.as_nanos() as u64;
        let phase = match self.phase {
            Phase::Greeting => Some((after(self.opened_ns, limits.hello_max), "no hello came")),
            Phase::Open if self.decoder.held() > 0 && self.receiving != Receiving::Off => {
                let end = after(self.last_byte_ns, limits.frame_pause_max);
                Some((end, "a frame never became whole"))
            }
            Phase::Refusing { since_ns } => Some((
                after(since_ns, limits.refusing_max),
                "it didn't read the refusal",
            )),
            Phase::Lingering { since_ns } => {
                Some((after(since_ns, limits.lingering_max), "it kept sending"))
            }
            Phase::Open | Phase::Closing => None,
        };
        let sending = self.outbox.is_sending() && self.phase != Phase::Closing;
        let send = sending.then(|| {
            (
                after(self.send_started_ns, limits.send_max),
                "it doesn't read its replies",
            )
        });
        [phase, send].into_iter().flatten().min()
    }
}
