//! What side files and checkpoints have in common: a magic number, a version, a length and a CRC
//! around their fields. Bytes behind the length don't matter, so files may be padded to blocks.

use ringway_wire::{DecodeError, Reader, Writer};

use crate::log::codec::illegal;

/// Bytes before the fields: magic, version, reserved, length, CRC.
const HEADER_BYTES: usize = 16;
/// Where the CRC is; it covers every other byte up to the length.
const CRC_AT: usize = 12;
/// The version that this build writes and reads. Its bytes never change.
pub(super) const VERSION: u16 = 1;

/// Why a side file or a checkpoint can't be used. Neither is ever the only copy of anything: what
/// it says can be had from the log, by reading more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// The file is shorter than it says, or than a header.
    #[error("{wanted} bytes are cut off after {left}")]
    Truncated {
        /// Bytes that there should be.
        wanted: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// The first bytes are those of something else.
    #[error("the magic number is {found:#010x} instead of {wanted:#010x}")]
    Magic {
        /// What such a file begins with.
        wanted: u32,
        /// What it begins with.
        found: u32,
    },
    /// It was written by a build that this one doesn't know.
    #[error("version {0} is unknown")]
    Version(u16),
    /// The CRC doesn't match the bytes.
    #[error("the CRC is {stored:#010x}, the bytes give {computed:#010x}")]
    Crc {
        /// The CRC in the file.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// The CRC is right and a field isn't: a defect of the build that wrote it.
    #[error(transparent)]
    Fields(#[from] DecodeError),
    /// It belongs to another segment or partition.
    #[error("{field} is {found} instead of {wanted}")]
    Other {
        /// What tells it apart.
        field: &'static str,
        /// What was asked for.
        wanted: u64,
        /// What the file has.
        found: u64,
    },
}

/// The whole file: a header, then what `fields` writes.
pub(super) fn seal(magic: u32, fields: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(magic);
    out.u16(VERSION);
    out.u16(0);
    out.u64(0);
    fields(&mut out);
    let mut bytes = out.into_bytes();
    let length = length_of(&bytes);
    bytes[8..CRC_AT].copy_from_slice(&length.to_le_bytes());
    let crc = crc_over(&bytes);
    bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A file that is put together in steps: what its fields begin with is known last.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Room for the header and the first fields, then what was gathered.
    bytes: Vec<u8>,
    room: usize,
    /// CRC of what was gathered.
    crc: u32,
}

impl Assembled {
    /// A file without anything. Its first fields will probably take `lead_bytes`, and what is
    /// gathered behind them `bytes`.
    pub(super) fn begin(lead_bytes: usize, bytes: usize) -> Self {
        let room = HEADER_BYTES + lead_bytes;
        let mut begun = Vec::with_capacity(room + bytes);
        begun.resize(room, 0);
        Self {
            bytes: begun,
            room,
            crc: 0,
        }
    }

    /// Adds encoded fields.
    pub(super) fn push(&mut self, fields: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, fields);
        self.bytes.extend_from_slice(fields);
    }

    /// The whole file: as [`seal`] would make it of what `lead` writes and what was gathered.
    pub(super) fn seal(mut self, magic: u32, lead: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let first = seal(magic, lead);
        let gathered = self.bytes.len() - self.room;
        // Moves what was gathered only if the first fields don't fit the room exactly.
        self.bytes.splice(..self.room, first.iter().copied());
        let length = length_of(&self.bytes);
        let bytes = &mut self.bytes;
        bytes[8..CRC_AT].copy_from_slice(&length.to_le_bytes());
        let lead_crc = crc_over(&bytes[..first.len()]);
        let crc = crc32c::crc32c_combine(lead_crc, self.crc, gathered);
        bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len())
        .expect("4,000 partitions would need 16,384 live producers each to fill 4 GiB")
}

/// The fields in a file that [`seal`] made.
pub(super) fn open(magic: u32, bytes: &[u8]) -> Result<Reader<'_>, SavedError> {
    let truncated = |wanted| SavedError::Truncated {
        wanted,
        left: bytes.len(),
    };
    let mut header = Reader::new(bytes.get(..HEADER_BYTES).ok_or(truncated(HEADER_BYTES))?);
    let found = header.u32("magic")?;
    if found != magic {
        return Err(SavedError::Magic {
            wanted: magic,
            found,
        });
    }
    let version = header.u16("version")?;
    if version != VERSION {
        return Err(SavedError::Version(version));
    }
    let reserved = header.u16("reserved")?;
    if reserved != 0 {
        return Ok(illegal("reserved", reserved.into())?);
    }
    let length = header.u32("length")? as usize;
    let stored = header.u32("CRC")?;
    let sealed = bytes
        .get(..length.max(HEADER_BYTES))
        .ok_or(truncated(length))?;
    let computed = crc_over(sealed);
    if stored != computed {
        return Err(SavedError::Crc { stored, computed });
    }
    Ok(Reader::new(&sealed[HEADER_BYTES..]))
}

fn crc_over(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[HEADER_BYTES..])
}
