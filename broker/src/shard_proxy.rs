//! The bounded queues between the controller and the shards: the only way in which either reaches
//! the other. Neither ever waits for the other; a full queue is the sender's to deal with.

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

use ringway_engine::meta::{Addresses, Delta, Image};
use ringway_engine::shard::Token;
use ringway_wire::request::{Reply, Request};
use ringway_wire::{Offset, ShardId, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::ShardMetrics;
use crate::wake::Wake;

/// Messages that may wait for one shard. The controller keeps what doesn't fit, in order, and
/// takes no more requests until it is gone.
pub const TO_SHARD_MAX: usize = 1_024;
/// Messages that may wait for the controller. A shard answers a request that doesn't fit with
/// `overloaded`, and keeps a report that doesn't fit for its next turn.
pub const TO_CONTROLLER_MAX: usize = 4_096;

/// What the controller tells a shard.
#[derive(Debug)]
pub enum ToShard {
    /// The metadata as it is; everything before is void. Comes first.
    Image(Box<Image>),
    /// Changes since.
    Deltas(Vec<Delta>),
    /// The answer to a request that the shard passed on.
    Answer {
        /// Who waits, as the shard said.
        token: Token,
        /// The answer.
        reply: Reply,
    },
    /// Another shard saw a flush of the shared device fail: make nothing durable any more.
    DeviceFailed {
        /// What failed.
        reason: String,
    },
    /// Asks how the shard and its partitions are.
    Scrape(ScrapeReply),
    /// Accept nothing more, finish what was accepted, then report [`ToController::Stopped`] and
    /// end.
    Stop,
}

/// What a shard tells the controller.
#[derive(Debug)]
pub enum ToController {
    /// A request for the controller; comes back as [`ToShard::Answer`].
    Request {
        /// The shard.
        shard: ShardId,
        /// Who waits.
        token: Token,
        /// The request.
        request: Request,
    },
    /// Every partition of the first image is open (or in a named state): the shard serves.
    AllOpen {
        /// The shard.
        shard: ShardId,
    },
    /// A flush of the shared device failed: the controller tells every other shard.
    DeviceFailed {
        /// The shard that saw it.
        shard: ShardId,
        /// What failed.
        reason: String,
    },
    /// The shard can't go on; it ends.
    Failed {
        /// The shard.
        shard: ShardId,
        /// What happened and what to do.
        reason: String,
    },
    /// The shard has drained and ends.
    Stopped {
        /// The shard.
        shard: ShardId,
    },
}

/// One partition as its shard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub at: TopicPartition,
    /// `recovering`, `ready`, `full`, `failed` or `damaged`, with the reason.
    pub state: String,
    /// First offset that is still there.
    pub log_start: Offset,
    /// The offset after the last that readers may see.
    pub high_watermark: Offset,
    /// The offset after the last that was appended.
    pub log_end: Offset,
    /// Bytes of its batches on disk.
    pub log_bytes: u64,
}

/// A shard's answer to [`ToShard::Scrape`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// Its partitions, in any order.
    pub partitions: Vec<PartitionStatus>,
}

/// Where the answer to a scrape goes. Dropping it says that there is none.
#[derive(Debug)]
pub struct ScrapeReply(oneshot::Sender<ShardStatus>);

impl ScrapeReply {
    /// A way back and its other end.
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<ShardStatus>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. Never blocks; nothing happens when nobody waits any more.
    pub fn send(self, status: ShardStatus) {
        let _ = self.0.send(status);
    }
}

/// A shard's ends of everything that it shares with the rest of the process, besides what is on
/// disk. Its image comes as the first message.
#[derive(Debug)]
pub struct ShardEnds {
    /// Which shard it is.
    pub shard: ShardId,
    /// Its own port.
    pub listener: TcpListener,
    /// The port of all shards; each has this descriptor of the one socket.
    pub shared: TcpListener,
    /// What metadata replies name.
    pub addresses: Addresses,
    /// Messages from the controller; its bell is the shard's.
    pub inbox: ShardInbox,
    /// Messages to the controller.
    pub controller: ControllerSender,
    /// The shard's numbers, which it alone writes.
    pub metrics: Arc<ShardMetrics>,
}

/// Shards that run.
pub struct Launched {
    /// Their threads, by shard id.
    pub threads: Vec<JoinHandle<()>>,
    /// What remains to be done once all of them have ended.
    pub after: Box<dyn FnOnce() + Send>,
}

/// Starts a thread for each shard, all at once because they have to know each other. After an
/// error those that were started end, because their inboxes do.
pub type Launch =
    Box<dyn FnOnce(Vec<ShardEnds>) -> Result<Launched, Box<dyn Error + Send + Sync>> + Send>;

