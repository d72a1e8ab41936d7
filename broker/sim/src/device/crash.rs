//! Crashes: what is left of the disk when the process dies or the power goes; and damage that
//! comes without either.

use std::rc::Rc;

use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::TopicPartition;

use crate::device::SimDevice;
use crate::device::disk::Disk;
use crate::device::file::{Place, SimFile};
use crate::device::task::Task;
use crate::random::Random;

/// What happens to everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: the device and the file system keep what they had, nothing of it any
    /// more durable than it was.
    Kill,
    /// The power goes: each block, name and side file is as it was last synced, or newer.
    Power,
}

/// Damage that nobody hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit of a segment is another.
    Flip,
    /// A block of a segment landed where another belongs, and its own place has old bytes.
    Misdirected,
}

impl SimDevice {
    /// The disk as the next process finds it. This one stays as it is.
    #[must_use]
    pub fn crash(&self, crash: Crash, seed: u64) -> Self {
        let mut disk = self.disk.clone();
        disk.random = Random::for_item(seed, 0xc4a5);
        disk.crash(crash);
        Self {
            disk,
            held: Default::default(),
        }
    }

    /// Damages one block of a segment. False when there is nothing to damage.
    pub fn damage(&mut self, log: TopicPartition, damage: Damage, seed: u64) -> bool {
        let mut random = Random::for_item(seed, 0xda3a);
        self.disk.damage(log, damage, &mut random)
    }

    /// Damages or removes a side file. False when there is none.
    pub fn damage_side(&mut self, log: TopicPartition, seed: u64) -> bool {
        let mut random = Random::for_item(seed, 0x51de);
        let mut sides: Vec<_> = self
            .disk
            .sides
            .iter_mut()
            .filter(|((of, _), side)| *of == log && side.visible.is_some())
            .map(|(_, side)| side)
            .collect();
        if sides.is_empty() {
            return false;
        }
        let index = random.index(sides.len());
        let side = &mut sides[index];
        let mut bytes = side.visible.take().expect("it was just seen");
        if random.chance(500) && !bytes.is_empty() {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            side.visible = Some(bytes);
        }
        side.durable = side.visible.clone();
        true
    }
}

impl Disk {
    fn crash(&mut self, crash: Crash) {
        self.advance_flights();
        self.ids.clear();
        for file in &mut self.files {
            if file.blocks.iter().any(|block| block.in_use) {
                Rc::make_mut(file)
                    .blocks
                    .iter_mut()
                    .for_each(|block| block.in_use = false);
            }
        }
        if crash == Crash::Power {
            self.lose_blocks();
            self.lose_names();
            self.lose_small_files();
        }
    }

    /// Operations in flight got as far as they got.
    fn advance_flights(&mut self) {
        let mut flights = std::mem::take(&mut self.flights);
        while !flights.is_empty() {
            let index = self.random.index(flights.len());
            let mut flight = flights.swap_remove(index);
            if let Task::Write {
                inode, start, data, ..
            } = &flight.task
            {
                self.ordinal += 1;
                let chance = [0, 500, 1000][self.random.index(3)];
                let (inode, start, data) = (*inode, *start, data.clone());
                self.write_some(inode, start, &data, chance);
                continue;
            }
            let steps = self.random.below(5);
            for _ in 0..steps {
                if self.advance(&mut flight).is_some() {
                    break;
                }
            }
            self.tear_checkpoint(&flight.task);
        }
    }

    /// A checkpoint that was being saved may be half there.
    fn tear_checkpoint(&mut self, task: &Task) {
        let Task::SaveCheckpoint { slot, .. } = task else {
            return;
        };
        if self.slots[*slot].saved > 0 {
            return;
        }
        let Some(bytes) = self.slots[*slot].bytes.as_mut() else {
            return;
        };
        if bytes.is_empty() || self.random.chance(300) {
            // All of it got there although nobody heard of it.
            self.slots[*slot].saved = self.ordinal;
            return;
        }
        let from = self.random.index(bytes.len());
        match self.random.below(3) {
            0 => bytes.truncate(from),
            1 => bytes[from..].fill(0),
            _ => bytes[from..].iter_mut().for_each(|byte| *byte = !*byte),
        }
    }

    fn lose_blocks(&mut self) {
        let torn_bytes = self.config.torn_bytes;
        // A whole crash may be kind or cruel; within a mixed one, so may each file.
        let mood = self.random.below(4);
        for file in &mut self.files {
            let keep = match mood {
                0 => 0,
                1 => 1000,
                2 => 500,
                _ => [0, 500, 1000][self.random.index(3)],
            };
            if file.blocks.iter().any(|block| block.is_dirty()) {
                for block in &mut Rc::make_mut(file).blocks {
                    block.lose_power(keep, torn_bytes, &mut self.random);
                }
            }
        }
    }

    /// Names change in a journal's order: a crash keeps the first changes, up to any of them.
    fn lose_names(&mut self) {
        let mut moves: Vec<u64> = self
            .files
            .iter()
            .flat_map(|file| &file.moves)
            .map(|(ordinal, _)| *ordinal)
            .collect();
        moves.push(0);
        moves.sort_unstable();
        let kept = match self.random.below(4) {
            0 => 0,
            1 => u64::MAX,
            _ => moves[self.random.index(moves.len())],
        };
        for index in 0..self.files.len() {
            if !self.files[index].moves.is_empty() {
                let file = Rc::make_mut(&mut self.files[index]);
                file.visible = file.place_at(kept);
                file.settle();
            }
            if !self.files[index].sized && self.files[index].visible.is_some() {
                let len = self.files[index].blocks.len();
                let kept = [0, self.random.index(len + 1), len][self.random.index(3)];
                let file = Rc::make_mut(&mut self.files[index]);
                file.blocks.truncate(kept);
                file.sized = true;
            }
        }
        let files = &self.files;
        self.free.retain(|&inode| files[inode].visible.is_none());
        let mut places: Vec<Place> = files.iter().filter_map(|file| file.visible).collect();
        places.sort_unstable();
        assert!(
            places.windows(2).all(|pair| pair[0] != pair[1]),
            "a name stands for one file"
        );
    }

    fn lose_small_files(&mut self) {
        for side in self.sides.values_mut() {
            if side.visible != side.durable && self.random.chance(500) {
                side.visible = side.durable.clone();
            }
            side.durable = side.visible.clone();
        }
    }

    fn damage(&mut self, log: TopicPartition, damage: Damage, random: &mut Random) -> bool {
        let written = |file: &SimFile| {
            let of_log = file.visible.is_some_and(|(of, _)| of == log);
            of_log && file.blocks.iter().any(|block| block.written)
        };
        let inodes: Vec<usize> = (0..self.files.len())
            .filter(|&inode| written(&self.files[inode]))
            .collect();
        if inodes.is_empty() {
            return false;
        }
        let inode = inodes[random.index(inodes.len())];
        let file = self.file(inode);
        let blocks: Vec<usize> = (0..file.blocks.len())
            .filter(|&block| file.blocks[block].written)
            .collect();
        let block = blocks[random.index(blocks.len())];
        match damage {
            Damage::Flip => {
                let (at, bit) = (random.index(BLOCK_BYTES), random.below(8));
                file.blocks[block].damage(|bytes| bytes[at] ^= 1 << bit);
            }
            Damage::Misdirected => {
                let other = random.index(file.blocks.len());
                let data = file.blocks[block].visible().clone();
                file.blocks[other].damage(|bytes| data.copy_to(bytes));
                file.blocks[block].damage(|bytes| bytes.fill(0));
            }
        }
        true
    }
}
