//! The producer by hand-driven time: a little broker that follows the sequence rules, and the
//! orders in which answers can come.

mod partitioning;
mod properties;

use std::collections::HashMap;

use ringway_wire::batch::{BatchHeader, CheckedBatch, Codec, LeaderStamp, check_produced, stamp};
use ringway_wire::request::{PartitionMetadata, TimestampSource};
use ringway_wire::{ErrorCode, Fault, LeaderEpoch, LogId, MetadataEpoch, NodeId, Offset, ShardId};

use super::*;
use crate::core::delivery::Delivered;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        acks: Acks::All,
        linger: Duration::ZERO,
        limits: BatchLimits {
            bytes_max: 1 << 20,
            records_max: 10_000,
        },
        in_flight: 5,
        delivery_timeout: 120 * SECOND,
        buffer_bytes: 1 << 20,
        idempotent: true,
        layout: None,
        trace: false,
        partitioning: Partitioning::ByKey,
        codec: None,
    }
}

fn view(topic: u128, partitions: u32) -> TopicView {
    let partition = |index| PartitionMetadata {
        partition: PartitionIndex(index),
        leader: NodeId(1),
        shard: ShardId(0),
        leader_epoch: LeaderEpoch(1),
        ..PartitionMetadata::default()
    };
    TopicView {
        name: "t".into(),
        topic: TopicId(topic),
        epoch: MetadataEpoch(1),
        codec: Codec::None,
        timestamp: TimestampSource::Producer,
        partitions: (0..partitions).map(partition).collect(),
    }
}

fn identity(id: u64) -> Identity {
    Identity {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
    }
}

/// A producer, its time, and what it has sent without an answer.
struct Bench {
    core: Producer,
    now: Instant,
    sent: Vec<Transmit>,
    identities_asked: usize,
    refreshes: usize,
}

impl Bench {
    fn new(settings: Settings, partitions: u32) -> Self {
        let identity = settings.idempotent.then(|| identity(1));
        let mut core = Producer::new(settings, identity, None);
        core.update_topic("t", Some(&view(1, partitions)), 0);
        let now = Instant::now();
        Self {
            core,
            now,
            sent: Vec::new(),
            identities_asked: 0,
            refreshes: 0,
        }
    }

    fn push(&mut self, value: &[u8]) -> Delivery {
        let record = RecordRef {
            value: Some(value),
            ..RecordRef::default()
        };
        self.core
            .push("t", Some(PartitionIndex(0)), &record, self.now)
            .unwrap()
            .delivery
    }

    fn poll(&mut self) {
        for _ in 0..1_000 {
            match self.core.poll(self.now, 0) {
                None => {
                    let next = self.core.next_poll();
                    assert!(next.is_none_or(|next| next > self.now), "it would spin");
                    return;
                }
                Some(Action::Send(transmit)) => self.sent.push(transmit),
                Some(Action::GetIdentity) => self.identities_asked += 1,
                Some(Action::Refresh(_)) => self.refreshes += 1,
            }
        }
        panic!("it never stops asking for more");
    }

    /// Pushes single records, each of which leaves alone.
    fn send(&mut self, values: &[&[u8]]) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for value in values {
            deliveries.push(self.push(value));
            self.poll();
        }
        deliveries
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.poll();
    }

    /// Answers the sending of this ordinal among those without an answer.
    fn answer(&mut self, index: usize, answer: Answer) {
        let transmit = self.sent.remove(index);
        self.core.answer(transmit.token, answer, self.now, 0);
        self.poll();
    }

    fn header(&self, index: usize) -> BatchHeader {
        BatchHeader::decode(&self.sent[index].bytes).unwrap()
    }

    fn sequences(&self) -> Vec<u32> {
        (0..self.sent.len())
            .map(|index| self.header(index).first_sequence.0)
            .collect()
    }
}

