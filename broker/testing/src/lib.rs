//! Crash tests for Ringway. Everything here is for tests alone: a disk whose power can be cut,
//! throw-away file systems on loop devices, the broker as a child process, and the checks that let
//! a test skip itself aloud where the machine can't run it.
//!
//! A crash test with all of it:
//!
//! ```no_run
//! use std::time::Duration;
//! use ringway_testing::{BrokerOptions, DiskOptions, Faults, Need, PowerCutDisk, Scratch, require};
//!
//! # fn env(_: &str) -> &'static str { "" }
//! fn acknowledged_records_survive_a_power_cut() {
//!     if !require(&[Need::Mounts, Need::Fuse, Need::Loop, Need::MkfsXfs]) {
//!         return;
//!     }
//!     // In a test: env!("CARGO_TARGET_TMPDIR") and env!("CARGO_BIN_EXE_ringway-broker").
//!     let scratch = Scratch::new(env("CARGO_TARGET_TMPDIR"), "power-cut").unwrap();
//!     let mut disk = PowerCutDisk::new(&scratch, DiskOptions::xfs()).unwrap();
//!     let options = BrokerOptions::new(env("CARGO_BIN_EXE_ringway-broker"), &scratch)
//!         .data_dir(disk.path().join("data"));
//!     let mut broker = options.start().unwrap();
//!     // Without delays few cuts come between a write and its sync.
//!     let delay = Duration::ZERO..Duration::from_millis(2);
//!     disk.inject(Faults { write_delay: delay.clone(), sync_delay: delay, ..Faults::default() });
//!     // … produce, and note what was acknowledged …
//!     let report = disk.power_off(42); // from here on nothing can be acknowledged
//!     broker.kill().unwrap();
//!     disk.power_on().unwrap();
//!     broker = options.start().unwrap();
//!     // … consume, and compare; over all cuts, check that some hit anything …
//!     println!("{report}");
//!     assert!(disk.counters().dropped_sectors > 0);
//! }
//! ```
//!
//! Values that use a [`Scratch`] directory keep it alive, so the order of dropping doesn't matter,
//! but a broker must be declared after the disk it runs on, so that it is killed first.

mod broker_process;
mod failure;
mod file_system;
mod loop_device;
mod loop_fs;
mod need;
mod observe;
mod power_cut;
mod random;
mod scratch;
mod sweep;
pub mod sys;

pub use broker_process::{BrokerOptions, BrokerProcess, StartError};
pub use file_system::FileSystem;
pub use loop_fs::{LoopFs, LoopFsOptions};
pub use need::{Need, require};
pub use observe::{metric, page, proc_number, states, variable};
pub use power_cut::{Counters, CutReport, DiskError, DiskOptions, Faults, PowerCutDisk};
pub use random::Random;
pub use scratch::Scratch;
