//! The mapping of keys to partitions that every client shares: fixed by docs/protocol.md, with its
//! test values. It spreads keys evenly, and moves as few as it can when partitions are added or
//! retired: only to the new ones, and only those of the retired one.

use ringway_wire::PartitionIndex;
use ringway_wire::request::{PartitionMetadata, PartitionState};

/// What SplitMix64 adds in each step.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Hashes tried until one falls on an active partition. With half of them retired, all but one key
/// in 2^64 has found its partition by then; beyond, each active one is weighed.
const TRIES: usize = 64;

/// The finalizer of SplitMix64.
const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The hash of a key: 64-bit FNV-1a, then the finalizer of SplitMix64, whose low bits are as good
/// as its high ones.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// Jump consistent hash (Lamping and Veach): from one to the next larger number of buckets, a hash
/// stays where it is or goes to the new one.
fn jump(mut hash: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0, 0_i64);
    while next < i64::from(buckets) {
        bucket = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = f64::from(1_u32 << 31) / ((hash >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * step) as i64;
    }
    bucket as u32
}

/// The partition of a key in a topic that has never retired one.
///
/// # Panics
/// When there is no partition.
#[must_use]
pub fn key_partition(key: &[u8], partitions: u32) -> PartitionIndex {
    Partitions::all(partitions).of_key(key)
}

/// A topic's partitions: how many were ever made, and which of them take new records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions {
    count: u32,
    /// Those that take new records, in their order, if some don't.
    active: Option<Box<[u32]>>,
}

