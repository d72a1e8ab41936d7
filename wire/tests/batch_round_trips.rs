//! Any records go into a batch and come out the same, whatever they have or lack, and equal records
//! make equal bytes.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use ringway_wire::batch::{
    Attributes, BatchBuilder, BatchError, BatchFull, BatchLimits, CheckedBatch, Header,
    LeaderStamp, ProducerStamp, RecordRef, check_produced, encode_headers, stamp,
};
use ringway_wire::limits::{BATCH_BYTES_MAX, HEADERS_BYTES_MAX, TAG_BYTES_MAX};
use ringway_wire::{LeaderEpoch, LogId, Offset, ProducerEpoch, ProducerId, Sequence};

#[derive(Clone, Debug)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    tag: Option<Vec<u8>>,
    delta_us: i32,
}

impl Owned {
    fn headers(&self) -> Vec<u8> {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| Header { name, value });
        encode_headers(headers).unwrap()
    }
}

fn record() -> impl Strategy<Value = Owned> {
    let bytes = |max: usize| of(vec(any::<u8>(), 0..max));
    let headers = vec((".{0,8}", vec(any::<u8>(), 0..9)), 0..3);
    let delta_us = any::<i32>();
    (
        bytes(40),
        bytes(300),
        headers,
        bytes(TAG_BYTES_MAX + 1),
        delta_us,
    )
        .prop_map(|(key, value, headers, tag, delta_us)| Owned {
            key,
            value,
            headers,
            tag,
            delta_us,
        })
}

fn leader() -> impl Strategy<Value = LeaderStamp> {
    (
        any::<u64>(),
        0..=u64::MAX / 2,
        any::<i64>(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(log_id, base_offset, append_time_us, leader_epoch, prev_header_crc)| LeaderStamp {
                log_id: LogId(log_id),
                base_offset: Offset(base_offset),
                append_time_us,
                leader_epoch: LeaderEpoch(leader_epoch),
                prev_header_crc,
            },
        )
}

fn producer() -> impl Strategy<Value = ProducerStamp> {
    (any::<u64>(), any::<u16>(), any::<u32>()).prop_map(|(id, epoch, sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        first_sequence: Sequence(sequence),
    })
}

fn time_of(base_us: i64, records: &[Owned], index: usize) -> i64 {
    match index {
        0 => base_us,
        _ => base_us + i64::from(records[index].delta_us),
    }
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(
        records in vec(record(), 1..20),
        layout in of(any::<u64>()),
        base_us in i64::from(i32::MIN).abs() * -2..i64::MAX / 2,
        leader in leader(),
        producer in producer(),
    ) {
        let mut builder = match layout {
            Some(layout) => BatchBuilder::typed(BatchLimits::default(), layout),
            None => BatchBuilder::new(BatchLimits::default()),
        };
        let headers: Vec<_> = records.iter().map(Owned::headers).collect();
        for (index, owned) in records.iter().enumerate() {
            let record = RecordRef {
                key: owned.key.as_deref(),
                value: owned.value.as_deref(),
                headers: &headers[index],
                tag: owned.tag.as_deref(),
                timestamp_us: time_of(base_us, &records, index),
            };
            prop_assert_eq!(builder.push(&record), Ok(()));
        }
        let expected_bytes = builder.batch_bytes();
        let mut sealed = builder.seal(producer).unwrap();
        prop_assert_eq!(sealed.bytes.len(), expected_bytes);
        prop_assert_eq!(sealed.record_count as usize, records.len());
        prop_assert!(check_produced(&sealed.bytes).is_ok());

        let header_crc = stamp(&mut sealed.bytes, &leader);
        let batch = CheckedBatch::check(&sealed.bytes).unwrap();
        let header = batch.header();
        prop_assert_eq!(header.header_crc, header_crc);
        prop_assert_eq!(header.log_id, leader.log_id);
        prop_assert_eq!(header.base_offset, leader.base_offset);
        prop_assert_eq!(header.append_time_us, leader.append_time_us);
        prop_assert_eq!(header.leader_epoch, leader.leader_epoch);
        prop_assert_eq!(header.prev_header_crc, leader.prev_header_crc);
        prop_assert_eq!(header.producer_id, producer.id);
        prop_assert_eq!(header.producer_epoch, producer.epoch);
        prop_assert_eq!(header.first_sequence, producer.first_sequence);
        prop_assert_eq!(header.layout, layout.unwrap_or(0));
        prop_assert_eq!(header.attributes.has(Attributes::TYPED), layout.is_some());
        prop_assert_eq!(header.next_offset(), leader.base_offset.plus(records.len() as u64));
        prop_assert_eq!(&header.encode()[..], &sealed.bytes[..128]);
        prop_assert_eq!(batch.records().len(), records.len());
        for (index, (read, sent)) in batch.records().zip(&records).enumerate() {
            prop_assert_eq!(read.offset, leader.base_offset.plus(index as u64));
            prop_assert_eq!(read.timestamp_us, time_of(base_us, &records, index));
            prop_assert!(read.timestamp_us <= header.max_timestamp_us);
            prop_assert_eq!(read.key, sent.key.as_deref());
            prop_assert_eq!(read.value, sent.value.as_deref());
            prop_assert_eq!(read.tag, sent.tag.as_deref());
            let got: Vec<_> = read.headers
                .map(|header| (header.name.to_owned(), header.value.to_vec()))
                .collect();
            prop_assert_eq!(&got, &sent.headers);
            prop_assert_eq!(read.verify(), Ok(()));
            if let (Some(_), Some(value)) = (layout, read.value) {
                prop_assert!(value.as_ptr().addr().is_multiple_of(16));
            }
        }
    }
}

fn value(bytes: &[u8]) -> RecordRef<'_> {
    RecordRef {
        value: Some(bytes),
        ..RecordRef::default()
    }
}

