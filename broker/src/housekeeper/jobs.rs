//! How the housekeeper does each of its jobs. Every one ends durable, and one that fails leaves at
//! most a temporary file, which the next start removes.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringway_engine::device::{DeviceError, SegmentName};
use ringway_engine::limits::{BLOCK_BYTES, block_floor};
use ringway_wire::{Offset, Position, TopicPartition};

use super::blocking;
use super::pool::{Place, Pool};
use super::{Answer, HousekeeperConfig, Job, Tally, zeros};
use crate::data_dir::{
    Layout, create_durably, replace_durably, segments, sync_directory, temporary,
};
use crate::device::device_error;

/// Of a segment's bytes, one part in so many may be unwritten for it to be recycled.
const UNWRITTEN_SHARE: u64 = 8;

/// Does jobs, one task each.
pub(super) struct Worker {
    layout: Layout,
    pool: RefCell<Pool>,
    fill_whole_bytes_max: u64,
}

fn failed<'a>(action: &'a str, path: &'a Path) -> impl Fn(io::Error) -> DeviceError + 'a {
    move |error| device_error(action, path, &error)
}

impl Worker {
    pub(super) fn new(layout: Layout, config: &HousekeeperConfig) -> Rc<Self> {
        let pool = Pool::find(&layout.pool(), config.pool);
        Rc::new(Self {
            layout,
            pool: RefCell::new(pool),
            fill_whole_bytes_max: config.fill_whole_bytes_max,
        })
    }

    pub(super) async fn carry_out(
        &self,
        job: &Job,
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        match job {
            Job::Prepare { log, bytes, filled } => self.prepare(*log, *bytes, *filled, tally).await,
            Job::Fill {
                log,
                name,
                next_name,
                start,
                end,
            } => {
                let names = (*name, *next_name);
                self.fill(*log, names, (*start, *end), tally).await
            }
            Job::Name { log, base } => self.name(*log, *base).await,
            Job::SaveSide { log, base, bytes } => {
                let (path, bytes) = (self.layout.side(*log, *base), bytes.clone());
                let saved = path.clone();
                let result = blocking(move || replace_durably(&saved, &bytes)).await;
                result
                    .map(|()| Answer::Done)
                    .map_err(failed("writing", &path))
            }
            Job::LoadSide { log, base } => {
                let path = self.layout.side(*log, *base);
                let read = path.clone();
                match blocking(move || fs::read(&read)).await {
                    Ok(bytes) => Ok(Answer::Side(Some(bytes))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Side(None)),
                    Err(error) => Err(failed("reading", &path)(error)),
                }
            }
            Job::SaveCheckpoint { shard, slot, bytes } => {
                let (path, bytes) = (self.layout.checkpoint(*shard, *slot), bytes.clone());
                let saved = path.clone();
                let result = blocking(move || overwrite(&saved, &bytes)).await;
                result
                    .map(|()| Answer::Done)
                    .map_err(failed("writing", &path))
            }
            Job::Remove { log, name } => self.remove(*log, *name, tally).await,
            Job::RemovePartition { log } => self.remove_partition(*log, tally).await,
        }
    }

    async fn prepare(
        &self,
        log: TopicPartition,
        bytes: u64,
        filled: u64,
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        let directory = self.layout.partition(log);
        let path = self.layout.segment(log, SegmentName::Next);
        let made = directory.clone();
        let result = blocking(move || create_durably(&made)).await;
        result.map_err(failed("creating", &directory))?;
        let recycled = self.pool.borrow_mut().take(bytes);
        if let Some(recycled) = recycled {
            let target = path.clone();
            let result = blocking(move || move_durably(&recycled, &target)).await;
            result.map_err(failed("recycling a segment as", &path))?;
            tally.update(|tally| Tally {
                prepared: tally.prepared + 1,
                recycled: tally.recycled + 1,
                ..tally
            });
            return Ok(Answer::Prepared { filled: bytes });
        }
        let made = match self.make(&path, bytes, filled, tally).await {
            Err(DeviceError::Full) if self.empty_pool().await => {
                self.make(&path, bytes, filled, tally).await
            }
            result => result,
        };
        tally.update(|tally| Tally {
            prepared: tally.prepared + u64::from(made.is_ok()),
            ..tally
        });
        made
    }

