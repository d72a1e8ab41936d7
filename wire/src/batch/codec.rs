//! The codecs that a batch's blob may be compressed with, by number and by name.

/// What a batch's blob is compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Nothing.
    #[default]
    None = 0,
    /// One LZ4 block, without frame and without a length before it.
    Lz4 = 1,
    /// Exactly one Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// The codec of a number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number in a batch's attributes and in metadata.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
