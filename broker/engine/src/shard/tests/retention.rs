//! Records that are too old, too many or not wanted any more: what goes, when, and what doesn't.

use std::time::Duration;

use ringway_wire::request::{Reply, TrimBefore, TrimReply, TrimRequest};
use ringway_wire::{ErrorCode, Offset};

use super::rig::{LOG, Rig, io_error, log, plain};
use crate::device::{DeviceError, SegmentName};
use crate::shard::{Event, Note};

/// A time that is long enough for a checkpoint and a look for what is too old, in nanoseconds.
const A_WHILE_NS: u64 = 5_000_000_000;

fn rig(retention: Option<Duration>, retention_bytes: Option<u64>) -> Rig {
    let mut rig = Rig::without_partitions(super::rig::shard_config(), 256 << 10);
    (rig.retention, rig.retention_bytes) = (retention, retention_bytes);
    rig.open(LOG);
    rig.run();
    rig
}

/// Appends batches of 30 kB, a millisecond apart.
fn append(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        rig.append(&plain(&[&[7; 30_000]]));
        rig.now.unix_us += 1_000;
    }
}

fn start(rig: &Rig) -> u64 {
    let status = rig.shard.statuses().find(|status| status.log == LOG);
    status.expect("it is open").log_start.0
}

fn end(rig: &Rig) -> u64 {
    let status = rig.shard.statuses().find(|status| status.log == LOG);
    status.expect("it is open").log_end.0
}

fn bases(rig: &Rig) -> Vec<u64> {
    let base = |&(of, name): &(_, SegmentName)| match name {
        SegmentName::Base(base) if of == LOG => Some(base.0),
        _ => None,
    };
    rig.files.keys().filter_map(base).collect()
}

fn trim(rig: &mut Rig, before: TrimBefore) -> u32 {
    let request = TrimRequest {
        topic: LOG.topic,
        partition: LOG.partition,
        before,
    };
    rig.request(request.into(), &[])
}

fn trim_to(rig: &mut Rig, offset: u64) -> u32 {
    trim(rig, TrimBefore::Offset(Offset(offset)))
}

#[track_caller]
fn trimmed(rig: &Rig, request: u32) -> Result<u64, ErrorCode> {
    let Some((Reply::Trim(reply), _)) = rig.replies.get(&request) else {
        panic!("no reply to the trim");
    };
    let TrimReply {
        fault, log_start, ..
    } = reply;
    fault
        .as_ref()
        .map_or(Ok(log_start.0), |fault| Err(fault.code))
}

/// What is left is all there, and what is not is refused with the place where to go on.
#[track_caller]
fn check_reads(rig: &mut Rig) {
    let (start, end) = (start(rig), end(rig));
    let offsets: Vec<u64> = rig.read_from(start, end).iter().map(|at| at.0).collect();
    assert_eq!(offsets, (start..end).collect::<Vec<u64>>());
    if start > 0 {
        let fetch = rig.fetch(start - 1, 0);
        rig.run();
        let reply = rig.fetch_reply(fetch);
        let code = reply.fault.as_ref().map(|fault| fault.code);
        assert_eq!(code, Some(ErrorCode::OffsetOutOfRange));
        assert_eq!((reply.safe_offset.0, reply.log_start.0), (start, start));
    }
}

#[track_caller]
fn nothing_is_damaged(rig: &Rig) {
    let damage = rig
        .notes
        .iter()
        .find(|note| matches!(note, Note::Damaged { .. }));
    assert_eq!(damage, None);
}

#[test]
fn a_partition_keeps_no_more_bytes_than_it_is_to() {
    let bytes_max = 1 << 20;
    let mut rig = rig(None, Some(bytes_max));
    for _ in 0..10 {
        append(&mut rig, 60);
        rig.run_for(A_WHILE_NS);
        let bytes: usize = rig.files.values().map(Vec::len).sum();
        let most = bytes_max as usize + 2 * (256 << 10);
        assert!(bytes <= most, "{bytes} bytes are kept");
    }
    let kept = end(&rig) - start(&rig);
    assert!((18..=35).contains(&kept), "{kept} batches are kept");
    assert_eq!(bases(&rig)[0], start(&rig), "whole segments go");
    assert_eq!(
        rig.sides.len(),
        bases(&rig).len() - 1,
        "with their side files"
    );
    assert!(rig.shard.counters().removed_segments > 50);
    check_reads(&mut rig);
    let before = (start(&rig), end(&rig));
    rig.restart();
    assert_eq!((start(&rig), end(&rig)), before);
    check_reads(&mut rig);
    nothing_is_damaged(&rig);
}