#[test]
fn a_builder_starts_afresh_after_each_seal() {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let tagged = RecordRef {
        tag: Some(b"t"),
        timestamp_us: 1 << 40,
        ..value(b"first")
    };
    builder.push(&tagged).unwrap();
    builder.seal(ProducerStamp::default()).unwrap();
    assert!(builder.is_empty());
    assert!(builder.seal(ProducerStamp::default()).is_none());
    builder
        .push(&RecordRef {
            timestamp_us: -5,
            ..value(b"second")
        })
        .unwrap();
    let again = builder.seal(ProducerStamp::default()).unwrap();
    let mut fresh = BatchBuilder::new(BatchLimits::default());
    fresh
        .push(&RecordRef {
            timestamp_us: -5,
            ..value(b"second")
        })
        .unwrap();
    let fresh = fresh.seal(ProducerStamp::default()).unwrap();
    assert_eq!(again.bytes[..], fresh.bytes[..]);
}

#[test]
fn limits_end_a_batch_and_a_record_above_them_goes_alone() {
    let limits = BatchLimits {
        bytes_max: 400,
        records_max: 3,
    };
    let mut builder = BatchBuilder::new(limits);
    for _ in 0..3 {
        builder.push(&value(b"x")).unwrap();
    }
    assert_eq!(builder.push(&value(b"x")), Err(BatchFull::Full));
    builder.seal(ProducerStamp::default()).unwrap();

    builder.push(&value(&[0; 100])).unwrap();
    assert_eq!(builder.push(&value(&[0; 100])), Err(BatchFull::Full));
    builder.seal(ProducerStamp::default()).unwrap();

    builder.push(&value(&[0; 4_000])).unwrap();
    let sealed = builder.seal(ProducerStamp::default()).unwrap();
    check_produced(&sealed.bytes).unwrap();
    assert_eq!(sealed.record_count, 1);
}