impl Partitions {
    /// So many partitions, all of which take records.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn all(count: u32) -> Self {
        assert!(count > 0, "a topic has a partition");
        Self {
            count,
            active: None,
        }
    }

    /// So many partitions, of which some take no new records; indexes that don't exist are
    /// nothing. `None` when no partition is left.
    #[must_use]
    pub fn without(count: u32, retired: &[PartitionIndex]) -> Option<Self> {
        let mut retired = retired.to_vec();
        retired.sort_unstable();
        let is_active = |index: &u32| retired.binary_search(&PartitionIndex(*index)).is_err();
        let active: Box<[u32]> = (0..count).filter(is_active).collect();
        let active = (active.len() < count as usize).then_some(active);
        let some_left = count > 0 && active.as_ref().is_none_or(|active| !active.is_empty());
        some_left.then_some(Self { count, active })
    }

    /// Those of a topic, whose list is by index; `None` when none takes records.
    pub(crate) fn of_topic(partitions: &[PartitionMetadata]) -> Option<Self> {
        let retired: Vec<_> = partitions
            .iter()
            .filter(|each| each.state == PartitionState::Retired)
            .map(|each| each.partition)
            .collect();
        Self::without(partitions.len() as u32, &retired)
    }

    /// How many partitions the topic has, retired ones included.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many take new records; at least 1.
    #[must_use]
    pub fn active_count(&self) -> u32 {
        self.active
            .as_ref()
            .map_or(self.count, |active| active.len() as u32)
    }

    /// The one at a place among those that take new records, from 0, counted around.
    #[must_use]
    pub fn active_at(&self, place: u64) -> PartitionIndex {
        let place = (place % u64::from(self.active_count())) as u32;
        PartitionIndex(match &self.active {
            None => place,
            Some(active) => active[place as usize],
        })
    }

    /// Whether a partition exists and takes new records.
    #[must_use]
    pub fn is_active(&self, partition: PartitionIndex) -> bool {
        match &self.active {
            None => partition.0 < self.count,
            Some(active) => active.binary_search(&partition.0).is_ok(),
        }
    }

    /// The partition of a key.
    #[must_use]
    pub fn of_key(&self, key: &[u8]) -> PartitionIndex {
        self.of_hash(key_hash(key))
    }

    /// The partition of a key that has this hash.
    #[must_use]
    pub fn of_hash(&self, hash: u64) -> PartitionIndex {
        let mut tried = hash;
        for _ in 0..TRIES {
            let partition = PartitionIndex(jump(tried, self.count));
            if self.is_active(partition) {
                return partition;
            }
            tried = mix(tried.wrapping_add(GOLDEN));
        }
        self.heaviest(hash)
    }

    /// Rendezvous hashing: the active partition with the largest weight for this hash; of equal
    /// ones the first.
    fn heaviest(&self, hash: u64) -> PartitionIndex {
        let weight = |partition: PartitionIndex| {
            let nth = u64::from(partition.0) + 1;
            mix(hash.wrapping_add(nth.wrapping_mul(GOLDEN)))
        };
        (0..u64::from(self.active_count()))
            .map(|place| self.active_at(place))
            .reduce(|best, other| match weight(other) > weight(best) {
                true => other,
                false => best,
            })
            .expect("one partition at least takes records")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retire(count: u32, retired: &[u32]) -> Partitions {
        let retired: Vec<_> = retired.iter().copied().map(PartitionIndex).collect();
        Partitions::without(count, &retired).unwrap()
    }

    /// A hash of its own for each number.
    fn hashes(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|number| key_hash(format!("key-{number}").as_bytes()))
    }

    fn counts(partitions: &Partitions, hashes: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut counts = vec![0; partitions.count() as usize];
        for hash in hashes {
            counts[partitions.of_hash(hash).0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn keys_spread_evenly_over_the_active_partitions() {
        for partitions in [
            Partitions::all(1),
            Partitions::all(2),
            Partitions::all(3),
            Partitions::all(10),
            Partitions::all(64),
            retire(10, &[0, 4]),
            retire(64, &[0, 1, 2, 3, 4, 5, 6, 7, 63]),
            retire(9, &[1, 2, 3, 4, 5, 6, 7]),
        ] {
            let mean = 100_000 / u64::from(partitions.active_count());
            for (index, count) in counts(&partitions, hashes(100_000)).iter().enumerate() {
                if partitions.is_active(PartitionIndex(index as u32)) {
                    assert!(
                        count.abs_diff(mean) < mean / 5,
                        "{count} of {mean} at {index} of {partitions:?}"
                    );
                } else {
                    assert_eq!(*count, 0, "{index} of {partitions:?} is retired");
                }
            }
        }
    }

    #[test]
    fn adding_moves_only_to_the_new_ones_and_as_few_as_it_can() {
        for (before, after) in [
            (Partitions::all(4), Partitions::all(5)),
            (Partitions::all(4), Partitions::all(16)),
            (retire(6, &[1, 5]), retire(9, &[1, 5])),
            (retire(40, &[0, 3, 39]), retire(41, &[0, 3, 39])),
        ] {
            let mut moved = 0_u64;
            for hash in hashes(50_000) {
                let (old, new) = (before.of_hash(hash), after.of_hash(hash));
                if old != new {
                    assert!(new.0 >= before.count(), "{old} to {new}: not a new one");
                    moved += 1;
                }
            }
            let added = u64::from(after.count() - before.count());
            let fair = 50_000 * added / u64::from(after.active_count());
            assert!(
                moved.abs_diff(fair) < fair / 5,
                "{moved} moved, {fair} had to"
            );
        }
    }

    #[test]
    fn retiring_moves_only_the_keys_of_the_retired_one() {
        for (before, after) in [
            (Partitions::all(4), retire(4, &[0])),
            (retire(8, &[3]), retire(8, &[3, 6])),
            (retire(5, &[0, 1]), retire(5, &[0, 1, 2, 3])),
        ] {
            for hash in hashes(50_000) {
                let (old, new) = (before.of_hash(hash), after.of_hash(hash));
                assert!(old == new || !after.is_active(old), "{old} to {new}");
                assert!(after.is_active(new));
            }
        }
    }

    #[test]
    fn the_last_of_very_many_is_found() {
        let retired: Vec<u32> = (0..100_000).filter(|index| *index != 77_777).collect();
        let partitions = retire(100_000, &retired);
        for hash in hashes(20) {
            assert_eq!(partitions.of_hash(hash), PartitionIndex(77_777));
        }
        // Of two, both get their share, and the other keys of a third that goes.
        let two: Vec<u32> = (2..10_000).collect();
        let shares = counts(&retire(10_000, &two), hashes(2_000));
        assert!(shares[0].abs_diff(1_000) < 200, "{:?}", &shares[..2]);
        let three = retire(10_000, &two[1..]);
        for hash in hashes(200) {
            let (old, new) = (three.of_hash(hash), retire(10_000, &two).of_hash(hash));
            assert!(old == new || old == PartitionIndex(2), "{old} to {new}");
        }
    }

    #[test]
    fn no_partition_is_no_topic() {
        assert_eq!(Partitions::without(0, &[]), None);
        assert_eq!(Partitions::without(1, &[PartitionIndex(0)]), None);
        let beyond = Partitions::without(2, &[PartitionIndex(2)]);
        assert_eq!(beyond, Some(Partitions::all(2)));
    }
}
