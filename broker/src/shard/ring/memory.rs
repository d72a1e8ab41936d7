//! What operations in flight point at, kept by the ring until they end.

use std::collections::VecDeque;
use std::ffi::CString;

use ringway_engine::buffer::{Block, Slice};

use super::PARTS_MAX;

/// The memory of one operation.
#[derive(Debug)]
pub(crate) enum Memory {
    /// None.
    None,
    /// A path.
    Path { _path: CString },
    /// A message being sent.
    Message(Box<Message>),
    /// Parts being written.
    Parts {
        parts: Vec<Slice>,
        _vectors: Vec<libc::iovec>,
    },
    /// A block being read into.
    Block(Block),
}

/// Bytes to be sent as they are.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Headers and heads of replies.
    Head(Vec<u8>),
    /// Batches.
    Data(Slice),
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Data(bytes) => bytes,
        }
    }
}

/// Pieces sent together, with the vectors that the kernel reads them by.
pub(crate) struct Message {
    /// The pieces, at most [`PARTS_MAX`].
    pub(crate) pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent before.
    pub(crate) skip: usize,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Message {
    /// An empty message.
    pub(crate) fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            skip: 0,
            vectors: Vec::new(),
            // SAFETY: a message header is plain integers and pointers; all zeros is an empty one.
            header: unsafe { std::mem::zeroed() },
        }
    }

    /// Bytes still to be sent.
    pub(crate) fn bytes(&self) -> usize {
        let all: usize = self.pieces.iter().map(|piece| piece.bytes().len()).sum();
        all - self.skip
    }

    /// Takes away what was sent. Tells how many bytes of pieces are gone with it.
    pub(crate) fn sent(&mut self, bytes: usize) -> usize {
        let mut left = bytes + self.skip;
        let mut gone = 0;
        while let Some(first) = self.pieces.front().map(|piece| piece.bytes().len())
            && first <= left
        {
            left -= first;
            gone += first;
            self.pieces.pop_front();
        }
        assert!(
            left == 0 || !self.pieces.is_empty(),
            "no more was sent than there is"
        );
        self.skip = left;
        gone
    }

    /// Writes the header for the pieces. It is valid as long as the message isn't changed.
    pub(super) fn prepare(&mut self) -> *const libc::msghdr {
        assert!(
            self.pieces.len() <= PARTS_MAX,
            "a message has at most PARTS_MAX pieces"
        );
        self.vectors.clear();
        for (index, piece) in self.pieces.iter().enumerate() {
            let bytes = &piece.bytes()[if index == 0 { self.skip } else { 0 }..];
            self.vectors.push(vector(bytes));
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len() as _;
        &raw const self.header
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("pieces", &self.pieces.len())
            .field("skip", &self.skip)
            .finish_non_exhaustive()
    }
}

/// The kernel's words for each part.
pub(super) fn vectors(parts: &[Slice]) -> Vec<libc::iovec> {
    assert!(
        parts.len() <= PARTS_MAX,
        "a write has at most PARTS_MAX parts"
    );
    parts.iter().map(|part| vector(part)).collect()
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}
