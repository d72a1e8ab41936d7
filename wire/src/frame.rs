//! Frames: how requests and replies share a byte stream.
//!
//! A frame is a 16-byte header, the typed part (the head) padded to 16 bytes, then batches as they
//! are. Every frame is a multiple of 16 bytes long, so a batch in a stream stands at a multiple of
//! 16 and can be read in place.

use rkyv::util::AlignedVec;

use crate::ids::CorrelationId;
use crate::limits::{
    ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEAD_BYTES_MAX, FRAME_HEADER_BYTES, aligned,
};

/// Set in [`FrameHeader::kind`] of every reply.
pub const REPLY: u16 = 0x8000;

/// Why a stream of bytes is not a stream of frames. The connection can't be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below a header's or not a multiple of 16.
    #[error("a frame can't have {0} bytes: not a Ringway stream")]
    Length(u32),
    /// The length is above the receiver's limit.
    #[error("a frame of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// The frame's length.
        bytes: u32,
        /// The receiver's limit.
        limit: usize,
    },
    /// The head is longer than the frame or than heads may be.
    #[error("a head of {head_bytes} bytes doesn't fit a frame of {frame_bytes}")]
    Head {
        /// The head's length.
        head_bytes: u32,
        /// The frame's length.
        frame_bytes: u32,
    },
    /// Reserved bytes are not zero.
    #[error("reserved bytes of a frame header are {0:#06x}, not zero")]
    Reserved(u16),
}

/// The 16 bytes before each frame, little-endian:
/// length u32, kind u16, reserved u16, correlation u32, head length u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame, this header included; a multiple of 16.
    pub frame_bytes: u32,
    /// Which request; [`REPLY`] is set in its reply.
    pub kind: u16,
    /// Pairs a reply with its request.
    pub correlation: CorrelationId,
    /// Bytes of the head, without padding.
    pub head_bytes: u32,
}

impl FrameHeader {
    /// The header of a frame with so many bytes of head and of data.
    ///
    /// # Panics
    /// When the head or the frame would be larger than any receiver accepts.
    #[must_use]
    pub fn new(kind: u16, correlation: CorrelationId, head: usize, data: usize) -> Self {
        assert!(
            head <= FRAME_HEAD_BYTES_MAX,
            "a head of {head} bytes is above the limit"
        );
        let frame = FRAME_HEADER_BYTES + aligned(head) + aligned(data);
        assert!(
            frame <= FRAME_BYTES_MAX,
            "a frame of {frame} bytes is above the limit"
        );
        Self {
            frame_bytes: frame as u32,
            kind,
            correlation,
            head_bytes: head as u32,
        }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.frame_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.correlation.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes
    }

    /// Reads a header and checks it against a limit on the whole frame, in bytes.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is of no use from here on.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES], limit: usize) -> Result<Self, FrameError> {
        let u32_at = |start: usize| {
            u32::from_le_bytes([
                bytes[start],
                bytes[start + 1],
                bytes[start + 2],
                bytes[start + 3],
            ])
        };
        let frame_bytes = u32_at(0);
        let kind = u16::from_le_bytes([bytes[4], bytes[5]]);
        let reserved = u16::from_le_bytes([bytes[6], bytes[7]]);
        let head_bytes = u32_at(12);
        let whole = frame_bytes as usize;
        if whole < FRAME_HEADER_BYTES || !whole.is_multiple_of(ALIGNMENT) {
            return Err(FrameError::Length(frame_bytes));
        }
        if whole > limit {
            return Err(FrameError::TooLarge {
                bytes: frame_bytes,
                limit,
            });
        }
        if reserved != 0 {
            return Err(FrameError::Reserved(reserved));
        }
        let head = head_bytes as usize;
        if head > FRAME_HEAD_BYTES_MAX || FRAME_HEADER_BYTES + aligned(head) > whole {
            return Err(FrameError::Head {
                head_bytes,
                frame_bytes,
            });
        }
        Ok(Self {
            frame_bytes,
            kind,
            correlation: CorrelationId(u32_at(8)),
            head_bytes,
        })
    }

    /// Where the data starts, in bytes from the frame's start; a multiple of 16.
    #[must_use]
    pub const fn data_start(&self) -> usize {
        FRAME_HEADER_BYTES + aligned(self.head_bytes as usize)
    }

    /// Bytes of data.
    #[must_use]
    pub const fn data_bytes(&self) -> usize {
        self.frame_bytes as usize - self.data_start()
    }
}

/// Writes a frame's header and padded head; the data follows as it is, padded by the caller to a
/// multiple of 16 (batches are).
#[must_use]
pub fn encode_head(kind: u16, correlation: CorrelationId, head: &[u8], data: usize) -> Vec<u8> {
    let header = FrameHeader::new(kind, correlation, head.len(), data);
    let mut bytes = Vec::with_capacity(header.data_start());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(head);
    bytes.resize(header.data_start(), 0);
    bytes
}

