//! A record with a typed value on its way into a batch: the value is archived into space that is
//! used again and again, then copied once, into the batch.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ringway_wire::batch::{BatchBytes, Headers};
use rkyv::api::high::to_bytes_in;
use rkyv::rancor::Error;

use crate::error::ProduceError;
use crate::record::Record;
use crate::typed::Writable;

/// A record to send whose value is of a type. Built from its value:
///
/// ```
/// use ringway_client::TypedRecord;
/// let record = TypedRecord::value(&21.5_f64).key("sensor-7").tag("temperature");
/// ```
pub struct TypedRecord<'a, T> {
    value: Option<&'a T>,
    rest: Record<'a>,
}

impl<T> Clone for TypedRecord<'_, T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value,
            rest: self.rest.clone(),
        }
    }
}

impl<T> fmt::Debug for TypedRecord<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRecord")
            .field("has_value", &self.value.is_some())
            .field("rest", &self.rest)
            .finish()
    }
}

impl<'a, T> TypedRecord<'a, T> {
    /// A record with a value.
    #[must_use]
    pub const fn value(value: &'a T) -> Self {
        Self {
            value: Some(value),
            rest: Record::null(),
        }
    }

    /// A record without a value.
    #[must_use]
    pub const fn null() -> Self {
        Self {
            value: None,
            rest: Record::null(),
        }
    }

    /// Sets the key: records of equal keys go to the same partition.
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.rest = self.rest.key(key);
        self
    }

    /// Sets the tag, a short word to filter by; at most 255 bytes.
    #[must_use]
    pub fn tag<G: AsRef<[u8]> + ?Sized>(mut self, tag: &'a G) -> Self {
        self.rest = self.rest.tag(tag);
        self
    }

    /// Sets the timestamp, in microseconds since 1970; without it, it is the time of sending.
    #[must_use]
    pub fn timestamp_us(mut self, timestamp_us: i64) -> Self {
        self.rest = self.rest.timestamp_us(timestamp_us);
        self
    }

    /// Adds a header, as [`Record::header`] does.
    #[must_use]
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, name: &str, value: &V) -> Self {
        self.rest = self.rest.header(name, value);
        self
    }

    /// Sets all headers at once, as [`Record::headers`] does.
    ///
    /// # Panics
    /// When they were made of bytes that [`Headers::valid`] doesn't accept.
    #[must_use]
    pub fn headers(mut self, headers: Headers<'a>) -> Self {
        self.rest = self.rest.headers(headers);
        self
    }
}

impl<'a, T> From<&'a T> for TypedRecord<'a, T> {
    fn from(value: &'a T) -> Self {
        Self::value(value)
    }
}

/// Space kept by one producer for archives, however many tasks send at once.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    spare: Mutex<Vec<BatchBytes>>,
}

/// Archives kept at most, and how large each may be to be kept, in bytes.
const SPARES_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 1 << 20;

impl Scratch {
    pub(crate) fn take(&self) -> BatchBytes {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    /// Takes space back.
    pub(crate) fn keep(&self, mut bytes: BatchBytes) {
        bytes.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARES_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
            spare.push(bytes);
        }
    }
}

/// Archives the value into `space`. The record as bytes is what `as_bytes` of the result gives.
pub(crate) fn encode<'a, T: Writable>(
    topic: &str,
    record: TypedRecord<'a, T>,
    space: BatchBytes,
) -> Result<Encoded<'a>, ProduceError> {
    let Some(value) = record.value else {
        return Ok(Encoded {
            rest: record.rest,
            archive: space,
            has_value: false,
        });
    };
    let archive =
        to_bytes_in::<_, Error>(value, space).map_err(|error| ProduceError::NotArchived {
            topic: topic.into(),
            type_name: T::NAME,
            why: error.to_string(),
        })?;
    Ok(Encoded {
        rest: record.rest,
        archive,
        has_value: true,
    })
}

/// A record whose value is archived.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    rest: Record<'a>,
    /// The value, and space to be kept.
    pub(crate) archive: BatchBytes,
    has_value: bool,
}

impl Encoded<'_> {
    /// The record as any other.
    pub(crate) fn as_record(&self) -> Record<'_> {
        let value = self.has_value.then_some(self.archive.as_slice());
        self.rest.clone().with_value(value)
    }
}
