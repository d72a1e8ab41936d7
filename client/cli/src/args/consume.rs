//! `ringway consume …`.

use std::str::FromStr;

use clap::Args;

use crate::args::value::{ProfileArg, time_us};
use crate::format::Format;

/// The help that `--help` adds.
pub(super) const LONG_ABOUT: &str = "Write records to standard output.

Starts at the first record of every partition and follows the topic until Ctrl-C, which ends with a
summary on standard error and exit code 0. Order is kept within a partition.

--format is a template, or one of two words:
  %p partition   %o offset      %t timestamp in milliseconds since 1970
  %k key         %v value       %h headers as name=value,name=value
  %g tag         %s size of the record in bytes (value, key, headers and tag)
  %% a percent sign;  \\n \\t \\r \\0 \\xHH \\\\ as usual; a part that is absent writes nothing
  json  one object a line: topic, partition, offset, timestamp_ms, key, value, headers, tag, size;
        what is not UTF-8 stands in key_base64 or value_base64 (value_base64 within headers)
        instead; what is absent is null
  raw   the values back to back, exactly as they were produced";

/// `ringway consume`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringway consume orders
  ringway consume orders --until-end --format '%p %o %k %v\\n'
  ringway consume orders --from @1700000000000 --count 10 --format json
  ringway consume blobs --partition 0 --until-end --format raw > data.bin")]
pub(crate) struct ConsumeArgs {
    /// The topic
    pub(crate) topic: String,
    /// Read only this partition [default: all]
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// Where to start: start, end, an offset, or @MS: the first record appended at or after that
    /// many milliseconds since 1970. With all partitions, an offset that one doesn't have is moved
    /// to its nearest; with --partition it is refused
    #[arg(
        long,
        value_name = "start|end|OFFSET|@UNIX_MS",
        default_value = "start"
    )]
    pub(crate) from: StartFrom,
    /// What reading is tuned for: sets the sizes of fetches
    #[arg(long, value_name = "PROFILE", default_value = "balanced")]
    pub(crate) profile: ProfileArg,
    /// End after this many records
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End at the end offsets as they are when the command starts
    #[arg(long)]
    pub(crate) until_end: bool,
    /// A template, json or raw [default: '%v\n'; json with --output json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
}

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFrom {
    /// At the first record still there.
    Start,
    /// After the last one.
    End,
    /// At this offset.
    Offset(u64),
    /// At the first record appended at or after this time, in microseconds since 1970.
    TimeUs(i64),
}

impl FromStr for StartFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let from = match (text, text.strip_prefix('@')) {
            ("start", _) => Some(Self::Start),
            ("end", _) => Some(Self::End),
            (_, Some(ms)) => time_us(ms).map(Self::TimeUs),
            (offset, None) => offset.parse().ok().map(Self::Offset),
        };
        from.ok_or_else(|| {
            "it is start, end, an offset like 42, or a time like @1700000000000".to_owned()
        })
    }
}
