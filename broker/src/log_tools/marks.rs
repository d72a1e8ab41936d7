//! What side files and checkpoints say of a segment's batches, held against the batches.

use ringway_engine::log::{Chain, CheckpointEntry, IndexEntry, Side};
use ringway_wire::Offset;

/// A claim: at this place the next batch has this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    position: u64,
    offset: Offset,
    /// Header CRC of the batch before, where it is claimed.
    last_header_crc: Option<u32>,
}

impl From<&IndexEntry> for Mark {
    fn from(entry: &IndexEntry) -> Self {
        Self {
            position: entry.position.0,
            offset: entry.base_offset,
            last_header_crc: None,
        }
    }
}

/// The claims of one file about one segment, checked in one pass along it.
#[derive(Debug)]
pub(super) struct Marks {
    /// The file that makes them, for messages.
    pub(super) file: String,
    /// By falling position.
    left: Vec<Mark>,
    /// Where the batches end, it says.
    end: Mark,
    /// The first that isn't so.
    pub(super) wrong: Option<String>,
}

impl Marks {
    /// What a side file says.
    pub(super) fn of_side(file: String, side: &Side) -> Self {
        let end = Mark {
            position: side.end.0,
            offset: side.next_offset,
            last_header_crc: Some(side.last_header_crc),
        };
        Self::new(file, side.index.entries(), end)
    }

    /// What a checkpoint says of the segment that was being written.
    pub(super) fn of_checkpoint(file: String, entry: &CheckpointEntry) -> Self {
        let end = Mark {
            position: entry.position.0,
            offset: entry.next_offset,
            last_header_crc: (entry.position.0 > 0).then_some(entry.last_header_crc),
        };
        Self::new(file, entry.index.entries(), end)
    }

    fn new(file: String, entries: &[IndexEntry], end: Mark) -> Self {
        let mut left: Vec<_> = entries.iter().map(Mark::from).collect();
        left.push(end);
        left.reverse();
        Self {
            file,
            left,
            end,
            wrong: None,
        }
    }

    /// Tells of a place where a batch may begin, in the order of the file.
    pub(super) fn pass(&mut self, position: u64, chain: &Chain) {
        while let Some(mark) = self.left.pop_if(|mark| mark.position <= position) {
            if self.wrong.is_some() {
                continue;
            }
            let claim = format!(
                "it has offset {} at position {}",
                mark.offset, mark.position
            );
            if mark.position < position {
                self.wrong = Some(format!("{claim}, where no batch begins"));
            } else if mark.offset != chain.next_offset {
                self.wrong = Some(format!("{claim}, which is that of {}", chain.next_offset));
            } else if let (Some(claimed), Some(found)) =
                (mark.last_header_crc, chain.last_header_crc)
                && claimed != found
            {
                self.wrong = Some(format!(
                    "{claim} behind a header CRC {claimed:#010x}, which is {found:#010x}"
                ));
            }
        }
    }

    /// Whether the batches are said to end at `position`, before `offset`.
    pub(super) fn ends_at(&self, position: u64, offset: Offset) -> bool {
        (self.end.position, self.end.offset) == (position, offset)
    }

    /// Forgets what is said of a damaged part, up to where the log goes on.
    pub(super) fn skip(&mut self, to: u64) {
        while self.left.pop_if(|mark| mark.position < to).is_some() {}
    }

    /// The segment's batches end here; nothing may be said of what is behind.
    pub(super) fn finish(&mut self, position: u64) {
        if let (Some(mark), None) = (self.left.last(), &self.wrong) {
            self.wrong = Some(format!(
                "it has offset {} at position {}, and the batches end at {position}",
                mark.offset, mark.position
            ));
        }
    }
}
