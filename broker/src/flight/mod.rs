//! The flight recorder: what a shard did last, always on, in a fixed piece of memory that any
//! thread can read while the shard goes on or stands still.
//!
//! Modules stand in the order of the data flow.

mod event;
mod lap;
mod recorder;

mod chrome;

pub(crate) use chrome::{Flight, write_trace};
pub(crate) use event::{DeviceKind, Event, JobKind, RoundEvent, Step};
pub(crate) use lap::Lap;
pub use recorder::FlightRecorder;
pub(crate) use recorder::Why;
