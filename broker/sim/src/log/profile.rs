//! What a seed stands for: the disk, the shard's settings, the clients and the faults of its runs.

use std::time::Duration;

use ringway_engine::shard::{ShardConfig, SyncScope};
use ringway_wire::ShardId;

use crate::device::{DeviceConfig, DurableWrite, Failures, SyncReach};
use crate::log::batch::Sizes;
use crate::random::Random;

/// Everything about a seed's runs that doesn't change while they last.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) device: DeviceConfig,
    pub(super) shard: ShardConfig,
    pub(super) segment_bytes: u64,
    pub(super) partitions: usize,
    pub(super) memory: MemoryLogs,
    /// Steps, of 1,000, that change a topic's durability.
    pub(super) durability_changes: u64,
    pub(super) sizes: Sizes,
    /// Choices, of 1,000, that let the device work instead of a client.
    pub(super) device_turns: u64,
    /// Faults while clients are at work; none at a start and at the end.
    pub(super) failures: Failures,
    /// Steps, of 1,000, that delete a topic.
    pub(super) deletes: u64,
    /// Whether what former lives left behind is the worst that it can be.
    pub(super) worst_former_life: bool,
    /// Crashes of 1,000 that kill the process instead of cutting the power.
    pub(super) kills: u64,
    /// How long records stay.
    pub(super) retention: Option<Duration>,
    /// Bytes of a partition above which its oldest segments go.
    pub(super) retention_bytes: Option<u64>,
    /// Steps, of 1,000, that trim a partition.
    pub(super) trims: u64,
}

/// Which partitions are of topics with durability `memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryLogs {
    None,
    EveryOther,
    All,
}

impl MemoryLogs {
    pub(super) const fn has(self, log: usize) -> bool {
        match self {
            Self::None => false,
            Self::EveryOther => log.is_multiple_of(2),
            Self::All => true,
        }
    }
}

impl Profile {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = Random::for_item(seed, 0x9f0f);
        let device = draw_device(&mut random);
        let sizes = Sizes::draw(&mut random);
        let memory = [MemoryLogs::None, MemoryLogs::EveryOther, MemoryLogs::All];
        // Of its own, so that the rest of a seed is as it was without.
        let mut of_memory = Random::for_item(seed, 0x3e30);
        Self {
            device,
            shard: ShardConfig {
                unsynced_bytes_max: [8 << 10, 64 << 10, 1 << 20][of_memory.index(3)],
                unsynced_ns_max: [500_000, 5_000_000, 500_000_000][of_memory.index(3)],
                ..draw_shard(device, sizes, &mut random)
            },
            memory: memory[of_memory.index(3)],
            durability_changes: [0, 0, 10][of_memory.index(3)],
            segment_bytes: match sizes {
                Sizes::Huge => 32 << 20,
                _ => [64 << 10, 64 << 10, 128 << 10, 1 << 20][random.index(4)],
            },
            partitions: match sizes {
                Sizes::Huge => 1,
                _ => random.between(1, 4) as usize,
            },
            sizes,
            device_turns: [300, 500, 700, 850][random.index(4)],
            failures: draw_failures(&mut random),
            deletes: [0, 0, 4, 15][random.index(4)],
            worst_former_life: random.chance(600),
            kills: [0, 200, 500][random.index(3)],
            retention: [None, None, Some(30), Some(2_000)][random.index(4)]
                .map(Duration::from_millis),
            retention_bytes: match sizes {
                Sizes::Huge => [None, Some(40 << 20)][random.index(2)],
                _ => [None, None, Some(100 << 10), Some(400 << 10)][random.index(4)],
            },
            trims: [0, 10, 40][random.index(3)],
        }
    }

    /// Whether records go by themselves.
    pub(super) const fn has_retention(&self) -> bool {
        self.retention.is_some() || self.retention_bytes.is_some()
    }

    /// Whether the device may refuse something, so that faults are no surprise.
    pub(super) fn has_failures(&self) -> bool {
        self.failures != Failures::default()
    }
}

fn draw_device(random: &mut Random) -> DeviceConfig {
    let fua = random.chance(700);
    DeviceConfig {
        durable_write: if fua {
            DurableWrite::ItselfOnly
        } else {
            DurableWrite::Flushes
        },
        sync_reach: if random.chance(700) {
            SyncReach::Device
        } else {
            SyncReach::File
        },
        failures: Failures::default(),
        recycled: [0, 300, 1000][random.index(3)],
        torn_bytes: if random.chance(850) { 4096 } else { 512 },
        capacity_bytes: if random.chance(900) {
            u64::MAX
        } else {
            4 << 20
        },
    }
}

fn draw_shard(device: DeviceConfig, sizes: Sizes, random: &mut Random) -> ShardConfig {
    let pending_bytes_max = [128 << 10, 1 << 20, 8 << 20][random.index(3)];
    ShardConfig {
        sync_scope: match device.sync_reach {
            SyncReach::Device => SyncScope::Device,
            SyncReach::File => SyncScope::File,
        },
        cache_bytes_max: [64 << 10, 256 << 10, 4 << 20][random.index(3)],
        pending_bytes_max: if sizes == Sizes::Huge {
            16 << 20
        } else {
            pending_bytes_max
        },
        read_bytes_max: [512 << 10, 4 << 20][random.index(2)],
        lone_durable_write: random.chance(800),
        checkpoint_ns: [500_000, 5_000_000, 1_000_000_000][random.index(3)],
        checkpoint_bytes: [16 << 10, 128 << 10, 64 << 20][random.index(3)],
        ..ShardConfig::new(ShardId(0))
    }
}

fn draw_failures(random: &mut Random) -> Failures {
    let mut failures = Failures::default();
    match random.below(20) {
        0 => failures.write = 30,
        1 => failures.sync = 30,
        2 => failures.read = 100,
        3 => failures.housekeeping = 100,
        4..=6 => failures.full = 400,
        7 => {
            failures = Failures {
                write: 5,
                sync: 5,
                read: 20,
                full: 100,
                housekeeping: 50,
            };
        }
        _ => {}
    }
    failures
}
