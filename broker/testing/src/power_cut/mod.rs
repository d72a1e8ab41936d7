//! A disk whose power can be cut. One image file is exported by a FUSE layer; a loop device and a
//! journalled file system stand on it. The layer has a volatile write cache over a durable file:
//! a write goes to the cache, a sync makes everything durable that was *completed* before the sync
//! came in, and a cut drops or tears the rest at random.
//!
//! What the disk promises, and what it doesn't:
//! - A logical block (512 bytes, or 4096 if asked for) is written whole or not at all, and its
//!   neighbours are left alone. Any longer write may be torn between blocks, in any subset.
//! - Un-synced writes become durable in no particular order, an older version of a block too.
//! - A write that was under way when a sync came in isn't covered by that sync.
//! - After a failed sync the writes that it should have covered read back as written, but will
//!   never be durable, whatever is synced later.
//! - The kernel's loop driver has no FUA: a write with RWF_DSYNC arrives as a write and a sync of
//!   the whole image. That such a write makes durable *only itself* can't be tested here.

mod fault;
mod layer;
mod write_cache;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use fault::{Counters, DiskError, Faults};
pub use write_cache::CutReport;

use crate::failure::Attempting;
use crate::file_system::{BUSY_MAX, FileSystem, Mounted};
use crate::loop_fs::make_image;
use crate::scratch::Scratch;
use crate::sys;
use layer::{IMAGE_NAME, Layer, Shared};

/// What a [`PowerCutDisk`] should be like.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// The file system on it.
    pub file_system: FileSystem,
    /// Its size in bytes. XFS wants at least 300 MiB. Only what is written takes space.
    pub image_bytes: u64,
    /// Logical block size, 512 or 4096 bytes: the alignment of direct I/O, and what no cut tears.
    pub block_bytes: u32,
    /// How much the volatile cache holds. Beyond it the oldest writes become durable unasked, as
    /// on any real disk.
    pub cache_bytes: usize,
}

impl DiskOptions {
    /// Journalled ext4 on 512 MiB, logical blocks of 512 bytes, a cache of 256 MiB.
    pub fn ext4() -> Self {
        Self::new(FileSystem::Ext4)
    }

    /// XFS, otherwise as [`Self::ext4`].
    pub fn xfs() -> Self {
        Self::new(FileSystem::Xfs)
    }

    /// Any file system, otherwise as [`Self::ext4`].
    pub fn new(file_system: FileSystem) -> Self {
        Self {
            file_system,
            image_bytes: 512 << 20,
            block_bytes: 512,
            cache_bytes: 256 << 20,
        }
    }
}

/// A disk with a file system on it, and a switch for its power. Dropping it unmounts everything.
#[derive(Debug)]
pub struct PowerCutDisk {
    options: DiskOptions,
    point: PathBuf,
    image: PathBuf,
    export: PathBuf,
    shared: Arc<Shared>,
    mounted: Option<Mounted>,
    session: Option<fuser::BackgroundSession>,
    _scratch: Scratch,
}

impl PowerCutDisk {
    /// Makes the disk and its file system, all durable, and mounts it.
    ///
    /// # Errors
    /// Without the right to mount, FUSE, loop devices or the mkfs tool (see
    /// [`require`](crate::require)).
    pub fn new(scratch: &Scratch, options: DiskOptions) -> io::Result<Self> {
        assert!(
            matches!(options.block_bytes, 512 | 4096),
            "a logical block has 512 or 4096 bytes"
        );
        let directory = scratch.create_dir("power-cut-disk")?;
        let (durable, export) = (directory.join("durable"), directory.join("export"));
        let point = directory.join("mount");
        make_image(&durable, options.image_bytes)?;
        options.file_system.make(&durable, options.block_bytes)?;
        for path in [&export, &point] {
            std::fs::create_dir(path).attempting("making a mount point")?;
        }
        let mut open = File::options();
        let image = open
            .read(true)
            .write(true)
            .open(&durable)
            .attempting("opening the image")?;
        let shared = Arc::new(Shared::new(image, options));
        let session = layer::mount(
            Layer::new(Arc::clone(&shared), options.image_bytes),
            &export,
        )?;
        let mut disk = Self {
            options,
            point,
            image: export.join(IMAGE_NAME),
            export,
            shared,
            mounted: None,
            session: Some(session),
            _scratch: scratch.clone(),
        };
        disk.mount()?;
        Ok(disk)
    }

