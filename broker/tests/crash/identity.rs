//! What a record of the load says of itself: who sent it, where to, and which one it is. Every
//! byte of a record follows from that, so that a reader needs nothing else to know it whole.

use std::sync::OnceLock;

use ringway_testing::Random;

/// Bytes in which a record names itself. They begin its value, or, where that is shorter, are its
/// key.
pub(crate) const HEAD_BYTES: usize = 32;
/// Largest value of the load, in bytes.
pub(crate) const VALUE_BYTES_MAX: u32 = 100 << 10;
const MAGIC: u32 = 0x5249_4e47;
const FILLER_BYTES: usize = 512 << 10;

/// The records of one producer for one partition, which has to keep their order. An index into
/// [`History::lanes`](crate::history::History::lanes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane(pub(crate) u32);

/// One record of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    /// Differs from one load to the next, so that nobody takes another's records for his own.
    pub(crate) run: u32,
    /// Who sent it, and where to.
    pub(crate) lane: Lane,
    /// The how-manieth of its lane, from 0.
    pub(crate) sequence: u64,
    /// Bytes of its value.
    pub(crate) value_bytes: u32,
}

/// What a reader found in a record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A record of the load, to the last byte.
    Whole(Identity),
    /// It says that it is this record, but some of its bytes are others.
    Altered(Identity),
    /// No record of any load.
    Foreign,
}

impl Identity {
    /// The key and the value of the record.
    pub(crate) fn encode(&self) -> (Option<Vec<u8>>, Vec<u8>) {
        let head = self.head();
        let mut value = self.filler().to_vec();
        match value.get_mut(..HEAD_BYTES) {
            Some(start) => {
                start.copy_from_slice(&head);
                (None, value)
            }
            None => (Some(head.to_vec()), value),
        }
    }

    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&self.run.to_le_bytes());
        head[8..12].copy_from_slice(&self.lane.0.to_le_bytes());
        head[12..16].copy_from_slice(&self.value_bytes.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.hash().to_le_bytes());
        head
    }

    fn hash(&self) -> u64 {
        let parts = [
            u64::from(self.lane.0),
            self.sequence,
            u64::from(self.value_bytes),
        ];
        Random::for_item(u64::from(self.run), &parts).next_u64()
    }

    /// The value but for its head: a piece of the same random bytes, from a place of its own.
    fn filler(&self) -> &'static [u8] {
        static FILLER: OnceLock<Vec<u8>> = OnceLock::new();
        let filler = FILLER.get_or_init(|| {
            let mut random = Random::new(1);
            let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
            words.take(FILLER_BYTES / 8).flatten().collect()
        });
        let places = (FILLER_BYTES - VALUE_BYTES_MAX as usize) as u64;
        let start = (self.hash() % places) as usize;
        &filler[start..start + self.value_bytes as usize]
    }
}

impl Content {
    /// Looks at a record as a consumer got it.
    pub(crate) fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let Some(value) = value else {
            return Self::Foreign;
        };
        let named = key.map_or_else(|| value.get(..HEAD_BYTES), Some);
        let Some(identity) = named.and_then(parse) else {
            return Self::Foreign;
        };
        let rest = if key.is_some() { 0 } else { HEAD_BYTES };
        let whole = value.len() == identity.value_bytes as usize
            && key.is_some() == (value.len() < HEAD_BYTES)
            && value[rest..] == identity.filler()[rest..];
        if whole {
            Self::Whole(identity)
        } else {
            Self::Altered(identity)
        }
    }
}

fn parse(head: &[u8]) -> Option<Identity> {
    let head: &[u8; HEAD_BYTES] = head.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let sequence = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
    let identity = Identity {
        run: u32_at(4),
        lane: Lane(u32_at(8)),
        sequence,
        value_bytes: u32_at(12),
    };
    let known = identity.value_bytes <= VALUE_BYTES_MAX && identity.head() == *head;
    known.then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value_bytes: u32) -> Identity {
        Identity {
            run: 7,
            lane: Lane(3),
            sequence: 11,
            value_bytes,
        }
    }

    #[test]
    fn records_of_every_size_are_read_back() {
        for bytes in [1, 31, 32, 33, 4_096, VALUE_BYTES_MAX] {
            let (key, value) = record(bytes).encode();
            assert_eq!(value.len(), bytes as usize);
            let read = Content::read(key.as_deref(), Some(&value));
            assert_eq!(read, Content::Whole(record(bytes)));
        }
    }

    #[test]
    fn any_other_byte_is_noticed() {
        for bytes in [5, 100] {
            let (key, value) = record(bytes).encode();
            for at in 0..value.len() {
                let mut other = value.clone();
                other[at] ^= 1;
                let read = Content::read(key.as_deref(), Some(&other));
                assert_ne!(read, Content::Whole(record(bytes)), "byte {at} of {bytes}");
            }
            let shorter = Content::read(key.as_deref(), Some(&value[..value.len() - 1]));
            assert_eq!(shorter, Content::Altered(record(bytes)));
        }
        assert_eq!(Content::read(None, None), Content::Foreign);
        assert_eq!(Content::read(None, Some(&[0; 64])), Content::Foreign);
        assert_eq!(Content::read(None, Some(b"short")), Content::Foreign);
    }
}
