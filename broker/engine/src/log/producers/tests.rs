//! Verdicts by example, then against a model that keeps every batch of a history.

use proptest::prelude::*;

use super::*;

fn header(id: u64, epoch: u16, first_sequence: u32, count: u32) -> BatchHeader {
    BatchHeader {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        first_sequence: Sequence(first_sequence),
        record_count: count,
        last_offset_delta: count - 1,
        ..BatchHeader::default()
    }
}

fn stamped(header: BatchHeader, base_offset: u64, append_time_us: i64) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(base_offset),
        append_time_us,
        ..header
    }
}

fn code(verdict: &Verdict) -> Option<ErrorCode> {
    match verdict {
        Verdict::Refuse { code, .. } => Some(*code),
        _ => None,
    }
}

fn decoded(producers: &Producers) -> Producers {
    let mut out = Writer::default();
    producers.encode(&mut out);
    let bytes = out.into_bytes();
    let mut reader = Reader::new(&bytes);
    let decoded = Producers::decode(&mut reader).unwrap();
    reader.finish().unwrap();
    decoded
}

#[test]
fn a_batch_without_a_producer_is_never_checked() {
    let mut producers = Producers::new();
    let batch = header(0, 3, 77, 2);
    producers.record(&batch);
    assert_eq!(producers.check(&batch), Verdict::Append);
    assert_eq!(producers.count(), 0);
}

#[test]
fn every_verdict_has_its_code() {
    let mut producers = Producers::new();
    let unknown = producers.check(&header(7, 1, 5, 1));
    assert_eq!(code(&unknown), Some(ErrorCode::UnknownProducer));
    assert_eq!(producers.check(&header(7, 1, 0, 10)), Verdict::Append);
    for ordinal in 0..7 {
        let batch = header(7, 1, ordinal * 10, 10);
        assert_eq!(producers.check(&batch), Verdict::Append);
        producers.record(&stamped(
            batch,
            100 + u64::from(ordinal) * 50,
            i64::from(ordinal),
        ));
    }
    let oldest_kept = producers.check(&header(7, 1, 20, 10));
    let wanted = Verdict::Duplicate {
        base_offset: Offset(200),
        append_time_us: 2,
    };
    assert_eq!(oldest_kept, wanted);
    for (batch, wanted) in [
        (header(7, 1, 10, 10), ErrorCode::DuplicateSequence),
        (header(7, 1, 25, 10), ErrorCode::DuplicateSequence),
        (header(7, 1, 60, 11), ErrorCode::OutOfOrderSequence),
        (header(7, 1, 71, 1), ErrorCode::OutOfOrderSequence),
        (header(7, 0, 70, 1), ErrorCode::FencedProducer),
        (header(7, 2, 70, 1), ErrorCode::OutOfOrderSequence),
    ] {
        let verdict = producers.check(&batch);
        assert_eq!(code(&verdict), Some(wanted), "{verdict:?}");
    }
    assert_eq!(producers.check(&header(7, 2, 0, 1)), Verdict::Append);
    producers.record(&stamped(header(7, 2, 0, 1), 900, 9));
    assert_eq!(
        code(&producers.check(&header(7, 1, 70, 1))),
        Some(ErrorCode::FencedProducer)
    );
    assert_eq!(decoded(&producers), producers);
}

#[test]
fn sequences_wrap_around() {
    let mut producers = Producers::new();
    producers.record(&stamped(header(7, 0, u32::MAX - 14, 10), 0, 0));
    producers.record(&stamped(header(7, 0, u32::MAX - 4, 10), 10, 0));
    assert_eq!(producers.check(&header(7, 0, 5, 1)), Verdict::Append);
    assert_eq!(
        code(&producers.check(&header(7, 0, 6, 1))),
        Some(ErrorCode::OutOfOrderSequence)
    );
    let again = producers.check(&header(7, 0, u32::MAX - 4, 10));
    assert!(
        matches!(
            again,
            Verdict::Duplicate {
                base_offset: Offset(10),
                ..
            }
        ),
        "{again:?}"
    );
    let older = producers.check(&header(7, 0, u32::MAX - 30, 3));
    assert_eq!(code(&older), Some(ErrorCode::DuplicateSequence));
    assert_eq!(decoded(&producers), producers);
}

#[test]
fn the_longest_unused_are_forgotten() {
    let mut producers = Producers::new();
    for id in 1..=PRODUCERS_MAX as u64 {
        producers.record(&stamped(header(id, 0, 0, 1), id, id as i64));
    }
    producers.record(&stamped(header(1, 0, 1, 1), 1 << 20, 1 << 20));
    assert_eq!(producers.count(), PRODUCERS_MAX);
    producers.record(&stamped(header(1 << 40, 0, 0, 1), 1 << 21, 1 << 21));
    assert_eq!(
        producers.count(),
        PRODUCERS_MAX + 1 - PRODUCERS_FORGOTTEN_AT_ONCE
    );
    assert_eq!(producers.check(&header(1, 0, 2, 1)), Verdict::Append);
    assert_eq!(
        code(&producers.check(&header(2, 0, 1, 1))),
        Some(ErrorCode::UnknownProducer)
    );
    let last_forgotten = 1 + PRODUCERS_FORGOTTEN_AT_ONCE as u64;
    assert_ne!(
        producers.check(&header(last_forgotten, 0, 1, 1)),
        Verdict::Append
    );
    assert_eq!(
        producers.check(&header(last_forgotten + 1, 0, 1, 1)),
        Verdict::Append
    );
    producers.expire(1 << 21);
    assert_eq!(producers.count(), 1);
}

