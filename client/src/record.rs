//! A record as a program gives it to a producer. It borrows its parts: they are copied once, into
//! the batch.

use std::borrow::Cow;

use ringway_wire::batch::{Headers, RecordRef};

/// A record to send. Built from its value:
///
/// ```
/// use ringway_client::Record;
/// let record = Record::value(b"21.5").key("sensor-7").tag("temperature").header("unit", b"C");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    tag: Option<&'a [u8]>,
    timestamp_us: Option<i64>,
    headers: Cow<'a, [u8]>,
    headers_fit: bool,
}

impl<'a> Record<'a> {
    /// A record with a value, which may be empty.
    #[must_use]
    pub fn value<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Self {
        Self {
            value: Some(value.as_ref()),
            ..Self::null()
        }
    }

    /// A record without a value.
    #[must_use]
    pub const fn null() -> Self {
        Self {
            key: None,
            value: None,
            tag: None,
            timestamp_us: None,
            headers: Cow::Borrowed(&[]),
            headers_fit: true,
        }
    }

    /// Sets the key: records of equal keys go to the same partition.
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the tag, a short word to filter by; at most 255 bytes.
    #[must_use]
    pub fn tag<T: AsRef<[u8]> + ?Sized>(mut self, tag: &'a T) -> Self {
        self.tag = Some(tag.as_ref());
        self
    }

    /// Sets the timestamp, in microseconds since 1970; without it, it is the time of sending.
    #[must_use]
    pub const fn timestamp_us(mut self, timestamp_us: i64) -> Self {
        self.timestamp_us = Some(timestamp_us);
        self
    }

    /// Adds a header; a name may be repeated. All of them together take at most 65,535 bytes, of
    /// which each uses 4 beside its name and value.
    #[must_use]
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, name: &str, value: &V) -> Self {
        let value = value.as_ref();
        let (name_bytes, value_bytes) = (u16::try_from(name.len()), u16::try_from(value.len()));
        if let (Ok(name_bytes), Ok(value_bytes)) = (name_bytes, value_bytes) {
            let headers = self.headers.to_mut();
            headers.extend_from_slice(&name_bytes.to_le_bytes());
            headers.extend_from_slice(&value_bytes.to_le_bytes());
            headers.extend_from_slice(name.as_bytes());
            headers.extend_from_slice(value);
        } else {
            self.headers_fit = false;
        }
        self
    }

    /// Sets all headers at once, in place of those added before: those of a record that was read,
    /// or some that [`encode_headers`](crate::encode_headers) has encoded for many records. Nothing
    /// is allocated for them.
    ///
    /// # Panics
    /// When they were made of bytes that [`Headers::valid`] doesn't accept.
    #[must_use]
    pub fn headers(mut self, headers: Headers<'a>) -> Self {
        let encoded = headers.encoded();
        assert!(Headers::valid(encoded), "the headers are not whole");
        self.headers = Cow::Borrowed(encoded);
        self.headers_fit = true;
        self
    }

    /// The record with another value.
    pub(crate) fn with_value(self, value: Option<&'a [u8]>) -> Self {
        Self { value, ..self }
    }

    /// The record as a batch takes it, stamped with `now_us` if it has no time of its own; `None`
    /// when a header is longer than its length field can say.
    pub(crate) fn as_ref(&self, now_us: impl FnOnce() -> i64) -> Option<RecordRef<'_>> {
        self.headers_fit.then(|| RecordRef {
            key: self.key,
            value: self.value,
            headers: &self.headers,
            tag: self.tag,
            timestamp_us: self.timestamp_us.unwrap_or_else(now_us),
        })
    }

    /// Bytes of all parts together.
    #[must_use]
    pub fn size(&self) -> usize {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        bytes(self.key) + bytes(self.value) + bytes(self.tag) + self.headers.len()
    }
}

macro_rules! from_value {
    ($($type:ty)*) => {$(
        impl<'a> From<&'a $type> for Record<'a> {
            fn from(value: &'a $type) -> Self {
                Self::value(value)
            }
        }
    )*};
}

from_value! { [u8] str Vec<u8> String }

impl<'a, const N: usize> From<&'a [u8; N]> for Record<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::value(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_arrive_and_null_differs_from_empty() {
        let record = Record::value("")
            .tag("t")
            .header("a", b"1")
            .header("a", b"2");
        let taken = record.as_ref(|| 7).unwrap();
        assert_eq!(
            (taken.value, taken.key, taken.timestamp_us),
            (Some(&b""[..]), None, 7)
        );
        let values: Vec<_> = Headers::new(taken.headers)
            .map(|header| header.value)
            .collect();
        assert_eq!(values, [b"1", b"2"]);
        assert_eq!(
            Record::null()
                .timestamp_us(3)
                .as_ref(|| 7)
                .unwrap()
                .timestamp_us,
            3
        );
        assert_eq!(Record::null().as_ref(|| 0).unwrap().value, None);
    }

    #[test]
    fn headers_are_passed_on_as_they_are_and_can_be_added_to() {
        let encoded = Record::null().header("a", b"1").header("b", b"2");
        let taken = encoded.as_ref(|| 0).unwrap();
        let passed = Record::value("v")
            .header("gone", b"")
            .headers(Headers::new(taken.headers));
        assert_eq!(passed.as_ref(|| 0).unwrap().headers, taken.headers);
        let more = passed.header("c", b"3");
        let names: Vec<_> = Headers::new(more.as_ref(|| 0).unwrap().headers)
            .map(|header| header.name.to_owned())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    #[should_panic = "not whole"]
    fn headers_that_are_none_are_not_passed_on() {
        let _ = Record::null().headers(Headers::new(&[1, 0, 0]));
    }

    #[test]
    fn a_header_that_cannot_be_encoded_is_noticed() {
        assert!(
            Record::null()
                .header("long", &vec![0; 1 << 16])
                .as_ref(|| 0)
                .is_none()
        );
    }
}
