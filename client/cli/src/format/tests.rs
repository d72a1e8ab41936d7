//! What each format makes of a record.

use ringway_wire::batch::{
    BatchBuilder, BatchLimits, CheckedBatch, Header, LeaderStamp, ProducerStamp, RecordRef,
    encode_headers, stamp,
};
use ringway_wire::{LeaderEpoch, LogId, Offset};

use super::*;

/// A record as `format` writes it, at offset 7 of partition 3 of `orders`.
fn written(format: &str, record: &RecordRef<'_>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    builder.push(record).unwrap();
    let mut bytes = builder.seal(ProducerStamp::default()).unwrap().bytes;
    let leader = LeaderStamp {
        log_id: LogId(1),
        base_offset: Offset(7),
        append_time_us: 0,
        leader_epoch: LeaderEpoch(1),
        prev_header_crc: 0,
    };
    stamp(&mut bytes, &leader);
    let batch = CheckedBatch::check(&bytes).unwrap();
    let mut out = Vec::new();
    let format: Format = format.parse().unwrap();
    for view in batch.records() {
        format.write("orders", PartitionIndex(3), &view, &mut out);
    }
    out
}

fn headers() -> Vec<u8> {
    let header = |name, value| Header { name, value };
    encode_headers([header("a", b"1"), header("b", b"\xff")]).unwrap()
}

fn record(headers: &[u8]) -> RecordRef<'_> {
    RecordRef {
        key: Some(b"k"),
        value: Some(b"v\n"),
        headers,
        tag: Some(b"g"),
        timestamp_us: 1_234_567,
    }
}

#[test]
fn a_template_has_every_part() {
    let headers = headers();
    let size = (1 + 2 + headers.len() + 1).to_string();
    let out = written(
        "%p|%o|%t|%k|%v|%h|%g|%s|%%|\\x41\\t\\\\n\\n",
        &record(&headers),
    );
    let expected = [
        b"3|7|1234|k|v\n|a=1,b=\xff|g|".as_slice(),
        size.as_bytes(),
        b"|%|A\t\\n\n",
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn what_is_absent_writes_nothing() {
    let empty = RecordRef::default();
    assert_eq!(written("[%k%v%h%g]%s", &empty), b"[]0");
    assert_eq!(written("raw", &empty), b"");
}

#[test]
fn times_before_1970_round_down_too() {
    let early = RecordRef {
        timestamp_us: -1,
        ..RecordRef::default()
    };
    assert_eq!(written("%t", &early), b"-1");
}

#[test]
fn templates_that_name_nothing_are_refused() {
    for wrong in ["%", "a%q", "%é", "\\", "\\q", "%v\\x1"] {
        assert!(wrong.parse::<Format>().is_err(), "{wrong}");
    }
    assert_eq!("".parse::<Format>().map(|_| ()), Ok(()));
    assert_eq!("%v\\n".parse::<Format>().unwrap(), Format::default());
}

#[test]
fn an_escaped_backslash_begins_no_escape_and_hides_no_part() {
    let value = RecordRef {
        value: Some(b"v"),
        ..RecordRef::default()
    };
    assert_eq!(written("\\\\%v\\\\n", &value), b"\\v\\n");
}

#[test]
fn raw_is_the_value_alone() {
    assert_eq!(written("raw", &record(&headers())), b"v\n");
}

#[test]
fn json_has_text_where_it_is_text() {
    let headers = headers();
    let json: serde_json::Value =
        serde_json::from_slice(&written("json", &record(&headers))).unwrap();
    let expected = serde_json::json!({
        "topic": "orders", "partition": 3, "offset": 7, "timestamp_ms": 1234,
        "key": "k", "value": "v\n", "tag": "g", "size": 4 + headers.len(),
        "headers": [{"name": "a", "value": "1"}, {"name": "b", "value_base64": "/w=="}],
    });
    assert_eq!(json, expected);
}

#[test]
fn json_tells_binary_empty_and_absent_apart() {
    let mixed = RecordRef {
        key: Some(b"\xfe\xff"),
        value: Some(b""),
        ..RecordRef::default()
    };
    let out = String::from_utf8(written("json", &mixed)).unwrap();
    assert_eq!(
        out,
        "{\"topic\":\"orders\",\"partition\":3,\"offset\":7,\"timestamp_ms\":0,\
         \"key_base64\":\"/v8=\",\"value\":\"\",\"headers\":[],\"tag\":null,\"size\":2}\n"
    );
}
