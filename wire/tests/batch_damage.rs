//! Damaged and lying batches: each is refused at the door, with the error that names what is wrong.
//! The lies carry right CRCs, so that nothing but the check in question can find them.

use ringway_wire::batch::{BatchBytes, BatchError, CheckedBatch, at, check_header, check_produced};
use ringway_wire::limits::BATCH_HEADER_BYTES;

#[path = "support/samples.rs"]
mod samples;

/// Where the samples' table, blob and root start, with this many records.
fn entry(index: usize) -> usize {
    BATCH_HEADER_BYTES + 32 * index
}

fn put<const N: usize>(batch: &mut [u8], start: usize, bytes: [u8; N]) {
    batch[start..start + N].copy_from_slice(&bytes);
}

/// Makes both CRCs right again.
fn mend(batch: &mut [u8]) {
    let body_crc = crc32c::crc32c(&batch[48..]);
    put(batch, at::BODY_CRC, body_crc.to_le_bytes());
    let crc = crc32c::crc32c(&batch[..at::HEADER_CRC]);
    let crc = crc32c::crc32c_append(crc, &batch[at::HEADER_CRC + 4..BATCH_HEADER_BYTES]);
    put(batch, at::HEADER_CRC, crc.to_le_bytes());
}

fn refusal(batch: &[u8]) -> String {
    CheckedBatch::check(batch)
        .expect_err("it was accepted")
        .to_string()
}

#[test]
fn every_flipped_bit_is_found() {
    let mut produced = samples::produced_batch();
    let mut stamped = samples::stamped(samples::produced_batch());
    for bit in 0..stamped.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        stamped[byte] ^= mask;
        assert!(
            CheckedBatch::check(&stamped).is_err(),
            "bit {bit} of a stamped batch"
        );
        stamped[byte] ^= mask;
        produced[byte] ^= mask;
        assert!(
            check_produced(&produced).is_err(),
            "bit {bit} of a produced batch"
        );
        produced[byte] ^= mask;
    }
    CheckedBatch::check(&stamped).unwrap();
    check_produced(&produced).unwrap();
}

#[test]
fn every_truncation_is_found() {
    let batch = samples::stamped(samples::produced_batch());
    for left in 0..batch.len() {
        let wanted = if left < BATCH_HEADER_BYTES {
            BATCH_HEADER_BYTES
        } else {
            batch.len()
        };
        let expected = BatchError::Truncated { wanted, left };
        assert_eq!(CheckedBatch::check(&batch[..left]).unwrap_err(), expected);
    }
}

#[test]
fn what_follows_a_batch_is_left_alone_but_not_in_a_request() {
    let mut batch = samples::stamped(samples::produced_batch());
    let batch_bytes = batch.len();
    batch.extend_from_slice(b"the next batch");
    assert_eq!(
        CheckedBatch::check(&batch).unwrap().bytes().len(),
        batch_bytes
    );
    let mut batch = samples::produced_batch();
    batch.extend_from_slice(&[0; 16]);
    let refusal = check_produced(&batch).unwrap_err().to_string();
    assert!(refusal.contains("more bytes than the batch's"), "{refusal}");
}

#[test]
fn a_misaligned_batch_is_refused_by_name() {
    for (batch, alignment) in [
        (samples::produced_batch(), 4),
        (samples::produced_typed_batch(), 16),
    ] {
        let batch = samples::stamped(batch);
        for shift in 0..16 {
            let mut shifted = BatchBytes::new();
            shifted.resize(shift, 0);
            shifted.extend_from_slice(&batch);
            let read = CheckedBatch::check(&shifted[shift..]).map(|batch| batch.entries().len());
            match shift % alignment {
                0 => assert!(read.is_ok(), "shifted by {shift}"),
                _ => assert_eq!(read, Err(BatchError::Misaligned { wanted: alignment })),
            }
        }
    }
}