fn at(offset: u64) -> Answer {
    Answer::Reply(ProduceReply {
        base_offset: Offset(offset),
        ..ProduceReply::default()
    })
}

fn fault(code: ErrorCode) -> Answer {
    let fault = Some(Fault::new(code, "as the test says"));
    Answer::Reply(ProduceReply {
        fault,
        ..ProduceReply::default()
    })
}

fn lost(sent: bool) -> Answer {
    let (address, why) = ("there:1".into(), "gone".into());
    Answer::Lost(ConnectionLost {
        address,
        why,
        sent,
        refused: None,
    })
}

fn offset(delivery: &Delivery) -> u64 {
    delivery
        .result()
        .expect("resolved")
        .expect("delivered")
        .offset
        .unwrap()
        .0
}

fn error(delivery: &Delivery) -> ProduceError {
    delivery.result().expect("resolved").expect_err("failed")
}

#[test]
fn a_batch_leaves_at_once_and_what_comes_meanwhile_gathers_in_the_next() {
    let mut bench = Bench::new(
        Settings {
            in_flight: 1,
            ..settings()
        },
        1,
    );
    let first = bench.send(&[b"0"]);
    let rest = bench.send(&[b"1", b"2", b"3"]);
    assert_eq!(bench.sent.len(), 1);
    bench.answer(0, at(100));
    assert_eq!(offset(&first[0]), 100);
    assert_eq!((bench.sent.len(), bench.header(0).record_count), (1, 3));
    assert_eq!(bench.header(0).first_sequence.0, 1);
    bench.answer(0, at(200));
    assert_eq!(rest.iter().map(offset).collect::<Vec<_>>(), [200, 201, 202]);
    assert_eq!(bench.core.held_bytes(), 0);
}

#[test]
fn linger_waits_for_time_bytes_records_or_a_flush() {
    let linger = Duration::from_millis(5);
    let limits = BatchLimits {
        bytes_max: 1_000,
        records_max: 3,
    };
    let mut bench = Bench::new(
        Settings {
            linger,
            limits,
            ..settings()
        },
        1,
    );
    let _ = bench.send(&[b"a"]);
    bench.pass(linger / 2);
    assert!(bench.sent.is_empty());
    assert_eq!(bench.core.next_poll(), Some(bench.now + linger / 2));
    bench.pass(linger / 2);
    assert_eq!(bench.sent.len(), 1, "by time");
    let _ = bench.send(&[b"a", b"b", b"c"]);
    assert_eq!(bench.sent.len(), 2, "by records");
    let _ = bench.send(&[&[0; 600], &[1; 600]]);
    assert_eq!(
        bench.sent.len(),
        3,
        "by bytes: the second record didn't fit"
    );
    let waiting = bench.core.flush();
    bench.poll();
    assert_eq!((bench.sent.len(), waiting.len()), (4, 4), "by flush");
    let _ = bench.send(&[b"z"]);
    assert_eq!(bench.sent.len(), 4, "a flush is over once it has passed");
}

#[test]
fn no_more_than_five_are_in_flight_counted_from_the_oldest() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0", b"1", b"2", b"3", b"4", b"5", b"6"]);
    assert_eq!(bench.sequences(), [0, 1, 2, 3, 4]);
    bench.answer(3, at(3));
    assert_eq!(offset(&deliveries[3]), 3, "answers may come in any order");
    assert_eq!(
        bench.sequences(),
        [0, 1, 2, 4],
        "else the broker could forget the oldest"
    );
    bench.answer(0, at(0));
    assert_eq!(offset(&deliveries[0]), 0);
    assert_eq!(bench.sequences(), [1, 2, 4, 5]);
    assert_eq!(
        bench.header(3).record_count,
        2,
        "5 and 6 gathered in one batch"
    );
}

