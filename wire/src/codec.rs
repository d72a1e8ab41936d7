//! Reading and writing the typed part of a frame: little-endian integers, strings and lists with
//! their length before them. A reader allocates for what has come, never for what was announced.

use crate::limits::STRING_BYTES_MAX;

/// Why the typed part of a frame can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("{field} needs {wanted} bytes, {left} are left")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Bytes that it needs.
        wanted: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Bytes are left after the last field.
    #[error("{0} bytes are left after the last field")]
    Trailing(usize),
    /// A field's value is not allowed.
    #[error("{field} can't be {value}")]
    Illegal {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A string is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
}

/// Reads fields one after another.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

macro_rules! read {
    ($($name:ident: $type:ty)*) => {$(
        /// Reads one little-endian integer.
        ///
        /// # Errors
        /// [`DecodeError::Truncated`] when too few bytes are left.
        pub fn $name(&mut self, field: &'static str) -> Result<$type, DecodeError> {
            let bytes = self.bytes(size_of::<$type>(), field)?;
            Ok(<$type>::from_le_bytes(bytes.try_into().expect("the length was asked for")))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.bytes.len()
    }

    read! { u8: u8 u16: u16 u32: u32 u64: u64 u128: u128 i64: i64 }

    /// Reads `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when fewer are left.
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.bytes.split_at_checked(count) else {
            return Err(DecodeError::Truncated {
                field,
                wanted: count,
                left: self.bytes.len(),
            });
        };
        self.bytes = rest;
        Ok(bytes)
    }

    /// Reads a byte that is 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Illegal`] for any other value, [`DecodeError::Truncated`] at the end.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Illegal {
                field,
                value: value.into(),
            }),
        }
    }

    /// Reads a 16-bit length and that many bytes of UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::NotText`] and [`DecodeError::Truncated`].
    pub fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u16(field)?;
        let bytes = self.bytes(length.into(), field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText(field))
    }

    /// Reads a 32-bit count and that many items, each by `item`.
    ///
    /// # Errors
    /// Those of `item`; [`DecodeError::Truncated`] when the rest can't hold so many items of at
    /// least `item_bytes_min` each, before anything is allocated.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32(field)? as usize;
        let wanted = count.saturating_mul(item_bytes_min.max(1));
        if wanted > self.left() {
            return Err(DecodeError::Truncated {
                field,
                wanted,
                left: self.left(),
            });
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Reads a list as [`Reader::list`] does, of at most `count_max` items.
    ///
    /// # Errors
    /// [`DecodeError::Illegal`] above that; else those of [`Reader::list`].
    pub fn list_up_to<T>(
        &mut self,
        field: &'static str,
        count_max: usize,
        item_bytes_min: usize,
        item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.clone().u32(field)?;
        if count as usize > count_max {
            let value = count.into();
            return Err(DecodeError::Illegal { field, value });
        }
        self.list(field, item_bytes_min, item)
    }

    /// Says that everything was read.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}

/// Writes fields one after another.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

macro_rules! write {
    ($($name:ident: $type:ty)*) => {$(
        /// Writes one little-endian integer.
        pub fn $name(&mut self, value: $type) {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    )*};
}

impl Writer {
    /// A writer that appends to `bytes`, whose space is used again.
    #[must_use]
    pub const fn over(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    write! { u8: u8 u16: u16 u32: u32 u64: u64 u128: u128 i64: i64 }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes 0 or 1.
    pub fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// Writes a 16-bit length and the text; text above the limit is cut at a character.
    pub fn string(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(STRING_BYTES_MAX)];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    /// Writes a 32-bit count and each item by `item`.
    pub fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.u32(u32::try_from(items.len()).expect("a list in a frame has fewer than 2^32 items"));
        for each in items {
            item(self, each);
        }
    }
}
