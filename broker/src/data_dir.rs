//! The data directory: what is where in it, who may use it, and that it is of a format that this
//! build knows.
//!
//! ```text
//! FORMAT                             "ringway 1"
//! lock                               held as long as anybody may still write; the holder's pid
//! anchor                             synced once and never touched: flushing it flushes the device
//! checkpoint-<shard>.a, .b           a shard's two checkpoint slots
//! topics/<topic id>/<partition>/     segments: <base offset>.log, its index <base offset>.side,
//!                                    and next.log, prepared ahead
//! pool/<number>.free                 segments of a former life, for new ones
//! metadata/                          the controller's
//! flight/                            what the flight recorder wrote, for people
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway_engine::device::SegmentName;
use ringway_engine::log::{Slot, Slots};
use ringway_engine::shard::FoundFile;
use ringway_wire::{Offset, PartitionIndex, ShardId, TopicId, TopicPartition};

/// Version of the directory's layout and of the formats in it.
pub const FORMAT_VERSION: u32 = 1;
/// What files being made are called until they are whole; leftovers are removed at start.
pub(crate) const TEMPORARY: &str = "tmp";
const FORMAT: &str = "FORMAT";
const LOCK: &str = "lock";
const ANCHOR: &str = "anchor";
const NEXT: &str = "next.log";
/// How long rings of this very process may take to be freed.
const OWN_RINGS_MAX: Duration = Duration::from_secs(2);

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{} is in use by another broker (pid {holder}): stop that one, or name another \
             directory with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, as it wrote itself into the lock.
        holder: String,
    },
    /// A killed broker's last writes have not ended.
    #[error("{} is still being written to by a broker that was killed (pid {holder}): its last \
             writes had not ended after {} s; see whether the disk answers, and start again",
            path.display(), waited.as_secs())]
    StillWritten {
        /// The directory.
        path: PathBuf,
        /// The process that was.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
    /// It was written by a newer broker.
    #[error("{} has format {found}, this broker knows formats up to {FORMAT_VERSION}: start the \
             newer broker that wrote it, or name another directory with --data-dir",
            path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// It was written before the formats were frozen.
    #[error("{} has format {found}, from before the first release, which this broker can't read: \
             consume it with the broker that wrote it, or name another directory with --data-dir",
            path.display())]
    Older {
        /// The directory.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// It holds something else.
    #[error("{} is not a Ringway data directory: it has {what}; name an empty or a new directory \
             with --data-dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The operating system refused something.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        action,
        path,
        source,
    }
}

/// Where everything in a data directory is. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: std::sync::Arc<Path>,
}

impl Layout {
    /// The layout of a directory, whether it exists or not.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of all topics.
    #[must_use]
    pub fn topics(&self) -> PathBuf {
        self.root.join("topics")
    }

    /// The directory of a topic's partitions; it isn't there before the first of them has records.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> PathBuf {
        self.topics().join(topic.to_string())
    }

    /// The directory of a partition.
    #[must_use]
    pub fn partition(&self, log: TopicPartition) -> PathBuf {
        self.topic(log.topic).join(log.partition.to_string())
    }

    /// A segment.
    #[must_use]
    pub fn segment(&self, log: TopicPartition, name: SegmentName) -> PathBuf {
        self.partition(log).join(match name {
            SegmentName::Base(base) => format!("{:020}.log", base.0),
            SegmentName::Next => NEXT.to_owned(),
        })
    }

    /// The side file of a sealed segment.
    #[must_use]
    pub fn side(&self, log: TopicPartition, base: Offset) -> PathBuf {
        self.partition(log).join(format!("{:020}.side", base.0))
    }

    /// One of the two checkpoint slots of a shard.
    #[must_use]
    pub fn checkpoint(&self, shard: ShardId, slot: Slot) -> PathBuf {
        let letter = match slot {
            Slot::A => "a",
            Slot::B => "b",
        };
        self.root.join(format!("checkpoint-{shard}.{letter}"))
    }

    /// The directory of segments to be used again.
    #[must_use]
    pub fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// The directory of what the flight recorder wrote.
    #[must_use]
    pub fn flight(&self) -> PathBuf {
        self.root.join("flight")
    }

    /// The controller's directory.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.root.join("metadata")
    }
}

