//! The door: bytes become a [`CheckedBatch`], which can only be right.

use crate::batch::body::{Body, Entry, entry_flags};
use crate::batch::error::BatchError;
use crate::batch::header::{Attributes, BatchHeader, at, header_crc};
use crate::batch::record::{Headers, RecordView, tag_hash, tag_summary};
use crate::ids::Offset;
use crate::limits::{
    ALIGNMENT, BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_RECORDS_MAX, BODY_ROOT_BYTES,
    ENTRY_BYTES, LEADER_PART_BYTES, aligned,
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
    check_lengths(&header)?;
    check_numbers(&header)?;
    Ok(header)
}

fn field<T>(
    field: &'static str,
    value: impl Into<u64>,
    why: &'static str,
) -> Result<T, BatchError> {
    let value = value.into();
    Err(BatchError::Field { field, value, why })
}

fn check_lengths(header: &BatchHeader) -> Result<(), BatchError> {
    let batch_bytes = header.batch_bytes as usize;
    let archive_bytes = header.archive_bytes as usize;
    if batch_bytes > BATCH_BYTES_MAX {
        let why = "a batch has at most 64 MiB";
        return field("batch_bytes", header.batch_bytes, why);
    }
    if BATCH_HEADER_BYTES + archive_bytes != batch_bytes {
        let why = "it is the header and the archive";
        return field("batch_bytes", header.batch_bytes, why);
    }
    if !archive_bytes.is_multiple_of(ALIGNMENT) {
        let why = "it is a multiple of 16";
        return field("archive_bytes", header.archive_bytes, why);
    }
    if header.record_count == 0 || header.record_count as usize > BATCH_RECORDS_MAX {
        let why = "it is between 1 and 2^20";
        return field("record_count", header.record_count, why);
    }
    let table_bytes = header.record_count as usize * ENTRY_BYTES;
    if table_bytes + BODY_ROOT_BYTES > archive_bytes {
        let why = "the table doesn't fit the archive";
        return field("record_count", header.record_count, why);
    }
    let blob_bytes = header.blob_bytes as usize;
    if blob_bytes > BATCH_BYTES_MAX {
        let why = "a blob has at most 64 MiB";
        return field("blob_bytes", header.blob_bytes, why);
    }
    if header.attributes.codec() == 0
        && aligned(table_bytes + blob_bytes) + BODY_ROOT_BYTES != archive_bytes
    {
        let why = "table, blob and root don't make the archive";
        return field("blob_bytes", header.blob_bytes, why);
    }
    Ok(())
}

fn check_numbers(header: &BatchHeader) -> Result<(), BatchError> {
    let last_delta = header.last_offset_delta;
    if last_delta < header.record_count - 1 {
        return field("last_offset_delta", last_delta, "offsets would repeat");
    }
    let next = header.base_offset.0.checked_add(u64::from(last_delta) + 1);
    if next.is_none() {
        let why = "offsets would overflow";
        return field("base_offset", header.base_offset.0, why);
    }
    if header.attributes.0 & !Attributes::KNOWN != 0 {
        let why = "unknown bits are zero in this version";
        return field("attributes", header.attributes.0, why);
    }
    if header.layout != 0 && !header.attributes.has(Attributes::TYPED) {
        return field("layout", header.layout, "only typed values have one");
    }
    Ok(())
}

/// Checks a stamped batch by both its CRCs, and no further: who appended it has checked its
/// structure then. `bytes` may go on behind the batch.
///
/// # Errors
/// Those of [`check_header`], [`BatchError::Truncated`] and [`BatchError::Crc`].
pub fn check_crcs(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = check_header(bytes, true)?;
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
    Ok(header)
}

/// Checks a batch that a producer sent, before it is appended: nothing behind it, no leader's part
/// yet, no gaps between offsets, and nothing that only a broker may set. The records' own CRCs are
/// not checked: they are the producer's word to the reader, as the body CRC is to the broker.
///
/// `bytes` must be 4-aligned, 16-aligned if values are typed.
///
/// # Errors
/// [`BatchError`] names the first thing that is wrong.
pub fn check_produced(bytes: &[u8]) -> Result<CheckedBatch<'_>, BatchError> {
    let header = check_header(bytes, false)?;
    if bytes.len() > header.batch_bytes as usize {
        let why = "more bytes than the batch's are there";
        return field("batch_bytes", header.batch_bytes, why);
    }
    for (name, range) in LEADER_FIELDS {
        let value = bytes[range]
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        if value != 0 {
            return field(name, value, "only a broker sets it");
        }
    }
    if header.attributes.0 & !Attributes::PRODUCIBLE != 0 {
        let why = "only a broker sets these";
        return field("attributes", header.attributes.0, why);
    }
    if header.last_offset_delta != header.record_count - 1 {
        let why = "a new batch has no gaps between offsets";
        return field("last_offset_delta", header.last_offset_delta, why);
    }
    let batch = CheckedBatch::open(bytes, header)?;
    if batch.table[0].timestamp_delta_us.to_native() != 0 {
        let value = header.first_timestamp_us as u64;
        return field("first_timestamp_us", value, "it is the first record's");
    }
    Ok(batch)
}

