//! `ringway produce …`.

use clap::{Args, ValueEnum};
use ringway_wire::batch::Codec;
use ringway_wire::request::Acks;

use crate::args::value::{KeyValue, ProfileArg, Separator, bytes, key_value, separator};
use crate::exit::{Exit, Failure};
use crate::limits::RECORD_BYTES_MAX;

/// The help that `--help` adds.
pub(super) const LONG_ABOUT: &str = "Send standard input as records.

Input is read and sent as it comes; memory stays bounded however much there is. How it is cut:
  lines   one record a line: any bytes up to the LF, which is dropped; an empty line is an empty
          value; a CR is data; the last line may lack its LF
  chunks  --value-bytes bytes a record, the last one shorter
  frames  a 32-bit little-endian length before each value

Without a key or --partition, records are spread over the partitions; records of one key always go
to the same one. The summary goes to standard error (with --output json: one object on standard
output), progress too if that is a terminal. The exit code is 1 if any record failed; the summary
says how many and why. Ctrl-C stops reading, sends what was read, and ends with the summary.";

/// `ringway produce`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seq 1 2000000 | ringway produce numbers --create 4
  printf 'alice:3\\nbob:5\\n' | ringway produce scores --key-separator :
  ringway produce blobs --input chunks --value-bytes 64K --partition 0 < data.bin
  ringway produce alerts --tag disk --header host=db7 --header severity=high < alerts.txt
  ringway produce logs --codec lz4 < access.log
  ringway produce events --profile throughput < events.txt
  seq 1 1000 | ringway produce numbers --batch-records 1 --trace")]
pub(crate) struct ProduceArgs {
    /// The topic
    pub(crate) topic: String,
    /// How the input is cut into records
    #[arg(long, value_name = "HOW", default_value = "lines")]
    pub(crate) input: InputShape,
    /// Bytes of each value with --input chunks; K, M and G are understood
    #[arg(long, value_name = "N", value_parser = bytes, required_if_eq("input", "chunks"))]
    pub(crate) value_bytes: Option<usize>,
    /// Split each line at the first S into key and value; a line without it has no key.
    /// Escapes: \t \n \0 \xHH \\
    #[arg(long, value_name = "S", value_parser = separator)]
    pub(crate) key_separator: Option<Separator>,
    /// A header for every record; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) header: Vec<KeyValue>,
    /// A tag for every record, at most 255 bytes
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(crate) tag: Option<String>,
    /// The timestamp of every record, in milliseconds since 1970 [default: when it is read]
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = timestamp_us)]
    pub(crate) timestamp: Option<i64>,
    /// Send everything to this partition
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// When a record counts as sent
    #[arg(long, value_name = "WHO", default_value = "all")]
    pub(crate) acks: AcksArg,
    /// What sending is tuned for: sets linger, batch and buffer sizes; the options below win
    #[arg(long, value_name = "PROFILE", default_value = "balanced")]
    pub(crate) profile: ProfileArg,
    /// Largest batch, in bytes; K, M and G are understood [default: 1M, or the profile's]
    #[arg(long, value_name = "N", value_parser = bytes)]
    pub(crate) batch_bytes: Option<usize>,
    /// Most records in a batch [default: 10000, or the profile's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_records: Option<u32>,
    /// Compress batches: none, lz4 or zstd [default: what the topic's `codec` says]
    #[arg(long, value_name = "CODEC", value_parser = codec)]
    pub(crate) codec: Option<Codec>,
    /// Create the topic with this many partitions if it doesn't exist
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) create: Option<u32>,
    /// Ask the broker where each batch's time went, and print the stages' percentiles
    #[arg(long)]
    pub(crate) trace: bool,
}

/// How the input is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputShape {
    /// One record a line
    Lines,
    /// A fixed number of bytes a record
    Chunks,
    /// A 32-bit little-endian length before each record
    Frames,
}

/// When a record counts as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksArg {
    /// When it was written to the connection; it may be lost without a word
    None,
    /// When the leader has it on stable storage
    Leader,
    /// When every in-sync replica has it on stable storage
    All,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Self {
        match acks {
            AcksArg::None => Self::None,
            AcksArg::Leader => Self::Leader,
            AcksArg::All => Self::All,
        }
    }
}

fn codec(text: &str) -> Result<Codec, String> {
    let codec: Codec = text.parse().map_err(|error| format!("{error}"))?;
    if codec.available() {
        return Ok(codec);
    }
    Err(format!(
        "this ringway was built without {codec}: build ringway-cli with `--features {codec}`"
    ))
}

fn tag(text: &str) -> Result<String, String> {
    let bytes_max = ringway_wire::limits::TAG_BYTES_MAX;
    if text.len() > bytes_max {
        return Err(format!(
            "it has {} bytes, at most {bytes_max} fit",
            text.len()
        ));
    }
    Ok(text.to_owned())
}

/// Milliseconds on the command line, microseconds from here on.
fn timestamp_us(text: &str) -> Result<i64, String> {
    let ms: i64 = text.parse().map_err(|error| format!("{error}"))?;
    ms.checked_mul(1_000)
        .ok_or_else(|| "it is out of range".to_owned())
}

impl ProduceArgs {
    /// Checks what belongs together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = |message: &str| Err(Failure::new(Exit::Usage, message));
        if self.value_bytes.is_some() && self.input != InputShape::Chunks {
            return wrong("--value-bytes is for --input chunks; add it or leave this one out");
        }
        if self.key_separator.is_some() && self.input != InputShape::Lines {
            return wrong("--key-separator splits lines; it can't be used with chunks or frames");
        }
        if self.trace && self.acks == AcksArg::None {
            return wrong("--trace needs an answer from the broker; --acks none has none");
        }
        match self.value_bytes {
            Some(bytes) if bytes > RECORD_BYTES_MAX => Err(Failure::new(
                Exit::Usage,
                format!("--value-bytes {bytes}: a record has at most {RECORD_BYTES_MAX} bytes"),
            )),
            _ => Ok(()),
        }
    }
}
