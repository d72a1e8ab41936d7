//! The cluster's metadata as a pure state machine: commands of a replicated log go in, deltas for
//! the shards come out, and each shard answers from the image that it builds of them.
//!
//! Data flows `Command` → [`Metadata`] → [`Delta`] → [`Image`] → [`route`].

mod units;

mod config;
mod topic;

mod command;
mod delta;
mod state;

mod image;
mod route;

pub use command::{COMMAND_VERSION, Command};
pub use config::{ConfigError, TopicConfig};
pub use delta::Delta;
pub use image::{Addresses, Image};
pub use route::{Route, route, shard_of};
pub use state::{Metadata, SNAPSHOT_VERSION, SnapshotError};
pub use topic::{Broker, Partition, PartitionEpoch, Topic};
pub use units::{UnitError, bytes, duration, nearest};
