//! Host checks for Ringway: what a machine should look like, and how to get it there.
//! One list of checks with two callers: the broker asks for the verdict before it opens anything,
//! the tuner for the same list in full. Facts come through [`Host`]; the verdicts are pure.
//!
//! ```no_run
//! use ringway_tuning::{LinuxHost, Requirements, Severity, preflight, raise_limits};
//!
//! raise_limits()?;
//! let need = Requirements {
//!     shards: 4,
//!     rings: 9,
//!     memlock_bytes: 4 << 20,
//!     nofile: 1024,
//!     nofile_advised: 16_384,
//!     data_dir: "ringway-data".into(),
//!     block_bytes: 4096,
//!     sync_scope: None,
//! };
//! let report = preflight(&need, &LinuxHost);
//! for finding in report.at_least(Severity::Warning) {
//!     eprintln!("{finding}");
//! }
//! let may_start = report.worst() < Severity::Fatal;
//! # let _ = may_start;
//! # Ok::<(), std::io::Error>(())
//! ```

mod finding;
mod host;
mod linux;
mod mounts;
mod preflight;
mod process;
mod ring;
mod staged;
mod storage;
mod sys;

pub use finding::{Finding, Severity};
pub use host::{
    DirectProbe, DirectoryProbe, Host, Limit, LimitKind, RingFailure, RingFeatures, RingStep,
};
pub use linux::{LinuxHost, raise_limits};
pub use preflight::{Report, Requirements, preflight};
pub use ring::{explain_ring_failure, ring_memlock_bytes};
pub use staged::StagedHost;
pub use storage::{
    Device, DirectIo, FileSystem, Journal, Storage, StorageError, SyncScope, storage,
};