#[test]
fn a_lost_connection_sends_the_same_bytes_again_in_order() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0", b"1", b"2"]);
    let before: Vec<_> = bench
        .sent
        .iter()
        .map(|each| Arc::clone(&each.bytes))
        .collect();
    bench.answer(1, lost(true));
    bench.answer(1, lost(true));
    assert_eq!(bench.sent.len(), 1, "the first one has no answer yet");
    let _ = bench.send(&[b"3"]);
    assert_eq!(bench.sent.len(), 1, "nothing newer overtakes");
    bench.answer(0, lost(true));
    assert!(bench.sent.is_empty(), "a pause comes first");
    bench.pass(Duration::from_millis(5));
    assert_eq!(bench.sequences(), [0, 1, 2, 3]);
    for (again, before) in bench.sent.iter().zip(&before) {
        assert!(Arc::ptr_eq(&again.bytes, before));
    }
    assert!(bench.refreshes > 0);
    for base in 0..4 {
        bench.answer(0, at(base));
    }
    assert_eq!(offset(&deliveries[2]), 2);
}

#[test]
fn those_behind_a_passing_failure_go_again_with_it() {
    for behind in [ErrorCode::OutOfOrderSequence, ErrorCode::UnknownProducer] {
        let mut bench = Bench::new(settings(), 1);
        let deliveries = bench.send(&[b"0", b"1", b"2"]);
        bench.answer(0, fault(ErrorCode::Overloaded));
        bench.answer(0, fault(behind));
        bench.answer(0, fault(behind));
        bench.pass(SECOND);
        assert_eq!(bench.sequences(), [0, 1, 2]);
        assert_eq!(bench.header(0).producer_id, ProducerId(1));
        for base in 0..3 {
            bench.answer(0, at(base));
        }
        assert_eq!(deliveries.iter().map(offset).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(bench.identities_asked, 0);
    }
}

#[test]
fn pauses_grow_until_a_success() {
    let mut bench = Bench::new(settings(), 1);
    let _ = bench.send(&[b"0"]);
    for pause_ms in [5, 10, 20, 40, 80, 160, 320, 500, 500] {
        bench.answer(0, fault(ErrorCode::StorageFull));
        bench.pass(Duration::from_millis(pause_ms - 1));
        assert!(bench.sent.is_empty());
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.sent.len(), 1, "after {pause_ms} ms");
    }
    bench.answer(0, at(0));
    let _ = bench.send(&[b"1"]);
    bench.answer(0, fault(ErrorCode::StorageFull));
    bench.pass(Duration::from_millis(5));
    assert_eq!(bench.sent.len(), 1);
}

#[test]
fn a_fatal_error_fails_what_is_behind_and_a_new_id_begins() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0", b"1", b"2"]);
    bench.answer(0, at(0));
    bench.answer(0, fault(ErrorCode::RecordTooLarge));
    assert_eq!(
        error(&deliveries[1]).code(),
        Some(ErrorCode::RecordTooLarge)
    );
    let _ = bench.send(&[b"3"]);
    assert_eq!(
        bench.sent.len(),
        1,
        "the last one of the old id has no answer yet"
    );
    bench.answer(0, fault(ErrorCode::OutOfOrderSequence));
    let behind = error(&deliveries[2]);
    assert!(
        matches!(
            behind,
            ProduceError::Behind {
                maybe_written: false,
                ..
            }
        ),
        "{behind}"
    );
    assert_eq!((bench.identities_asked, bench.sent.len()), (1, 0));
    bench.pass(SECOND);
    assert_eq!(bench.identities_asked, 1, "asked once");
    bench.core.set_identity(identity(2));
    bench.poll();
    let header = bench.header(0);
    assert_eq!((header.producer_id.0, header.first_sequence.0), (2, 0));
    bench.answer(0, at(1));
    assert_eq!(bench.core.held_bytes(), 0);
}

