//! The Ringway broker's drivers: everything that reads a clock, touches a file or a socket on
//! behalf of the engine's decisions.
//!
//! Modules stand in the order of the data flow.

pub mod config;
pub mod listen;
pub mod wake;

pub mod metrics;
pub mod shard_proxy;

pub mod broker;
mod controller;
pub mod logging;
