//! Building a batch: records go into a table and a blob; sealing puts them behind a header.

use rend::{i32_le, u16_le, u32_le};

use crate::batch::body::{BatchBytes, Body, Entry, entry_flags};
use crate::batch::codec::Codec;
use crate::batch::compression::Compressor;
use crate::batch::header::{Attributes, BatchHeader, at};
use crate::batch::record::{RecordRef, tag_hash, tag_summary};
use crate::ids::{ProducerEpoch, ProducerId, Sequence};
use crate::limits::{
    ALIGNMENT, BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_RECORDS_MAX, BATCH_VERSION,
    BODY_ROOT_BYTES, ENTRY_BYTES, HEADERS_BYTES_MAX, LEADER_PART_BYTES, TAG_BYTES_MAX, aligned,
};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of the sealed batch before compression. A single record may exceed it, up to 64 MiB.
    pub bytes_max: usize,
    /// Records.
    pub records_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            records_max: 10_000,
        }
    }
}

/// Why a record didn't go into the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchFull {
    /// It goes into the next batch: seal this one first.
    #[error("the batch is full")]
    Full,
    /// It fits no batch at all.
    #[error("the record takes {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of the part that is too large.
        bytes: usize,
        /// Its limit.
        limit: usize,
    },
}

/// Who sends the batch and where it stands in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer, or none: then nothing is checked for duplicates.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the batch's first record.
    pub first_sequence: Sequence,
}

/// A sealed batch, ready to be sent.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The batch's bytes, 16-aligned.
    pub bytes: BatchBytes,
    /// Records in it.
    pub record_count: u32,
}

