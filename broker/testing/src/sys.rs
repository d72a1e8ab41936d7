//! The system calls that the standard library lacks, each behind a safe function: all the unsafe
//! code of this crate. Public where crash tests need the same call.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Takes the exclusive lock on a file, waiting for it.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_EX)
}

/// Takes the exclusive lock on a file; false if somebody has it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, libc::LOCK_EX | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: flock reads no memory of ours; the descriptor is open as long as `file` is borrowed.
    check(unsafe { libc::flock(file.as_raw_fd(), operation) })
}

/// Mounts `source`, a block device with the file system `kind`.
pub(crate) fn mount(source: &Path, target: &Path, kind: &str, options: &str) -> io::Result<()> {
    let (source, target) = (c_string(source.as_os_str())?, c_string(target.as_os_str())?);
    let (kind, options) = (c_string(kind.as_ref())?, c_string(options.as_ref())?);
    // SAFETY: four NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast::<libc::c_void>(),
        )
    })
}

/// Unmounts what is on top of `target`; fails with EBUSY while a file on it is open.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    unmount_with(target, 0)
}

/// Aborts the server of a FUSE mount, or does nothing to another kind, and takes the mount out of
/// the tree at once; the file system goes when its last file is closed.
pub(crate) fn detach(target: &Path) -> io::Result<()> {
    unmount_with(target, libc::MNT_DETACH | libc::MNT_FORCE)
}

fn unmount_with(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_string(target.as_os_str())?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) })
}

/// Stops the file system that `any_file` is on, at once and without writing its journal or
/// anything else that it still holds in memory (FS_IOC_SHUTDOWN with NOLOGFLUSH): every later
/// request fails with EIO. ext4, XFS and a few others have it.
pub(crate) fn shut_down_file_system(any_file: &File) -> io::Result<()> {
    const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
    const NOLOGFLUSH: u32 = 2;
    // SAFETY: the request reads one u32, which outlives the call.
    check(unsafe { libc::ioctl(any_file.as_raw_fd(), FS_IOC_SHUTDOWN, &NOLOGFLUSH) })
}

/// Sends a signal to one process.
///
/// # Errors
/// ESRCH if it is gone; EINVAL for a process number that names a group or everybody (0, 1 or more
/// than 2³¹-1).
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 1);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: kill touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// Gives the calling thread, and those that it starts from now on, only the time that nobody else
/// wants (SCHED_IDLE): for clients that would run on machines of their own.
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to parameters that outlive the call; 0 is this thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) })
}

/// Raises the soft limit of open files to the hard limit, and says what it is now.
pub fn raise_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a structure of the right type that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Writes at a position and returns once the bytes are durable (pwritev2 with RWF_DSYNC); the
/// number of bytes written, which may be fewer.
pub fn write_durably_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast::<libc::c_void>(),
        iov_len: bytes.len(),
    };
    let position = libc::off_t::try_from(position).map_err(io::Error::other)?;
    // SAFETY: one vector that covers a live slice; the kernel only reads from it.
    let written =
        unsafe { libc::pwritev2(file.as_raw_fd(), &vector, 1, position, libc::RWF_DSYNC) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Allocates `bytes` bytes from the start of the file and sets its size (fallocate).
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: fallocate touches no memory of ours.
    check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) })
}

/// Where the bytes of a file lie on its block device: pairs of (position in the file, range of
/// bytes on the device), in file order, holes left out (FIEMAP, after a flush of the file).
pub fn extents(file: &File) -> io::Result<Vec<(u64, Range<u64>)>> {
    let mut found = Vec::new();
    let mut position = 0;
    loop {
        let mut map = ExtentMap {
            start: position,
            ..ExtentMap::default()
        };
        const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
        // SAFETY: the request reads and writes one `fiemap` with room for `count` extents, which
        // `ExtentMap` is, and which outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &mut map) })?;
        let mapped = &map.extents[..map.mapped as usize];
        for extent in mapped {
            found.push((
                extent.logical,
                extent.physical..extent.physical + extent.length,
            ));
        }
        match mapped.last() {
            Some(last) if last.flags & FIEMAP_EXTENT_LAST == 0 => {
                position = last.logical + last.length;
            }
            _ => return Ok(found),
        }
    }
}

const EXTENTS_MAX: usize = 64;
const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_LAST: u32 = 1;

/// `struct fiemap` with its trailing array.
#[repr(C)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS_MAX],
}

/// `struct fiemap_extent`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

const _: () = assert!(offset_of!(ExtentMap, extents) == 32 && size_of::<Extent>() == 56);

impl Default for ExtentMap {
    fn default() -> Self {
        Self {
            start: 0,
            length: u64::MAX,
            flags: FIEMAP_FLAG_SYNC,
            mapped: 0,
            count: EXTENTS_MAX as u32,
            reserved: 0,
            extents: [Extent::default(); EXTENTS_MAX],
        }
    }
}

/// The number of a loop device that nobody uses, made by the kernel if there is none. Another
/// process may take it first.
pub(crate) fn free_loop_number(control: &File) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Makes the node of loop device `number`: in a container whose /dev is not the kernel's own, a
/// device beyond those that were there at the start has none.
pub(crate) fn make_loop_node(path: &Path, number: u32) -> io::Result<()> {
    const LOOP_MAJOR: u32 = 7;
    let path = c_string(path.as_os_str())?;
    let device = libc::makedev(LOOP_MAJOR, number);
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, device) })
}

/// Puts `backing` under the loop device `device`, with direct I/O to it, until the last user of
/// the device closes it (autoclear).
///
/// # Errors
/// EBUSY if the device has been taken meanwhile; EINVAL if `backing` can't do direct I/O.
pub(crate) fn configure_loop(device: &File, backing: &File, block_bytes: u32) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const LO_FLAGS_DIRECT_IO: u32 = 16;
    let mut config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
        block_bytes,
        info: [0; 29],
        reserved: [0; 8],
    };
    // lo_number, lo_encrypt_type, lo_encrypt_key_size and lo_flags are the four u32 at byte 40.
    let flags = u64::from(LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO);
    config.info[6] = if cfg!(target_endian = "little") {
        flags << 32
    } else {
        flags
    };
    // SAFETY: the request reads one `loop_config`, which outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &config) })
}

/// `struct loop_config`; `info` is a `loop_info64`, of which only the flags differ from zero.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_bytes: u32,
    info: [u64; 29],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

fn c_string(text: &std::ffi::OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