#[test]
fn less_than_it_may_keep_stays() {
    let mut rig = rig(Some(Duration::from_secs(3_600)), Some(4 << 20));
    append(&mut rig, 60);
    rig.run_for(100 * A_WHILE_NS);
    assert_eq!(start(&rig), 0);
    check_reads(&mut rig);
}

#[test]
fn a_record_goes_when_it_is_too_old_and_the_last_segment_stays_as_a_file() {
    let mut rig = rig(Some(Duration::from_secs(60)), None);
    append(&mut rig, 100);
    rig.now.unix_us += 55_000_000;
    append(&mut rig, 50);
    rig.run_for(A_WHILE_NS);
    assert_eq!(start(&rig), 0, "nothing is old enough");
    rig.now.unix_us += 4_950_000;
    rig.run_for(70_000_000_000);
    let kept = start(&rig);
    assert!((90..=100).contains(&kept), "{kept}: whole segments go");
    check_reads(&mut rig);
    rig.now.unix_us += 60_000_000;
    rig.run_for(70_000_000_000);
    assert_eq!((start(&rig), end(&rig)), (150, 150));
    assert_eq!(bases(&rig).len(), 1, "it tells the next offset");
    rig.restart();
    assert_eq!((start(&rig), end(&rig)), (150, 150));
    append(&mut rig, 20);
    rig.run_for(A_WHILE_NS);
    assert_eq!((start(&rig), end(&rig)), (150, 170));
    assert!(
        bases(&rig)[0] >= 150 - 9,
        "what was emptied goes once it is full"
    );
    check_reads(&mut rig);
    nothing_is_damaged(&rig);
}

#[test]
fn a_start_without_checkpoints_goes_on_at_the_next_offset() {
    let mut rig = rig(Some(Duration::from_secs(1)), None);
    append(&mut rig, 30);
    rig.now.unix_us += 2_000_000;
    rig.run_for(A_WHILE_NS);
    assert_eq!(start(&rig), 30);
    rig.checkpoint = None;
    rig.restart();
    assert_eq!(end(&rig), 30);
    assert_eq!(rig.append(&plain(&[b"next"])), Offset(30));
}

#[test]
fn nothing_goes_and_nobody_hears_of_it_before_a_checkpoint_says_so() {
    let mut rig = rig(None, Some(512 << 10));
    append(&mut rig, 10);
    rig.hold_kinds = vec!["save checkpoint"];
    append(&mut rig, 100);
    let trim = trim_to(&mut rig, 60);
    rig.run_for(A_WHILE_NS);
    assert_eq!((start(&rig), bases(&rig)[0]), (0, 0));
    assert!(!rig.answered(trim));
    assert_eq!(rig.read_from(0, 110).len(), 110);
    rig.release();
    rig.run_for(A_WHILE_NS);
    assert!(start(&rig) > 60);
    assert_eq!(bases(&rig)[0], start(&rig));
    assert_eq!(trimmed(&rig, trim), Ok(start(&rig)));
    check_reads(&mut rig);
}

/// The checkpoint that couldn't be saved says nothing, and the next one does.
#[test]
fn a_checkpoint_that_fails_removes_nothing() {
    let mut rig = rig(None, None);
    append(&mut rig, 60);
    rig.failing.insert("save checkpoint", io_error());
    let trim = trim_to(&mut rig, 50);
    rig.run_for(A_WHILE_NS);
    assert_eq!((start(&rig), bases(&rig)[0]), (0, 0));
    rig.restart();
    assert_eq!(start(&rig), 0);
    assert_eq!(rig.read_from(0, 60).len(), 60);
    assert!(!rig.answered(trim));
    nothing_is_damaged(&rig);
}

