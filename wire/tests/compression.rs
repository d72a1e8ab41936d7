//! Compressed batches: packed and inflated again; lies in them are refused, at the door where they
//! show there, else when they are inflated; and inflating takes no more than a batch may.

use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchError, BatchLimits, CheckedBatch, Codec, Compressor, Inflater,
    ProducerStamp, RecordRef, StoredBatch, at, check_header, check_produced,
};
use ringway_wire::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, ENTRY_BYTES};

#[path = "support/samples.rs"]
mod samples;

const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

fn put(batch: &mut [u8], start: usize, value: u32) {
    batch[start..start + 4].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(batch: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(batch[start..start + 4].try_into().unwrap())
}

fn mend(batch: &mut [u8]) {
    let body_crc = crc32c::crc32c(&batch[48..]);
    put(batch, at::BODY_CRC, body_crc);
}

/// Where the blob of a batch of so many records stands.
fn blob_start(batch: &[u8]) -> usize {
    BATCH_HEADER_BYTES + ENTRY_BYTES * u32_at(batch, at::RECORD_COUNT) as usize
}

fn packed_blob(batch: &[u8]) -> &[u8] {
    let packed_bytes = u32_at(batch, batch.len() - 4) as usize;
    &batch[blob_start(batch)..][..packed_bytes]
}

/// The batch with another blob in its place, of a length of its own; everything else as it was.
fn with_blob(batch: &[u8], blob: &[u8]) -> BatchBytes {
    let start = blob_start(batch);
    let mut bytes = BatchBytes::new();
    bytes.extend_from_slice(&batch[..start]);
    bytes.extend_from_slice(blob);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let root = bytes.len() - BATCH_HEADER_BYTES;
    let table = start - BATCH_HEADER_BYTES;
    for field in [
        (root as u32).wrapping_neg(),
        u32_at(batch, at::RECORD_COUNT),
        (table as i64 - (root as i64 + 8)) as u32,
        blob.len() as u32,
    ] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    let batch_bytes = bytes.len() as u32;
    put(&mut bytes, at::BATCH_BYTES, batch_bytes);
    put(
        &mut bytes,
        at::ARCHIVE_BYTES,
        batch_bytes - BATCH_HEADER_BYTES as u32,
    );
    mend(&mut bytes);
    bytes
}

fn inflated(batch: &[u8]) -> Result<BatchBytes, BatchError> {
    let stored = check_produced(batch)?;
    let mut space = BatchBytes::new();
    stored.inflate(&mut Inflater::new(), &mut space)?;
    CheckedBatch::check_inflated(&space)?;
    Ok(space)
}

#[test]
fn what_was_packed_reads_back_in_place() {
    let mut inflater = Inflater::new();
    let mut space = BatchBytes::new();
    for codec in CODECS {
        for layout in [None, Some(7)] {
            let mut builder = match layout {
                Some(layout) => BatchBuilder::typed(BatchLimits::default(), layout),
                None => BatchBuilder::new(BatchLimits::default()),
            };
            samples::repeated_records(&mut builder);
            let plain = builder.seal(ProducerStamp::default()).unwrap().bytes;
            let packed = samples::stamped(samples::packed_batch(codec, layout));
            assert!(packed.len() < plain.len(), "{codec} makes it shorter");
            let stored = StoredBatch::check(&packed).unwrap();
            assert_eq!(stored.codec(), codec);
            assert!(stored.uncompressed().is_none());
            assert_eq!(stored.header().inflated_bytes(), plain.len());
            assert_eq!(
                CheckedBatch::check(&packed).unwrap_err(),
                BatchError::Compressed(codec)
            );
            stored.inflate(&mut inflater, &mut space).unwrap();
            assert_eq!(space[BATCH_HEADER_BYTES..], plain[BATCH_HEADER_BYTES..]);
            let batch = CheckedBatch::check_inflated(&space).unwrap();
            assert_eq!(batch.header(), stored.header());
            assert_eq!(batch.records().len(), 12);
            for record in batch.records() {
                record.verify().unwrap();
                let value = record.value.unwrap();
                assert!(layout.is_none() || value.as_ptr().addr().is_multiple_of(16));
            }
        }
    }
}

#[test]
fn what_does_not_get_shorter_stays_as_it_is() {
    let mut noise = vec![0; 1_000];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    let mut compressor = Compressor::new();
    let mut builder = BatchBuilder::new(BatchLimits::default());
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        for value in [&noise[..], b"", b"short"] {
            let record = RecordRef {
                value: Some(value),
                ..RecordRef::default()
            };
            builder.push(&record).unwrap();
            let plain = builder.seal(ProducerStamp::default()).unwrap();
            builder.push(&record).unwrap();
            let sealed = builder.seal_with(ProducerStamp::default(), codec, &mut compressor);
            assert_eq!(sealed.unwrap().bytes[..], plain.bytes[..], "{codec}");
        }
    }
}

