//! The formats' bytes as they were agreed on. A difference here means that files and peers of other
//! builds can't be read any more. `RINGWAY_GOLDEN=write cargo test -p ringway-wire --test golden`
//! writes the files anew; that is right only while the format's version is 0, or with a new one.

use std::path::Path;

use ringway_wire::CorrelationId;
use ringway_wire::batch::{CheckedBatch, check_produced};
use ringway_wire::frame::FrameDecoder;
use ringway_wire::request::{Reply, Request};

#[path = "support/samples.rs"]
mod samples;

fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = samples::hex(bytes);
    if std::env::var_os("RINGWAY_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see the head of this test", path.display()));
    assert_eq!(
        text, expected,
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
