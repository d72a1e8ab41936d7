//! A shard's io_uring. Whatever an operation points at is owned by the ring until its completion,
//! so nothing else in the broker can free memory that the kernel still writes to or reads from.
//!
//! One `io_uring_enter` a turn: submissions wait in the queue until [`Ring::enter`].

mod memory;
mod receive_buffers;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};
use ringway_engine::buffer::{Block, Slice};

pub(crate) use memory::{Memory, Message, Piece};
use receive_buffers::GROUP;
pub(crate) use receive_buffers::{ReceiveBuffers, Received};

/// Submissions that fit the queue before the kernel must be entered, each 64 bytes.
const SUBMISSIONS_MAX: u32 = 512;
/// Completions that fit the queue; more wait in the kernel, and none is lost. Each 16 bytes.
const COMPLETIONS_MAX: u32 = 4096;
/// Parts of one vectored write or send (the kernel's IOV_MAX).
pub(crate) const PARTS_MAX: usize = 1024;
/// How long a ring that is dropped waits for operations to end before it leaks their memory.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// What a ring is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig<'a> {
    /// Registered with the ring, so that it stays locked until the last write has ended, even
    /// when the process is killed.
    pub(crate) lock: Option<BorrowedFd<'a>>,
    /// The CPUs that the kernel's worker threads of this ring may use; any, if empty.
    pub(crate) worker_cpus: &'a [usize],
    /// Worker threads of the kernel at most: for files, and for all else.
    pub(crate) workers_max: [u32; 2],
    /// Whether to wait without being counted as waiting for a disk, where the kernel can.
    pub(crate) no_iowait: bool,
}

impl Default for RingConfig<'_> {
    fn default() -> Self {
        Self {
            lock: None,
            worker_cpus: &[],
            workers_max: [8, 4],
            no_iowait: true,
        }
    }
}

/// Why a ring can't be had, and at which system call.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed: {source}")]
pub struct RingError {
    /// The system call.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl RingError {
    fn at(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { call, source }
    }
}

/// Which part of the shard an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The bell that other threads ring to wake the shard.
    Wake,
    /// Accepting connections; the id says on which listener.
    Accept,
    /// Receiving; the id is the connection.
    Receive,
    /// Sending; the id is the connection.
    Send,
    /// Opening; the id is the segment file.
    Open,
    /// A disk operation; the id is the engine's.
    Disk,
    /// A cancellation, which nobody waits for.
    Cancel,
}

/// Who started an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) role: Role,
    pub(crate) id: u64,
}

/// Names an operation in flight; never used again while it could be mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    const fn user_data(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    const fn from_user_data(user_data: u64) -> Self {
        Self {
            slot: user_data as u32,
            generation: (user_data >> 32) as u32,
        }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    operation: Option<(Owner, Memory)>,
}

/// One completion.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) owner: Owner,
    /// Bytes, or what the kernel said.
    pub(crate) result: io::Result<u32>,
    /// Whether the operation goes on and completes again.
    pub(crate) more: bool,
    /// The received bytes. To be given back in the same turn.
    pub(crate) received: Option<Received>,
    /// The descriptor that was accepted or opened.
    pub(crate) descriptor: Option<OwnedFd>,
    /// What the operation had; nothing while it goes on.
    pub(crate) memory: Memory,
}

/// What the ring has done so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Operations started.
    pub submissions: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Operations that the kernel always hands to a worker thread (syncs).
    pub punts: u64,
    /// Completions that the kernel had no room for.
    pub overflows: u64,
    /// Receives that ended because no provided buffer was left.
    pub buffers_exhausted: u64,
}

/// Rings are made one at a time, so that whoever looks for a ring that it made itself in
/// `/proc/self/fd` sees none that is half made.
pub(crate) static MAKING: Mutex<()> = Mutex::new(());

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    ring: RawRing,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    wait_flags: EnterFlags,
    buffers: Option<ReceiveBuffers>,
    counters: RingCounters,
}

struct RawRing(IoUring);

