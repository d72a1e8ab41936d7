//! The Ringway broker's drivers: everything that reads a clock, touches a file or a socket on
//! behalf of the engine's decisions.
//!
//! Modules stand in the order of the data flow.

pub mod config;
pub mod listen;
pub mod wake;

pub mod flight;
pub mod metrics;
pub mod shard_proxy;

mod figures;
mod sys;

pub mod data_dir;
pub mod device;
pub mod housekeeper;
pub mod shard;

pub mod flight_dumper;

mod controller;
mod launch;

pub mod broker;

pub mod log_tools;

pub mod cli;
pub mod logging;
pub mod supervisor;

pub mod demo;

pub use broker::{Broker, Ready, RunError, RunningBroker, StartError};
pub use config::Config;

#[cfg(test)]
mod testing;
