//! What must hold for any bytes whatever: the bodies of the fuzz targets in `fuzz/`, which also run
//! over the committed corpora as plain tests.

#![allow(dead_code, reason = "each fuzz target takes one")]

use ringway_wire::CorrelationId;
use ringway_wire::batch::{
    Attributes, BatchBuilder, BatchBytes, BatchHeader, BatchLimits, CheckedBatch, Codec,
    Compressor, Inflater, LeaderStamp, ProducerStamp, RecordRef, StoredBatch, at, check_header,
    check_produced, stamp,
};
use ringway_wire::frame::{FrameDecoder, FrameHeader};
use ringway_wire::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_RECORDS_MAX, BATCH_VERSION, BODY_ROOT_BYTES,
    ENTRY_BYTES, aligned,
};
use ringway_wire::request::{Reply, Request, RequestKind};
use ringway_wire::{LeaderEpoch, LogId, Offset};

/// A target's name, which is also that of its corpus, and its body.
type Target = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    ("frame", frame),
    ("batch", batch),
    ("inflate", inflate),
    ("request", request),
    ("reply", reply),
];

/// The first byte says how the rest is cut; cut so and whole, the stream gives the same frames and
/// the same end.
pub(crate) fn frame(input: &[u8]) {
    let Some((&step, stream)) = input.split_first() else {
        return;
    };
    let limit = 1 << 16;
    let mut whole = FrameDecoder::new(limit);
    whole.push(stream);
    let mut cut = FrameDecoder::new(limit);
    let mut rest = stream;
    let mut came = 0;
    loop {
        let expected = whole.next_frame().map(|frame| {
            frame.map(|frame| (frame.header, frame.head.to_vec(), frame.data.to_vec()))
        });
        let read = loop {
            match cut.next_frame() {
                Ok(None) if !rest.is_empty() => {
                    let (now, later) = rest.split_at((usize::from(step) + 1).min(rest.len()));
                    cut.push(now);
                    rest = later;
                    came += now.len();
                    assert!(cut.capacity() <= 2 * came + 8_192, "more memory than came");
                }
                Ok(Some(frame)) => {
                    let header = frame.header;
                    assert_eq!(frame.data.len(), header.data_bytes());
                    let again = FrameHeader::decode(&header.encode(), limit);
                    assert_eq!(again, Ok(header));
                    break Ok(Some((header, frame.head.to_vec(), frame.data.to_vec())));
                }
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(read, expected);
        if !matches!(read, Ok(Some(_))) {
            break;
        }
    }
}

/// The bytes as they are, and again with lengths, CRCs and root made right one after another, so
/// that the checks behind them are reached; by both doors.
pub(crate) fn batch(input: &[u8]) {
    let mut bytes = BatchBytes::new();
    bytes.extend_from_slice(input);
    open(&bytes);
    if bytes.len() < BATCH_HEADER_BYTES + BODY_ROOT_BYTES {
        return;
    }
    bytes.resize(bytes.len() & !15, 0);
    let archive_bytes = bytes.len() - BATCH_HEADER_BYTES;
    put(
        &mut bytes,
        at::BATCH_BYTES,
        (BATCH_HEADER_BYTES + archive_bytes) as u32,
    );
    put(&mut bytes, at::ARCHIVE_BYTES, archive_bytes as u32);
    open_mended(&mut bytes);

    let root = archive_bytes - BODY_ROOT_BYTES;
    let records = (u32_at(&bytes, at::RECORD_COUNT) as usize).min(root / ENTRY_BYTES);
    let padding = (u32_at(&bytes, at::BLOB_BYTES) as usize % 16).min(root - records * ENTRY_BYTES);
    let blob_bytes = root - records * ENTRY_BYTES - padding;
    put(&mut bytes, at::RECORD_COUNT, records as u32);
    if u32_at(&bytes, at::ATTRIBUTES) & Attributes::CODEC == 0 {
        put(&mut bytes, at::BLOB_BYTES, blob_bytes as u32);
    }
    let start = BATCH_HEADER_BYTES + root;
    put(&mut bytes, start, (root as u32).wrapping_neg());
    put(&mut bytes, start + 4, records as u32);
    let distance = (records * ENTRY_BYTES) as i64 - (root as i64 + 8);
    put(&mut bytes, start + 8, distance as u32);
    put(&mut bytes, start + 12, blob_bytes as u32);
    open_mended(&mut bytes);
}

fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(bytes[start..start + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], start: usize, value: u32) {
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
}

fn open_mended(bytes: &mut BatchBytes) {
    let body_crc = crc32c::crc32c(&bytes[at::BATCH_BYTES..]);
    put(bytes, at::BODY_CRC, body_crc);
    open(bytes);
    let base_offset = u64::from(u32_at(bytes, at::BASE_OFFSET)) << 32
        | u64::from(u32_at(bytes, at::BASE_OFFSET + 4));
    let leader = LeaderStamp {
        log_id: LogId(1),
        base_offset: Offset(base_offset),
        append_time_us: 2,
        leader_epoch: LeaderEpoch(3),
        prev_header_crc: 4,
    };
    let mut stamped = bytes.clone();
    stamp(&mut stamped, &leader);
    open(&stamped);
}

fn open(bytes: &BatchBytes) {
    for stamped in [false, true] {
        if let Ok(header) = check_header(bytes, stamped) {
            assert!(header.last_offset() < header.next_offset());
            let _ = header.last_sequence();
        }
    }
    if let Ok(batch) = StoredBatch::check(bytes) {
        read_stored(&batch);
    }
    if let Ok(batch) = check_produced(bytes) {
        read_stored(&batch);
        if let Some(batch) = batch.uncompressed() {
            build_again(&batch);
        }
    }
}

fn read_stored(batch: &StoredBatch<'_>) {
    let header = batch.header();
    assert!(header.inflated_bytes() <= BATCH_BYTES_MAX);
    assert_eq!(batch.entries().len(), header.record_count as usize);
    match batch.uncompressed() {
        Some(checked) => {
            assert_eq!(header.inflated_bytes(), batch.bytes().len());
            read(&checked);
        }
        None => inflate_twice(batch),
    }
}

/// What comes out is of the announced length or an error, and does not depend on what the space
/// held before.
fn inflate_twice(batch: &StoredBatch<'_>) {
    let inflated_bytes = batch.header().inflated_bytes();
    let mut inflater = Inflater::new();
    let mut fresh = BatchBytes::new();
    let first = batch.inflate(&mut inflater, &mut fresh);
    let mut used = BatchBytes::new();
    used.resize(inflated_bytes + 48, 0xa5);
    assert_eq!(batch.inflate(&mut inflater, &mut used), first);
    if first.is_err() {
        return;
    }
    assert_eq!(fresh.len(), inflated_bytes);
    assert_eq!(fresh[..], used[..], "the space's former content shows");
    if let Ok(checked) = CheckedBatch::check_inflated(&fresh) {
        read(&checked);
    }
}

/// A blob of the fuzzer's own behind a table that fits it. The first byte is the codec, the next
/// four are the length before compression; then what remains is also packed and inflated again.
pub(crate) fn inflate(input: &[u8]) {
    let Some((&[codec, a, b, c, d], packed)) = input.split_first_chunk() else {
        return;
    };
    let codec = if codec & 1 == 0 {
        Codec::Lz4
    } else {
        Codec::Zstd
    };
    // Larger ones only take longer.
    let blob_bytes = u32::from_le_bytes([a, b, c, d]) & 0xf_ffff;
    let mut batch = batch_around(codec, blob_bytes, packed);
    let body_crc = crc32c::crc32c(&batch[at::BATCH_BYTES..]);
    put(&mut batch, at::BODY_CRC, body_crc);
    match check_produced(&batch) {
        Ok(stored) => inflate_twice(&stored),
        Err(error) => assert!(
            packed.is_empty() || packed.len() >= blob_bytes as usize,
            "{error}"
        ),
    }
    pack_and_inflate(codec, packed);
}

/// A batch of one value, whose blob stands there as given.
fn batch_around(codec: Codec, blob_bytes: u32, packed: &[u8]) -> BatchBytes {
    let mut bytes = BatchBytes::new();
    let root = aligned(ENTRY_BYTES + packed.len());
    let archive_bytes = root + BODY_ROOT_BYTES;
    let header = BatchHeader {
        version: BATCH_VERSION,
        batch_bytes: (BATCH_HEADER_BYTES + archive_bytes) as u32,
        archive_bytes: archive_bytes as u32,
        blob_bytes,
        record_count: 1,
        attributes: Attributes(codec.number().into()),
        ..BatchHeader::default()
    };
    bytes.extend_from_slice(&header.encode());
    bytes.resize(BATCH_HEADER_BYTES + ENTRY_BYTES, 0);
    put(&mut bytes, BATCH_HEADER_BYTES + 16, blob_bytes);
    bytes[BATCH_HEADER_BYTES + 31] = 1 << 1;
    bytes.extend_from_slice(packed);
    bytes.resize(BATCH_HEADER_BYTES + root, 0);
    for field in [
        (root as u32).wrapping_neg(),
        1,
        (ENTRY_BYTES as i64 - (root as i64 + 8)) as u32,
        packed.len() as u32,
    ] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// What a builder packs comes out as it went in.
fn pack_and_inflate(codec: Codec, value: &[u8]) {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let record = RecordRef {
        value: Some(value),
        ..RecordRef::default()
    };
    builder.push(&record).expect("it is short");
    let producer = ProducerStamp::default();
    let sealed = builder.seal_with(producer, codec, &mut Compressor::new());
    let bytes = sealed.expect("there is a record").bytes;
    let stored = check_produced(&bytes).expect("a builder's batch is right");
    let mut space = BatchBytes::new();
    let checked = match stored.uncompressed() {
        Some(checked) => checked,
        None => {
            let inflated = stored.inflate(&mut Inflater::new(), &mut space);
            inflated.expect("it was packed by this build");
            CheckedBatch::check_inflated(&space).expect("it was right before")
        }
    };
    let record = checked.records().next().expect("there is one");
    assert_eq!(record.value, Some(value));
    record.verify().expect("its bytes are the same");
}

fn read(batch: &CheckedBatch<'_>) {
    let header = batch.header();
    assert_eq!(batch.records().len(), header.record_count as usize);
    let mut next = header.base_offset;
    let mut bytes = 0;
    for record in batch.records() {
        assert!(record.offset >= next && record.offset <= header.last_offset());
        next = record.offset.plus(1);
        assert!(record.timestamp_us <= header.max_timestamp_us);
        let part = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let headers: usize = record
            .headers
            .map(|header| 4 + header.name.len() + header.value.len())
            .sum();
        let size = part(record.key) + part(record.value) + part(record.tag) + headers;
        assert_eq!(size, record.size());
        bytes += size;
        if let (true, Some(value)) = (header.attributes.has(Attributes::TYPED), record.value) {
            assert!(value.as_ptr().addr().is_multiple_of(16));
        }
        let _ = record.verify();
    }
    assert!(bytes <= header.blob_bytes as usize);
}

/// Equal records make equal bytes: a batch that passes the door is the one that a builder would
/// have made of its records.
fn build_again(batch: &CheckedBatch<'_>) {
    let header = batch.header();
    let limits = BatchLimits {
        bytes_max: BATCH_BYTES_MAX,
        records_max: BATCH_RECORDS_MAX,
    };
    let mut builder = if header.attributes.has(Attributes::TYPED) {
        BatchBuilder::typed(limits, header.layout)
    } else {
        BatchBuilder::new(limits)
    };
    for record in batch.records() {
        if record.verify().is_err() {
            // The door leaves the records' own CRCs to the reader.
            return;
        }
        let record = RecordRef {
            key: record.key,
            value: record.value,
            headers: record.headers.encoded(),
            tag: record.tag,
            timestamp_us: record.timestamp_us,
        };
        builder.push(&record).expect("it was in a batch");
    }
    let producer = ProducerStamp {
        id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.first_sequence,
    };
    let again = builder.seal(producer).expect("there is a record");
    assert_eq!(again.bytes[..], *batch.bytes());
}

fn kind(input: &[u8]) -> Option<(RequestKind, &[u8])> {
    let (&number, head) = input.split_first()?;
    Some((RequestKind::from_number(number.into())?, head))
}

/// The first byte is the kind. What decodes has one encoding, but for what may follow a hello.
pub(crate) fn request(input: &[u8]) {
    let Some((kind, head)) = kind(input) else {
        return;
    };
    let Ok(request) = Request::from_head(kind, head) else {
        return;
    };
    assert_eq!(request.kind(), kind);
    let encoded = request.to_head();
    match kind {
        RequestKind::Hello => assert!(head.starts_with(&encoded)),
        _ => assert_eq!(encoded, head),
    }
    let _ = request.to_frame(CorrelationId(0), 0);
}

/// The first byte is the kind. What decodes comes out again; codes of newer brokers don't.
pub(crate) fn reply(input: &[u8]) {
    let Some((kind, head)) = kind(input) else {
        return;
    };
    let Ok(reply) = Reply::from_head(kind, head) else {
        return;
    };
    assert_eq!(reply.kind(), kind);
    let encoded = reply.to_head();
    assert!(encoded.len() <= head.len());
    assert_eq!(Reply::from_head(kind, &encoded), Ok(reply));
}