/// What a producer might send: mostly the next batch, sometimes something else.
#[derive(Clone, Debug)]
enum Sent {
    Next { count: u32 },
    Again { back: usize },
    NewEpoch { count: u32 },
    Odd { first: u32, count: u32, epoch: u16 },
}

fn sent() -> impl Strategy<Value = (u64, Sent)> {
    let sent = prop_oneof![
        6 => (1..9_u32).prop_map(|count| Sent::Next { count }),
        3 => (0..8_usize).prop_map(|back| Sent::Again { back }),
        1 => (1..9_u32).prop_map(|count| Sent::NewEpoch { count }),
        1 => (0..40_u32, 1..9_u32, 0..3_u16)
            .prop_map(|(first, count, epoch)| Sent::Odd { first, count, epoch }),
    ];
    (1..4_u64, sent)
}

/// Everything that was appended, and the rules read off it.
#[derive(Default)]
struct History {
    appended: Vec<BatchHeader>,
}

impl History {
    fn of(&self, id: u64) -> Vec<&BatchHeader> {
        let own = self
            .appended
            .iter()
            .filter(|batch| batch.producer_id.0 == id);
        own.collect()
    }

    fn header(&self, id: u64, sent: &Sent) -> BatchHeader {
        let own = self.of(id);
        let (epoch, next) = own.last().map_or((0, 0), |last| {
            (last.producer_epoch.0, last.last_sequence().0 + 1)
        });
        match *sent {
            Sent::Next { count } => header(id, epoch, next, count),
            Sent::NewEpoch { count } => header(id, epoch + 1, 0, count),
            Sent::Odd {
                first,
                count,
                epoch,
            } => header(id, epoch, first, count),
            Sent::Again { back } => match own.iter().rev().nth(back) {
                Some(batch) => BatchHeader {
                    base_offset: Offset(0),
                    append_time_us: 0,
                    ..**batch
                },
                None => header(id, epoch, next, 1),
            },
        }
    }

    fn verdict(&self, batch: &BatchHeader) -> Result<Option<(Offset, i64)>, ErrorCode> {
        let own = self.of(batch.producer_id.0);
        let Some(last) = own.last() else {
            return match batch.first_sequence.0 {
                0 => Ok(None),
                _ => Err(ErrorCode::UnknownProducer),
            };
        };
        if batch.producer_epoch < last.producer_epoch {
            return Err(ErrorCode::FencedProducer);
        }
        let epoch_own = own
            .iter()
            .filter(|each| each.producer_epoch == batch.producer_epoch);
        let next = epoch_own.clone().map(|each| each.record_count).sum::<u32>();
        if batch.first_sequence.0 == next {
            return Ok(None);
        }
        let same = |each: &&&BatchHeader| {
            each.first_sequence == batch.first_sequence && each.record_count == batch.record_count
        };
        if let Some(kept) = epoch_own.rev().take(PRODUCER_BATCHES_MAX).find(same) {
            return Ok(Some((kept.base_offset, kept.append_time_us)));
        }
        if batch.first_sequence.0 + batch.record_count <= next {
            return Err(ErrorCode::DuplicateSequence);
        }
        Err(ErrorCode::OutOfOrderSequence)
    }
}

proptest! {
    #[test]
    fn verdicts_are_those_of_the_whole_history(
        all in prop::collection::vec(sent(), 1..120), snapshot in 0..120_usize,
    ) {
        let mut history = History::default();
        let mut producers = Producers::new();
        let mut rebuilt = Producers::new();
        for (step, (id, sent)) in all.iter().enumerate() {
            if step == snapshot {
                rebuilt = decoded(&rebuilt);
            }
            let batch = history.header(*id, sent);
            let verdict = producers.check(&batch);
            match history.verdict(&batch) {
                Ok(None) => {
                    prop_assert_eq!(verdict, Verdict::Append);
                    let next = history.appended.last().map_or(0, |last| last.next_offset().0);
                    let batch = stamped(batch, next, step as i64 / 3);
                    history.appended.push(batch);
                    producers.record(&batch);
                    rebuilt.record(&batch);
                }
                Ok(Some((base_offset, append_time_us))) => {
                    let wanted = Verdict::Duplicate { base_offset, append_time_us };
                    prop_assert_eq!(verdict, wanted);
                }
                Err(wanted) => prop_assert_eq!(code(&verdict), Some(wanted)),
            }
        }
        prop_assert_eq!(&rebuilt, &producers);
        let mut expired = producers.clone();
        let before_us = all.len() as i64 / 6;
        expired.expire(before_us);
        for id in 1..4 {
            let used = history.of(id).last().map(|batch| batch.append_time_us);
            let known = expired.by_id.contains_key(&ProducerId(id));
            prop_assert_eq!(known, used.is_some_and(|used| used >= before_us));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(producers) = Producers::decode(&mut Reader::new(&bytes)) {
            prop_assert_eq!(decoded(&producers), producers);
        }
    }
}
