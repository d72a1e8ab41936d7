//! Which connection a reply belongs to, as one number that the engine and other shards pass around.

use ringway_wire::ShardId;

/// Bits of the slot: a million connections of one shard.
const SLOT_BITS: u32 = 20;
/// Bits of the generation.
const GENERATION_BITS: u32 = 32;
/// Slots of one shard.
pub(crate) const SLOTS_MAX: usize = 1 << SLOT_BITS;
/// Shards whose connections have a number.
pub(crate) const SHARDS_MAX: u16 = 1 << (64 - SLOT_BITS - GENERATION_BITS);

/// A connection of any shard; a slot is used again with another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId {
    pub(crate) shard: ShardId,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// The number, as in [`ringway_engine::shard::Token::source`].
    pub(crate) const fn source(self) -> u64 {
        (self.shard.0 as u64) << (SLOT_BITS + GENERATION_BITS)
            | (self.slot as u64) << GENERATION_BITS
            | self.generation as u64
    }

    /// The connection of a number.
    pub(crate) const fn from_source(source: u64) -> Self {
        Self {
            shard: ShardId((source >> (SLOT_BITS + GENERATION_BITS)) as u16),
            slot: (source >> GENERATION_BITS) as u32 & (SLOTS_MAX as u32 - 1),
            generation: source as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_comes_back() {
        let shard = ShardId(SHARDS_MAX - 1);
        for (slot, generation) in [(0, 0), (SLOTS_MAX as u32 - 1, 7), (5, u32::MAX)] {
            let id = ConnectionId {
                shard,
                slot,
                generation,
            };
            assert_eq!(ConnectionId::from_source(id.source()), id);
        }
    }
}