#[test]
fn out_of_order_alone_is_the_brokers_loss_and_fatal() {
    let mut bench = Bench::new(settings(), 1);
    let first = bench.send(&[b"0"]);
    bench.answer(0, at(0));
    assert_eq!(offset(&first[0]), 0);
    let deliveries = bench.send(&[b"1"]);
    bench.answer(0, fault(ErrorCode::OutOfOrderSequence));
    assert_eq!(
        error(&deliveries[0]).code(),
        Some(ErrorCode::OutOfOrderSequence)
    );
    let again = bench.send(&[b"2"]);
    assert_eq!(bench.identities_asked, 1);
    bench.core.set_identity(identity(7));
    bench.poll();
    bench.answer(0, at(1));
    assert_eq!(offset(&again[0]), 1);
}

#[test]
fn another_partition_goes_on_with_the_old_id() {
    let mut bench = Bench::new(settings(), 2);
    let _ = bench.send(&[b"0"]);
    let record = RecordRef {
        value: Some(b"x"),
        ..RecordRef::default()
    };
    let _ = bench
        .core
        .push("t", Some(PartitionIndex(1)), &record, bench.now)
        .unwrap();
    bench.poll();
    bench.answer(0, fault(ErrorCode::UnknownProducer));
    bench.answer(0, at(0));
    let _ = bench
        .core
        .push("t", Some(PartitionIndex(1)), &record, bench.now)
        .unwrap();
    bench.poll();
    let header = bench.header(0);
    assert_eq!((header.producer_id.0, header.first_sequence.0), (1, 1));
}

#[test]
fn a_forgotten_duplicate_leaves_no_gap() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0", b"1"]);
    bench.answer(0, fault(ErrorCode::DuplicateSequence));
    assert_eq!(
        error(&deliveries[0]).code(),
        Some(ErrorCode::DuplicateSequence)
    );
    bench.answer(0, at(1));
    let _ = bench.send(&[b"2"]);
    assert_eq!((bench.sequences(), bench.identities_asked), (vec![2], 0));
}

#[test]
fn records_that_never_left_expire_without_a_gap() {
    let mut bench = Bench::new(
        Settings {
            in_flight: 1,
            ..settings()
        },
        1,
    );
    let first = bench.send(&[b"0"]);
    bench.now += 60 * SECOND;
    let waiting = bench.send(&[b"1"]);
    bench.now += 59 * SECOND;
    bench.answer(0, at(0));
    assert_eq!((offset(&first[0]), bench.sequences()), (0, vec![1]));
    let behind = bench.send(&[b"2"]);
    bench.pass(61 * SECOND);
    let timed_out = error(&waiting[0]);
    assert!(matches!(
        timed_out,
        ProduceError::TimedOut {
            maybe_written: true,
            ..
        }
    ));
    bench.pass(59 * SECOND);
    let timed_out = error(&behind[0]);
    assert!(matches!(
        timed_out,
        ProduceError::TimedOut {
            maybe_written: false,
            ..
        }
    ));
    assert!(
        bench.core.held_bytes() > 0,
        "bytes on the wire count until the answer"
    );
    bench.answer(0, lost(true));
    assert_eq!(bench.core.held_bytes(), 0);
    let _ = bench.send(&[b"3"]);
    assert_eq!(
        bench.identities_asked, 1,
        "what was on the wire may have left a gap"
    );
}

#[test]
fn an_expired_batch_that_may_be_written_takes_those_behind_with_it() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0"]);
    bench.now += 30 * SECOND;
    let younger = bench.send(&[b"1"]);
    bench.answer(0, lost(true));
    bench.answer(0, lost(false));
    bench.pass(SECOND);
    bench.answer(0, lost(true));
    bench.answer(0, lost(false));
    // Now both wait for another try, and the first one's time ends.
    bench.now += 90 * SECOND;
    bench.poll();
    let timed_out = error(&deliveries[0]);
    assert!(
        timed_out
            .to_string()
            .contains("it may have been appended): there:1: gone")
    );
    let behind = error(&younger[0]);
    assert!(
        matches!(
            behind,
            ProduceError::Behind {
                maybe_written: false,
                ..
            }
        ),
        "{behind}"
    );
    let _ = bench.send(&[b"2"]);
    assert_eq!((bench.identities_asked, bench.sent.len()), (1, 0));
    assert!(
        bench.core.next_poll().is_some(),
        "it expires without an id, too"
    );
}

