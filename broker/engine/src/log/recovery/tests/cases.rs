//! One test for each thing that can have happened to a log.

use ringway_wire::batch::BatchError;
use ringway_wire::{LogId, Offset, PartitionIndex, Position, TopicPartition};

use super::written::{Disk, LOG, Log};
use crate::device::SegmentName;
use crate::limits::BLOCK_BYTES;
use crate::log::chain::Refusal;
use crate::log::limits::RECOVERY_READ_BYTES_MAX;
use crate::log::recovery::{Damage, SideFile};
use crate::log::{Rescan, RescanStep, Side};

const FILE: usize = 2 << 20;

/// Twelve batches of growing size, the fifth of a new epoch.
fn twelve() -> Log {
    let mut log = Log::new(LOG, FILE);
    for ordinal in 0..12 {
        if ordinal == 4 {
            log.open_epoch();
        }
        log.append(
            1 + ordinal % 3,
            100 * ordinal as usize,
            u64::from(ordinal % 4),
        );
    }
    log
}

#[test]
fn an_empty_partition_has_nothing() {
    let recovered = Disk::default().recover(LOG, None);
    assert_eq!(recovered.next_offset, Offset(0));
    assert_eq!(recovered.active, None);
    assert_eq!((recovered.cut, recovered.damage), (None, vec![]));
    assert_eq!(recovered.scanned_bytes, 0);
}

#[test]
fn a_partition_emptied_by_retention_goes_on_where_it_was() {
    let mut log = twelve();
    log.log_start = log.end();
    log.roll(FILE, false);
    let checkpoint = log.checkpoint();
    let recovered = Disk::default().recover(LOG, Some(checkpoint));
    assert_eq!(
        (recovered.log_start, recovered.next_offset),
        (log.end(), log.end())
    );
    assert_eq!((recovered.active, recovered.damage), (None, vec![]));
    assert_eq!(recovered.producers, log.state.replay.producers);
}

#[test]
fn a_prepared_segment_without_batches_is_active_or_spare() {
    let mut disk = Disk::default();
    disk.segments.insert(SegmentName::Next, vec![0; 65_536]);
    let recovered = disk.recover(LOG, None);
    assert_eq!(
        (recovered.active, recovered.spare_bytes),
        (None, Some(65_536))
    );
    let log = Log::new(LOG, FILE);
    log.assert_recovered(&log.recover(None), 0);
}

#[test]
fn a_clean_stop_needs_one_read() {
    let log = twelve();
    let recovered = log.recover(Some(log.checkpoint()));
    log.assert_recovered(&recovered, 12);
    assert_eq!(recovered.cut, None);
    assert_eq!(recovered.epochs, log.state.replay.epochs);
    assert!(
        recovered.scanned_bytes <= 2 * BLOCK_BYTES as u64,
        "{}",
        recovered.scanned_bytes
    );
}

#[test]
fn a_tail_torn_at_any_sector_ends_before_the_torn_batch() {
    let mut log = twelve();
    let checkpoint = log.checkpoint();
    let start = log.state.position.0 as usize;
    for ordinal in 0..6 {
        log.append(2, 700 * ordinal, 1);
    }
    let end = log.state.position.0 as usize;
    for filling in [0, 0xa5] {
        for sector in start.div_ceil(512)..=end.div_ceil(512) {
            let mut torn = log.clone();
            torn.active_file()[sector * 512..end.next_multiple_of(512)].fill(filling);
            let count = torn.whole_prefix();
            for checkpoint in [None, Some(checkpoint.clone())] {
                let recovered = torn.recover(checkpoint);
                torn.assert_recovered(&recovered, count);
                assert_eq!(recovered.damage, []);
            }
        }
    }
}

#[test]
fn a_sector_missing_in_the_middle_ends_the_log_before_it() {
    let mut log = twelve();
    let checkpoint = log.checkpoint();
    let start = log.state.position.0 as usize;
    (0..6).for_each(|ordinal| log.append(2, 700 * ordinal, 1));
    for sector in start.div_ceil(512)..log.state.position.0 as usize / 512 {
        let mut torn = log.clone();
        torn.active_file()[sector * 512..][..512].fill(0);
        let count = torn.whole_prefix();
        assert!(count < 18);
        let recovered = torn.recover(Some(checkpoint.clone()));
        torn.assert_recovered(&recovered, count);
    }
}

