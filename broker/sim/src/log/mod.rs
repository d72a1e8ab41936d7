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

pub use sabotage::Sabotage;
pub use sweep::{Sweep, Tally, sweep};

use std::fmt;
use std::rc::Rc;

use ringway_wire::LeaderEpoch;

use crate::device::{Crash, Damage, SimDevice};
use crate::log::history::Broken;
use crate::log::node::{Node, World};
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
    let mut state = State {
        run,
        points: 0,
        operations: 0,
        failed_at: None,
        trace: Trace::new(run.lines),
        fork_trace: None,
    };
    let what = match panics::caught(run.lines, || state.lives()) {
        Ok(Ok(trace)) => {
            return Ok(Passed {
                points: state.points,
                operations: state.operations,
                trace,
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
    points: u64,
    operations: u64,
    /// The crash point that is being tried.
    failed_at: Option<u64>,
    trace: Trace,
    fork_trace: Option<Trace>,
}

impl State {
    /// What happened up to the failure.
    fn words(&self) -> String {
        match (&self.fork_trace, self.failed_at) {
            (Some(fork), Some(point)) => {
                format!("{}\n--- crash point {point}\n{fork}", self.trace)
            }
            _ => self.trace.to_string(),
        }
    }

    /// A few broker lives, one after the other, with a crash point after every operation.
    fn lives(&mut self) -> Result<Trace, Broken> {
        let seed = self.run.seed;
        let profile = Rc::new(Profile::draw(seed));
        let mut random = Random::for_item(seed, 0x11fe);
        let mut device = SimDevice::new(profile.device, seed);
        let mut world = World::new(&profile);
        let trace = self.trace.clone();
        for life in 0..LIVES {
            let random_of_life = Random::for_item(seed, 0x1000 + life);
            let sabotage = self.run.sabotage;
            let mut node = Node::start(
                &profile,
                device,
                world,
                sabotage,
                random_of_life,
                trace.clone(),
            );
            node.operations = self.operations;
            let steps = random.between(40, 160);
            let outcome = self.life(&mut node, steps);
            self.operations = node.operations;
            outcome?;
            let crash = draw_crash(&profile, &mut random);
            device = node.device.crash(crash, random.next_u64());
            world = node.world;
            trace.record(&[5, life], || format!("crash: {crash:?}"));
        }
        Ok(trace)
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
        let mut fork = Fork::new(node, self.run, point);
        self.fork_trace = Some(fork.trace.clone());
        fork.explore(node)?;
        self.failed_at = None;
        Ok(())
    }
}

fn draw_crash(profile: &Profile, random: &mut Random) -> Crash {
    if random.chance(profile.kills) {
        Crash::Kill
    } else {
        Crash::Power
    }
}

/// What happens after a crash point, apart from the run.
struct Fork {
    profile: Rc<Profile>,
    sabotage: Option<Sabotage>,
    random: Random,
    trace: Trace,
}

type Nothing = fn(&Node) -> Result<(), Broken>;
const NOTHING: Nothing = |_| Ok(());

impl Fork {
    fn new(node: &Node, run: Run, point: u64) -> Self {
        Self {
            profile: Rc::clone(&node.profile),
            sabotage: run.sabotage,
            random: Random::for_item(run.seed, 0xf0_0000 + point),
            trace: Trace::new(run.lines),
        }
    }

    /// Crash, start, compare; some more work, and the same again; sometimes to a clean end.
    fn explore(&mut self, node: &Node) -> Result<(), Broken> {
        let mut device = self.crash(&node.device, &node.world);
        if self.random.chance(60) {
            return self.explore_damage(device, node.world.clone());
        }
        self.lose_beside_the_log(&mut device, &node.world);
        if self.random.chance(150) {
            device = self.crash_again_while_opening(device, &node.world)?;
        }
        let mut node = self.start(device, node.world.clone());
        self.second_life(&mut node)?;
        let device = self.crash(&node.device, &node.world);
        let mut node = self.start(device, node.world);
        if !self.last_life(&mut node)? {
            return Ok(());
        }
        let device = self.crash(&node.device, &node.world);
        let mut node = self.start(device, node.world);
        self.after_clean_stop(&mut node)
    }

    fn crash(&mut self, device: &SimDevice, world: &World) -> SimDevice {
        let crash = draw_crash(&self.profile, &mut self.random);
        self.trace.record(&[5], || format!("crash: {crash:?}"));
        let mut device = device.crash(crash, self.random.next_u64());
        if self.profile.worst_former_life {
            for log in world.live_logs() {
                let place = world.history.logs[log].log;
                let epoch = LeaderEpoch(world.epoch);
                former_life::haunt(&mut device, place, epoch, &mut self.random);
            }
        }
        device
    }

    fn start(&mut self, device: SimDevice, world: World) -> Node {
        let random = Random::new(self.random.next_u64());
        let trace = self.trace.clone();
        Node::start(&self.profile, device, world, self.sabotage, random, trace)
    }

    /// Side files and checkpoints only save time: without them, or damaged, everything is found.
    fn lose_beside_the_log(&mut self, device: &mut SimDevice, world: &World) {
        if self.random.chance(100) {
            for log in world.live_logs() {
                let seed = self.random.next_u64();
                device.damage_side(world.history.logs[log].log, seed);
            }
        }
        if self.random.chance(50) {
            device.lose_checkpoints();
        }
    }

    /// The power goes while the log is being recovered.
    fn crash_again_while_opening(
        &mut self,
        device: SimDevice,
        world: &World,
    ) -> Result<SimDevice, Broken> {
        let mut node = self.start(device, world.clone());
        node.pump(&mut NOTHING.clone())?;
        for _ in 0..self.random.between(0, 12) {
            node.complete(&mut NOTHING.clone())?;
        }
        Ok(self.crash(&node.device, world))
    }

    fn second_life(&mut self, node: &mut Node) -> Result<(), Broken> {
        node.open_all(&mut NOTHING.clone())?;
        node.audit(&mut NOTHING.clone())?;
        let steps = self.random.between(0, 60);
        node.run(steps, &mut NOTHING.clone())
    }

    /// True when it ended with a clean stop.
    fn last_life(&mut self, node: &mut Node) -> Result<bool, Broken> {
        node.open_all(&mut NOTHING.clone())?;
        node.audit(&mut NOTHING.clone())?;
        if !self.random.chance(200) {
            return Ok(false);
        }
        let steps = self.random.between(0, 30);
        node.run(steps, &mut NOTHING.clone())?;
        node.settle(&mut NOTHING.clone())?;
        node.audit(&mut NOTHING.clone())?;
        node.drain(&mut NOTHING.clone())?;
        Ok(true)
    }

    fn after_clean_stop(&self, node: &mut Node) -> Result<(), Broken> {
        node.open_all(&mut NOTHING.clone())?;
        // A rename that a killed process left un-synced may be undone by the power cut: then the
        // last segment is found, and read, as `next.log`.
        if !self.profile.has_failures() && self.profile.kills == 0 {
            node.check_clean_start()?;
        }
        node.audit(&mut NOTHING.clone())
    }

    /// A damaged disk may lose what it had promised to keep, but nothing wrong is ever served.
    fn explore_damage(&mut self, mut device: SimDevice, world: World) -> Result<(), Broken> {
        let logs = world.live_logs();
        let log = world.history.logs[logs[self.random.index(logs.len())]].log;
        let damage = if self.random.chance(700) {
            Damage::Flip
        } else {
            Damage::Misdirected
        };
        if !device.damage(log, damage, self.random.next_u64()) {
            return Ok(());
        }
        self.trace
            .record(&[6], || format!("damage in {log}: {damage:?}"));
        let mut node = self.start(device, world);
        node.damage_expected = true;
        node.open_all(&mut NOTHING.clone())
            .and_then(|()| node.audit(&mut NOTHING.clone()))
    }
}
