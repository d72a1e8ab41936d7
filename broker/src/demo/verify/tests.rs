//! The verifier against real batches with every kind of mistake in them: each has to be found, and
//! named for what it is.

use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchLimits, CheckedBatch, LeaderStamp, ProducerStamp, RecordRef, at,
    stamp,
};
use ringway_wire::limits::LEADER_PART_BYTES;
use ringway_wire::{LeaderEpoch, LogId, Offset};

use super::super::ledger::Ledger;
use super::super::sample::{Encoder, Moment, Reading};
use super::*;

const PARTITIONS: u32 = 2;
const PARTITION: u32 = Source::Cpu.partition(PARTITIONS);
const TIMESTAMP_US: i64 = 1_700_000_000_000_000;

/// `count` samples of one source, sent, in a batch's bytes.
struct Sending {
    encoder: Encoder,
    ledger: Ledger,
}

impl Sending {
    fn new() -> Self {
        Self {
            encoder: Encoder::default(),
            ledger: Ledger::new(PARTITIONS),
        }
    }

    fn reading(&mut self, source: Source, count: i64) -> Reading {
        let at = Moment {
            time_ns: 5,
            timestamp_us: TIMESTAMP_US,
        };
        let mut reading = self.encoder.begin(source, at);
        for value in 0..count {
            reading.add("user", "cpu0", value);
        }
        reading.end()
    }

    fn send(&mut self, count: i64) -> Vec<Vec<u8>> {
        let reading = self.reading(Source::Cpu, count);
        let values: Vec<_> = reading.values().map(<[u8]>::to_vec).collect();
        for value in &values {
            let tag = Source::Cpu.name().as_bytes();
            self.ledger
                .sending(PARTITION, 0, (value, tag, TIMESTAMP_US));
        }
        values
    }
}

fn batch(values: &[Vec<u8>]) -> BatchBytes {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    for value in values {
        let record = RecordRef {
            value: Some(value),
            tag: Some(Source::Cpu.name().as_bytes()),
            timestamp_us: TIMESTAMP_US,
            ..RecordRef::default()
        };
        builder.push(&record).unwrap();
    }
    builder.seal(ProducerStamp::default()).unwrap().bytes
}

/// Has the batch appended at an offset, by somebody who makes its own CRCs right whatever is in it:
/// nothing but the verifier is left to find a mistake.
fn receive(verifier: &mut Verifier, base_offset: u64, bytes: &[u8]) -> usize {
    let mut appended = BatchBytes::with_capacity(bytes.len());
    appended.extend_from_slice(bytes);
    let body_crc = crc32c::crc32c(&appended[LEADER_PART_BYTES..]);
    appended[at::BODY_CRC..at::BODY_CRC + 4].copy_from_slice(&body_crc.to_le_bytes());
    let leader = LeaderStamp {
        log_id: LogId(1),
        base_offset: Offset(base_offset),
        append_time_us: TIMESTAMP_US,
        leader_epoch: LeaderEpoch(1),
        prev_header_crc: 0,
    };
    stamp(&mut appended, &leader);
    let batch = CheckedBatch::check(&appended).unwrap();
    let looked = batch
        .records()
        .map(|record| verifier.record(PARTITION, &record).is_some());
    looked.filter(|&is_sample| is_sample).count()
}

fn kinds(problems: &Problems) -> Vec<(Kind, u64)> {
    let problems = problems.list();
    problems
        .iter()
        .map(|each| (each.kind, each.count))
        .collect()
}

#[test]
fn what_arrives_as_sent_has_no_problem() {
    let mut sending = Sending::new();
    let mut verifier = Verifier::new(PARTITIONS);
    let (first, second) = (sending.send(10), sending.send(5));
    assert_eq!(receive(&mut verifier, 0, &batch(&first)), 10);
    assert!(!verifier.has_all(&sending.ledger.sent()));
    assert_eq!(receive(&mut verifier, 10, &batch(&second)), 5);
    let sent = sending.ledger.sent();
    assert!(verifier.has_all(&sent));
    assert!(verifier.verdict(&sent).is_empty());
    assert_eq!(
        verifier.received(),
        (15, sent[PARTITION as usize].value_bytes)
    );
}

#[test]
fn a_lost_record_is_a_gap_of_sequences_even_where_offsets_go_on() {
    let mut sending = Sending::new();
    let mut verifier = Verifier::new(PARTITIONS);
    let mut values = sending.send(10);
    values.remove(4);
    receive(&mut verifier, 0, &batch(&values));
    let verdict = verifier.verdict(&sending.ledger.sent());
    assert_eq!(kinds(&verdict), [(Kind::Gap, 1), (Kind::Missing, 1)]);
    let first = &verdict.list()[0].first;
    assert!(
        first.contains("offset 4") && first.contains("sample 5 of cpu"),
        "{first}"
    );
}

