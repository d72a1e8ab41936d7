//! Why bytes are not a batch.

use crate::batch::codec::Codec;

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch says, or than a header takes.
    #[error("a batch of {wanted} bytes is cut off after {left}")]
    Truncated {
        /// Bytes that the batch takes.
        wanted: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// The bytes don't stand at an address where they can be read in place: copy them to one.
    #[error("a batch has to stand at a multiple of {wanted} in memory")]
    Misaligned {
        /// The alignment that this batch needs, in bytes.
        wanted: usize,
    },
    /// The first bytes are not a batch's.
    #[error("no batch starts here: the magic number is {0:#010x}")]
    Magic(u32),
    /// The batch is of a version that this build doesn't know.
    #[error("batch version {0} is unknown")]
    Version(u16),
    /// A CRC doesn't match its bytes.
    #[error("the {part} CRC is {stored:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// "header", "body" or "record".
        part: &'static str,
        /// The CRC stored.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A field of the header contradicts another or a limit.
    #[error("{field} can't be {value}: {why}")]
    Field {
        /// The header's field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The codec of the blob is not one of the format's.
    #[error("compression codec {0} is unknown")]
    Codec(u8),
    /// The codec of the blob is left out of this build.
    #[error(
        "the records are compressed with {0}, which this build leaves out: \
         build the Ringway crates with their feature `{0}`"
    )]
    CodecMissing(Codec),
    /// The batch is compressed, where one is read that isn't: inflate it first.
    #[error("the batch is compressed with {0} and has to be inflated before it is read")]
    Compressed(Codec),
    /// The blob doesn't inflate to what the header says.
    #[error("the blob can't be inflated with {codec}: {why}")]
    Inflate {
        /// The batch's codec.
        codec: Codec,
        /// What is wrong with it.
        why: String,
    },
    /// The archive's structure is broken.
    #[error("the archive is not valid: {0}")]
    Archive(String),
    /// A record's entry contradicts another or a limit.
    #[error("record {index}: {why}")]
    Record {
        /// The record's ordinal in the batch.
        index: usize,
        /// The rule that it breaks.
        why: &'static str,
    },
}
