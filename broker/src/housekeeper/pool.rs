//! Segments of a former life, kept for the next: one that was written to its end needs no zeros,
//! because the chain of its batches tells old ones from new.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// How much space the pool may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Bytes at most.
    pub bytes_max: u64,
    /// Of the file system, one part in so many at most.
    pub disk_share: u64,
}

impl Default for PoolLimits {
    /// 8 GiB, and 5 % of the disk.
    fn default() -> Self {
        Self {
            bytes_max: 8 << 30,
            disk_share: 20,
        }
    }
}

/// Segments of one size.
#[derive(Debug, Default)]
struct Shelf {
    paths: Vec<PathBuf>,
    /// When one was last asked for, counted by askings.
    asked: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    directory: PathBuf,
    shelves: BTreeMap<u64, Shelf>,
    bytes: u64,
    bytes_max: u64,
    names: u64,
    askings: u64,
}

/// A name in the pool for a segment on its way there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    bytes: u64,
}

impl Pool {
    /// The pool in a directory, with what former runs left in it, as far as it may be kept.
    pub(super) fn find(directory: &Path, limits: PoolLimits) -> Self {
        let share = disk_bytes(directory) / limits.disk_share.max(1);
        let mut pool = Self::new(directory, limits.bytes_max.min(share));
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            pool.names = pool
                .names
                .max(number.map_or(0, |number: u64| number.saturating_add(1)));
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if number.is_some() && bytes > 0 && pool.bytes + bytes <= pool.bytes_max {
                pool.bytes += bytes;
                pool.shelves.entry(bytes).or_default().paths.push(path);
            } else {
                // The pool is a cache: what it can't keep, it may lose.
                let _ = fs::remove_file(&path);
            }
        }
        pool
    }

    fn new(directory: &Path, bytes_max: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            shelves: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            names: 0,
            askings: 0,
        }
    }

    /// A segment of exactly that size.
    pub(super) fn take(&mut self, bytes: u64) -> Option<PathBuf> {
        self.askings += 1;
        let shelf = self.shelves.entry(bytes).or_default();
        shelf.asked = self.askings;
        let path = shelf.paths.pop()?;
        self.bytes -= bytes;
        Some(path)
    }

    /// A name for one more segment of that size, if there is room for it or sizes that were asked
    /// for longer ago make some: these segments are to be removed.
    pub(super) fn place(&mut self, bytes: u64) -> (Option<Place>, Vec<PathBuf>) {
        if bytes == 0 || bytes > self.bytes_max {
            return (None, Vec::new());
        }
        let asked = self.shelves.get(&bytes).map_or(0, |shelf| shelf.asked);
        let mut unwanted = Vec::new();
        while self.bytes + bytes > self.bytes_max {
            let full = self.shelves.iter_mut().filter(|(_, shelf)| {
                let older = shelf.asked < asked;
                older && !shelf.paths.is_empty()
            });
            let Some((&size, shelf)) = full.min_by_key(|(_, shelf)| shelf.asked) else {
                return (None, unwanted);
            };
            unwanted.extend(shelf.paths.pop());
            self.bytes -= size;
        }
        self.bytes += bytes;
        self.names += 1;
        let path = self.directory.join(format!("{}.free", self.names));
        (Some(Place { path, bytes }), unwanted)
    }

    /// The segment is there.
    pub(super) fn keep(&mut self, place: Place) {
        let shelf = self.shelves.entry(place.bytes).or_default();
        shelf.paths.push(place.path);
    }

    /// The segment won't come.
    pub(super) fn give_up(&mut self, place: &Place) {
        self.bytes -= place.bytes;
    }

    /// Everything that is kept.
    pub(super) fn take_all(&mut self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for (bytes, shelf) in &mut self.shelves {
            self.bytes -= bytes * shelf.paths.len() as u64;
            all.append(&mut shelf.paths);
        }
        all
    }
}

fn disk_bytes(directory: &Path) -> u64 {
    let space = File::open(directory).and_then(|file| crate::sys::space(file.as_fd()));
    space.map_or(0, |(all, _)| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pool: &mut Pool, bytes: u64, count: usize) -> Vec<Option<usize>> {
        let one = |_| {
            let (place, unwanted) = pool.place(bytes);
            place.map(|place| pool.keep(place))?;
            Some(unwanted.len())
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn what_was_asked_for_lately_takes_the_room_of_the_others() {
        let mut pool = Pool::new(Path::new("/pool"), 100);
        assert_eq!(fill(&mut pool, 10, 3), [Some(0); 3]);
        let nobody_asked = [Some(0), Some(0), None];
        assert_eq!(fill(&mut pool, 30, 3), nobody_asked);
        assert_eq!(pool.take(40), None);
        assert_eq!(fill(&mut pool, 40, 3), [Some(3), Some(2), None]);
        assert_eq!(pool.bytes, 80);
        assert!(pool.take(40).is_some() && pool.take(40).is_some());
        assert_eq!((pool.take(40), pool.bytes), (None, 0));
        assert_eq!(pool.take_all(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_does_not_come_leaves_its_room() {
        let mut pool = Pool::new(Path::new("/pool"), 100);
        let (place, _) = pool.place(100);
        assert!(pool.place(1).0.is_none());
        pool.give_up(&place.unwrap());
        assert_eq!(fill(&mut pool, 50, 2), [Some(0); 2]);
        assert_eq!((pool.take_all().len(), pool.bytes), (2, 0));
    }
}
