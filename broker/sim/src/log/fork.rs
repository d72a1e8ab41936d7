//! What follows a crash point, on a copy of the disk: starts, checks, more work, more crashes.

use ringway_wire::LeaderEpoch;

use crate::device::{Crash, Damage, SimDevice};
use crate::log::former_life;
use crate::log::history::Broken;
use crate::log::node::{Node, Ways, World};
use crate::log::sabotage::Sabotage;
use crate::random::Random;

/// Nobody looks at the operations after a crash point.
fn nobody(_: &Node) -> Result<(), Broken> {
    Ok(())
}

/// A kind of crash as the seed's profile has them.
pub(super) fn draw_crash(ways: &Ways, random: &mut Random) -> Crash {
    let kill = random.chance(ways.profile.kills);
    ways.coverage.hit(if kill { "killed" } else { "power cut" });
    let crash = if kill { Crash::Kill } else { Crash::Power };
    ways.trace
        .record(&[5, kill.into()], || format!("crash: {crash:?}"));
    crash
}

/// What happens after a crash point, apart from the run.
pub(super) struct Fork {
    ways: Ways,
    random: Random,
}

impl Fork {
    pub(super) fn new(ways: Ways, seed: u64, point: u64) -> Self {
        Self {
            ways,
            random: Random::for_item(seed, 0xf0_0000 + point),
        }
    }

    /// Crash, start, compare; some more work, and the same again; sometimes to a clean end.
    pub(super) fn explore(&mut self, node: &Node) -> Result<(), Broken> {
        let mut device = self.crash(&node.device, &node.world);
        if self.random.chance(60) {
            return self.explore_damage(device, node.world.clone());
        }
        let mut world = node.world.clone();
        let forgets = self.lose_beside_the_log(&mut device, &mut world);
        if self.random.chance(150) {
            device = self.crash_again_while_opening(device, &world)?;
        }
        let mut node = self.start(device, world);
        if forgets {
            node.open_all(&mut nobody)?;
            return node.audit(&mut nobody);
        }
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
        let crash = draw_crash(&self.ways, &mut self.random);
        let mut device = device.crash(crash, self.random.next_u64());
        if self.ways.profile.worst_former_life {
            for log in world.live_logs() {
                let place = world.history.logs[log].log;
                let epoch = LeaderEpoch(world.epoch);
                if former_life::haunt(&mut device, place, epoch, &mut self.random) {
                    self.ways.coverage.hit("former life at the log's end");
                }
            }
        }
        device
    }

    fn start(&mut self, device: SimDevice, world: World) -> Node {
        let random = Random::new(self.random.next_u64());
        Node::start(&self.ways, device, world, random)
    }

    /// Side files and checkpoints only save time: without them, or damaged, everything is found.
    /// True when producers may be forgotten: those of segments that were removed.
    fn lose_beside_the_log(&mut self, device: &mut SimDevice, world: &mut World) -> bool {
        if self.random.chance(100) {
            for log in world.live_logs() {
                let seed = self.random.next_u64();
                if device.damage_side(world.history.logs[log].log, seed) {
                    self.ways.coverage.hit("side file damaged");
                }
            }
        }
        if self.random.chance(50) {
            device.lose_checkpoints();
            world.history.forget_starts();
            self.ways.coverage.hit("checkpoint lost");
            return world.history.is_trimmed();
        }
        false
    }

    /// The power goes while the log is being recovered.
    fn crash_again_while_opening(
        &mut self,
        device: SimDevice,
        world: &World,
    ) -> Result<SimDevice, Broken> {
        let mut node = self.start(device, world.clone());
        node.pump(&mut nobody)?;
        for _ in 0..self.random.between(0, 12) {
            node.complete(&mut nobody)?;
        }
        self.ways.coverage.hit("killed or cut while opening");
        Ok(self.crash(&node.device, world))
    }

    fn second_life(&mut self, node: &mut Node) -> Result<(), Broken> {
        node.open_all(&mut nobody)?;
        node.audit(&mut nobody)?;
        let steps = self.random.between(0, 60);
        node.run(steps, &mut nobody)
    }

    /// True when it ended with a clean stop.
    fn last_life(&mut self, node: &mut Node) -> Result<bool, Broken> {
        node.open_all(&mut nobody)?;
        node.audit(&mut nobody)?;
        if !self.random.chance(200) {
            return Ok(false);
        }
        let steps = self.random.between(0, 30);
        node.run(steps, &mut nobody)?;
        node.settle(&mut nobody)?;
        node.audit(&mut nobody)?;
        node.drain(&mut nobody)?;
        Ok(true)
    }

    fn after_clean_stop(&self, node: &mut Node) -> Result<(), Broken> {
        node.open_all(&mut nobody)?;
        // A rename that a killed process left un-synced may be undone by the power cut: then the
        // last segment is found, and read, as `next.log`. And what waits for space at the stop keeps
        // its partition's checkpoint from being the newest.
        let profile = &self.ways.profile;
        let has_space = profile.device.capacity_bytes == u64::MAX;
        let is_saved = self.ways.sabotage != Some(Sabotage::NoCheckpoint);
        if !profile.has_failures() && profile.kills == 0 && has_space && is_saved {
            node.check_clean_start()?;
        }
        node.audit(&mut nobody)
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
        self.ways
            .trace
            .record(&[6], || format!("damage in {log}: {damage:?}"));
        let mut node = self.start(device, world);
        node.damage_expected = true;
        node.open_all(&mut nobody)?;
        node.audit(&mut nobody)
    }
}
