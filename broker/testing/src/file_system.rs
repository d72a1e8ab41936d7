//! File systems on an image: which kinds there are, how each is made, mounted, stopped as a crash
//! would stop it, and unmounted so that nothing of it is left.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::{Attempting, run};
use crate::loop_device::{self, LoopDevice};
use crate::need::find_tool;
use crate::sys;

/// How long a file system may stay busy by default: the ring of a killed process, and the files in
/// it, are torn down after the process itself is gone.
pub(crate) const BUSY_MAX: Duration = Duration::from_secs(20);

/// A kind of file system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileSystem {
    /// ext4 with a journal in its default mode (data=ordered, barriers on).
    Ext4,
    /// ext4 without a journal, where Ringway counts on no shared flush; a power cut may damage it
    /// beyond mounting.
    Ext4WithoutJournal,
    /// XFS with its log inside. The image must have at least 300 MiB.
    Xfs,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Ext4WithoutJournal => "ext4 without a journal",
            Self::Xfs => "XFS",
        })
    }
}

impl FileSystem {
    /// Makes the file system on an image file.
    pub(crate) fn make(self, image: &Path, block_bytes: u32) -> io::Result<()> {
        let (tool, arguments) = match self {
            Self::Ext4 => ("mkfs.ext4", ext4_arguments("has_journal")),
            Self::Ext4WithoutJournal => ("mkfs.ext4", ext4_arguments("^has_journal")),
            Self::Xfs => ("mkfs.xfs", xfs_arguments(block_bytes)),
        };
        let path = find_tool(tool).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{tool} is not installed"))
        })?;
        run(Command::new(path).args(arguments).arg(image))
    }

    fn kernel_name(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            // Naming a data mode makes the mount fail if there is no journal after all.
            Self::Ext4 => "data=ordered,errors=continue",
            Self::Ext4WithoutJournal => "errors=continue",
            Self::Xfs => "",
        }
    }
}

/// 4 KiB blocks whatever the size (small images would get 1 KiB ones); nothing left to be
/// initialised in the background, where it would disturb counts and cuts.
fn ext4_arguments(journal: &str) -> Vec<String> {
    let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    ["-q", "-F", "-b", "4096", "-O", journal, "-E", lazy]
        .map(str::to_owned)
        .to_vec()
}

fn xfs_arguments(block_bytes: u32) -> Vec<String> {
    let sector = format!("size={block_bytes}");
    ["-q", "-f", "-K", "-s", &sector]
        .map(str::to_owned)
        .to_vec()
}

/// A file system mounted from an image through a loop device of its own.
#[derive(Debug)]
pub(crate) struct Mounted {
    image: PathBuf,
    point: PathBuf,
    mounted: bool,
}

impl Mounted {
    pub(crate) fn new(
        kind: FileSystem,
        image: &Path,
        point: &Path,
        block_bytes: u32,
    ) -> io::Result<Self> {
        let device = LoopDevice::new(image, block_bytes)?;
        sys::mount(
            device.path(),
            point,
            kind.kernel_name(),
            kind.mount_options(),
        )
        .attempting(format_args!(
            "mounting {kind} from {} (see dmesg)",
            device.path().display()
        ))?;
        // The mount alone holds the device from here on.
        drop(device);
        Ok(Self {
            image: image.to_owned(),
            point: point.to_owned(),
            mounted: true,
        })
    }

    /// Stops the file system as a crash does: what it holds in memory is gone.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        let root = File::open(&self.point).attempting("opening the file system's root")?;
        sys::shut_down_file_system(&root).attempting("shutting the file system down")
    }

    /// Unmounts and waits until the file system is gone from the kernel.
    ///
    /// # Errors
    /// If a file on it stays open for longer than `busy_max`; the error names the processes.
    pub(crate) fn unmount(mut self, busy_max: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match sys::unmount(&self.point) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    if start.elapsed() > busy_max {
                        let users = users_of(&self.point).join(", ");
                        let what = format!("unmounting {}, used by {users}", self.point.display());
                        return Err(error).attempting(what);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    return Err(error)
                        .attempting(format_args!("unmounting {}", self.point.display()));
                }
            }
        }
        self.mounted = false;
        loop_device::wait_until_free(&self.image, busy_max)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted && sys::unmount(&self.point).is_err() {
            // Files are still open, or the device is dead: out of the tree now, gone later.
            let _ = sys::detach(&self.point);
        }
    }
}

/// The processes with an open file or their working directory under `point`.
fn users_of(point: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let files = std::fs::read_dir(path.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let links = files
            .map(|file| file.path())
            .chain([path.join("cwd"), path.join("root")]);
        let mut targets = links.filter_map(|link| std::fs::read_link(link).ok());
        if let Some(target) = targets.find(|target| target.starts_with(point)) {
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().into_owned();
            users.push(format!("{} ({pid}: {})", name.trim_end(), target.display()));
        }
    }
    users
}
