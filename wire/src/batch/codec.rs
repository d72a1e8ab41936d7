//! The codecs that a batch's blob may be compressed with, by number and by name. All are part of the
//! format, whether or not a build can handle them.

use std::fmt;
use std::str::FromStr;

/// How a blob is compressed; the number is that of the attributes' bits 0–3. All are part of the
/// format, whether or not a build can handle them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Codec {
    /// The blob is as it is.
    #[default]
    None = 0,
    /// One LZ4 block, without a frame and without a size before it.
    Lz4 = 1,
    /// One zstd frame, without a dictionary.
    Zstd = 2,
}

/// A name that is no codec's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no codec {0:?}: take none, lz4 or zstd")]
pub struct UnknownCodec(pub String);

impl Codec {
    /// Every codec of the format.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// The codec of that number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its number in the format and in the protocol.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name in configurations: `none`, `lz4` or `zstd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Whether this build packs and inflates it: the crate's features `lz4` and `zstd` decide.
    #[must_use]
    pub const fn available(self) -> bool {
        match self {
            Self::None => true,
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        let named = Self::ALL.into_iter().find(|codec| codec.name() == name);
        named.ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}