#[test]
fn a_flipped_bit_ends_the_log_before_its_batch() {
    let log = twelve();
    for bit in (0..log.state.position.0 as usize * 8).step_by(61) {
        let mut flipped = log.clone();
        flipped.active_file()[bit / 8] ^= 1 << (bit % 8);
        let count = flipped.whole_prefix();
        assert!(count < 12);
        let recovered = flipped.recover(None);
        flipped.assert_recovered(&recovered, count);
        assert!(recovered.cut.is_some() || bit / 8 % 16 < 8, "bit {bit}");
    }
}

#[test]
fn a_cut_says_what_was_there() {
    let mut log = twelve();
    let last = log.batches[11].position as usize;
    log.active_file()[last + 200] ^= 1;
    let cut = log.recover(None).cut.expect("a batch was there");
    assert_eq!(cut.segment, SegmentName::Base(Offset(0)));
    assert_eq!(cut.position, Position(last as u64));
    assert_eq!(cut.offset, log.states[11].replay.chain.next_offset);
    assert!(matches!(cut.reason, Refusal::Body { .. }), "{cut}");
    log.active_file()[last + 20] ^= 1;
    let cut = log.recover(None).cut.expect("a batch was there");
    assert!(
        matches!(cut.reason, Refusal::Header(BatchError::Crc { .. })),
        "{cut}"
    );
}

/// Former lives of a segment: their batches are whole, their offsets and places may be right.
#[test]
fn batches_of_a_former_life_stay_dead() {
    let other = TopicPartition {
        partition: PartitionIndex(4),
        ..LOG
    };
    let former = |log, epochs: u32, skew_us: i64| {
        let mut former = Log::new(log, FILE);
        (1..epochs).for_each(|_| former.open_epoch());
        former.now_us += skew_us;
        (0..12).for_each(|_| former.append(2, 300, 5));
        former
    };
    let refused = |reason: Refusal| match reason {
        Refusal::OtherLog { .. } => "log",
        Refusal::Epoch { .. } => "epoch",
        Refusal::Chain { .. } => "chain",
        _ => "else",
    };
    for (former, wanted) in [
        (former(other, 9, 0), "log"),
        (former(LOG, 1, 0), "epoch"),
        (former(LOG, 9, 1 << 40), "chain"),
    ] {
        let mut log = Log::new(LOG, FILE);
        *log.active_file() = former.disk.segments[&SegmentName::Base(Offset(0))].clone();
        (1..4).for_each(|_| log.open_epoch());
        log.now_us += 5;
        (0..6).for_each(|_| log.append(2, 300, 5));
        // The former life's seventh batch stands where the next would, with its offset.
        let stale = &former.batches[6];
        assert_eq!(stale.position, log.state.position.0);
        assert_eq!(log.end(), former.states[6].replay.chain.next_offset);
        let chain = log.state.replay.chain;
        let reason = chain.header(&stale.bytes).expect_err("it is another's");
        assert_eq!(refused(reason), wanted);
        for checkpoint in [None, Some(log.checkpoint())] {
            let recovered = log.recover(checkpoint);
            log.assert_recovered(&recovered, 6);
            assert_eq!((recovered.cut, recovered.damage), (None, vec![]));
        }
    }
}

#[test]
fn a_recycled_next_segment_full_of_old_batches_is_a_spare() {
    let mut log = twelve();
    let mut old = Log::new(LOG, FILE);
    (0..30).for_each(|_| old.append(1, 500, 0));
    log.disk
        .segments
        .insert(SegmentName::Next, old.active_file().clone());
    let recovered = log.recover(Some(log.checkpoint()));
    log.assert_recovered(&recovered, 12);
    assert_eq!(
        (recovered.spare_bytes, recovered.cut),
        (Some(FILE as u64), None)
    );
    // Nor is it one when its first batch has the right offset and another past.
    let mut old = Log::starting_at(LOG, log.end(), FILE);
    (0..5).for_each(|_| old.open_epoch());
    old.now_us = log.now_us;
    (0..3).for_each(|_| old.append(1, 500, 0));
    log.disk
        .segments
        .insert(SegmentName::Next, old.active_file().clone());
    let recovered = log.recover(Some(log.checkpoint()));
    log.assert_recovered(&recovered, 12);
    assert_eq!(recovered.spare_bytes, Some(FILE as u64));
}

