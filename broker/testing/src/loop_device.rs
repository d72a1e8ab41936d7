//! Loop devices: a file as a block device, with no tool but the kernel. Each frees itself when its
//! last user is gone, also when this process is killed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::Attempting;
use crate::sys;

/// How often to try again when another process takes the free device first.
const ATTEMPTS_MAX: u32 = 100;

/// A loop device on a file. It stays until this value is dropped *and* nothing is mounted on it.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// `block_bytes` is the logical block size: 512 or 4096.
    pub(crate) fn new(image: &Path, block_bytes: u32) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let control =
            open(Path::new("/dev/loop-control")).attempting("opening /dev/loop-control")?;
        let backing = open(image).attempting(format_args!("opening {}", image.display()))?;
        let mut attempt = 0;
        loop {
            let number = sys::free_loop_number(&control).attempting("finding a loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            if !path.exists() {
                // Somebody else may make it at the same time; opening it tells.
                let _ = sys::make_loop_node(&path, number);
            }
            let device = open(&path).attempting(format_args!("opening {}", path.display()))?;
            match sys::configure_loop(&device, &backing, block_bytes) {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _open: device,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    attempt += 1;
                    if attempt == ATTEMPTS_MAX {
                        return Err(error).attempting("taking a loop device");
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    let what = format!("putting {} on {}", image.display(), path.display());
                    return Err(error).attempting(what);
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Waits until no loop device has `image` under it any more, which is when the file system that
/// was mounted on it is truly gone.
pub(crate) fn wait_until_free(image: &Path, limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    while let Some(device) = user_of(image)? {
        if start.elapsed() > limit {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{device} still has {} under it after {limit:?}: is its file system mounted \
                     in another mount namespace?",
                    image.display()
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn user_of(image: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir("/sys/block").attempting("listing /sys/block")? {
        let entry = entry?;
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file"));
        if backing.is_ok_and(|backing| Path::new(backing.trim_end_matches('\n')) == image) {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
