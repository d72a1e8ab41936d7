//! The log as pure machines: what is in a segment, who wrote it, and what of it is still there
//! after a crash. Modules stand in the order of the data flow.

pub mod limits;

mod codec;

mod epochs;
mod index;
mod producers;

pub use epochs::{EpochNotNewer, EpochStart, Epochs};
pub use index::{IndexEntry, SparseIndex};
pub use producers::{Producers, Verdict};