    /// Makes a segment under a temporary name; it gets its own when it is whole.
    async fn make(
        &self,
        path: &Path,
        bytes: u64,
        filled: u64,
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        let unfinished = temporary(path);
        let made = self.make_unfinished(&unfinished, bytes, filled, tally);
        let made = made.await;
        let result = match made {
            Ok(filled) => {
                let (from, to) = (unfinished.clone(), path.to_owned());
                let moved = blocking(move || move_durably(&from, &to)).await;
                moved.map(|()| filled)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(filled) => Ok(Answer::Prepared { filled }),
            Err(error) => {
                // What is left of it takes space; where even removing fails, the next start does.
                let _ = blocking(move || fs::remove_file(&unfinished)).await;
                Err(failed("preparing", path)(error))
            }
        }
    }

    async fn make_unfinished(
        &self,
        path: &Path,
        bytes: u64,
        filled: u64,
        tally: &Cell<Tally>,
    ) -> io::Result<u64> {
        let created = path.to_owned();
        let zeroed = blocking(move || create_allocated(&created, bytes)).await?;
        let filled = match zeroed {
            true => bytes,
            false if bytes <= self.fill_whole_bytes_max => bytes,
            false => filled.min(bytes),
        };
        if !zeroed {
            zeros::write(path, 0, filled, tally).await?;
        }
        let synced = path.to_owned();
        blocking(move || File::open(&synced)?.sync_all()).await?;
        Ok(filled)
    }

    async fn fill(
        &self,
        log: TopicPartition,
        (name, next_name): (SegmentName, Option<SegmentName>),
        (start, end): (Position, Position),
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        // A renaming under way moves the segment from its name to the next at any time.
        let names = [Some(name), next_name, Some(name), next_name];
        let mut path = PathBuf::new();
        for name in names.into_iter().flatten() {
            path = self.layout.segment(log, name);
            match zeros::write(&path, start.0, end.0, tally).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => {
                    return result
                        .map(|()| Answer::Done)
                        .map_err(failed("filling", &path));
                }
            }
        }
        Err(DeviceError::Failed(format!(
            "filling {}: no such file",
            path.display()
        )))
    }

