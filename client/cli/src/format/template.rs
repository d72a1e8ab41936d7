//! Templates: `%` and a letter stands for a part of the record, escapes for bytes, all else for
//! itself.

use std::io::Write;
use std::str::FromStr;

use ringway_wire::PartitionIndex;
use ringway_wire::batch::{Headers, RecordView};

use crate::args::unescape;
use crate::format::milliseconds;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
    Tag,
    Size,
}

impl Template {
    /// One value a line.
    pub(crate) fn value_lines() -> Self {
        Self {
            parts: vec![Part::Value, Part::Text(b"\n".to_vec())],
        }
    }

    /// Appends a record to `out`.
    pub(crate) fn write(
        &self,
        partition: PartitionIndex,
        record: &RecordView<'_>,
        out: &mut Vec<u8>,
    ) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Partition => number(partition.0, out),
                Part::Offset => number(record.offset, out),
                Part::Timestamp => number(milliseconds(record.timestamp_us), out),
                Part::Key => out.extend_from_slice(record.key.unwrap_or_default()),
                Part::Value => out.extend_from_slice(record.value.unwrap_or_default()),
                Part::Headers => headers(record.headers, out),
                Part::Tag => out.extend_from_slice(record.tag.unwrap_or_default()),
                Part::Size => number(record.size(), out),
            }
        }
    }
}

fn number(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("memory takes every write");
}

/// `name=value,name=value`
fn headers(headers: Headers<'_>, out: &mut Vec<u8>) {
    for (index, header) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(header.name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(header.value);
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                literal.push(c);
                // An escaped character is none that a part could begin with.
                if c == '\\' {
                    literal.extend(rest.next());
                }
                continue;
            }
            let part = match rest.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some(letter) => Part::of(letter)?,
                None => return Err("a % at the end names nothing; write %%".to_owned()),
            };
            flush(&mut literal, &mut parts)?;
            parts.push(part);
        }
        flush(&mut literal, &mut parts)?;
        Ok(Self { parts })
    }
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) -> Result<(), String> {
    if !literal.is_empty() {
        parts.push(Part::Text(unescape(&std::mem::take(literal))?));
    }
    Ok(())
}

impl Part {
    fn of(letter: char) -> Result<Self, String> {
        Ok(match letter {
            'p' => Self::Partition,
            'o' => Self::Offset,
            't' => Self::Timestamp,
            'k' => Self::Key,
            'v' => Self::Value,
            'h' => Self::Headers,
            'g' => Self::Tag,
            's' => Self::Size,
            other => {
                return Err(format!(
                    "%{other} is no part of a record: %p %o %t %k %v %h %g %s and %% are"
                ));
            }
        })
    }
}
