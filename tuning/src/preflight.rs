//! The pre-flight: the list of checks in the order in which an operator should read them, and
//! the report that the broker acts on.

use std::path::PathBuf;

use serde::Serialize;

use crate::finding::{Finding, Severity};
use crate::host::Host;
use crate::storage::{DirectIo, FileSystem, Journal, Storage, StorageError, SyncScope, storage};
use crate::{process, ring};

/// What the caller is going to ask of the machine.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// Number of shards, one thread each.
    pub shards: u32,
    /// Number of rings, those of the shards and all others.
    pub rings: u32,
    /// Memory that all rings and their registered buffers lock together, in bytes: for each ring
    /// [`crate::ring_memlock_bytes`] and its buffers, and 64 KiB to spare, since the kernel gives
    /// back what the pre-flight's own small rings took only some time after they are closed.
    pub memlock_bytes: u64,
    /// Descriptors without which there is no point in starting.
    pub nofile: u64,
    /// Descriptors for normal operation; fewer are worth a warning.
    pub nofile_advised: u64,
    /// The data directory; has to exist.
    pub data_dir: PathBuf,
    /// The unit of the log's direct writes in bytes: a multiple of what the device asks for.
    pub block_bytes: u32,
    /// The configured `sync_scope`; `None` is `auto`.
    pub sync_scope: Option<SyncScope>,
}

/// Locked memory worth granting, in bytes, even where less is needed: the limit counts all
/// processes of a user, and this is the default of current distributions.
const MEMLOCK_ADVISED_BYTES: u64 = 8 << 20;

impl Requirements {
    /// The limit of locked memory to recommend, in bytes.
    pub(crate) fn memlock_advised_bytes(&self) -> u64 {
        self.memlock_bytes.max(MEMLOCK_ADVISED_BYTES)
    }
}

/// What the pre-flight found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// One finding or more for each check, in reading order.
    pub findings: Vec<Finding>,
    /// What the data directory stands on; `None` where it could not be examined, which is also
    /// among the findings as fatal.
    pub storage: Option<Storage>,
}

impl Report {
    /// The gravest severity of all findings.
    pub fn worst(&self) -> Severity {
        self.findings
            .iter()
            .map(|f| f.severity)
            .max()
            .unwrap_or(Severity::Ok)
    }

    /// The findings of at least this severity.
    pub fn at_least(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.severity >= severity)
    }

    /// The first finding of that check.
    pub fn check(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.check == name)
    }

    /// The whole report as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

/// Judges `host` by `need`. Creates a small ring and a nameless file in the data directory, both
/// gone on return; changes nothing else. Raise the limits first ([`crate::raise_limits`]).
pub fn preflight(need: &Requirements, host: &dyn Host) -> Report {
    let mut findings = ring::checks(need, host);
    // Where a ring could not be had for want of memory, that finding already names the limit.
    if findings.iter().all(|f| f.check != "memlock") {
        findings.push(process::memlock(need, host));
    }
    findings.push(process::nofile(need, host));
    findings.push(process::cpus(need, host));
    let storage = match storage(&need.data_dir, host) {
        Ok(storage) => {
            findings.extend(storage_checks(need, &storage));
            Some(storage)
        }
        Err(error) => {
            findings.push(unusable_directory(&error));
            None
        }
    };
    Report { findings, storage }
}

fn unusable_directory(error: &StorageError) -> Finding {
    let path = error.path.display();
    Finding {
        check: "data_dir",
        severity: Severity::Fatal,
        current: error.to_string(),
        wanted: "a directory in which files can be created".to_owned(),
        why: "the log lives there".to_owned(),
        remedy: match error.source.raw_os_error() {
            Some(libc::ENOENT) => format!("`mkdir -p {path}`, or name another with `--data-dir`"),
            Some(libc::EROFS) => "mount the file system for writing".to_owned(),
            Some(libc::EACCES | libc::EPERM) => {
                format!("give the directory to the broker's user: `chown USER {path}`")
            }
            Some(libc::ENOSPC | libc::EDQUOT) => {
                "free space or inodes on the file system".to_owned()
            }
            _ => "see dmesg for what the file system says".to_owned(),
        },
    }
}

fn storage_checks(need: &Requirements, storage: &Storage) -> Vec<Finding> {
    let checks = [
        Some(direct_io(need, storage)),
        journal(storage),
        barriers(storage),
        Some(sync_scope(need, storage)),
    ];
    checks.into_iter().flatten().collect()
}

