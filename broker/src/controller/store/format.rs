//! The bytes of the metadata log and its snapshots, little-endian.
//!
//! ```text
//! log header   magic u64 · version u32 · zero u32 · first index u64 · previous CRC u32 · CRC u32
//! record       magic u32 · payload bytes u32 · index u64 · durable index u64 ·
//!              previous CRC u32 · CRC u32 · payload, padded with zeros to 16
//! snapshot     magic u64 · version u32 · state bytes u32 · index u64 · last CRC u32 · CRC u32 · state
//! ```
//!
//! A CRC (CRC32C) covers everything before it and the payload behind it. Each record names the CRC
//! of the one before: a record of another log, or of a former life of the space, doesn't fit. Each
//! also says up to which index the log was durable when it was written, which tells damage from a
//! torn tail.

/// Version of the files that this build writes and reads. Their bytes never change.
pub(super) const VERSION: u32 = 1;
/// Bytes of a log's header.
pub(super) const LOG_HEADER_BYTES: usize = 32;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 32;
/// Bytes of a snapshot before the state.
pub(super) const SNAPSHOT_HEADER_BYTES: usize = 32;
/// Every record starts at a multiple of it.
pub(super) const ALIGNMENT: usize = 16;
/// Longest payload: a request's head has at most 8 MiB.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

const LOG_MAGIC: u64 = u64::from_le_bytes(*b"RINGMETA");
const SNAPSHOT_MAGIC: u64 = u64::from_le_bytes(*b"RINGSNAP");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"RMRC");
const CRC_AT: usize = 28;

const _: () = {
    assert!(
        LOG_HEADER_BYTES.is_multiple_of(ALIGNMENT),
        "records start aligned"
    );
    assert!(RECORD_HEADER_BYTES == CRC_AT + 4, "the CRC ends the header");
    assert!(LOG_HEADER_BYTES == CRC_AT + 4, "the CRC ends the header");
    assert!(
        SNAPSHOT_HEADER_BYTES == CRC_AT + 4,
        "the CRC ends the header"
    );
};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    /// There is less than a header.
    #[error("it is too short")]
    Short,
    /// It starts with something else.
    #[error("it doesn't start as it should")]
    Magic,
    /// It was written by another version.
    #[error("it has version {0}, and this build reads version {VERSION} only")]
    Version(u32),
    /// The CRC isn't that of the bytes.
    #[error("its CRC is wrong")]
    Crc,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn crc_of(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), payload)
}

/// The name of the log that begins with a record.
pub(super) fn log_name(first_index: u64) -> String {
    format!("log-{first_index:020}")
}

/// The name of the snapshot after a record.
pub(super) fn snapshot_name(index: u64) -> String {
    format!("snapshot-{index:020}")
}

/// What a file is called until it is whole.
pub(super) fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// Whether a name is that of a file that never became whole.
pub(super) fn is_temporary(name: &str) -> bool {
    name.ends_with(".tmp")
}

fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// The first index of a log by its name, if it is one.
pub(super) fn parse_log_name(name: &str) -> Option<u64> {
    number(name, "log-")
}

/// The index of a snapshot by its name, if it is one.
pub(super) fn parse_snapshot_name(name: &str) -> Option<u64> {
    number(name, "snapshot-")
}

/// The start of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogHeader {
    /// Index of its first record.
    pub(super) first_index: u64,
    /// CRC of the record before that; 0 before the very first.
    pub(super) prev_crc: u32,
}

impl LogHeader {
    pub(super) fn encode(&self) -> [u8; LOG_HEADER_BYTES] {
        let mut bytes = [0; LOG_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&LOG_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_index.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.prev_crc.to_le_bytes());
        let crc = crc_of(&bytes, &[]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes = bytes.get(..LOG_HEADER_BYTES).ok_or(FormatError::Short)?;
        check_start(bytes, LOG_MAGIC)?;
        if crc_of(bytes, &[]) != u32_at(bytes, CRC_AT) {
            return Err(FormatError::Crc);
        }
        Ok(Self {
            first_index: u64_at(bytes, 16),
            prev_crc: u32_at(bytes, 24),
        })
    }
}

fn check_start(bytes: &[u8], magic: u64) -> Result<(), FormatError> {
    if u64_at(bytes, 0) != magic {
        return Err(FormatError::Magic);
    }
    match u32_at(bytes, 8) {
        VERSION => Ok(()),
        version => Err(FormatError::Version(version)),
    }
}

/// The start of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotHeader {
    /// Index of the last record that it stands for.
    pub(super) index: u64,
    /// That record's CRC.
    pub(super) last_crc: u32,
}

impl SnapshotHeader {
    pub(super) fn encode(&self, state: &[u8]) -> Vec<u8> {
        let length = u32::try_from(state.len()).expect("a cluster's limits keep its state small");
        let mut bytes = vec![0; SNAPSHOT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SNAPSHOT_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.last_crc.to_le_bytes());
        let crc = crc_of(&bytes, state);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(state);
        bytes
    }

