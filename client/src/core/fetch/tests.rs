//! The consumer by hand-driven time: what it fetches, hands out and refuses.

use ringway_wire::batch::{
    BatchBuilder, BatchLimits, Codec, Compressor, LeaderStamp, ProducerStamp, RecordRef, stamp,
};
use ringway_wire::request::{PartitionMetadata, TimestampSource};
use ringway_wire::{ErrorCode, Fault, LeaderEpoch, MetadataEpoch, NodeId, ShardId};

use super::*;

const TOPIC: TopicId = TopicId(7);
/// When every batch here was appended.
const APPENDED_US: i64 = 1_700_000_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        fetch_bytes: 1 << 20,
        fetch_records: 0,
        fetch_wait: 30 * SECOND,
        prefetch_bytes: 16 << 20,
    }
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
    }
}

fn view(topic: TopicId, partitions: u32) -> TopicView {
    TopicView {
        name: "t".into(),
        topic,
        epoch: MetadataEpoch(2),
        codec: Codec::None,
        timestamp: TimestampSource::Producer,
        partitions: (0..partitions)
            .map(|index| PartitionMetadata {
                partition: PartitionIndex(index),
                leader: NodeId(1),
                shard: ShardId(0),
                leader_epoch: LeaderEpoch(1),
                ..PartitionMetadata::default()
            })
            .collect(),
    }
}

/// A batch as a broker would give it.
fn batch(partition: u32, base: u64, records: u64, value_bytes: usize, epoch: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let value = vec![base as u8; value_bytes];
    for _ in 0..records {
        builder
            .push(&RecordRef {
                value: Some(&value),
                ..RecordRef::default()
            })
            .unwrap();
    }
    let sealed = builder.seal(ProducerStamp::default()).unwrap();
    stamped(sealed.bytes, partition, base, epoch)
}

/// One record of so many bytes, compressed.
fn packed(base: u64, value_bytes: usize, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let value = vec![base as u8; value_bytes];
    let record = RecordRef {
        value: Some(&value),
        ..RecordRef::default()
    };
    builder.push(&record).unwrap();
    let mut compressor = Compressor::new();
    let sealed = builder.seal_with(ProducerStamp::default(), codec, &mut compressor);
    stamped(sealed.unwrap().bytes, 0, base, 1)
}

fn stamped(mut bytes: BatchBytes, partition: u32, base: u64, epoch: u32) -> Vec<u8> {
    let leader = LeaderStamp {
        log_id: at(partition).log_id(),
        base_offset: Offset(base),
        append_time_us: APPENDED_US,
        leader_epoch: LeaderEpoch(epoch),
        prev_header_crc: 0,
    };
    stamp(&mut bytes, &leader);
    bytes.to_vec()
}

fn reply(batches: &[Vec<u8>]) -> Answer {
    let mut bytes = BatchBytes::new();
    for batch in batches {
        bytes.extend_from_slice(batch);
    }
    let data = (!bytes.is_empty()).then(|| Arc::new(bytes));
    Answer::Reply(
        FetchReply {
            high_watermark: Offset(1_000),
            ..FetchReply::default()
        },
        data,
    )
}

fn fault(code: ErrorCode, safe: u64) -> Answer {
    let fault = Some(Fault::new(code, "as the test says"));
    let safe_offset = Offset(safe);
    Answer::Reply(
        FetchReply {
            fault,
            safe_offset,
            ..FetchReply::default()
        },
        None,
    )
}

struct Bench {
    core: Fetcher,
    opener: Opener,
    now: Instant,
    fetches: VecDeque<(Token, FetchRequest)>,
    refreshes: usize,
}

impl Bench {
    fn new(settings: Settings, partitions: u32) -> Self {
        let mut core = Fetcher::new(settings);
        for partition in 0..partitions {
            core.assign(
                &view(TOPIC, partitions),
                PartitionIndex(partition),
                Offset(0),
            );
        }
        let now = Instant::now();
        let mut bench = Self {
            core,
            opener: Opener::default(),
            now,
            fetches: VecDeque::new(),
            refreshes: 0,
        };
        bench.poll();
        bench
    }

    fn poll(&mut self) {
        for _ in 0..10_000 {
            match self.core.poll(self.now) {
                None => {
                    let next = self.core.next_poll();
                    assert!(next.is_none_or(|next| next > self.now), "it would spin");
                    return;
                }
                Some(Action::Fetch { token, request }) => self.fetches.push_back((token, request)),
                Some(Action::Refresh(_)) => self.refreshes += 1,
            }
        }
        panic!("it never stops asking for more");
    }

