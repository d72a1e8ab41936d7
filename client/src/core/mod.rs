//! Every decision of the client as pure state machines: time is an argument, nothing here knows a
//! socket, a clock or a runtime.

pub(crate) mod delivery;