#[test]
fn what_fits_no_batch_is_refused_and_leaves_the_builder_as_it_was() {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    builder.push(&value(b"before")).unwrap();
    let before = builder.batch_bytes();
    let large = vec![0; BATCH_BYTES_MAX - 128 - 32 - 16 + 1];
    let refused =
        |builder: &mut BatchBuilder, record: &RecordRef<'_>, expected: usize| match builder
            .push(record)
        {
            Err(BatchFull::TooLarge { limit, .. }) => assert_eq!(limit, expected),
            other => panic!("{other:?}"),
        };
    refused(&mut builder, &value(&large), BATCH_BYTES_MAX);
    let headers = RecordRef {
        headers: &large[..HEADERS_BYTES_MAX + 1],
        ..value(b"")
    };
    refused(&mut builder, &headers, HEADERS_BYTES_MAX);
    let tag = RecordRef {
        tag: Some(&large[..TAG_BYTES_MAX + 1]),
        ..value(b"")
    };
    refused(&mut builder, &tag, TAG_BYTES_MAX);
    assert_eq!(builder.batch_bytes(), before);
    assert_eq!(builder.record_count(), 1);
    builder.seal(ProducerStamp::default()).unwrap();

    builder.push(&value(&large[1..])).unwrap();
    let sealed = builder.seal(ProducerStamp::default()).unwrap();
    assert_eq!(sealed.bytes.len(), BATCH_BYTES_MAX);
    check_produced(&sealed.bytes).unwrap();
}

#[test]
fn a_timestamp_too_far_from_the_first_opens_the_next_batch() {
    let at = |timestamp_us| RecordRef {
        timestamp_us,
        ..value(b"x")
    };
    let mut builder = BatchBuilder::new(BatchLimits::default());
    builder.push(&at(0)).unwrap();
    builder.push(&at(i64::from(i32::MAX))).unwrap();
    builder.push(&at(i64::from(i32::MIN))).unwrap();
    for far_us in [
        i64::from(i32::MAX) + 1,
        i64::from(i32::MIN) - 1,
        i64::MAX,
        i64::MIN,
    ] {
        assert_eq!(builder.push(&at(far_us)), Err(BatchFull::Full));
    }
    builder.seal(ProducerStamp::default()).unwrap();
    builder.push(&at(i64::MAX)).unwrap();
    assert_eq!(builder.push(&at(i64::MIN)), Err(BatchFull::Full));
    let sealed = builder.seal(ProducerStamp::default()).unwrap();
    assert_eq!(
        check_produced(&sealed.bytes)
            .unwrap()
            .header()
            .max_timestamp_us,
        i64::MAX
    );
}

#[test]
fn headers_that_are_too_long_are_not_encoded() {
    let long = vec![0; HEADERS_BYTES_MAX];
    assert_eq!(
        encode_headers([Header {
            name: "",
            value: &long
        }]),
        None
    );
    let just = Header {
        name: "",
        value: &long[4..],
    };
    assert_eq!(encode_headers([just]).unwrap().len(), HEADERS_BYTES_MAX);
    let name = "n".repeat(HEADERS_BYTES_MAX + 1);
    assert_eq!(
        encode_headers([Header {
            name: &name,
            value: b""
        }]),
        None
    );
}

#[test]
fn a_record_is_known_by_its_own_crc() {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    builder
        .push(&value(b"damaged on the way into the batch"))
        .unwrap();
    let mut sealed = builder.seal(ProducerStamp::default()).unwrap();
    sealed.bytes[128 + 32] ^= 1;
    let body_crc = crc32c::crc32c(&sealed.bytes[48..]);
    sealed.bytes[40..44].copy_from_slice(&body_crc.to_le_bytes());
    let batch = check_produced(&sealed.bytes).unwrap();
    let record = batch.uncompressed().unwrap().records().next().unwrap();
    assert!(matches!(
        record.verify(),
        Err(BatchError::Crc { part: "record", .. })
    ));
}
