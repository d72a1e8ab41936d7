//! The time as drivers tell it to the engine, which has no clock of its own.

/// One reading of both clocks, taken once per turn of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back, from any origin.
    pub mono_ns: u64,
    /// Microseconds since 1970 by the wall clock; may jump.
    pub unix_us: i64,
}
