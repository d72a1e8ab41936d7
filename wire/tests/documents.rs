//! The documents say what the code does: their tables of codes, numbers, fields and test values are
//! compared with it, so that a client written from them works.

use std::path::Path;

use ringway_wire::batch::{Codec, at, tag_hash, tag_summary};
use ringway_wire::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use ringway_wire::request::{HelloReply, HelloRequest, Reply, Request, RequestKind};
use ringway_wire::{CorrelationId, ErrorCode, NodeId, PartitionIndex, TopicId};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The cells of the rows of all tables under a heading, up to the next one.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = document
        .split_once(&format!("\n{heading}\n"))
        .expect(heading);
    let section = rest.lines().take_while(|line| !line.starts_with('#'));
    let cells = |line: &str| {
        let inner = line.trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    section
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(cells)
        .collect()
}

#[test]
fn error_codes() {
    let written: Vec<_> = rows(&document("protocol.md"), "## Errors")
        .into_iter()
        .skip(1)
        .map(|row| (row[0].clone(), row[1].clone(), row[2].clone()))
        .collect();
    let retriable = |code: ErrorCode| if code.retriable() { "yes" } else { "no" };
    let expected: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|&code| {
            (
                code.number().to_string(),
                code.name().into(),
                retriable(code).into(),
            )
        })
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn request_numbers() {
    let written: Vec<_> = rows(&document("protocol.md"), "## Requests")
        .into_iter()
        .skip(1)
        .map(|row| {
            (
                row[0].clone(),
                row[1].split(']').next().unwrap().replace(['[', '_'], ""),
            )
        })
        .collect();
    let name = |kind: RequestKind| format!("{kind:?}").to_lowercase();
    let expected: Vec<_> = RequestKind::ALL
        .iter()
        .map(|&kind| (kind.number().to_string(), name(kind)))
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn header_fields() {
    let rows = rows(&document("format.md"), "### Header");
    let fields: &[(usize, usize, &str)] = &[
        (at::MAGIC, 4, "magic"),
        (at::VERSION, 2, "version"),
        (at::LEADER_RESERVED, 2, ""),
        (at::LOG_ID, 8, "log_id"),
        (at::BASE_OFFSET, 8, "base_offset"),
        (at::APPEND_TIME_US, 8, "append_time_us"),
        (at::LEADER_EPOCH, 4, "leader_epoch"),
        (at::PREV_HEADER_CRC, 4, "prev_header_crc"),
        (at::BODY_CRC, 4, "body_crc"),
        (at::HEADER_CRC, 4, "header_crc"),
        (at::BATCH_BYTES, 4, "batch_bytes"),
        (at::ARCHIVE_BYTES, 4, "archive_bytes"),
        (at::BLOB_BYTES, 4, "blob_bytes"),
        (at::RECORD_COUNT, 4, "record_count"),
        (at::LAST_OFFSET_DELTA, 4, "last_offset_delta"),
        (at::ATTRIBUTES, 4, "attributes"),
        (at::FIRST_TIMESTAMP_US, 8, "first_timestamp_us"),
        (at::MAX_TIMESTAMP_US, 8, "max_timestamp_us"),
        (at::PRODUCER_ID, 8, "producer_id"),
        (at::TAG_SUMMARY, 8, "tag_summary"),
        (at::FIRST_SEQUENCE, 4, "first_sequence"),
        (at::PRODUCER_EPOCH, 2, "producer_epoch"),
        (at::RESERVED, 2, ""),
        (at::LAYOUT, 8, "layout"),
        (at::RESERVED_LAST, 8, ""),
    ];
    let mut next = 0;
    for (row, &(start, bytes, name)) in rows.iter().skip(1).zip(fields) {
        assert_eq!(start, next, "{name} follows the field before");
        next += bytes;
        assert_eq!(row[0], start.to_string(), "{name}");
        assert_eq!(row[1][1..], (bytes * 8).to_string(), "{name}");
        assert_eq!(row[2], name);
    }
    assert_eq!(next, at::END);
}

#[test]
fn codecs() {
    let written: Vec<_> = rows(&document("format.md"), "### Codecs")
        .into_iter()
        .skip(1)
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected = Codec::ALL.map(|codec| (codec.number().to_string(), codec.to_string()));
    assert_eq!(written, expected);
}

#[test]
fn log_ids_and_tags() {
    let format = document("format.md");
    let log_ids = rows(&format, "### Log id");
    assert!(log_ids.len() > 3);
    for row in log_ids.iter().skip(1) {
        let topic: TopicId = row[0].parse().unwrap();
        let partition = PartitionIndex(row[1].parse().unwrap());
        assert_eq!(format!("{:016x}", topic.log_id(partition).get()), row[2]);
    }
    let tags = rows(&format, "### Tags");
    assert!(tags.len() > 2);
    for row in tags.iter().skip(1) {
        let tag = if row[0] == "(empty)" { "" } else { &row[0] };
        let hash = tag_hash(tag.as_bytes());
        assert_eq!(format!("{hash:#010x}"), row[1], "{tag}");
        assert_eq!(format!("{:#018x}", tag_summary(hash)), row[2], "{tag}");
    }
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn the_first_exchange() {
    let protocol = document("protocol.md");
    let (_, rest) = protocol.split_once("## A first exchange").unwrap();
    let block = rest.split("```").nth(1).unwrap().trim_start_matches("text");
    let written: Vec<u8> = block
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let hello = HelloRequest {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION_MAX,
        client: "me".into(),
    };
    let mut expected = Request::Hello(hello).to_frame(CorrelationId(1), 0);
    let reply = HelloReply {
        version: PROTOCOL_VERSION_MAX,
        node: NodeId(1),
        cluster_id: 2,
        batch_bytes_max: 1 << 20,
        ..HelloReply::default()
    };
    expected.extend_from_slice(&Reply::Hello(reply).to_frame(CorrelationId(1), 0));
    assert_eq!(written, expected);
}
