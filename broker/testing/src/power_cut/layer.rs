//! The FUSE side: a directory with one file, the image. Requests come in on fuser's threads and
//! meet under one lock; what is delayed waits on a thread of its own, so that it delays nobody else.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::DiskOptions;
use super::fault::{Counters, DiskError, Faults};
use super::write_cache::{CutReport, Fate, Run, WriteCache, is_aligned, sector_of};
use crate::failure::Attempting;
use crate::random::Random;

/// The image in the exported directory.
pub(super) const IMAGE_NAME: &str = "image";
const IMAGE: INodeNo = INodeNo(2);

/// The largest request: what the kernel's limit of pages per request comes to.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Direct writes that the kernel may have under way; more than any loop device sends.
const REQUESTS_MAX: u16 = 256;
const THREADS: usize = 4;
/// Nothing in the layer changes but the bytes of the image, which aren't cached.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Mounts the layer at `export` and serves it from threads of this process.
pub(super) fn mount(layer: Layer, export: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("ringway-power-cut".to_owned()),
        MountOption::NoAtime,
    ];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    fuser::spawn_mount(layer, export, &config).attempting("mounting a FUSE layer")
}

/// What the layer and the disk's owner share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when `State::releases` has changed.
    released: Condvar,
}

#[derive(Debug)]
struct State {
    cache: WriteCache,
    durable: File,
    power: bool,
    faults: Faults,
    /// Bytes that read wrong, by offset, with the bits that are flipped.
    flips: BTreeMap<u64, u8>,
    counters: Counters,
    delays: Random,
    /// How often everything that was being delayed has been let go.
    releases: u64,
    options: DiskOptions,
}

impl Shared {
    pub(super) fn new(durable: File, options: DiskOptions) -> Self {
        let state = State {
            cache: WriteCache::default(),
            durable,
            power: true,
            faults: Faults::default(),
            flips: BTreeMap::new(),
            counters: Counters::default(),
            delays: Random::new(0),
            releases: 0,
            options,
        };
        Self {
            state: Mutex::new(state),
            released: Condvar::new(),
        }
    }

    pub(super) fn power_off(&self, seed: u64) -> CutReport {
        let mut state = self.lock();
        assert!(
            state.power,
            "the power is off already: power_on comes first"
        );
        state.power = false;
        let Fate { survivors, report } = state.decide(seed);
        state.cache.clear();
        state
            .make_durable(&survivors)
            .expect("the real disk takes what survives a cut");
        state.counters.cuts += 1;
        state.counters.dropped_sectors += report.dropped_sectors;
        state.counters.torn_writes += report.torn_writes;
        self.release(&mut state);
        report
    }

    pub(super) fn foresee(&self, seed: u64) -> CutReport {
        self.lock().decide(seed).report
    }

    pub(super) fn power_on(&self) {
        let mut state = self.lock();
        state.faults = Faults::default();
        state.power = true;
    }

    /// Takes the power away for good; what isn't durable is of no interest any more.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.power = false;
        state.cache.clear();
        self.release(&mut state);
    }

    pub(super) fn is_on(&self) -> bool {
        self.lock().power
    }

    pub(super) fn inject(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub(super) fn heal(&self) {
        let mut state = self.lock();
        state.faults = Faults::default();
        self.release(&mut state);
    }

    /// Lets everything go that is being delayed.
    fn release(&self, state: &mut State) {
        state.releases += 1;
        self.released.notify_all();
    }

    /// Waits out a delay, or until everything is let go.
    fn wait(&self, delay: Delay) -> MutexGuard<'_, State> {
        let held = |state: &mut State| state.releases == delay.releases;
        let waited = self
            .released
            .wait_timeout_while(self.lock(), delay.time, held);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn flip(&self, position: u64, mask: u8) {
        *self.lock().flips.entry(position).or_default() ^= mask;
    }

    pub(super) fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// A panic of one test thread says nothing about the state, which is whole between calls.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn decide(&self, seed: u64) -> Fate {
        self.cache.decide(seed, self.options.block_bytes as usize)
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.check_power()?;
        if let Some(error) = self.faults.read_error {
            self.counters.failed_reads += 1;
            return Err(errno(error));
        }
        self.durable
            .read_exact_at(buffer, offset)
            .map_err(|error| real_disk(&error))?;
        self.cache.lay_over(offset, buffer);
        let mut flipped = false;
        for (position, mask) in self.flips.range(offset..offset + buffer.len() as u64) {
            buffer[(position - offset) as usize] ^= mask;
            flipped |= *mask != 0;
        }
        self.counters.reads += 1;
        self.counters.flipped_reads += u64::from(flipped);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.check_power()?;
        let range = offset..offset + bytes.len() as u64;
        if let Some(error) = self.faults.write_error_at(&range) {
            self.counters.failed_writes += 1;
            return Err(errno(error));
        }
        if !is_aligned(offset, bytes.len()) || range.end > self.options.image_bytes {
            return Err(Errno::EINVAL);
        }
        self.cache.write(offset, bytes);
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        self.flips.retain(|position, _| {
            !(sector_of(range.start)..sector_of(range.end)).contains(&sector_of(*position))
        });
        if self.cache.bytes() > self.options.cache_bytes {
            let oldest = self.cache.take_down_to(self.options.cache_bytes / 2);
            self.counters.destaged += oldest.len() as u64;
            self.make_durable(&oldest)
                .map_err(|error| real_disk(&error))?;
        }
        Ok(())
    }

    /// Makes the writes before `mark` durable.
    fn sync(&mut self, mark: u64) -> Result<(), Errno> {
        self.check_power()?;
        if let Some(error) = self.faults.sync_error {
            self.counters.failed_syncs += 1;
            self.cache.doom_before(mark);
            return Err(errno(error));
        }
        let covered = self.cache.take_before(mark);
        self.make_durable(&covered)
            .map_err(|error| real_disk(&error))?;
        self.counters.syncs += 1;
        Ok(())
    }

    fn make_durable(&self, runs: &[Run]) -> io::Result<()> {
        runs.iter().try_for_each(|run| {
            let offset = run.offset + run.part.start as u64;
            self.durable
                .write_all_at(&run.bytes[run.part.clone()], offset)
        })
    }

    fn check_power(&mut self) -> Result<(), Errno> {
        if self.power {
            return Ok(());
        }
        self.counters.without_power += 1;
        Err(Errno::EIO)
    }

    /// What a request that comes in now has to wait for, if anything.
    fn delay(&mut self, range: Range<Duration>) -> Option<Delay> {
        if !self.power || range.end.is_zero() {
            return None;
        }
        self.counters.delayed += 1;
        let span = range.end.saturating_sub(range.start).as_micros() as u64;
        let time = range.start + Duration::from_micros(self.delays.below(span.max(1)));
        let releases = self.releases;
        Some(Delay { time, releases })
    }
}

