//! Seeded random numbers (SplitMix64): the same on every machine and in every build, which is all
//! that a repeatable cut needs.

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one thing among many, so that its numbers don't depend on the order in
    /// which the things are visited.
    pub fn for_item(seed: u64, item: &[u64]) -> Self {
        let mixed = item
            .iter()
            .fold(seed, |state, part| Self(state ^ part).next_u64());
        Self(mixed)
    }

    /// The next number, any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..end`. `end` must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        // The bias of the modulus is far below anything that a test could notice.
        self.next_u64() % end
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}
