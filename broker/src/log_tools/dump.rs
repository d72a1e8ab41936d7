//! `log dump`: every batch, and if wanted every record, as lines for people or as one JSON object
//! a line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::Offset;
use ringway_wire::batch::{Attributes, BatchHeader, Codec, RecordView};
use serde_json::{Map, Value, json};

use super::audit::{Seen, Segment, Summary, Watcher, audit};
use super::finding::Finding;
use super::place::{LogToolError, Place, Selection};
use super::waiting;
use super::walk::Opener;

/// Bytes of a key, value or tag that people are shown.
const SHOWN_BYTES_MAX: usize = 64;

/// What is to be shown, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    /// Which part.
    pub selection: Selection,
    /// The first offset.
    pub from: Offset,
    /// The offset to stop before.
    pub to: Offset,
    /// Whether records are shown, not only their batches.
    pub records: bool,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Writes to `out` what is in a data directory. Returns whether nothing of it is damaged.
///
/// # Errors
/// [`LogToolError`] when it can't be looked at, or `out` can't be written.
pub fn dump(options: &DumpOptions, out: &mut impl Write) -> Result<bool, LogToolError> {
    let mut place = Place::open(&options.selection.data_dir, waiting)?;
    let partitions = place.select(&options.selection)?;
    let mut lines = Lines {
        options,
        out,
        whole: true,
        opener: Opener::default(),
    };
    for log in partitions {
        audit(&mut place, log, options.from..options.to, &mut lines)?;
    }
    for finding in std::mem::take(&mut place.damage) {
        lines.damage(finding).map_err(LogToolError::Output)?;
    }
    for finding in std::mem::take(&mut place.notes) {
        lines.note(finding).map_err(LogToolError::Output)?;
    }
    lines.out.flush().map_err(LogToolError::Output)?;
    Ok(lines.whole)
}

struct Lines<'a, W> {
    options: &'a DumpOptions,
    out: &'a mut W,
    whole: bool,
    opener: Opener,
}

impl<W: Write> Lines<'_, W> {
    fn line(
        &mut self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        if self.options.json {
            writeln!(self.out, "{}", json())
        } else {
            writeln!(self.out, "{}", text())
        }
    }

    fn finding(&mut self, word: &str, finding: &Finding) -> io::Result<()> {
        let json = || {
            let mut value = serde_json::to_value(finding).unwrap_or_default();
            value["event"] = json!(word);
            value
        };
        self.line(|| format!("{word}: {finding}"), json)
    }

    fn wants(&self, first: Offset, next: Offset) -> bool {
        next > self.options.from && first < self.options.to
    }
}

impl<W: Write> Watcher for Lines<'_, W> {
    fn partition(&mut self, head: &Summary) -> io::Result<()> {
        let text = || {
            format!(
                "topic {} ({}), partition {}: offsets {} to {} (exclusive)",
                head.topic, head.log.topic, head.log.partition, head.log_start, head.log_end
            )
        };
        let json = || {
            json!({
                "event": "partition",
                "topic": head.topic,
                "topic_id": head.log.topic.to_string(),
                "partition": head.log.partition.0,
                "log_id": format!("{:016x}", head.log.log_id().0),
                "log_start": head.log_start.0,
                "log_end": head.log_end.0,
            })
        };
        self.line(text, json)
    }

    fn segment(&mut self, segment: &Segment) -> io::Result<()> {
        let state = if segment.sealed { "sealed" } else { "active" };
        let text = || {
            format!(
                "  segment {}: {state}, {} bytes, offsets {} to {} (exclusive)",
                segment.file, segment.file_bytes, segment.base, segment.end
            )
        };
        let json = || {
            json!({
                "event": "segment",
                "file": segment.file,
                "file_bytes": segment.file_bytes,
                "sealed": segment.sealed,
                "base_offset": segment.base.0,
                "end_offset": segment.end.0,
            })
        };
        self.line(text, json)
    }

    fn batch(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        let header = seen.header;
        if !self.wants(header.base_offset, header.next_offset()) {
            return Ok(());
        }
        self.line(|| batch_text(seen), || batch_json(seen))?;
        let Some(bytes) = seen.bytes.filter(|_| self.options.records) else {
            return Ok(());
        };
        let mut opener = std::mem::take(&mut self.opener);
        // One whose codec this build lacks stays closed.
        if let Ok(Some(batch)) = opener.open(bytes) {
            for record in batch.records() {
                if self.wants(record.offset, record.offset.plus(1)) {
                    self.line(|| record_text(&record), || record_json(&record))?;
                }
            }
        }
        self.opener = opener;
        Ok(())
    }

    fn damage(&mut self, finding: Finding) -> io::Result<()> {
        self.whole = false;
        self.finding("damage", &finding)
    }

    fn note(&mut self, finding: Finding) -> io::Result<()> {
        self.finding("note", &finding)
    }
}

