//! The archive inside a batch: its types, and the only place where bytes are taken for them.
//!
//! The types are rkyv archives made of explicit little-endian integers, so no format feature of
//! rkyv that somebody's build turns on can change their bytes.

use std::marker::PhantomData;

use rend::{i32_le, u16_le, u32_le};
use rkyv::Portable;
use rkyv::bytecheck::{CheckBytes, Verify};
use rkyv::rancor::{Fallible, Source};
use rkyv::util::AlignedVec;
use rkyv::validation::{ArchiveContext, ArchiveContextExt};

use crate::batch::error::BatchError;
use crate::limits::{ALIGNMENT, BODY_ROOT_BYTES, ENTRY_BYTES};

/// Bytes aligned as a batch has to be.
pub type BatchBytes = AlignedVec<ALIGNMENT>;

/// What a record has; bits of [`Entry::flags`].
pub mod entry_flags {
    /// The record has a key.
    pub const KEY: u8 = 1;
    /// The record has a value.
    pub const VALUE: u8 = 1 << 1;
    /// The record has a tag.
    pub const TAG: u8 = 1 << 2;
    /// Every bit that has a meaning.
    pub const KNOWN: u8 = KEY | VALUE | TAG;
}

/// One record's line in the table. Its bytes in the blob are value, key, headers, tag.
#[derive(Clone, Copy, Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Entry {
    /// Offset less the batch's base offset; gaps appear when a log is compacted.
    pub offset_delta: u32_le,
    /// Start in the (uncompressed) blob, in bytes.
    pub position: u32_le,
    /// CRC32C of this entry from the next field on, then of the record's bytes in the blob.
    pub crc: u32_le,
    /// Timestamp less the batch's first one, in microseconds.
    pub timestamp_delta_us: i32_le,
    /// Bytes of the value.
    pub value_bytes: u32_le,
    /// Bytes of the key.
    pub key_bytes: u32_le,
    /// CRC32C of the tag; 0 without one.
    pub tag_hash: u32_le,
    /// Bytes of the headers.
    pub headers_bytes: u16_le,
    /// Bytes of the tag.
    pub tag_bytes: u8,
    /// See [`entry_flags`].
    pub flags: u8,
}

/// First byte of an entry under the record's CRC.
const ENTRY_CRC_START: usize = 12;
/// Where an entry's CRC starts.
const ENTRY_CRC: usize = 8;

/// The CRC that an entry of these bytes should have with these bytes in the blob.
fn entry_crc(entry: &[u8; ENTRY_BYTES], record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry[ENTRY_CRC_START..]), record)
}

const _: () = {
    assert!(size_of::<Entry>() == ENTRY_BYTES && align_of::<Entry>() == 4);
    assert!(std::mem::offset_of!(Entry, crc) == ENTRY_CRC);
    assert!(std::mem::offset_of!(Entry, timestamp_delta_us) == ENTRY_CRC_START);
    assert!(std::mem::offset_of!(Entry, headers_bytes) == 28);
    assert!(size_of::<Body>() == BODY_ROOT_BYTES && align_of::<Body>() == 4);
};

impl Entry {
    /// The entry's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&self.offset_delta.to_native().to_le_bytes());
        bytes[4..8].copy_from_slice(&self.position.to_native().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_native().to_le_bytes());
        bytes[12..16].copy_from_slice(&self.timestamp_delta_us.to_native().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.value_bytes.to_native().to_le_bytes());
        bytes[20..24].copy_from_slice(&self.key_bytes.to_native().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.tag_hash.to_native().to_le_bytes());
        bytes[28..30].copy_from_slice(&self.headers_bytes.to_native().to_le_bytes());
        bytes[30] = self.tag_bytes;
        bytes[31] = self.flags;
        bytes
    }

    /// The entry's bytes with the CRC that it should have with these bytes in the blob.
    pub(super) fn to_bytes_over(self, record: &[u8]) -> [u8; ENTRY_BYTES] {
        let mut bytes = self.to_bytes();
        let crc = entry_crc(&bytes, record);
        bytes[ENTRY_CRC..ENTRY_CRC_START].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Bytes that the record takes in the blob.
    #[must_use]
    pub const fn record_bytes(&self) -> u64 {
        self.value_bytes.to_native() as u64
            + self.key_bytes.to_native() as u64
            + self.headers_bytes.to_native() as u64
            + self.tag_bytes as u64
    }

    /// The CRC that the entry should have with these bytes in the blob.
    #[must_use]
    pub fn crc_over(&self, record: &[u8]) -> u32 {
        entry_crc(&self.to_bytes(), record)
    }
}

