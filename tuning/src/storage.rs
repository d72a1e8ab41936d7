//! What the data directory stands on, and which scope of sync it bears: one flush of the device
//! for all files of a commit round, or a sync for each file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::{DirectProbe, DirectoryProbe, Host};
use crate::mounts::{Mount, find_mount};

/// Which files one sync makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncScope {
    /// One fdatasync of the anchor flushes the device's cache for every write completed before.
    Device,
    /// Every file needs its own sync.
    File,
}

impl fmt::Display for SyncScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Device => "device",
            Self::File => "file",
        })
    }
}

/// A block device by its numbers; shown as `major:minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Device {
    /// Names the driver.
    pub major: u32,
    /// Names the device among the driver's.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The alignments of direct I/O, in bytes; powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DirectIo {
    /// Of the memory.
    pub memory_align: u32,
    /// Of position and length in the file.
    pub offset_align: u32,
    /// Whether the kernel said so; else a page of 4096 bytes is assumed for both.
    pub stated: bool,
}

/// The alignment taken where direct I/O is accepted but the kernel doesn't name one: a page,
/// which is no less than the logical block of any device that a general file system takes.
const ASSUMED_ALIGN: u32 = 4096;

/// How ext4 journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Journal {
    /// Not at all.
    None,
    /// Metadata, after the data that it describes.
    Ordered,
    /// Metadata only.
    Writeback,
    /// Data too; direct I/O is refused then.
    Data,
    /// On a device of its own.
    External,
    /// The kernel's files about it can't be read.
    Unknown,
}

/// The file system below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4.
    Ext4 {
        /// How it journals.
        journal: Journal,
    },
    /// XFS.
    Xfs {
        /// The log lies on another device.
        external_log: bool,
        /// There is a real-time device, where files may lie.
        realtime: bool,
    },
    /// Anything else.
    Other {
        /// Its name as in `mount(8)`, or its magic number.
        kind: String,
        /// It lives in memory: nothing on it survives a restart.
        memory: bool,
    },
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext4 {
                journal: Journal::None,
            } => f.write_str("ext4 without a journal"),
            Self::Ext4 { .. } => f.write_str("ext4"),
            Self::Xfs { .. } => f.write_str("xfs"),
            Self::Other { kind, .. } => f.write_str(kind),
        }
    }
}

/// What the data directory stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// The file system and what of it matters for durability.
    pub file_system: FileSystem,
    /// The alignments of direct I/O; `None` where there is none.
    pub direct_io: Option<DirectIo>,
    /// The device of a file created in the directory.
    pub device: Device,
    /// Whether a sync reaches beyond the device's volatile cache.
    pub barriers: bool,
    /// What `sync_scope = auto` means here.
    pub sync_scope: SyncScope,
    /// Why `sync_scope` is what it is.
    pub reason: String,
}

/// The data directory could not be examined.
#[derive(Debug, thiserror::Error)]
#[error("cannot create a file in {}: {source}", path.display())]
pub struct StorageError {
    /// The data directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Examines an existing, writable directory by a file that is created in it and gone at once.
///
/// # Errors
/// When the directory doesn't exist or no file can be created in it.
pub fn storage(data_dir: &Path, host: &dyn Host) -> Result<Storage, StorageError> {
    let probe = host
        .probe_directory(data_dir)
        .map_err(|source| StorageError {
            path: data_dir.to_owned(),
            source,
        })?;
    let mountinfo = host
        .read(Path::new("/proc/self/mountinfo"))
        .unwrap_or_default();
    let mount = find_mount(&mountinfo, probe.device);
    let file_system = file_system(&probe, mount.as_ref(), host);
    let direct_io = direct_io(&probe, &file_system);
    let barriers = barriers(mount.as_ref());
    let (sync_scope, reason) = auto_scope(&file_system, direct_io, barriers);
    let device = Device {
        major: probe.device.0,
        minor: probe.device.1,
    };
    Ok(Storage {
        file_system,
        direct_io,
        device,
        barriers,
        sync_scope,
        reason,
    })
}

/// Magic numbers of file systems that matter where `/proc/self/mountinfo` has no line for the
/// device (btrfs files carry a device number of their own), from `linux/magic.h`.
const MAGICS: [(u64, &str); 9] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58F6, "ramfs"),
    (0x9123_683E, "btrfs"),
    (0x794C_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
    (0x6969, "nfs"),
    (0x5846_5342, "xfs"),
];