/// A time for people, in UTC.
fn shown_time(us: i64) -> String {
    let time = u64::try_from(us).ok();
    let time = time.and_then(|us| UNIX_EPOCH.checked_add(Duration::from_micros(us)));
    match time.filter(|_| us < 253_402_300_800_000_000) {
        Some(time) => humantime::format_rfc3339_micros(time).to_string(),
        None => format!("{us} µs"),
    }
}

fn kinds(attributes: Attributes) -> Vec<&'static str> {
    let all = [
        (Attributes::CONTROL, "control"),
        (Attributes::TRANSACTIONAL, "transactional"),
        (Attributes::TYPED, "typed"),
        (Attributes::DELAYED, "delayed"),
    ];
    let set = all.iter().filter(|(bit, _)| attributes.has(*bit));
    set.map(|(_, name)| *name).collect()
}

fn codec(header: &BatchHeader) -> String {
    let number = header.attributes.codec();
    Codec::from_number(number).map_or_else(|| format!("codec {number}"), |codec| codec.to_string())
}

fn batch_text(seen: &Seen<'_>) -> String {
    let header = seen.header;
    let mut line = format!(
        "    batch at {}: offsets {} to {}, {} records, {} bytes, epoch {}, appended {}",
        seen.position,
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.batch_bytes,
        header.leader_epoch,
        shown_time(header.append_time_us),
    );
    if header.producer_id.0 != 0 {
        let _ = write!(
            line,
            ", producer {} epoch {} sequence {}",
            header.producer_id, header.producer_epoch, header.first_sequence
        );
    }
    if header.attributes.codec() != 0 {
        let _ = write!(line, ", {}", codec(header));
    }
    for kind in kinds(header.attributes) {
        let _ = write!(line, ", {kind}");
    }
    let _ = write!(line, ", header CRC {:08x}", header.header_crc);
    line
}

fn batch_json(seen: &Seen<'_>) -> Value {
    let header = seen.header;
    json!({
        "event": "batch",
        "file": seen.file,
        "position": seen.position,
        "whole": seen.bytes.is_some(),
        "base_offset": header.base_offset.0,
        "last_offset": header.last_offset().0,
        "records": header.record_count,
        "bytes": header.batch_bytes,
        "blob_bytes": header.blob_bytes,
        "leader_epoch": header.leader_epoch.0,
        "append_time_us": header.append_time_us,
        "first_timestamp_us": header.first_timestamp_us,
        "max_timestamp_us": header.max_timestamp_us,
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch.0,
        "first_sequence": header.first_sequence.0,
        "codec": codec(header),
        "kinds": kinds(header.attributes),
        "layout": format!("{:016x}", header.layout),
        "tag_summary": format!("{:016x}", header.tag_summary),
        "prev_header_crc": format!("{:08x}", header.prev_header_crc),
        "header_crc": format!("{:08x}", header.header_crc),
        "body_crc": format!("{:08x}", header.body_crc),
    })
}

/// Bytes for people: quoted, cut, and escaped where they are no text.
fn shown_bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    format!("\"{}\"{more}", cut.escape_ascii())
}

fn record_text(record: &RecordView<'_>) -> String {
    let mut line = format!(
        "      record {}: {}",
        record.offset,
        shown_time(record.timestamp_us)
    );
    let parts = [
        ("key", record.key),
        ("value", record.value),
        ("tag", record.tag),
    ];
    for (name, bytes) in parts {
        if let Some(bytes) = bytes {
            let _ = write!(line, ", {name} {}", shown_bytes(bytes));
        }
    }
    for header in record.headers {
        let _ = write!(
            line,
            ", header {:?} {}",
            header.name,
            shown_bytes(header.value)
        );
    }
    line
}

/// Puts bytes under `name` if they are text, else in base64 under `name_base64`.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => drop(object.insert(name.to_owned(), Value::Null)),
        Some((_, Ok(text))) => drop(object.insert(name.to_owned(), json!(text))),
        Some((bytes, Err(_))) => {
            object.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes)));
        }
    }
}

fn record_json(record: &RecordView<'_>) -> Value {
    let mut object = Map::new();
    object.insert("event".to_owned(), json!("record"));
    object.insert("offset".to_owned(), json!(record.offset.0));
    object.insert("timestamp_us".to_owned(), json!(record.timestamp_us));
    put_bytes(&mut object, "key", record.key);
    put_bytes(&mut object, "value", record.value);
    put_bytes(&mut object, "tag", record.tag);
    let headers = record.headers.map(|header| {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(header.name));
        put_bytes(&mut object, "value", Some(header.value));
        Value::Object(object)
    });
    object.insert("headers".to_owned(), headers.collect());
    object.insert("crc".to_owned(), json!(format!("{:08x}", record.crc())));
    Value::Object(object)
}
