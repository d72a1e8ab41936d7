//! The record batch: one layout in the producer's memory, on the wire, on disk and in the
//! consumer's memory. A fixed header, then an archive of a record table and one blob.
//!
//! ```text
//! 0            48              128
//! | leader's   | producer's    | table: 32 B  | blob        | 0… | root |
//! | part       | part          | per record   |             |    | 16 B |
//!              └─────────────── body CRC covers ───────────────────────┘
//!                              └──────────── archive_bytes ────────────┘
//! ```
//!
//! The blob may be compressed by its producer and is inflated by its consumer; brokers leave it as
//! it is.

mod body;
mod builder;
mod checked;
mod codec;
mod compression;
mod error;
mod header;
mod record;
mod walk;

pub use body::{BatchBytes, Body, Entry, RelativeSlice, entry_flags};
pub use builder::{BatchBuilder, BatchFull, BatchLimits, ProducerStamp, Sealed};
pub use checked::{CheckedBatch, Records, StoredBatch, check_crcs, check_header, check_produced};
pub use codec::{Codec, UnknownCodec};
pub use compression::{Compressor, Inflater};
pub use error::BatchError;
pub use header::{Attributes, BATCH_MAGIC, BatchHeader, LeaderStamp, at, stamp};
pub use record::{Header, Headers, RecordRef, RecordView, encode_headers, tag_hash, tag_summary};
