//! The door: bytes become a [`CheckedBatch`], which can only be right.

use crate::batch::body::{Body, Entry, entry_flags};
use crate::batch::error::BatchError;
use crate::batch::header::{Attributes, BatchHeader, header_crc};
use crate::batch::record::{Headers, RecordView, tag_hash, tag_summary};
use crate::ids::Offset;
use crate::limits::{
    ALIGNMENT, BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_RECORDS_MAX, BODY_ROOT_BYTES,
    ENTRY_BYTES, LEADER_PART_BYTES,
};

/// Reads a header and checks that its lengths make sense, before the rest of the batch is there.
/// With `stamped`, its CRC too: a batch from a disk or a broker has one, a producer's not yet.
///
/// # Errors
/// Those of [`BatchHeader::decode`], [`BatchError::Crc`] and [`BatchError::Field`].
pub fn check_header(bytes: &[u8], stamped: bool) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::decode(bytes)?;
    if stamped {
        let computed = header_crc(&bytes[..BATCH_HEADER_BYTES]);
        if computed != header.header_crc {
            let stored = header.header_crc;
            return Err(BatchError::Crc {
                part: "header",
                stored,
                computed,
            });
        }
    }
    let field = |field, value: u32, why| {
        Err(BatchError::Field {
            field,
            value: value.into(),
            why,
        })
    };
    let batch_bytes = header.batch_bytes as usize;
    let archive_bytes = header.archive_bytes as usize;
    let table_bytes = u64::from(header.record_count) * ENTRY_BYTES as u64;
    if batch_bytes > BATCH_BYTES_MAX {
        return field(
            "batch_bytes",
            header.batch_bytes,
            "a batch has at most 64 MiB",
        );
    }
    if BATCH_HEADER_BYTES + archive_bytes.next_multiple_of(ALIGNMENT) != batch_bytes {
        return field(
            "batch_bytes",
            header.batch_bytes,
            "it is the header and the padded archive",
        );
    }
    if header.record_count == 0 || header.record_count as usize > BATCH_RECORDS_MAX {
        return field(
            "record_count",
            header.record_count,
            "it is between 1 and 2^20",
        );
    }
    if table_bytes + BODY_ROOT_BYTES as u64 > archive_bytes as u64 {
        return field(
            "record_count",
            header.record_count,
            "the table doesn't fit the archive",
        );
    }
    if header.last_offset_delta < header.record_count - 1 {
        return field(
            "last_offset_delta",
            header.last_offset_delta,
            "offsets would repeat",
        );
    }
    if header
        .base_offset
        .0
        .checked_add(header.last_offset_delta.into())
        .is_none()
    {
        return field(
            "last_offset_delta",
            header.last_offset_delta,
            "offsets would overflow",
        );
    }
    if header.blob_bytes as usize > BATCH_BYTES_MAX {
        return field("blob_bytes", header.blob_bytes, "a blob has at most 64 MiB");
    }
    if header.attributes.0 & !Attributes::KNOWN != 0 {
        return field(
            "attributes",
            header.attributes.0,
            "unknown bits are zero in this version",
        );
    }
    Ok(header)
}

/// Checks a batch that a producer sent, before it is appended: no header CRC yet, no gaps between
/// offsets, nothing that only a broker may set, and every count and hash as the records have it.
///
/// # Errors
/// [`BatchError`] names the first thing that is wrong.
pub fn check_produced(bytes: &[u8]) -> Result<CheckedBatch<'_>, BatchError> {
    let header = check_header(bytes, false)?;
    let field = |field, value, why| Err(BatchError::Field { field, value, why });
    if header.attributes.0 & !Attributes::PRODUCIBLE != 0 {
        return field(
            "attributes",
            header.attributes.0.into(),
            "only a broker sets these",
        );
    }
    if header.last_offset_delta != header.record_count - 1 {
        let value = header.last_offset_delta.into();
        return field(
            "last_offset_delta",
            value,
            "a new batch has no gaps between offsets",
        );
    }
    let batch = CheckedBatch::open(bytes, header)?;
    let mut summary = 0;
    let mut largest_us = header.first_timestamp_us;
    for entry in batch.entries() {
        if entry.flags & entry_flags::TAG != 0 {
            summary |= tag_summary(entry.tag_hash.to_native());
        }
        let delta_us = entry.timestamp_delta_us.to_native();
        largest_us = largest_us.max(header.first_timestamp_us.saturating_add(delta_us.into()));
    }
    if summary != header.tag_summary {
        return field(
            "tag_summary",
            header.tag_summary,
            "it is the union of the records' tags",
        );
    }
    if largest_us != header.max_timestamp_us {
        let value = header.max_timestamp_us as u64;
        return field(
            "max_timestamp_us",
            value,
            "it is the largest of the records' timestamps",
        );
    }
    Ok(batch)
}

/// A batch whose body CRC, structure and every entry were checked. Reading it can't fail.
#[derive(Clone, Copy, Debug)]
pub struct CheckedBatch<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
    table: &'a [Entry],
    blob: &'a [u8],
}

impl<'a> CheckedBatch<'a> {
    /// Checks a batch that a broker has stamped: both CRCs, then everything else. `bytes` may go
    /// on behind the batch and must be 4-aligned, 16-aligned if values are typed.
    ///
    /// # Errors
    /// [`BatchError`] names the first thing that is wrong.
    pub fn check(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = check_header(bytes, true)?;
        Self::open(bytes, header)
    }

