//! The frame decoder: however the stream is cut, the frames are the same; what is no frame is
//! refused; and memory follows what came, not what was announced.

use proptest::collection::vec;
use proptest::prelude::*;
use ringway_wire::CorrelationId;
use ringway_wire::frame::{FrameDecoder, FrameError, FrameHeader, encode_head};
use ringway_wire::limits::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES_MAX, FRAME_HEADER_BYTES};

/// A frame's kind, correlation, head and data.
type Content = (u16, u32, Vec<u8>, Vec<u8>);

fn content() -> impl Strategy<Value = Content> {
    let data = vec(any::<[u8; 16]>(), 0..40).prop_map(|blocks| blocks.concat());
    (any::<u16>(), any::<u32>(), vec(any::<u8>(), 0..100), data)
}

fn frame((kind, correlation, head, data): &Content) -> Vec<u8> {
    let mut frame = encode_head(*kind, CorrelationId(*correlation), head, data.len());
    frame.extend_from_slice(data);
    frame
}

fn take(decoder: &mut FrameDecoder, into: &mut Vec<Content>) {
    while let Some(frame) = decoder.next_frame().expect("the stream is good") {
        assert!(frame.data.is_empty() || frame.data.as_ptr().addr().is_multiple_of(16));
        let header = frame.header;
        into.push((
            header.kind,
            header.correlation.0,
            frame.head.to_vec(),
            frame.data.to_vec(),
        ));
    }
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_frames(
        contents in vec(content(), 0..12),
        cuts in vec((1..700_usize, any::<bool>()), 1..12),
    ) {
        let stream: Vec<u8> = contents.iter().flat_map(frame).collect();
        let mut decoder = FrameDecoder::new(1 << 16);
        let mut read = Vec::new();
        let mut rest = &stream[..];
        for &(bytes, in_place) in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(bytes.min(rest.len()));
            if in_place {
                decoder.spare(now.len())[..now.len()].copy_from_slice(now);
                decoder.filled(now.len());
            } else {
                decoder.push(now);
            }
            take(&mut decoder, &mut read);
            rest = later;
        }
        prop_assert_eq!(decoder.held(), 0);
        prop_assert_eq!(read, contents);
    }
}

fn sample(head_bytes: usize, data_bytes: usize) -> Content {
    let bytes = |count: usize| (0..count).map(|index| index as u8).collect();
    (3, 77, bytes(head_bytes), bytes(data_bytes))
}

#[test]
fn one_byte_at_a_time() {
    let contents = [
        sample(0, 0),
        sample(1, 16),
        sample(16, 0),
        sample(33, 4_096),
        sample(5, 32),
    ];
    let mut decoder = FrameDecoder::new(1 << 16);
    let mut read = Vec::new();
    for content in &contents {
        let bytes = frame(content);
        for (index, byte) in bytes.iter().enumerate() {
            let lacking = (index >= FRAME_HEADER_BYTES).then(|| bytes.len() - index);
            assert_eq!(decoder.lacking(), lacking);
            decoder.push(&[*byte]);
            take(&mut decoder, &mut read);
        }
    }
    assert_eq!(read, contents);
}