/// Makes the queue from the controller to one shard, whose bell is `wake`.
#[must_use]
pub fn to_shard(wake: Arc<Wake>) -> (ShardSender, ShardInbox) {
    let (sender, receiver) = sync_channel(TO_SHARD_MAX);
    let sender = ShardSender {
        queue: sender,
        wake: Arc::clone(&wake),
    };
    let inbox = ShardInbox {
        queue: receiver,
        wake,
        peeked: None,
    };
    (sender, inbox)
}

/// The controller's end of the queue to one shard.
#[derive(Clone, Debug)]
pub struct ShardSender {
    queue: SyncSender<ToShard>,
    wake: Arc<Wake>,
}

impl ShardSender {
    /// Passes a message on and wakes the shard if it sleeps.
    ///
    /// # Errors
    /// [`NotSent`] when the queue is full or the shard has ended.
    pub fn send(&self, message: ToShard) -> Result<(), NotSent> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) => NotSent::Full(Box::new(message)),
            TrySendError::Disconnected(_) => NotSent::Ended,
        })?;
        self.wake.ring();
        Ok(())
    }
}

/// Why a shard didn't get a message.
#[derive(Debug)]
pub enum NotSent {
    /// Its queue is full: here is the message, to be sent later.
    Full(Box<ToShard>),
    /// It has ended and needs no messages.
    Ended,
}

/// A shard's end of the queue from the controller.
///
/// Once a turn, empty it before handling the turn's requests: then everything that a client was
/// told has been seen by every shard that the client turns to next.
#[derive(Debug)]
pub struct ShardInbox {
    queue: Receiver<ToShard>,
    wake: Arc<Wake>,
    peeked: Option<ToShard>,
}

impl ShardInbox {
    /// The next message, if there is one. A controller that is gone counts as one that has sent
    /// [`ToShard::Stop`].
    pub fn take(&mut self) -> Option<ToShard> {
        if let Some(message) = self.peeked.take() {
            return Some(message);
        }
        match self.queue.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(ToShard::Stop),
        }
    }

    /// Whether nothing waits; to be asked after [`Wake::announce_sleep`].
    pub fn is_empty(&mut self) -> bool {
        self.peeked = self.take();
        self.peeked.is_none()
    }

    /// The shard's bell: the descriptor to wait on, and the announcement of sleep.
    #[must_use]
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }
}

/// Makes the queue from all shards to the controller.
#[must_use]
pub fn to_controller() -> (ControllerSender, mpsc::Receiver<ToController>) {
    let (sender, receiver) = mpsc::channel(TO_CONTROLLER_MAX);
    (ControllerSender { queue: sender }, receiver)
}

/// A shard's end of the queue to the controller.
#[derive(Clone, Debug)]
pub struct ControllerSender {
    queue: mpsc::Sender<ToController>,
}

impl ControllerSender {
    /// Passes a message on. Never blocks.
    ///
    /// # Errors
    /// The message comes back when the queue is full or the controller is gone: answer a request
    /// with `overloaded`, keep a report for the next turn.
    pub fn send(&self, message: ToController) -> Result<(), Box<ToController>> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message)
            | mpsc::error::TrySendError::Closed(message) => Box::new(message),
        })
    }

    /// Whether the controller is gone, so that nothing will ever be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_across_a_look() {
        let (sender, mut inbox) = to_shard(Arc::new(Wake::new().unwrap()));
        assert!(inbox.is_empty());
        sender.send(ToShard::Deltas(Vec::new())).unwrap();
        sender.send(ToShard::Stop).unwrap();
        assert!(!inbox.is_empty());
        assert!(!inbox.is_empty());
        assert!(matches!(inbox.take(), Some(ToShard::Deltas(_))));
        assert!(matches!(inbox.take(), Some(ToShard::Stop)));
        assert!(inbox.take().is_none());
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let (sender, _inbox) = to_shard(Arc::new(Wake::new().unwrap()));
        for _ in 0..TO_SHARD_MAX {
            sender.send(ToShard::Stop).unwrap();
        }
        let refused = sender.send(ToShard::Deltas(Vec::new()));
        let Err(NotSent::Full(message)) = refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(*message, ToShard::Deltas(_)));
    }

    #[test]
    fn a_shard_without_controller_stops_and_its_reports_come_back() {
        let (sender, mut inbox) = to_shard(Arc::new(Wake::new().unwrap()));
        drop(sender);
        assert!(matches!(inbox.take(), Some(ToShard::Stop)));
        let (sender, receiver) = to_controller();
        drop(receiver);
        assert!(sender.is_closed());
        let shard = ShardId(3);
        let back = sender.send(ToController::Stopped { shard }).unwrap_err();
        assert!(matches!(*back, ToController::Stopped { shard: ShardId(3) }));
    }
}