/// A large blob, then a small one: the compressor's space doesn't leak from one to the next.
#[test]
fn a_compressor_is_used_again() {
    let mut compressor = Compressor::new();
    let mut builder = BatchBuilder::new(BatchLimits::default());
    for codec in CODECS {
        for repeat in [40_000, 3, 900, 1] {
            let value = b"abcdefgh".repeat(repeat + 8);
            let record = RecordRef {
                value: Some(&value),
                ..RecordRef::default()
            };
            builder.push(&record).unwrap();
            let sealed = builder.seal_with(ProducerStamp::default(), codec, &mut compressor);
            let bytes = sealed.unwrap().bytes;
            let space = inflated(&bytes).unwrap();
            let batch = CheckedBatch::check_inflated(&space).unwrap();
            assert_eq!(batch.records().next().unwrap().value, Some(&value[..]));
        }
    }
}

/// A change to a compressed batch and the words of the error at the door.
type Lie = (&'static str, fn(&mut BatchBytes));

#[test]
fn lies_that_show_are_refused_at_the_door() {
    const POSITION: usize = 4;
    const VALUE_BYTES: usize = 16;
    const TAG_HASH: usize = 24;
    fn entry(index: usize) -> usize {
        BATCH_HEADER_BYTES + ENTRY_BYTES * index
    }
    fn add(batch: &mut [u8], start: usize, more: i32) {
        let value = u32_at(batch, start).wrapping_add_signed(more);
        put(batch, start, value);
    }
    let lies: &[Lie] = &[
        ("a compressed blob is shorter", |b| {
            let packed_bytes = u32_at(b, b.len() - 4);
            put(b, at::BLOB_BYTES, packed_bytes);
        }),
        ("a compressed blob is shorter", |b| {
            put(b, at::BLOB_BYTES, 0)
        }),
        ("packed_bytes can't be 0", |b| {
            let count = b.len() - 4;
            put(b, count, 0);
        }),
        ("don't make the archive", |b| {
            let count = b.len() - 4;
            add(b, count, 16);
        }),
        ("above 64 MiB", |b| {
            put(b, at::BLOB_BYTES, BATCH_BYTES_MAX as u32 - 300);
        }),
        ("a blob has at most 64 MiB", |b| {
            put(b, at::BLOB_BYTES, u32::MAX)
        }),
        ("belong to no record", |b| add(b, at::BLOB_BYTES, 1)),
        ("record 11: its bytes go beyond", |b| {
            add(b, at::BLOB_BYTES, -1)
        }),
        ("codec 3 is unknown", |b| b[at::ATTRIBUTES] = 3),
        ("record 1: its bytes don't follow", |b| {
            add(b, entry(1) + POSITION, 1)
        }),
        ("record 1: its bytes don't follow", |b| {
            add(b, entry(0) + VALUE_BYTES, 1)
        }),
        ("the union of the records' tags", |b| {
            b[entry(0) + TAG_HASH] ^= 1
        }),
        ("record 1: a hash without a tag", |b| {
            b[entry(1) + TAG_HASH] = 1
        }),
        ("the largest of the records'", |b| {
            b[at::MAX_TIMESTAMP_US] ^= 1
        }),
        ("not that of the header's counts", |b| {
            let root = b.len() - 16;
            add(b, root + 8, 1);
            add(b, root + 12, -1);
        }),
    ];
    for codec in CODECS {
        for (expected, change) in lies {
            let mut batch = samples::packed_batch(codec, None);
            change(&mut batch);
            mend(&mut batch);
            let refusal = check_produced(&batch).expect_err(expected).to_string();
            assert!(
                refusal.contains(expected),
                "wanted {expected:?}, got {refusal:?}"
            );
        }
    }
}

/// Zeros between the packed blob and the root, for every length that there can be.
#[test]
fn nothing_hides_behind_a_compressed_blob() {
    for codec in CODECS {
        let mut batch = samples::packed_batch(codec, None);
        let end = blob_start(&batch) + packed_blob(&batch).len();
        let root = batch.len() - 16;
        assert!(end < root, "the sample has padding");
        for byte in end..root {
            batch[byte] = 1;
            mend(&mut batch);
            let refusal = check_produced(&batch).unwrap_err().to_string();
            assert!(refusal.contains("between blob and root"), "{refusal}");
            batch[byte] = 0;
        }
    }
}

#[test]
fn a_batch_too_large_uncompressed_is_refused_by_its_header_alone() {
    let batch = samples::packed_batch(Codec::Lz4, None);
    for (blob_bytes, fits) in [(64 << 20, false), ((64 << 20) - 528, true)] {
        let mut header = batch[..BATCH_HEADER_BYTES].to_vec();
        put(&mut header, at::BLOB_BYTES, blob_bytes);
        // 12 records: 128 + 384 + 16 bytes beside the blob.
        assert_eq!(check_header(&header, false).is_ok(), fits, "{blob_bytes}");
    }
}

/// The blob is cut, grown, doubled or replaced by something of another length: each is an error of
/// inflating, none a panic.
#[test]
fn a_blob_of_another_length_is_an_error() {
    for codec in CODECS {
        let batch = samples::packed_batch(codec, None);
        let blob = packed_blob(&batch).to_vec();
        assert!(inflated(&with_blob(&batch, &blob)).is_ok());
        let mut others = vec![blob.repeat(2)];
        others.extend((1..blob.len()).map(|left| blob[..left].to_vec()));
        for more in 1..4 {
            others.push([&blob[..], &[0; 3][..more]].concat());
        }
        for other in others {
            match inflated(&with_blob(&batch, &other)) {
                Err(BatchError::Inflate { codec: named, .. }) => assert_eq!(named, codec),
                other => panic!("{codec}: {other:?}"),
            }
        }
        // As many bytes, of another length inside: the batch says that it is longer or shorter.
        for more in [-1_i32, 1] {
            let mut lying = batch.clone();
            for field in [at::BLOB_BYTES, BATCH_HEADER_BYTES + ENTRY_BYTES * 11 + 16] {
                let value = u32_at(&lying, field).wrapping_add_signed(more);
                put(&mut lying, field, value);
            }
            mend(&mut lying);
            let error = inflated(&lying).unwrap_err();
            assert!(matches!(error, BatchError::Inflate { .. }), "{error}");
        }
    }
}

#[test]
fn zstd_is_one_frame_with_data() {
    let batch = samples::packed_batch(Codec::Zstd, None);
    let frame = packed_blob(&batch).to_vec();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &frame].concat();
    let error = inflated(&with_blob(&batch, &skippable))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no frame starts there"), "{error}");
    let behind = [&frame[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
    let error = inflated(&with_blob(&batch, &behind))
        .unwrap_err()
        .to_string();
    assert!(error.contains("8 bytes follow its frame"), "{error}");
}

/// A blob that doesn't show at the door: the consumer finds what is wrong in it.
#[test]
fn what_a_blob_hides_is_found_when_it_is_inflated() {
    for codec in CODECS {
        let mut builder = BatchBuilder::new(BatchLimits::default());
        samples::repeated_records(&mut builder);
        let plain = builder.seal(ProducerStamp::default()).unwrap().bytes;
        let batch = samples::packed_batch(codec, None);
        let lie = |expected: &str, position: usize, byte: u8| {
            let blob_bytes = u32_at(&plain, at::BLOB_BYTES) as usize;
            let mut blob = plain[blob_start(&plain)..][..blob_bytes].to_vec();
            blob[position] = byte;
            let packed = match codec {
                Codec::Lz4 => lz4_flex::block::compress(&blob),
                _ => zstd::bulk::compress(&blob, 3).unwrap(),
            };
            let batch = with_blob(&batch, &packed);
            check_produced(&batch).expect("it doesn't show");
            let refusal = inflated(&batch).expect_err(expected).to_string();
            assert!(
                refusal.contains(expected),
                "wanted {expected:?}, got {refusal:?}"
            );
        };
        // Record 0: a value of 54 bytes, the key, the tag. Record 5 has headers behind its value.
        lie("record 0: its tag has another hash", 54 + 3, b'G');
        let start = u32_at(&plain, BATCH_HEADER_BYTES + ENTRY_BYTES * 5 + 4) as usize;
        lie(
            "record 5: its headers can't be decoded",
            start + 54 + 4,
            0xff,
        );
    }
}

#[test]
fn codecs_have_numbers_and_names() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_number(codec.number()), Some(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
        assert!(codec.available());
    }
    assert_eq!(Codec::from_number(3), None);
    let error = "snappy".parse::<Codec>().unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no codec \"snappy\": take none, lz4 or zstd"
    );
}
