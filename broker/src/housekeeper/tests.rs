//! The housekeeper on a real directory. What its jobs do for the engine is tested with the device.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_engine::device::{DeviceError, OpId, SegmentName};
use ringway_engine::log::Slot;
use ringway_wire::{Offset, PartitionIndex, Position, ShardId, TopicId, TopicPartition};

use super::{Answer, Housekeeper, HousekeeperConfig, HousekeeperProxy, Job, PoolLimits, Tally};
use crate::data_dir::DataDir;
use crate::testing::scratch;
use crate::wake::Wake;

const LOG: TopicPartition = TopicPartition {
    topic: TopicId(1),
    partition: PartitionIndex(2),
};
const SEGMENT: u64 = 64 << 10;

struct Rig {
    data_dir: DataDir,
    proxy: HousekeeperProxy,
    housekeeper: Housekeeper,
    ops: u64,
    tally: Tally,
}

impl Rig {
    fn new(root: &Path, config: HousekeeperConfig) -> Self {
        let data_dir = DataDir::open(root, Duration::from_secs(5), |_, _| {}).unwrap();
        let housekeeper = Housekeeper::start(&data_dir, config).unwrap();
        let proxy = housekeeper.proxy(Arc::new(Wake::new().unwrap()));
        Self {
            data_dir,
            proxy,
            housekeeper,
            ops: 0,
            tally: Tally::default(),
        }
    }

    fn send(&mut self, job: Job) -> OpId {
        self.ops += 1;
        self.proxy.send(OpId(self.ops), job).unwrap();
        OpId(self.ops)
    }

    fn take(&mut self) -> (OpId, Result<Answer, DeviceError>) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(finished) = self.proxy.take() {
                self.tally.prepared += finished.tally.prepared;
                self.tally.recycled += finished.tally.recycled;
                self.tally.zeroed_bytes += finished.tally.zeroed_bytes;
                return (finished.op, finished.result);
            }
            assert!(Instant::now() < end, "the housekeeper doesn't answer");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn run(&mut self, job: Job) -> Result<Answer, DeviceError> {
        let op = self.send(job);
        let (finished, result) = self.take();
        assert_eq!(finished, op);
        result
    }

    /// What the jobs came to since it was asked for last.
    fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn prepare(&mut self, log: TopicPartition, bytes: u64) -> u64 {
        match self
            .run(Job::Prepare {
                log,
                bytes,
                filled: 0,
            })
            .unwrap()
        {
            Answer::Prepared { filled } => filled,
            other => panic!("{other:?}"),
        }
    }

    fn pool(&self) -> usize {
        fs::read_dir(self.data_dir.layout().pool()).unwrap().count()
    }

    fn stop(self) {
        drop(self.proxy);
        self.housekeeper.join();
    }
}

#[test]
fn segments_are_recycled_across_partitions_and_starts() {
    let scratch = scratch("recycle");
    let mut rig = Rig::new(scratch.path(), HousekeeperConfig::default());
    rig.prepare(LOG, SEGMENT);
    let path = rig.data_dir.layout().segment(LOG, SegmentName::Next);
    fs::write(&path, vec![7; SEGMENT as usize]).unwrap();
    rig.run(Job::Name {
        log: LOG,
        base: Offset(5),
    })
    .unwrap();
    let name = SegmentName::Base(Offset(5));
    rig.run(Job::Remove { log: LOG, name }).unwrap();
    assert_eq!(rig.pool(), 1);
    rig.stop();
    let mut rig = Rig::new(scratch.path(), HousekeeperConfig::default());
    let other = TopicPartition {
        topic: TopicId(9),
        ..LOG
    };
    assert_eq!(
        rig.prepare(other, SEGMENT),
        SEGMENT,
        "a recycled segment is written to its end"
    );
    let path = rig.data_dir.layout().segment(other, SegmentName::Next);
    assert_eq!(
        fs::read(path).unwrap(),
        vec![7; SEGMENT as usize],
        "it needs no zeros"
    );
    assert_eq!(rig.pool(), 0);
    rig.stop();
}

#[test]
fn the_pool_is_bounded() {
    let scratch = scratch("pool");
    let pool = PoolLimits {
        bytes_max: 2 * SEGMENT,
        disk_share: 1,
    };
    let config = HousekeeperConfig {
        pool,
        ..HousekeeperConfig::default()
    };
    let mut rig = Rig::new(scratch.path(), config);
    for partition in 0..4 {
        let log = TopicPartition {
            partition: PartitionIndex(partition),
            ..LOG
        };
        rig.prepare(log, SEGMENT);
    }
    for partition in 0..4 {
        let log = TopicPartition {
            partition: PartitionIndex(partition),
            ..LOG
        };
        rig.run(Job::RemovePartition { log }).unwrap();
        assert!(!rig.data_dir.layout().partition(log).exists());
    }
    assert_eq!(rig.pool(), 2);
    assert!(rig.data_dir.partitions().unwrap().is_empty());
    rig.stop();
}

#[test]
fn large_segments_are_filled_as_far_as_asked_and_unwritten_ones_are_not_recycled() {
    let scratch = scratch("fill");
    let config = HousekeeperConfig {
        fill_whole_bytes_max: SEGMENT,
        ..HousekeeperConfig::default()
    };
    let mut rig = Rig::new(scratch.path(), config);
    let bytes = 64 * SEGMENT;
    let job = Job::Prepare {
        log: LOG,
        bytes,
        filled: SEGMENT,
    };
    let Answer::Prepared { filled } = rig.run(job).unwrap() else {
        panic!("a preparation says how much is filled");
    };
    assert!(filled == SEGMENT || filled == bytes, "{filled}");
    let path = rig.data_dir.layout().segment(LOG, SegmentName::Next);
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    let (start, end) = (Position(SEGMENT), Position(2 * SEGMENT));
    let name = SegmentName::Next;
    let fill = Job::Fill {
        log: LOG,
        name,
        next_name: None,
        start,
        end,
    };
    rig.run(fill).unwrap();
    // Reading it here, through the page cache, would make unwritten blocks look written.
    rig.run(Job::Remove { log: LOG, name }).unwrap();
    assert_eq!(rig.pool(), usize::from(filled == bytes));
    rig.stop();
}

