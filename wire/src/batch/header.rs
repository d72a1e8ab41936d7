//! The batch header: the leader's part, which the broker fills in at the append, and the producer's
//! part, which is under the body CRC and never changes.

use crate::batch::error::BatchError;
use crate::ids::{LeaderEpoch, LogId, Offset, ProducerEpoch, ProducerId, Sequence};
use crate::limits::{BATCH_HEADER_BYTES, BODY_ROOT_BYTES, ENTRY_BYTES, LEADER_PART_BYTES, aligned};

/// The first four bytes of every batch: "RWB1" read as little-endian.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"RWB1");

/// Where each field starts, in bytes from the batch's start. Part of the format.
pub mod at {
    #![allow(
        missing_docs,
        reason = "the names are those of the fields of BatchHeader"
    )]
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 4;
    pub const LEADER_RESERVED: usize = 6;
    pub const LOG_ID: usize = 8;
    pub const BASE_OFFSET: usize = 16;
    pub const APPEND_TIME_US: usize = 24;
    pub const LEADER_EPOCH: usize = 32;
    pub const PREV_HEADER_CRC: usize = 36;
    pub const BODY_CRC: usize = 40;
    pub const HEADER_CRC: usize = 44;

    pub const BATCH_BYTES: usize = 48;
    pub const ARCHIVE_BYTES: usize = 52;
    pub const BLOB_BYTES: usize = 56;
    pub const RECORD_COUNT: usize = 60;
    pub const LAST_OFFSET_DELTA: usize = 64;
    pub const ATTRIBUTES: usize = 68;
    pub const FIRST_TIMESTAMP_US: usize = 72;
    pub const MAX_TIMESTAMP_US: usize = 80;
    pub const PRODUCER_ID: usize = 88;
    pub const TAG_SUMMARY: usize = 96;
    pub const FIRST_SEQUENCE: usize = 104;
    pub const PRODUCER_EPOCH: usize = 108;
    pub const RESERVED: usize = 110;
    pub const LAYOUT: usize = 112;
    pub const RESERVED_LAST: usize = 120;
    pub const END: usize = 128;
}

const _: () = {
    assert!(
        at::BATCH_BYTES == LEADER_PART_BYTES,
        "the producer's part follows the leader's"
    );
    assert!(
        at::END == BATCH_HEADER_BYTES,
        "the header ends where the archive starts"
    );
};

/// What a batch is beside its records. Bits not named here must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    /// Bits 0–3: the number of the blob's [`Codec`](crate::batch::Codec).
    pub const CODEC: u32 = 0x0f;
    /// Bit 4: the batch holds control records, not a user's.
    pub const CONTROL: u32 = 1 << 4;
    /// Bit 5: the batch belongs to a transaction.
    pub const TRANSACTIONAL: u32 = 1 << 5;
    /// Bit 6: values are archives of one type, 16-aligned; `layout` names it.
    pub const TYPED: u32 = 1 << 6;
    /// Bit 7: records are to be delivered later.
    pub const DELAYED: u32 = 1 << 7;
    /// Every bit that has a meaning.
    pub const KNOWN: u32 = 0xff;
    /// The bits that this version of the broker accepts from a producer.
    pub const PRODUCIBLE: u32 = Self::CODEC | Self::TYPED;

    /// The codec's number, which need not be one of the format's; 0 is none.
    #[must_use]
    pub const fn codec(self) -> u8 {
        (self.0 & Self::CODEC) as u8
    }

    /// Whether all bits of `mask` are set.
    #[must_use]
    pub const fn has(self, mask: u32) -> bool {
        self.0 & mask == mask
    }
}

