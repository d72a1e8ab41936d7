//! A simulated segment file: its blocks, and its name as seen now and as found after a crash.

use ringway_engine::device::SegmentName;
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::TopicPartition;

use crate::device::block::{Data, SimBlock};

/// Where a file is found.
pub(super) type Place = (TopicPartition, SegmentName);

/// A file without a name is free to be recycled, or forgotten.
#[derive(Clone, Debug)]
pub(super) struct SimFile {
    /// Where it is found now.
    pub(super) visible: Option<Place>,
    /// Where it was seen since the directory was synced: from which ordinal on, and where.
    pub(super) moves: Vec<(u64, Option<Place>)>,
    /// Where it is found after a crash, if the directory has been synced.
    pub(super) durable: Option<Place>,
    pub(super) blocks: Vec<SimBlock>,
    /// Whether size and allocation are durable; until then a crash may take some of them.
    pub(super) sized: bool,
    /// Whether it holds a former life's bytes.
    pub(super) recycled: bool,
}

impl SimFile {
    /// A new, empty file that is seen at a place.
    pub(super) fn new(place: Place, ordinal: u64) -> Self {
        Self {
            visible: Some(place),
            moves: vec![(ordinal, Some(place))],
            durable: None,
            blocks: Vec::new(),
            sized: false,
            recycled: false,
        }
    }

    /// A segment from before the simulation began, full of bytes that mean nothing now.
    pub(super) fn former(blocks: u64, seed: u64) -> Self {
        let block = |index| SimBlock::new(Data::Former(seed.wrapping_add(index)), true);
        Self {
            visible: None,
            moves: Vec::new(),
            durable: None,
            blocks: (0..blocks).map(block).collect(),
            sized: true,
            recycled: true,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK_BYTES) as u64
    }

    /// Makes the file so many blocks long; new ones are allocated and unwritten.
    pub(super) fn resize(&mut self, blocks: usize) {
        self.blocks
            .resize(blocks, SimBlock::new(Data::Zeros, false));
    }

    /// Bytes from the start that a crash leaves written.
    pub(super) fn filled_bytes(&self) -> u64 {
        let filled = self
            .blocks
            .iter()
            .take_while(|block| block.allocated)
            .count();
        (filled * BLOCK_BYTES) as u64
    }

    /// Everything that completed before `ordinal`, on stable storage with its allocation, and the
    /// file's size.
    pub(super) fn sync(&mut self, ordinal: u64) {
        self.sized = true;
        for block in &mut self.blocks {
            if block.is_dirty() {
                block.flush(ordinal);
                block.allocated |= !block.is_dirty();
            }
        }
    }

    /// Everything that completed before `ordinal`, where the file system finds it after a crash.
    pub(super) fn flush(&mut self, ordinal: u64) {
        for block in self.blocks.iter_mut().filter(|block| block.allocated) {
            block.flush(ordinal);
        }
    }

    /// It is seen elsewhere, or nowhere, from now on.
    pub(super) fn place(&mut self, place: Option<Place>, ordinal: u64) {
        self.visible = place;
        self.moves.push((ordinal, place));
    }

    /// What is seen is what a crash leaves.
    pub(super) fn settle(&mut self) {
        self.durable = self.visible;
        self.moves.clear();
    }

    /// Where a crash leaves it if the moves up to an ordinal are durable.
    pub(super) fn place_at(&self, ordinal: u64) -> Option<Place> {
        let moved = self.moves.iter().rev().find(|(at, _)| *at <= ordinal);
        moved.map_or(self.durable, |(_, place)| *place)
    }

    /// The file starts its next life at a place.
    pub(super) fn recycle(&mut self, place: Place, ordinal: u64) {
        self.place(Some(place), ordinal);
        self.recycled = true;
        for block in &mut self.blocks {
            block.recycle();
        }
    }
}
