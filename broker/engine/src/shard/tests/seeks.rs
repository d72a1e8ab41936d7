//! Finding times in long logs, and segments without side files.

use ringway_wire::Offset;

use super::rig::{LOG, Rig, plain};
use crate::device::SegmentName;
use crate::shard::Note;

/// A log of many segments of one batch each, with the time at which each was appended.
fn long_log(segments: usize) -> (Rig, Vec<i64>) {
    let mut rig = Rig::new(64 << 10);
    let mut times = Vec::new();
    for _ in 0..segments {
        rig.now.unix_us += 1_000;
        times.push(rig.now.unix_us);
        rig.append(&plain(&[&[1; 40_000]]));
    }
    (rig, times)
}

fn assert_found(rig: &mut Rig, times: &[i64]) {
    for (offset, &time_us) in times.iter().enumerate().step_by(7) {
        let asked: Vec<u32> = (0..3).map(|later| rig.seek(time_us - later)).collect();
        rig.run();
        for asked in asked {
            assert_eq!(rig.found(asked).offset, Offset(offset as u64));
        }
    }
}

#[test]
fn a_time_in_a_long_log_takes_few_reads() {
    let (mut rig, times) = long_log(500);
    rig.ops.clear();
    let asked = rig.seek(times[100]);
    rig.run();
    assert_eq!(rig.found(asked).offset, Offset(100));
    assert!(rig.ops.len() <= 2, "{:?}", rig.ops);
    assert_found(&mut rig, &times);
}

#[test]
fn a_time_in_a_long_log_of_an_earlier_run_takes_few_reads() {
    let (mut rig, times) = long_log(500);
    rig.run_for(1_200_000_000);
    rig.restart();
    rig.ops.clear();
    let asked = rig.seek(times[100]);
    rig.run();
    assert_eq!(rig.found(asked).offset, Offset(100));
    assert!(rig.ops.len() <= 12, "{:?}", rig.ops);
    assert_found(&mut rig, &times);
    let late = rig.seek(times[499] + 1);
    let early = rig.seek(0);
    rig.run();
    assert_eq!(rig.found(late).offset, Offset(500));
    assert_eq!(rig.found(early).offset, Offset(0));
}

#[test]
fn a_time_that_is_not_durable_yet_is_at_the_high_watermark() {
    let (mut rig, _) = long_log(20);
    rig.hold_kinds = vec!["write", "durable write", "prepare"];
    rig.now.unix_us += 1_000;
    for _ in 0..3 {
        rig.produce(&plain(&[&[1; 40_000]]));
        rig.run();
    }
    let asked = rig.seek(rig.now.unix_us - 1);
    rig.run();
    assert_eq!(rig.found(asked).offset, Offset(20));
}

/// A log of an earlier run with segments large enough to have an index, whose side files are gone.
fn without_sides() -> Rig {
    let mut rig = Rig::new(4 << 20);
    for _ in 0..300 {
        rig.append(&plain(&[&[1; 50_000]]));
    }
    rig.run_for(1_200_000_000);
    rig.sides.clear();
    rig
}

#[test]
fn a_lost_side_file_is_rebuilt() {
    let mut rig = without_sides();
    rig.restart();
    assert_eq!(rig.read_from(0, 300).len(), 300);
    rig.run();
    let rebuilt: Vec<Offset> = rig.sides.keys().map(|(_, base)| *base).collect();
    assert!(rebuilt.len() >= 2, "{rebuilt:?}");
    let before = rig.ops.len();
    let last_of_segment = rebuilt[1].0 - 1;
    let fetch = rig.fetch(last_of_segment, 0);
    rig.run();
    assert!(
        rig.fetched(fetch)
            .iter()
            .any(|record| record.0 == last_of_segment)
    );
    assert_eq!(rig.ops.len() - before, 1, "one read, near the place");
}

#[test]
fn a_damaged_segment_is_not_rebuilt_and_is_told_of_once() {
    let mut rig = without_sides();
    let base = |rig: &Rig| {
        let of = |(_, name): &&(_, SegmentName)| match name {
            SegmentName::Base(base) => Some(*base),
            SegmentName::Next => None,
        };
        let large = rig.files.iter().filter(|(_, bytes)| bytes.len() > 1 << 20);
        large.filter_map(|(key, _)| of(&key)).next().unwrap()
    };
    let base = base(&rig);
    let bytes = rig.files.get_mut(&(LOG, SegmentName::Base(base))).unwrap();
    bytes[200_000] ^= 1;
    rig.restart();
    for _ in 0..3 {
        let fetch = rig.fetch(base.0, 0);
        rig.run();
        assert_eq!(rig.fetched(fetch)[0].0, base.0);
    }
    let damages = |rig: &Rig| {
        let is_damage = |note: &&Note| matches!(note, Note::Damaged { .. });
        rig.notes.iter().filter(is_damage).count()
    };
    assert_eq!(damages(&rig), 1);
    assert!(!rig.sides.contains_key(&(LOG, base)));
}

#[test]
fn a_partition_may_go_while_its_side_files_are_rebuilt() {
    for kind in ["read", "load side", "save side"] {
        let mut rig = without_sides();
        rig.restart();
        rig.hold_kinds = vec![kind];
        rig.fetch(200, 0);
        rig.fetch(250, 0);
        rig.run();
        rig.shard
            .apply(crate::shard::Event::Delete { log: LOG }, rig.now);
        rig.release();
        rig.run();
        assert!(rig.notes.contains(&Note::Deleted { log: LOG }), "{kind}");
        rig.shard.apply(crate::shard::Event::Drain, rig.now);
        rig.run_for(1_000_000_000);
        assert!(rig.notes.contains(&Note::Drained), "{kind}");
    }
}