#[test]
fn a_next_segment_that_follows_is_adopted() {
    let mut log = twelve();
    let checkpoint = log.checkpoint();
    log.roll(FILE, false);
    (0..5).for_each(|ordinal| log.append(1, 900 * ordinal, 2));
    let base = log.state.base;
    let file = log.disk.segments.remove(&SegmentName::Base(base)).unwrap();
    log.disk.segments.insert(SegmentName::Next, file);
    for checkpoint in [None, Some(checkpoint), Some(log.checkpoint())] {
        let recovered = log.recover(checkpoint);
        log.assert_recovered(&recovered, 17);
        let active = recovered.active.unwrap();
        assert!(active.adopted_next);
        assert_eq!((recovered.spare_bytes, &recovered.damage), (None, &vec![]));
        assert_eq!(recovered.sealed.len(), 1);
        let side = Side::decode(&recovered.sides[0].encode(), LOG.log_id(), Offset(0)).unwrap();
        assert_eq!(side.next_offset, base);
        assert_eq!(side.producers, log.states[12].replay.producers);
        assert_eq!(side.epochs, log.states[12].replay.epochs);
    }
}

#[test]
fn the_only_segment_may_still_be_called_next() {
    let mut log = twelve();
    let checkpoint = log.checkpoint();
    let file = log
        .disk
        .segments
        .remove(&SegmentName::Base(Offset(0)))
        .unwrap();
    log.disk.segments.insert(SegmentName::Next, file);
    for checkpoint in [None, Some(checkpoint)] {
        let recovered = log.recover(checkpoint);
        log.assert_recovered(&recovered, 12);
        assert!(recovered.active.unwrap().adopted_next);
        assert_eq!(recovered.damage, []);
    }
}

/// Four segments of six batches.
fn four(side: bool) -> Log {
    let mut log = Log::new(LOG, FILE);
    for segment in 0..4_u64 {
        if segment > 0 {
            log.roll(FILE, side);
            log.open_epoch();
        }
        (0..6).for_each(|ordinal| log.append(2, 5_000 * ordinal, segment + 1));
    }
    log
}

#[test]
fn a_checkpoint_from_before_several_rolls_is_enough() {
    let mut log = Log::new(LOG, FILE);
    (0..3).for_each(|_| log.append(2, 3_000, 1));
    let checkpoint = log.checkpoint();
    for _ in 0..6 {
        log.append(1, 9_000, 2);
        log.roll(FILE, false);
    }
    log.append(2, 10, 1);
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 10);
    assert_eq!(recovered.sealed.len(), 6);
    assert_eq!(recovered.sides.len(), 4);
    let unusable = |ordinal: usize| recovered.sealed[ordinal].side == SideFile::Unusable;
    assert_eq!([unusable(0), unusable(1), unusable(2)], [true, true, false]);
    for side in &recovered.sides {
        let count = log.states.iter().rposition(|state| {
            state.base == side.base_offset && state.replay.chain.next_offset == side.next_offset
        });
        let state = &log.states[count.unwrap()];
        assert_eq!(side.producers, state.replay.producers);
        assert_eq!((side.end, &side.index), (state.position, &state.index));
    }
}

#[test]
fn without_a_checkpoint_the_newest_side_file_is_the_start() {
    let log = four(true);
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, 24);
    assert_eq!(recovered.sealed.len(), 3);
    assert_eq!(recovered.sealed[2].side, SideFile::Valid);
    assert_eq!(recovered.sealed[0].side, SideFile::Unread);
    // Of the sealed segments only the last one's end is looked at.
    let read = recovered.scanned_bytes;
    assert!(
        read < log.state.position.0 + RECOVERY_READ_BYTES_MAX + (64 << 10),
        "{read}"
    );
}