#[derive(Clone, Copy, Debug)]
struct Delay {
    time: Duration,
    releases: u64,
}

/// The file system that the kernel sees.
#[derive(Debug)]
pub(super) struct Layer {
    shared: Arc<Shared>,
    image_bytes: u64,
}

impl Layer {
    pub(super) fn new(shared: Arc<Shared>, image_bytes: u64) -> Self {
        Self {
            shared,
            image_bytes,
        }
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size, perm) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0, 0o700),
            IMAGE => (FileType::RegularFile, self.image_bytes, 0o600),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Layer {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without FUSE_ASYNC_DIO the loop device would have one request under way at a time, and
        // a sync could never overtake a write.
        let missing = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        missing.map_err(|flags| io::Error::other(format!("the kernel's FUSE lacks {flags:?}")))?;
        // Values beyond what the kernel takes come back as the nearest that it does take.
        let _ = config
            .set_max_write(REQUEST_BYTES_MAX)
            .map_err(|max| config.set_max_write(max));
        let _ = config.set_max_background(REQUESTS_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(IMAGE) {
            Some(attributes) if parent == INodeNo::ROOT && name == IMAGE_NAME => {
                reply.entry(&FOREVER, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if inode != IMAGE {
            return reply.error(Errno::EISDIR);
        }
        // Past the page cache: a write is here when the loop device completes it, not when the
        // kernel finds time for it.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = u64::from(size).min(self.image_bytes.saturating_sub(offset));
        let mut buffer = vec![0; length as usize];
        match self.shared.lock().read(offset, &mut buffer) {
            Ok(()) => reply.data(&buffer),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.shared.lock();
        let range = state.faults.write_delay.clone();
        let Some(delay) = state.delay(range) else {
            let result = state.write(offset, data);
            drop(state);
            return answer_write(reply, result, data.len());
        };
        drop(state);
        let (shared, data) = (Arc::clone(&self.shared), data.to_vec());
        std::thread::spawn(move || {
            let result = shared.wait(delay).write(offset, &data);
            answer_write(reply, result, data.len());
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.shared.lock();
        let mark = state.cache.mark();
        let range = state.faults.sync_delay.clone();
        let Some(delay) = state.delay(range) else {
            let result = state.sync(mark);
            drop(state);
            return answer(reply, result);
        };
        drop(state);
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            let result = shared.wait(delay).sync(mark);
            answer(reply, result);
        });
    }

    /// Comes at every close of the image, and isn't a sync.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_write(reply: ReplyWrite, result: Result<(), Errno>, length: usize) {
    match result {
        Ok(()) => reply.written(length as u32),
        Err(error) => reply.error(error),
    }
}

fn errno(error: DiskError) -> Errno {
    match error {
        DiskError::Io => Errno::EIO,
        DiskError::NoSpace => Errno::ENOSPC,
    }
}

/// The disk that the tests themselves run on has failed or is full: said aloud, since the test
/// would take it for a fault that it injected.
fn real_disk(error: &io::Error) -> Errno {
    eprintln!("the power-cut disk's own storage failed: {error}");
    Errno::EIO
}
