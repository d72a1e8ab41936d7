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
            connection.decoder.shrink();
        }
        let bytes = connection.decoder.capacity();
        let (held, before) = (connection.decoder.held(), connection.counted_bytes);
        connection.counted_bytes = bytes;
        self.receive_bytes = self.receive_bytes + bytes - before;
        let is_elected = self.elected.is_some_and(|(elected, _)| elected == id);
        if held <= LARGE_BYTES {
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

    /// Closes connections that take none of their replies while memory for replies is short, those
    /// first that have taken nothing for longest.
    pub(super) fn relieve(&mut self, requests: &mut impl Requests, now_ns: u64) {
        let most = self.limits.send_bytes_max;
        if self.unsent_bytes <= most || now_ns < self.relief_ns {
            return;
        }
        self.relief_ns = now_ns + RELIEF_EVERY_NS;
        // They are looked for again, also when nothing else happens.
        self.sweep_at(now_ns + self.limits.stuck_max.as_nanos() as u64);
        let mut stuck: Vec<(u64, usize, ConnectionId)> = self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.as_deref())
            .filter(|connection| {
                let since_ns = now_ns.saturating_sub(connection.send_started_ns);
                connection.phase != Phase::Closing
                    && connection.outbox.is_sending()
                    && since_ns >= self.limits.stuck_max.as_nanos() as u64
            })
            .map(|connection| {
                let bytes = connection.outbox.bytes();
                (connection.send_started_ns, bytes, connection.id)
            })
            .collect();
        stuck.sort_unstable_by_key(|&(since, ..)| since);
        let mut left = self.unsent_bytes;
        for (_, bytes, id) in stuck {
            if left <= most {
                break;
            }
            left -= bytes;
            tracing::debug!(
                connection = id.source(),
                bytes,
                "closing a connection that doesn't read its replies: memory for them is short"
            );
            self.metrics.connections_faulted.add(1);
            self.close(id, requests);
        }
    }
}