#[test]
fn damaged_and_missing_side_files_cost_reading_and_nothing_else() {
    for lost in 0..8_u64 {
        let mut log = four(true);
        for ordinal in (0..3).filter(|ordinal| lost & 1 << ordinal != 0) {
            let base = log.states[6 * (ordinal + 1)].base;
            if ordinal == 1 {
                log.disk.sides.get_mut(&base).unwrap()[60] ^= 4;
            } else {
                log.disk.sides.remove(&base);
            }
        }
        let recovered = log.recover(None);
        log.assert_recovered(&recovered, 24);
        assert_eq!(recovered.damage, []);
        let rebuilt: Vec<_> = recovered
            .sides
            .iter()
            .map(|side| side.base_offset)
            .collect();
        for sealed in &recovered.sealed {
            assert!(sealed.side != SideFile::Unusable || rebuilt.contains(&sealed.base));
        }
    }
}

#[test]
fn a_side_file_of_another_segment_is_not_used() {
    let mut log = four(true);
    let (first, third) = (Offset(0), log.states[18].base);
    let swapped = log.disk.sides[&first].clone();
    log.disk.sides.insert(third, swapped);
    log.assert_recovered(&log.recover(None), 24);
}

#[test]
fn a_side_file_that_says_more_than_its_segment_holds_is_not_used() {
    let mut log = four(true);
    let batch = log.batches[16].clone();
    let (third, fourth) = (batch.segment, log.state.base);
    let file = log.disk.segments.get_mut(&SegmentName::Base(third));
    file.unwrap().truncate(batch.position as usize);
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, 16);
    let unproven = Damage::Unproven {
        from: recovered.next_offset,
        first: fourth,
    };
    assert_eq!(recovered.damage, [unproven]);
    assert_eq!(recovered.orphans, [fourth]);
}

#[test]
fn a_lost_segment_behind_the_checkpoint_is_damage() {
    let mut log = four(true);
    let checkpoint = log.checkpoint();
    let last = log.state.base;
    log.disk.segments.remove(&SegmentName::Base(last));
    let recovered = log.recover(Some(checkpoint));
    assert_eq!(recovered.next_offset, last);
    let lost = Damage::LostTail {
        from: last,
        to: log.end(),
    };
    assert_eq!(recovered.damage, [lost]);
    log.assert_recovered(&recovered, 18);
}

#[test]
fn a_file_shorter_than_the_checkpoint_says_is_damage() {
    let mut log = four(true);
    let checkpoint = log.checkpoint();
    let cut_at = log.batches[21].position as usize + 200;
    log.active_file().truncate(cut_at);
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 21);
    let lost = Damage::LostTail {
        from: recovered.next_offset,
        to: log.end(),
    };
    assert_eq!(recovered.damage, [lost]);
    let reason = recovered.cut.expect("a batch was there").reason;
    assert!(
        matches!(reason, Refusal::BeyondFile { left: 200, .. }),
        "{reason}"
    );
}

#[test]
fn a_lost_first_segment_is_damage_unless_it_was_to_go() {
    let mut log = four(true);
    let second = log.states[12].base;
    log.disk.segments.remove(&SegmentName::Base(Offset(0)));
    let recovered = log.recover(Some(log.checkpoint()));
    log.assert_recovered(&recovered, 24);
    let lost = Damage::LostHead {
        from: Offset(0),
        to: second,
    };
    assert_eq!(
        (recovered.log_start, recovered.damage),
        (second, vec![lost])
    );
    log.log_start = second.plus(3);
    let recovered = log.recover(Some(log.checkpoint()));
    assert_eq!(
        (recovered.log_start, recovered.damage),
        (second.plus(3), vec![])
    );
}