    /// The root directory of the file system. The same after every cut.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Cuts the power: of the writes that no sync has covered, some become durable, some are
    /// dropped and some are torn, by `seed` and by what they are alone. From this moment on every
    /// read, write and sync fails with EIO, so that nothing more can be acknowledged; the processes
    /// on the disk are now to be killed, and then comes [`Self::power_on`].
    pub fn power_off(&self, seed: u64) -> CutReport {
        self.shared.power_off(seed)
    }

    /// What [`Self::power_off`] would report for this seed at this moment.
    pub fn foresee(&self, seed: u64) -> CutReport {
        self.shared.foresee(seed)
    }

    /// Restores the power after [`Self::power_off`]: forgets everything that the kernel holds of
    /// the file system, and mounts it again from what is durable. The kernel replays its journal.
    /// Faults are cleared first.
    ///
    /// # Errors
    /// If a process still has a file open on it after 20 s, or if the file system can't be mounted
    /// any more.
    ///
    /// # Panics
    /// If the power is on.
    pub fn power_on(&mut self) -> io::Result<&Path> {
        assert!(
            !self.shared.is_on(),
            "the power is on already: power_off comes first"
        );
        if let Some(mounted) = self.mounted.take() {
            // Fails if the file system has noticed by itself that its disk is gone.
            let _ = mounted.shut_down();
            mounted.unmount(BUSY_MAX)?;
        }
        self.shared.power_on();
        self.mount()?;
        Ok(&self.point)
    }

    /// [`Self::power_off`] and [`Self::power_on`] in one, for when no other process uses the disk.
    ///
    /// # Errors
    /// As [`Self::power_on`].
    pub fn cut(&mut self, seed: u64) -> io::Result<CutReport> {
        let report = self.power_off(seed);
        self.power_on()?;
        Ok(report)
    }

    /// Replaces the faults in force.
    pub fn inject(&self, faults: Faults) {
        self.shared.inject(faults);
    }

    /// Clears all faults but flipped bits, and lets everything go that is being delayed.
    pub fn heal(&self) {
        self.shared.heal();
    }

    /// Flips the bits in `mask` of one byte of the image: it reads wrong from now on, after cuts
    /// too, until its sector is written again.
    pub fn flip(&self, image_position: u64, mask: u8) {
        self.shared.flip(image_position, mask);
    }

    /// As [`Self::flip`], for one byte of a file. Buffered readers of the file may not see it: the
    /// kernel may have the page in its cache.
    ///
    /// # Errors
    /// If the file has no byte on the disk at this position.
    pub fn flip_in_file(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let file = File::open(path).attempting(format_args!("opening {}", path.display()))?;
        for (start, range) in sys::extents(&file)? {
            let bytes = range.end - range.start;
            if (start..start + bytes).contains(&position) {
                self.flip(range.start + (position - start), mask);
                return Ok(());
            }
        }
        let what = format!("{} has nothing on the disk at {position}", path.display());
        Err(io::Error::new(io::ErrorKind::NotFound, what))
    }

    /// Where the allocated bytes of a file lie in the image, for [`Faults::write_error_in`].
    ///
    /// # Errors
    /// If it can't be opened or has no block map.
    pub fn extents(&self, path: &Path) -> io::Result<Vec<Range<u64>>> {
        let file = File::open(path).attempting(format_args!("opening {}", path.display()))?;
        let extents = sys::extents(&file).attempting("reading the block map of a file")?;
        Ok(extents.into_iter().map(|(_, range)| range).collect())
    }

    /// What has happened since the disk was made.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    fn mount(&mut self) -> io::Result<()> {
        let DiskOptions {
            file_system,
            block_bytes,
            ..
        } = self.options;
        self.mounted = Some(Mounted::new(
            file_system,
            &self.image,
            &self.point,
            block_bytes,
        )?);
        Ok(())
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        // Nothing is worth writing any more, and nothing may wait: without power all fails at once.
        self.shared.stop();
        if let Some(mounted) = self.mounted.take() {
            let _ = mounted.shut_down();
            drop(mounted);
        }
        // By force, so that the session ends even if a file system on it is still held open.
        let _ = sys::detach(&self.export);
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}
