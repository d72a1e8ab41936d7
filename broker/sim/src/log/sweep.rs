//! Many seeds on all cores, with progress and an early end at the first failure.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::device::DurableWrite;
use crate::log::{Counts, Failure, Points, Run, Sabotage, run};

/// Which runs.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Where each run crashes.
    pub points: Points,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
    /// What durable writes do, instead of what the seed says.
    pub durable_write: Option<DurableWrite>,
    /// Threads; each has runs of its own.
    pub threads: usize,
    /// Whether a failure comes with its trace.
    pub lines: bool,
}

/// What has been tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Crash points of them.
    pub points: u64,
    /// Submissions and completions of the runs themselves.
    pub operations: u64,
    /// How often what happened.
    pub counts: Counts,
}

/// Carries out runs until all are done or one fails; `progress` is told of each run's end.
///
/// # Errors
/// The failure with the lowest seed of those that were met.
pub fn sweep(sweep: Sweep, progress: impl Fn(&Tally) + Sync) -> Result<Tally, Failure> {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let state = Mutex::new((Tally::default(), None::<Failure>));
    thread::scope(|scope| {
        for _ in 0..sweep.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let ordinal = next.fetch_add(1, Ordering::Relaxed);
                    if ordinal >= sweep.seeds || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(Run {
                        seed: sweep.from + ordinal,
                        points: sweep.points,
                        sabotage: sweep.sabotage,
                        durable_write: sweep.durable_write,
                        lines: sweep.lines,
                    });
                    let mut state = state.lock().expect("no thread panics with the lock");
                    match outcome {
                        Ok(passed) => {
                            state.0.seeds += 1;
                            state.0.points += passed.points;
                            state.0.operations += passed.operations;
                            for (what, count) in passed.counts {
                                *state.0.counts.entry(what).or_default() += count;
                            }
                            progress(&state.0);
                        }
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            let lower = state
                                .1
                                .as_ref()
                                .is_none_or(|known| failure.seed < known.seed);
                            if lower {
                                state.1 = Some(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    let (tally, failure) = state.into_inner().expect("no thread panics with the lock");
    failure.map_or(Ok(tally), Err)
}
