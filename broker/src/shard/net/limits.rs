//! What clients may ask of a shard, and how the limits are shared when they are many.

use std::time::Duration;

use ringway_wire::limits::FRAME_BYTES_MAX;

use super::LARGE_BYTES;

/// Bytes on their way in that any connection may have.
const LARGE_BYTES_MIN: usize = 4 << 10;
/// Open requests that any connection may have.
const UNANSWERED_SHARE_MIN: usize = 64;

/// What clients may ask of a shard's memory and patience.
#[derive(Clone, Debug)]
pub struct NetworkLimits {
    /// Connections of the shard.
    pub connections_max: usize,
    /// Largest frame, in bytes.
    pub frame_bytes_max: usize,
    /// Bytes of frames on their way in, over all connections; beyond, one connection with a large
    /// frame goes on at a time.
    pub receive_bytes_max: usize,
    /// Bytes of a connection's requests on their way in above which it is one that has to wait when
    /// they are too many; less with many connections.
    pub large_bytes: usize,
    /// Bytes of replies that are not sent, over all connections. One may have its share of it:
    /// with many connections that is less than the next two limits. Beyond it, connections that
    /// have taken nothing for [`NetworkLimits::stuck_max`] are closed.
    pub send_bytes_max: usize,
    /// Bytes of replies of one connection beyond which no more requests of it are read.
    pub unsent_bytes_pause: usize,
    /// Bytes of replies of one connection beyond which fetches are answered with `overloaded`.
    pub unsent_bytes_max: usize,
    /// Requests of one connection that may be open; more are answered with `overloaded`.
    pub unanswered_max: usize,
    /// Requests of all connections that may be open; beyond, connections that have more than their
    /// share of it are answered with `overloaded`. One takes about 300 bytes while it waits.
    pub unanswered_total_max: usize,
    /// Time for hello.
    pub hello_max: Duration,
    /// Time without a byte in the middle of a frame.
    pub frame_pause_max: Duration,
    /// Time for one send, and for unacknowledged bytes (TCP_USER_TIMEOUT).
    pub send_max: Duration,
    /// Time after which a connection that takes none of its replies is closed when memory for them
    /// is short.
    pub stuck_max: Duration,
    /// Time for the last reply of a connection that is refused.
    pub refusing_max: Duration,
    /// Time for which a refused client may go on sending.
    pub lingering_max: Duration,
}

impl NetworkLimits {
    /// The limits when so many connections are open.
    pub(super) fn shared_by(&self, connections: usize) -> Self {
        let share = (self.send_bytes_max / connections.max(1)).max(LARGE_BYTES);
        let received = (self.receive_bytes_max / 4 / connections.max(1)).max(LARGE_BYTES_MIN);
        Self {
            large_bytes: self.large_bytes.min(received),
            unsent_bytes_pause: self.unsent_bytes_pause.min(share),
            // One whole reply of the usual size has to fit beside what waits.
            unsent_bytes_max: self.unsent_bytes_max.min(share.saturating_mul(4)),
            ..self.clone()
        }
    }

    /// Open requests of one of so many connections beyond which it is the one that has too many.
    pub(super) fn unanswered_share(&self, connections: usize) -> usize {
        (self.unanswered_total_max / connections.max(1)).max(UNANSWERED_SHARE_MIN)
    }
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            frame_bytes_max: FRAME_BYTES_MAX,
            receive_bytes_max: 256 << 20,
            large_bytes: LARGE_BYTES,
            send_bytes_max: 128 << 20,
            unsent_bytes_pause: 16 << 20,
            unsent_bytes_max: 64 << 20,
            unanswered_max: 16_384,
            unanswered_total_max: 128 << 10,
            hello_max: Duration::from_secs(10),
            frame_pause_max: Duration::from_secs(30),
            send_max: Duration::from_secs(60),
            stuck_max: Duration::from_secs(1),
            refusing_max: Duration::from_secs(10),
            lingering_max: Duration::from_secs(2),
        }
    }
}
