//! `ringway topic …`.

use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::args::value::{KeyValue, key_value, time_us};

/// `ringway topic`
#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ringway topic create orders --partitions 4
  ringway topic list
  ringway topic describe orders
  ringway topic alter orders --config retention_ms=86400000
  ringway topic add-partitions orders --to 8
  ringway topic trim orders --partition 0 --before 1000
  ringway topic delete orders"
)]
pub(crate) struct TopicArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TopicCommand,
}

/// The topic commands.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    #[command(long_about = CREATE_ABOUT)]
    Create(CreateArgs),
    /// List the topics
    #[command(after_help = "\
Examples:
  ringway topic list
  ringway --output json topic list")]
    List,
    /// Show a topic's configuration, its partitions and who leads them
    #[command(after_help = "\
Examples:
  ringway topic describe orders
  ringway --output json topic describe orders")]
    Describe(NameArgs),
    /// Delete a topic with all its records
    #[command(after_help = "\
Examples:
  ringway topic delete orders")]
    Delete(NameArgs),
    /// Change a topic's configuration
    #[command(long_about = ALTER_ABOUT)]
    Alter(AlterArgs),
    /// Add partitions to a topic
    #[command(long_about = ADD_PARTITIONS_ABOUT)]
    AddPartitions(AddPartitionsArgs),
    /// Remove the oldest records of a partition
    #[command(long_about = TRIM_ABOUT)]
    Trim(TrimArgs),
}

/// The help that `--help` adds.
const CREATE_ABOUT: &str = "Create a topic.

Names match [A-Za-z0-9._-]{1,249}. Configuration keys: durability (fsync, memory), retention_ms,
retention_bytes, segment_bytes, record_bytes_max, min_in_sync, codec, timestamp (producer, append).
What isn't given has its default; `ringway topic describe` shows the values in force.";

/// `ringway topic create`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway topic create orders --partitions 4
  ringway topic create ticks --partitions 8 --config durability=memory --config retention_ms=3600000")]
pub(crate) struct CreateArgs {
    /// The new topic's name
    pub(crate) name: String,
    /// How many partitions it has
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: u32,
    /// A key of its configuration that differs from the default; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) config: Vec<KeyValue>,
}

/// The commands that take only a name.
#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// The topic
    pub(crate) name: String,
}

/// The help that `--help` adds.
const ALTER_ABOUT: &str = "Change a topic's configuration.

An empty value (KEY=) goes back to the default. Keys that aren't named keep their values.";

/// `ringway topic alter`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway topic alter orders --config retention_ms=86400000
  ringway topic alter orders --config retention_ms= --config segment_bytes=67108864")]
pub(crate) struct AlterArgs {
    /// The topic
    pub(crate) name: String,
    /// A key and its new value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", required = true, value_parser = key_value)]
    pub(crate) config: Vec<KeyValue>,
}

/// The help that `--help` adds.
const ADD_PARTITIONS_ABOUT: &str = "Add partitions to a topic.

Producers use the new partitions from their next request. A key moves to a new partition or stays
where it is: as few move as can be, and the records that are there stay where they are. Partitions
are never taken away.";

/// `ringway topic add-partitions`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway topic add-partitions orders --to 8")]
pub(crate) struct AddPartitionsArgs {
    /// The topic
    pub(crate) name: String,
    /// How many partitions it shall have; more than now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) to: u32,
}

/// The help that `--help` adds.
const TRIM_ABOUT: &str = "Remove the oldest records of a partition.

They are gone for consumers at once and for good; their space on disk is freed segment by segment.
A place before the first record that is there changes nothing.";

/// `ringway topic trim`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway topic trim orders --partition 0 --before 1000
  ringway topic trim orders --partition 3 --before @1700000000000")]
pub(crate) struct TrimArgs {
    /// The topic
    pub(crate) name: String,
    /// The partition
    #[arg(long, value_name = "P")]
    pub(crate) partition: u32,
    /// The first offset that stays, at most the end of the log; or @MS: the first record appended
    /// at or after that many milliseconds since 1970 stays
    #[arg(long, value_name = "OFFSET|@UNIX_MS")]
    pub(crate) before: Before,
}

/// Where the records that stay begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// At this offset.
    Offset(u64),
    /// At the first record appended at or after this time, in microseconds since 1970.
    TimeUs(i64),
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let before = match text.strip_prefix('@') {
            Some(ms) => time_us(ms).map(Self::TimeUs),
            None => text.parse().ok().map(Self::Offset),
        };
        before.ok_or_else(|| "it is an offset like 42, or a time like @1700000000000".to_owned())
    }
}
