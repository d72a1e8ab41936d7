//! A throw-away file system on the real disk: journalled ext4 or XFS where the machine's own root
//! is something else, a small one to fill up, and crashes of the operating system alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Attempting;
use crate::file_system::{BUSY_MAX, FileSystem, Mounted};
use crate::scratch::Scratch;

/// What a [`LoopFs`] should be like.
#[derive(Clone, Copy, Debug)]
pub struct LoopFsOptions {
    /// Its kind.
    pub file_system: FileSystem,
    /// Size of the image in bytes. XFS wants at least 300 MiB, journalled ext4 about 8 MiB.
    pub image_bytes: u64,
    /// Logical block size of the device, 512 or 4096 bytes: the alignment of direct I/O.
    pub block_bytes: u32,
    /// How long to wait, before it is unmounted, until nobody has a file open on it; 20 s unless
    /// said otherwise.
    pub busy_max: Duration,
}

impl LoopFsOptions {
    /// A file system of this size, with logical blocks of 512 bytes.
    pub fn new(file_system: FileSystem, image_bytes: u64) -> Self {
        Self {
            file_system,
            image_bytes,
            block_bytes: 512,
            busy_max: BUSY_MAX,
        }
    }
}

/// A file system on a sparse image in a scratch directory, mounted through a loop device. Dropping
/// it unmounts it and removes the image.
#[derive(Debug)]
pub struct LoopFs {
    options: LoopFsOptions,
    image: PathBuf,
    point: PathBuf,
    mounted: Option<Mounted>,
    _scratch: Scratch,
}

impl LoopFs {
    /// Makes and mounts it.
    ///
    /// # Errors
    /// Without the right to mount, loop devices or the mkfs tool (see [`require`](crate::require)),
    /// or if `image_bytes` is too small for the kind.
    pub fn new(scratch: &Scratch, options: LoopFsOptions) -> io::Result<Self> {
        let directory = scratch.create_dir("loop-fs")?;
        let (image, point) = (directory.join("image"), directory.join("mount"));
        make_image(&image, options.image_bytes)?;
        std::fs::create_dir(&point).attempting("making a mount point")?;
        options.file_system.make(&image, options.block_bytes)?;
        let scratch = scratch.clone();
        let mut fs = Self {
            options,
            image,
            point,
            mounted: None,
            _scratch: scratch,
        };
        fs.mount()?;
        Ok(fs)
    }

    /// The root directory of the file system.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Crashes the operating system under the file system, and mounts it again: what the kernel
    /// held in memory is lost (buffered data, names, sizes, anything not yet in the journal);
    /// direct writes into allocated space are not, since the device keeps what it was given.
    ///
    /// # Errors
    /// If a process still has a file open on it.
    pub fn crash(&mut self) -> io::Result<()> {
        if let Some(mounted) = self.mounted.take() {
            mounted.shut_down()?;
            mounted.unmount(self.options.busy_max)?;
        }
        self.mount()
    }

    /// Unmounts it properly and mounts it again, so that nothing is in the page cache.
    ///
    /// # Errors
    /// If a process still has a file open on it.
    pub fn remount(&mut self) -> io::Result<()> {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount(self.options.busy_max)?;
        }
        self.mount()
    }

    fn mount(&mut self) -> io::Result<()> {
        let LoopFsOptions {
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

impl Drop for LoopFs {
    fn drop(&mut self) {
        self.mounted = None;
        // Frees the space now rather than with the scratch directory.
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A sparse file of this size.
pub(crate) fn make_image(path: &Path, bytes: u64) -> io::Result<()> {
    let image = File::create_new(path).attempting(format_args!("creating {}", path.display()))?;
    image
        .set_len(bytes)
        .attempting("setting the size of an image")
}
