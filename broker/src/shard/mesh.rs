//! The bounded queues between the shards: requests that came to the wrong core, their replies, and
//! what every shard has to hear of at once. Everything in them is owned bytes; no memory is shared.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use ringway_engine::device::DeviceError;
use ringway_engine::shard::Token;
use ringway_wire::ShardId;
use ringway_wire::request::Request;

use crate::wake::Wake;

/// Messages that may wait for one shard.
const MESSAGES_MAX: usize = 4_096;
/// Bytes that may wait for one shard, unless a single message has more.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Messages and bytes that a shard keeps for others before it stops reading requests.
const KEPT_MESSAGES_MAX: usize = 1_024;
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What one shard tells another.
#[derive(Debug)]
pub(crate) enum Message {
    /// A request for a partition of the receiver.
    Request {
        token: Token,
        received_ns: u64,
        request: Request,
        data: Vec<u8>,
    },
    /// The whole frame of a reply for a connection of the receiver.
    Reply { token: Token, frame: Vec<u8> },
    /// Nobody waits for a connection's replies any more.
    Gone { source: u64 },
    /// A connection from the shared port.
    Connection(OwnedFd),
    /// A flush of the shared device failed.
    DeviceFailed { error: DeviceError },
    /// The sender is being stopped: no request comes after this.
    LastRequest,
}

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Self::Request { data, .. } => data.len(),
            Self::Reply { frame, .. } => frame.len(),
            Self::Gone { .. }
            | Self::Connection(_)
            | Self::DeviceFailed { .. }
            | Self::LastRequest => 0,
        }
    }
}

#[derive(Debug)]
struct Peer {
    queue: SyncSender<Message>,
    /// Bytes in the queue.
    queued_bytes: Arc<AtomicUsize>,
    wake: Arc<Wake>,
    /// What didn't fit the queue, in order.
    kept: VecDeque<Message>,
    kept_bytes: usize,
}

/// One shard's end of all queues.
#[derive(Debug)]
pub struct Mesh {
    here: ShardId,
    peers: Vec<Peer>,
    inbox: Receiver<Message>,
    inbox_bytes: Arc<AtomicUsize>,
    peeked: Option<Message>,
    dealt: usize,
}

