//! The door: bytes become a [`StoredBatch`], compressed or not, whose structure is right, or a
//! [`CheckedBatch`], of which every byte is.

use crate::batch::body::{BatchBytes, Body, Entry};
use crate::batch::codec::Codec;
use crate::batch::compression::Inflater;
use crate::batch::error::BatchError;
use crate::batch::header::{Attributes, BatchHeader, at, header_crc};
use crate::batch::record::RecordView;
use crate::batch::walk::check_entries;
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
    let whole = aligned(table_bytes + blob_bytes) + BODY_ROOT_BYTES;
    if header.attributes.codec() == 0 {
        if whole != archive_bytes {
            let why = "table, blob and root don't make the archive";
            return field("blob_bytes", header.blob_bytes, why);
        }
        return Ok(());
    }
    if BATCH_HEADER_BYTES + whole > BATCH_BYTES_MAX {
        let why = "uncompressed, the batch would be above 64 MiB";
        return field("blob_bytes", header.blob_bytes, why);
    }
    // The blob as it stands has between span - 15 and span bytes; the root says how many.
    let span = archive_bytes - BODY_ROOT_BYTES - table_bytes;
    if span == 0 || span > aligned(blob_bytes.saturating_sub(1)) {
        return field("blob_bytes", header.blob_bytes, NOT_SHORTER);
    }
    Ok(())
}

/// Why a blob can't have the lengths that the header and the root say.
const NOT_SHORTER: &str = "a compressed blob is shorter, and not empty";

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
/// not checked: they are the producer's word to the reader, as the body CRC is to the broker. Nor
/// is what a compressed blob hides.
///
/// `bytes` must be 4-aligned, 16-aligned if values are typed.
///
/// # Errors
/// [`BatchError`] names the first thing that is wrong.
pub fn check_produced(bytes: &[u8]) -> Result<StoredBatch<'_>, BatchError> {
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
    let batch = StoredBatch::open(bytes, header)?;
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

/// A batch as it is stored and sent, its blob compressed or not. Both lengths, the body CRC, the
/// structure and every entry were checked, as far as they show without inflating.
#[derive(Clone, Copy, Debug)]
pub struct StoredBatch<'a> {
    header: BatchHeader,
    codec: Codec,
    bytes: &'a [u8],
    table: &'a [Entry],
    /// As it stands.
    blob: &'a [u8],
}

impl<'a> StoredBatch<'a> {
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
        check_alignment(bytes, &header)?;
        let computed = crc32c::crc32c(&bytes[LEADER_PART_BYTES..]);
        if computed != header.body_crc {
            return Err(BatchError::Crc {
                part: "body",
                stored: header.body_crc,
                computed,
            });
        }
        let number = header.attributes.codec();
        let codec = Codec::from_number(number).ok_or(BatchError::Codec(number))?;
        let archive = &bytes[BATCH_HEADER_BYTES..];
        let stands_bytes = match codec {
            Codec::None => header.blob_bytes as usize,
            Codec::Lz4 | Codec::Zstd => packed_bytes(archive, &header)?,
        };
        let body = Body::access(archive, header.record_count as usize, stands_bytes)?;
        let (table, blob) = (body.table.as_slice(), body.blob.as_slice());
        let visible = (codec == Codec::None).then_some(blob);
        check_entries(&header, table, visible)?;
        Ok(Self {
            header,
            codec,
            bytes,
            table,
            blob,
        })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// How the blob is compressed.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
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

