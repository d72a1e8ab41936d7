//! The simulation of the log: one shard on a disk that forgets, crashed at its operations, started
//! again on what is left, and held to everything that its clients were told.
//!
//! A seed is one run. At a crash point the disk is copied as a crash would leave it, together with
//! the clients' memory, and another broker starts on the copy, while the run itself goes on: so
//! each point costs a recovery, not a run of its own.

mod act;
mod audit;
mod batch;
mod clients;
mod coverage;
mod fork;
mod former_life;
mod history;
mod node;
mod panics;
mod profile;
mod replies;
mod sabotage;
mod sweep;
#[cfg(test)]
mod tests;

pub use coverage::{Counts, EVENTS};
pub use sabotage::Sabotage;
pub use sweep::{Sweep, Tally, sweep};

use std::fmt;
use std::rc::Rc;

use crate::device::{DurableWrite, SimDevice};
use crate::log::coverage::Coverage;
use crate::log::fork::{Fork, draw_crash};
use crate::log::history::Broken;
use crate::log::node::{Node, Ways, World};
use crate::log::profile::Profile;
use crate::random::Random;
use crate::trace::Trace;

/// Which crash points of a run are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// Each submission and each completion.
    Every,
    /// About so many of 1,000.
    Some(u64),
    /// One: the count of submissions and completions before it.
    One(u64),
}

/// One seed's run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Decides everything about the run.
    pub seed: u64,
    /// Where to crash. Doesn't change the run itself.
    pub points: Points,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
    /// What durable writes do, instead of what the seed says.
    pub durable_write: Option<DurableWrite>,
    /// Whether the trace can be read, not only compared.
    pub lines: bool,
}

impl Run {
    /// A run of a seed with a crash at every operation.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            points: Points::Every,
            sabotage: None,
            durable_write: None,
            lines: false,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Passed {
    /// Crash points tried.
    pub points: u64,
    /// Submissions and completions of the run.
    pub operations: u64,
    /// How often what happened, in the run and after its crash points.
    pub counts: Counts,
    /// What happened in the run itself.
    pub trace: Trace,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// The crash point, if it was after one.
    pub point: Option<u64>,
    /// The promise.
    pub what: String,
    /// What happened before, if asked for.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.trace.is_empty() {
            writeln!(f, "{}", self.trace)?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(
            f,
            "repeat with: ringway-sim log --from {} --seeds 1",
            self.seed
        )?;
        match self.point {
            Some(point) => write!(f, " --point {point}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Broker lives of a run.
const LIVES: u64 = 3;

/// Carries out a run.
///
/// # Errors
/// [`Failure`] for the first broken promise, and for whatever panics.
pub fn run(run: Run) -> Result<Passed, Failure> {
    let mut state = State::new(run);
    let what = match panics::caught(run.lines, || state.lives()) {
        Ok(Ok(())) => {
            return Ok(Passed {
                points: state.points,
                operations: state.operations,
                counts: state.ways.coverage.counts(),
                trace: state.ways.trace,
            });
        }
        Ok(Err(broken)) | Err(broken) => broken,
    };
    let trace = if run.lines {
        state.words()
    } else {
        String::new()
    };
    Err(Failure {
        seed: run.seed,
        point: state.failed_at,
        what,
        trace,
    })
}

struct State {
    run: Run,
    ways: Ways,
    points: u64,
    operations: u64,
    /// The crash point that is being tried, and what happens after it.
    failed_at: Option<u64>,
    fork_trace: Option<Trace>,
}

impl State {
    fn new(run: Run) -> Self {
        let mut profile = Profile::draw(run.seed);
        if let Some(durable_write) = run.durable_write {
            profile.device.durable_write = durable_write;
        }
        let ways = Ways {
            profile: Rc::new(profile),
            sabotage: run.sabotage,
            trace: Trace::new(run.lines),
            coverage: Coverage::default(),
        };
        Self {
            run,
            ways,
            points: 0,
            operations: 0,
            failed_at: None,
            fork_trace: None,
        }
    }

    /// What happened up to the failure.
    fn words(&self) -> String {
        let trace = &self.ways.trace;
        match (&self.fork_trace, self.failed_at) {
            (Some(fork), Some(point)) => format!("{trace}\n--- crash point {point}\n{fork}"),
            _ => trace.to_string(),
        }
    }

    /// A few broker lives, one after the other, with a crash point after every operation.
    fn lives(&mut self) -> Result<(), Broken> {
        let seed = self.run.seed;
        let mut random = Random::for_item(seed, 0x11fe);
        let mut device = SimDevice::new(self.ways.profile.device, seed);
        let mut world = World::new(&self.ways.profile);
        for life in 0..LIVES {
            let random_of_life = Random::for_item(seed, 0x1000 + life);
            let mut node = Node::start(&self.ways, device, world, random_of_life);
            node.operations = self.operations;
            let steps = random.between(40, 160);
            let outcome = self.life(&mut node, steps);
            self.operations = node.operations;
            outcome?;
            let crash = draw_crash(&self.ways, &mut random);
            device = node.device.crash(crash, random.next_u64());
            world = node.world;
        }
        Ok(())
    }

    fn life(&mut self, node: &mut Node, steps: u64) -> Result<(), Broken> {
        let mut observer = |node: &Node| self.try_point(node);
        node.open_all(&mut observer)?;
        node.audit(&mut observer)?;
        node.run(steps, &mut observer)
    }

    /// Crashes a copy of the disk after an operation, if this point is wanted.
    fn try_point(&mut self, node: &Node) -> Result<(), Broken> {
        let point = node.operations;
        let wanted = match self.run.points {
            Points::Every => true,
            Points::Some(chance) => Random::for_item(self.run.seed, point ^ 0x5e1e).chance(chance),
            Points::One(one) => one == point,
        };
        if !wanted {
            return Ok(());
        }
        self.points += 1;
        self.failed_at = Some(point);
        let ways = Ways {
            trace: Trace::new(self.run.lines),
            ..self.ways.clone()
        };
        self.fork_trace = Some(ways.trace.clone());
        Fork::new(ways, self.run.seed, point).explore(node)?;
        self.failed_at = None;
        Ok(())
    }
}
