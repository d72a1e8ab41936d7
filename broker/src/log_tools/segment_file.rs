//! A segment's file, read past the page cache where the file system lets it: what the cache kept
//! of it would slow down the broker's own direct writes later.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use ringway_engine::buffer::{Block, Pool};
use ringway_engine::limits::{BLOCK_BYTES, block_ceil, block_floor};
use ringway_engine::log::ReadFailed;

use super::walk::Source;

/// Bytes of a read, if not more are needed at once.
const READ_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct SegmentFile {
    file: File,
    window: Block,
    /// Where the window's bytes are in the file.
    start: u64,
    filled: usize,
}

impl SegmentFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
        let file = match direct {
            // Not every file system that a copy may lie on has direct I/O.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path)?,
            result => result?,
        };
        Ok(Self {
            file,
            window: Pool::new(0).take(READ_BYTES),
            start: 0,
            filled: 0,
        })
    }

    /// Fills the window with `bytes` from a block's start on.
    fn fill(&mut self, start: u64, bytes: usize) -> io::Result<()> {
        if self.window.len() < bytes {
            self.window = Pool::new(0).take(bytes);
        }
        self.start = start;
        self.filled = 0;
        while self.filled < bytes {
            let space = &mut self.window[self.filled..bytes];
            match self.file.read_at(space, start + self.filled as u64) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.filled = 0;
                    return Err(error);
                }
            }
            // Behind a part of a block is the file's end, and direct reads start at blocks.
            if !self.filled.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        Ok(())
    }
}

impl Source for SegmentFile {
    fn bytes(&mut self, position: u64, wanted: usize) -> Result<&[u8], ReadFailed> {
        let end = position + wanted as u64;
        let known = self.start..self.start + self.filled as u64;
        if !(known.contains(&position) && end <= known.end) {
            let start = block_floor(position);
            let least = (block_ceil(end) - start) as usize;
            // Fewer at a second try, so that one bad block costs only what is in it.
            self.fill(start, least.max(READ_BYTES))
                .or_else(|_| self.fill(start, least))
                .map_err(|_| ReadFailed)?;
        }
        let first = ((position - self.start) as usize).min(self.filled);
        let last = (first + wanted).min(self.filled);
        Ok(&self.window[first..last])
    }
}
