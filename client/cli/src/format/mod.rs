//! How a consumed record is written: by a template, as JSON, or raw. Writes into memory only.

mod json;
mod template;

use std::str::FromStr;

use ringway_wire::PartitionIndex;
use ringway_wire::batch::RecordView;

pub(crate) use template::Template;

/// How records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text with parts of the record in it.
    Template(Template),
    /// One JSON object a line.
    Json,
    /// Values back to back.
    Raw,
}

impl Default for Format {
    fn default() -> Self {
        Self::Template(Template::value_lines())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "raw" => Ok(Self::Raw),
            template => template.parse().map(Self::Template),
        }
    }
}

impl Format {
    /// Appends a record to `out`.
    pub(crate) fn write(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: &RecordView<'_>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Template(template) => template.write(partition, record, out),
            Self::Json => json::write(topic, partition, record, out),
            Self::Raw => out.extend_from_slice(record.value.unwrap_or_default()),
        }
    }
}

/// Microseconds as the milliseconds that the command line speaks; before 1970 too, they are the
/// ones that have begun.
fn milliseconds(us: i64) -> i64 {
    us.div_euclid(1_000)
}

#[cfg(test)]
mod tests;