/// A slice elsewhere in the archive: the distance from this field's own start, then the count.
#[derive(Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck, verify)]
#[repr(C)]
pub struct RelativeSlice<T> {
    distance: i32_le,
    count: u32_le,
    items: PhantomData<T>,
}

impl<T: Portable> RelativeSlice<T> {
    fn pointer(&self) -> *const [T] {
        let start = std::ptr::from_ref(self)
            .cast::<u8>()
            .wrapping_offset(self.distance.to_native() as isize);
        std::ptr::slice_from_raw_parts(start.cast(), self.count.to_native() as usize)
    }

    /// Items in the slice.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count.to_native() as usize
    }

    /// The items.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: a `RelativeSlice` is only ever reached through a checked archive, and the check
        // has shown that the range lies in the archive, is aligned and holds valid items.
        unsafe { &*self.pointer() }
    }
}

// SAFETY: `verify` fails unless the whole range lies inside the archive, aligned, behind the
// ranges claimed before it, and each item in it is valid.
unsafe impl<T, C> Verify<C> for RelativeSlice<T>
where
    T: Portable + CheckBytes<C>,
    C: Fallible + ArchiveContext + ?Sized,
    C::Error: Source,
{
    fn verify(&self, context: &mut C) -> Result<(), C::Error> {
        let pointer = self.pointer();
        context.in_subtree(pointer, |context| {
            // SAFETY: `in_subtree` has checked that the pointer is aligned and in bounds.
            unsafe { <[T]>::check_bytes(pointer, context) }
        })
    }
}

/// The archive's root: the record table and the blob.
#[derive(Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Body {
    /// One entry per record.
    pub table: RelativeSlice<Entry>,
    /// All records' bytes; compressed if the batch is.
    pub blob: RelativeSlice<u8>,
}

impl Body {
    /// Checks the structure of an archive whose first byte is 4-aligned: valid for rkyv, and laid
    /// out as [`Body::root_bytes`] says, with nothing else in it, so that equal records make equal
    /// bytes and a checked archive hides none.
    pub(super) fn access(
        archive: &[u8],
        records: usize,
        blob_bytes: usize,
    ) -> Result<&Self, BatchError> {
        let body = rkyv::access::<Self, rkyv::rancor::Error>(archive)
            .map_err(|error| BatchError::Archive(error.to_string()))?;
        let blob_start = records * ENTRY_BYTES;
        let root_start = archive.len() - BODY_ROOT_BYTES;
        if archive[root_start..] != Self::root_bytes(records, blob_start, blob_bytes, root_start) {
            let why = "its root is not that of the header's counts";
            return Err(BatchError::Archive(why.to_owned()));
        }
        if archive[blob_start + blob_bytes..root_start]
            .iter()
            .any(|&byte| byte != 0)
        {
            let why = "the bytes between blob and root are not zeros";
            return Err(BatchError::Archive(why.to_owned()));
        }
        Ok(body)
    }

    /// The root's bytes for an archive whose table starts at 0, blob at `blob_start` and root at
    /// `root_start`.
    pub(super) fn root_bytes(
        records: usize,
        blob_start: usize,
        blob_bytes: usize,
        root_start: usize,
    ) -> [u8; BODY_ROOT_BYTES] {
        let distance = |from: usize, to: usize| {
            i32::try_from(to as i64 - from as i64).expect("a batch is shorter than 2 GiB")
        };
        let count = |items: usize| u32::try_from(items).expect("a batch is shorter than 2 GiB");
        let mut bytes = [0; BODY_ROOT_BYTES];
        bytes[0..4].copy_from_slice(&distance(root_start, 0).to_le_bytes());
        bytes[4..8].copy_from_slice(&count(records).to_le_bytes());
        bytes[8..12].copy_from_slice(&distance(root_start + 8, blob_start).to_le_bytes());
        bytes[12..16].copy_from_slice(&count(blob_bytes).to_le_bytes());
        bytes
    }
}
