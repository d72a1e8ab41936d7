//! Golden bytes of a side file, and what happens to one that is damaged or another's.

use proptest::prelude::*;
use ringway_wire::batch::BatchHeader;
use ringway_wire::{LeaderEpoch, ProducerEpoch, ProducerId, Sequence};

use super::*;

const LOG_ID: LogId = LogId(0x1122_3344_5566_7788);

fn producers() -> Producers {
    let mut producers = Producers::new();
    for (first_sequence, base_offset, append_time_us) in [(0, 990, 1_000), (4, 1_200, 1_500)] {
        producers.record(&BatchHeader {
            producer_id: ProducerId(0xabcd),
            producer_epoch: ProducerEpoch(3),
            first_sequence: Sequence(first_sequence),
            last_offset_delta: 3,
            base_offset: Offset(base_offset),
            append_time_us,
            ..BatchHeader::default()
        });
    }
    producers
}

fn side() -> Side {
    let mut index = SparseIndex::new(Offset(1_000), 4 << 20);
    index.add(Offset(1_300), Position(70_000), 2_000);
    index.add(Offset(1_700), Position(140_016), 2_300);
    let mut epochs = Epochs::new();
    epochs.open(LeaderEpoch(1), Offset(0)).unwrap();
    epochs.open(LeaderEpoch(4), Offset(1_100)).unwrap();
    Side {
        log_id: LOG_ID,
        base_offset: Offset(1_000),
        next_offset: Offset(2_000),
        end: Position(200_000),
        last_header_crc: 0xdead_beef,
        last_append_time_us: 2_500,
        index,
        epochs,
        producers: producers(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut lines, line| {
        line.iter().for_each(|byte| lines += &format!("{byte:02x}"));
        lines + "\n"
    })
}

#[test]
fn the_bytes_are_those_of_version_1() {
    assert_eq!(hex(&side().encode()), include_str!("golden.hex"));
}

#[test]
fn it_reads_back_with_anything_behind_it() {
    let mut bytes = side().encode();
    bytes.resize(4096, 0x5a);
    assert_eq!(Side::decode(&bytes, LOG_ID, Offset(1_000)), Ok(side()));
}

#[test]
fn anothers_is_refused() {
    let bytes = side().encode();
    for (log_id, base) in [(LogId(1), Offset(1_000)), (LOG_ID, Offset(999))] {
        let refused = Side::decode(&bytes, log_id, base);
        assert!(
            matches!(refused, Err(SavedError::Other { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    let good = side().encode();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Side::decode(&bytes, LOG_ID, Offset(1_000)).is_err(),
            "bit {bit}"
        );
    }
    for length in 0..good.len() {
        assert!(
            Side::decode(&good[..length], LOG_ID, Offset(1_000)).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    let wrong: [fn(&mut Side); 4] = [
        |side| side.next_offset = side.base_offset,
        |side| side.end = Position(200_001),
        |side| side.end = Position(140_016),
        |side| side.next_offset = Offset(1_099),
    ];
    for (ordinal, wrong) in wrong.into_iter().enumerate() {
        let mut side = side();
        wrong(&mut side);
        let refused = Side::decode(&side.encode(), LOG_ID, Offset(1_000));
        assert!(
            matches!(refused, Err(SavedError::Fields(_))),
            "{ordinal}: {refused:?}"
        );
    }
}

proptest! {
    /// Fields of any kind under a right CRC: nothing panics, and what is read is consistent.
    #[test]
    fn arbitrary_fields_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let sealed = envelope::seal(MAGIC, |out| {
            out.u64(LOG_ID.0);
            out.u64(1_000);
            out.bytes(&bytes);
        });
        if let Ok(side) = Side::decode(&sealed, LOG_ID, Offset(1_000)) {
            prop_assert_eq!(side.encode(), sealed);
        }
        prop_assert!(Side::decode(&bytes, LOG_ID, Offset(1_000)).is_err());
    }
}