/// Collects records; used again after each [`BatchBuilder::seal`].
#[derive(Debug)]
pub struct BatchBuilder {
    limits: BatchLimits,
    table: Vec<u8>,
    blob: Vec<u8>,
    typed_layout: Option<u64>,
    first_timestamp_us: i64,
    max_timestamp_us: i64,
    tag_summary: u64,
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits: BatchLimits {
                bytes_max: limits.bytes_max.min(BATCH_BYTES_MAX),
                records_max: limits.records_max.clamp(1, BATCH_RECORDS_MAX),
            },
            table: Vec::new(),
            blob: Vec::new(),
            typed_layout: None,
            first_timestamp_us: 0,
            max_timestamp_us: 0,
            tag_summary: 0,
        }
    }

    /// An empty builder for values that are archives of one type: each starts 16-aligned, and the
    /// batch carries `layout`.
    #[must_use]
    pub fn typed(limits: BatchLimits, layout: u64) -> Self {
        Self {
            typed_layout: Some(layout),
            ..Self::new(limits)
        }
    }

    /// Records so far.
    #[must_use]
    pub const fn record_count(&self) -> usize {
        self.table.len() / ENTRY_BYTES
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of the batch if it were sealed now, uncompressed.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        sealed_bytes(self.record_count(), self.blob.len())
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`BatchFull::Full`] when it belongs into the next batch, because of a limit or because its
    /// timestamp is more than 35 minutes from the batch's first; [`BatchFull::TooLarge`] when no
    /// batch can hold it.
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), BatchFull> {
        let start = match self.typed_layout {
            Some(_) => aligned(self.blob.len()),
            None => self.blob.len(),
        };
        let delta_us = self.admit(record, start)?;
        let tag = record.tag.unwrap_or_default();
        let hash = if record.tag.is_some() {
            tag_hash(tag)
        } else {
            0
        };
        let flag = |present: bool, flag: u8| if present { flag } else { 0 };
        let entry = Entry {
            offset_delta: u32_le::from_native(self.record_count() as u32),
            position: u32_le::from_native(start as u32),
            crc: u32_le::from_native(0),
            timestamp_delta_us: i32_le::from_native(delta_us),
            value_bytes: u32_le::from_native(record.value.map_or(0, |value| value.len() as u32)),
            key_bytes: u32_le::from_native(record.key.map_or(0, |key| key.len() as u32)),
            tag_hash: u32_le::from_native(hash),
            headers_bytes: u16_le::from_native(record.headers.len() as u16),
            tag_bytes: tag.len() as u8,
            flags: flag(record.key.is_some(), entry_flags::KEY)
                | flag(record.value.is_some(), entry_flags::VALUE)
                | flag(record.tag.is_some(), entry_flags::TAG),
        };
        self.blob
            .reserve(start - self.blob.len() + record.blob_bytes());
        self.blob.resize(start, 0);
        for part in [record.value, record.key, Some(record.headers), record.tag] {
            self.blob.extend_from_slice(part.unwrap_or_default());
        }
        self.table
            .extend_from_slice(&entry.to_bytes_over(&self.blob[start..]));
        if record.tag.is_some() {
            self.tag_summary |= tag_summary(hash);
        }
        self.max_timestamp_us = self.max_timestamp_us.max(record.timestamp_us);
        Ok(())
    }

    /// Whether the record fits; its timestamp's distance from the first.
    fn admit(&mut self, record: &RecordRef<'_>, start: usize) -> Result<i32, BatchFull> {
        let too_large = |bytes, limit| Err(BatchFull::TooLarge { bytes, limit });
        if record.headers.len() > HEADERS_BYTES_MAX {
            return too_large(record.headers.len(), HEADERS_BYTES_MAX);
        }
        let tag_bytes = record.tag.map_or(0, <[u8]>::len);
        if tag_bytes > TAG_BYTES_MAX {
            return too_large(tag_bytes, TAG_BYTES_MAX);
        }
        let alone = sealed_bytes(1, record.blob_bytes());
        if alone > BATCH_BYTES_MAX {
            return too_large(alone, BATCH_BYTES_MAX);
        }
        if self.is_empty() {
            self.first_timestamp_us = record.timestamp_us;
            self.max_timestamp_us = record.timestamp_us;
            return Ok(0);
        }
        let bytes = sealed_bytes(self.record_count() + 1, start + record.blob_bytes());
        if bytes > self.limits.bytes_max || self.record_count() >= self.limits.records_max {
            return Err(BatchFull::Full);
        }
        let delta_us = record.timestamp_us.checked_sub(self.first_timestamp_us);
        delta_us
            .and_then(|delta| i32::try_from(delta).ok())
            .ok_or(BatchFull::Full)
    }

    /// Puts the records behind a header and empties the builder. `None` when there are none.
    pub fn seal(&mut self, producer: ProducerStamp) -> Option<Sealed> {
        self.seal_with(producer, Codec::None, &mut Compressor::new())
    }

    /// Like [`BatchBuilder::seal`], with the blob packed. It stays as it is where packing doesn't
    /// make it shorter, or where this build doesn't have the codec.
    pub fn seal_with(
        &mut self,
        producer: ProducerStamp,
        codec: Codec,
        compressor: &mut Compressor,
    ) -> Option<Sealed> {
        if self.is_empty() {
            return None;
        }
        let (codec, blob) = match compressor.pack(codec, &self.blob) {
            Some(packed) => (codec, packed),
            None => (Codec::None, &self.blob[..]),
        };
        let sealed = self.assemble(producer, codec, blob);
        self.table.clear();
        self.blob.clear();
        self.tag_summary = 0;
        Some(sealed)
    }

    /// The batch's bytes, with the blob as it is to stand in it.
    fn assemble(&self, producer: ProducerStamp, codec: Codec, blob: &[u8]) -> Sealed {
        let record_count = self.record_count();
        let blob_start = self.table.len();
        let root_start = aligned(blob_start + blob.len());
        let archive_bytes = root_start + BODY_ROOT_BYTES;
        let batch_bytes = BATCH_HEADER_BYTES + archive_bytes;
        let typed = self.typed_layout.map_or(0, |_| Attributes::TYPED);
        let header = BatchHeader {
            version: BATCH_VERSION,
            batch_bytes: batch_bytes as u32,
            archive_bytes: archive_bytes as u32,
            blob_bytes: self.blob.len() as u32,
            record_count: record_count as u32,
            last_offset_delta: record_count as u32 - 1,
            attributes: Attributes(typed | u32::from(codec.number())),
            first_timestamp_us: self.first_timestamp_us,
            max_timestamp_us: self.max_timestamp_us,
            producer_id: producer.id,
            tag_summary: self.tag_summary,
            first_sequence: producer.first_sequence,
            producer_epoch: producer.epoch,
            layout: self.typed_layout.unwrap_or(0),
            ..BatchHeader::default()
        };
        let mut bytes = BatchBytes::with_capacity(batch_bytes);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&self.table);
        bytes.extend_from_slice(blob);
        bytes.resize(BATCH_HEADER_BYTES + root_start, 0);
        let root = Body::root_bytes(record_count, blob_start, blob.len(), root_start);
        bytes.extend_from_slice(&root);
        let body_crc = crc32c::crc32c(&bytes[LEADER_PART_BYTES..]);
        bytes[at::BODY_CRC..at::BODY_CRC + 4].copy_from_slice(&body_crc.to_le_bytes());
        Sealed {
            bytes,
            record_count: record_count as u32,
        }
    }
}

/// Bytes of a sealed batch.
const fn sealed_bytes(records: usize, blob_bytes: usize) -> usize {
    BATCH_HEADER_BYTES + aligned(records * ENTRY_BYTES + blob_bytes) + BODY_ROOT_BYTES
}

const _: () = assert!(
    BODY_ROOT_BYTES == ALIGNMENT,
    "the root needs no padding of its own"
);
