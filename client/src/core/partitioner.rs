//! Which partition a record goes to: by its key, or, without one, batch by batch in turn.

use ringway_wire::PartitionIndex;

/// The hash of a key: 64-bit FNV-1a, then the finalizer of SplitMix64, whose low bits are as good
/// as its high ones. Other clients that shall agree with this one compute the same:
///
/// | key | hash | of 4 partitions |
/// |---|---|---|
/// | (empty) | `0xf52a15e9a9b5e89b` | 3 |
/// | `a` | `0x02c0bdbf481420f8` | 0 |
/// | `ringway` | `0x76f6e3bd6cab0f12` | 2 |
/// | `sensor-7` | `0xf009100bd14ae67c` | 0 |
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The partition of a key: its hash modulo the number of partitions.
///
/// # Panics
/// When there is no partition.
#[must_use]
pub fn key_partition(key: &[u8], partitions: u32) -> PartitionIndex {
    PartitionIndex((key_hash(key) % u64::from(partitions)) as u32)
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
    pub(crate) fn new(start: u64, partitions: u32) -> Self {
        Self {
            partition: (start % u64::from(partitions)) as u32,
            batch: None,
            records: vec![0; partitions as usize],
        }
    }

    /// The partition that the next record would go to if its batch is still open.
    pub(crate) const fn current(&self) -> PartitionIndex {
        PartitionIndex(self.partition)
    }

    /// The partition for a record, when `open` is the batch that takes records in the current
    /// one.
    pub(crate) fn choose(&mut self, open: Option<u64>, partitions: u32) -> PartitionIndex {
        if self.records.len() != partitions as usize {
            // A new partition gets its share from now on, not what it has missed.
            let fewest = self.records.iter().copied().min().unwrap_or(0);
            self.records.resize(partitions as usize, fewest);
        }
        if self.batch.is_some() && self.batch != open {
            self.batch = None;
            let after = |step| (self.partition + step) % partitions;
            self.partition = (1..=partitions)
                .map(after)
                .min_by_key(|&partition| self.records[partition as usize])
                .unwrap_or(0);
        }
        if self.partition >= partitions {
            self.partition = 0;
        }
        PartitionIndex(self.partition)
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
    fn hashes_are_those_documented() {
        assert_eq!(key_hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(key_hash(b"a"), 0x02c0_bdbf_4814_20f8);
        assert_eq!(key_hash(b"ringway"), 0x76f6_e3bd_6cab_0f12);
        assert_eq!(key_hash(b"sensor-7"), 0xf009_100b_d14a_e67c);
        let partitions = [&b""[..], b"a", b"ringway", b"sensor-7"].map(|k| key_partition(k, 4).0);
        assert_eq!(partitions, [3, 0, 2, 0]);
    }

    #[test]
    fn similar_keys_spread_evenly() {
        for partitions in [2, 3, 10, 64] {
            let mut counts = vec![0_u32; partitions as usize];
            for number in 0..100_000 {
                let key = format!("key-{number}");
                counts[key_partition(key.as_bytes(), partitions).0 as usize] += 1;
            }
            let mean = 100_000 / partitions;
            for count in counts {
                assert!(
                    count.abs_diff(mean) < mean / 5,
                    "{count} of {mean} at {partitions}"
                );
            }
        }
    }

    #[test]
    fn a_batch_sticks_and_the_next_goes_where_the_fewest_records_are() {
        let mut sticky = Sticky::new(5, 3);
        assert_eq!(sticky.choose(None, 3).0, 2);
        sticky.went_into(7);
        assert_eq!(sticky.choose(Some(7), 3).0, 2);
        sticky.went_into(7);
        assert_eq!(sticky.choose(Some(8), 3).0, 0);
        sticky.went_into(9);
        assert_eq!(sticky.choose(None, 3).0, 1);
        sticky.went_into(10);
        assert_eq!(sticky.choose(None, 3).0, 0, "partition 2 has got two");
        sticky.went_into(11);
        assert_eq!(sticky.choose(None, 1).0, 0, "partitions were taken away");
        assert_eq!(sticky.choose(Some(11), 2).0, 0, "and given again");
    }

    #[test]
    fn batches_of_any_size_spread_evenly() {
        let mut sticky = Sticky::new(0, 4);
        let mut records = [0_u64; 4];
        for batch in 0..1_000_u64 {
            let size = if batch % 4 == 3 { 1_000 } else { 1 + batch % 7 };
            for _ in 0..size {
                records[sticky.choose(Some(batch), 4).0 as usize] += 1;
                sticky.went_into(batch);
            }
        }
        let (most, fewest) = (records.iter().max().unwrap(), records.iter().min().unwrap());
        assert!(most - fewest <= 1_000, "{records:?}");
    }
}