/// A data directory that this process has for itself, for as long as this value and every ring
/// that holds its lock live.
#[derive(Debug)]
pub struct DataDir {
    layout: Layout,
    lock: File,
    anchor: File,
}

impl DataDir {
    /// Creates or opens the directory and takes its lock. Where the holder of the lock is dead but
    /// its last writes are still on their way to the disk, waits for them up to `wait_max`, and
    /// tells `progress` about once a second for how long.
    ///
    /// # Errors
    /// [`DataDirError`] says who has it or what is wrong with it.
    pub fn open(
        root: &Path,
        wait_max: Duration,
        mut progress: impl FnMut(&str, Duration),
    ) -> Result<Self, DataDirError> {
        create_durably(root).map_err(failed("creating", root))?;
        let root = &root.canonicalize().map_err(failed("resolving", root))?;
        let layout = Layout::new(root);
        check_format(root)?;
        let lock = take_lock(root, wait_max, &mut progress)?;
        write_format(root)?;
        for directory in [layout.topics(), layout.pool(), layout.metadata()] {
            create_durably(&directory).map_err(failed("creating", &directory))?;
        }
        remove_temporaries(&layout)?;
        let anchor = open_anchor(&root.join(ANCHOR))?;
        Ok(Self {
            layout,
            lock,
            anchor,
        })
    }

