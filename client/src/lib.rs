//! Ringway's native client: producers, consumers and administration, asynchronous on tokio, or
//! synchronous for a thread that polls by itself: see [`sync`].
//!
//! ```no_run
//! use ringway_client::{Client, Record, StartAt};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("127.0.0.1:7420").await?;
//!
//!     let producer = client.producer().build().await?;
//!     let delivery = producer.send("rides", Record::value("42.7 km").key("car-17")).await?;
//!     let delivered = delivery.await?; // on stable storage from here on
//!     println!("partition {}, offset {:?}", delivered.partition, delivered.offset);
//!     producer.close().await?;
//!
//!     let mut consumer = client.consumer().build();
//!     consumer.assign("rides", None, StartAt::Start).await?;
//!     loop {
//!         let batch = consumer.next_batch().await?;
//!         for record in &batch {
//!             println!("{}: {:?} = {:?}", record.offset, record.key, record.value);
//!         }
//!     }
//! }
//! ```
//!
//! Values are bytes, or of any type that rkyv archives: see [`Layout`] and
//! [`ProducerBuilder::build_typed`].
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `async` | on | the asynchronous face, on tokio |
//! | `sync` | on | the synchronous face: no runtime, no thread |
//! | `lz4` | on | batches compressed with lz4, in pure Rust |
//! | `zstd` | off | batches compressed with zstd, which builds a C library |
//!
//! A producer compresses with its [`codec`](ProducerBuilder::codec) or the topic's; a consumer
//! inflates whatever comes.
//!
//! Modules stand in the order of the layers: the core decides and knows neither socket nor clock;
//! the rest carries out.

#[cfg(not(any(feature = "async", feature = "sync")))]
compile_error!("ringway-client needs a face: turn on the feature `async` or `sync`");

pub mod limits;

mod batch;
mod builder;
mod config;
mod error;
mod profile;
mod record;

mod core;
mod typed;

mod calls;
mod machine;

#[cfg(feature = "async")]
mod connection;
#[cfg(feature = "async")]
mod driver;
#[cfg(feature = "async")]
mod pool;
#[cfg(feature = "async")]
mod shared;

mod admin;
#[cfg(feature = "async")]
mod client;
#[cfg(feature = "async")]
mod consumer;
#[cfg(feature = "async")]
mod producer;

#[cfg(feature = "sync")]
pub mod sync;

#[cfg(feature = "async")]
pub use admin::Admin;
pub use admin::{NewTopic, PartitionOffsets, TopicDescription, TopicSummary};
pub use batch::{Batch, BatchRecords};
pub use builder::{ConsumerBuilder, ProducerBuilder, StartAt, WhenFull};
#[cfg(feature = "async")]
pub use client::Client;
pub use config::ClientConfig;
#[cfg(feature = "async")]
pub use consumer::Consumer;
pub use core::delivery::{BatchReport, Delivered, Delivery};
pub use core::mapping::{Partitions, key_hash, key_partition};
pub use core::partitioner::{Candidate, Partitioner, Partitioning};
pub use error::{
    BuildError, ConnectError, ConnectionLost, ConsumeError, ProduceError, RequestError,
};
#[cfg(feature = "async")]
pub use producer::Producer;
pub use profile::{Profile, UnknownProfile};
pub use record::Record;
pub use ringway_client_derive::Layout;
pub use typed::{
    Bytes, Layout, Readable, Shape, TypedBatch, TypedRecord, TypedRecordView, TypedRecords,
    Writable, layout_of,
};

/// The crate that archives typed values: a type's derives have to come from this version.
pub use rkyv;

pub use ringway_wire::batch::{Codec, Header, Headers, RecordView, encode_headers};
pub use ringway_wire::request::{
    Acks, BrokerMetadata, Durability, OffsetAt, PartitionMetadata, PartitionState, StageTimes,
    TrimBefore,
};
pub use ringway_wire::{
    ErrorCode, Fault, LeaderEpoch, MetadataEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId,
    TopicPartition,
};

/// The examples of the README, so that they stay true.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
