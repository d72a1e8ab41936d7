//! Messages from the controller to the shards, in one order for all of them: what is held up for
//! one shard holds up everything after it, so that nobody is told of a change that another shard
//! has not been told of first.

use std::collections::VecDeque;

use ringway_engine::meta::Delta;
use ringway_wire::ShardId;

use crate::shard_proxy::{NotSent, ShardSender, ToShard};

/// The queues to all shards.
#[derive(Debug)]
pub(super) struct Outbox {
    shards: Vec<ShardSender>,
    waiting: VecDeque<(usize, ToShard)>,
}

impl Outbox {
    pub(super) fn new(shards: Vec<ShardSender>) -> Self {
        Self {
            shards,
            waiting: VecDeque::new(),
        }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Whether messages wait for room in some queue. Take nothing new then.
    pub(super) fn is_held_up(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends to one shard, now or when it has room.
    pub(super) fn send(&mut self, shard: ShardId, message: ToShard) {
        self.waiting.push_back((usize::from(shard.0), message));
        self.push_on();
    }

    /// Sends to every shard.
    pub(super) fn send_all(&mut self, message: impl Fn() -> ToShard) {
        self.waiting
            .extend((0..self.shards.len()).map(|shard| (shard, message())));
        self.push_on();
    }

    /// Sends changes to every shard.
    pub(super) fn send_deltas(&mut self, deltas: &[Delta]) {
        self.send_all(|| ToShard::Deltas(deltas.to_vec()));
    }

    /// Sends what now has room. A shard that has ended needs nothing.
    pub(super) fn push_on(&mut self) {
        while let Some((shard, message)) = self.waiting.pop_front() {
            let Some(queue) = self.shards.get(shard) else {
                continue;
            };
            if let Err(NotSent::Full(message)) = queue.send(message) {
                self.waiting.push_front((shard, *message));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shard_proxy::{TO_SHARD_MAX, to_shard};
    use crate::wake::Wake;

    #[test]
    fn a_full_queue_holds_up_what_comes_after_for_all() {
        let (queues, mut inboxes): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| to_shard(Arc::new(Wake::new().unwrap())))
            .unzip();
        let mut outbox = Outbox::new(queues);
        for _ in 0..TO_SHARD_MAX {
            outbox.send(ShardId(0), ToShard::Deltas(Vec::new()));
        }
        assert!(!outbox.is_held_up());
        outbox.send(ShardId(0), ToShard::Stop);
        outbox.send(ShardId(1), ToShard::Stop);
        assert!(outbox.is_held_up());
        assert!(
            inboxes[1].take().is_none(),
            "its turn comes after shard 0's"
        );
        assert!(inboxes[0].take().is_some());
        outbox.push_on();
        assert!(!outbox.is_held_up());
        assert!(matches!(inboxes[1].take(), Some(ToShard::Stop)));
    }

    #[test]
    fn a_shard_that_has_ended_holds_up_nobody() {
        let (queues, mut inboxes): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| to_shard(Arc::new(Wake::new().unwrap())))
            .unzip();
        let mut outbox = Outbox::new(queues);
        drop(inboxes.remove(0));
        outbox.send_all(|| ToShard::Stop);
        assert!(!outbox.is_held_up());
        assert!(matches!(inboxes[0].take(), Some(ToShard::Stop)));
    }
}
