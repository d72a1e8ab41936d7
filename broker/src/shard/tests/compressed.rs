//! Compressed batches: stored and handed out as they came, refused by what they would be
//! uncompressed.

use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchLimits, CheckedBatch, Codec, Compressor, Inflater,
    ProducerStamp, RecordRef, StoredBatch, at,
};
use ringway_wire::request::{Acks, Reply};
use ringway_wire::{ErrorCode, Fault};

use super::rig::{BATCH_BYTES_MAX, Client, Options, Rig, fetch, produce};
use crate::testing::scratch;

/// Values of so many bytes, packed: a few bytes each on the way.
fn packed(values: &[usize]) -> Vec<u8> {
    let limits = BatchLimits {
        bytes_max: 64 << 20,
        ..BatchLimits::default()
    };
    let mut builder = BatchBuilder::new(limits);
    for &bytes in values {
        let value = vec![b'z'; bytes];
        let record = RecordRef {
            value: Some(&value),
            ..RecordRef::default()
        };
        builder.push(&record).unwrap();
    }
    let mut compressor = Compressor::new();
    let sealed = builder.seal_with(ProducerStamp::default(), Codec::Lz4, &mut compressor);
    sealed.unwrap().bytes.to_vec()
}

fn answer(client: &mut Client, batch: &[u8]) -> Option<Fault> {
    let (_, reply, _) = client.ask(&produce(0, Acks::All), batch);
    let Reply::Produce(reply) = reply else {
        panic!("{reply:?}");
    };
    reply.fault
}

#[test]
fn a_compressed_batch_comes_out_as_it_went_in() {
    let scratch = scratch("compressed");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::hello(rig.ports[0]);
    let batch = packed(&[100_000, 0, 7]);
    assert_eq!(answer(&mut client, &batch), None);
    let (_, _, data) = client.ask(&fetch(0, 0, 0), &[]);
    assert_eq!(data[at::BATCH_BYTES..], batch[at::BATCH_BYTES..]);

    let mut bytes = BatchBytes::new();
    bytes.extend_from_slice(&data);
    let stored = StoredBatch::check(&bytes).unwrap();
    let mut space = BatchBytes::new();
    stored.inflate(&mut Inflater::new(), &mut space).unwrap();
    let inflated = CheckedBatch::check_inflated(&space).unwrap();
    let values: Vec<_> = inflated
        .records()
        .map(|record| record.value.unwrap().len())
        .collect();
    assert_eq!(values, [100_000, 0, 7]);
    rig.stop();
}

#[test]
fn limits_are_those_of_the_uncompressed_batch() {
    let scratch = scratch("compressed-limits");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::hello(rig.ports[0]);
    let refused = |client: &mut Client, batch: &[u8]| {
        let fault = answer(client, batch).expect("a fault");
        (fault.code, fault.message)
    };
    let eighth = BATCH_BYTES_MAX as usize / 8;
    let batch = packed(&[eighth; 8]);
    assert!(batch.len() < 100_000, "it is small as it comes");
    let (code, message) = refused(&mut client, &batch);
    assert_eq!(code, ErrorCode::BatchTooLarge);
    assert!(message.contains("raise its batch_bytes_max"), "{message}");
    assert_eq!(answer(&mut client, &packed(&[eighth; 7])), None);

    let (code, message) = refused(&mut client, &packed(&[1, 5 << 20]));
    assert_eq!(code, ErrorCode::RecordTooLarge, "{message}");

    let mut unknown = packed(&[10_000]);
    unknown[at::ATTRIBUTES] = 3;
    let body_crc = crc32c::crc32c(&unknown[at::BATCH_BYTES..]);
    unknown[at::BODY_CRC..at::HEADER_CRC].copy_from_slice(&body_crc.to_le_bytes());
    let (code, message) = refused(&mut client, &unknown);
    assert_eq!(code, ErrorCode::UnsupportedCodec, "{message}");
    rig.stop();
}