/// A change to a good batch and the words of the error that it must give.
type Lie = (&'static str, fn(&mut BatchBytes));

fn all_refused(sample: fn() -> BatchBytes, lies: &[Lie]) {
    for (expected, change) in lies {
        let mut batch = samples::stamped(sample());
        change(&mut batch);
        mend(&mut batch);
        let refusal = refusal(&batch);
        assert!(
            refusal.contains(expected),
            "wanted {expected:?}, got {refusal:?}"
        );
    }
}

fn u32_at(batch: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(batch[start..start + 4].try_into().unwrap())
}

fn add(batch: &mut [u8], start: usize, more: i32) {
    let value = u32_at(batch, start).wrapping_add_signed(more);
    put(batch, start, value.to_le_bytes());
}

#[test]
fn lies_in_the_header_are_refused() {
    let lies: &[Lie] = &[
        ("no batch starts here", |b| b[0] ^= 1),
        ("version 2 is unknown", |b| b[at::VERSION] = 2),
        ("reserved can't be 256", |b| b[at::LEADER_RESERVED + 1] = 1),
        ("reserved can't be 1", |b| b[at::RESERVED] = 1),
        ("reserved can't be 1", |b| b[at::RESERVED_LAST] = 1),
        ("at most 64 MiB", |b| {
            put(b, at::BATCH_BYTES, u32::MAX.to_le_bytes())
        }),
        ("batch_bytes can't be 0", |b| {
            put(b, at::BATCH_BYTES, [0; 4])
        }),
        ("it is the header and the archive", |b| {
            add(b, at::BATCH_BYTES, -16)
        }),
        ("it is the header and the archive", |b| {
            add(b, at::ARCHIVE_BYTES, 16)
        }),
        ("it is the header and the archive", |b| {
            put(b, at::ARCHIVE_BYTES, u32::MAX.to_le_bytes());
        }),
        ("it is a multiple of 16", |b| {
            add(b, at::ARCHIVE_BYTES, -4);
            add(b, at::BATCH_BYTES, -4);
        }),
        ("between 1 and 2^20", |b| put(b, at::RECORD_COUNT, [0; 4])),
        ("between 1 and 2^20", |b| {
            put(b, at::RECORD_COUNT, u32::MAX.to_le_bytes())
        }),
        ("the table doesn't fit", |b| {
            put(b, at::RECORD_COUNT, 1_000_u32.to_le_bytes())
        }),
        ("don't make the archive", |b| add(b, at::RECORD_COUNT, -1)),
        ("don't make the archive", |b| add(b, at::BLOB_BYTES, 64)),
        ("a blob has at most", |b| {
            put(b, at::BLOB_BYTES, u32::MAX.to_le_bytes())
        }),
        ("offsets would repeat", |b| {
            add(b, at::LAST_OFFSET_DELTA, -1)
        }),
        ("offsets would overflow", |b| {
            put(b, at::BASE_OFFSET, u64::MAX.to_le_bytes())
        }),
        ("offsets would overflow", |b| {
            put(b, at::BASE_OFFSET, (u64::MAX - 2).to_le_bytes())
        }),
        ("unknown bits are zero", |b| b[at::ATTRIBUTES + 1] = 1),
        ("only typed values have one", |b| b[at::LAYOUT] = 1),
        ("codec 3 is unknown", |b| b[at::ATTRIBUTES] = 3),
        ("the union of the records' tags", |b| {
            b[at::TAG_SUMMARY] ^= 1
        }),
        ("the largest of the records'", |b| {
            b[at::MAX_TIMESTAMP_US] ^= 1
        }),
        ("its timestamp overflows", |b| {
            put(b, at::FIRST_TIMESTAMP_US, i64::MIN.to_le_bytes())
        }),
        ("its timestamp overflows", |b| {
            put(b, at::FIRST_TIMESTAMP_US, i64::MAX.to_le_bytes())
        }),
    ];
    all_refused(samples::produced_batch, lies);
}

#[test]
fn lies_in_the_table_are_refused() {
    const OFFSET: usize = 0;
    const POSITION: usize = 4;
    const VALUE_BYTES: usize = 16;
    const KEY_BYTES: usize = 20;
    const TAG_HASH: usize = 24;
    const HEADERS_BYTES: usize = 28;
    const FLAGS: usize = 31;
    let lies: &[Lie] = &[
        ("record 1: offsets go back", |b| {
            put(b, entry(1) + OFFSET, [0; 4])
        }),
        ("record 2: offsets go back", |b| b[entry(1) + OFFSET] = 2),
        (
            "last_offset_delta can't be 2: the last record's is larger",
            |b| {
                put(b, entry(2) + OFFSET, u32::MAX.to_le_bytes());
            },
        ),
        ("record 0: its bytes don't follow", |b| {
            b[entry(0) + POSITION] = 1
        }),
        ("record 1: its bytes don't follow", |b| {
            add(b, entry(1) + POSITION, -1)
        }),
        ("record 2: its bytes don't follow", |b| {
            put(b, entry(2) + POSITION, u32::MAX.to_le_bytes());
        }),
        ("record 0: its bytes go beyond", |b| {
            put(b, entry(0) + VALUE_BYTES, u32::MAX.to_le_bytes());
            put(b, entry(0) + KEY_BYTES, u32::MAX.to_le_bytes());
        }),
        ("record 1: its bytes go beyond", |b| {
            add(b, entry(1) + VALUE_BYTES, 1)
        }),
        ("belong to no record", |b| {
            add(b, entry(0) + KEY_BYTES, -1);
            add(b, entry(1) + POSITION, -1);
            add(b, entry(2) + POSITION, -1);
            // The headers and the tag move with the end of the record: put them right.
            let blob = entry(3);
            b.copy_within(blob + 14..blob + 42, blob + 13);
        }),
        ("record 0: unknown flags", |b| b[entry(0) + FLAGS] |= 8),
        ("record 0: a part that it says is absent", |b| {
            b[entry(0) + FLAGS] &= !1
        }),
        ("record 0: a part that it says is absent", |b| {
            b[entry(0) + FLAGS] &= !2
        }),
        ("record 0: a part that it says is absent", |b| {
            b[entry(0) + FLAGS] &= !4
        }),
        ("record 0: its headers can't be decoded", |b| {
            add(b, entry(0) + KEY_BYTES, -1);
            b[entry(0) + HEADERS_BYTES] += 1;
        }),
        ("record 0: its headers can't be decoded", |b| {
            // The first header's name is no longer UTF-8.
            b[entry(3) + 11 + 3 + 4] = 0xff;
        }),
        ("record 0: its tag has another hash", |b| {
            b[entry(0) + TAG_HASH] ^= 1
        }),
        ("record 0: its tag has another hash", |b| {
            b[entry(3) + 40] ^= 1
        }),
        ("record 1: a hash without a tag", |b| {
            b[entry(1) + TAG_HASH] = 1
        }),
        ("record 1: its tag has another hash", |b| {
            b[entry(1) + FLAGS] |= 4;
            b[entry(1) + TAG_HASH] = 1;
        }),
    ];
    all_refused(samples::produced_batch, lies);
}

#[test]
fn lies_in_the_root_are_refused() {
    const TABLE: usize = 0;
    const TABLE_COUNT: usize = 4;
    const BLOB: usize = 8;
    const BLOB_COUNT: usize = 12;
    fn root(batch: &[u8]) -> usize {
        batch.len() - 16
    }
    let lies: &[Lie] = &[
        ("overran", |b| {
            let root = root(b);
            put(b, root + TABLE, i32::MIN.to_le_bytes());
        }),
        ("overran", |b| {
            let root = root(b);
            put(b, root + TABLE, [0; 4]);
        }),
        ("unaligned", |b| {
            let root = root(b);
            add(b, root + TABLE, 2);
        }),
        ("overran", |b| {
            let root = root(b);
            put(b, root + TABLE_COUNT, u32::MAX.to_le_bytes());
        }),
        ("overran", |b| {
            let root = root(b);
            put(b, root + BLOB_COUNT, u32::MAX.to_le_bytes());
        }),
        ("not that of the header's counts", |b| {
            let root = root(b);
            add(b, root + TABLE_COUNT, -1);
        }),
        ("not that of the header's counts", |b| {
            let root = root(b);
            add(b, root + TABLE_COUNT, -3);
        }),
        ("not that of the header's counts", |b| {
            let root = root(b);
            add(b, root + TABLE, 4);
            add(b, root + TABLE_COUNT, -1);
        }),
        ("not that of the header's counts", |b| {
            let root = root(b);
            add(b, root + BLOB_COUNT, -1);
        }),
        ("not that of the header's counts", |b| {
            let root = root(b);
            add(b, root + BLOB, 1);
            add(b, root + BLOB_COUNT, -1);
        }),
        // The blob over the table.
        ("overran", |b| {
            let root = root(b);
            add(b, root + BLOB, -32);
        }),
        ("between blob and root are not zeros", |b| {
            let root = root(b);
            b[root - 1] = 1;
        }),
    ];
    all_refused(samples::produced_batch, lies);
}

#[test]
fn lies_about_typed_values_are_refused() {
    let lies: &[Lie] = &[
        // The value would not be 16-aligned any more.
        ("record 1: its bytes don't follow", |b| {
            add(b, entry(1) + 4, -12)
        }),
        ("record 1: the bytes before it are not zeros", |b| {
            b[entry(2) + 21] = 1
        }),
        ("only typed values have one", |b| b[at::ATTRIBUTES] = 0),
    ];
    all_refused(samples::produced_typed_batch, lies);
}

#[test]
fn a_producer_may_not_play_the_broker() {
    let lies: &[Lie] = &[
        ("log_id can't be 1", |b| b[at::LOG_ID] = 1),
        ("base_offset can't be 1", |b| b[at::BASE_OFFSET] = 1),
        ("append_time_us can't be 1", |b| b[at::APPEND_TIME_US] = 1),
        ("leader_epoch can't be 1", |b| b[at::LEADER_EPOCH] = 1),
        ("prev_header_crc can't be 1", |b| b[at::PREV_HEADER_CRC] = 1),
        ("header_crc can't be 16777216", |b| {
            b[at::HEADER_CRC + 3] = 1
        }),
        ("only a broker sets these", |b| b[at::ATTRIBUTES] = 1 << 4),
        ("only a broker sets these", |b| b[at::ATTRIBUTES] = 1 << 5),
        ("no gaps between offsets", |b| {
            b[at::LAST_OFFSET_DELTA] += 1;
            b[entry(2)] += 1;
        }),
        ("it is the first record's", |b| {
            add(b, at::FIRST_TIMESTAMP_US, 1);
            for index in 0..3 {
                add(b, entry(index) + 12, -1);
            }
        }),
    ];
    for (expected, change) in lies {
        let mut batch = samples::produced_batch();
        change(&mut batch);
        let body_crc = crc32c::crc32c(&batch[48..]);
        put(&mut batch, at::BODY_CRC, body_crc.to_le_bytes());
        let refusal = check_produced(&batch)
            .expect_err("it was accepted")
            .to_string();
        assert!(
            refusal.contains(expected),
            "wanted {expected:?}, got {refusal:?}"
        );
    }
}

#[test]
fn a_compacted_batch_may_have_gaps_and_keeps_its_range() {
    let mut batch = samples::stamped(samples::produced_batch());
    batch[entry(1)] = 4;
    batch[entry(2)] = 9;
    batch[at::LAST_OFFSET_DELTA] = 20;
    mend(&mut batch);
    let read = CheckedBatch::check(&batch).unwrap();
    let base = samples::LEADER.base_offset;
    let offsets: Vec<_> = read.records().map(|record| record.offset).collect();
    assert_eq!(offsets, [base, base.plus(4), base.plus(9)]);
    assert_eq!(read.header().next_offset(), base.plus(21));
}

#[test]
fn a_header_is_checked_before_the_rest_is_there() {
    let batch = samples::stamped(samples::produced_batch());
    let header = check_header(&batch[..BATCH_HEADER_BYTES], true).unwrap();
    assert_eq!(header.batch_bytes as usize, batch.len());
    let mut damaged = batch.clone();
    damaged[at::LEADER_EPOCH] ^= 1;
    let refused = check_header(&damaged[..BATCH_HEADER_BYTES], true).unwrap_err();
    assert!(matches!(refused, BatchError::Crc { part: "header", .. }));
    check_header(&samples::produced_batch()[..BATCH_HEADER_BYTES], false).unwrap();
}
