//! Every limit of the formats, and why they fit together.

/// Version of the batch format that this build writes and reads. Its bytes never change.
pub const BATCH_VERSION: u16 = 1;
/// Lowest protocol version this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Highest protocol version this build speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

/// Bytes of a batch header, leader's and producer's part together.
pub const BATCH_HEADER_BYTES: usize = 128;
/// Bytes of the leader's part: the first byte that the body CRC covers.
pub const LEADER_PART_BYTES: usize = 48;
/// Bytes of one entry of the record table.
pub const ENTRY_BYTES: usize = 32;
/// Bytes of the archive's root: two 32-bit relative pointers with their lengths.
pub const BODY_ROOT_BYTES: usize = 16;
/// Alignment of batches, frames and typed values, in bytes.
pub const ALIGNMENT: usize = 16;

/// Largest batch that any broker accepts, in bytes, header included.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// Most records in a batch.
pub const BATCH_RECORDS_MAX: usize = 1 << 20;
/// Largest tag, in bytes; its length is stored in one byte.
pub const TAG_BYTES_MAX: usize = u8::MAX as usize;
/// Largest encoded headers of one record, in bytes; their length is stored in two bytes.
pub const HEADERS_BYTES_MAX: usize = u16::MAX as usize;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Largest typed part (head) of a frame, in bytes: a metadata reply that names 10,000 partitions
/// takes about 250 KiB.
pub const FRAME_HEAD_BYTES_MAX: usize = 8 << 20;
/// Largest frame, in bytes: the largest batch beside a produce request's head.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + FRAME_HEAD_BYTES_MAX + FRAME_HEADER_BYTES;

/// Longest topic name, in bytes: a name has to fit where others use it as a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 100_000;
/// Most topics named in one metadata request, so that answering one takes well below a millisecond;
/// asking for all has no such limit.
pub const METADATA_TOPICS_MAX: usize = 1_000;
/// Most configuration keys in one request or reply.
pub const CONFIG_ENTRIES_MAX: usize = 256;
/// Longest string inside a request, in bytes; its length is stored in two bytes.
pub const STRING_BYTES_MAX: usize = u16::MAX as usize;

const _: () = {
    assert!(
        BATCH_HEADER_BYTES.is_multiple_of(ALIGNMENT),
        "the archive starts aligned"
    );
    assert!(
        LEADER_PART_BYTES.is_multiple_of(ALIGNMENT),
        "the body CRC runs over aligned bytes"
    );
    assert!(
        FRAME_HEADER_BYTES.is_multiple_of(ALIGNMENT),
        "a batch in a frame starts aligned"
    );
    assert!(
        BATCH_BYTES_MAX < i32::MAX as usize,
        "relative pointers have 32 bits and a sign"
    );
    assert!(
        FRAME_BYTES_MAX < u32::MAX as usize,
        "a frame's length has 32 bits"
    );
    assert!(
        BATCH_RECORDS_MAX * ENTRY_BYTES < BATCH_BYTES_MAX,
        "a full table leaves room for the blob"
    );
};

/// `bytes` rounded up to the format's alignment.
#[must_use]
pub const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}