/// What a segment's last batch left free is filled once, and its next life finds all of it written.
#[test]
fn a_segment_is_recycled_although_its_end_was_never_written() {
    let scratch = scratch("tail");
    let config = HousekeeperConfig {
        fill_whole_bytes_max: 0,
        ..HousekeeperConfig::default()
    };
    let mut rig = Rig::new(scratch.path(), config);
    let (bytes, left) = (64 * SEGMENT, 3 * SEGMENT);
    let prepare = |filled| Job::Prepare {
        log: LOG,
        bytes,
        filled,
    };
    let Answer::Prepared { filled } = rig.run(prepare(bytes - left)).unwrap() else {
        panic!("a preparation says how much is filled");
    };
    // Where the device zeros by itself nothing is unwritten.
    let written = filled == bytes;
    let tally = rig.tally();
    assert_eq!((tally.prepared, tally.recycled), (1, 0));
    let name = SegmentName::Next;
    rig.run(Job::Remove { log: LOG, name }).unwrap();
    assert_eq!(rig.pool(), 1);
    assert_eq!(rig.tally().zeroed_bytes, if written { 0 } else { left });
    let again = rig.run(prepare(SEGMENT)).unwrap();
    assert!(matches!(again, Answer::Prepared { filled } if filled == bytes));
    let again = Tally {
        prepared: 1,
        recycled: 1,
        zeroed_bytes: 0,
    };
    assert_eq!(rig.tally(), again);
    rig.stop();
}

#[test]
fn a_name_is_never_taken_from_another_segment() {
    let scratch = scratch("names");
    let mut rig = Rig::new(scratch.path(), HousekeeperConfig::default());
    for _ in 0..2 {
        rig.prepare(LOG, SEGMENT);
        let named = rig.run(Job::Name {
            log: LOG,
            base: Offset(1),
        });
        if rig.ops > 2 {
            let Err(DeviceError::Failed(text)) = named else {
                panic!("a second segment of the same name is refused, not {named:?}");
            };
            assert!(text.contains("00000000000000000001.log"), "{text}");
        }
    }
    rig.stop();
}

#[test]
fn many_jobs_at_once_are_all_answered() {
    let scratch = scratch("many");
    let mut rig = Rig::new(scratch.path(), HousekeeperConfig::default());
    let mut wanted = BTreeSet::new();
    for partition in 0..40 {
        let log = TopicPartition {
            partition: PartitionIndex(partition),
            ..LOG
        };
        wanted.insert(rig.send(Job::Prepare {
            log,
            bytes: SEGMENT,
            filled: SEGMENT,
        }));
        let bytes = vec![partition as u8; 100];
        wanted.insert(rig.send(Job::SaveCheckpoint {
            shard: ShardId(partition as u16),
            slot: Slot::A,
            bytes,
        }));
    }
    while !wanted.is_empty() {
        let (op, result) = rig.take();
        assert!(result.is_ok(), "{result:?}");
        assert!(wanted.remove(&op), "{op:?} is answered once");
    }
    assert_eq!(rig.data_dir.partitions().unwrap().len(), 40);
    rig.stop();
}

#[test]
fn its_rings_hold_the_lock() {
    let scratch = scratch("lock");
    let rig = Rig::new(scratch.path(), HousekeeperConfig::default());
    let path = scratch.path().join("lock");
    drop(rig.data_dir);
    let lock = fs::File::open(&path).unwrap();
    assert!(lock.try_lock().is_err(), "the rings hold it");
    drop(rig.proxy);
    rig.housekeeper.join();
    let end = Instant::now() + Duration::from_secs(20);
    while lock.try_lock().is_err() {
        assert!(Instant::now() < end, "the lock outlives the rings");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_segment_is_filled_while_it_is_being_named() {
    let scratch = scratch("fill-name");
    let config = HousekeeperConfig {
        fill_whole_bytes_max: 0,
        ..HousekeeperConfig::default()
    };
    let mut rig = Rig::new(scratch.path(), config);
    for round in 0..150 {
        rig.prepare(LOG, 4 * SEGMENT);
        let base = Offset(round);
        let fill = |start| Job::Fill {
            log: LOG,
            name: SegmentName::Next,
            next_name: Some(SegmentName::Base(base)),
            start: Position(start),
            end: Position(start + SEGMENT),
        };
        rig.send(fill(0));
        rig.send(Job::Name { log: LOG, base });
        rig.send(fill(SEGMENT));
        for _ in 0..3 {
            let (_, result) = rig.take();
            assert!(result.is_ok(), "{result:?}");
        }
        let name = SegmentName::Base(base);
        rig.run(Job::Remove { log: LOG, name }).unwrap();
    }
    rig.stop();
}

#[test]
fn a_panic_is_the_failure_of_one_job() {
    let executor = glommio::LocalExecutor::default();
    let result = executor.run(super::guarded(async { panic!("out of luck") }));
    let Err(DeviceError::Failed(text)) = result else {
        panic!("{result:?}");
    };
    assert!(text.contains("out of luck"), "{text}");
}
