//! A shard: partitions with one owner, fed with events, asked for effects.

mod event;

pub use event::{Effect, Event, FoundFile, Note, PartitionConfig, Token};
