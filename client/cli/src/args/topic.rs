//! `ringway topic …`.

use clap::{Args, Subcommand};

use crate::args::value::{KeyValue, key_value};

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