#[test]
fn a_deleted_topic_fails_everything_and_ids_are_not_used_twice() {
    let mut bench = Bench::new(settings(), 2);
    let deliveries = bench.send(&[b"0", b"1"]);
    bench.core.update_topic("t", None, 0);
    assert!(matches!(
        error(&deliveries[1]),
        ProduceError::UnknownTopic { .. }
    ));
    assert_eq!(bench.core.held_bytes(), 0);
    let record = RecordRef {
        value: Some(b"x"),
        ..RecordRef::default()
    };
    let unknown = bench.core.push("t", None, &record, bench.now).unwrap_err();
    assert!(matches!(unknown, PushError::TopicNotKnown));
    bench.answer(0, at(0));
    bench.core.update_topic("t", Some(&view(1, 2)), 0);
    drop(bench.push(b"2"));
    bench.poll();
    assert_eq!(
        bench.identities_asked, 1,
        "sequence 0 of the old id was used there"
    );
}

#[test]
fn fewer_partitions_fail_what_goes_to_those_gone_and_more_are_used() {
    let mut bench = Bench::new(settings(), 2);
    let record = RecordRef {
        value: Some(b"x"),
        ..RecordRef::default()
    };
    let gone = bench
        .core
        .push("t", Some(PartitionIndex(1)), &record, bench.now)
        .unwrap()
        .delivery;
    bench.core.update_topic("t", Some(&view(1, 1)), 0);
    assert!(matches!(
        error(&gone),
        ProduceError::UnknownPartition { partitions: 1, .. }
    ));
    let refused = bench
        .core
        .push("t", Some(PartitionIndex(1)), &record, bench.now)
        .unwrap_err();
    assert!(matches!(
        refused,
        PushError::Never(ProduceError::UnknownPartition { partitions: 1, .. })
    ));
    bench.core.update_topic("t", Some(&view(1, 3)), 0);
    assert!(
        bench
            .core
            .push("t", Some(PartitionIndex(2)), &record, bench.now)
            .is_ok()
    );
}

#[test]
fn the_buffer_is_bounded_and_frees_with_answers() {
    let mut bench = Bench::new(
        Settings {
            buffer_bytes: 1_000,
            ..settings()
        },
        1,
    );
    let record = |bytes| RecordRef {
        value: Some(bytes),
        ..RecordRef::default()
    };
    let to = Some(PartitionIndex(0));
    let huge = bench
        .core
        .push("t", to, &record(&[0; 1_000]), bench.now)
        .unwrap_err();
    assert!(matches!(
        huge,
        PushError::Never(ProduceError::TooLarge { limit: 1_000, .. })
    ));
    let _ = bench.send(&[&[0; 600]]);
    let full = bench
        .core
        .push("t", to, &record(&[0; 600]), bench.now)
        .unwrap_err();
    assert!(matches!(full, PushError::Full));
    assert!(!bench.core.take_freed());
    bench.answer(0, at(0));
    assert!(bench.core.take_freed());
    assert!(
        bench
            .core
            .push("t", to, &record(&[0; 600]), bench.now)
            .is_ok()
    );
}

