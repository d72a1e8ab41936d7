//! A batch of typed values as a consumer hands it out: every archive was checked once and is read
//! in place from then on. One of this crate's two files with `unsafe`, for that "from then on".

use std::fmt;
use std::marker::PhantomData;

use ringway_wire::Offset;
use ringway_wire::batch::{Attributes, Headers, RecordView};
use rkyv::rancor::Error;
use rkyv::{Archived, access, access_unchecked};

use crate::batch::{Batch, BatchRecords};
use crate::error::ConsumeError;
use crate::typed::{Readable, layout_of};

/// Records of one partition with values of a type, in their order, with no gap to the batch
/// before. Everything else about them is in [`TypedBatch::as_batch`].
pub struct TypedBatch<T> {
    /// Every value in it is a checked archive of `T`.
    batch: Batch,
    values: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TypedBatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedBatch")
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

impl<T: Readable> TypedBatch<T> {
    /// Checks that the values are archives of `T`.
    pub(crate) fn open(batch: Batch) -> Result<Self, ConsumeError> {
        let (header, expected) = (batch.header(), layout_of::<T>());
        if !header.attributes.has(Attributes::TYPED) || header.layout != expected {
            return Err(ConsumeError::WrongLayout {
                topic: batch.topic().into(),
                partition: batch.partition(),
                offset: batch.from(),
                type_name: T::NAME,
                expected,
                found: header.layout,
            });
        }
        for record in &batch {
            let Some(value) = record.value else { continue };
            access::<Archived<T>, Error>(value).map_err(|why| ConsumeError::WrongValue {
                topic: batch.topic().into(),
                partition: batch.partition(),
                offset: record.offset,
                type_name: T::NAME,
                why: why.to_string(),
            })?;
        }
        Ok(Self {
            batch,
            values: PhantomData,
        })
    }

    /// The records from the wanted offset on, in place.
    #[must_use]
    pub fn records(&self) -> TypedRecords<'_, T> {
        TypedRecords {
            records: self.batch.records(),
            values: PhantomData,
        }
    }
}

impl<T> TypedBatch<T> {
    /// The batch with values as bytes: topic, partition, header.
    #[must_use]
    pub const fn as_batch(&self) -> &Batch {
        &self.batch
    }

    /// How many records [`TypedBatch::records`] gives.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is none: where a log is compacted, those wanted may be gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

impl<'a, T: Readable> IntoIterator for &'a TypedBatch<T> {
    type Item = TypedRecordView<'a, T>;
    type IntoIter = TypedRecords<'a, T>;

    fn into_iter(self) -> TypedRecords<'a, T> {
        self.records()
    }
}

/// A record with a typed value, in place in a batch.
pub struct TypedRecordView<'a, T: Readable> {
    /// The value's archive, if there is a value.
    pub value: Option<&'a Archived<T>>,
    /// The record with its value as bytes.
    pub record: RecordView<'a>,
}

impl<T: Readable> fmt::Debug for TypedRecordView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRecordView")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl<T: Readable> Clone for TypedRecordView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Readable> Copy for TypedRecordView<'_, T> {}

impl<'a, T: Readable> TypedRecordView<'a, T> {
    /// Its offset in the partition.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.record.offset
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn timestamp_us(&self) -> i64 {
        self.record.timestamp_us
    }

    /// The key, if there is one.
    #[must_use]
    pub const fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// The tag, if there is one.
    #[must_use]
    pub const fn tag(&self) -> Option<&'a [u8]> {
        self.record.tag
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        self.record.headers
    }
}

/// Iterates over a batch's records in place.
pub struct TypedRecords<'a, T> {
    /// Of a batch in which every value is a checked archive of `T`.
    records: BatchRecords<'a>,
    values: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TypedRecords<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRecords")
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl<T> Clone for TypedRecords<'_, T> {
    fn clone(&self) -> Self {
        Self {
            records: self.records.clone(),
            values: PhantomData,
        }
    }
}

impl<'a, T: Readable> Iterator for TypedRecords<'a, T> {
    type Item = TypedRecordView<'a, T>;

    fn next(&mut self) -> Option<TypedRecordView<'a, T>> {
        let record = self.records.next()?;
        // SAFETY: `TypedBatch::open` has checked these very bytes at this very address as an
        // archive of `T` with its root at the end: it went through the same records of the same
        // batch, which nobody can change, and only it makes a `TypedBatch` and so this iterator.
        let value = record
            .value
            .map(|value| unsafe { access_unchecked::<Archived<T>>(value) });
        Some(TypedRecordView { value, record })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl<T: Readable> ExactSizeIterator for TypedRecords<'_, T> {}