    /// Where everything is.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The lock file, to be registered in every ring that writes.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The file whose sync flushes the device and nothing else.
    #[must_use]
    pub fn anchor(&self) -> BorrowedFd<'_> {
        self.anchor.as_fd()
    }

    /// Every partition that has a directory.
    ///
    /// # Errors
    /// When a directory can't be read, or a name in it is none of ours.
    pub fn partitions(&self) -> Result<Vec<TopicPartition>, DataDirError> {
        let mut found = Vec::new();
        let topics = self.layout.topics();
        for (name, path) in entries(&topics)? {
            let topic: TopicId = parse_topic(&name).ok_or_else(|| foreign(&topics, &name))?;
            for (name, _) in entries(&path)? {
                let partition = name.parse().map_err(|_| foreign(&path, &name))?;
                found.push(TopicPartition {
                    topic,
                    partition: PartitionIndex(partition),
                });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The checkpoints that every shard of former starts left, by shard.
    ///
    /// # Errors
    /// When a slot can't be read; one that is damaged is not an error.
    pub fn checkpoints(&self) -> Result<Vec<(ShardId, Slots)>, DataDirError> {
        checkpoints(&self.layout)
    }

    /// The segments of a partition, by base offset, with `next.log` last; none without a
    /// directory.
    ///
    /// # Errors
    /// When the directory can't be read, or a name in it is none of ours.
    pub fn segments(&self, log: TopicPartition) -> Result<Vec<FoundFile>, DataDirError> {
        segments(&self.layout, log)
    }
}

/// See [`DataDir::checkpoints`].
pub(crate) fn checkpoints(layout: &Layout) -> Result<Vec<(ShardId, Slots)>, DataDirError> {
    let mut shards = Vec::new();
    for (name, _) in entries(layout.root())? {
        let number = name
            .strip_prefix("checkpoint-")
            .and_then(|rest| rest.split_once('.'));
        shards.extend(
            number
                .and_then(|(shard, _)| shard.parse().ok())
                .map(ShardId),
        );
    }
    shards.sort_unstable();
    shards.dedup();
    let read = |shard| Ok((shard, read_slots(layout, shard)?));
    shards.into_iter().map(read).collect()
}

/// What a shard's two checkpoint slots hold.
pub(crate) fn read_slots(layout: &Layout, shard: ShardId) -> Result<Slots, DataDirError> {
    let read = |slot| {
        let path = layout.checkpoint(shard, slot);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    };
    let (a, b) = (read(Slot::A)?, read(Slot::B)?);
    Ok(Slots::read(a.as_deref(), b.as_deref()))
}

/// See [`DataDir::segments`].
///
/// # Errors
/// As there.
pub fn segments(layout: &Layout, log: TopicPartition) -> Result<Vec<FoundFile>, DataDirError> {
    let directory = layout.partition(log);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (name, path) in entries(&directory)? {
        if name.ends_with(".side") || name.ends_with(TEMPORARY) {
            continue;
        }
        let segment = parse_segment(&name).ok_or_else(|| foreign(&directory, &name))?;
        let bytes = fs::metadata(&path).map_err(failed("reading", &path))?.len();
        found.push(FoundFile {
            name: segment,
            bytes,
        });
    }
    found.sort_unstable_by_key(|file| file.name);
    Ok(found)
}

/// Creates a directory with all above it; every new name is durable when done.
pub(crate) fn create_durably(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    sync_directory(directory)?;
    sync_directory(parent)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, DataDirError> {
    let reading = || failed("reading", directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(reading())? {
        let entry = entry.map_err(reading())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.path()));
    }
    Ok(found)
}

fn foreign(directory: &Path, name: &str) -> DataDirError {
    DataDirError::Foreign {
        path: directory.to_owned(),
        what: format!("an entry {name:?} that no broker made"),
    }
}

pub(crate) fn parse_topic(name: &str) -> Option<TopicId> {
    let topic: TopicId = name.parse().ok()?;
    (topic.to_string() == name).then_some(topic)
}

pub(crate) fn parse_segment(name: &str) -> Option<SegmentName> {
    if name == NEXT {
        return Some(SegmentName::Next);
    }
    let digits = name.strip_suffix(".log")?;
    let plain = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let base = digits.parse().ok()?;
    plain.then_some(SegmentName::Base(Offset(base)))
}

/// Refuses what a newer broker or somebody else wrote, before anything is changed.
fn check_format(root: &Path) -> Result<(), DataDirError> {
    let path = root.join(FORMAT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_fresh(root),
        Err(error) => return Err(failed("reading", &path)(error)),
    };
    let version = text
        .trim_end()
        .strip_prefix("ringway ")
        .and_then(|text| text.parse().ok());
    match version {
        Some(found) if found > FORMAT_VERSION => Err(DataDirError::Newer {
            path: root.to_owned(),
            found,
        }),
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) => Err(DataDirError::Older {
            path: root.to_owned(),
            found,
        }),
        None => Err(DataDirError::Foreign {
            path: root.to_owned(),
            what: format!("a file {FORMAT} that begins with {:.40?}", text),
        }),
    }
}

/// Without a format, nothing of ours but what the first start makes before it may be there. What a
/// new file system brings (`lost+found`) and hidden files are nobody's business.
fn check_fresh(root: &Path) -> Result<(), DataDirError> {
    for (name, _) in entries(root)? {
        let ours = name == LOCK || name.ends_with(TEMPORARY);
        if !ours && name != "lost+found" && !name.starts_with('.') {
            return Err(DataDirError::Foreign {
                path: root.to_owned(),
                what: format!("no file {FORMAT}, but {name:?}"),
            });
        }
    }
    Ok(())
}

fn write_format(root: &Path) -> Result<(), DataDirError> {
    let path = root.join(FORMAT);
    if path.exists() {
        return Ok(());
    }
    replace_durably(&path, format!("ringway {FORMAT_VERSION}\n").as_bytes())
        .map_err(failed("writing", &path))
}

/// Writes a file all or nothing: under another name first, synced, then renamed.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// The name of a file until it is whole.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path
        .file_name()
        .unwrap_or_else(|| OsStr::new("file"))
        .to_owned();
    name.push(".");
    name.push(TEMPORARY);
    path.with_file_name(name)
}

