//! Every limit of the engine, and why they fit together.

use ringway_wire::limits::{
    ALIGNMENT, BATCH_BYTES_MAX, FRAME_HEAD_BYTES_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_PARTITIONS_MAX,
};

/// The unit of direct I/O: positions, lengths and addresses are multiples of it. Larger than any
/// common device's logical block.
pub const BLOCK_BYTES: usize = 4096;
/// Largest single write of a commit round that may be made durable by itself (RWF_DSYNC) instead
/// of by a flush after it.
pub const DSYNC_BYTES_MAX: usize = 256 << 10;
/// Most bytes of one partition in one commit round, so that a busy partition doesn't hold up the
/// others' acknowledgements. A batch larger than this goes alone.
pub const ROUND_BYTES_MAX: usize = 8 << 20;
/// Writes of one commit round, each of another file: so many are open at once, and what a round's end
/// does for each of them is over in a fraction of a millisecond. The others go in the next one.
pub const ROUND_WRITES_MAX: usize = 512;
/// First chunk of a partition's append buffer; the next are twice as large up to the maximum.
pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Largest chunk of an append buffer, unless a single batch needs more.
pub const CHUNK_BYTES_MAX: usize = 2 << 20;
/// Bytes that a new segment has filled with zeros when its first write comes; a smaller segment is
/// filled whole.
pub const FILL_FIRST_BYTES: u64 = 4 << 20;
/// Bytes filled with zeros at a time ahead of the writer of a large segment.
pub const FILL_BYTES: u64 = 8 << 20;
/// A partition that has at least so much to write at once is not filled for: its writes allocate,
/// and the round syncs the file itself.
pub const FILL_PENDING_BYTES_MAX: u64 = 1 << 20;
/// Time after which something that failed for want of space is tried again, in nanoseconds.
pub const SPACE_RETRY_NS: u64 = 1_000_000_000;
/// Shortest and longest time between two looks at all partitions for what is too old, in
/// nanoseconds: the wall clock, which ages go by, may be set meanwhile.
pub const RETENTION_LOOK_NS_MIN: u64 = 1_000_000_000;
/// See [`RETENTION_LOOK_NS_MIN`].
pub const RETENTION_LOOK_NS_MAX: u64 = 60_000_000_000;
/// Partitions that one turn looks at for what is too old.
pub const RETENTION_LOOKS_PER_TURN: usize = 512;
/// Bytes of segments that retention has given up and a checkpoint has to let go, above which the
/// checkpoint is due at once: a busy partition that keeps little takes no more than that beyond it.
pub const SURPLUS_BYTES_MAX: u64 = 16 << 20;
/// Side files that are read at the same time for the age of their segments.
pub const AGES_LOADED_AT_ONCE: usize = 16;
/// Indexes of sealed segments that a shard keeps in memory, at most 64 KiB each.
pub const INDEXES_MAX: usize = 256;
/// Bytes of a cold read.
pub const READ_BYTES: usize = 512 << 10;
/// Part of the budget of cold reads that is read at the same time while there are writes, so that a
/// commit round doesn't wait for the device behind all of it.
pub const READS_BESIDE_WRITES: usize = 4;
/// How long after a commit round began or ended the next one is expected, in nanoseconds.
pub const WRITES_OVER_NS: u64 = 10_000_000;
/// Cold reads that fell behind their bytes per second catch up with at most so much time's worth, in
/// nanoseconds.
pub const READ_BURST_NS: u64 = 10_000_000;
/// A reader that has taken nothing for so long, in nanoseconds, of what was read from disk for it is
/// hung up on when others wait for the memory.
pub const READER_PATIENCE_NS: u64 = 5_000_000_000;
/// Partitions that a shard recovers at the same time.
pub const RECOVERING_MAX: usize = 64;
/// Partitions whose recovery a shard begins in one turn.
pub const OPENINGS_PER_TURN: usize = 256;
/// Bytes of a checkpoint that are encoded, or put together, in one turn; some tens of
/// microseconds. A partition that takes more goes alone.
pub const CHECKPOINT_STEP_BYTES: usize = 64 << 10;
/// Partitions that a checkpoint looks at in one turn.
pub const CHECKPOINT_STEP_PARTITIONS: usize = 256;
/// Fetches that may wait at one partition: all of them are answered at once when a record comes.
pub const WAITERS_MAX: usize = 16_384;
/// Deadlines that are attended to in one turn, and fetches of connections that are gone that are
/// forgotten in one; what is more waits for the next turn, so that nobody else does for long.
pub const STEPS_PER_TURN_MAX: usize = 1_000;
/// Bytes of one fetch reply, whatever the client asks for, if one batch isn't larger.
pub const FETCH_BYTES_MAX: usize = 8 << 20;
/// Smallest value of a topic's `segment_bytes`: the lowest step of the segment ladder.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest value of a topic's `segment_bytes`.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Topics of a cluster.
pub const TOPICS_MAX: usize = 10_000;
/// Partitions of all topics of a cluster together.
pub const PARTITIONS_MAX: usize = 200_000;
/// Bytes in a metadata reply of a topic, beside its partitions: its longest name, numbers and
/// lengths.
pub const METADATA_TOPIC_BYTES: usize = 2 + 2 + TOPIC_NAME_BYTES_MAX + 16 + 8 + 4;
/// Bytes in a metadata reply of a partition.
pub const METADATA_PARTITION_BYTES: usize = 4 + 4 + 2 + 4 + 1;
/// Bytes in a metadata reply set aside for its brokers.
pub const METADATA_BROKERS_BYTES: usize = 1 << 20;
/// Producer ids that are reserved at once; what is left of them at a stop is never used.
pub const PRODUCER_IDS_BLOCK: u32 = 1_000;
/// Most producer ids that one command may reserve.
pub const PRODUCER_IDS_MAX: u32 = 1 << 20;

const _: () = {
    assert!(
        BLOCK_BYTES.is_multiple_of(ALIGNMENT),
        "a batch that starts a block is aligned"
    );
    assert!(
        DSYNC_BYTES_MAX <= ROUND_BYTES_MAX,
        "a lone small write is a round"
    );
    assert!(
        CHUNK_BYTES_MIN.is_multiple_of(BLOCK_BYTES),
        "chunks are whole blocks"
    );
    assert!(
        CHUNK_BYTES_MAX.is_multiple_of(BLOCK_BYTES),
        "chunks are whole blocks"
    );
    assert!(
        BATCH_BYTES_MAX + BLOCK_BYTES < u32::MAX as usize,
        "a read's length has 32 bits"
    );
    assert!(
        METADATA_BROKERS_BYTES
            + TOPICS_MAX * METADATA_TOPIC_BYTES
            + PARTITIONS_MAX * METADATA_PARTITION_BYTES
            <= FRAME_HEAD_BYTES_MAX,
        "all of a full cluster's metadata fits one reply"
    );
    assert!(
        TOPIC_PARTITIONS_MAX as usize <= PARTITIONS_MAX,
        "the largest topic fits an empty cluster"
    );
    assert!(
        PRODUCER_IDS_BLOCK <= PRODUCER_IDS_MAX,
        "a broker's own block can be reserved"
    );
};

/// `position` rounded down to a block.
#[must_use]
pub const fn block_floor(position: u64) -> u64 {
    position & !(BLOCK_BYTES as u64 - 1)
}

/// `position` rounded up to a block.
#[must_use]
pub const fn block_ceil(position: u64) -> u64 {
    block_floor(position + BLOCK_BYTES as u64 - 1)
}
