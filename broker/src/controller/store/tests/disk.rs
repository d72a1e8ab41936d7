//! A disk in memory that forgets and tears what was not synced when its power goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Files;

/// Bytes that are written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Random numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

type Names = BTreeMap<String, u64>;

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A file as it is on the platter, and what was done to it since its last sync.
#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    since: Vec<Change>,
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(length) => bytes.resize(*length as usize, 0),
        Change::Write(position, written) => {
            let start = *position as usize;
            let end = start + written.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(written);
        }
    }
}

impl Inode {
    fn now(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.since.iter().for_each(|done| change(&mut bytes, done));
        bytes
    }

    /// What a power cut leaves: of each change all, nothing, or any of its sectors.
    fn crash(&mut self, random: &mut Random) {
        for done in std::mem::take(&mut self.since) {
            match (random.below(3), &done) {
                (0, _) => {}
                (1, _) | (_, Change::SetLen(_)) => change(&mut self.durable, &done),
                (_, Change::Write(position, bytes)) => {
                    let mut at = *position;
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let room = SECTOR_BYTES - at as usize % SECTOR_BYTES;
                        let (sector, after) = rest.split_at(room.min(rest.len()));
                        if random.coin() {
                            change(&mut self.durable, &Change::Write(at, sector.to_vec()));
                        }
                        at += sector.len() as u64;
                        rest = after;
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: Names,
    durable_names: Names,
    /// The names after each change since the last sync of the directory.
    names_since: Vec<Names>,
    operations: u64,
    cut_at: Option<(u64, u64)>,
    off: bool,
    room: Option<u64>,
    fail_sync: bool,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<World>>);

impl Disk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Cuts the power in operation number `at`, counted from the first ever.
    pub(super) fn cut_power_at(&self, at: u64, seed: u64) {
        self.world().cut_at = Some((at, seed));
    }

    pub(super) fn power_is_off(&self) -> bool {
        self.world().off
    }

    /// Starts again with what the platter has, or goes on if the power wasn't cut.
    pub(super) fn restore_power(&self) {
        let mut world = self.world();
        world.off = false;
        world.cut_at = None;
    }

    pub(super) fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Lets no more than so many bytes be written; `None` is no limit.
    pub(super) fn fill(&self, room: Option<u64>) {
        self.world().room = room;
    }

    pub(super) fn fail_next_sync(&self) {
        self.world().fail_sync = true;
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.world().names.keys().cloned().collect()
    }

    pub(super) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let bytes = |inode: &u64| world.inodes[inode].now();
        world
            .names
            .iter()
            .map(|(name, inode)| (name.clone(), bytes(inode)))
            .collect()
    }

    /// Puts durable files in place of all there are.
    pub(super) fn set_contents(&self, contents: &BTreeMap<String, Vec<u8>>) {
        let mut world = self.world();
        *world = World::default();
        for (name, bytes) in contents {
            let inode = world.next_inode;
            world.next_inode += 1;
            let file = Inode {
                durable: bytes.clone(),
                since: Vec::new(),
            };
            world.inodes.insert(inode, file);
            world.names.insert(name.clone(), inode);
        }
        world.durable_names = world.names.clone();
    }

    /// Flips a bit on the platter.
    pub(super) fn flip(&self, name: &str, byte: u64, bit: u32) {
        let mut world = self.world();
        let inode = world.names[name];
        let file = world.inodes.get_mut(&inode).unwrap();
        file.durable = file.now();
        file.since.clear();
        file.durable[byte as usize] ^= 1 << bit;
    }
}

impl World {
    /// Counts an operation that changes something. The one in which the power goes is done, and is
    /// then as uncertain as everything before it that was not synced.
    fn operation<T>(&mut self, does: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let off = || Err(io::Error::other("the power is off"));
        if self.off {
            return off();
        }
        let number = self.operations;
        self.operations += 1;
        let Some((_, seed)) = self.cut_at.filter(|(at, _)| *at == number) else {
            return does(self);
        };
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        if random.coin() {
            let _ = does(self);
        }
        self.crash(&mut random);
        off()
    }

    fn crash(&mut self, random: &mut Random) {
        self.off = true;
        self.inodes
            .values_mut()
            .for_each(|inode| inode.crash(random));
        // A journal keeps the order of changes to the directory.
        let kept = random.below(self.names_since.len() as u64 + 1) as usize;
        self.names_since.truncate(kept);
        if let Some(names) = std::mem::take(&mut self.names_since).pop() {
            self.durable_names = names;
        }
        self.names = self.durable_names.clone();
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Inode> {
        let inode = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.inodes.get_mut(inode).expect("a name has an inode"))
    }

    fn names_changed(&mut self) {
        self.names_since.push(self.names.clone());
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.world().file(name).map(|file| file.now())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.world().operation(|world| {
            let inode = world.next_inode;
            world.next_inode += 1;
            world.inodes.insert(inode, Inode::default());
            world.names.insert(name.to_owned(), inode);
            world.names_changed();
            Ok(())
        })
    }

    fn write_at(&mut self, name: &str, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.world().operation(|world| {
            let fits = world
                .room
                .map_or(bytes.len(), |room| bytes.len().min(room as usize));
            let written = Change::Write(position, bytes[..fits].to_vec());
            world.file(name)?.since.push(written);
            if fits < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        })
    }

    fn set_len(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.world().operation(|world| {
            world.file(name)?.since.push(Change::SetLen(bytes));
            Ok(())
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.world().operation(|world| {
            if std::mem::take(&mut world.fail_sync) {
                return Err(io::Error::other("the device doesn't answer"));
            }
            let file = world.file(name)?;
            file.durable = file.now();
            file.since.clear();
            Ok(())
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.world().operation(|world| {
            let inode = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            world.names.insert(to.to_owned(), inode);
            world.names_changed();
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.world().operation(|world| {
            world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            world.names_changed();
            Ok(())
        })
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.world().operation(|world| {
            world.durable_names = world.names.clone();
            world.names_since.clear();
            Ok(())
        })
    }
}
