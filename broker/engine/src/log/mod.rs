//! The log as pure machines: what is in a segment, who wrote it, and what of it is still there
//! after a crash. Modules stand in the order of the data flow.

pub mod ladder;
pub mod limits;

mod codec;
mod envelope;

mod epochs;
mod index;
mod producers;

mod checkpoint;
mod side;

mod chain;
mod scan;

mod recovery;
mod rescan;

pub use chain::{Chain, Refusal};
pub use checkpoint::{
    Assembly, Checkpoint, CheckpointEntry, EncodedEntry, EntryFields, Slot, Slots, merge,
};
pub use envelope::SavedError;
pub use epochs::{EpochNotNewer, EpochStart, Epochs};
pub use index::{IndexEntry, SparseIndex};
pub use producers::{Producers, Verdict};
pub use recovery::{
    Active, Cut, Damage, Found, FoundSegment, Recovered, Recovery, SealedSegment, SideFile, Step,
};
pub use rescan::{Rescan, RescanStep, SegmentDamaged};
pub use scan::ReadFailed;
pub use side::Side;
