//! The receiving side's judgement of every record: offsets and sequences with no gap and no
//! repetition, its CRC, its archive, and the same bytes as were sent.

use ringway_client::RecordView;

use super::ledger::{RunningHash, Sent};
use super::problem::{Kind, Problems};
use super::sample::{Decoder, Sample, Source};

/// One partition as it arrives.
#[derive(Debug, Default)]
struct Lane {
    next_offset: u64,
    records: u64,
    value_bytes: u64,
    hash: RunningHash,
}

/// Looks at records of all partitions, each in its order.
#[derive(Debug)]
pub(super) struct Verifier {
    lanes: Vec<Lane>,
    /// The sequence that each source continues with.
    sequences: [u64; Source::ALL.len()],
    decoder: Decoder,
    problems: Problems,
}

impl Verifier {
    /// Nothing seen yet.
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
            sequences: [0; Source::ALL.len()],
            decoder: Decoder::default(),
            problems: Problems::default(),
        }
    }

    /// Looks at the next record of a partition; its sample, if it has one.
    pub(super) fn record(&mut self, partition: u32, record: &RecordView<'_>) -> Option<Sample<'_>> {
        let partitions = self.lanes.len() as u32;
        let lane = &mut self.lanes[partition as usize];
        let offset = record.offset.0;
        let place = || format!("partition {partition}, offset {offset}");
        in_order(
            &mut lane.next_offset,
            offset,
            &mut self.problems,
            |expected| format!("{}: expected offset {expected}", place()),
        );
        lane.records += 1;
        let value = record.value.unwrap_or_default();
        lane.value_bytes += value.len() as u64;
        lane.hash
            .add(value, record.tag.unwrap_or_default(), record.timestamp_us);
        if let Err(error) = record.verify() {
            self.problems
                .add(Kind::Damaged, 1, || format!("{}: {error}", place()));
        }
        let sample = match self.decoder.sample(value) {
            Ok(sample) => sample,
            Err(error) => {
                self.problems.add(Kind::NotASample, 1, || {
                    format!("{}: the value is no sample: {error}", place())
                });
                return None;
            }
        };
        if sample.source.partition(partitions) != partition {
            self.problems.add(Kind::NotASample, 1, || {
                format!("{}: a sample of {:?}", place(), sample.source)
            });
        }
        in_order(
            &mut self.sequences[sample.source as usize],
            sample.sequence,
            &mut self.problems,
            |expected| {
                let (name, sequence) = (sample.source.name(), sample.sequence);
                format!(
                    "{}: sample {sequence} of {name}, expected {expected}",
                    place()
                )
            },
        );
        Some(sample)
    }

    /// The consumer failed.
    pub(super) fn failed(&mut self, message: String) {
        self.problems.add(Kind::NotConsumed, 1, || message);
    }

    /// Records and bytes of values that arrived.
    pub(super) fn received(&self) -> (u64, u64) {
        let lanes = self.lanes.iter();
        lanes.fold((0, 0), |(records, bytes), lane| {
            (records + lane.records, bytes + lane.value_bytes)
        })
    }

    /// Whether nothing wrong was found so far.
    pub(super) fn is_content(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether as many records of each partition have arrived as were sent.
    pub(super) fn has_all(&self, sent: &[Sent]) -> bool {
        let mut pairs = self.lanes.iter().zip(sent);
        pairs.all(|(lane, sent)| lane.next_offset >= sent.records)
    }

    /// All that is wrong, once everything that arrives has arrived.
    pub(super) fn verdict(&self, sent: &[Sent]) -> Problems {
        let mut problems = self.problems.clone();
        for (partition, (lane, sent)) in self.lanes.iter().zip(sent).enumerate() {
            let (arrived, expected) = (lane.records, sent.records);
            let counts =
                || format!("partition {partition}: {arrived} of {expected} records arrived");
            if arrived < expected {
                problems.add(Kind::Missing, expected - arrived, counts);
            } else if arrived > expected {
                problems.add(Kind::TooMany, arrived - expected, counts);
            } else if (lane.hash.get(), lane.value_bytes) != (sent.hash, sent.value_bytes) {
                problems.add(Kind::Different, 1, || {
                    format!("partition {partition}: the bytes that arrived are not those sent")
                });
            }
        }
        problems
    }
}

/// Whether `found` is the next number; if not, says so, and goes on behind it.
fn in_order(next: &mut u64, found: u64, problems: &mut Problems, say: impl FnOnce(u64) -> String) {
    let expected = *next;
    if found < expected {
        problems.add(Kind::Repeated, 1, || say(expected));
        return;
    }
    if found > expected {
        problems.add(Kind::Gap, found - expected, || say(expected));
    }
    *next = found + 1;
}

#[cfg(test)]
mod tests;
