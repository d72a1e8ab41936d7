//! The numbers that identify things, each a type of its own so that none is taken for another.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number of a record in its partition: 0, 1, 2, …
    Offset(u64)
}
number! {
    /// A byte's place in a file.
    Position(u64)
}
number! {
    /// Counts the leaderships of a partition; rises with every election and every start.
    LeaderEpoch(u32)
}
number! {
    /// Identifies a producer for duplicate detection. 0 is no producer: the batch is not checked.
    ProducerId(u64)
}
number! {
    /// Fences older users of a producer id.
    ProducerEpoch(u16)
}
number! {
    /// Counts a producer's records in one partition; wraps around.
    Sequence(u32)
}
number! {
    /// A broker of the cluster.
    NodeId(u32)
}
number! {
    /// A data shard of a broker, 0-based.
    ShardId(u16)
}
number! {
    /// A partition of a topic, 0-based.
    PartitionIndex(u32)
}
number! {
    /// Rises with every change of a topic's metadata.
    MetadataEpoch(u64)
}
number! {
    /// Pairs a reply with its request; chosen by the client, unique among those in flight.
    CorrelationId(u32)
}
number! {
    /// A partition's 64-bit name inside its batches, so that a batch in the wrong log is noticed.
    LogId(u64)
}

impl Offset {
    /// The offset `count` records further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Position {
    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl ProducerId {
    /// The id of batches that are not checked for duplicates.
    pub const NONE: Self = Self(0);
}

impl Sequence {
    /// The sequence `count` records further on; wraps around at 2³².
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

/// A topic's identity: random, never used again, also after the name was. Shown as 32 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl TopicId {
    /// The name that batches of this topic's `partition` carry: both halves of the id and the
    /// partition, mixed with the finalizer of SplitMix64.
    #[must_use]
    pub const fn log_id(self, partition: PartitionIndex) -> LogId {
        let folded = (self.0 as u64) ^ ((self.0 >> 64) as u64).rotate_left(32);
        let mut z =
            folded.wrapping_add((partition.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        LogId(z ^ (z >> 31))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl FromStr for TopicId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition in it.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// The name that this partition's batches carry.
    #[must_use]
    pub const fn log_id(self) -> LogId {
        self.topic.log_id(self.partition)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_are_fixed_and_differ_by_partition() {
        let topic = TopicId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let first = topic.log_id(PartitionIndex(0));
        assert_eq!(first, topic.log_id(PartitionIndex(0)));
        assert_ne!(first, topic.log_id(PartitionIndex(1)));
        assert_ne!(first, TopicId(topic.0 + 1).log_id(PartitionIndex(0)));
    }

    #[test]
    fn topic_ids_read_back_as_they_are_shown() {
        let topic = TopicId(0xfedc_ba98);
        assert_eq!(topic.to_string().len(), 32);
        assert_eq!(topic.to_string().parse::<TopicId>(), Ok(topic));
    }
}