#[test]
fn with_acks_none_what_was_written_is_done_and_the_rest_goes_again() {
    let unsafe_settings = Settings {
        acks: Acks::None,
        idempotent: false,
        ..settings()
    };
    let mut bench = Bench::new(unsafe_settings, 1);
    let deliveries = bench.send(&[b"0", b"1", b"2"]);
    assert_eq!(bench.header(0).producer_id, ProducerId::NONE);
    bench.answer(0, Answer::Written);
    let Delivered { offset, .. } = deliveries[0].result().unwrap().unwrap();
    assert_eq!(offset, None);
    bench.answer(0, lost(true));
    bench.answer(0, lost(false));
    bench.pass(SECOND);
    let values: Vec<_> = bench.sent.iter().map(value).collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[test]
fn a_closed_producer_gives_up_what_it_has() {
    let mut bench = Bench::new(settings(), 1);
    let deliveries = bench.send(&[b"0", b"1", b"2", b"3", b"4", b"5"]);
    bench.core.abort();
    for delivery in &deliveries {
        assert!(matches!(error(delivery), ProduceError::Closed { .. }));
    }
    assert_eq!(bench.core.held_bytes(), 0);
}

/// The value of a batch's first record.
fn value(transmit: &Transmit) -> Vec<u8> {
    let batch = check_produced(&transmit.bytes).unwrap();
    let batch = batch.uncompressed().unwrap();
    batch.records().next().unwrap().value.unwrap().to_vec()
}

/// A partition that follows the sequence rules of the protocol.
#[derive(Default)]
struct Log {
    values: Vec<u32>,
    /// First sequence, records and base offset of each producer's batches.
    producers: HashMap<u64, Vec<(u32, u32, u64)>>,
}

impl Log {
    fn append(&mut self, transmit: &Transmit) -> Answer {
        let mut bytes = (*transmit.bytes).clone();
        let header = *check_produced(&bytes).unwrap().header();
        let (id, first, count) = (
            header.producer_id.0,
            header.first_sequence.0,
            header.record_count,
        );
        let known = self.producers.get(&id);
        if let Some(known) = known {
            let same = known
                .iter()
                .rev()
                .take(5)
                .find(|each| each.0 == first && each.1 == count);
            if let Some(&(_, _, base)) = same {
                return at(base);
            }
        }
        let next = known
            .and_then(|known| known.last())
            .map_or(0, |last| last.0 + last.1);
        match (known, next == first) {
            (None, false) => return fault(ErrorCode::UnknownProducer),
            (Some(_), false) => return fault(ErrorCode::OutOfOrderSequence),
            (_, true) => {}
        }
        let base = self.values.len() as u64;
        self.producers
            .entry(id)
            .or_default()
            .push((first, count, base));
        stamp(
            &mut bytes,
            &LeaderStamp {
                log_id: LogId(0),
                base_offset: Offset(base),
                append_time_us: 0,
                leader_epoch: LeaderEpoch(1),
                prev_header_crc: 0,
            },
        );
        for record in CheckedBatch::check(&bytes).unwrap().records() {
            self.values.push(u32::from_le_bytes(
                record.value.unwrap().try_into().unwrap(),
            ));
        }
        at(base)
    }
}

#[test]
fn batches_are_compressed_as_the_topic_says_unless_the_producer_was_told() {
    let line = [b'a'; 1_000];
    let codec = |transmit: &Transmit| check_produced(&transmit.bytes).unwrap().codec();
    let told = |codec| TopicView {
        codec,
        ..view(1, 1)
    };
    let mut bench = Bench::new(settings(), 1);
    bench.send(&[&line]);
    bench.core.update_topic("t", Some(&told(Codec::Zstd)), 0);
    bench.send(&[&line]);
    bench.core.update_topic("t", Some(&told(Codec::Lz4)), 0);
    bench.send(&[&line, b"short"]);
    let codecs: Vec<_> = bench.sent.iter().map(codec).collect();
    assert_eq!(codecs, [Codec::None, Codec::Zstd, Codec::Lz4, Codec::None]);

    for own in [Codec::None, Codec::Zstd] {
        let settings = Settings {
            codec: Some(own),
            ..settings()
        };
        let mut bench = Bench::new(settings, 1);
        bench.core.update_topic("t", Some(&told(Codec::Lz4)), 0);
        bench.send(&[&line]);
        assert_eq!(codec(&bench.sent[0]), own);
    }
}
