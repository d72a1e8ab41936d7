//! The shard's memory for frames on their way in and replies on their way out, shared by all
//! connections: who has to wait when it is short, and who has to go.

use super::connection::Phase;
use super::{ConnectionId, LARGE_BYTES, Network, Requests};

/// How often connections that don't take their replies are looked for.
const RELIEF_EVERY_NS: u64 = 10_000_000;

impl Network {
    /// Keeps account of the shard's receive memory, and makes a connection wait that takes too
    /// much of it.
    pub(super) fn count_receive_bytes(&mut self, id: ConnectionId, now_ns: u64) {
        let short = self.receive_bytes > self.limits.receive_bytes_max / 2;
        let Some(connection) = self.connection(id) else {
            return;
        };
        if short {
            connection.decoder.shrink(0);
        }
        let bytes = connection.decoder.capacity();
        let (held, before) = (connection.decoder.held(), connection.counted_bytes);
        connection.counted_bytes = bytes;
        self.receive_bytes = self.receive_bytes + bytes - before;
        let is_elected = self.elected.is_some_and(|(elected, _)| elected == id);
        if held <= self.limits.large_bytes {
            if is_elected {
                self.elected = None;
            }
            return;
        }
        if self.receive_bytes <= self.limits.receive_bytes_max || is_elected {
            return;
        }
        if self.elected.is_none() {
            self.elected = Some((id, now_ns));
            self.sweep_at(now_ns + self.limits.send_max.as_nanos() as u64);
            // It may have been told to wait just before.
            if let Some(connection) = self.connection(id) {
                connection.starved = false;
            }
        } else if let Some(connection) = self.connection(id)
            && !connection.starved
        {
            connection.starved = true;
            self.starved.push_back(id);
        }
    }

    /// Lets connections that wait for receive memory go on, as far as there is some.
    pub(super) fn feed_starved(&mut self) {
        while !self.starved.is_empty()
            && (self.receive_bytes <= self.limits.receive_bytes_max || self.elected.is_none())
        {
            let id = self.starved.pop_front().expect("somebody waits");
            let Some(connection) = self.connection(id) else {
                continue;
            };
            connection.starved = false;
            self.list(id);
            if self.receive_bytes > self.limits.receive_bytes_max {
                return;
            }
        }
    }

    /// Closes connections that don't take their replies while memory for replies is short.
    pub(super) fn relieve(&mut self, requests: &mut impl Requests, now_ns: u64) {
        let most = self.limits.send_bytes_max;
        if self.unsent_bytes <= most || now_ns < self.relief_ns {
            return;
        }
        self.relief_ns = now_ns + RELIEF_EVERY_NS;
        // They are looked for again, also when nothing else happens.
        let stuck_ns = self.limits.stuck_max.as_nanos() as u64;
        self.sweep_at(now_ns + stuck_ns);
        let connections = self.slots.iter();
        let connections = connections.filter_map(|slot| slot.connection.as_deref());
        let sending = connections
            .filter(|connection| connection.phase != Phase::Closing)
            .filter(|connection| connection.outbox.is_sending())
            .map(|connection| Sending {
                id: connection.id,
                since_ns: connection.send_started_ns,
                bytes: connection.outbox.bytes(),
                head_bytes: connection.outbox.head_bytes(),
            })
            .collect();
        let stuck_since_ns = now_ns.saturating_sub(stuck_ns);
        for id in too_slow(sending, self.unsent_bytes, most, stuck_since_ns) {
            tracing::debug!(
                connection = id.source(),
                "closing a connection that doesn't read its replies: memory for them is short"
            );
            self.metrics.connections_faulted.add(1);
            self.close(id, requests);
        }
    }
}

/// A connection that the kernel takes bytes of.
#[derive(Clone, Copy, Debug)]
struct Sending {
    id: ConnectionId,
    /// Since when it has taken none.
    since_ns: u64,
    /// Bytes that it hasn't taken.
    bytes: usize,
    /// Those of them that aren't batches.
    head_bytes: usize,
}

/// Which connections have to go, because all together have more unsent bytes than may be. Those that
/// have taken nothing for long go first, and only as many as it needs. Patience with the others ends
/// when there is twice too much: of heads alone, since batches may be the same bytes many times.
fn too_slow(
    mut sending: Vec<Sending>,
    unsent_bytes: usize,
    most: usize,
    stuck_since_ns: u64,
) -> Vec<ConnectionId> {
    sending.sort_unstable_by_key(|connection| connection.since_ns);
    let mut left = unsent_bytes;
    let mut heads: usize = sending.iter().map(|connection| connection.head_bytes).sum();
    let mut gone = Vec::new();
    for connection in sending {
        let is_stuck = connection.since_ns <= stuck_since_ns && left > most;
        let is_too_much = connection.head_bytes > LARGE_BYTES && heads > 2 * most;
        if is_stuck || is_too_much {
            left -= connection.bytes;
            heads -= connection.head_bytes;
            gone.push(connection.id);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use ringway_wire::ShardId;

    use super::*;

    const MIB: usize = 1 << 20;

    fn sending(slot: u32, since_ns: u64, bytes: usize, head_bytes: usize) -> Sending {
        let id = ConnectionId {
            shard: ShardId(0),
            slot,
            generation: 0,
        };
        Sending {
            id,
            since_ns,
            bytes,
            head_bytes,
        }
    }

    fn gone(sending: Vec<Sending>, most: usize) -> Vec<u32> {
        let unsent = sending.iter().map(|connection| connection.bytes).sum();
        let gone = too_slow(sending, unsent, most, 100);
        gone.into_iter().map(|id| id.slot).collect()
    }

    #[test]
    fn the_longest_stuck_go_first_and_only_as_many_as_it_needs() {
        let all = vec![
            sending(1, 90, 4 * MIB, 0),
            sending(2, 50, 4 * MIB, 0),
            sending(3, 101, 4 * MIB, 0),
            sending(4, 10, 4 * MIB, 0),
        ];
        assert!(gone(all.clone(), 16 * MIB).is_empty());
        assert_eq!(gone(all.clone(), 12 * MIB), [4]);
        assert_eq!(gone(all.clone(), 9 * MIB), [4, 2]);
        assert_eq!(gone(all, 0), [4, 2, 1], "the third is only slow");
    }

    #[test]
    fn twice_too_many_heads_end_all_patience_and_batches_do_not() {
        let batches = vec![sending(1, 200, 9 * MIB, 10), sending(2, 300, 9 * MIB, 10)];
        assert!(gone(batches, MIB).is_empty());
        let heads = vec![
            sending(1, 200, 3 * MIB, 3 * MIB),
            sending(2, 250, 9 * MIB, 100),
            sending(3, 300, 3 * MIB, 3 * MIB),
        ];
        assert_eq!(gone(heads, 2 * MIB), [1]);
    }
}
