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

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    directory: PathBuf,
    by_bytes: BTreeMap<u64, Vec<PathBuf>>,
    bytes: u64,
    bytes_max: u64,
    names: u64,
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
        let mut pool = Self {
            directory: directory.to_owned(),
            by_bytes: BTreeMap::new(),
            bytes: 0,
            bytes_max: limits
                .bytes_max
                .min(disk_bytes(directory) / limits.disk_share.max(1)),
            names: 0,
        };
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
                pool.by_bytes.entry(bytes).or_default().push(path);
            } else {
                // The pool is a cache: what it can't keep, it may lose.
                let _ = fs::remove_file(&path);
            }
        }
        pool
    }

    /// A segment of exactly that size.
    pub(super) fn take(&mut self, bytes: u64) -> Option<PathBuf> {
        let path = self.by_bytes.get_mut(&bytes)?.pop()?;
        self.bytes -= bytes;
        Some(path)
    }

    /// A name for one more segment of that size, if there is room for it.
    pub(super) fn place(&mut self, bytes: u64) -> Option<Place> {
        if bytes == 0 || self.bytes + bytes > self.bytes_max {
            return None;
        }
        self.bytes += bytes;
        self.names += 1;
        let path = self.directory.join(format!("{}.free", self.names));
        Some(Place { path, bytes })
    }

    /// The segment is there.
    pub(super) fn keep(&mut self, place: Place) {
        self.by_bytes
            .entry(place.bytes)
            .or_default()
            .push(place.path);
    }

    /// Everything that is kept.
    pub(super) fn take_all(&mut self) -> Vec<PathBuf> {
        for (bytes, paths) in &self.by_bytes {
            self.bytes -= bytes * paths.len() as u64;
        }
        std::mem::take(&mut self.by_bytes)
            .into_values()
            .flatten()
            .collect()
    }
}

fn disk_bytes(directory: &Path) -> u64 {
    let space = File::open(directory).and_then(|file| crate::sys::space(file.as_fd()));
    space.map_or(0, |(all, _)| all)
}
