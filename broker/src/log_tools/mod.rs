//! `ringway-broker log verify` and `log dump`: looking through a data directory that no broker
//! runs on. Every CRC, gap, epoch and chain; nothing is changed.
//!
//! Modules stand in the order of the data flow.

mod finding;
mod place;
mod segment_file;
mod walk;

mod marks;

mod audit;

mod dump;
mod verify;

pub use dump::{DumpOptions, dump};
pub use finding::Finding;
pub use place::{LogToolError, Selection};
pub use verify::{Verified, VerifyOptions, verify};

use std::time::Duration;

/// Tells people that something takes its time.
fn waiting(holder: &str, waited: Duration) {
    eprintln!(
        "waiting for the last writes of a broker that was killed (pid {holder}): {} s",
        waited.as_secs()
    );
}
