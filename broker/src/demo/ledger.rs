//! The sending side's books: what was given to the producer, when, and what the broker
//! acknowledged as durable. The receiving side is held against them.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use hdrhistogram::Histogram;
use ringway_client::{BatchReport, StageTimes};
use serde::Serialize;

use super::latency::{Latency, Percentiles, histogram};
use super::problem::{Kind, Problems};

/// A running hash over records in their order: two partitions with the same hash and count had the
/// same bytes. It has nothing in common with the CRCs that records and batches carry.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningHash(DefaultHasher);

impl RunningHash {
    /// Adds a record with all that the demo sends.
    pub(super) fn add(&mut self, value: &[u8], tag: &[u8], timestamp_us: i64) {
        for part in [value, tag] {
            self.0.write_usize(part.len());
            self.0.write(part);
        }
        self.0.write_i64(timestamp_us);
    }

    /// The hash so far.
    pub(super) fn get(&self) -> u64 {
        self.0.finish()
    }
}

/// One partition's books.
#[derive(Debug, Default)]
struct Lane {
    sent: u64,
    value_bytes: u64,
    hash: RunningHash,
    acknowledged: u64,
    /// When the records from offset `settled` on were sent; `None` for those that were
    /// acknowledged before an earlier one.
    waiting: VecDeque<Option<u64>>,
    /// All records below this offset are acknowledged.
    settled: u64,
}

/// What a partition was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Records.
    pub(super) records: u64,
    /// Bytes of their values.
    pub(super) value_bytes: u64,
    /// Records acknowledged as durable.
    pub(super) acknowledged: u64,
    /// The running hash over them.
    pub(super) hash: u64,
}

/// Where the broker spent its share of the time to durable, by its own word.
#[derive(Debug)]
struct Stages {
    received: Histogram<u64>,
    queued: Histogram<u64>,
    written: Histogram<u64>,
    durable: Histogram<u64>,
}

impl Stages {
    fn new() -> Self {
        Self {
            received: histogram(),
            queued: histogram(),
            written: histogram(),
            durable: histogram(),
        }
    }

    fn record(&mut self, times: &StageTimes, records: u64) {
        for (histogram, ns) in [
            (&mut self.received, times.received_ns),
            (&mut self.queued, times.queued_ns),
            (&mut self.written, times.written_ns),
            (&mut self.durable, times.durable_ns),
        ] {
            histogram.saturating_record_n(ns, records);
        }
    }
}

/// The stages inside the broker, in microseconds, over all records.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct StagePercentiles {
    /// From the request's last byte to the append in memory.
    pub(super) received: Percentiles,
    /// To the start of the write: waiting for the round before.
    pub(super) queued: Percentiles,
    /// To the write's completion.
    pub(super) written: Percentiles,
    /// To the sync's completion; 0 where the write was itself durable.
    pub(super) durable: Percentiles,
}

/// The books of all partitions. The topic is new and nobody else writes to it: a record's offset
/// is its ordinal among those sent to its partition.
#[derive(Debug)]
pub(super) struct Ledger {
    lanes: Vec<Lane>,
    batches: u64,
    stages: Stages,
    /// From sending to acknowledgement.
    pub(super) durable: Latency,
    /// What went wrong on this side.
    pub(super) problems: Problems,
}

