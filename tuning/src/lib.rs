//! Host checks for Ringway: what a machine should look like, and how to get it there.
//! One list of checks with two callers: the broker asks for the verdict before it opens anything,
//! the tuner for the same list in full. Facts come through [`Host`]; the verdicts are pure.

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
