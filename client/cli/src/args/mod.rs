//! The command line as types. What parses here makes sense; the help of every command ends with
//! examples.

mod consume;
mod produce;
mod top;
mod topic;
mod value;

pub(crate) use consume::{ConsumeArgs, StartFrom};
pub(crate) use produce::{InputShape, ProduceArgs};
pub(crate) use top::TopArgs;
pub(crate) use topic::{
    AddPartitionsArgs, AlterArgs, Before, CreateArgs, TopicArgs, TopicCommand, TrimArgs,
};
pub(crate) use value::{KeyValue, unescape};

use clap::{Args, Parser, Subcommand, ValueEnum};

const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 environment (no broker, no input), 4 no such topic or
partition, 5 refused by the broker. A closed pipe ends a command quietly, with 0.

Examples:
  ringway topic create orders --partitions 4
  seq 1 1000 | ringway produce orders
  ringway consume orders --until-end
  ringway --broker 10.0.0.7:7420 offsets orders
  ringway top";

/// Talks to a Ringway broker: topics, producing, consuming.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, max_term_width = 100, after_help = AFTER)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
pub(crate) struct GlobalArgs {
    /// Brokers to ask first, comma-separated; the others are found through them
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "HOST:PORT[,…]",
        env = "RINGWAY_BROKER",
        default_value = "127.0.0.1:7420"
    )]
    pub(crate) broker: String,
    /// How results are written to standard output
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) output: OutputFormat,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Text,
    /// One JSON object; errors are one on standard error; `consume` writes one a record
    Json,
}

impl GlobalArgs {
    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == OutputFormat::Json
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe, alter, grow, trim and delete topics
    Topic(TopicArgs),
    /// Send standard input as records
    #[command(long_about = produce::LONG_ABOUT)]
    Produce(ProduceArgs),
    /// Write records to standard output
    #[command(long_about = consume::LONG_ABOUT)]
    Consume(ConsumeArgs),
    /// Show where the partitions of a topic start and end
    #[command(long_about = OFFSETS_ABOUT)]
    Offsets(OffsetsArgs),
    /// Show what a broker is doing: shards, hot partitions, where time goes
    #[command(long_about = top::LONG_ABOUT)]
    Top(TopArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// The help that `offsets --help` adds.
const OFFSETS_ABOUT: &str = "Show where the partitions of a topic start and end.

One line a partition: the offset of the first record still there, the offset after the last one
that consumers may see (the high watermark), how many records lie between them, and how many bytes
they take on the leader's disk.";

/// `ringway offsets`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway offsets orders
  ringway --output json offsets orders")]
pub(crate) struct OffsetsArgs {
    /// The topic
    pub(crate) topic: String,
}

/// `ringway completions`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway completions bash > ~/.local/share/bash-completion/completions/ringway
  ringway completions zsh > ~/.zfunc/_ringway")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests;
