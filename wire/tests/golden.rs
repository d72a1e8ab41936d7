//! The formats' bytes as they were agreed on. A difference here means that files and peers of other
//! builds can't be read any more: a version's bytes never change. Only for a new version, or for
//! something that had no bytes before, `RINGWAY_GOLDEN=write cargo test -p ringway-wire --test
//! golden` writes the files anew.

use std::path::Path;

use ringway_wire::CorrelationId;
use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchLimits, CheckedBatch, Codec, Inflater, StoredBatch,
    check_produced,
};
use ringway_wire::frame::FrameDecoder;
use ringway_wire::request::{Reply, Request};

#[path = "support/samples.rs"]
mod samples;

/// The text of a golden file, written before if that is asked for.
fn agreed(name: &str, bytes: &[u8]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("RINGWAY_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, samples::hex(bytes)).unwrap();
    }
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see the head of this test", path.display()))
}

fn golden(name: &str, bytes: &[u8]) {
    assert_eq!(
        samples::hex(bytes),
        agreed(name, bytes),
        "{name}: the bytes of the format have changed"
    );
}

#[test]
fn batches() {
    let batch = samples::produced_batch();
    check_produced(&batch).unwrap();
    golden("batch-produced.hex", &batch);
    let batch = samples::stamped(batch);
    CheckedBatch::check(&batch).unwrap();
    golden("batch-stamped.hex", &batch);
    let batch = samples::stamped(samples::produced_typed_batch());
    CheckedBatch::check(&batch).unwrap();
    golden("batch-typed.hex", &batch);
}

/// What a codec makes of a blob is its own affair and may differ from build to build; what was
/// compressed once has to stay readable.
#[test]
fn compressed_batches_are_read_as_they_were_written() {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    samples::repeated_records(&mut builder);
    let plain = samples::stamped(builder.seal(Default::default()).unwrap().bytes);
    let plain = CheckedBatch::check(&plain).unwrap();
    for codec in [Codec::Lz4, Codec::Zstd] {
        let packed = samples::stamped(samples::packed_batch(codec, None));
        let text = agreed(&format!("batch-{codec}.hex"), &packed);
        let mut bytes = BatchBytes::new();
        for byte in text.split_whitespace() {
            bytes.push(u8::from_str_radix(byte, 16).unwrap());
        }
        let stored = StoredBatch::check(&bytes).unwrap();
        assert_eq!(stored.codec(), codec);
        let mut space = BatchBytes::new();
        stored.inflate(&mut Inflater::new(), &mut space).unwrap();
        let batch = CheckedBatch::check_inflated(&space).unwrap();
        assert_eq!(batch.bytes()[128..], plain.bytes()[128..], "{codec}");
    }
}

#[test]
fn requests_and_replies() {
    for request in samples::requests() {
        let head = request.to_head();
        golden(
            &format!("request-{:?}.hex", request.kind()).to_lowercase(),
            &head,
        );
        assert_eq!(Request::from_head(request.kind(), &head).unwrap(), request);
    }
    for reply in samples::replies() {
        let head = reply.to_head();
        golden(
            &format!("reply-{:?}.hex", reply.kind()).to_lowercase(),
            &head,
        );
        assert_eq!(Reply::from_head(reply.kind(), &head).unwrap(), reply);
    }
}

#[test]
fn a_produce_frame() {
    let request = samples::requests()
        .into_iter()
        .find(|request| matches!(request, Request::Produce(_)));
    let batch = samples::produced_batch();
    let mut frame = request
        .unwrap()
        .to_frame(CorrelationId(0x0a0b_0c0d), batch.len());
    frame.extend_from_slice(&batch);
    golden("frame-produce.hex", &frame);
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&frame);
    let read = decoder.next_frame().unwrap().unwrap();
    assert_eq!(read.data, &batch[..]);
}
