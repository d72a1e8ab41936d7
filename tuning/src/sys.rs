//! The bare system calls behind the real host: limits, `statx`, and a small ring that exercises
//! what the shards rely on. The one file of this crate with `unsafe` code.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use crate::host::{
    DirectProbe, DirectoryProbe, Limit, LimitKind, RingFailure, RingFeatures, RingStep,
};

fn resource(kind: LimitKind) -> libc::__rlimit_resource_t {
    match kind {
        LimitKind::Memlock => libc::RLIMIT_MEMLOCK,
        LimitKind::Nofile => libc::RLIMIT_NOFILE,
    }
}

pub(crate) fn limit(kind: LimitKind) -> io::Result<Limit> {
    let mut raw = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `raw` is a live, writable rlimit for the length of the call.
    if unsafe { libc::getrlimit(resource(kind), &mut raw) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit {
        soft: raw.rlim_cur,
        hard: raw.rlim_max,
    })
}

pub(crate) fn set_soft_limit(kind: LimitKind, soft: u64) -> io::Result<()> {
    let raw = libc::rlimit {
        rlim_cur: soft,
        rlim_max: limit(kind)?.hard,
    };
    // SAFETY: `raw` is a live rlimit that the call only reads.
    if unsafe { libc::setrlimit(resource(kind), &raw) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The size of a page of memory, in bytes.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: takes a number and touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("every kernel has a page size")
}

/// Name of the probe file where the file system has no nameless ones; never seen elsewhere.
const PROBE_NAME: &str = ".ringway-preflight";

pub(crate) fn probe_directory(directory: &Path) -> io::Result<DirectoryProbe> {
    let file = nameless_file(directory)?;
    let status = statx(&file)?;
    let direct = if status.stx_mask & libc::STATX_DIOALIGN != 0 {
        DirectProbe::Stated {
            memory: status.stx_dio_mem_align,
            offset: status.stx_dio_offset_align,
        }
    } else {
        DirectProbe::Unstated {
            opens: accepts_direct(&file)?,
        }
    };
    Ok(DirectoryProbe {
        device: (status.stx_dev_major, status.stx_dev_minor),
        magic: file_system_magic(&file)?,
        direct,
    })
}

/// A file in `directory` that is gone when it is closed, however this process ends.
fn nameless_file(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nameless = options
        .clone()
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    match nameless {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let path = directory.join(format!("{PROBE_NAME}-{}", std::process::id()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

fn statx(file: &File) -> io::Result<libc::statx> {
    // SAFETY: `statx` is plain old data for which all-zero bytes are valid.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_BASIC_STATS | libc::STATX_DIOALIGN;
    // SAFETY: the descriptor is open, the path is an empty C string, `status` is live and writable.
    let code = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            mask,
            &mut status,
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}

fn file_system_magic(file: &File) -> io::Result<u64> {
    // SAFETY: `statfs` is plain old data for which all-zero bytes are valid.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `status` is live and writable.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.f_type as u64)
}

/// Whether the kernel lets an open file be switched to direct I/O, as it would with the open.
fn accepts_direct(file: &File) -> io::Result<bool> {
    // SAFETY: F_GETFL on an open descriptor touches no memory of ours.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: F_SETFL on an open descriptor touches no memory of ours.
    Ok(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) } == 0)
}

/// Entries of the probe's ring: enough for one request and its completions, a page or two.
const PROBE_ENTRIES: u32 = 4;

/// The plain operations of a shard, with their names in `io_uring_enter(2)`.
const OPERATIONS: [(u8, &str); 13] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::RecvMsg::CODE, "RECVMSG"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

pub(crate) fn probe_ring() -> Result<RingFeatures, RingFailure> {
    let failed = |step| move |error: io::Error| RingFailure::new(step, &error);
    let mut ring = IoUring::new(PROBE_ENTRIES).map_err(failed(RingStep::Setup))?;
    // Too old a kernel refuses unknown flags with EINVAL; the plain ring has proven all else.
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(PROBE_ENTRIES);
    let defer_taskrun = match deferred {
        Ok(better) => {
            ring = better;
            true
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
        Err(error) => return Err(RingFailure::new(RingStep::Setup, &error)),
    };
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(failed(RingStep::Register))?;
    push(&mut ring, &opcode::Nop::new().build());
    ring.submit_and_wait(1).map_err(failed(RingStep::Enter))?;
    ring.completion().for_each(drop);
    let (buffer_ring, receive_multishot) = probe_receive(&mut ring)?;
    Ok(RingFeatures {
        defer_taskrun,
        buffer_ring,
        receive_multishot,
        msg_ring: probe.is_supported(opcode::MsgRingData::CODE),
        send_zero_copy: probe.is_supported(opcode::SendZc::CODE),
        no_iowait: ring.params().is_feature_no_iowait(),
        missing_operations: OPERATIONS
            .iter()
            .filter(|(code, _)| !probe.is_supported(*code))
            .map(|&(_, name)| name)
            .collect(),
    })
}

/// Puts one request on a ring that has room; what it points at is the caller's to keep alive.
fn push(ring: &mut IoUring, request: &squeue::Entry) {
    // SAFETY: the two callers pass a no-op, which points at nothing, and a receive into provided
    // buffers, whose memory `probe_receive` keeps until the request has ended.
    let pushed = unsafe { ring.submission().push(request) };
    assert!(
        pushed.is_ok(),
        "the probe has at most one request on a ring of {PROBE_ENTRIES}"
    );
}

/// Anonymous pages, page-aligned as a buffer ring must be, zeroed.
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0");
        Ok(Self { start, bytes })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing refers into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Half of the probe's pages is the buffer ring, half the one buffer in it. 64 KiB is the largest
/// page size in use, so that the mapping holds a whole page wherever this runs.
const PROBE_PAGES_BYTES: usize = 1 << 16;
const PROBE_BUFFER_AT: usize = PROBE_PAGES_BYTES / 2;
const PROBE_GROUP: u16 = 0;

/// Whether a buffer ring can be registered, and whether a multishot receive delivers into it.
fn probe_receive(ring: &mut IoUring) -> Result<(bool, bool), RingFailure> {
    let failed = |error: io::Error| RingFailure::new(RingStep::Register, &error);
    let pages = Pages::new(PROBE_PAGES_BYTES).map_err(failed)?;
    let address = pages.start.as_ptr() as u64;
    // SAFETY: the pages outlive the registration, which is undone below before they are unmapped.
    let registered = unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(address, 1, PROBE_GROUP, 0)
    };
    match registered {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok((false, false)),
        Err(error) => return Err(failed(error)),
    }
    offer_buffer(&pages);
    let delivered = UnixStream::pair().and_then(|(receiver, mut sender)| {
        sender.write_all(&[1])?;
        drop(sender);
        receive_once(ring, receiver.as_raw_fd())
    });
    // The request has ended (its last completion was reaped): nothing writes to the pages now.
    ring.submitter()
        .unregister_buf_ring(PROBE_GROUP)
        .map_err(failed)?;
    let delivered = delivered.map_err(|error| RingFailure::new(RingStep::Enter, &error))?;
    Ok((true, delivered))
}

/// Puts the one buffer into the ring at the start of `pages` and publishes it.
fn offer_buffer(pages: &Pages) {
    let entries: *mut BufRingEntry = pages.start.as_ptr().cast();
    // SAFETY: the mapping is page-aligned, zeroed and larger than an entry; the kernel doesn't
    // look at an entry before the tail says so.
    let entry = unsafe { &mut *entries };
    entry.set_addr(pages.start.as_ptr() as u64 + PROBE_BUFFER_AT as u64);
    entry.set_len((PROBE_PAGES_BYTES - PROBE_BUFFER_AT) as u32);
    entry.set_bid(0);
    // SAFETY: `entries` is the start of a registered buffer ring; the tail is an aligned u16 in
    // it that only this thread writes, and the kernel reads it atomically.
    let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
    tail.store(1, Ordering::Release);
}

/// Receives on a socket that holds one byte and whose other end is closed: on a kernel with
/// multishot the byte arrives with MORE, and then the request ends (no buffer is left).
fn receive_once(ring: &mut IoUring, socket: RawFd) -> io::Result<bool> {
    push(
        ring,
        &opcode::RecvMulti::new(Fd(socket), PROBE_GROUP).build(),
    );
    let mut delivered = false;
    loop {
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let more = cqueue::more(completion.flags());
            delivered |= completion.result() == 1 && more;
            if !more {
                return Ok(delivered);
            }
        }
    }
}