#[test]
fn left_out_offsets_are_a_gap() {
    let mut sending = Sending::new();
    let mut verifier = Verifier::new(PARTITIONS);
    let values = sending.send(4);
    receive(&mut verifier, 3, &batch(&values));
    let verdict = verifier.verdict(&sending.ledger.sent());
    assert_eq!(kinds(&verdict), [(Kind::Gap, 3)]);
}

#[test]
fn a_batch_that_comes_twice_is_repeated() {
    let mut sending = Sending::new();
    let mut verifier = Verifier::new(PARTITIONS);
    let bytes = batch(&sending.send(3));
    receive(&mut verifier, 0, &bytes);
    receive(&mut verifier, 3, &bytes);
    let verdict = verifier.verdict(&sending.ledger.sent());
    assert_eq!(kinds(&verdict), [(Kind::Repeated, 3), (Kind::TooMany, 3)]);
    // With the offsets of before, both numbers say so.
    let mut verifier = Verifier::new(PARTITIONS);
    receive(&mut verifier, 0, &bytes);
    receive(&mut verifier, 0, &bytes);
    let verdict = verifier.verdict(&sending.ledger.sent());
    assert_eq!(kinds(&verdict), [(Kind::Repeated, 6), (Kind::TooMany, 3)]);
}

#[test]
fn a_swap_is_a_gap_and_a_repetition() {
    let mut sending = Sending::new();
    let mut verifier = Verifier::new(PARTITIONS);
    let mut values = sending.send(6);
    values.swap(2, 3);
    receive(&mut verifier, 0, &batch(&values));
    let verdict = verifier.verdict(&sending.ledger.sent());
    // After the jump to 3, 2 is late; 4 then follows 3.
    let expected = [(Kind::Gap, 1), (Kind::Repeated, 1), (Kind::Different, 1)];
    assert_eq!(kinds(&verdict), expected);
}

#[test]
fn every_flipped_bit_of_a_value_is_damage() {
    let mut sending = Sending::new();
    let values = sending.send(3);
    let clean = batch(&values);
    let start = clean
        .windows(values[1].len())
        .position(|window| window == values[1])
        .unwrap();
    for place in 0..values[1].len() * 8 {
        let mut bytes = clean.clone();
        bytes[start + place / 8] ^= 1 << (place % 8);
        let mut verifier = Verifier::new(PARTITIONS);
        receive(&mut verifier, 0, &bytes);
        let verdict = verifier.verdict(&sending.ledger.sent());
        let kinds = kinds(&verdict);
        assert!(
            kinds.contains(&(Kind::Damaged, 1)),
            "bit {place}: {kinds:?}"
        );
        assert!(
            kinds.contains(&(Kind::Different, 1)),
            "bit {place}: {kinds:?}"
        );
    }
}

#[test]
fn other_bytes_with_a_right_crc_are_different() {
    let mut sending = Sending::new();
    let mut values = sending.send(3);
    let mut other = Sending::new();
    let reading = other.reading(Source::Cpu, 2);
    let mut forged = reading.values().nth(1).unwrap().to_vec();
    // The same sample but for one letter of its metric, which begins the archive.
    assert_eq!(&forged[..4], b"user");
    forged[0] = b'U';
    values[1] = forged;
    let mut verifier = Verifier::new(PARTITIONS);
    assert_eq!(receive(&mut verifier, 0, &batch(&values)), 3);
    let verdict = verifier.verdict(&sending.ledger.sent());
    assert_eq!(kinds(&verdict), [(Kind::Different, 1)]);
}

#[test]
fn strangers_are_no_samples() {
    let mut verifier = Verifier::new(PARTITIONS);
    let stranger = Sending::new().reading(Source::Interrupts, 1);
    assert_ne!(Source::Interrupts.partition(PARTITIONS), PARTITION);
    let mut values: Vec<_> = stranger.values().map(<[u8]>::to_vec).collect();
    values.push(b"hello".to_vec());
    assert_eq!(receive(&mut verifier, 0, &batch(&values)), 1);
    let verdict = verifier.verdict(&Ledger::new(PARTITIONS).sent());
    assert_eq!(kinds(&verdict), [(Kind::NotASample, 2), (Kind::TooMany, 2)]);
}

#[test]
fn a_consumer_that_failed_is_a_problem_of_its_own() {
    let mut verifier = Verifier::new(PARTITIONS);
    verifier.failed("the log was cut".to_owned());
    let verdict = verifier.verdict(&Ledger::new(PARTITIONS).sent());
    assert_eq!(kinds(&verdict), [(Kind::NotConsumed, 1)]);
}