/// The leader's part without magic, version and body CRC.
const LEADER_FIELDS: [(&str, std::ops::Range<usize>); 6] = [
    ("log_id", at::LOG_ID..at::BASE_OFFSET),
    ("base_offset", at::BASE_OFFSET..at::APPEND_TIME_US),
    ("append_time_us", at::APPEND_TIME_US..at::LEADER_EPOCH),
    ("leader_epoch", at::LEADER_EPOCH..at::PREV_HEADER_CRC),
    ("prev_header_crc", at::PREV_HEADER_CRC..at::BODY_CRC),
    ("header_crc", at::HEADER_CRC..at::BATCH_BYTES),
];

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
        let left = bytes.len();
        let Some(bytes) = bytes.get(..wanted) else {
            return Err(BatchError::Truncated { wanted, left });
        };
        let typed = header.attributes.has(Attributes::TYPED);
        let alignment = if typed { ALIGNMENT } else { align_of::<Body>() };
        if !bytes.as_ptr().addr().is_multiple_of(alignment) {
            return Err(BatchError::Misaligned { wanted: alignment });
        }
        let computed = crc32c::crc32c(&bytes[LEADER_PART_BYTES..]);
        if computed != header.body_crc {
            return Err(BatchError::Crc {
                part: "body",
                stored: header.body_crc,
                computed,
            });
        }
        if header.attributes.codec() != 0 {
            return Err(BatchError::Codec(header.attributes.codec()));
        }
        let body = Body::access(
            &bytes[BATCH_HEADER_BYTES..],
            header.record_count as usize,
            header.blob_bytes as usize,
        )?;
        let batch = Self {
            header,
            bytes,
            table: body.table.as_slice(),
            blob: body.blob.as_slice(),
        };
        batch.check_entries(typed)?;
        Ok(batch)
    }

    fn check_entries(&self, typed: bool) -> Result<(), BatchError> {
        let header = &self.header;
        let mut walk = Walk {
            offset_next: 0,
            blob_end: 0,
            tag_summary: 0,
            max_delta_us: i32::MIN,
        };
        for (index, entry) in self.table.iter().enumerate() {
            walk.entry(entry, self, typed)
                .map_err(|why| BatchError::Record { index, why })?;
        }
        if walk.blob_end != self.blob.len() as u64 {
            let why = "bytes at its end belong to no record";
            return field("blob_bytes", header.blob_bytes, why);
        }
        if walk.offset_next > u64::from(header.last_offset_delta) + 1 {
            let why = "the last record's is larger";
            return field("last_offset_delta", header.last_offset_delta, why);
        }
        if walk.tag_summary != header.tag_summary {
            let why = "it is the union of the records' tags";
            return field("tag_summary", header.tag_summary, why);
        }
        let largest_us = header
            .first_timestamp_us
            .checked_add(walk.max_delta_us.into());
        if largest_us != Some(header.max_timestamp_us) {
            let why = "it is the largest of the records' timestamps";
            return field("max_timestamp_us", header.max_timestamp_us as u64, why);
        }
        Ok(())
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
    tag_summary: u64,
    max_delta_us: i32,
}

impl Walk {
    #[inline]
    fn entry(
        &mut self,
        entry: &Entry,
        batch: &CheckedBatch<'_>,
        typed: bool,
    ) -> Result<(), &'static str> {
        let offset_delta = u64::from(entry.offset_delta.to_native());
        if offset_delta < self.offset_next {
            return Err("offsets go back or repeat");
        }
        self.offset_next = offset_delta + 1;
        let delta_us = entry.timestamp_delta_us.to_native();
        let first_us = batch.header.first_timestamp_us;
        if first_us.checked_add(delta_us.into()).is_none() {
            return Err("its timestamp overflows");
        }
        self.max_delta_us = self.max_delta_us.max(delta_us);
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
        let bytes = self.claim(entry, batch, typed)?;
        self.headers_and_tag(entry, bytes)
    }

    /// The record's bytes, which follow those of the record before: directly, or at the next
    /// multiple of 16 behind zeros if values are typed.
    fn claim<'a>(
        &mut self,
        entry: &Entry,
        batch: &CheckedBatch<'a>,
        typed: bool,
    ) -> Result<&'a [u8], &'static str> {
        let start = u64::from(entry.position.to_native());
        let padded = if typed {
            aligned(self.blob_end as usize) as u64
        } else {
            self.blob_end
        };
        if start != padded {
            return Err("its bytes don't follow those of the record before");
        }
        let end = start + entry.record_bytes();
        if end > batch.blob.len() as u64 {
            return Err("its bytes go beyond the blob");
        }
        let padding = &batch.blob[self.blob_end as usize..start as usize];
        if padding.iter().any(|&byte| byte != 0) {
            return Err("the bytes before it are not zeros");
        }
        self.blob_end = end;
        Ok(&batch.blob[start as usize..end as usize])
    }

    fn headers_and_tag(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), &'static str> {
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
            _ => {
                let hash = tag_hash(&bytes[tag_start..]);
                self.tag_summary |= tag_summary(hash);
                hash
            }
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
