//! One JSON object a record. Bytes that are UTF-8 are strings; others stand in base64 under a name
//! that says so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::PartitionIndex;
use ringway_wire::batch::RecordView;
use serde::Serialize;

use crate::format::milliseconds;

#[derive(Serialize)]
struct Record<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "Skip::skip")]
    key: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Skip::skip")]
    value: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Skip::skip")]
    tag: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_base64: Option<String>,
    size: usize,
}

#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Skip::skip")]
    value: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// A part of a record as text.
#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Utf8(&'a str),
    Absent(()),
    #[serde(skip)]
    Binary,
}

trait Skip {
    fn skip(&self) -> bool;
}

impl Skip for Text<'_> {
    fn skip(&self) -> bool {
        matches!(self, Text::Binary)
    }
}

/// The text, or else base64.
fn text(bytes: Option<&[u8]>) -> (Text<'_>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (Text::Absent(()), None),
        Some((Ok(text), _)) => (Text::Utf8(text), None),
        Some((Err(_), bytes)) => (Text::Binary, Some(STANDARD.encode(bytes))),
    }
}

/// Appends a record and a line feed to `out`.
pub(super) fn write(
    topic: &str,
    partition: PartitionIndex,
    record: &RecordView<'_>,
    out: &mut Vec<u8>,
) {
    let (key, key_base64) = text(record.key);
    let (value, value_base64) = text(record.value);
    let (tag, tag_base64) = text(record.tag);
    let headers = record.headers.map(|header| {
        let (value, value_base64) = text(Some(header.value));
        Header {
            name: header.name,
            value,
            value_base64,
        }
    });
    let object = Record {
        topic,
        partition: partition.0,
        offset: record.offset.0,
        timestamp_ms: milliseconds(record.timestamp_us),
        key,
        key_base64,
        value,
        value_base64,
        headers: headers.collect(),
        tag,
        tag_base64,
        size: record.size(),
    };
    serde_json::to_writer(&mut *out, &object).expect("memory takes every write");
    out.push(b'\n');
}