#[test]
fn what_is_no_frame_is_refused_by_name() {
    let good = frame(&sample(20, 32));
    let refused = |start: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
        let mut decoder = FrameDecoder::new(1_024);
        decoder.push(&bytes[..FRAME_HEADER_BYTES]);
        let refused = decoder.next_frame().expect_err("it was accepted");
        assert_eq!(decoder.next_frame().unwrap_err(), refused, "an error stays");
        assert_eq!(decoder.lacking(), None);
        refused
    };
    for bytes in [0, 1, 15, 17, 88, u32::MAX] {
        assert_eq!(refused(0, bytes), FrameError::Length(bytes));
    }
    for bytes in [1_040, 0xffff_fff0] {
        assert_eq!(
            refused(0, bytes),
            FrameError::TooLarge {
                bytes,
                limit: 1_024
            }
        );
    }
    assert_eq!(refused(4, 0x0102_0003), FrameError::Reserved(0x0102));
    for head_bytes in [65, 80, 81, u32::MAX] {
        assert_eq!(
            refused(12, head_bytes),
            FrameError::Head {
                head_bytes,
                frame_bytes: 80
            }
        );
    }
    // A frame of its header and no head: the head's length must be 0.
    assert_eq!(
        refused(0, 16),
        FrameError::Head {
            head_bytes: 20,
            frame_bytes: 16
        }
    );
    let mut header = FrameHeader::new(1, CorrelationId(0), 0, FRAME_HEAD_BYTES_MAX + 16);
    header.head_bytes = FRAME_HEAD_BYTES_MAX as u32 + 1;
    let refused = FrameHeader::decode(&header.encode(), FRAME_BYTES_MAX).unwrap_err();
    assert!(matches!(refused, FrameError::Head { .. }));
}

#[test]
fn no_decoder_accepts_more_than_the_largest_frame() {
    let mut decoder = FrameDecoder::new(usize::MAX);
    let mut header = FrameHeader::new(1, CorrelationId(0), 0, 0);
    header.frame_bytes = FRAME_BYTES_MAX as u32;
    decoder.push(&header.encode());
    assert!(decoder.next_frame().unwrap().is_none());
    assert_eq!(
        decoder.lacking(),
        Some(FRAME_BYTES_MAX - FRAME_HEADER_BYTES)
    );
    header.frame_bytes += 16;
    let mut decoder = FrameDecoder::new(usize::MAX);
    decoder.push(&header.encode());
    assert!(matches!(
        decoder.next_frame(),
        Err(FrameError::TooLarge { .. })
    ));
}

#[test]
#[should_panic(expected = "above the limit")]
fn a_head_that_nobody_accepts_is_not_sent() {
    let _ = FrameHeader::new(1, CorrelationId(0), FRAME_HEAD_BYTES_MAX + 1, 0);
}

#[test]
fn memory_follows_what_came() {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut header = FrameHeader::new(1, CorrelationId(0), 0, 0);
    header.frame_bytes = FRAME_BYTES_MAX as u32;
    decoder.push(&header.encode());
    assert!(decoder.next_frame().unwrap().is_none());
    let mut came = FRAME_HEADER_BYTES;
    for _ in 0..300 {
        decoder.push(&[0; 1_000]);
        came += 1_000;
        assert!(decoder.next_frame().unwrap().is_none());
        assert!(
            decoder.capacity() <= 2 * came + 8_192,
            "{} for {came}",
            decoder.capacity()
        );
    }
}

#[test]
fn space_stays_under_steady_large_frames_and_goes_when_they_end() {
    let large = frame(&sample(0, 1 << 20));
    let small = frame(&sample(0, 16));
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let feed = |decoder: &mut FrameDecoder, bytes: &[u8]| {
        for part in bytes.chunks(16 << 10) {
            decoder.push(part);
        }
        assert!(decoder.next_frame().unwrap().is_some());
    };
    feed(&mut decoder, &large);
    let steady = decoder.capacity();
    for round in 0..1_000 {
        // Mostly small frames, and a large one now and then.
        feed(&mut decoder, if round % 50 == 0 { &large } else { &small });
        assert_eq!(decoder.capacity(), steady);
    }
    for _ in 0..200 {
        feed(&mut decoder, &small);
    }
    assert!(decoder.capacity() <= 64 << 10);
    feed(&mut decoder, &large);
    decoder.shrink(usize::MAX);
    assert!(decoder.capacity() > 0, "no more than was asked for");
    decoder.shrink(0);
    assert_eq!(decoder.capacity(), 0);
    feed(&mut decoder, &small);
    decoder.push(&large[..1_000]);
    decoder.shrink(0);
    assert_eq!(decoder.held(), 1_000, "a frame that is arriving stays");
}
