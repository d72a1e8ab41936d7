//! Every decision of the client as pure state machines: time and randomness are arguments, nothing
//! here knows a socket, a clock or a runtime. Drivers feed in what happened and carry out what
//! `poll` asks for.

pub(crate) mod backoff;
pub(crate) mod delivery;
pub(crate) mod detours;
pub(crate) mod faults;
pub(crate) mod fetch;
pub(crate) mod inbox;
pub(crate) mod inquiry;
pub(crate) mod mapping;
pub(crate) mod metadata;
pub(crate) mod outbox;
pub(crate) mod partitioner;
pub(crate) mod producer;

/// Names one request of a machine, so that its answer finds back and a late one is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The partition's place in the machine.
    pub(crate) slot: u32,
    /// Never used again in the machine.
    pub(crate) number: u64,
}