/// Every field of a batch header, in native integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchHeader {
    /// Format version of the batch.
    pub version: u16,
    /// The partition that the batch was appended to.
    pub log_id: LogId,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Microseconds since 1970 when the leader appended it; never goes back within a partition.
    pub append_time_us: i64,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Header CRC of the batch before it in the partition; 0 before the first.
    pub prev_header_crc: u32,
    /// CRC32C of the producer's part and everything after it.
    pub body_crc: u32,
    /// CRC32C of all other header bytes.
    pub header_crc: u32,
    /// Bytes of the whole batch, header included; a multiple of 16.
    pub batch_bytes: u32,
    /// Bytes of the archive: table, blob, zeros, root; a multiple of 16.
    pub archive_bytes: u32,
    /// Bytes of the blob before compression.
    pub blob_bytes: u32,
    /// Records in the batch; at least 1.
    pub record_count: u32,
    /// Last offset that the batch stands for, less the base offset. Compaction may have removed
    /// that record.
    pub last_offset_delta: u32,
    /// Codec and kinds.
    pub attributes: Attributes,
    /// Timestamp that those of the records are counted from, in microseconds since 1970: that of
    /// the first record as produced.
    pub first_timestamp_us: i64,
    /// Largest timestamp of the batch, in microseconds since 1970.
    pub max_timestamp_us: i64,
    /// The producer, or none.
    pub producer_id: ProducerId,
    /// Union of the records' tag summaries.
    pub tag_summary: u64,
    /// Sequence of the first record.
    pub first_sequence: Sequence,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// The layout of typed values; 0 where they are bytes.
    pub layout: u64,
}

fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    bytes[start..start + N]
        .try_into()
        .expect("the range has the array's length")
}

fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(array(bytes, start))
}

fn u64_at(bytes: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(array(bytes, start))
}

impl BatchHeader {
    /// Reads the fields at the start of `bytes`; checks magic, version and reserved bytes, no CRC.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Magic`], [`BatchError::Version`] and
    /// [`BatchError::Field`] for reserved bytes that aren't zero.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                wanted: BATCH_HEADER_BYTES,
                left: bytes.len(),
            });
        };
        let magic = u32_at(bytes, at::MAGIC);
        if magic != BATCH_MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let version = u16::from_le_bytes(array(bytes, at::VERSION));
        if version != crate::limits::BATCH_VERSION {
            return Err(BatchError::Version(version));
        }
        let reserved = u64::from(u16::from_le_bytes(array(bytes, at::LEADER_RESERVED)))
            | u64::from(u16::from_le_bytes(array(bytes, at::RESERVED)))
            | u64_at(bytes, at::RESERVED_LAST);
        if reserved != 0 {
            let why = "reserved bytes are zero in this version";
            return Err(BatchError::Field {
                field: "reserved",
                value: reserved,
                why,
            });
        }
        Ok(Self {
            version,
            log_id: LogId(u64_at(bytes, at::LOG_ID)),
            base_offset: Offset(u64_at(bytes, at::BASE_OFFSET)),
            append_time_us: i64::from_le_bytes(array(bytes, at::APPEND_TIME_US)),
            leader_epoch: LeaderEpoch(u32_at(bytes, at::LEADER_EPOCH)),
            prev_header_crc: u32_at(bytes, at::PREV_HEADER_CRC),
            body_crc: u32_at(bytes, at::BODY_CRC),
            header_crc: u32_at(bytes, at::HEADER_CRC),
            batch_bytes: u32_at(bytes, at::BATCH_BYTES),
            archive_bytes: u32_at(bytes, at::ARCHIVE_BYTES),
            blob_bytes: u32_at(bytes, at::BLOB_BYTES),
            record_count: u32_at(bytes, at::RECORD_COUNT),
            last_offset_delta: u32_at(bytes, at::LAST_OFFSET_DELTA),
            attributes: Attributes(u32_at(bytes, at::ATTRIBUTES)),
            first_timestamp_us: i64::from_le_bytes(array(bytes, at::FIRST_TIMESTAMP_US)),
            max_timestamp_us: i64::from_le_bytes(array(bytes, at::MAX_TIMESTAMP_US)),
            producer_id: ProducerId(u64_at(bytes, at::PRODUCER_ID)),
            tag_summary: u64_at(bytes, at::TAG_SUMMARY),
            first_sequence: Sequence(u32_at(bytes, at::FIRST_SEQUENCE)),
            producer_epoch: ProducerEpoch(u16::from_le_bytes(array(bytes, at::PRODUCER_EPOCH))),
            layout: u64_at(bytes, at::LAYOUT),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let mut put = |start: usize, field: &[u8]| {
            bytes[start..start + field.len()].copy_from_slice(field);
        };
        put(at::MAGIC, &BATCH_MAGIC.to_le_bytes());
        put(at::VERSION, &self.version.to_le_bytes());
        put(at::LOG_ID, &self.log_id.0.to_le_bytes());
        put(at::BASE_OFFSET, &self.base_offset.0.to_le_bytes());
        put(at::APPEND_TIME_US, &self.append_time_us.to_le_bytes());
        put(at::LEADER_EPOCH, &self.leader_epoch.0.to_le_bytes());
        put(at::PREV_HEADER_CRC, &self.prev_header_crc.to_le_bytes());
        put(at::BODY_CRC, &self.body_crc.to_le_bytes());
        put(at::HEADER_CRC, &self.header_crc.to_le_bytes());
        put(at::BATCH_BYTES, &self.batch_bytes.to_le_bytes());
        put(at::ARCHIVE_BYTES, &self.archive_bytes.to_le_bytes());
        put(at::BLOB_BYTES, &self.blob_bytes.to_le_bytes());
        put(at::RECORD_COUNT, &self.record_count.to_le_bytes());
        put(at::LAST_OFFSET_DELTA, &self.last_offset_delta.to_le_bytes());
        put(at::ATTRIBUTES, &self.attributes.0.to_le_bytes());
        put(
            at::FIRST_TIMESTAMP_US,
            &self.first_timestamp_us.to_le_bytes(),
        );
        put(at::MAX_TIMESTAMP_US, &self.max_timestamp_us.to_le_bytes());
        put(at::PRODUCER_ID, &self.producer_id.0.to_le_bytes());
        put(at::TAG_SUMMARY, &self.tag_summary.to_le_bytes());
        put(at::FIRST_SEQUENCE, &self.first_sequence.0.to_le_bytes());
        put(at::PRODUCER_EPOCH, &self.producer_epoch.0.to_le_bytes());
        put(at::LAYOUT, &self.layout.to_le_bytes());
        bytes
    }

    /// Bytes of the whole batch with its blob uncompressed; at most 64 MiB in a header that
    /// [`check_header`](crate::batch::check_header) took, and `batch_bytes` where no codec is set.
    #[must_use]
    pub const fn inflated_bytes(&self) -> usize {
        let (records, blob_bytes) = (self.record_count as usize, self.blob_bytes as usize);
        let body_bytes = records
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(blob_bytes);
        BATCH_HEADER_BYTES + aligned(body_bytes) + BODY_ROOT_BYTES
    }

    /// Offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64)
    }

    /// Offset that follows the batch.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }

    /// Sequence of the last record.
    #[must_use]
    pub const fn last_sequence(&self) -> Sequence {
        self.first_sequence.plus(self.last_offset_delta)
    }
}

