//! The log as pure machines: what is in a segment, who wrote it, and what of it is still there
//! after a crash. Modules stand in the order of the data flow.

pub mod limits;

mod codec;
mod envelope;

mod epochs;
mod index;
mod producers;

mod checkpoint;
mod side;

pub use checkpoint::{Checkpoint, CheckpointEntry, Slot, Slots, merge};
pub use envelope::SavedError;
pub use epochs::{EpochNotNewer, EpochStart, Epochs};
pub use index::{IndexEntry, SparseIndex};
pub use producers::{Producers, Verdict};
pub use side::Side;
