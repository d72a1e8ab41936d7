//! A thread of its own that reads the input, so that a silent input never holds up what has been
//! read. Blocks go round between it and the reader: memory is bounded, nothing is allocated twice.

use std::io::{self, Read};
use std::thread;

use tokio::sync::mpsc;

use crate::limits::{INPUT_BLOCK_BYTES, INPUT_BLOCKS};

/// Blocks of input, in order.
pub(crate) struct Source {
    full: mpsc::Receiver<io::Result<Vec<u8>>>,
    empty: mpsc::Sender<Vec<u8>>,
}

impl Source {
    /// Starts to read. The thread ends with the input, or when the source is dropped and the read
    /// under way returns.
    pub(crate) fn start(input: impl Read + Send + 'static) -> io::Result<Self> {
        let (full_in, full) = mpsc::channel(INPUT_BLOCKS);
        let (empty, empty_out) = mpsc::channel(INPUT_BLOCKS);
        for _ in 0..INPUT_BLOCKS {
            let block = Vec::with_capacity(INPUT_BLOCK_BYTES);
            empty.try_send(block).expect("the channel holds all blocks");
        }
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read_all(input, &full_in, empty_out))?;
        Ok(Self { full, empty })
    }

    /// The next block; `None` at the end of the input. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.full.recv().await
    }

    /// Gives a block back for the next read.
    pub(crate) fn recycle(&self, block: Vec<u8>) {
        // The reading thread may have ended already; the block is then of no use.
        let _ = self.empty.try_send(block);
    }
}

fn read_all(
    mut input: impl Read,
    full: &mpsc::Sender<io::Result<Vec<u8>>>,
    mut empty: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(mut block) = empty.blocking_recv() {
        block.resize(INPUT_BLOCK_BYTES, 0);
        let read = loop {
            match input.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let message = match read {
            Ok(0) => return,
            Ok(bytes) => {
                block.truncate(bytes);
                Ok(block)
            }
            Err(error) => Err(error),
        };
        let failed = message.is_err();
        if full.blocking_send(message).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out its bytes a few at a time, then fails if told to.
    struct Slow {
        left: Vec<u8>,
        fails: bool,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.left.len().min(100_000).min(buffer.len());
            if bytes == 0 && self.fails {
                return Err(io::Error::other("the disk is gone"));
            }
            buffer[..bytes].copy_from_slice(&self.left[..bytes]);
            self.left.drain(..bytes);
            Ok(bytes)
        }
    }

    async fn read(input: Slow) -> (Vec<u8>, Option<io::Error>) {
        let mut source = Source::start(input).unwrap();
        let mut all = Vec::new();
        while let Some(block) = source.next().await {
            match block {
                Ok(block) => {
                    all.extend_from_slice(&block);
                    source.recycle(block);
                }
                Err(error) => return (all, Some(error)),
            }
        }
        (all, None)
    }

    #[tokio::test]
    async fn everything_comes_in_order() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (all, error) = read(Slow {
            left: bytes.clone(),
            fails: false,
        })
        .await;
        assert!(all == bytes);
        assert!(error.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read() {
        let (all, error) = read(Slow {
            left: vec![7; 150_000],
            fails: true,
        })
        .await;
        assert_eq!(all.len(), 150_000);
        assert_eq!(error.unwrap().to_string(), "the disk is gone");
    }
}