/// What the leader puts into a batch when it appends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderStamp {
    /// The partition's name.
    pub log_id: LogId,
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Microseconds since 1970.
    pub append_time_us: i64,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Header CRC of the batch before; 0 before the first.
    pub prev_header_crc: u32,
}

/// Writes the leader's part into `batch` and returns its header CRC. The body and the producer's
/// part stay as they are.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn stamp(batch: &mut [u8], leader: &LeaderStamp) -> u32 {
    let header = &mut batch[..BATCH_HEADER_BYTES];
    header[at::LOG_ID..at::LOG_ID + 8].copy_from_slice(&leader.log_id.0.to_le_bytes());
    header[at::BASE_OFFSET..at::BASE_OFFSET + 8]
        .copy_from_slice(&leader.base_offset.0.to_le_bytes());
    header[at::APPEND_TIME_US..at::APPEND_TIME_US + 8]
        .copy_from_slice(&leader.append_time_us.to_le_bytes());
    header[at::LEADER_EPOCH..at::LEADER_EPOCH + 4]
        .copy_from_slice(&leader.leader_epoch.0.to_le_bytes());
    header[at::PREV_HEADER_CRC..at::PREV_HEADER_CRC + 4]
        .copy_from_slice(&leader.prev_header_crc.to_le_bytes());
    let crc = header_crc(header);
    header[at::HEADER_CRC..at::HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// CRC32C of every header byte but the CRC's own.
pub(super) fn header_crc(header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[..at::HEADER_CRC]);
    crc32c::crc32c_append(crc, &header[at::HEADER_CRC + 4..BATCH_HEADER_BYTES])
}
