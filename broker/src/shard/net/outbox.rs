//! Replies on their way to one client: a queue of pieces, of which one message at a time is being
//! sent.

use std::collections::VecDeque;

use ringway_engine::buffer::Slice;

use crate::shard::ring::{Message, PARTS_MAX, Piece};

/// Bytes of one send: what a slow client takes in seconds.
const SEND_BYTES_MAX: usize = 1 << 20;
/// Heads are gathered in one piece up to this size.
const GATHERED_BYTES_MAX: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Piece>,
    /// The message when it is not with the kernel.
    message: Option<Box<Message>>,
    /// Bytes of all pieces that are not sent, those with the kernel too.
    bytes: usize,
    /// Bytes of the heads among them, counted until a head is sent whole.
    head_bytes: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            message: Some(Box::new(Message::new())),
            bytes: 0,
            head_bytes: 0,
        }
    }

    /// Bytes that wait or are being sent.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of replies that nobody else holds, other than those of batches.
    pub(super) const fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Whether the kernel has a message.
    pub(super) const fn is_sending(&self) -> bool {
        self.message.is_none()
    }

    /// Adds a frame: its header and head, and what follows them.
    pub(super) fn push(&mut self, head: Vec<u8>, data: Vec<Slice>) {
        self.bytes += head.len() + data.iter().map(|slice| slice.len()).sum::<usize>();
        self.head_bytes += head.len();
        match self.waiting.back_mut() {
            Some(Piece::Head(last)) if last.len() + head.len() <= GATHERED_BYTES_MAX => {
                last.extend_from_slice(&head);
            }
            _ => self.waiting.push_back(Piece::Head(head)),
        }
        for slice in data.into_iter().filter(|slice| !slice.is_empty()) {
            self.waiting.push_back(Piece::Data(slice));
        }
    }

    /// The next message, if there is one and none is being sent.
    pub(super) fn next_message(&mut self) -> Option<Box<Message>> {
        let message = self.message.as_mut()?;
        let mut bytes = message.bytes();
        while message.pieces.len() < PARTS_MAX
            && bytes < SEND_BYTES_MAX
            && let Some(piece) = self.waiting.pop_front()
        {
            bytes += piece.bytes().len();
            message.pieces.push_back(piece);
        }
        if bytes == 0 {
            return None;
        }
        self.message.take()
    }

    /// The kernel is done with the message and has sent so many bytes of it.
    pub(super) fn sent(&mut self, mut message: Box<Message>, bytes: usize) {
        let before = heads(&message);
        message.sent(bytes);
        self.bytes -= bytes;
        self.head_bytes -= before - heads(&message);
        self.message = Some(message);
    }

    /// Forgets what is not with the kernel.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        if let Some(message) = &mut self.message {
            message.pieces.clear();
            message.skip = 0;
            self.bytes = 0;
            self.head_bytes = 0;
        }
    }
}

/// Bytes of the heads in a message.
fn heads(message: &Message) -> usize {
    let pieces = message.pieces.iter();
    let heads = pieces.filter(|piece| matches!(piece, Piece::Head(_)));
    heads.map(|piece| piece.bytes().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(message: &Message) -> Vec<u8> {
        let all: Vec<u8> = message
            .pieces
            .iter()
            .flat_map(|piece| piece.bytes().to_vec())
            .collect();
        all[message.skip..].to_vec()
    }

    #[test]
    fn small_heads_travel_together_and_partial_sends_go_on() {
        let pool = ringway_engine::buffer::Pool::new(0);
        let mut block = pool.take(1);
        block[..4].copy_from_slice(b"DATA");
        let mut outbox = Outbox::new();
        outbox.push(b"ab".to_vec(), Vec::new());
        outbox.push(b"cd".to_vec(), vec![block.freeze(4)]);
        outbox.push(b"ef".to_vec(), Vec::new());
        assert_eq!((outbox.bytes(), outbox.head_bytes()), (10, 6));
        let message = outbox.next_message().unwrap();
        assert_eq!(message.pieces.len(), 3);
        assert_eq!(bytes_of(&message), b"abcdDATAef");
        assert!(outbox.next_message().is_none(), "one message at a time");
        outbox.sent(message, 5);
        assert_eq!((outbox.bytes(), outbox.head_bytes()), (5, 2));
        let message = outbox.next_message().unwrap();
        assert_eq!(bytes_of(&message), b"ATAef");
        outbox.sent(message, 5);
        assert_eq!((outbox.bytes(), outbox.head_bytes()), (0, 0));
        assert!(outbox.next_message().is_none());
    }
}
