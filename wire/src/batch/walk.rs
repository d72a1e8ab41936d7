//! The walk over a batch's table at the door: each entry against the one before, the header and, if
//! it is there to be seen, the uncompressed blob.

use crate::batch::body::{Entry, entry_flags};
use crate::batch::error::BatchError;
use crate::batch::header::{Attributes, BatchHeader};
use crate::batch::record::{Headers, tag_hash, tag_summary};
use crate::limits::aligned;

/// Checks every entry and what the header says of all of them. `blob` is the uncompressed one, of
/// as many bytes as the header says; `None` where it isn't there: then what only it shows, that is
/// zeros before records, headers and the tags' bytes, stays unchecked.
pub(super) fn check_entries(
    header: &BatchHeader,
    table: &[Entry],
    blob: Option<&[u8]>,
) -> Result<(), BatchError> {
    let mut walk = Walk {
        header,
        blob,
        typed: header.attributes.has(Attributes::TYPED),
        offset_next: 0,
        blob_end: 0,
        tag_summary: 0,
        max_delta_us: i32::MIN,
    };
    for (index, entry) in table.iter().enumerate() {
        walk.entry(entry)
            .map_err(|why| BatchError::Record { index, why })?;
    }
    walk.finish()
}

/// What is known while walking the table.
struct Walk<'a> {
    header: &'a BatchHeader,
    blob: Option<&'a [u8]>,
    typed: bool,
    offset_next: u64,
    blob_end: u64,
    tag_summary: u64,
    max_delta_us: i32,
}

impl Walk<'_> {
    #[inline]
    fn entry(&mut self, entry: &Entry) -> Result<(), &'static str> {
        let offset_delta = u64::from(entry.offset_delta.to_native());
        if offset_delta < self.offset_next {
            return Err("offsets go back or repeat");
        }
        self.offset_next = offset_delta + 1;
        let delta_us = entry.timestamp_delta_us.to_native();
        let first_us = self.header.first_timestamp_us;
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
        let (start, end) = self.claim(entry)?;
        if entry.flags & entry_flags::TAG != 0 {
            self.tag_summary |= tag_summary(entry.tag_hash.to_native());
        } else if entry.tag_hash.to_native() != 0 {
            return Err("a hash without a tag");
        }
        match self.blob {
            Some(blob) => headers_and_tag(entry, &blob[start as usize..end as usize]),
            None => Ok(()),
        }
    }

    /// Where the record's bytes start and end: they follow those of the record before, directly, or
    /// at the next multiple of 16 behind zeros if values are typed.
    fn claim(&mut self, entry: &Entry) -> Result<(u64, u64), &'static str> {
        let start = u64::from(entry.position.to_native());
        let padded = if self.typed {
            aligned(self.blob_end as usize) as u64
        } else {
            self.blob_end
        };
        if start != padded {
            return Err("its bytes don't follow those of the record before");
        }
        let end = start + entry.record_bytes();
        if end > u64::from(self.header.blob_bytes) {
            return Err("its bytes go beyond the blob");
        }
        if let Some(blob) = self.blob {
            let padding = &blob[self.blob_end as usize..start as usize];
            if padding.iter().any(|&byte| byte != 0) {
                return Err("the bytes before it are not zeros");
            }
        }
        self.blob_end = end;
        Ok((start, end))
    }

    /// What holds of all records together.
    fn finish(self) -> Result<(), BatchError> {
        let header = self.header;
        let field = |field, value, why| Err(BatchError::Field { field, value, why });
        if self.blob_end != u64::from(header.blob_bytes) {
            let why = "bytes at its end belong to no record";
            return field("blob_bytes", header.blob_bytes.into(), why);
        }
        if self.offset_next > u64::from(header.last_offset_delta) + 1 {
            let why = "the last record's is larger";
            return field("last_offset_delta", header.last_offset_delta.into(), why);
        }
        if self.tag_summary != header.tag_summary {
            let why = "it is the union of the records' tags";
            return field("tag_summary", header.tag_summary, why);
        }
        let largest_us = header
            .first_timestamp_us
            .checked_add(self.max_delta_us.into());
        if largest_us != Some(header.max_timestamp_us) {
            let why = "it is the largest of the records' timestamps";
            return field("max_timestamp_us", header.max_timestamp_us as u64, why);
        }
        Ok(())
    }
}

/// Checks headers and tag of a record by its bytes.
fn headers_and_tag(entry: &Entry, bytes: &[u8]) -> Result<(), &'static str> {
    if entry.headers_bytes.to_native() == 0 && entry.flags & entry_flags::TAG == 0 {
        return Ok(());
    }
    let tag_start = bytes.len() - usize::from(entry.tag_bytes);
    let headers_start = tag_start - usize::from(entry.headers_bytes.to_native());
    if !Headers::valid(&bytes[headers_start..tag_start]) {
        return Err("its headers can't be decoded");
    }
    if entry.flags & entry_flags::TAG != 0
        && tag_hash(&bytes[tag_start..]) != entry.tag_hash.to_native()
    {
        return Err("its tag has another hash");
    }
    Ok(())
}