    /// The header and the state behind it.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let header = bytes
            .get(..SNAPSHOT_HEADER_BYTES)
            .ok_or(FormatError::Short)?;
        check_start(header, SNAPSHOT_MAGIC)?;
        let state = &bytes[SNAPSHOT_HEADER_BYTES..];
        if state.len() != u32_at(header, 12) as usize
            || crc_of(header, state) != u32_at(header, CRC_AT)
        {
            return Err(FormatError::Crc);
        }
        let header = Self {
            index: u64_at(header, 16),
            last_crc: u32_at(header, 24),
        };
        Ok((header, state))
    }
}

/// One command in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Its place in the log: 1, 2, 3, …
    pub(super) index: u64,
    /// Every record up to this one was durable when this one was written.
    pub(super) durable_index: u64,
    /// CRC of the record before.
    pub(super) prev_crc: u32,
    /// The command's bytes.
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record's bytes and returns its CRC.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> u32 {
        assert!(
            self.payload.len() <= PAYLOAD_BYTES_MAX,
            "a command comes from one request"
        );
        let mut header = [0; RECORD_HEADER_BYTES];
        header[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.index.to_le_bytes());
        header[16..24].copy_from_slice(&self.durable_index.to_le_bytes());
        header[24..28].copy_from_slice(&self.prev_crc.to_le_bytes());
        let crc = crc_of(&header, self.payload);
        header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.payload);
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        crc
    }

    /// The record at the start of `bytes`, its CRC and its length with padding; `None` when there
    /// is none that is whole and right.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<(Self, u32, usize)> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        if u32_at(header, 0) != RECORD_MAGIC {
            return None;
        }
        let length = u32_at(header, 4) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return None;
        }
        let whole = (RECORD_HEADER_BYTES + length).next_multiple_of(ALIGNMENT);
        let payload = bytes.get(RECORD_HEADER_BYTES..whole)?;
        let (payload, padding) = payload.split_at(length);
        let crc = u32_at(header, CRC_AT);
        if crc_of(header, payload) != crc || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let record = Self {
            index: u64_at(header, 8),
            durable_index: u64_at(header, 16),
            prev_crc: u32_at(header, 24),
            payload,
        };
        Some((record, crc, whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn bytes_are_fixed() {
        let header = LogHeader {
            first_index: 5,
            prev_crc: 0x0102_0304,
        };
        assert_eq!(
            hex(&header.encode()),
            "52494e474d455441010000000000000005000000000000000403020199a68976"
        );
        assert_eq!(LogHeader::decode(&header.encode()), Ok(header));

        let record = Record {
            index: 6,
            durable_index: 4,
            prev_crc: 0x0a0b_0c0d,
            payload: b"abc",
        };
        let mut bytes = Vec::new();
        let crc = record.encode(&mut bytes);
        assert_eq!(
            hex(&bytes),
            "524d5243030000000600000000000000040000000000000\
             00d0c0b0a5d2d565461626300000000000000000000000000"
        );
        assert_eq!(Record::decode(&bytes), Some((record, crc, 48)));

        let snapshot = SnapshotHeader {
            index: 7,
            last_crc: 9,
        };
        let bytes = snapshot.encode(b"state");
        assert_eq!(
            hex(&bytes),
            "52494e47534e41500100000005000000070000000000000009000000005c76137374617465"
        );
        assert_eq!(
            SnapshotHeader::decode(&bytes),
            Ok((snapshot, &b"state"[..]))
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut record = Vec::new();
        Record {
            index: 6,
            durable_index: 4,
            prev_crc: 1,
            payload: b"abc",
        }
        .encode(&mut record);
        let log = LogHeader {
            first_index: 5,
            prev_crc: 1,
        };
        let snapshot = SnapshotHeader {
            index: 7,
            last_crc: 9,
        };
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..record.len() * 8 {
            assert_eq!(Record::decode(&flipped(&record, bit)), None, "bit {bit}");
        }
        let log = log.encode();
        for bit in 0..log.len() * 8 {
            assert!(LogHeader::decode(&flipped(&log, bit)).is_err(), "bit {bit}");
        }
        let snapshot = snapshot.encode(b"state");
        for bit in 0..snapshot.len() * 8 {
            assert!(
                SnapshotHeader::decode(&flipped(&snapshot, bit)).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn names_sort_as_their_numbers_do_and_read_back() {
        assert!(log_name(9) < log_name(10));
        assert_eq!(parse_log_name(&log_name(77)), Some(77));
        assert_eq!(parse_snapshot_name(&snapshot_name(77)), Some(77));
        assert_eq!(parse_log_name(&temporary(&log_name(77))), None);
        assert_eq!(parse_log_name("log-7"), None);
        assert!(is_temporary(&temporary("x")));
    }
}
