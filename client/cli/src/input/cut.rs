//! Cuts a stream of bytes into records: lines, chunks or frames. Holds no more of it than the
//! record that is still arriving and the block that came last.

use crate::limits::RECORD_BYTES_MAX;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;

/// How the input is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Records end with LF, which is dropped; the first separator, if any, ends the key.
    Lines {
        /// Bytes between key and value; not empty.
        separator: Option<Vec<u8>>,
    },
    /// Records of so many bytes, the last one shorter.
    Chunks(usize),
    /// Records with a little-endian u32 length before each.
    Frames,
}

/// A record in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// What stands before the separator, if there is one.
    pub(crate) key: Option<&'a [u8]>,
    /// The rest.
    pub(crate) value: &'a [u8],
}

/// Why the input can't be cut any further. Records before it were handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    /// No batch can hold the record.
    #[error(
        "input byte {at}: record {record} has {} bytes, more than the {RECORD_BYTES_MAX} that fit a \
         batch; reading stopped there",
        .bytes.map_or("too many".to_owned(), |bytes| bytes.to_string())
    )]
    TooLarge {
        /// Where the record starts, in bytes from the start of the input.
        at: u64,
        /// Which record, 1-based.
        record: u64,
        /// Its length, if that is known.
        bytes: Option<u32>,
    },
    /// The input ends within a frame.
    #[error(
        "input byte {at}: the input ends within record {record}: {left} of {wanted} bytes are there"
    )]
    Truncated {
        /// Where the frame starts, in bytes from the start of the input.
        at: u64,
        /// Which record, 1-based.
        record: u64,
        /// Bytes of the frame that are there, its length included.
        left: usize,
        /// Bytes of the whole frame, or of its length alone if that isn't there.
        wanted: usize,
    },
}

/// Where a record stands behind what was handed out: bytes before it, its own, bytes behind it.
struct Cut {
    before: usize,
    bytes: usize,
    behind: usize,
}

/// Finds the records in the blocks it is fed.
#[derive(Debug)]
pub(crate) struct Cutter {
    shape: Shape,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out.
    start: usize,
    /// Bytes behind `start` that hold no LF.
    scanned: usize,
    /// Bytes of the input before `buffer`.
    before: u64,
    records: u64,
    ended: bool,
}

impl Cutter {
    /// A cutter that has seen nothing.
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            before: 0,
            records: 0,
            ended: false,
        }
    }

    /// Takes the next block. Hand out all records before feeding again.
    pub(crate) fn feed(&mut self, block: &[u8]) {
        self.buffer.drain(..self.start);
        self.before += self.start as u64;
        self.start = 0;
        self.buffer.extend_from_slice(block);
    }

    /// Says that there are no more blocks: what is left is the last record.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether [`Cutter::end`] was called.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// The next record; `None` until more is fed, or when nothing is left after the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>, InputError> {
        let found = match self.shape {
            Shape::Lines { .. } => self.line()?,
            Shape::Chunks(bytes) => self.chunk(bytes),
            Shape::Frames => self.frame()?,
        };
        let Some(cut) = found else {
            return Ok(None);
        };
        let from = self.start + cut.before;
        self.start = from + cut.bytes + cut.behind;
        self.scanned = 0;
        self.records += 1;
        Ok(Some(self.split(from, from + cut.bytes)))
    }

    fn held(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// What is left at the end of the input, if anything is.
    fn rest(&self) -> Option<Cut> {
        let bytes = self.held().len();
        (self.ended && bytes > 0).then_some(Cut {
            before: 0,
            bytes,
            behind: 0,
        })
    }

    fn line(&mut self) -> Result<Option<Cut>, InputError> {
        if let Some(found) = memchr::memchr(b'\n', &self.held()[self.scanned..]) {
            let bytes = self.scanned + found;
            return Ok(Some(Cut {
                before: 0,
                bytes,
                behind: 1,
            }));
        }
        self.scanned = self.held().len();
        if self.scanned > RECORD_BYTES_MAX {
            return Err(self.too_large(None));
        }
        Ok(self.rest())
    }

    fn chunk(&self, bytes: usize) -> Option<Cut> {
        if self.held().len() >= bytes {
            return Some(Cut {
                before: 0,
                bytes,
                behind: 0,
            });
        }
        self.rest()
    }

    fn frame(&self) -> Result<Option<Cut>, InputError> {
        let Some((length, rest)) = self.held().split_first_chunk::<LENGTH_BYTES>() else {
            return self
                .rest()
                .map_or(Ok(None), |_| Err(self.truncated(LENGTH_BYTES)));
        };
        let length = u32::from_le_bytes(*length);
        let bytes = length as usize;
        if bytes > RECORD_BYTES_MAX {
            return Err(self.too_large(Some(length)));
        }
        if rest.len() >= bytes {
            return Ok(Some(Cut {
                before: LENGTH_BYTES,
                bytes,
                behind: 0,
            }));
        }
        if self.ended {
            return Err(self.truncated(LENGTH_BYTES + bytes));
        }
        Ok(None)
    }

    fn split(&self, from: usize, to: usize) -> Piece<'_> {
        let bytes = &self.buffer[from..to];
        if let Shape::Lines {
            separator: Some(separator),
        } = &self.shape
            && let Some(at) = memchr::memmem::find(bytes, separator)
        {
            return Piece {
                key: Some(&bytes[..at]),
                value: &bytes[at + separator.len()..],
            };
        }
        Piece {
            key: None,
            value: bytes,
        }
    }

    fn too_large(&self, bytes: Option<u32>) -> InputError {
        let (at, record) = self.place();
        InputError::TooLarge { at, record, bytes }
    }

    fn truncated(&self, wanted: usize) -> InputError {
        let (at, record) = self.place();
        let left = self.held().len();
        InputError::Truncated {
            at,
            record,
            left,
            wanted,
        }
    }

    fn place(&self) -> (u64, u64) {
        (self.before + self.start as u64, self.records + 1)
    }
}

#[cfg(test)]
mod tests;
