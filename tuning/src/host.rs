//! The one door to the machine: everything a check may ask of the kernel, as a trait, so that
//! every verdict can be tested against a staged machine as well as provoked on a real one.

use std::io;
use std::path::Path;

use serde::Serialize;

/// Access to the facts about a machine and the calling process.
pub trait Host {
    /// The text of a file below `/proc` or `/sys`.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The names in a directory below `/proc` or `/sys`.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// A resource limit of the calling process.
    fn limit(&self, kind: LimitKind) -> io::Result<Limit>;
    /// The number of CPUs that the calling process may run on.
    fn cpus(&self) -> usize;
    /// Builds a small ring and exercises on it what the shards rely on.
    fn probe_ring(&self) -> Result<RingFeatures, RingFailure>;
    /// Creates a file in `directory`, asks about it, and removes it.
    fn probe_directory(&self, directory: &Path) -> io::Result<DirectoryProbe>;
}

/// A resource that the kernel limits per process or user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// Bytes of memory that may be locked; rings and registered buffers count, over all processes
    /// of one user.
    Memlock,
    /// Number of open descriptors.
    Nofile,
}

/// A resource limit; `u64::MAX` stands for unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// How far the process itself may raise the soft limit.
    pub hard: u64,
}

/// What io_uring on this kernel offers, each proven by use where use is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RingFeatures {
    /// `IORING_SETUP_SINGLE_ISSUER` with `IORING_SETUP_DEFER_TASKRUN` (Linux 6.1).
    pub defer_taskrun: bool,
    /// `IORING_REGISTER_PBUF_RING`: provided buffers without a request each (5.19).
    pub buffer_ring: bool,
    /// Multishot receive into provided buffers (6.0).
    pub receive_multishot: bool,
    /// `IORING_OP_MSG_RING`: a wake-up from one ring to another (5.18).
    pub msg_ring: bool,
    /// `IORING_OP_SEND_ZC` (6.0).
    pub send_zero_copy: bool,
    /// `IORING_ENTER_NO_IOWAIT`: a parked shard isn't accounted as waiting for a disk (6.15).
    pub no_iowait: bool,
    /// Names of the plain operations that a shard needs and this kernel lacks.
    pub missing_operations: Vec<&'static str>,
}

/// Where the probe of io_uring stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingStep {
    /// `io_uring_setup`, or mapping the ring.
    Setup,
    /// `io_uring_register`.
    Register,
    /// `io_uring_enter`.
    Enter,
}

impl RingStep {
    /// The system call behind the step.
    pub fn system_call(self) -> &'static str {
        match self {
            Self::Setup => "io_uring_setup",
            Self::Register => "io_uring_register",
            Self::Enter => "io_uring_enter",
        }
    }
}

/// A ring that could not be had: the step and the kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFailure {
    /// Where it stopped.
    pub step: RingStep,
    /// The error number, as in `errno(3)`.
    pub errno: i32,
}

impl RingFailure {
    /// The failure behind `error`; an error without a number counts as `EIO`.
    pub fn new(step: RingStep, error: &io::Error) -> Self {
        Self {
            step,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// What the kernel says about a file created in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryProbe {
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file system's magic number, as `statfs(2)` has it.
    pub magic: u64,
    /// Whether the file can be read and written past the page cache.
    pub direct: DirectProbe,
}

/// What is known about direct I/O on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectProbe {
    /// `statx` names the alignments in bytes; both zero means that direct I/O is not supported.
    Stated {
        /// Alignment of the memory.
        memory: u32,
        /// Alignment of position and length.
        offset: u32,
    },
    /// `statx` doesn't say (`STATX_DIOALIGN` is from Linux 6.1, and not every file system fills
    /// it in); `opens` tells whether opening with `O_DIRECT` is at least not refused.
    Unstated {
        /// Whether the open was accepted.
        opens: bool,
    },
}