    fn answer(&mut self, answer: Answer) -> FetchRequest {
        let (token, request) = self.fetches.pop_front().expect("a fetch is under way");
        self.core.answer(token, answer, self.now, 0);
        self.poll();
        request
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.poll();
    }

    /// Takes one batch: its partition, first wanted and next offset.
    fn take(&mut self) -> (u32, u64, u64) {
        let parcel = self.core.take().expect("something came").expect("a batch");
        self.poll();
        let batch = self.opener.open(&parcel).unwrap();
        let first = batch.records().next().unwrap().offset;
        (batch.partition().0, first.0, batch.next_offset().0)
    }

    fn error(&mut self) -> ConsumeError {
        self.core
            .take()
            .expect("something came")
            .expect_err("an error")
    }

    fn position(&self) -> u64 {
        self.core.position("t", PartitionIndex(0)).unwrap().0
    }
}

#[test]
fn batches_come_in_order_and_the_next_fetch_begins_where_they_end() {
    let mut bench = Bench::new(settings(), 1);
    let request = bench.answer(reply(&[batch(0, 0, 3, 10, 1), batch(0, 3, 2, 10, 2)]));
    assert_eq!(
        (request.offset.0, request.last_epoch, request.wait_ms),
        (0, None, 30_000)
    );
    assert_eq!((request.bytes_max, request.topic), (1 << 20, TOPIC));
    let (_, next) = bench.fetches[0];
    assert_eq!((next.offset.0, next.last_epoch), (5, Some(LeaderEpoch(2))));
    assert_eq!(bench.position(), 0);
    assert_eq!(bench.take(), (0, 0, 3));
    assert_eq!(bench.position(), 3);
    assert_eq!(bench.take(), (0, 3, 5));
    assert!(bench.core.take().is_none());
    assert!(bench.core.in_vain().is_none());
}