#[test]
fn a_segment_that_is_being_read_is_removed_after_it() {
    let mut rig = rig(None, None);
    append(&mut rig, 200);
    rig.run_for(A_WHILE_NS);
    rig.hold_kinds = vec!["read"];
    let cold = rig.fetch(0, 0);
    rig.run();
    assert_eq!(rig.held_kinds(), ["read"]);
    let trim = trim_to(&mut rig, 150);
    rig.run_for(A_WHILE_NS);
    assert_eq!(
        trimmed(&rig, trim),
        Ok(150),
        "it doesn't wait for the reader"
    );
    assert_eq!(bases(&rig)[0], 0, "nor does its segment go");
    rig.release();
    rig.run_for(A_WHILE_NS);
    let first = bases(&rig)[0];
    assert!((140..=150).contains(&first), "{first}: all others go");
    // It came before the trim, and is answered from what was read or sent on.
    assert!(rig.answered(cold));
    check_reads(&mut rig);
}

#[test]
fn a_segment_whose_side_file_is_being_saved_is_removed_after_it() {
    let mut rig = rig(None, None);
    rig.hold_kinds = vec!["save side"];
    append(&mut rig, 60);
    trim_to(&mut rig, 60);
    rig.run_for(A_WHILE_NS);
    assert_eq!((start(&rig), bases(&rig)[0]), (60, 0));
    rig.release();
    rig.run_for(A_WHILE_NS);
    assert_eq!(bases(&rig).len(), 1);
    assert_eq!(rig.sides.len(), 0, "no side file is left behind");
}

#[test]
fn segments_go_one_by_one_and_a_start_goes_on_with_it() {
    let mut rig = rig(None, None);
    append(&mut rig, 100);
    let segments = bases(&rig);
    rig.hold_kinds = vec!["remove"];
    trim_to(&mut rig, 100);
    rig.run_for(A_WHILE_NS);
    assert_eq!(rig.held_kinds(), ["remove"]);
    rig.finish_held(0, None);
    rig.run();
    assert_eq!(bases(&rig), segments[1..]);
    rig.restart();
    rig.run_for(A_WHILE_NS);
    assert_eq!((start(&rig), end(&rig)), (100, 100));
    assert_eq!(bases(&rig).len(), 1);
    nothing_is_damaged(&rig);
}

#[test]
fn a_segment_that_cannot_be_removed_is_named_and_tried_again() {
    let mut rig = rig(Some(Duration::from_secs(3_600)), None);
    append(&mut rig, 60);
    let segments = bases(&rig);
    rig.failing.insert("remove", io_error());
    let trim = trim_to(&mut rig, 60);
    rig.run_for(A_WHILE_NS);
    assert_eq!(trimmed(&rig, trim), Ok(60));
    let named = |note: &&Note| matches!(note, Note::NotRemoved { base, .. } if base.0 == 0);
    assert!(rig.notes.iter().any(|note| named(&note)));
    rig.run_for(200_000_000_000);
    assert_eq!(bases(&rig), segments, "none behind it goes either");
    rig.failing.clear();
    rig.run_for(70_000_000_000);
    assert_eq!(bases(&rig).len(), 1);
    assert!(rig.sides.is_empty());
}

#[test]
fn a_trim_is_answered_with_the_first_offset_or_why_not() {
    let mut rig = rig(None, None);
    append(&mut rig, 60);
    let beyond = trim_to(&mut rig, 61);
    rig.run();
    assert_eq!(trimmed(&rig, beyond), Err(ErrorCode::OffsetOutOfRange));
    let some = trim_to(&mut rig, 33);
    rig.run();
    assert_eq!(
        trimmed(&rig, some),
        Ok(33),
        "at once, not with the next checkpoint"
    );
    let less = trim_to(&mut rig, 5);
    rig.run();
    assert_eq!(trimmed(&rig, less), Ok(33));
    check_reads(&mut rig);
    let all = trim_to(&mut rig, 60);
    rig.run();
    assert_eq!(trimmed(&rig, all), Ok(60));
    append(&mut rig, 1);
    check_reads(&mut rig);
    rig.shard.apply(Event::Drain, rig.now);
    let late = trim_to(&mut rig, 61);
    rig.run();
    assert_eq!(trimmed(&rig, late), Err(ErrorCode::ShuttingDown));
}

