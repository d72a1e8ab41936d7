//! A record as a producer gives it and as a reader sees it in place.

use crate::batch::body::{Entry, entry_flags};
use crate::batch::error::BatchError;
use crate::ids::Offset;
use crate::limits::HEADERS_BYTES_MAX;

/// A header of a record: a name and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; may be repeated.
    pub name: &'a str,
    /// The value.
    pub value: &'a [u8],
}

/// A record on its way into a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Decides the partition; `None` is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is not the same as empty.
    pub value: Option<&'a [u8]>,
    /// Headers, as [`encode_headers`] writes them.
    pub headers: &'a [u8],
    /// A short word to filter by, at most 255 bytes.
    pub tag: Option<&'a [u8]>,
    /// Microseconds since 1970.
    pub timestamp_us: i64,
}

impl RecordRef<'_> {
    /// Bytes that the record takes in the blob, without padding.
    #[must_use]
    pub fn blob_bytes(&self) -> usize {
        let optional = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        optional(self.value) + optional(self.key) + self.headers.len() + optional(self.tag)
    }
}

/// Encodes headers for a record: per header two 16-bit lengths, the name, the value. `None` when
/// they take more than 65,535 bytes.
#[must_use]
pub fn encode_headers<'a>(headers: impl IntoIterator<Item = Header<'a>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for header in headers {
        out.extend_from_slice(&u16::try_from(header.name.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u16::try_from(header.value.len()).ok()?.to_le_bytes());
        out.extend_from_slice(header.name.as_bytes());
        out.extend_from_slice(header.value);
    }
    (out.len() <= HEADERS_BYTES_MAX).then_some(out)
}

/// The headers of a record, read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Headers over encoded bytes that [`Headers::valid`] accepts.
    #[must_use]
    pub const fn new(encoded: &'a [u8]) -> Self {
        Self { encoded }
    }

    /// Whether the bytes are whole headers with UTF-8 names.
    #[must_use]
    pub fn valid(encoded: &[u8]) -> bool {
        let mut headers = Headers { encoded };
        while headers.next().is_some() {}
        headers.encoded.is_empty()
    }

    /// The encoded bytes.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.encoded
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (lengths, rest) = self.encoded.split_first_chunk::<4>()?;
        let name_bytes = u16::from_le_bytes([lengths[0], lengths[1]]);
        let value_bytes = u16::from_le_bytes([lengths[2], lengths[3]]);
        let (name, rest) = rest.split_at_checked(name_bytes.into())?;
        let (value, rest) = rest.split_at_checked(value_bytes.into())?;
        let name = std::str::from_utf8(name).ok()?;
        self.encoded = rest;
        Some(Header { name, value })
    }
}

/// The 32-bit hash of a tag: its CRC32C.
#[must_use]
pub fn tag_hash(tag: &[u8]) -> u32 {
    crc32c::crc32c(tag)
}

/// The bits that a tag of this hash sets in a batch's tag summary.
#[must_use]
pub const fn tag_summary(hash: u32) -> u64 {
    (1 << (hash & 63)) | (1 << ((hash >> 6) & 63))
}

/// A record in place in a batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Microseconds since 1970.
    pub timestamp_us: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value, if there is one.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
    /// The tag, if there is one.
    pub tag: Option<&'a [u8]>,
    entry: &'a Entry,
    bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The record that `entry` describes; `bytes` are its own in the blob, of the length that the
    /// entry says.
    pub(super) fn new(
        offset: Offset,
        first_timestamp_us: i64,
        entry: &'a Entry,
        bytes: &'a [u8],
    ) -> Self {
        let flags = entry.flags;
        let present = |bytes, flag| (flags & flag != 0).then_some(bytes);
        let (value, rest) = bytes.split_at(entry.value_bytes.to_native() as usize);
        let (key, rest) = rest.split_at(entry.key_bytes.to_native() as usize);
        let (headers, tag) = rest.split_at(entry.headers_bytes.to_native().into());
        Self {
            offset,
            timestamp_us: first_timestamp_us + i64::from(entry.timestamp_delta_us.to_native()),
            key: present(key, entry_flags::KEY),
            value: present(value, entry_flags::VALUE),
            headers: Headers::new(headers),
            tag: present(tag, entry_flags::TAG),
            entry,
            bytes,
        }
    }

    /// Bytes of value, key, headers and tag together.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The record's CRC32C as its producer computed it.
    #[must_use]
    pub const fn crc(&self) -> u32 {
        self.entry.crc.to_native()
    }

    /// Checks the record by its own CRC.
    ///
    /// # Errors
    /// [`BatchError::Crc`] when its bytes are not those that the producer saw.
    pub fn verify(&self) -> Result<(), BatchError> {
        let computed = self.entry.crc_over(self.bytes);
        if computed == self.crc() {
            return Ok(());
        }
        Err(BatchError::Crc {
            part: "record",
            stored: self.crc(),
            computed,
        })
    }
}