#[test]
fn segments_behind_a_torn_tail_are_orphans() {
    let mut log = Log::new(LOG, FILE);
    (0..6).for_each(|_| log.append(2, 3_000, 1));
    let checkpoint = log.checkpoint();
    (0..6).for_each(|_| log.append(2, 3_000, 1));
    log.roll(FILE, false);
    log.append(1, 1, 1);
    let orphan = log.state.base;
    let torn = log.batches[8].position as usize;
    log.disk
        .segments
        .get_mut(&SegmentName::Base(Offset(0)))
        .unwrap()[torn + 4_000] ^= 1;
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 8);
    assert_eq!(
        (recovered.orphans, recovered.damage),
        (vec![orphan], vec![])
    );
    // Nothing says that the torn batch wasn't durable when there is no checkpoint.
    let recovered = log.recover(None);
    assert_eq!(recovered.orphans, [orphan]);
    let unproven = Damage::Unproven {
        from: recovered.next_offset,
        first: orphan,
    };
    assert_eq!(recovered.damage, [unproven]);
}

#[test]
fn a_hole_before_a_sealed_segment_is_damage_and_the_log_goes_on() {
    let mut log = Log::new(LOG, FILE);
    (0..3).for_each(|_| log.append(2, 3_000, 1));
    let checkpoint = log.checkpoint();
    for _ in 0..3 {
        (0..3).for_each(|_| log.append(2, 3_000, 1));
        log.roll(FILE, true);
    }
    log.append(2, 3_000, 1);
    let damaged = log.batches[4].clone();
    let file = log
        .disk
        .segments
        .get_mut(&SegmentName::Base(Offset(0)))
        .unwrap();
    file[damaged.position as usize + 300] ^= 1;
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 13);
    assert_eq!((&recovered.orphans, &recovered.cut), (&vec![], &None));
    let [
        Damage::Hole {
            segment,
            position,
            from,
            to,
            ..
        },
    ] = recovered.damage[..]
    else {
        panic!("{:?}", recovered.damage);
    };
    assert_eq!((segment, position), (Offset(0), Position(damaged.position)));
    assert_eq!(
        (from, to),
        (log.states[4].replay.chain.next_offset, log.states[7].base)
    );
    assert_eq!(recovered.sealed.len(), 3);
}

#[test]
fn a_segment_missing_before_a_sealed_one_is_a_hole() {
    let mut log = four(true);
    log.roll(FILE, true);
    let checkpoint = log.checkpoint();
    let missing = log.state.base;
    for _ in 0..2 {
        log.append(1, 10, 1);
        log.roll(FILE, true);
    }
    log.append(1, 10, 1);
    log.disk.segments.remove(&SegmentName::Base(missing));
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 27);
    let hole = Damage::Hole {
        segment: missing,
        position: Position(0),
        from: missing,
        to: log.batches[25].segment,
        reason: Refusal::FileEnds,
    };
    assert_eq!((recovered.damage, recovered.orphans), (vec![hole], vec![]));
}

#[test]
fn an_unreadable_block_costs_only_what_is_behind_it() {
    let mut log = twelve();
    let name = SegmentName::Base(Offset(0));
    let block = log.batches[9].position / BLOCK_BYTES as u64 + 1;
    let ends = |count: usize| log.states[count].position.0.div_ceil(BLOCK_BYTES as u64);
    let count = (0..12).rfind(|&count| ends(count) <= block).unwrap();
    log.disk.bad_blocks.insert((name, block));
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, count);
    assert!(count >= 9);
    assert!(matches!(recovered.damage[..], [Damage::Unreadable { .. }]));
}

#[test]
fn an_unreadable_tail_block_closes_the_segment() {
    let mut log = twelve();
    let checkpoint = log.checkpoint();
    let block = checkpoint.position.0 / BLOCK_BYTES as u64;
    log.disk
        .bad_blocks
        .insert((SegmentName::Base(Offset(0)), block));
    let recovered = log.recover(Some(checkpoint));
    assert_eq!((recovered.active, recovered.next_offset), (None, log.end()));
    assert_eq!(recovered.sealed.len(), 1);
    assert!(matches!(recovered.damage[..], [Damage::Unreadable { .. }]));
}

#[test]
fn a_batch_much_longer_than_a_read_is_read_whole() {
    let mut log = Log::new(LOG, 8 << 20);
    log.append(1, 10, 1);
    log.append(3, 1 << 20, 1);
    log.append(1, 10, 1);
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, 3);
    let position = log.batches[1].position as usize;
    log.active_file()[position + (3 << 20)] ^= 1;
    log.assert_recovered(&log.recover(None), 1);
}

