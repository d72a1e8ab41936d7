//! A batch as a producer builds it, a broker stamps it and a consumer reads it.

use ringway_wire::batch::{
    BatchBuilder, BatchLimits, CheckedBatch, Header, LeaderStamp, ProducerStamp, RecordRef,
    check_produced, encode_headers, stamp,
};
use ringway_wire::{LeaderEpoch, LogId, Offset};

#[test]
fn a_batch_reads_back_as_it_was_built() {
    let headers = encode_headers([Header {
        name: "h",
        value: b"v",
    }])
    .unwrap();
    let records = [
        RecordRef {
            key: Some(b"k"),
            value: Some(b"hello"),
            headers: &headers,
            tag: Some(b"buy"),
            timestamp_us: 5,
        },
        RecordRef {
            key: None,
            value: Some(b""),
            timestamp_us: 3,
            ..RecordRef::default()
        },
        RecordRef {
            key: Some(b""),
            value: None,
            timestamp_us: 9,
            ..RecordRef::default()
        },
    ];
    let mut builder = BatchBuilder::new(BatchLimits::default());
    for record in &records {
        builder.push(record).unwrap();
    }
    let expected_bytes = builder.batch_bytes();
    let mut sealed = builder.seal(ProducerStamp::default()).unwrap();
    assert_eq!(sealed.bytes.len(), expected_bytes);
    check_produced(&sealed.bytes).unwrap();
    stamp(
        &mut sealed.bytes,
        &LeaderStamp {
            log_id: LogId(7),
            base_offset: Offset(100),
            append_time_us: 11,
            leader_epoch: LeaderEpoch(2),
            prev_header_crc: 9,
        },
    );
    let batch = CheckedBatch::check(&sealed.bytes).unwrap();
    assert_eq!(batch.header().max_timestamp_us, 9);
    assert_eq!(batch.records().len(), records.len());
    for (index, (read, sent)) in batch.records().zip(&records).enumerate() {
        assert_eq!(read.offset, Offset(100 + index as u64));
        assert_eq!(read.key, sent.key);
        assert_eq!(read.value, sent.value);
        assert_eq!(read.tag, sent.tag);
        assert_eq!(read.headers.encoded(), sent.headers);
        assert_eq!(read.timestamp_us, sent.timestamp_us);
        read.verify().unwrap();
    }
}