    /// The batch with its records, if it isn't compressed. Nothing is checked again.
    #[must_use]
    pub fn uncompressed(&self) -> Option<CheckedBatch<'a>> {
        (self.codec == Codec::None).then_some(CheckedBatch {
            header: self.header,
            bytes: self.bytes,
            table: self.table,
            blob: self.blob,
        })
    }

    /// Inflates a compressed batch into `space`, whose memory is used again: the header as it is,
    /// then the archive as it would be uncompressed, [`BatchHeader::inflated_bytes`] together. To
    /// be read by [`CheckedBatch::check_inflated`].
    ///
    /// # Errors
    /// [`BatchError::Inflate`] when the blob isn't what the codec makes, or not of the length that
    /// the header says; [`BatchError::CodecMissing`] when this build doesn't have the codec.
    /// `space` holds no batch then.
    pub fn inflate(
        &self,
        inflater: &mut Inflater,
        space: &mut BatchBytes,
    ) -> Result<(), BatchError> {
        let blob_bytes = self.header.blob_bytes as usize;
        let records = self.table.len();
        let table_bytes = records * ENTRY_BYTES;
        let root_start = aligned(table_bytes + blob_bytes);
        let inflated_bytes = self.header.inflated_bytes();
        if space.capacity() < inflated_bytes {
            // By itself it would grow to the next power of two, and take its old content along.
            space.clear();
            space.reserve_exact(inflated_bytes);
        }
        space.resize(inflated_bytes, 0);
        let (head, rest) = space.split_at_mut(BATCH_HEADER_BYTES + table_bytes);
        head.copy_from_slice(&self.bytes[..head.len()]);
        let (blob, rest) = rest.split_at_mut(blob_bytes);
        inflater.inflate(self.codec, self.blob, blob)?;
        let (padding, root) = rest.split_at_mut(root_start - table_bytes - blob_bytes);
        padding.fill(0);
        root.copy_from_slice(&Body::root_bytes(
            records,
            table_bytes,
            blob_bytes,
            root_start,
        ));
        Ok(())
    }
}

fn check_alignment(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let typed = header.attributes.has(Attributes::TYPED);
    let wanted = if typed { ALIGNMENT } else { align_of::<Body>() };
    if bytes.as_ptr().addr().is_multiple_of(wanted) {
        return Ok(());
    }
    Err(BatchError::Misaligned { wanted })
}

/// Bytes of a compressed blob: the root says it, and they fit the archive.
fn packed_bytes(archive: &[u8], header: &BatchHeader) -> Result<usize, BatchError> {
    let count = archive.last_chunk::<4>().expect("a root is there");
    let packed_bytes = u32::from_le_bytes(*count);
    if packed_bytes == 0 || packed_bytes >= header.blob_bytes {
        return field("packed_bytes", packed_bytes, NOT_SHORTER);
    }
    let table_bytes = header.record_count as usize * ENTRY_BYTES;
    if aligned(table_bytes + packed_bytes as usize) + BODY_ROOT_BYTES != archive.len() {
        let why = "table, compressed blob and root don't make the archive";
        return field("packed_bytes", packed_bytes, why);
    }
    Ok(packed_bytes as usize)
}

/// A batch of which everything was checked but the records' own CRCs, its blob uncompressed.
/// Reading it can't fail.
#[derive(Clone, Copy, Debug)]
pub struct CheckedBatch<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
    table: &'a [Entry],
    blob: &'a [u8],
}

impl<'a> CheckedBatch<'a> {
    /// Checks an uncompressed batch as [`StoredBatch::check`] does.
    ///
    /// # Errors
    /// Those of [`StoredBatch::check`], and [`BatchError::Compressed`].
    pub fn check(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let stored = StoredBatch::check(bytes)?;
        let compressed = BatchError::Compressed(stored.codec);
        stored.uncompressed().ok_or(compressed)
    }

    /// Checks what [`StoredBatch::inflate`] has made: what only the inflated blob shows, and
    /// everything else but CRCs again. The header is that of the compressed batch.
    ///
    /// # Errors
    /// [`BatchError`] names the first thing that is wrong.
    pub fn check_inflated(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = check_header(bytes, false)?;
        let number = header.attributes.codec();
        if number == 0 {
            return field("codec", number, "only a compressed batch is inflated");
        }
        let (wanted, left) = (header.inflated_bytes(), bytes.len());
        let Some(bytes) = bytes.get(..wanted) else {
            return Err(BatchError::Truncated { wanted, left });
        };
        check_alignment(bytes, &header)?;
        let body = Body::access(
            &bytes[BATCH_HEADER_BYTES..],
            header.record_count as usize,
            header.blob_bytes as usize,
        )?;
        let (table, blob) = (body.table.as_slice(), body.blob.as_slice());
        check_entries(&header, table, Some(blob))?;
        Ok(Self {
            header,
            bytes,
            table,
            blob,
        })
    }

    /// The header; of an inflated batch that of the compressed one.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's own bytes; of an inflated batch the inflated ones.
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