/// One whole frame, in place in the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// The typed part, without padding.
    pub head: &'a [u8],
    /// What follows, 16-aligned.
    pub data: &'a [u8],
}

impl<'a> Frame<'a> {
    fn new(header: FrameHeader, bytes: &'a [u8]) -> Self {
        let head = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.head_bytes as usize];
        Self {
            header,
            head,
            data: &bytes[header.data_start()..header.frame_bytes as usize],
        }
    }
}

/// Cuts a stream of bytes into frames. Space grows with the bytes that came, never with a length
/// that was only announced.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: AlignedVec<ALIGNMENT>,
    /// Bytes of `buffer` that belong to frames already handed out; a multiple of 16.
    start: usize,
    /// Bytes of `buffer` that came from the stream.
    end: usize,
    frame_bytes_max: usize,
    /// Most bytes held at once since the space was last looked at.
    held_max: usize,
    /// Times that the decoder ran empty since then.
    drains: u32,
}

/// Space that a decoder keeps however little it is used, in bytes.
const IDLE_BYTES_MAX: usize = 64 << 10;
/// After running empty so many times a decoder gives back space of which it has used less than a
/// quarter. More than one, so that a stream of large frames doesn't pay for new space with each.
const DRAINS_PER_LOOK: u32 = 64;

impl FrameDecoder {
    /// A decoder that accepts frames up to so many bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        let frame_bytes_max = frame_bytes_max.min(FRAME_BYTES_MAX);
        Self {
            buffer: AlignedVec::new(),
            start: 0,
            end: 0,
            frame_bytes_max,
            held_max: 0,
            drains: 0,
        }
    }

    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// At least `bytes_min` bytes of space to read into; tell [`FrameDecoder::filled`] how many
    /// were used.
    pub fn spare(&mut self, bytes_min: usize) -> &mut [u8] {
        if self.start == self.end && self.end > 0 {
            self.start = 0;
            self.end = 0;
            self.drains += 1;
            if self.drains >= DRAINS_PER_LOOK {
                if self.held_max.max(bytes_min) < self.buffer.len() / 4 {
                    self.shrink(IDLE_BYTES_MAX);
                }
                self.held_max = 0;
                self.drains = 0;
            }
        }
        if self.buffer.len() - self.end < bytes_min {
            self.make_room(bytes_min);
        }
        &mut self.buffer[self.end..]
    }

    /// Gives back space that nothing stands in, if it is more than `kept_bytes`: for a connection
    /// that has been silent, or when memory is short.
    pub fn shrink(&mut self, kept_bytes: usize) {
        if self.start == self.end && self.buffer.len() > kept_bytes {
            self.buffer = AlignedVec::new();
            self.start = 0;
            self.end = 0;
        }
    }

    fn make_room(&mut self, bytes_min: usize) {
        let held = self.end - self.start;
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
        }
        if self.buffer.len() - held < bytes_min {
            let doubled = (held + bytes_min)
                .max(2 * self.buffer.len())
                .next_multiple_of(4096);
            self.buffer.resize(doubled, 0);
        }
    }

    /// Says that the first `bytes` of the spare space now hold bytes of the stream.
    ///
    /// # Panics
    /// When that is more space than there is.
    pub fn filled(&mut self, bytes: usize) {
        assert!(
            self.end + bytes <= self.buffer.len(),
            "more bytes than the space given"
        );
        self.end += bytes;
        self.held_max = self.held_max.max(self.end - self.start);
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is of no use from here on.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let held = &self.buffer[self.start..self.end];
        let Some(header) = held.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header, self.frame_bytes_max)?;
        let whole = header.frame_bytes as usize;
        if held.len() < whole {
            return Ok(None);
        }
        let start = self.start;
        self.start += whole;
        Ok(Some(Frame::new(header, &self.buffer[start..start + whole])))
    }

    /// Kind and correlation as they stand at the front of what came, also where
    /// [`FrameDecoder::next_frame`] refuses the header: what an answer can still be paired by.
    #[must_use]
    pub fn front(&self) -> Option<(u16, CorrelationId)> {
        let held = &self.buffer[self.start..self.end];
        let header = held.first_chunk::<FRAME_HEADER_BYTES>()?;
        let kind = u16::from_le_bytes([header[4], header[5]]);
        let correlation = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        Some((kind, CorrelationId(correlation)))
    }

    /// Bytes that came and belong to no frame handed out yet.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory that the decoder takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes that the frame now arriving still lacks, if its header is there: how much to read.
    /// The sender only announced them: who passes this to [`FrameDecoder::spare`] caps it first.
    #[must_use]
    pub fn lacking(&self) -> Option<usize> {
        let held = &self.buffer[self.start..self.end];
        let header = held.first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader::decode(header, self.frame_bytes_max).ok()?;
        (header.frame_bytes as usize).checked_sub(held.len())
    }
}