fn file_system(probe: &DirectoryProbe, mount: Option<&Mount>, host: &dyn Host) -> FileSystem {
    let by_magic = MAGICS
        .iter()
        .find(|(magic, _)| *magic == probe.magic)
        .map(|(_, name)| *name);
    let name = match (mount, by_magic) {
        (Some(mount), _) => mount.file_system.clone(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => format!("file system {:#x}", probe.magic),
    };
    match (name.as_str(), mount) {
        ("ext4", Some(_)) => FileSystem::Ext4 {
            journal: ext4_journal(probe.device, host),
        },
        ("xfs", Some(mount)) => FileSystem::Xfs {
            external_log: mount.has_option("logdev"),
            realtime: mount.has_option("rtdev"),
        },
        _ => {
            let memory = matches!(name.as_str(), "tmpfs" | "ramfs");
            FileSystem::Other { kind: name, memory }
        }
    }
}

/// How the ext4 on `device` journals. ext4 names its directories below `/sys` and `/proc` by the
/// block device, with an exclamation mark for a slash.
fn ext4_journal(device: (u32, u32), host: &dyn Host) -> Journal {
    let uevent = format!("/sys/dev/block/{}:{}/uevent", device.0, device.1);
    let Ok(uevent) = host.read(Path::new(&uevent)) else {
        return Journal::Unknown;
    };
    let Some(name) = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
    else {
        return Journal::Unknown;
    };
    let name = name.replace('/', "!");
    let task = host.read(Path::new(&format!("/sys/fs/ext4/{name}/journal_task")));
    if task.is_ok_and(|task| task.trim() == "<none>") {
        return Journal::None;
    }
    let Ok(options) = host.read(Path::new(&format!("/proc/fs/ext4/{name}/options"))) else {
        return Journal::Unknown;
    };
    // The kernel lists a data mode if and only if there is a journal.
    match options
        .lines()
        .find_map(|line| line.trim().strip_prefix("data="))
    {
        None => Journal::None,
        Some("journal") => Journal::Data,
        Some(mode) => match (journal_is_internal(&name, host), mode) {
            (Some(true), "ordered") => Journal::Ordered,
            (Some(true), "writeback") => Journal::Writeback,
            (Some(false), _) => Journal::External,
            _ => Journal::Unknown,
        },
    }
}

/// A journal within the file system is listed as `DEVICE-INODE`, one on a device of its own by
/// that device's name alone.
fn journal_is_internal(name: &str, host: &dyn Host) -> Option<bool> {
    let journals = host.list(Path::new("/proc/fs/jbd2")).ok()?;
    let own = |journal: &String| {
        journal.rsplit_once('-').is_some_and(|(device, inode)| {
            device == name && !inode.is_empty() && inode.bytes().all(|b| b.is_ascii_digit())
        })
    };
    Some(journals.iter().any(own))
}

fn direct_io(probe: &DirectoryProbe, file_system: &FileSystem) -> Option<DirectIo> {
    match probe.direct {
        DirectProbe::Stated { memory, offset } => {
            (memory != 0 && offset != 0).then_some(DirectIo {
                memory_align: memory,
                offset_align: offset,
                stated: true,
            })
        }
        // A file system in memory accepts the flag (tmpfs since Linux 6.6) and ignores it.
        DirectProbe::Unstated { opens } => {
            let memory = matches!(file_system, FileSystem::Other { memory: true, .. });
            (opens && !memory).then_some(DirectIo {
                memory_align: ASSUMED_ALIGN,
                offset_align: ASSUMED_ALIGN,
                stated: false,
            })
        }
    }
}

/// Whether syncs flush the device: on unless switched off (`nobarrier`, `barrier=0`; ext4 shows
/// both as `nobarrier`).
fn barriers(mount: Option<&Mount>) -> bool {
    !mount.is_some_and(|mount| {
        mount.has_option("nobarrier") || mount.options.iter().any(|o| o == "barrier=0")
    })
}

/// What `sync_scope = auto` picks, and why. Device only where it is known that an fdatasync of an
/// untouched file still flushes the device, and that the other files lie on that device.
fn auto_scope(
    file_system: &FileSystem,
    direct_io: Option<DirectIo>,
    barriers: bool,
) -> (SyncScope, String) {
    let obstacle = match file_system {
        FileSystem::Ext4 {
            journal: Journal::Ordered | Journal::Writeback,
        } => None,
        FileSystem::Ext4 { journal } => Some(match journal {
            Journal::None => "this ext4 has no journal",
            Journal::Data => "this ext4 journals data (data=journal)",
            Journal::External => "this ext4 keeps its journal on another device",
            _ => "it is not known whether this ext4 has a journal",
        }),
        FileSystem::Xfs {
            external_log: true, ..
        } => Some("this XFS keeps its log elsewhere"),
        FileSystem::Xfs { realtime: true, .. } => Some("this XFS has a real-time device"),
        FileSystem::Xfs { .. } => None,
        FileSystem::Other { .. } => Some("a shared flush is known to be safe on ext4 and XFS only"),
    };
    let obstacle = match (obstacle, direct_io) {
        (Some(obstacle), _) => Some(obstacle),
        (None, _) if !barriers => Some("barriers are off"),
        (None, Some(DirectIo { stated: true, .. })) => None,
        (None, _) => Some("the kernel doesn't vouch for direct I/O in this directory"),
    };
    match obstacle {
        Some(obstacle) => (
            SyncScope::File,
            format!("{obstacle}: every file gets its own sync"),
        ),
        None => (
            SyncScope::Device,
            format!(
                "{}, barriers on, direct I/O: one flush covers all files",
                match file_system {
                    FileSystem::Ext4 { .. } => "journalled ext4",
                    _ => "XFS with its log inside",
                }
            ),
        ),
    }
}

#[cfg(test)]
mod tests;
