//! Every decision of the broker, as pure state machines: no clock, no file, no socket, no runtime.
//!
//! Drivers tell a machine what happened and when, and carry out what it asks for. Modules stand in
//! the order of the data flow.

pub mod limits;
pub mod time;

pub mod buffer;
pub mod device;
pub mod log;
pub mod shard;

pub mod meta;