    fn open(bytes: &'a [u8], header: BatchHeader) -> Result<Self, BatchError> {
        let wanted = header.batch_bytes as usize;
        let Some(bytes) = bytes.get(..wanted) else {
            return Err(BatchError::Truncated {
                wanted,
                left: bytes.len(),
            });
        };
        let computed = crc32c::crc32c(&bytes[LEADER_PART_BYTES..]);
        if computed != header.body_crc {
            return Err(BatchError::Crc {
                part: "body",
                stored: header.body_crc,
                computed,
            });
        }
        let archive_end = BATCH_HEADER_BYTES + header.archive_bytes as usize;
        let body = Body::access(&bytes[BATCH_HEADER_BYTES..archive_end])?;
        let batch = Self {
            header,
            bytes,
            table: body.table.as_slice(),
            blob: body.blob.as_slice(),
        };
        batch.check_entries(&bytes[archive_end..])?;
        Ok(batch)
    }

    fn check_entries(&self, padding: &[u8]) -> Result<(), BatchError> {
        let header = &self.header;
        let field = |field, value: u32, why| {
            Err(BatchError::Field {
                field,
                value: value.into(),
                why,
            })
        };
        if padding.iter().any(|&byte| byte != 0) {
            return field(
                "archive_bytes",
                header.archive_bytes,
                "the bytes after it are zeros",
            );
        }
        if self.table.len() != header.record_count as usize {
            return field(
                "record_count",
                header.record_count,
                "the table has another length",
            );
        }
        if header.attributes.codec() != 0 {
            return Err(BatchError::Codec(header.attributes.codec()));
        }
        if self.blob.len() != header.blob_bytes as usize {
            return field(
                "blob_bytes",
                header.blob_bytes,
                "the blob has another length",
            );
        }
        let mut walk = Walk {
            offset_next: 0,
            blob_end: 0,
        };
        for (index, entry) in self.table.iter().enumerate() {
            walk.entry(entry, self)
                .map_err(|why| BatchError::Record { index, why })?;
        }
        match walk.offset_next.checked_sub(1) {
            Some(last) if last == u64::from(header.last_offset_delta) => Ok(()),
            _ => field(
                "last_offset_delta",
                header.last_offset_delta,
                "the last record's differs",
            ),
        }
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's own bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The record table.
    #[must_use]
    pub const fn entries(&self) -> &'a [Entry] {
        self.table
    }

    /// The records, in the order of their offsets.
    #[must_use]
    pub const fn records(&self) -> Records<'a> {
        Records {
            base_offset: self.header.base_offset,
            first_timestamp_us: self.header.first_timestamp_us,
            table: self.table,
            blob: self.blob,
        }
    }
}

/// What is known while walking the table.
struct Walk {
    offset_next: u64,
    blob_end: u64,
}

impl Walk {
    fn entry(&mut self, entry: &Entry, batch: &CheckedBatch<'_>) -> Result<(), &'static str> {
        let offset_delta = u64::from(entry.offset_delta.to_native());
        if offset_delta < self.offset_next {
            return Err("offsets go back or repeat");
        }
        self.offset_next = offset_delta + 1;
        let start = u64::from(entry.position.to_native());
        let gap = start
            .checked_sub(self.blob_end)
            .ok_or("its bytes overlap the record before")?;
        if gap >= ALIGNMENT as u64 {
            return Err("bytes of the blob before it belong to no record");
        }
        self.blob_end = start + entry.record_bytes();
        if self.blob_end > batch.blob.len() as u64 {
            return Err("its bytes go beyond the blob");
        }
        if entry.flags & !entry_flags::KNOWN != 0 {
            return Err("unknown flags are zero in this version");
        }
        let absent = |flag, bytes| entry.flags & flag == 0 && bytes != 0;
        if absent(entry_flags::KEY, entry.key_bytes.to_native())
            || absent(entry_flags::VALUE, entry.value_bytes.to_native())
            || absent(entry_flags::TAG, entry.tag_bytes.into())
        {
            return Err("a part that it says is absent has a length");
        }
        let bytes = &batch.blob[start as usize..self.blob_end as usize];
        self.headers_and_tag(entry, bytes)
    }

    fn headers_and_tag(&self, entry: &Entry, bytes: &[u8]) -> Result<(), &'static str> {
        if entry.headers_bytes.to_native() == 0 && entry.flags & entry_flags::TAG == 0 {
            return if entry.tag_hash.to_native() == 0 {
                Ok(())
            } else {
                Err("a hash without a tag")
            };
        }
        let tag_start = bytes.len() - usize::from(entry.tag_bytes);
        let headers_start = tag_start - usize::from(entry.headers_bytes.to_native());
        if !Headers::valid(&bytes[headers_start..tag_start]) {
            return Err("its headers can't be decoded");
        }
        let hash = match entry.flags & entry_flags::TAG {
            0 => 0,
            _ => tag_hash(&bytes[tag_start..]),
        };
        if hash != entry.tag_hash.to_native() {
            return Err("its tag has another hash");
        }
        Ok(())
    }
}

/// Iterates over a batch's records in place.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    base_offset: Offset,
    first_timestamp_us: i64,
    table: &'a [Entry],
    blob: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        let (entry, rest) = self.table.split_first()?;
        self.table = rest;
        let start = entry.position.to_native() as usize;
        let bytes = &self.blob[start..start + entry.record_bytes() as usize];
        let offset = self.base_offset.plus(entry.offset_delta.to_native().into());
        Some(RecordView::new(
            offset,
            self.first_timestamp_us,
            entry,
            bytes,
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.table.len(), Some(self.table.len()))
    }
}

impl ExactSizeIterator for Records<'_> {}