/// Connects shards, whose bells are these.
#[must_use]
pub fn mesh(wakes: &[Arc<Wake>]) -> Vec<Mesh> {
    let mut queues = Vec::new();
    let mut inboxes = Vec::new();
    for wake in wakes {
        let (queue, inbox) = sync_channel(MESSAGES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        queues.push((queue, Arc::clone(&bytes), Arc::clone(wake)));
        inboxes.push((inbox, bytes));
    }
    let peer = |(queue, bytes, wake): &(SyncSender<Message>, Arc<AtomicUsize>, Arc<Wake>)| Peer {
        queue: queue.clone(),
        queued_bytes: Arc::clone(bytes),
        wake: Arc::clone(wake),
        kept: VecDeque::new(),
        kept_bytes: 0,
    };
    let inboxes = inboxes.into_iter().enumerate();
    inboxes
        .map(|(index, (inbox, inbox_bytes))| Mesh {
            here: ShardId(index as u16),
            peers: queues.iter().map(peer).collect(),
            inbox,
            inbox_bytes,
            peeked: None,
            dealt: index,
        })
        .collect()
}

impl Mesh {
    /// Passes a message on, or keeps it for [`Mesh::flush`]. Messages to one shard stay in order.
    pub(crate) fn send(&mut self, to: ShardId, message: Message) {
        let peer = &mut self.peers[to.0 as usize];
        peer.kept_bytes += message.bytes();
        peer.kept.push_back(message);
        peer.flush();
    }

    /// Passes a message on to every other shard.
    pub(crate) fn broadcast(&mut self, message: impl Fn() -> Message) {
        for to in 0..self.peers.len() {
            if to != usize::from(self.here.0) {
                self.send(ShardId(to as u16), message());
            }
        }
    }

    /// Shards other than this one.
    pub(crate) fn others(&self) -> usize {
        self.peers.len() - 1
    }

    /// Passes on what was kept, as far as there is room now.
    pub(crate) fn flush(&mut self) {
        for peer in &mut self.peers {
            peer.flush();
        }
    }

    /// Whether no more requests should be forwarded for now.
    pub(crate) fn is_congested(&self) -> bool {
        self.peers
            .iter()
            .any(|peer| peer.kept.len() > KEPT_MESSAGES_MAX || peer.kept_bytes > KEPT_BYTES_MAX)
    }

    /// Whether something is kept for a later turn.
    pub(crate) fn is_waiting(&self) -> bool {
        self.peers.iter().any(|peer| !peer.kept.is_empty())
    }

    /// The shard whose turn it is to have the next connection of the shared port.
    pub(crate) fn deal(&mut self) -> ShardId {
        let next = self.dealt % self.peers.len();
        self.dealt += 1;
        ShardId(next as u16)
    }

    /// The next message for this shard.
    pub(crate) fn take(&mut self) -> Option<Message> {
        if let Some(message) = self.peeked.take() {
            return Some(message);
        }
        let message = self.inbox.try_recv().ok()?;
        self.inbox_bytes
            .fetch_sub(message.bytes(), Ordering::Relaxed);
        Some(message)
    }

    /// Whether nothing came; to be asked after [`Wake::announce_sleep`].
    pub(crate) fn is_empty(&mut self) -> bool {
        self.peeked = self.take();
        self.peeked.is_none()
    }
}

impl Peer {
    fn flush(&mut self) {
        let mut any = false;
        while let Some(message) = self.kept.pop_front() {
            let bytes = message.bytes();
            let queued = self.queued_bytes.load(Ordering::Relaxed);
            if queued > 0 && queued + bytes > QUEUE_BYTES_MAX {
                self.kept.push_front(message);
                break;
            }
            // Added before it is sent, so that the receiver never takes away more than there is.
            self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            match self.queue.try_send(message) {
                Ok(()) => any = true,
                Err(TrySendError::Full(message)) => {
                    self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    self.kept.push_front(message);
                    break;
                }
                // A shard that has ended has no connections and answers nobody.
                Err(TrySendError::Disconnected(_)) => {}
            }
            self.kept_bytes -= bytes;
        }
        if any {
            self.wake.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Mesh, Mesh) {
        let wakes = [(); 2].map(|()| Arc::new(Wake::new().unwrap()));
        let mut both = mesh(&wakes);
        let second = both.pop().unwrap();
        (both.pop().unwrap(), second)
    }

    fn reply(number: u32, bytes: usize) -> Message {
        let token = Token {
            source: number.into(),
            ..Token::default()
        };
        Message::Reply {
            token,
            frame: vec![0; bytes],
        }
    }

    fn number(message: Option<Message>) -> Option<u64> {
        match message? {
            Message::Reply { token, .. } => Some(token.source),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_kept_in_order() {
        let (mut first, mut second) = two();
        let to = second.here;
        let count = (MESSAGES_MAX + 10) as u32;
        for message in 0..count {
            first.send(to, reply(message, 1));
        }
        assert!(first.is_waiting());
        assert_eq!(number(second.take()), Some(0));
        for _ in 0..20 {
            first.flush();
        }
        for message in 1..count {
            first.flush();
            assert_eq!(number(second.take()), Some(message.into()));
        }
        assert!(second.is_empty() && !first.is_waiting());
    }

    #[test]
    fn bytes_are_bounded_and_a_single_large_message_passes() {
        let (mut first, mut second) = two();
        let to = second.here;
        first.send(to, reply(0, 2 * QUEUE_BYTES_MAX));
        assert!(!first.is_waiting(), "an empty queue takes anything");
        first.send(to, reply(1, KEPT_BYTES_MAX + 1));
        assert!(first.is_waiting() && first.is_congested());
        assert!(!second.is_empty());
        assert_eq!(number(second.take()), Some(0));
        first.flush();
        assert!(!first.is_waiting() && !first.is_congested());
        assert_eq!(number(second.take()), Some(1));
        assert_eq!(second.inbox_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn connections_are_dealt_out_in_turn() {
        let (mut first, _second) = two();
        let dealt: Vec<u16> = (0..4).map(|_| first.deal().0).collect();
        assert_eq!(dealt, [0, 1, 0, 1]);
    }
}