/// Keeps brokers off a directory while somebody only looks at it, and changes nothing in it. Waits
/// like [`DataDir::open`] for the last writes of a broker that was killed. A copy of a directory
/// need not have a lock: `None`.
///
/// # Errors
/// [`DataDirError`] says who has it or what is wrong with it.
pub(crate) fn look(
    root: &Path,
    wait_max: Duration,
    mut progress: impl FnMut(&str, Duration),
) -> Result<Option<File>, DataDirError> {
    if !root.join(FORMAT).exists() {
        return Err(DataDirError::Foreign {
            path: root.to_owned(),
            what: format!("no file {FORMAT}"),
        });
    }
    check_format(root)?;
    let path = root.join(LOCK);
    let mut lock = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(failed("opening", &path))?,
    };
    wait_for_lock(
        root,
        &mut lock,
        File::try_lock_shared,
        wait_max,
        &mut progress,
    )?;
    Ok(Some(lock))
}

fn take_lock(
    root: &Path,
    wait_max: Duration,
    progress: &mut impl FnMut(&str, Duration),
) -> Result<File, DataDirError> {
    let path = root.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock = options.open(&path).map_err(failed("opening", &path))?;
    wait_for_lock(root, &mut lock, File::try_lock, wait_max, progress)?;
    write_holder(&mut lock).map_err(failed("writing", &path))?;
    Ok(lock)
}

fn wait_for_lock(
    root: &Path,
    lock: &mut File,
    attempt: fn(&File) -> Result<(), TryLockError>,
    wait_max: Duration,
    progress: &mut impl FnMut(&str, Duration),
) -> Result<(), DataDirError> {
    let path = root.join(LOCK);
    let start = Instant::now();
    let mut told = 0;
    loop {
        match attempt(lock) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(failed("locking", &path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = holder_of(lock);
        let waited = start.elapsed();
        // The kernel lets go of a lock a little after the rings that held it were closed.
        let leaving =
            holder == std::process::id().to_string() && waited < OWN_RINGS_MAX.min(wait_max);
        if is_alive(&holder) && !leaving {
            return Err(DataDirError::InUse {
                path: root.to_owned(),
                holder,
            });
        }
        if waited >= wait_max {
            return Err(DataDirError::StillWritten {
                path: root.to_owned(),
                holder,
                waited,
            });
        }
        if waited.as_secs() > told {
            told = waited.as_secs();
            progress(&holder, waited);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn holder_of(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.rewind().and_then(|()| lock.read_to_string(&mut text));
    match text.trim() {
        pid if read.is_ok() && !pid.is_empty() => pid.to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Whether the process that wrote itself into the lock still runs. Zombies and processes that are
/// being killed don't: they can't take the lock again. A holder that hasn't said yet who it is has
/// only just taken it.
fn is_alive(holder: &str) -> bool {
    if holder == "unknown" {
        return false;
    }
    let Ok(status) = fs::read_to_string(format!("/proc/{holder}/status")) else {
        return false;
    };
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let state = line("State:")
        .unwrap_or_default()
        .trim_start()
        .chars()
        .next();
    let pending = line("ShdPnd:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let killed = pending.is_some_and(|mask| mask & 1 << (libc::SIGKILL - 1) != 0);
    !matches!(state, Some('Z' | 'X')) && !killed
}

/// Files that a broker was making when it died.
fn remove_temporaries(layout: &Layout) -> Result<(), DataDirError> {
    let mut directories = vec![layout.root().to_owned(), layout.pool()];
    for (_, topic) in entries(&layout.topics())? {
        directories.extend(entries(&topic)?.into_iter().map(|(_, path)| path));
    }
    let suffix = format!(".{TEMPORARY}");
    for directory in directories {
        for (name, path) in entries(&directory)? {
            if name.ends_with(&suffix) {
                fs::remove_file(&path).map_err(failed("removing", &path))?;
            }
        }
    }
    Ok(())
}

/// Creates the anchor with all that a sync could ever find to write, or opens it. It is opened past
/// the page cache: a file system where that is refused is found out here.
fn open_anchor(path: &Path) -> Result<File, DataDirError> {
    if !path.exists() {
        let text = b"Syncing this file flushes the device. It is never written to again.\n";
        replace_durably(path, text).map_err(failed("creating", path))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let anchor = options
        .open(path)
        .map_err(failed("opening without the page cache", path))?;
    anchor.sync_all().map_err(failed("syncing", path))?;
    Ok(anchor)
}

#[cfg(test)]
mod tests;
