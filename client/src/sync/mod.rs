//! The synchronous face: for a thread that owns its producers and consumers and polls them itself,
//! pinned to a core perhaps. No runtime, no thread; its sockets never wait.
//!
//! ```no_run
//! use ringway_client::sync::Client;
//! use ringway_client::{Record, StartAt};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("127.0.0.1:7420")?;
//!
//!     let mut producer = client.producer().build()?;
//!     let delivery = producer.send("rides", Record::value("42.7 km").key("car-17"))?;
//!     println!("{:?}", producer.wait(&delivery)?.offset); // on stable storage from here on
//!
//!     let mut consumer = client.consumer().build();
//!     consumer.assign("rides", None, StartAt::Start)?;
//!     loop {
//!         producer.poll(); // sends what is due, takes what came; never waits
//!         if let Some(batch) = consumer.try_next_batch()? {
//!             for record in &batch {
//!                 println!("{}: {:?} = {:?}", record.offset, record.key, record.value);
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! Each producer and consumer has connections of its own, so that they share nothing: build it, or
//! move it, where it is to be used. All decisions are those of the asynchronous face: the same
//! core, the same settings, errors and guarantees.
//!
//! A broker that is named by a host name is looked up whenever a connection to it begins, and that
//! does wait, for the resolver. Addresses are not looked up.
//!
//! Time stands still for a producer or consumer that isn't polled: it sends, receives and gives up
//! nothing. Poll it at least some times a second, or brokers may take it for dead.

mod admin;
mod client;
mod connection;
mod consumer;
mod link;
mod producer;

pub use admin::Admin;
pub use client::{Client, Idle};
pub use consumer::Consumer;
pub use producer::Producer;
