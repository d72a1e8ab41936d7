//! The cutter against a plain reading of the same bytes, in blocks of every size.

use super::*;

type Owned = (Option<Vec<u8>>, Vec<u8>);

/// Cuts `input` fed in blocks of `block_bytes`.
fn cut(shape: &Shape, input: &[u8], block_bytes: usize) -> (Vec<Owned>, Option<InputError>) {
    let mut cutter = Cutter::new(shape.clone());
    let mut records = Vec::new();
    let mut take = |cutter: &mut Cutter| loop {
        match cutter.next() {
            Ok(Some(piece)) => {
                records.push((piece.key.map(<[u8]>::to_vec), piece.value.to_vec()));
            }
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    };
    for block in input.chunks(block_bytes) {
        cutter.feed(block);
        if let Some(error) = take(&mut cutter) {
            return (records, Some(error));
        }
    }
    cutter.end();
    let error = take(&mut cutter);
    (records, error)
}

/// Cuts in blocks of many sizes, which must make no difference.
fn cut_any(shape: &Shape, input: &[u8]) -> (Vec<Owned>, Option<InputError>) {
    let whole = cut(shape, input, input.len().max(1));
    for block_bytes in 1..=input.len().min(40) {
        assert_eq!(
            cut(shape, input, block_bytes),
            whole,
            "in blocks of {block_bytes}"
        );
    }
    whole
}

fn values(records: &[Owned]) -> Vec<&[u8]> {
    records.iter().map(|(_, value)| value.as_slice()).collect()
}

const LINES: Shape = Shape::Lines { separator: None };

#[test]
fn lines_keep_every_byte_but_the_lf() {
    let (records, error) = cut_any(&LINES, b"a\r\n\n\xff\0b\nlast");
    assert_eq!(
        values(&records),
        [b"a\r" as &[u8], b"", b"\xff\0b", b"last"]
    );
    assert_eq!(error, None);
}

#[test]
fn the_last_lf_ends_a_line_and_begins_none() {
    assert_eq!(values(&cut_any(&LINES, b"a\n").0), [b"a"]);
    assert_eq!(values(&cut_any(&LINES, b"\n\n").0), [b"", b""]);
    assert!(cut_any(&LINES, b"").0.is_empty());
}

#[test]
fn lines_split_at_the_first_separator() {
    let shape = Shape::Lines {
        separator: Some(b"::".to_vec()),
    };
    let (records, _) = cut_any(&shape, b"k::v::w\n::x\nk::\nnone:here\n\n");
    let key = |key: &[u8]| Some(key.to_vec());
    let expected = [
        (key(b"k"), b"v::w".to_vec()),
        (key(b""), b"x".to_vec()),
        (key(b"k"), b"".to_vec()),
        (None, b"none:here".to_vec()),
        (None, b"".to_vec()),
    ];
    assert_eq!(records, expected);
}

#[test]
fn chunks_have_one_size_but_the_last() {
    let shape = Shape::Chunks(4);
    assert_eq!(
        values(&cut_any(&shape, b"abcdefghij").0),
        [b"abcd" as &[u8], b"efgh", b"ij"]
    );
    assert_eq!(values(&cut_any(&shape, b"abcd").0), [b"abcd"]);
    assert!(cut_any(&shape, b"").0.is_empty());
}

fn frame(value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn frames_have_their_length_before_them() {
    let input = [frame(b"abc"), frame(b""), frame(b"\n\0")].concat();
    let (records, error) = cut_any(&Shape::Frames, &input);
    assert_eq!(values(&records), [b"abc" as &[u8], b"", b"\n\0"]);
    assert_eq!(error, None);
}

#[test]
fn a_torn_frame_says_where() {
    let mut input = [frame(b"abc"), frame(b"defgh")].concat();
    input.truncate(input.len() - 2);
    let (records, error) = cut_any(&Shape::Frames, &input);
    assert_eq!(values(&records), [b"abc"]);
    assert_eq!(
        error,
        Some(InputError::Truncated {
            at: 7,
            record: 2,
            left: 7,
            wanted: 9
        })
    );
    let (_, error) = cut_any(&Shape::Frames, &[1, 0]);
    assert_eq!(
        error,
        Some(InputError::Truncated {
            at: 0,
            record: 1,
            left: 2,
            wanted: 4
        })
    );
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let mut input = frame(b"abc");
    input.extend_from_slice(&u32::MAX.to_le_bytes());
    let (records, error) = cut_any(&Shape::Frames, &input);
    assert_eq!(records.len(), 1);
    let wanted = InputError::TooLarge {
        at: 7,
        record: 2,
        bytes: Some(u32::MAX),
    };
    assert_eq!(error, Some(wanted));
}

#[test]
fn a_line_without_end_stops_at_the_limit() {
    let mut cutter = Cutter::new(LINES);
    cutter.feed(b"ok\n");
    assert!(cutter.next().unwrap().is_some());
    let block = vec![b'x'; 1 << 20];
    let mut fed = 0;
    let error = loop {
        cutter.feed(&block);
        fed += block.len();
        assert!(fed <= RECORD_BYTES_MAX + block.len(), "nothing stopped it");
        match cutter.next() {
            Ok(piece) => assert!(piece.is_none()),
            Err(error) => break error,
        }
    };
    assert_eq!(
        error,
        InputError::TooLarge {
            at: 3,
            record: 2,
            bytes: None
        }
    );
}
