//! Numbers of variable length (LEB128) for the files beside the log, where most numbers are small
//! differences.

use ringway_wire::{DecodeError, Reader, Writer};

/// Writes `value` in 1 to 10 bytes: seven bits each, the lowest first, bit 7 set on all but the
/// last.
pub(super) fn put_varint(out: &mut Writer, mut value: u64) {
    while value >= 0x80 {
        out.u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.u8(value as u8);
}

/// Reads what [`put_varint`] wrote; refuses longer spellings of a number, so that equal states
/// have equal bytes.
pub(super) fn varint(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8(field)?;
        let bits = u64::from(byte & 0x7f);
        let lost = (bits << shift) >> shift != bits;
        let padded = byte == 0 && shift > 0;
        if lost || padded {
            return illegal(field, byte.into());
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    illegal(field, value)
}

/// Reads a difference that is at least `least` and adds it to `before`.
pub(super) fn varint_after(
    reader: &mut Reader<'_>,
    before: u64,
    least: u64,
    field: &'static str,
) -> Result<u64, DecodeError> {
    let difference = varint(reader, field)?;
    match before.checked_add(difference) {
        Some(value) if difference >= least => Ok(value),
        _ => illegal(field, difference),
    }
}

/// Reads a time that isn't before `before`; times in a log never go back.
pub(super) fn time_after(
    reader: &mut Reader<'_>,
    before: i64,
    field: &'static str,
) -> Result<i64, DecodeError> {
    let difference = varint(reader, field)?;
    match before.checked_add_unsigned(difference) {
        Some(value) => Ok(value),
        None => illegal(field, difference),
    }
}

/// Reads a count and refuses one that the rest of the input can't hold.
pub(super) fn count(
    reader: &mut Reader<'_>,
    item_bytes_min: usize,
    max: usize,
    field: &'static str,
) -> Result<usize, DecodeError> {
    let count = varint(reader, field)?;
    let fitting = (reader.left() / item_bytes_min).min(max);
    match usize::try_from(count) {
        Ok(count) if count <= fitting => Ok(count),
        _ => illegal(field, count),
    }
}

pub(super) fn illegal<T>(field: &'static str, value: u64) -> Result<T, DecodeError> {
    Err(DecodeError::Illegal { field, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Writer::default();
        put_varint(&mut out, value);
        out.into_bytes()
    }

    #[test]
    fn numbers_read_back_and_have_one_spelling() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(0x7f), [0x7f]);
        assert_eq!(encoded(0x80), [0x80, 1]);
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let bytes = encoded(value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(varint(&mut reader, "it"), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        let wrong: [&[u8]; 5] = [&[], &[0x80], &[0x80, 0], &[0xff; 9], &[0xff; 11]];
        for bytes in wrong {
            assert!(varint(&mut Reader::new(bytes), "it").is_err(), "{bytes:?}");
        }
        let mut overlong = [0xff; 10];
        overlong[9] = 2;
        assert!(varint(&mut Reader::new(&overlong), "it").is_err());
        overlong[9] = 1;
        assert_eq!(varint(&mut Reader::new(&overlong), "it"), Ok(u64::MAX));
    }
}
