//! One block of a simulated file: what is on stable storage and what may get there.

use std::rc::Rc;

use ringway_engine::limits::BLOCK_BYTES;

use crate::random::Random;

/// Contents of a block. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Zeros,
    /// Bytes of a life before the simulation began; the number makes them differ.
    Former(u64),
    Bytes(Rc<[u8]>),
}

impl Data {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), BLOCK_BYTES, "a block's bytes");
        Self::Bytes(Rc::from(bytes))
    }

    pub(super) fn copy_to(&self, out: &mut [u8]) {
        match self {
            Self::Zeros => out.fill(0),
            Self::Former(seed) => {
                let mut random = Random::new(*seed);
                for word in out.chunks_exact_mut(8) {
                    word.copy_from_slice(&random.next_u64().to_le_bytes());
                }
            }
            Self::Bytes(bytes) => out.copy_from_slice(bytes),
        }
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_BYTES];
        self.copy_to(&mut bytes);
        bytes
    }
}

/// A block of a file.
#[derive(Clone, Debug)]
pub(super) struct SimBlock {
    durable: Data,
    /// What was written since, oldest first, each with the ordinal of its completion.
    pending: Vec<(u64, Data)>,
    /// Whether the file system would find the block after a crash. Until then its contents are
    /// those of an unwritten extent, whatever the device holds.
    pub(super) allocated: bool,
    /// Whether this life of the segment has written it.
    pub(super) written: bool,
    /// Whether the process that uses it now has written it.
    pub(super) in_use: bool,
}

impl SimBlock {
    pub(super) const fn new(durable: Data, allocated: bool) -> Self {
        Self {
            durable,
            pending: Vec::new(),
            allocated,
            written: false,
            in_use: false,
        }
    }

    /// What a read sees.
    pub(super) fn visible(&self) -> &Data {
        self.pending.last().map_or(&self.durable, |(_, data)| data)
    }

    /// A write of it has completed.
    pub(super) fn write(&mut self, ordinal: u64, data: Data) {
        self.pending.push((ordinal, data));
    }

    /// Everything that completed before `ordinal` is on stable storage now.
    pub(super) fn flush(&mut self, ordinal: u64) {
        let count = self.pending.partition_point(|(at, _)| *at < ordinal);
        if let Some((_, data)) = self.pending.drain(..count).next_back() {
            self.durable = data;
        }
    }

    /// Puts bytes on stable storage at once.
    pub(super) fn write_durable(&mut self, ordinal: u64, data: Data) {
        self.write(ordinal, data);
        self.flush(ordinal + 1);
        self.allocated = true;
    }

    /// A failed sync: the cache forgets what it pleases.
    pub(super) fn forget_some(&mut self, random: &mut Random) {
        self.pending.retain(|_| !random.chance(500));
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The power goes: one of the versions stays. `keep` of 1,000 blocks keep a newer one than
    /// was synced. With `torn_bytes` smaller than a block, parts of it go their own ways.
    pub(super) fn lose_power(&mut self, keep: u64, torn_bytes: usize, random: &mut Random) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let pick = |random: &mut Random| {
            if !random.chance(keep) {
                return None;
            }
            // Mostly the newest: an older version of a block stays only if the device was slow.
            let newest = pending.len() - 1;
            Some(if random.chance(700) {
                newest
            } else {
                random.index(pending.len())
            })
        };
        let Some(first) = pick(random) else {
            if torn_bytes == BLOCK_BYTES {
                return;
            }
            return self.tear(&pending, torn_bytes, random);
        };
        if torn_bytes < BLOCK_BYTES {
            return self.tear(&pending, torn_bytes, random);
        }
        self.durable = pending[first].1.clone();
        self.allocated = true;
    }

    /// Each sector is from the old or from the newest contents.
    fn tear(&mut self, pending: &[(u64, Data)], torn_bytes: usize, random: &mut Random) {
        let mut bytes = self.durable.to_vec();
        let newest = pending.last().expect("there is a newest").1.to_vec();
        for start in (0..BLOCK_BYTES).step_by(torn_bytes) {
            if random.chance(500) {
                let sector = start..start + torn_bytes;
                bytes[sector.clone()].copy_from_slice(&newest[sector]);
            }
        }
        self.durable = Data::from_bytes(&bytes);
        self.allocated = true;
    }

    /// Changes what is on stable storage behind everybody's back.
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.visible().to_vec();
        change(&mut bytes);
        self.pending.clear();
        self.durable = Data::from_bytes(&bytes);
    }

    /// The next life of the block begins: its bytes stay.
    pub(super) fn recycle(&mut self) {
        self.written = false;
        self.in_use = false;
    }
}