#[test]
fn a_position_inside_a_batch_leaves_out_what_is_before_it() {
    let mut bench = Bench::new(settings(), 1);
    assert!(bench.core.seek("t", PartitionIndex(0), Offset(7)));
    bench.poll();
    assert_eq!(bench.fetches.len(), 2, "the old fetch has no answer yet");
    bench.answer(reply(&[batch(0, 0, 2, 10, 1)]));
    assert!(bench.core.take().is_none(), "a stale reply is dropped");
    assert_eq!(bench.answer(reply(&[batch(0, 5, 4, 10, 1)])).offset.0, 7);
    assert_eq!(bench.take(), (0, 7, 9));
    // Having read up to 9, a batch may not begin inside what was read.
    bench.answer(reply(&[batch(0, 8, 4, 10, 1)]));
    let error = bench.error();
    assert!(
        matches!(
            error,
            ConsumeError::WrongBatch {
                offset: Offset(9),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn gaps_steps_back_wrong_logs_and_older_epochs_are_refused() {
    let good = batch(0, 0, 3, 10, 5);
    let cases = [
        (batch(0, 4, 1, 10, 5), "offsets from 4"),
        (batch(0, 1, 1, 10, 5), "offsets from 1"),
        (batch(1, 3, 1, 10, 5), "belongs to log"),
        (batch(0, 3, 1, 10, 4), "epoch 4 is older than 5"),
        (vec![0; 128], "magic"),
        (batch(0, 3, 1, 10, 5)[..160].to_vec(), "of which 160 came"),
    ];
    for (bad, words) in cases {
        let mut bench = Bench::new(settings(), 1);
        bench.answer(reply(&[good.clone(), bad]));
        assert_eq!(bench.take(), (0, 0, 3), "what is good comes first");
        let error = bench.error();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.safe_offset(), Some(Offset(3)));
        assert!(bench.fetches.is_empty(), "it stands still");
        assert!(matches!(bench.core.in_vain(), Some(ConsumeError::Stopped)));
        bench.core.seek("t", PartitionIndex(0), Offset(3));
        bench.poll();
        bench.answer(reply(&[batch(0, 3, 1, 10, 5)]));
        assert_eq!(bench.take(), (0, 3, 4));
    }
}

#[test]
fn a_wrong_body_is_noticed_when_the_batch_is_taken() {
    let mut bench = Bench::new(settings(), 1);
    let mut bad = batch(0, 2, 1, 10, 1);
    let place = bad.len() - 40;
    bad[place] ^= 1;
    bench.answer(reply(&[batch(0, 0, 2, 10, 1), bad, batch(0, 3, 1, 10, 1)]));
    assert_eq!(bench.take(), (0, 0, 2));
    let parcel = bench.core.take().unwrap().unwrap();
    let why = bench.opener.open(&parcel).unwrap_err();
    let error = bench.core.reject(&parcel, &why);
    assert!(error.to_string().contains("body CRC"), "{error}");
    assert_eq!(bench.position(), 2);
    bench.answer(reply(&[batch(0, 4, 1, 10, 1)]));
    assert!(
        bench.core.take().is_none(),
        "what was fetched beyond it is dropped"
    );
}

#[test]
fn refusals_stop_one_partition_until_a_seek() {
    let cases = [
        (ErrorCode::OffsetOutOfRange, Some(0)),
        (ErrorCode::LogTruncated, Some(40)),
        (ErrorCode::DamagedBatch, Some(40)),
        (ErrorCode::StorageFailed, None),
    ];
    for (code, safe) in cases {
        let mut bench = Bench::new(settings(), 2);
        bench.answer(fault(code, 40));
        let error = bench.error();
        assert_eq!(error.safe_offset(), safe.map(Offset), "{error}");
        assert!(bench.core.in_vain().is_none(), "the other one goes on");
        bench.answer(reply(&[batch(1, 0, 1, 10, 1)]));
        assert_eq!(bench.take().0, 1);
    }
}

#[test]
fn passing_failures_pause_and_repeat_and_doubt_the_metadata_where_it_may_be_wrong() {
    let cases = [
        (Answer::Lost, 1),
        (fault(ErrorCode::NotLeader, 0), 1),
        (fault(ErrorCode::UnknownTopic, 0), 1),
        (fault(ErrorCode::PartitionRecovering, 0), 0),
    ];
    for (answer, refreshes) in cases {
        let mut bench = Bench::new(settings(), 1);
        bench.answer(answer);
        assert!(bench.fetches.is_empty() && bench.core.take().is_none());
        assert_eq!(bench.refreshes, refreshes);
        bench.pass(Duration::from_millis(5));
        assert_eq!(bench.fetches.len(), 1);
    }
}

#[test]
fn an_empty_reply_before_its_time_does_not_spin() {
    let mut bench = Bench::new(settings(), 1);
    bench.answer(reply(&[]));
    assert!(bench.fetches.is_empty());
    bench.pass(Duration::from_millis(10));
    bench.now += 30 * SECOND;
    bench.answer(reply(&[]));
    assert_eq!(
        bench.fetches.len(),
        1,
        "a wait that is over begins again at once"
    );
}

#[test]
fn what_is_held_stays_within_each_partitions_share_and_turns_are_fair() {
    let settings = Settings {
        prefetch_bytes: 256 << 10,
        ..settings()
    };
    let mut bench = Bench::new(settings, 4);
    let share = 64 << 10;
    let (mut next, mut held) = ([0_u64; 4], [0_usize; 4]);
    for _ in 0..100 {
        let Some((_, request)) = bench.fetches.front().copied() else {
            break;
        };
        assert_eq!(request.bytes_max as usize, share / 2);
        let partition = request.partition.0;
        let place = partition as usize;
        let bytes = batch(partition, next[place], 1, 10_000, 1);
        let count = request.bytes_max as usize / bytes.len();
        let batches: Vec<_> = (0..count as u64)
            .map(|index| batch(partition, next[place] + index, 1, 10_000, 1))
            .collect();
        next[place] += count as u64;
        held[place] += batches.iter().map(Vec::len).sum::<usize>();
        assert!(held[place] <= share);
        bench.answer(reply(&batches));
    }
    assert!(bench.fetches.is_empty(), "the space is used up");
    let order: Vec<_> = (0..8).map(|_| bench.take().0).collect();
    assert_eq!(order[..4], order[4..], "each in turn");
    let mut sorted = order[..4].to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3]);
    while bench.core.take().is_some() {}
    bench.poll();
    assert_eq!(bench.fetches.len(), 4, "room was made");
}

#[test]
fn a_topic_that_is_gone_stops_and_one_that_grows_is_followed() {
    let mut bench = Bench::new(settings(), 1);
    bench.core.update_topic("t", Some(&view(TOPIC, 3)));
    bench.poll();
    assert_eq!(bench.fetches.len(), 1, "the caller chose its partitions");
    bench.core.follow(&"t".into());
    bench.core.update_topic("t", Some(&view(TOPIC, 3)));
    bench.poll();
    assert_eq!(bench.fetches.len(), 3);
    bench.core.update_topic("t", Some(&view(TopicId(8), 2)));
    assert!(matches!(bench.error(), ConsumeError::Gone { .. }));
    bench.core.unassign("t");
    assert!(matches!(
        bench.core.in_vain(),
        Some(ConsumeError::NotAssigned)
    ));
    bench.answer(reply(&[batch(0, 0, 1, 10, 1)]));
    assert!(bench.core.take().is_none());
}

/// Prefetched as they are, inflated when they are handed out; the memory goes from one to the next,
/// but never while a batch is kept that looks into it.
#[test]
fn the_time_that_is_shown_is_the_one_that_the_topic_says() {
    let mut bench = Bench::new(settings(), 1);
    let times = |bench: &mut Bench| {
        let parcel = bench.core.take().expect("something came").expect("a batch");
        bench.poll();
        let batch = bench.opener.open(&parcel).unwrap();
        let times: Vec<_> = batch.records().map(|record| record.timestamp_us).collect();
        assert!(batch.records().all(|record| record.verify().is_ok()));
        times
    };
    bench.answer(reply(&[batch(0, 0, 2, 10, 1)]));
    assert_eq!(times(&mut bench), [0, 0], "their producer's");
    let mut appended = view(TOPIC, 1);
    appended.timestamp = TimestampSource::Append;
    bench.core.update_topic("t", Some(&appended));
    bench.answer(reply(&[batch(0, 2, 2, 10, 1)]));
    assert_eq!(times(&mut bench), [APPENDED_US; 2]);
    bench.core.assign(&appended, PartitionIndex(0), Offset(4));
    bench.poll();
    bench.fetches.pop_front();
    bench.answer(reply(&[packed(4, 1_000, Codec::Lz4)]));
    assert_eq!(
        times(&mut bench),
        [APPENDED_US],
        "also after a seek, compressed"
    );
}

#[test]
fn compressed_batches_are_inflated_one_at_a_time_into_memory_used_again() {
    const BYTES: usize = 200_000;
    for codec in [Codec::Lz4, Codec::Zstd] {
        let mut bench = Bench::new(settings(), 1);
        let batches: Vec<_> = (0..10).map(|base| packed(base, BYTES, codec)).collect();
        let stored: usize = batches.iter().map(Vec::len).sum();
        assert!(stored < BYTES / 10);
        bench.answer(reply(&batches));
        let mut kept = Vec::new();
        let mut places = std::collections::BTreeSet::new();
        for base in 0..10_u8 {
            let parcel = bench.core.take().unwrap().unwrap();
            let batch = bench.opener.open(&parcel).unwrap();
            let value = batch.records().next().unwrap().value.unwrap();
            assert_eq!(value, vec![base; BYTES], "{codec}");
            places.insert(value.as_ptr().addr());
            if base >= 4 {
                kept.push(batch);
            }
        }
        assert_eq!(
            places.len(),
            6,
            "one for those dropped, and for each kept its own"
        );
        for (batch, base) in kept.iter().zip(4_u8..) {
            let value = batch.records().next().unwrap().value.unwrap();
            assert_eq!(value, vec![base; BYTES], "a kept batch was written over");
        }
    }
}

#[test]
fn a_blob_that_cannot_be_inflated_stops_the_partition_before_it() {
    let mut bench = Bench::new(settings(), 1);
    let mut bad = BatchBytes::new();
    bad.extend_from_slice(&packed(0, 5_000, Codec::Lz4));
    // The blob's first byte: a literal that is longer than the block. The CRCs are right again.
    bad[128 + 32] = 0xf0;
    let body_crc = crc32c(&bad[48..]);
    bad[40..44].copy_from_slice(&body_crc.to_le_bytes());
    bench.answer(reply(&[stamped(bad, 0, 0, 1)]));
    let parcel = bench.core.take().unwrap().unwrap();
    let why = bench.opener.open(&parcel).unwrap_err();
    assert!(matches!(why, BatchError::Inflate { .. }), "{why}");
    let error = bench.core.reject(&parcel, &why);
    assert!(matches!(error, ConsumeError::WrongBatch { .. }), "{error}");
    assert_eq!(bench.position(), 0);

    let missing = BatchError::CodecMissing(Codec::Zstd);
    let error = bench.core.reject(&parcel, &missing).to_string();
    assert!(
        error.contains("build it with the feature `zstd`"),
        "{error}"
    );
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
