//! Trims: what is before the place is gone for every reader, what is behind it stays.

use ringway_wire::request::TrimBefore;
use ringway_wire::{ErrorCode, Offset};

use super::rig::{Rig, plain};

fn log(batches: usize) -> (Rig, Vec<i64>) {
    let mut rig = Rig::new(64 << 10);
    let mut times = Vec::new();
    for _ in 0..batches {
        rig.now.unix_us += 1_000;
        times.push(rig.now.unix_us);
        rig.append(&plain(&[&[1; 40_000]]));
    }
    (rig, times)
}

fn trim(rig: &mut Rig, before: TrimBefore) -> Result<Offset, ErrorCode> {
    let request = rig.trim(before);
    rig.run_for(1_200_000_000);
    rig.trimmed(request)
}

#[test]
fn readers_find_the_new_start_and_what_is_behind_it() {
    let (mut rig, _) = log(20);
    let before = TrimBefore::Offset(Offset(7));
    assert_eq!(trim(&mut rig, before), Ok(Offset(7)));
    let early = rig.fetch(6, 0);
    let start = rig.seek(0);
    rig.run();
    let refused = rig.fetch_reply(early);
    let code = refused.fault.as_ref().map(|fault| fault.code);
    assert_eq!(code, Some(ErrorCode::OffsetOutOfRange));
    assert_eq!(
        (refused.safe_offset, refused.log_start),
        (Offset(7), Offset(7))
    );
    assert_eq!(rig.found(start).log_start, Offset(7));
    assert_eq!(rig.read_from(7, 20).len(), 13);
}

#[test]
fn a_place_below_the_start_changes_nothing_and_one_beyond_the_end_is_refused() {
    let (mut rig, _) = log(5);
    for (before, start) in [(3, Ok(3)), (2, Ok(3)), (6, Err(())), (5, Ok(5))] {
        let before = TrimBefore::Offset(Offset(before));
        let start = start.map(Offset).map_err(|()| ErrorCode::OffsetOutOfRange);
        assert_eq!(trim(&mut rig, before), start);
    }
    assert_eq!(rig.append(&plain(&[b"x"])), Offset(5), "offsets go on");
}

#[test]
fn a_time_keeps_what_was_appended_at_or_after_it() {
    let (mut rig, times) = log(200);
    assert_eq!(
        trim(&mut rig, TrimBefore::AppendTimeUs(times[30])),
        Ok(Offset(30))
    );
    rig.restart();
    assert_eq!(
        trim(&mut rig, TrimBefore::AppendTimeUs(times[90] - 1)),
        Ok(Offset(90))
    );
    assert_eq!(
        trim(&mut rig, TrimBefore::AppendTimeUs(times[10])),
        Ok(Offset(90))
    );
    assert_eq!(
        trim(&mut rig, TrimBefore::AppendTimeUs(i64::MAX)),
        Ok(Offset(200))
    );
}