#[test]
fn a_trim_inside_a_batch_leaves_the_rest_of_it() {
    let mut rig = rig(None, None);
    rig.append(&plain(&[b"a", b"b", b"c", b"d"]));
    let trim = trim_to(&mut rig, 2);
    rig.run();
    assert_eq!(trimmed(&rig, trim), Ok(2));
    let values = |rig: &mut Rig| {
        let records = rig.read_from(2, 4);
        records.into_iter().map(|at| at.1).collect::<Vec<_>>()
    };
    assert_eq!(values(&mut rig), [b"c", b"d"]);
    let asked = rig.seek(0);
    rig.run();
    assert_eq!(rig.found(asked).offset, Offset(2));
    rig.restart();
    assert_eq!((start(&rig), end(&rig)), (2, 4));
    assert_eq!(values(&mut rig), [b"c", b"d"]);
}

#[test]
fn a_trim_by_time_finds_its_offset_in_memory_and_on_disk() {
    let mut rig = rig(None, None);
    let began_us = rig.now.unix_us;
    append(&mut rig, 200);
    for restart in [false, true] {
        if restart {
            rig.restart();
        }
        let to = if restart { 150 } else { 40 };
        let time_us = began_us + to * 1_001 - 300;
        let trim = trim(&mut rig, TrimBefore::AppendTimeUs(time_us));
        rig.run_for(A_WHILE_NS);
        let start = trimmed(&rig, trim).expect("it is trimmed") as i64;
        assert!(
            (to - 5..=to + 5).contains(&start),
            "{start} instead of {to}"
        );
        check_reads(&mut rig);
    }
    let trim = trim(&mut rig, TrimBefore::AppendTimeUs(i64::MAX));
    rig.run();
    assert_eq!(trimmed(&rig, trim), Ok(200), "everything is older");
}

#[test]
fn a_search_by_time_that_retention_overtakes_begins_again() {
    let mut rig = rig(None, None);
    append(&mut rig, 200);
    rig.run_for(A_WHILE_NS);
    rig.restart();
    rig.hold_kinds = vec!["read"];
    let asked = rig.seek(1);
    rig.run();
    assert!(!rig.answered(asked));
    rig.hold_kinds.clear();
    trim_to(&mut rig, 180);
    rig.run_for(A_WHILE_NS);
    rig.release();
    assert_eq!(rig.found(asked).fault, None);
    assert_eq!(rig.found(asked).offset, Offset(180));
}

#[test]
fn trims_of_a_partition_that_fails_or_goes_are_answered() {
    for delete in [false, true] {
        let mut rig = rig(None, None);
        append(&mut rig, 60);
        rig.hold_kinds = vec!["save checkpoint"];
        let trim = trim_to(&mut rig, 50);
        rig.run();
        assert!(!rig.answered(trim));
        let event = match delete {
            true => Event::Delete { log: LOG },
            false => Event::DeviceFailed { error: io_error() },
        };
        rig.shard.apply(event, rig.now);
        rig.release();
        let code = match delete {
            true => ErrorCode::UnknownTopic,
            false => ErrorCode::StorageFailed,
        };
        assert_eq!(trimmed(&rig, trim), Err(code));
        rig.run_for(A_WHILE_NS);
        assert_eq!(
            bases(&rig).is_empty(),
            delete,
            "of a failed one everything stays"
        );
    }
}

#[test]
fn a_partition_that_is_deleted_while_segments_go_leaves_nothing() {
    let mut rig = rig(None, None);
    append(&mut rig, 100);
    rig.hold_kinds = vec!["remove"];
    trim_to(&mut rig, 100);
    rig.run_for(A_WHILE_NS);
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.release();
    assert!(rig.notes.contains(&Note::Deleted { log: LOG }));
    assert!(rig.files.is_empty());
}

