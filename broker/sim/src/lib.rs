//! Deterministic simulation of Ringway's engine: a disk that forgets on purpose, clients that
//! remember everything, and checks that compare the two after every crash.

pub mod device;
pub mod log;
pub mod random;
pub mod trace;