#[test]
fn a_full_segment_stays_active_until_the_next_is_there() {
    let mut log = Log::new(LOG, FILE);
    log.append(1, 70_000, 1);
    let end = log.state.position.0 as usize;
    log.active_file().truncate(end);
    for checkpoint in [None, Some(log.checkpoint())] {
        let recovered = log.recover(checkpoint);
        assert_eq!(recovered.next_offset, log.end());
        assert_eq!(recovered.active.unwrap().position, log.state.position);
        assert_eq!((recovered.cut, recovered.damage), (None, vec![]));
    }
}

#[test]
fn an_entry_of_another_partition_is_ignored() {
    let log = twelve();
    let mut checkpoint = log.checkpoint();
    checkpoint.log.partition = PartitionIndex(9);
    checkpoint.next_offset = checkpoint.next_offset.plus(100);
    let recovered = log.recover(Some(checkpoint));
    log.assert_recovered(&recovered, 12);
    assert_eq!(recovered.damage, []);
}

#[test]
fn a_batch_appended_before_the_last_one_does_not_follow() {
    let mut log = twelve();
    log.now_us -= 11;
    log.append(1, 100, 1);
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, 12);
    log.state = log.states[12].clone();
    log.now_us -= 9;
    log.append(1, 100, 1);
    assert_eq!(
        log.recover(None).next_offset,
        log.end(),
        "at the same time it does"
    );
}

#[test]
fn a_segment_inside_the_range_of_another_is_an_orphan() {
    let mut log = four(false);
    let checkpoint = log.checkpoint();
    let stray = Offset(5);
    log.disk
        .segments
        .insert(SegmentName::Base(stray), vec![0; 65_536]);
    let recovered = log.recover(None);
    log.assert_recovered(&recovered, 24);
    assert_eq!(recovered.orphans, [stray]);
    assert_eq!(recovered.sealed.len(), 3);
    // Recovery that starts behind it doesn't see it: whoever reads the segment does.
    log.assert_recovered(&log.recover(Some(checkpoint)), 24);
}

fn rescan(log: &Log, ordinal: usize, before: Option<&Side>) -> Rescan {
    let base = log.states[6 * (ordinal + 1)].base;
    let end = log.states[6 * (ordinal + 1)].replay.chain.next_offset;
    let name = SegmentName::Base(base);
    let file_bytes = log.disk.segments[&name].len() as u64;
    let mut rescan = Rescan::new(LOG.log_id(), base, file_bytes, end, before);
    while let RescanStep::Read { position, bytes } = rescan.step() {
        rescan.read(log.disk.read(name, position, bytes));
    }
    rescan
}

#[test]
fn a_rescan_writes_the_side_file_that_was_lost() {
    let log = four(true);
    let mut before = None;
    for ordinal in 0..3 {
        let RescanStep::Finished(Ok(side)) = rescan(&log, ordinal, before.as_ref()).step() else {
            panic!("the segment is whole");
        };
        let written = &log.disk.sides[&side.base_offset];
        assert_eq!(&side.encode(), written);
        before = Some(*side);
    }
    let foreign = Side {
        log_id: LogId(1),
        ..before.unwrap()
    };
    let RescanStep::Finished(Ok(side)) = rescan(&log, 2, Some(&foreign)).step() else {
        panic!("the segment is whole without a side file before it");
    };
    assert_eq!(side.producers.count(), 1);
}

#[test]
fn a_rescan_names_the_first_damaged_batch() {
    let mut log = four(true);
    let batch = log.batches[8].clone();
    let file = log
        .disk
        .segments
        .get_mut(&SegmentName::Base(batch.segment))
        .unwrap();
    file[batch.position as usize + 150] ^= 1;
    let RescanStep::Finished(Err(damaged)) = rescan(&log, 1, None).step() else {
        panic!("a batch is damaged");
    };
    assert_eq!(damaged.position, Position(batch.position));
    assert_eq!(damaged.offset, log.states[8].replay.chain.next_offset);
}
