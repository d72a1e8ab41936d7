//! Scratch directories: unique, removed at the end, and swept up by the next run if this one is
//! killed, mounts and processes included.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Attempting;
use crate::{sweep, sys};

/// What the names of all scratch directories start with; the sweep touches nothing else.
pub(crate) const PREFIX: &str = "ringway-scratch-";
/// Locked for as long as the directory is in use; whoever gets the lock knows that it's stale. It
/// contains the number of the owner's process.
pub(crate) const LOCK: &str = ".lock";

/// A directory for one test. Clones are the same directory; it goes with the last of them, along
/// with anything still mounted in it. `RINGWAY_TEST_KEEP=1` keeps the files.
#[derive(Clone, Debug)]
pub struct Scratch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    children: AtomicU32,
    _lock: File,
}

impl Scratch {
    /// A new directory in `root`, which an integration test has as `env!("CARGO_TARGET_TMPDIR")`.
    /// `name` only helps to recognise it. The first call of a process for a `root` sweeps up what
    /// killed runs have left there.
    ///
    /// # Errors
    /// If `root` can't be written to.
    pub fn new(root: impl AsRef<Path>, name: &str) -> io::Result<Self> {
        let root = root.as_ref();
        std::fs::create_dir_all(root).attempting(format_args!("creating {}", root.display()))?;
        let root = root
            .canonicalize()
            .attempting("resolving the scratch root")?;
        // A directory is made and locked under this lock, so that no sweep sees it in between.
        let gate = lock_file(&root.join(".ringway-scratch.lock"))?;
        sys::lock(&gate).attempting("locking the scratch root")?;
        if is_first_use(&root) {
            sweep::sweep(&root)?;
        }
        let path = create_unique(&root, &format!("{PREFIX}{name}"))?;
        let mut lock = lock_file(&path.join(LOCK))?;
        if !sys::try_lock(&lock)? {
            return Err(io::Error::other(
                "a scratch directory was taken by somebody else",
            ));
        }
        // For a sweep that finds the lock held by a process that can't die.
        write!(lock, "{}", std::process::id()).attempting("writing a lock file")?;
        Ok(Self(Arc::new(Inner {
            path,
            children: AtomicU32::new(0),
            _lock: lock,
        })))
    }

    /// The directory, as an absolute path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A new directory inside, `NAME-0` and so on.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn create_dir(&self, name: &str) -> io::Result<PathBuf> {
        let child = self.0.children.fetch_add(1, Ordering::Relaxed);
        let path = self.0.path.join(format!("{name}-{child}"));
        std::fs::create_dir(&path).attempting(format_args!("creating {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        sweep::detach_mounts(&self.path);
        if std::env::var_os("RINGWAY_TEST_KEEP").is_none() {
            sweep::remove(&self.path);
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let opened = options.open(path).or_else(|error| match error.kind() {
        // Another user's; reading is enough to lock it.
        io::ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    });
    opened.attempting(format_args!("opening {}", path.display()))
}

fn is_first_use(root: &Path) -> bool {
    static USED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    USED.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(root.to_owned())
}

fn create_unique(root: &Path, prefix: &str) -> io::Result<PathBuf> {
    for number in 0_u32.. {
        let path = root.join(format!("{prefix}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).attempting(format_args!("creating {}", path.display()));
            }
        }
    }
    Err(io::Error::other(
        "four thousand million scratch directories exist",
    ))
}
