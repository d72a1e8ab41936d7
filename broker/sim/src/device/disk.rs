//! The state of the simulated disk: files, side files, checkpoint slots, and what is in flight.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringway_engine::device::{FileId, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_engine::shard::FoundFile;
use ringway_wire::{Offset, TopicPartition};

use crate::device::DeviceConfig;
use crate::device::file::{Place, SimFile};
use crate::device::task::{Flight, Inode};
use crate::random::Random;

/// Removed segments kept for recycling.
const FREE_MAX: usize = 8;

/// A small file that is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct SideFile {
    pub(super) visible: Option<Vec<u8>>,
    pub(super) durable: Option<Vec<u8>>,
}

/// One of the two places of the checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) bytes: Option<Vec<u8>>,
    /// Ordinal of its last whole save; 0 when it holds nothing whole.
    pub(super) saved: u64,
}

/// Everything that a crash acts upon.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) config: DeviceConfig,
    pub(super) random: Random,
    pub(super) files: Vec<Rc<SimFile>>,
    /// Removed segments whose bytes the next life may find.
    pub(super) free: Vec<Inode>,
    pub(super) sides: BTreeMap<(TopicPartition, Offset), SideFile>,
    pub(super) slots: [Slot; 2],
    /// What the engine's numbers stand for.
    pub(super) ids: BTreeMap<FileId, Option<Inode>>,
    pub(super) flights: Vec<Flight>,
    /// Counts completions.
    pub(super) ordinal: u64,
}

impl Disk {
    pub(super) fn new(config: DeviceConfig, seed: u64) -> Self {
        assert!(
            config.torn_bytes >= 8 && BLOCK_BYTES.is_multiple_of(config.torn_bytes),
            "parts of a block make a block"
        );
        Self {
            config,
            random: Random::for_item(seed, 0xd15c),
            files: Vec::new(),
            free: Vec::new(),
            sides: BTreeMap::new(),
            slots: Default::default(),
            ids: BTreeMap::new(),
            flights: Vec::new(),
            ordinal: 1,
        }
    }

    pub(super) fn file(&mut self, inode: Inode) -> &mut SimFile {
        Rc::make_mut(&mut self.files[inode])
    }

    /// The file seen at a place.
    pub(super) fn find(&self, place: Place) -> Option<Inode> {
        self.files
            .iter()
            .position(|file| file.visible == Some(place))
    }

    pub(super) fn list(&self, log: TopicPartition) -> Vec<FoundFile> {
        let mut found: Vec<FoundFile> = self
            .files
            .iter()
            .filter_map(|file| match file.visible {
                Some((of, name)) if of == log => Some(FoundFile {
                    name,
                    bytes: file.bytes(),
                }),
                _ => None,
            })
            .collect();
        found.sort_by_key(|file| file.name);
        found
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let named = self.files.iter().filter(|file| file.visible.is_some());
        named.map(|file| file.bytes()).sum()
    }

    pub(super) fn segment_bytes(&self, log: TopicPartition, name: SegmentName) -> Vec<u8> {
        let inode = self.find((log, name)).expect("there is such a segment");
        let file = &self.files[inode];
        let mut bytes = vec![0; file.bytes() as usize];
        for (block, out) in file.blocks.iter().zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            block.visible().copy_to(out);
        }
        bytes
    }

    pub(super) fn choose_former_life(
        &mut self,
        log: TopicPartition,
        name: SegmentName,
        block: usize,
        bytes: &[u8],
    ) -> bool {
        let Some(inode) = self.find((log, name)) else {
            return false;
        };
        let file = self.file(inode);
        if !file.recycled || block >= file.blocks.len() || file.blocks[block].written {
            return false;
        }
        file.blocks[block].damage(|all| all[..bytes.len()].copy_from_slice(bytes));
        true
    }

    /// Takes a file's name; its bytes may turn up in a later life.
    pub(super) fn unlink(&mut self, inode: Inode) {
        let ordinal = self.ordinal;
        self.file(inode).place(None, ordinal);
        self.free.push(inode);
        if self.free.len() > FREE_MAX {
            self.free.remove(0);
        }
    }

    /// Makes names durable, all of them: a journal keeps everything that came before.
    pub(super) fn sync_names(&mut self) {
        for inode in 0..self.files.len() {
            if !self.files[inode].moves.is_empty() {
                self.file(inode).settle();
            }
        }
        self.forget_files();
    }

    /// Frees the memory of files that nothing leads to any more.
    fn forget_files(&mut self) {
        for inode in 0..self.files.len() {
            let file = &self.files[inode];
            let named = file.durable.is_some() || file.visible.is_some() || !file.moves.is_empty();
            let used = self
                .flights
                .iter()
                .any(|flight| flight.uses() == Some(inode));
            if !named && !used && !file.blocks.is_empty() && !self.free.contains(&inode) {
                self.file(inode).blocks = Vec::new();
            }
        }
    }

    pub(super) fn remove_partition(&mut self, log: TopicPartition) {
        let inodes: Vec<Inode> = (0..self.files.len())
            .filter(|&inode| self.files[inode].visible.is_some_and(|(of, _)| of == log))
            .collect();
        for inode in inodes {
            self.unlink(inode);
        }
        for (_, side) in self.sides.iter_mut().filter(|((of, _), _)| *of == log) {
            side.visible = None;
        }
    }
}
