//! Every limit and default of the client, and why they fit together.

use std::time::Duration;

use ringway_wire::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FRAME_HEAD_BYTES_MAX};

/// Bytes after which a producer's batch is full.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;
/// Records after which a producer's batch is full.
pub const BATCH_RECORDS_DEFAULT: usize = 10_000;
/// Batches of one partition that may be under way at once. A broker remembers so many batches of
/// each producer, so with more a repeated one would no longer be recognised.
pub const IN_FLIGHT_MAX: usize = 5;
/// Bytes of records that a producer holds until they are acknowledged.
pub const BUFFER_BYTES_DEFAULT: usize = 64 << 20;
/// Time from sending a record to giving it up, queueing and repeats included.
pub const DELIVERY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// Bytes that one fetch asks for.
pub const FETCH_BYTES_DEFAULT: usize = 1 << 20;
/// Fewest bytes that one fetch asks for, however many partitions share the space.
pub const FETCH_BYTES_MIN: usize = 16 << 10;
/// Bytes of batches that a consumer holds beyond what it has handed out.
pub const PREFETCH_BYTES_DEFAULT: usize = 16 << 20;
/// Memory of inflated batches that a consumer keeps to be used again.
pub const INFLATED_KEPT_MAX: usize = 4;
/// Largest of them, in bytes; a larger one goes with its batch.
pub const INFLATED_KEPT_BYTES_MAX: usize = 4 << 20;
/// Time that a broker may keep a fetch waiting for news.
pub const FETCH_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Time after which an unanswered request breaks its connection.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Time to connect to a broker's shared port.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// Time to connect to a shard's own port before the shared one is used instead.
pub const SHARD_CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// Space offered to a read of a socket while no large frame is arriving, in bytes.
pub const READ_BYTES_MIN: usize = 16 << 10;

/// Reads of one connection in one turn of the synchronous face.
pub const TURN_READS_MAX: usize = 16;
/// Time after which sending a record looks at the sockets of the synchronous face, too.
pub const LOOK_PAUSE: Duration = Duration::from_micros(50);

/// Time between two tries of a shard's port that couldn't be reached; they cost the traffic nothing.
pub const PROBE_PAUSE: Duration = Duration::from_secs(10);

/// First pause before a repeat; doubles with each.
pub const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause before a repeat.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Longest time that records wait for the metadata that a reply told of; what is known goes on
/// being used after it.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Shortest time between two refreshes of the metadata.
pub const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// Requests of one connection that may be under way or waiting to be written.
pub const CONNECTION_REQUESTS_MAX: usize = 1 << 16;

const _: () = {
    assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX, "a default is legal");
    assert!(
        BATCH_RECORDS_DEFAULT <= BATCH_RECORDS_MAX,
        "a default is legal"
    );
    assert!(
        BUFFER_BYTES_DEFAULT >= IN_FLIGHT_MAX * BATCH_BYTES_DEFAULT,
        "one partition can fill its flight"
    );
    assert!(
        FETCH_BYTES_MIN <= FETCH_BYTES_DEFAULT && FETCH_BYTES_DEFAULT <= PREFETCH_BYTES_DEFAULT,
        "one partition can fetch a whole share"
    );
    assert!(
        FRAME_HEAD_BYTES_MAX < BATCH_BYTES_MAX,
        "a reply's space is that of its data"
    );
};
