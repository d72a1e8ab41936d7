//! The machine as it is: the kernel's own files and system calls behind [`Host`], and the limits
//! that a process may raise for itself.

use std::io;
use std::path::Path;

use crate::host::{DirectoryProbe, Host, Limit, LimitKind, RingFailure, RingFeatures};
use crate::sys;

/// The machine that this process runs on, seen with the calling thread's rights.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxHost;

impl Host for LinuxHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        names_in(path)
    }

    fn limit(&self, kind: LimitKind) -> io::Result<Limit> {
        sys::limit(kind)
    }

    fn cpus(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn probe_ring(&self) -> Result<RingFeatures, RingFailure> {
        sys::probe_ring()
    }

    fn probe_directory(&self, directory: &Path) -> io::Result<DirectoryProbe> {
        sys::probe_directory(directory)
    }
}

/// Raises the soft limits of open descriptors and locked memory to their hard limits. To be
/// called first thing at start; the pre-flight then judges what came of it.
///
/// # Errors
/// When the kernel refuses to read or set a limit, which for raising soft to hard it does not
/// unless a security module or a seccomp filter interferes.
pub fn raise_limits() -> io::Result<()> {
    for kind in [LimitKind::Nofile, LimitKind::Memlock] {
        let limit = sys::limit(kind)?;
        if limit.soft < limit.hard {
            sys::set_soft_limit(kind, limit.hard)?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(crate) fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