impl Ledger {
    /// Empty books.
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
            batches: 0,
            stages: Stages::new(),
            durable: Latency::default(),
            problems: Problems::default(),
        }
    }

    /// A record is being sent.
    pub(super) fn sending(
        &mut self,
        partition: u32,
        now_ns: u64,
        (value, tag, timestamp_us): (&[u8], &[u8], i64),
    ) {
        let lane = &mut self.lanes[partition as usize];
        lane.sent += 1;
        lane.value_bytes += value.len() as u64;
        lane.hash.add(value, tag, timestamp_us);
        lane.waiting.push_back(Some(now_ns));
    }

    /// A batch was acknowledged or given up.
    pub(super) fn batch(&mut self, report: &BatchReport<'_>, now_ns: u64) {
        let partition = report.partition.0;
        let records = u64::from(report.records);
        match report.result {
            Ok(delivered) => {
                if let Some(times) = &delivered.stages {
                    self.stages.record(times, records);
                }
                match delivered.offset {
                    Some(offset) => self.acknowledged(partition, offset.0, records, now_ns),
                    None => self.problems.add(Kind::NotAcknowledged, records, || {
                        format!("partition {partition}: an acknowledgement without an offset")
                    }),
                }
            }
            Err(error) => self
                .problems
                .add(Kind::NotAcknowledged, records, || error.to_string()),
        }
    }

    fn acknowledged(&mut self, partition: u32, first: u64, records: u64, now_ns: u64) {
        self.batches += 1;
        let lane = &mut self.lanes[partition as usize];
        for offset in first..first.saturating_add(records) {
            let place = offset.checked_sub(lane.settled);
            let waiting =
                place.and_then(|place| lane.waiting.get_mut(usize::try_from(place).ok()?));
            match waiting.and_then(Option::take) {
                Some(sent_ns) => {
                    lane.acknowledged += 1;
                    self.durable.record(now_ns.saturating_sub(sent_ns), 1);
                }
                None => self.problems.add(Kind::AcknowledgedTwice, 1, || {
                    format!(
                        "partition {partition}: offset {offset} was acknowledged, and was not \
                         waiting for it"
                    )
                }),
            }
        }
        while let Some(None) = lane.waiting.front() {
            lane.waiting.pop_front();
            lane.settled += 1;
        }
    }

    /// Batches acknowledged.
    pub(super) const fn batches(&self) -> u64 {
        self.batches
    }

    /// Where the broker spent the time.
    pub(super) fn stages(&self) -> StagePercentiles {
        StagePercentiles {
            received: Percentiles::of(&self.stages.received),
            queued: Percentiles::of(&self.stages.queued),
            written: Percentiles::of(&self.stages.written),
            durable: Percentiles::of(&self.stages.durable),
        }
    }

    /// What each partition was sent so far.
    pub(super) fn sent(&self) -> Vec<Sent> {
        let of = |lane: &Lane| Sent {
            records: lane.sent,
            value_bytes: lane.value_bytes,
            acknowledged: lane.acknowledged,
            hash: lane.hash.get(),
        };
        self.lanes.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use ringway_client::{Delivered, ProduceError};
    use ringway_wire::{Offset, PartitionIndex, TopicPartition};

    use super::*;

    fn report(ledger: &mut Ledger, offset: u64, records: u32, now_ns: u64) {
        let result = Ok(Delivered {
            topic_partition: TopicPartition::default(),
            partition: PartitionIndex(1),
            offset: Some(Offset(offset)),
            append_time_us: 0,
            durability: None,
            stages: Some(StageTimes {
                queued_ns: 3_000_000,
                ..StageTimes::default()
            }),
        });
        told(ledger, records, &result, now_ns);
    }

    fn told(
        ledger: &mut Ledger,
        records: u32,
        result: &Result<Delivered, ProduceError>,
        now_ns: u64,
    ) {
        let report = BatchReport {
            topic: "t",
            partition: PartitionIndex(1),
            records,
            result,
        };
        ledger.batch(&report, now_ns);
    }

    fn kinds(ledger: &Ledger) -> Vec<(Kind, u64)> {
        let problems = ledger.problems.list();
        problems
            .iter()
            .map(|each| (each.kind, each.count))
            .collect()
    }

    #[test]
    fn acknowledgements_find_their_records_in_any_order() {
        let mut ledger = Ledger::new(2);
        for sent_ms in 0..6 {
            ledger.sending(1, sent_ms * 1_000_000, (b"v", b"t", 0));
        }
        report(&mut ledger, 4, 2, 6_000_000);
        report(&mut ledger, 0, 4, 10_000_000);
        assert_eq!(kinds(&ledger), []);
        assert_eq!((ledger.sent()[1].acknowledged, ledger.batches()), (6, 2));
        let lane = &ledger.lanes[1];
        assert_eq!((lane.settled, lane.waiting.len()), (6, 0));
        let queued = ledger.stages().queued.p50;
        assert!((queued - 3_000.0).abs() < 10.0, "{queued}");
        let latency = ledger.durable.total();
        assert!((latency.max - 10_000.0).abs() < 20.0, "{latency:?}");
        assert!(
            (latency.p50 - 7_000.0).abs() < 20.0,
            "1, 2, 7, 8, 9, 10 ms: {latency:?}"
        );
    }

    #[test]
    fn what_is_acknowledged_twice_or_never_sent_is_noticed() {
        let mut ledger = Ledger::new(2);
        for _ in 0..4 {
            ledger.sending(1, 0, (b"v", b"t", 0));
        }
        report(&mut ledger, 0, 2, 1);
        report(&mut ledger, 1, 1, 1);
        assert_eq!(kinds(&ledger), [(Kind::AcknowledgedTwice, 1)]);
        report(&mut ledger, 3, 2, 1);
        assert_eq!(kinds(&ledger), [(Kind::AcknowledgedTwice, 2)]);
        assert_eq!(ledger.sent()[1].acknowledged, 3);
    }

    #[test]
    fn failed_batches_are_problems() {
        let mut ledger = Ledger::new(2);
        ledger.sending(1, 0, (b"v", b"t", 0));
        let closed = ProduceError::Closed {
            topic: "t".into(),
            partition: PartitionIndex(1),
        };
        told(&mut ledger, 1, &Err(closed), 1);
        assert_eq!(kinds(&ledger), [(Kind::NotAcknowledged, 1)]);
        assert_eq!(ledger.sent()[1].acknowledged, 0);
    }

    #[test]
    fn the_hash_tells_parts_and_order_apart() {
        let hash = |records: &[(&[u8], &[u8], i64)]| {
            let mut hash = RunningHash::default();
            for (value, tag, timestamp_us) in records {
                hash.add(value, tag, *timestamp_us);
            }
            hash.get()
        };
        let one = hash(&[(b"ab", b"c", 1), (b"x", b"", 2)]);
        assert_eq!(one, hash(&[(b"ab", b"c", 1), (b"x", b"", 2)]));
        assert_ne!(one, hash(&[(b"a", b"bc", 1), (b"x", b"", 2)]));
        assert_ne!(one, hash(&[(b"x", b"", 2), (b"ab", b"c", 1)]));
        assert_ne!(one, hash(&[(b"ab", b"c", 1), (b"x", b"", 3)]));
    }
}
