//! Which partition a record goes to: by its key or, without one, batch by batch in turn; or record
//! by record in turn; or as the user's own code says.

use std::fmt;
use std::sync::Arc;

use ringway_wire::PartitionIndex;
use ringway_wire::batch::RecordRef;

use crate::core::mapping::Partitions;

/// What a [`Partitioner`] is shown of a record.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The key, if the record has one.
    pub key: Option<&'a [u8]>,
    /// The value, if the record has one.
    pub value: Option<&'a [u8]>,
    /// The tag, if the record has one.
    pub tag: Option<&'a [u8]>,
    /// The producer's time, in microseconds since 1970.
    pub timestamp_us: i64,
}

/// Chooses a partition for every record that is sent without one. Closures are partitioners.
///
/// It is called where the record is sent, before the record is put into a batch, and again for the
/// same record if that has to wait for room: it has to be quick and may not call the producer.
pub trait Partitioner: Send + Sync {
    /// The partition for a record. One that the topic doesn't have or that is retired (see
    /// [`Partitions::is_active`]) makes `send` fail.
    fn partition(&self, record: &Candidate<'_>, partitions: &Partitions) -> PartitionIndex;
}

impl<F> Partitioner for F
where
    F: Fn(&Candidate<'_>, &Partitions) -> PartitionIndex + Send + Sync,
{
    fn partition(&self, record: &Candidate<'_>, partitions: &Partitions) -> PartitionIndex {
        self(record, partitions)
    }
}

/// How a producer chooses partitions for records that are sent without one.
#[derive(Clone, Default)]
pub enum Partitioning {
    /// Records of one key go to the partition that [`Partitions::of_key`] says; those without a
    /// key go batch by batch where the fewest records have gone, so that batches fill.
    #[default]
    ByKey,
    /// Each record goes to the next partition in turn, whatever its key.
    RoundRobin,
    /// A partitioner of the user's own decides.
    Own(Arc<dyn Partitioner>),
}

impl Partitioning {
    /// A partitioner of the user's own: often a closure.
    ///
    /// ```
    /// use ringway_client::{Candidate, Partitioning, Partitions};
    ///
    /// // The most urgent records have partition 0 for themselves.
    /// let by_tag = Partitioning::own(|record: &Candidate<'_>, partitions: &Partitions| {
    ///     match record.tag {
    ///         Some(b"urgent") => partitions.active_at(0),
    ///         _ => partitions.of_key(record.key.unwrap_or_default()),
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn own(partitioner: impl Partitioner + 'static) -> Self {
        Self::Own(Arc::new(partitioner))
    }

    pub(crate) const fn is_by_key(&self) -> bool {
        matches!(self, Self::ByKey)
    }
}

impl fmt::Debug for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByKey => "ByKey",
            Self::RoundRobin => "RoundRobin",
            Self::Own(_) => "Own",
        })
    }
}

/// What is asked for a record.
pub(crate) fn candidate<'a>(topic: &'a str, record: &RecordRef<'a>) -> Candidate<'a> {
    Candidate {
        topic,
        key: record.key,
        value: record.value,
        tag: record.tag,
        timestamp_us: record.timestamp_us,
    }
}

/// Spreads records without a key: all of a batch stick together, the next batch goes to the
/// partition that has got the fewest records so far. By count and not in turn, because batches
/// differ: one for a partition with room in flight leaves at once, one for a busy partition fills.
#[derive(Debug)]
pub(crate) struct Sticky {
    partition: u32,
    /// The batch that the last record went into.
    batch: Option<u64>,
    /// Records that each partition has got.
    records: Vec<u64>,
}

impl Sticky {
    /// Starts at a partition that `start` decides, so that many producers don't begin at the same.
    pub(crate) fn new(start: u64, partitions: &Partitions) -> Self {
        Self {
            partition: partitions.active_at(start).0,
            batch: None,
            records: vec![0; partitions.count() as usize],
        }
    }

    /// The partition that the next record would go to if its batch is still open.
    pub(crate) const fn current(&self) -> PartitionIndex {
        PartitionIndex(self.partition)
    }

    /// The partition for a record, when `open` is the batch that takes records in the current
    /// one.
    pub(crate) fn choose(&mut self, open: Option<u64>, partitions: &Partitions) -> PartitionIndex {
        if self.records.len() != partitions.count() as usize {
            // A new partition gets its share from now on, not what it has missed.
            let fewest = self.records.iter().copied().min().unwrap_or(0);
            self.records.resize(partitions.count() as usize, fewest);
        }
        let moves_on = self.batch.is_some() && self.batch != open;
        if moves_on || !partitions.is_active(self.current()) {
            self.batch = None;
            self.partition = self.fewest_after(self.partition, partitions);
        }
        self.current()
    }

    /// The active partition that has got the fewest records: of several, the next behind this one.
    fn fewest_after(&self, current: u32, partitions: &Partitions) -> u32 {
        let behind = |partition: u32| partition.wrapping_sub(current.wrapping_add(1));
        (0..u64::from(partitions.active_count()))
            .map(|place| partitions.active_at(place).0)
            .min_by_key(|&partition| (self.records[partition as usize], behind(partition)))
            .expect("one partition at least takes records")
    }

    /// Says which batch the record went into.
    pub(crate) fn went_into(&mut self, batch: u64) {
        self.batch = Some(batch);
        self.records[self.partition as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_sticks_and_the_next_goes_where_the_fewest_records_are() {
        let three = Partitions::all(3);
        let mut sticky = Sticky::new(5, &three);
        assert_eq!(sticky.choose(None, &three).0, 2);
        sticky.went_into(7);
        assert_eq!(sticky.choose(Some(7), &three).0, 2);
        sticky.went_into(7);
        assert_eq!(sticky.choose(Some(8), &three).0, 0);
        sticky.went_into(9);
        assert_eq!(sticky.choose(None, &three).0, 1);
        sticky.went_into(10);
        assert_eq!(sticky.choose(None, &three).0, 0, "partition 2 has got two");
        sticky.went_into(11);
        let (one, two) = (Partitions::all(1), Partitions::all(2));
        assert_eq!(sticky.choose(None, &one).0, 0, "partitions were taken away");
        assert_eq!(sticky.choose(Some(11), &two).0, 0, "and given again");
    }

    #[test]
    fn a_partition_that_is_retired_is_left_at_once_and_not_chosen_again() {
        let mut sticky = Sticky::new(2, &Partitions::all(4));
        assert_eq!(sticky.choose(None, &Partitions::all(4)).0, 2);
        sticky.went_into(1);
        let retired = [PartitionIndex(2), PartitionIndex(0)];
        let rest = Partitions::without(4, &retired).unwrap();
        for batch in 1..20 {
            let chosen = sticky.choose(Some(batch), &rest);
            assert!(rest.is_active(chosen), "{chosen}");
            sticky.went_into(batch + 1);
        }
    }

    #[test]
    fn batches_of_any_size_spread_evenly() {
        let four = Partitions::all(4);
        let mut sticky = Sticky::new(0, &four);
        let mut records = [0_u64; 4];
        for batch in 0..1_000_u64 {
            let size = if batch % 4 == 3 { 1_000 } else { 1 + batch % 7 };
            for _ in 0..size {
                records[sticky.choose(Some(batch), &four).0 as usize] += 1;
                sticky.went_into(batch);
            }
        }
        let (most, fewest) = (records.iter().max().unwrap(), records.iter().min().unwrap());
        assert!(most - fewest <= 1_000, "{records:?}");
    }
}