impl std::fmt::Debug for RawRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoUring({})", self.0.as_raw_fd())
    }
}

impl Ring {
    /// A ring that belongs to the calling thread.
    ///
    /// # Errors
    /// [`RingError`] names the call that was refused.
    pub(crate) fn new(config: &RingConfig<'_>) -> Result<Self, RingError> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = build()?;
        let at_register = RingError::at("io_uring_register");
        let submitter = ring.submitter();
        if let Some(lock) = config.lock {
            let descriptors = [lock.as_raw_fd()];
            submitter
                .register_files(&descriptors)
                .map_err(&at_register)?;
        }
        submitter
            .register_iowq_max_workers(&mut config.workers_max.clone())
            .map_err(&at_register)?;
        if !config.worker_cpus.is_empty() {
            let cpus = crate::sys::cpu_set(config.worker_cpus);
            submitter.register_iowq_aff(&cpus).map_err(&at_register)?;
        }
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if config.no_iowait && ring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self {
            ring: RawRing(ring),
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            wait_flags,
            buffers: None,
            counters: RingCounters::default(),
        })
    }

    /// Provides memory for [`Ring::receive`].
    ///
    /// # Errors
    /// [`RingError`] if the kernel refuses to register it.
    pub(crate) fn provide_receive_buffers(&mut self) -> Result<(), RingError> {
        let buffers = ReceiveBuffers::register(&self.ring.0.submitter())
            .map_err(RingError::at("io_uring_register"))?;
        self.buffers = Some(buffers);
        Ok(())
    }

    pub(crate) fn counters(&mut self) -> RingCounters {
        RingCounters {
            overflows: self.ring.0.completion().overflow().into(),
            ..self.counters
        }
    }

    /// Operations that have not ended.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Completes whenever somebody rings, until it is cancelled. The bell's counter is never read:
    /// each ring completes once, whatever the counter says.
    pub(crate) fn listen_to_bell(&mut self, owner: Owner, bell: RawFd) -> Key {
        let entry = opcode::PollAdd::new(Fd(bell), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.start(owner, Memory::None, entry)
    }

    /// Accepts connections until it is cancelled or fails.
    pub(crate) fn accept(&mut self, owner: Owner, listener: RawFd) -> Key {
        let entry = opcode::AcceptMulti::new(Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.start(owner, Memory::None, entry)
    }

    /// Receives into the provided buffers until it is cancelled, the peer closes or no buffer is
    /// left.
    ///
    /// # Panics
    /// Without provided buffers.
    pub(crate) fn receive(&mut self, owner: Owner, socket: RawFd) -> Key {
        assert!(self.buffers.is_some(), "receives need provided buffers");
        let entry = opcode::RecvMulti::new(Fd(socket), GROUP).build();
        self.start(owner, Memory::None, entry)
    }

    /// Sends the message's pieces, at most [`PARTS_MAX`] of them, but for the bytes that it says
    /// are sent already. Completes when all are sent or the socket fails.
    pub(crate) fn send(&mut self, owner: Owner, socket: RawFd, mut message: Box<Message>) -> Key {
        let header = message.prepare();
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(Fd(socket), header)
            .flags(flags)
            .build();
        self.start(owner, Memory::Message(message), entry)
    }

    /// Writes the parts, at most [`PARTS_MAX`] of them, at a position of a file; with `durable`,
    /// on stable storage when it completes.
    pub(crate) fn write(
        &mut self,
        owner: Owner,
        file: RawFd,
        position: u64,
        parts: Vec<Slice>,
        durable: bool,
    ) -> Key {
        let vectors = memory::vectors(&parts);
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Writev::new(Fd(file), vectors.as_ptr(), vectors.len() as u32)
            .offset(position)
            .rw_flags(flags)
            .build();
        self.start(
            owner,
            Memory::Parts {
                parts,
                _vectors: vectors,
            },
            entry,
        )
    }

    /// Reads `bytes` from a position of a file into the buffer from `skip` on.
    ///
    /// # Panics
    /// When they don't fit the buffer.
    pub(crate) fn read(
        &mut self,
        owner: Owner,
        file: RawFd,
        position: u64,
        mut buffer: Block,
        (skip, bytes): (usize, usize),
    ) -> Key {
        let target = buffer[skip..skip + bytes].as_mut_ptr();
        let length = u32::try_from(bytes).expect("a read's length has 32 bits");
        let entry = opcode::Read::new(Fd(file), target, length)
            .offset(position)
            .build();
        self.start(owner, Memory::Block(buffer), entry)
    }

    /// Makes a file's data durable, with as much metadata as reading it back needs.
    pub(crate) fn sync(&mut self, owner: Owner, file: RawFd) -> Key {
        self.counters.punts += 1;
        let entry = opcode::Fsync::new(Fd(file))
            .flags(FsyncFlags::DATASYNC)
            .build();
        self.start(owner, Memory::None, entry)
    }

    /// Opens a file for reading and writing past the page cache.
    pub(crate) fn open_direct(&mut self, owner: Owner, path: CString) -> Key {
        let flags = libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC;
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(flags)
            .build();
        self.start(owner, Memory::Path { _path: path }, entry)
    }

    /// Asks for the end of an operation. It completes as cancelled, or as what it became.
    pub(crate) fn cancel(&mut self, key: Key) {
        let owner = Owner {
            role: Role::Cancel,
            id: 0,
        };
        let entry = opcode::AsyncCancel::new(key.user_data()).build();
        self.start(owner, Memory::None, entry);
    }

    fn start(&mut self, owner: Owner, memory: Memory, entry: Entry) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                operation: None,
            });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.operation = Some((owner, memory));
        let key = Key {
            slot,
            generation: place.generation,
        };
        self.in_flight += 1;
        self.counters.submissions += 1;
        let entry = entry.user_data(key.user_data());
        loop {
            // SAFETY: what the entry points at is owned by the slot, at an address that doesn't
            // change when the slot moves (boxes, vectors, blocks, slices), until the completion.
            if unsafe { self.ring.0.submission().push(&entry) }.is_ok() {
                return key;
            }
            // The queue is full in the middle of a turn: this turn enters the kernel twice.
            self.counters.enters += 1;
            let submitted = self.ring.0.submit();
            assert!(
                submitted.is_ok() || is_passing(&submitted),
                "the ring is usable: {submitted:?}"
            );
        }
    }

    /// Submits what is queued; with `wait`, until something completes or that time is over.
    ///
    /// # Errors
    /// What the kernel says if the ring itself is of no use any more.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let (submitter, mut submissions, completions) = self.ring.0.split();
        submissions.sync();
        let queued = submissions.len() as u32;
        let due = submissions.taskrun() || submissions.cq_overflow();
        let wanted = u32::from(wait != Wait::No && completions.is_empty());
        if queued == 0 && !due && wanted == 0 {
            return Ok(());
        }
        drop((submissions, completions));
        let time = match wait {
            Wait::AtMost(time) => Some(Timespec::from(time)),
            _ => None,
        };
        let mut args = SubmitArgs::new();
        if let (Some(time), 1) = (&time, wanted) {
            args = args.timespec(time);
        }
        self.counters.enters += 1;
        // SAFETY: the flags say that the argument is an extended one, and `args` and the time that
        // it points at live until the call returns.
        let entered =
            unsafe { submitter.enter(queued, wanted, self.wait_flags.bits(), Some(&args)) };
        match entered {
            Err(error) if !passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves the completions that are there to the end of `completions`.
    pub(crate) fn reap(&mut self, completions: &mut Vec<Completion>) {
        let Self {
            ring,
            slots,
            free,
            in_flight,
            counters,
            buffers,
            ..
        } = self;
        for entry in ring.0.completion() {
            counters.completions += 1;
            let key = Key::from_user_data(entry.user_data());
            let slot = &mut slots[key.slot as usize];
            assert_eq!(
                slot.generation, key.generation,
                "a completion is of an operation in flight"
            );
            let more = cqueue::more(entry.flags());
            let (owner, memory) = if more {
                let (owner, _) = slot.operation.as_ref().expect("an operation is in flight");
                (*owner, Memory::None)
            } else {
                slot.generation = slot.generation.wrapping_add(1);
                free.push(key.slot);
                *in_flight -= 1;
                slot.operation.take().expect("an operation is in flight")
            };
            let result = match u32::try_from(entry.result()) {
                Ok(value) => Ok(value),
                Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            };
            if entry.result() == -libc::ENOBUFS && owner.role == Role::Receive {
                counters.buffers_exhausted += 1;
            }
            let received = buffers.as_mut().and_then(|buffers| buffers.claim(&entry));
            completions.push(Completion {
                owner,
                received,
                more,
                descriptor: descriptor_of(owner.role, &result),
                result,
                memory,
            });
        }
    }

    /// Received bytes.
    ///
    /// # Panics
    /// Without provided buffers.
    pub(crate) fn received(&self, received: &Received) -> &[u8] {
        let buffers = self.buffers.as_ref();
        buffers
            .expect("received bytes come from provided buffers")
            .bytes(received)
    }

    /// Gives the memory of received bytes back to the kernel.
    ///
    /// # Panics
    /// Without provided buffers.
    pub(crate) fn give_back(&mut self, received: Received) {
        let buffers = self.buffers.as_mut();
        buffers
            .expect("received bytes come from provided buffers")
            .give_back(received);
    }

    /// Cancels what is in flight and reaps until nothing is, so that the memory of all operations
    /// can be freed. False when something didn't end within `time_max`.
    pub(crate) fn close(&mut self, time_max: Duration) -> bool {
        let end = Instant::now() + time_max;
        let mut completions = Vec::new();
        let _ = self.enter(Wait::No);
        // A ring whose operations have all ended has nothing to cancel (ENOENT).
        let _ = self
            .ring
            .0
            .submitter()
            .register_sync_cancel(None, CancelBuilder::any());
        while self.in_flight > 0 {
            if Instant::now() >= end || self.enter(Wait::AtMost(Duration::from_millis(20))).is_err()
            {
                return false;
            }
            self.reap(&mut completions);
            completions.clear();
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.close(CLOSE_TIME_MAX) {
            // The kernel takes its time to free a ring; the lock is let go at once.
            let _ = self.ring.0.submitter().unregister_files();
            return;
        }
        // Operations that don't end may still write: their memory is given up, never freed.
        std::mem::forget(std::mem::take(&mut self.slots));
        std::mem::forget(self.buffers.take());
    }
}

/// How long [`Ring::enter`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until something completes.
    Forever,
    /// Until something completes or so much time is over.
    AtMost(Duration),
}

fn build() -> Result<IoUring, RingError> {
    let at_setup = RingError::at("io_uring_setup");
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(COMPLETIONS_MAX)
        .setup_submit_all()
        .dontfork();
    let mut deferred = builder.clone();
    deferred
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    match deferred.build(SUBMISSIONS_MAX) {
        // Kernels before 6.1: completions may then interrupt the thread, all else is the same.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder.build(SUBMISSIONS_MAX).map_err(at_setup)
        }
        built => built.map_err(at_setup),
    }
}

/// Whether the kernel only says that there is nothing yet: time over, a signal, or completions to
/// be reaped first.
fn passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    error
        .raw_os_error()
        .is_some_and(|number| passing.contains(&number))
}

fn is_passing(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(passing)
}

fn descriptor_of(role: Role, result: &io::Result<u32>) -> Option<OwnedFd> {
    let value = *result.as_ref().ok()?;
    matches!(role, Role::Accept | Role::Open).then(|| {
        // SAFETY: accepting and opening complete with a new descriptor that nobody else has.
        unsafe { OwnedFd::from_raw_fd(value as RawFd) }
    })
}

#[cfg(test)]
mod tests;