fn direct_io(need: &Requirements, storage: &Storage) -> Finding {
    let check = "direct_io";
    let block = need.block_bytes;
    let file_system = &storage.file_system;
    let fatal = |current: String, wanted: String, remedy: &str| Finding {
        check,
        severity: Severity::Fatal,
        current,
        wanted,
        why: "the log is written past the page cache, and never falls back to it".to_owned(),
        remedy: remedy.to_owned(),
    };
    match storage.direct_io {
        None => fatal(
            format!("{file_system} has no direct I/O here"),
            "a file system with direct I/O".to_owned(),
            match file_system {
                FileSystem::Other { memory: true, .. } => {
                    "a data directory on a disk, on XFS or journalled ext4: this one is in memory, \
                     and nothing on it outlives a restart"
                }
                FileSystem::Ext4 {
                    journal: Journal::Data,
                } => "mount without data=journal (`tune2fs -o ^journal_data`), or use XFS",
                FileSystem::Ext4 { .. } => {
                    "a directory without encryption, verity or compression, on journalled ext4 or \
                     XFS"
                }
                _ => "a data directory on XFS or journalled ext4",
            },
        ),
        Some(DirectIo {
            memory_align,
            offset_align,
            ..
        }) if memory_align > block || offset_align > block => fatal(
            format!("alignment of {memory_align} (memory) and {offset_align} (file) bytes"),
            format!("at most {block} bytes each"),
            "a device with smaller logical blocks, or one formatted with such \
                 (`nvme format --lbaf`)",
        ),
        Some(DirectIo {
            memory_align,
            offset_align,
            stated: true,
        }) => Finding::fine(
            check,
            format!("{file_system}, aligned to {memory_align} (memory) and {offset_align} (file)"),
            "",
        ),
        Some(DirectIo { stated: false, .. }) => Finding {
            check,
            severity: Severity::Warning,
            current: format!("{file_system} accepts direct I/O but states no alignment"),
            wanted: "XFS or journalled ext4, on Linux 6.1 or later".to_owned(),
            why: "direct writes may be buffered or copied behind the broker's back".to_owned(),
            remedy: "a data directory on XFS or journalled ext4; in a container, on a volume and \
                     not on the image's overlay"
                .to_owned(),
        },
    }
}

/// Only ext4 can lack a journal; elsewhere there is nothing to say.
fn journal(storage: &Storage) -> Option<Finding> {
    let FileSystem::Ext4 { journal } = storage.file_system else {
        return None;
    };
    let warning = |current: &str, remedy: &str| Finding {
        check: "journal",
        severity: Severity::Warning,
        current: current.to_owned(),
        wanted: "a journal inside the file system".to_owned(),
        why: "one flush can't cover all files, so every file gets its own sync".to_owned(),
        remedy: remedy.to_owned(),
    };
    Some(match journal {
        Journal::None => {
            let mut finding = warning(
                "ext4 without a journal",
                "unmount and `tune2fs -O has_journal DEVICE`, or use XFS",
            );
            finding
                .why
                .push_str("; after a power cut the file system needs a full check");
            finding
        }
        Journal::External => warning(
            "ext4 with its journal on another device",
            "unmount, `tune2fs -O ^has_journal DEVICE`, then `tune2fs -O has_journal DEVICE`",
        ),
        Journal::Unknown => warning(
            "ext4, and it can't be read whether it has a journal",
            "make /sys/fs/ext4, /proc/fs/ext4 and /proc/fs/jbd2 readable to the broker",
        ),
        Journal::Ordered => Finding::fine("journal", "ext4, data=ordered", ""),
        Journal::Writeback => Finding::fine("journal", "ext4, data=writeback", ""),
        // Refused as a whole under `direct_io`.
        Journal::Data => return None,
    })
}

fn barriers(storage: &Storage) -> Option<Finding> {
    (!storage.barriers).then(|| Finding {
        check: "barriers",
        severity: Severity::Warning,
        current: "mounted with nobarrier".to_owned(),
        wanted: "barriers on".to_owned(),
        why:
            "a sync stops at the device's cache: acknowledged records survive a power cut only if \
              that cache does"
                .to_owned(),
        remedy: "remount with `-o barrier=1`, unless the device's cache is protected".to_owned(),
    })
}

fn sync_scope(need: &Requirements, storage: &Storage) -> Finding {
    let check = "sync_scope";
    let auto = storage.sync_scope;
    match need.sync_scope {
        Some(SyncScope::Device) if auto == SyncScope::File => Finding {
            check,
            severity: Severity::Warning,
            current: "device, as configured".to_owned(),
            wanted: "file (what auto picks here)".to_owned(),
            why: format!(
                "{}; with one shared flush instead, acknowledged records may be lost in a power \
                 cut",
                storage.reason
            ),
            remedy: "set sync_scope to auto, or move the data to journalled ext4 or XFS".to_owned(),
        },
        Some(chosen) => Finding {
            check,
            severity: Severity::Info,
            current: format!("{chosen}, as configured"),
            wanted: format!("{auto} (what auto picks here)"),
            why: storage.reason.clone(),
            remedy: String::new(),
        },
        None => Finding {
            check,
            severity: Severity::Info,
            current: format!("auto picks {auto}"),
            wanted: format!("auto picks {auto}"),
            why: format!("device {}: {}", storage.device, storage.reason),
            remedy: String::new(),
        },
    }
}

#[cfg(test)]
mod tests;
