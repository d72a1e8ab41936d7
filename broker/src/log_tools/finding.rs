//! What the tools find: damage, and what is merely worth knowing; the same words for people and for
//! programs.

use std::fmt;

use ringway_wire::{Offset, TopicPartition};
use serde::Serialize;

/// A part of a data directory that isn't what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A word for programs: `body_crc`, `chain`, `gap`, `missing`, `lost_tail`, …
    pub kind: &'static str,
    /// The topic's name, or its id where no name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The file, from the data directory on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The first offset that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
    /// The offset after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<u64>,
    /// What is wrong, for people.
    pub problem: String,
}

impl Finding {
    /// A finding about the directory as a whole.
    pub(super) fn new(kind: &'static str, problem: impl Into<String>) -> Self {
        Self {
            kind,
            problem: problem.into(),
            ..Self::default()
        }
    }

    /// In which partition it is, `topic` being its topic's name.
    #[must_use]
    pub(super) fn of(mut self, topic: &str, log: TopicPartition) -> Self {
        self.topic = Some(topic.to_owned());
        self.partition = Some(log.partition.0);
        self
    }

    /// In which file it is.
    #[must_use]
    pub(super) fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Where in that file.
    #[must_use]
    pub(super) const fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    /// Which offsets it is about, `end` not among them.
    #[must_use]
    pub(super) const fn offsets(mut self, first: Offset, end: Offset) -> Self {
        self.first_offset = Some(first.0);
        self.end_offset = Some(end.0);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(topic), Some(partition)) = (&self.topic, self.partition) {
            write!(f, "topic {topic}, partition {partition}: ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some(position) = self.position {
                write!(f, " at {position}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", self.problem)?;
        match (self.first_offset, self.end_offset) {
            (Some(first), Some(end)) if end == first + 1 => write!(f, " (offset {first})"),
            (Some(first), Some(end)) if end > first => {
                write!(f, " (offsets {first} to {})", end - 1)
            }
            (Some(first), _) => write!(f, " (before offset {first})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_where_and_what_and_which_offsets() {
        let log = TopicPartition::default();
        let finding = Finding::new("body_crc", "the body is torn")
            .of("orders", log)
            .in_file("a/0.log")
            .at(4096)
            .offsets(Offset(7), Offset(9));
        assert_eq!(
            finding.to_string(),
            "topic orders, partition 0: a/0.log at 4096: the body is torn (offsets 7 to 8)"
        );
        let one = finding.offsets(Offset(7), Offset(8));
        assert!(one.to_string().ends_with("(offset 7)"), "{one}");
        let none = one.offsets(Offset(7), Offset(7));
        assert!(none.to_string().ends_with("(before offset 7)"), "{none}");
        assert_eq!(Finding::new("metadata", "gone").to_string(), "gone");
    }
}
