//! Cleans up after runs that were killed: the brokers they started, what they had mounted, and
//! their files. It goes by locks and by a mark in the environment, never by names or ages.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::Attempting;
use crate::scratch::{LOCK, PREFIX};
use crate::sys;

/// In the environment of every process that a test starts: the scratch directory it belongs to.
pub(crate) const MARK: &str = "RINGWAY_TEST_SCRATCH";

/// How long a killed process may take to go.
const DEATH_MAX: Duration = Duration::from_secs(10);

/// Removes every scratch directory in `root` whose owner is gone.
pub(crate) fn sweep(root: &Path) -> io::Result<()> {
    let entries = std::fs::read_dir(root);
    for entry in entries.attempting(format_args!("listing {}", root.display()))? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            sweep_one(&entry.path());
        }
    }
    Ok(())
}

fn sweep_one(path: &Path) {
    if !is_owned(path) {
        // Mounts first: a process that waits for a dead disk can't be killed.
        detach_mounts(path);
        kill_marked(path);
        remove(path);
    }
}

/// Whether a scratch directory belongs to a process that lives.
fn is_owned(path: &Path) -> bool {
    let lock = path.join(LOCK);
    let Ok(file) = File::open(&lock) else {
        return false;
    };
    if sys::try_lock(&file).unwrap_or(false) {
        return false;
    }
    let owner = std::fs::read_to_string(&lock).unwrap_or_default();
    !is_dying(&owner)
}

/// Whether a process has been killed and can't die. One that serves a disk to itself is like that
/// when one of its threads waits for the disk: the threads that would answer are dead, and the one
/// that waits keeps the FUSE connection open. Detaching by force ends it.
fn is_dying(pid: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", str::trim)
    };
    let killed =
        |name| u64::from_str_radix(field(name), 16).is_ok_and(|set| set & SIGKILL_BIT != 0);
    field("State:").starts_with(['Z', 'X']) || killed("SigPnd:") || killed("ShdPnd:")
}

/// Takes every mount under `path` out of the tree. FUSE servers first, by force: a file system on
/// one whose process hangs would hang as well.
pub(crate) fn detach_mounts(path: &Path) {
    let mut mounts = mounts_under(path);
    mounts.sort_by_key(|mount| !mount.kind.starts_with("fuse"));
    for mount in &mounts {
        // One that can't be detached keeps its directory: `remove` looks again.
        let _ = sys::detach(&mount.point);
    }
}

/// Removes a directory, unless something is still mounted in it.
pub(crate) fn remove(path: &Path) {
    if mounts_under(path).is_empty() {
        // What can't be removed now is left for the next sweep.
        let _ = std::fs::remove_dir_all(path);
    }
}

struct MountEntry {
    point: PathBuf,
    kind: String,
}

/// The mounts under `path`, the last mounted first.
fn mounts_under(path: &Path) -> Vec<MountEntry> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let entries = table.lines().rev().filter_map(parse_mount);
    entries
        .filter(|mount| mount.point.starts_with(path))
        .collect()
}

/// A line of /proc/self/mountinfo: the fifth field is the mount point, and the kind follows " - ".
fn parse_mount(line: &str) -> Option<MountEntry> {
    let (left, right) = line.split_once(" - ")?;
    let point = unescape(left.split(' ').nth(4)?);
    let kind = right.split(' ').next()?.to_owned();
    Some(MountEntry { point, kind })
}

/// Blanks and backslashes are written as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Kills the processes that were started for this scratch directory, and waits until they're gone.
fn kill_marked(path: &Path) {
    let mut mark = OsStr::new(MARK).as_bytes().to_vec();
    mark.push(b'=');
    mark.extend_from_slice(path.as_os_str().as_bytes());
    let start = Instant::now();
    loop {
        let marked = marked_processes(&mark);
        if marked.is_empty() || start.elapsed() > DEATH_MAX {
            return;
        }
        for pid in marked {
            // Gone already is as good.
            let _ = sys::signal(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie has no environment any more, so it doesn't count.
fn marked_processes(mark: &[u8]) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        *pid != std::process::id() && environment.split(|byte| *byte == 0).any(|var| var == mark)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_understood() {
        let line = r"36 35 98:0 / /mnt/a\040b\134c rw,noatime master:1 - fuse.x /dev/x rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/mnt/a b\c"));
        assert_eq!(mount.kind, "fuse.x");
    }
}
