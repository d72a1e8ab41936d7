//! A staged machine: given texts stand for the files below `/proc` and `/sys`, plain values for
//! the answers of system calls. For tests here and in callers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::{DirectProbe, DirectoryProbe, Host, Limit, LimitKind, RingFailure, RingFeatures};

/// A [`Host`] of given answers. [`StagedHost::default`] is a machine without faults: 4 CPUs,
/// Linux 6.18 with every feature of io_uring, 8 MiB of locked memory, 65,536 descriptors, an
/// ordinary user, and the data directory on device 259:1, a journalled ext4 on `nvme0n1p1`.
#[derive(Debug, Clone)]
pub struct StagedHost {
    /// Texts of files by their absolute paths.
    pub files: BTreeMap<PathBuf, String>,
    /// The limit of locked memory, in bytes.
    pub memlock: Limit,
    /// The limit of open descriptors.
    pub nofile: Limit,
    /// The number of CPUs.
    pub cpus: usize,
    /// What a small ring answers.
    pub ring: Result<RingFeatures, RingFailure>,
    /// What a file in the data directory answers, or an error number.
    pub directory: Result<DirectoryProbe, i32>,
}

/// The files of the machine without faults.
const FILES: [(&str, &str); 9] = [
    ("/proc/sys/kernel/osrelease", "6.18.0\n"),
    ("/proc/sys/kernel/io_uring_disabled", "0\n"),
    ("/proc/sys/kernel/io_uring_group", "-1\n"),
    (
        "/proc/thread-self/status",
        "Name:\tringway\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
    ),
    (
        "/proc/self/mountinfo",
        "22 27 0:21 / /proc rw - proc proc rw\n27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n",
    ),
    (
        "/sys/dev/block/259:1/uevent",
        "MAJOR=259\nMINOR=1\nDEVNAME=nvme0n1p1\nDEVTYPE=partition\n",
    ),
    ("/sys/fs/ext4/nvme0n1p1/journal_task", "411\n"),
    (
        "/proc/fs/ext4/nvme0n1p1/options",
        "rw\nbarrier\ndata=ordered\n",
    ),
    ("/proc/fs/jbd2/nvme0n1p1-8/info", ""),
];

impl Default for StagedHost {
    fn default() -> Self {
        Self {
            files: FILES
                .iter()
                .map(|&(path, text)| (path.into(), text.to_owned()))
                .collect(),
            memlock: Limit {
                soft: 8 << 20,
                hard: 8 << 20,
            },
            nofile: Limit {
                soft: 65_536,
                hard: 65_536,
            },
            cpus: 4,
            ring: Ok(RingFeatures {
                defer_taskrun: true,
                buffer_ring: true,
                receive_multishot: true,
                msg_ring: true,
                send_zero_copy: true,
                no_iowait: true,
                missing_operations: Vec::new(),
            }),
            directory: Ok(DirectoryProbe {
                device: (259, 1),
                magic: 0xEF53,
                direct: DirectProbe::Stated {
                    memory: 512,
                    offset: 512,
                },
            }),
        }
    }
}

impl StagedHost {
    /// Stages a file, in place of what was there.
    pub fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), text.to_owned());
    }

    /// Takes a file away, or everything below a directory.
    pub fn remove(&mut self, path: &str) {
        self.files.retain(|file, _| !file.starts_with(path));
    }
}

impl Host for StagedHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self
            .files
            .keys()
            .filter_map(|file| file.strip_prefix(path).ok()?.iter().next())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.dedup();
        if names.is_empty() {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(names)
        }
    }

    fn limit(&self, kind: LimitKind) -> io::Result<Limit> {
        Ok(match kind {
            LimitKind::Memlock => self.memlock,
            LimitKind::Nofile => self.nofile,
        })
    }

    fn cpus(&self) -> usize {
        self.cpus
    }

    fn probe_ring(&self) -> Result<RingFeatures, RingFailure> {
        self.ring.clone()
    }

    fn probe_directory(&self, _directory: &Path) -> io::Result<DirectoryProbe> {
        self.directory.map_err(io::Error::from_raw_os_error)
    }
}
