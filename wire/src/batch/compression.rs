//! Compression of a batch's blob: packing at the producer and inflating at the consumer. Brokers do
//! neither.

use std::fmt;

use crate::batch::codec::Codec;
use crate::batch::error::BatchError;

/// Level of zstd: its own default, about half the speed of the lowest for a tenth less space.
#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 3;

/// Packs blobs. Keeps the codecs' tables and the space for the result from one to the next.
#[derive(Default)]
pub struct Compressor {
    packed: Vec<u8>,
    #[cfg(feature = "lz4")]
    lz4: Option<lz4_flex::block::CompressTable>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("capacity", &self.packed.capacity())
            .finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor without any memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The blob packed, if that makes it shorter. Never with [`Codec::None`] or with a codec that
    /// this build doesn't have.
    pub(super) fn pack(&mut self, codec: Codec, blob: &[u8]) -> Option<&[u8]> {
        let bytes = match codec {
            Codec::None => None,
            Codec::Lz4 => self.pack_lz4(blob),
            Codec::Zstd => self.pack_zstd(blob),
        }?;
        (bytes < blob.len()).then(|| &self.packed[..bytes])
    }

    /// Makes room for a result of so many bytes.
    #[cfg(any(feature = "lz4", feature = "zstd"))]
    fn room(&mut self, bytes: usize) {
        if self.packed.len() < bytes {
            self.packed.resize(bytes, 0);
        }
    }

    #[cfg(feature = "lz4")]
    fn pack_lz4(&mut self, blob: &[u8]) -> Option<usize> {
        self.room(lz4_flex::block::get_maximum_output_size(blob.len()));
        let table = self.lz4.get_or_insert_default();
        lz4_flex::block::compress_into_with_table(blob, &mut self.packed, table).ok()
    }

    #[cfg(not(feature = "lz4"))]
    fn pack_lz4(&mut self, _: &[u8]) -> Option<usize> {
        None
    }

    #[cfg(feature = "zstd")]
    fn pack_zstd(&mut self, blob: &[u8]) -> Option<usize> {
        // A result that isn't shorter is of no use: no room for it either.
        self.room(blob.len());
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let room = &mut self.packed[..blob.len()];
        self.zstd.as_mut()?.compress_to_buffer(blob, room).ok()
    }

    #[cfg(not(feature = "zstd"))]
    fn pack_zstd(&mut self, _: &[u8]) -> Option<usize> {
        None
    }
}

/// Inflates blobs. Keeps the codecs' tables from one to the next.
#[derive(Default)]
pub struct Inflater {
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Inflater {
    /// An inflater without any memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `blob`, neither more nor less, with what was packed. After an error its bytes are
    /// anything.
    pub(super) fn inflate(
        &mut self,
        codec: Codec,
        packed: &[u8],
        blob: &mut [u8],
    ) -> Result<(), BatchError> {
        let wanted = blob.len();
        let filled = match codec {
            Codec::None => Err("it is not compressed".to_owned()),
            Codec::Lz4 => Self::inflate_lz4(packed, blob)?,
            Codec::Zstd => self.inflate_zstd(packed, blob)?,
        };
        let why = match filled {
            Ok(filled) if filled == wanted => return Ok(()),
            Ok(filled) => format!("it gives {filled} bytes, not {wanted}"),
            Err(why) => why,
        };
        Err(BatchError::Inflate { codec, why })
    }

    #[cfg(feature = "lz4")]
    fn inflate_lz4(packed: &[u8], blob: &mut [u8]) -> Result<Result<usize, String>, BatchError> {
        let filled = lz4_flex::block::decompress_into(packed, blob);
        Ok(filled.map_err(|error| error.to_string()))
    }

    #[cfg(not(feature = "lz4"))]
    fn inflate_lz4(_: &[u8], _: &mut [u8]) -> Result<Result<usize, String>, BatchError> {
        Err(BatchError::CodecMissing(Codec::Lz4))
    }

    #[cfg(feature = "zstd")]
    fn inflate_zstd(
        &mut self,
        packed: &[u8],
        blob: &mut [u8],
    ) -> Result<Result<usize, String>, BatchError> {
        Ok(self.inflate_frame(packed, blob))
    }

    #[cfg(not(feature = "zstd"))]
    fn inflate_zstd(
        &mut self,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<Result<usize, String>, BatchError> {
        Err(BatchError::CodecMissing(Codec::Zstd))
    }

    /// Exactly one frame: the library alone would also take several, and such as hold no data.
    #[cfg(feature = "zstd")]
    fn inflate_frame(&mut self, packed: &[u8], blob: &mut [u8]) -> Result<usize, String> {
        const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
        if !packed.starts_with(&MAGIC) {
            return Err("no frame starts there".to_owned());
        }
        let named = |code| zstd::zstd_safe::get_error_name(code).to_owned();
        let frame = zstd::zstd_safe::find_frame_compressed_size(packed).map_err(named)?;
        if frame != packed.len() {
            return Err(format!("{} bytes follow its frame", packed.len() - frame));
        }
        let inflater = match &mut self.zstd {
            Some(inflater) => inflater,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
        };
        let filled = inflater.decompress_to_buffer(packed, blob);
        filled.map_err(|error| error.to_string())
    }
}
