//! The real disk as the engine's tests see one: a ring and a housekeeper in a scratch directory.

use std::collections::HashMap;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringway_engine::device::conformance::{Subject, check};
use ringway_engine::device::{Device, Done, FileId, Op, OpId, SegmentName};
use ringway_engine::log::Slot;
use ringway_testing::{FileSystem, LoopFs, LoopFsOptions, Need, require};
use ringway_wire::{ShardId, TopicPartition};

use super::{After, Disk};
use crate::data_dir::{DataDir, read_slots};
use crate::housekeeper::{Housekeeper, HousekeeperConfig, HousekeeperProxy};
use crate::metrics::ShardMetrics;
use crate::shard::ring::{Owner, Ring, RingConfig, Role, Wait};
use crate::testing::scratch;
use crate::wake::Wake;

const SHARD: ShardId = ShardId(0);

/// A shard's disk without the shard.
pub(super) struct RealDevice {
    pub(super) disk: Disk,
    ring: Ring,
    proxy: Option<HousekeeperProxy>,
    housekeeper: Option<Housekeeper>,
    wake: Arc<Wake>,
    after: HashMap<OpId, After>,
    slot: Slot,
    in_flight: usize,
    pub(super) data_dir: DataDir,
}

impl RealDevice {
    pub(super) fn open(root: &Path) -> Self {
        let data_dir = DataDir::open(root, Duration::from_secs(5), |_, _| {}).unwrap();
        let config = HousekeeperConfig::default();
        let housekeeper = Housekeeper::start(&data_dir, config).unwrap();
        let lock = Some(data_dir.lock());
        let mut ring = Ring::new(&RingConfig {
            lock,
            ..RingConfig::default()
        })
        .unwrap();
        let wake = Arc::new(Wake::new().unwrap());
        let bell = Owner {
            role: Role::Wake,
            id: 0,
        };
        ring.listen_to_bell(bell, wake.as_raw_fd());
        wake.announce_sleep();
        let anchor = data_dir.anchor().try_clone_to_owned().unwrap();
        let layout = data_dir.layout().clone();
        let slot = read_slots(&layout, SHARD).unwrap().next_slot;
        Self {
            // Two files open at most, so that closing and opening again is tested all the time.
            disk: Disk::new(layout, anchor, 2, Arc::new(ShardMetrics::default())),
            ring,
            proxy: Some(housekeeper.proxy(Arc::clone(&wake))),
            housekeeper: Some(housekeeper),
            wake,
            after: HashMap::new(),
            slot,
            in_flight: 0,
            data_dir,
        }
    }

    fn take(&mut self) -> Option<Done> {
        if let Some(done) = self.disk.next_done() {
            return Some(done);
        }
        let finished = self.proxy.as_mut()?.take()?;
        let done = finished.result.is_ok();
        match self.after.remove(&finished.op) {
            Some(After::Named(file)) => self.disk.named(file, done),
            Some(After::Saved) if done => self.slot = self.slot.other(),
            _ => {}
        }
        Some(Done {
            op: finished.op,
            result: finished.result.map(Into::into),
        })
    }
}

impl Device for RealDevice {
    fn declare(&mut self, file: FileId, log: TopicPartition, name: SegmentName) {
        self.disk.declare(file, log, name);
    }

    fn submit(&mut self, id: OpId, op: Op) {
        self.in_flight += 1;
        if op.on_ring() {
            return self.disk.submit(&mut self.ring, id, op, 0);
        }
        match self.disk.hand_over(op, (SHARD, self.slot)) {
            Ok((job, after)) => {
                self.after.extend(after.map(|after| (id, after)));
                self.proxy.as_ref().unwrap().send(id, job).unwrap();
            }
            Err(error) => self.disk.refuse(id, error),
        }
    }

    fn wait(&mut self) -> Option<Done> {
        if self.in_flight == 0 {
            return None;
        }
        let mut completions = Vec::new();
        loop {
            if let Some(done) = self.take() {
                self.in_flight -= 1;
                return Some(done);
            }
            self.ring
                .enter(Wait::AtMost(Duration::from_secs(10)))
                .unwrap();
            self.ring.reap(&mut completions);
            for completion in completions.drain(..) {
                if matches!(completion.owner.role, Role::Disk | Role::Open) {
                    self.disk.complete(&mut self.ring, completion, 0);
                }
            }
        }
    }
}

impl Drop for RealDevice {
    fn drop(&mut self) {
        self.proxy = None;
        self.wake.awake();
        if let Some(housekeeper) = self.housekeeper.take() {
            housekeeper.join();
        }
    }
}

struct RealSubject {
    root: PathBuf,
    device: Option<RealDevice>,
}

impl RealSubject {
    fn opened(&self) -> &RealDevice {
        self.device.as_ref().unwrap()
    }
}

impl Subject for RealSubject {
    fn device(&mut self) -> &mut dyn Device {
        self.device.as_mut().unwrap()
    }

    fn list(&mut self, log: TopicPartition) -> Vec<(SegmentName, u64)> {
        let found = self.opened().data_dir.segments(log).unwrap();
        found
            .into_iter()
            .map(|file| (file.name, file.bytes))
            .collect()
    }

    fn checkpoints(&mut self) -> Vec<Vec<u8>> {
        let layout = self.opened().data_dir.layout();
        let read = |slot| std::fs::read(layout.checkpoint(SHARD, slot)).ok();
        [Slot::A, Slot::B].into_iter().filter_map(read).collect()
    }

    fn reopen(&mut self) {
        self.device = None;
        self.device = Some(RealDevice::open(&self.root));
    }
}

fn check_in(directory: &Path) {
    let mut made = 0;
    check(&mut || {
        made += 1;
        let root = directory.join(made.to_string());
        let device = Some(RealDevice::open(&root));
        Box::new(RealSubject { root, device })
    });
}

#[test]
fn the_real_device_is_one() {
    check_in(scratch("device").path());
}

#[test]
fn the_real_device_is_one_on_the_file_systems_that_share_a_flush() {
    if !require(&[Need::Mounts, Need::Loop, Need::MkfsExt4, Need::MkfsXfs]) {
        return;
    }
    let scratch = scratch("volumes");
    for (kind, block_bytes) in [(FileSystem::Ext4, 512), (FileSystem::Xfs, 4096)] {
        let mut options = LoopFsOptions::new(kind, 400 << 20);
        options.block_bytes = block_bytes;
        let volume = LoopFs::new(&scratch, options).unwrap();
        check_in(&volume.path().join("data"));
    }
}
