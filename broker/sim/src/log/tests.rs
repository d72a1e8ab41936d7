//! The simulation's own tests: it repeats itself exactly, it passes with everything that it is
//! for having happened, and it finds each planted bug.

use crate::device::DurableWrite;

use super::{EVENTS, Failure, Points, Run, Sabotage, Sweep, Tally, run, sweep};

/// The first test of all: without it no failure could be repeated.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let [once, again] = [Points::Some(50), Points::Some(0)].map(|points| {
            run(Run {
                points,
                ..Run::new(seed)
            })
            .expect("it passes")
        });
        assert_eq!(
            (once.trace.hash(), once.trace.count(), once.operations),
            (again.trace.hash(), again.trace.count(), again.operations),
            "seed {seed}: crash points don't change the run either"
        );
    }
}

/// What follows a crash point repeats itself, too: alone and among others.
#[test]
fn a_crash_point_alone_fails_as_it_did_among_others() {
    let sabotage = Some(Sabotage::NoSync);
    let among = (0..50)
        .find_map(|seed| {
            run(Run {
                sabotage,
                ..Run::new(seed)
            })
            .err()
        })
        .expect("nothing is ever flushed");
    let points = Points::One(among.point.expect("it fails after a crash"));
    let alone = run(Run {
        sabotage,
        points,
        ..Run::new(among.seed)
    })
    .expect_err("as before");
    assert_eq!(alone.what, among.what);
}

fn go(from: u64, seeds: u64, points: Points) -> Sweep {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Sweep {
        from,
        seeds,
        points,
        sabotage: None,
        durable_write: None,
        threads,
        lines: false,
    }
}

#[track_caller]
fn passes(runs: Sweep) -> Tally {
    sweep(runs, |_| {}).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Fifty seeds at every operation.
#[test]
fn no_promise_is_broken_at_any_operation() {
    let tally = passes(go(0, 50, Points::Every));
    assert!(
        tally.points >= 10_000,
        "{} crash points are too few",
        tally.points
    );
}

/// Many seeds at a few operations each. It counts only if everything really happened.
#[test]
fn no_promise_is_broken_whatever_happens() {
    let tally = passes(go(1_000, 300, Points::Some(20)));
    let missing: Vec<&str> = EVENTS
        .into_iter()
        .filter(|what| !tally.counts.contains_key(what))
        .collect();
    assert!(missing.is_empty(), "these never happened: {missing:?}");
}

/// The failure that a planted bug leads to.
#[track_caller]
fn found(sabotage: Sabotage, durable_write: Option<DurableWrite>) -> Failure {
    let runs = Sweep {
        sabotage: Some(sabotage),
        durable_write,
        ..go(0, 300, Points::Some(100))
    };
    match sweep(runs, |_| {}) {
        Ok(tally) => panic!("{sabotage:?} wasn't found in {} seeds", tally.seeds),
        Err(failure) => failure,
    }
}

#[test]
fn a_broken_tail_rule_is_found() {
    found(Sabotage::ZeroedTail, None);
    found(Sabotage::StaleTail, None);
}

#[test]
fn a_broken_order_of_writes_and_syncs_is_found() {
    found(Sabotage::EarlySync, None);
    found(Sabotage::AnsweredSync, None);
    found(Sabotage::NoSync, None);
    found(Sabotage::AnsweredWrite, None);
}

#[test]
fn a_start_that_trusts_the_devices_cache_is_found() {
    found(Sabotage::NoSyncAtStart, None);
}

#[test]
fn a_segment_removed_before_a_checkpoint_says_so_is_found() {
    let failure = found(Sabotage::NoCheckpoint, None);
    let lost = ["went back", "are lost"];
    assert!(
        lost.iter().any(|what| failure.what.contains(what)),
        "{failure}"
    );
}

/// A durable write of a device with FUA is no flush, and only there does it matter.
#[test]
fn a_last_write_instead_of_a_flush_is_found_on_a_device_with_fua() {
    found(Sabotage::LastWriteDurable, Some(DurableWrite::ItselfOnly));
    passes(Sweep {
        sabotage: Some(Sabotage::LastWriteDurable),
        durable_write: Some(DurableWrite::Flushes),
        ..go(0, 100, Points::Some(50))
    });
}