/// Which segments an earlier run wrote when is in their side files.
#[test]
fn ages_are_known_after_a_start_from_the_side_files() {
    let mut rig = rig(Some(Duration::from_secs(60)), None);
    append(&mut rig, 100);
    rig.run_for(A_WHILE_NS);
    rig.restart();
    rig.now.unix_us += 30_000_000;
    append(&mut rig, 20);
    rig.now.unix_us += 31_000_000;
    rig.run_for(70_000_000_000);
    let kept = start(&rig);
    assert!(
        (90..=100).contains(&kept),
        "{kept}: what was appended first goes"
    );
}

/// Without its side file a segment's age isn't known: it stays rather too long.
#[test]
fn a_segment_without_a_side_file_is_as_young_as_the_log() {
    let mut rig = rig(Some(Duration::from_secs(60)), None);
    append(&mut rig, 60);
    rig.now.unix_us += 30_000_000;
    append(&mut rig, 1);
    rig.run_for(A_WHILE_NS);
    rig.sides.clear();
    rig.restart();
    rig.now.unix_us += 31_000_000;
    rig.run_for(70_000_000_000);
    assert_eq!(start(&rig), 0);
    rig.now.unix_us += 31_000_000;
    rig.run_for(70_000_000_000);
    assert_eq!(start(&rig), 61);
}

#[test]
fn a_new_configuration_counts_at_once() {
    let mut rig = rig(None, None);
    append(&mut rig, 100);
    rig.run_for(A_WHILE_NS);
    assert_eq!(start(&rig), 0);
    rig.retention_bytes = Some(512 << 10);
    let config = rig.partition_config();
    rig.shard
        .apply(Event::Configure { log: LOG, config }, rig.now);
    rig.run_for(A_WHILE_NS);
    assert!(start(&rig) > 70);
    check_reads(&mut rig);
}

/// Appends until the disk is full.
fn fill_up(rig: &mut Rig) {
    rig.failing.insert("prepare", DeviceError::Full);
    let is_full = |note: &Note| matches!(note, Note::State { .. });
    while !rig.notes.iter().any(is_full) {
        rig.produce(&plain(&[&[7; 30_000]]));
        rig.run_for(50_000_000);
    }
}

/// What waits for the space to write it can't be in a checkpoint; where the log starts has to be.
#[test]
fn a_partition_without_space_still_frees_some() {
    let mut rig = rig(None, None);
    append(&mut rig, 100);
    rig.run_for(A_WHILE_NS);
    fill_up(&mut rig);
    let trim = trim_to(&mut rig, 80);
    rig.run_for(A_WHILE_NS);
    assert_eq!(trimmed(&rig, trim), Ok(80));
    let first = bases(&rig)[0];
    assert!((70..=80).contains(&first), "{first}");
    rig.failing.clear();
    rig.run_for(A_WHILE_NS);
    append(&mut rig, 1);
    check_reads(&mut rig);
}

/// Also when the disk is full before the first checkpoint.
#[test]
fn a_partition_without_space_or_checkpoint_still_frees_some() {
    let mut rig = rig(None, None);
    append(&mut rig, 100);
    fill_up(&mut rig);
    let trim = trim_to(&mut rig, 80);
    rig.run_for(A_WHILE_NS);
    assert_eq!(trimmed(&rig, trim), Ok(80));
    let first = bases(&rig)[0];
    assert!((70..=80).contains(&first), "{first}");
    rig.restart();
    nothing_is_damaged(&rig);
    append(&mut rig, 1);
    check_reads(&mut rig);
}

#[test]
fn partitions_go_by_their_own_ages() {
    let mut rig = rig(Some(Duration::from_secs(60)), None);
    rig.open(log(1));
    rig.run();
    append(&mut rig, 3);
    rig.now.unix_us += 50_000_000;
    rig.produce_to(log(1), &plain(&[b"young"]));
    rig.run();
    rig.now.unix_us += 20_000_000;
    rig.run_for(70_000_000_000);
    let starts: Vec<(u64, u64)> = rig
        .shard
        .statuses()
        .map(|status| (status.log_start.0, status.log_end.0))
        .collect();
    assert_eq!(starts, [(3, 3), (0, 1)]);
}
