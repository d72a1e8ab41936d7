//! The system calls that std doesn't have and that don't go through a ring. Each is a safe function
//! that names what it did when it fails.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Gives a file its length and blocks on the disk, unwritten.
pub(crate) fn allocate(file: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    fallocate(file, 0, bytes)
}

/// Gives a file its length and blocks that the device itself has zeroed, so that writing to them
/// changes no metadata. `Unsupported` where kernel, file system or device can't.
pub(crate) fn allocate_zeroed(file: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    /// From Linux 6.17 on; libc doesn't name it yet.
    const FALLOC_FL_WRITE_ZEROES: libc::c_int = 0x80;
    fallocate(file, FALLOC_FL_WRITE_ZEROES, bytes)
}

fn fallocate(file: BorrowedFd<'_>, mode: libc::c_int, bytes: u64) -> io::Result<()> {
    let bytes = libc::off64_t::try_from(bytes).map_err(io::Error::other)?;
    loop {
        // SAFETY: the call takes no pointers.
        match check(unsafe { libc::fallocate64(file.as_raw_fd(), mode, 0, bytes) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Where the first hole or unwritten block of a file is; its length if there is none. Leaves the
/// file's own position anywhere.
pub(crate) fn first_hole(file: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the call takes no pointers.
    let position = unsafe { libc::lseek64(file.as_raw_fd(), 0, libc::SEEK_HOLE) };
    u64::try_from(position).map_err(|_| io::Error::last_os_error())
}

/// Bytes of the file system that a file is on, all and free for this user.
pub(crate) fn space(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: the structure is plain integers; zeros are valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of the right type that outlives the call.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut stat) })?;
    let block = stat.f_frsize as u64;
    Ok((stat.f_blocks as u64 * block, stat.f_bavail as u64 * block))
}

/// What a shard asks of a client's connection: no delay of small replies, and an end when the
/// peer takes nothing for `unacknowledged_max` or doesn't answer probes while idle.
pub(crate) fn prepare_connection(
    socket: BorrowedFd<'_>,
    unacknowledged_max: Duration,
) -> io::Result<()> {
    let millis = unacknowledged_max
        .as_millis()
        .try_into()
        .unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10)
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let pointer = (&raw const value).cast();
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an integer of that length that outlives the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, length) }).map(drop)
}

/// Ends both directions of a connection, or only the sending one; its operations in flight then
/// end too.
pub(crate) fn shut_down(socket: BorrowedFd<'_>, sending_only: bool) {
    let how = if sending_only {
        libc::SHUT_WR
    } else {
        libc::SHUT_RDWR
    };
    // SAFETY: the call takes no pointers. It fails only where the connection is gone already.
    unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}

/// Registers a file with a ring of another library, by its descriptor.
pub(crate) fn register_file(ring: RawFd, file: BorrowedFd<'_>) -> io::Result<()> {
    const IORING_REGISTER_FILES: libc::c_uint = 2;
    let descriptor = file.as_raw_fd();
    let number = libc::SYS_io_uring_register;
    // SAFETY: the pointer is to one descriptor that outlives the call.
    match unsafe {
        libc::syscall(
            number,
            ring,
            IORING_REGISTER_FILES,
            &raw const descriptor,
            1,
        )
    } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Binds the calling thread, and those that it starts from now on, to some CPUs.
pub(crate) fn bind_to_cpus(cpus: &[usize]) -> io::Result<()> {
    let set = cpu_set(cpus);
    // SAFETY: the pointer is to a set of that size that outlives the call; 0 is this thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .map(drop)
}

/// CPUs as the kernel takes them. Numbers beyond the largest possible are left out.
pub(crate) fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a set of CPUs is plain bits; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number lies inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}