    async fn name(&self, log: TopicPartition, base: Offset) -> Result<Answer, DeviceError> {
        let from = self.layout.segment(log, SegmentName::Next);
        let to = self.layout.segment(log, SegmentName::Base(base));
        let path = to.clone();
        let result = blocking(move || {
            if to.exists() {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            move_durably(&from, &to)
        });
        result
            .await
            .map(|()| Answer::Done)
            .map_err(failed("renaming next.log to", &path))
    }

    /// The side file goes first: without it a segment is still read, the other way round it would
    /// stay for ever.
    async fn remove(
        &self,
        log: TopicPartition,
        name: SegmentName,
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        let path = self.layout.segment(log, name);
        if let SegmentName::Base(base) = name {
            let side = self.layout.side(log, base);
            let removed = blocking(move || ignore_missing(fs::remove_file(side)));
            removed.await.map_err(failed("removing", &path))?;
        }
        self.recycle_or_remove(&path, tally)
            .await
            .map(|()| Answer::Done)
            .map_err(failed("removing", &path))
    }

    async fn remove_partition(
        &self,
        log: TopicPartition,
        tally: &Cell<Tally>,
    ) -> Result<Answer, DeviceError> {
        let directory = self.layout.partition(log);
        let listed = self.layout.clone();
        // What can't be listed can still be removed.
        let found = blocking(move || segments(&listed, log).unwrap_or_default()).await;
        for file in found {
            let path = self.layout.segment(log, file.name);
            self.recycle_or_remove(&path, tally)
                .await
                .map_err(failed("removing", &path))?;
        }
        let removed = directory.clone();
        let result = blocking(move || remove_directory(&removed)).await;
        result
            .map(|()| Answer::Done)
            .map_err(failed("removing", &directory))
    }

    /// Moves a segment into the pool, or unlinks it where the pool has no room for it; durably.
    async fn recycle_or_remove(&self, path: &Path, tally: &Cell<Tally>) -> io::Result<()> {
        let measured = path.to_owned();
        let written = match blocking(move || Written::of(&measured)).await {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let place = match written.is_recyclable() {
            true => self.place(written.bytes).await,
            false => None,
        };
        let Some(place) = place else {
            return unlink(path).await;
        };
        // What was never written costs a metadata change at the first write.
        let filled = zeros::write(path, written.end, written.bytes, tally).await;
        let (from, to) = (path.to_owned(), place.path.clone());
        let moved = match filled {
            Ok(()) => blocking(move || move_away_durably(&from, &to)).await,
            Err(error) => Err(error),
        };
        if moved.is_ok() {
            self.pool.borrow_mut().keep(place);
            return Ok(());
        }
        self.pool.borrow_mut().give_up(&place);
        unlink(path).await
    }

    /// A place in the pool for a segment of that size, if need be that of others that nobody has
    /// asked for as lately.
    async fn place(&self, bytes: u64) -> Option<Place> {
        let (place, unwanted) = self.pool.borrow_mut().place(bytes);
        for path in unwanted {
            // One that stays takes space until the next start finds it.
            let _ = unlink(&path).await;
        }
        place
    }

    /// Gives the pool's space back. False when there was none.
    async fn empty_pool(&self) -> bool {
        let kept = self.pool.borrow_mut().take_all();
        let any = !kept.is_empty();
        blocking(move || {
            for path in kept {
                let _ = fs::remove_file(path);
            }
        })
        .await;
        any
    }
}

/// A file of that length with space on the disk. Whether it reads as zeros without metadata of
/// unwritten blocks.
fn create_allocated(path: &Path, bytes: u64) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let file = options.open(path)?;
    match crate::sys::allocate_zeroed(file.as_fd(), bytes) {
        Ok(()) => return Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {}
        Err(error) => return Err(error),
    }
    match crate::sys::allocate(file.as_fd(), bytes) {
        // A file system that can't allocate ahead: the zeros do it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => file.set_len(bytes)?,
        result => result?,
    }
    Ok(false)
}

/// Writes a file in place, durably; its name too when it is new.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = !path.exists();
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    match path.parent() {
        Some(parent) if new => sync_directory(parent),
        _ => Ok(()),
    }
}

/// Renames a file; both directories are durable when done.
fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let parents = [to.parent(), from.parent()];
    sync_directory(parents[0].unwrap_or_else(|| Path::new(".")))?;
    match parents {
        [Some(to), Some(from)] if to != from => sync_directory(from),
        _ => Ok(()),
    }
}

/// Renames a file; that it is gone from where it was is durable when done. The pool's directory is
/// synced when a file leaves it.
fn move_away_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    from.parent().map_or(Ok(()), sync_directory)
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(directory))?;
    let Some(topic) = directory.parent() else {
        return Ok(());
    };
    // The last partition takes the topic's directory with it.
    match fs::remove_dir(topic) {
        Ok(()) => topic.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => ignore_missing(sync_directory(topic)),
    }
}

/// How much of a segment is written.
struct Written {
    /// Bytes of the file.
    bytes: u64,
    /// Where its first block without data or zeros begins; the file's end if there is none.
    end: u64,
}

impl Written {
    fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let end = block_floor(crate::sys::first_hole(file.as_fd())?.min(bytes));
        Ok(Self { bytes, end })
    }

    /// Whether it is worth while to fill the rest. What is left of a segment in use is less than
    /// the batch that didn't fit, and filled once: its next life finds it written.
    const fn is_recyclable(&self) -> bool {
        let left = self.bytes - self.end;
        self.bytes.is_multiple_of(BLOCK_BYTES as u64) && left <= self.bytes / UNWRITTEN_SHARE
    }
}

async fn unlink(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let removed = blocking(move || {
        ignore_missing(fs::remove_file(&path))?;
        path.parent().map_or(Ok(()), sync_directory)
    });
    removed.await
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
