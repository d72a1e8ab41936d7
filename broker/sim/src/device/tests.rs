//! The simulated disk itself: it keeps the device's contract, forgets what it may forget and
//! nothing else, and notices whoever breaks the rules.

use ringway_engine::buffer::{Pool, Slice};
use ringway_engine::device::conformance::{self, Subject};
use ringway_engine::device::{Device, FileId, Op, OpId, Outcome, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::{Offset, PartitionIndex, Position, TopicId, TopicPartition};

use super::{Crash, DeviceConfig, DurableWrite, Failures, SimDevice, SyncReach};

const LOG: TopicPartition = TopicPartition {
    topic: TopicId(5),
    partition: PartitionIndex(0),
};
const BLOCK: u64 = BLOCK_BYTES as u64;

struct Simulated {
    device: SimDevice,
    opened: u64,
}

impl Subject for Simulated {
    fn device(&mut self) -> &mut dyn Device {
        &mut self.device
    }

    fn list(&mut self, log: TopicPartition) -> Vec<(SegmentName, u64)> {
        self.device
            .list(log)
            .iter()
            .map(|file| (file.name, file.bytes))
            .collect()
    }

    fn checkpoints(&mut self) -> Vec<Vec<u8>> {
        self.device.checkpoints()
    }

    fn reopen(&mut self) {
        // What was done durably is there after a power cut, too.
        let crash = [Crash::Kill, Crash::Power][(self.opened % 2) as usize];
        self.opened += 1;
        self.device = self.device.crash(crash, self.opened);
    }
}

#[test]
fn the_contract_is_kept() {
    for seed in 0..40 {
        let config = DeviceConfig {
            recycled: [0, 500, 1000][seed as usize % 3],
            ..config(seed)
        };
        let make = || SimDevice::new(config, seed);
        conformance::check(&mut || {
            Box::new(Simulated {
                device: make(),
                opened: seed,
            })
        });
    }
}

fn config(seed: u64) -> DeviceConfig {
    let durable_write = [DurableWrite::ItselfOnly, DurableWrite::Flushes][(seed % 2) as usize];
    DeviceConfig {
        durable_write,
        recycled: 0,
        ..DeviceConfig::default()
    }
}

struct Rig {
    device: SimDevice,
    pool: Pool,
    op_next: u64,
}

impl Rig {
    fn new(config: DeviceConfig, seed: u64) -> Self {
        Self {
            device: SimDevice::new(config, seed),
            pool: Pool::new(0),
            op_next: 0,
        }
    }

    fn submit(&mut self, op: Op) {
        self.op_next += 1;
        self.device.submit(OpId(self.op_next), op);
    }

    fn run(&mut self, op: Op) -> Result<Outcome, ringway_engine::device::DeviceError> {
        self.submit(op);
        self.device.wait().expect("it is in flight").result
    }

    fn block(&self, byte: u8) -> Slice {
        let mut block = self.pool.take(BLOCK_BYTES);
        block[..BLOCK_BYTES].fill(byte);
        block.freeze(BLOCK_BYTES)
    }

    fn segment(&mut self, number: u64, filled: u64) -> FileId {
        let file = FileId(number);
        self.device.declare(file, LOG, SegmentName::Next);
        let op = Op::Prepare {
            file,
            log: LOG,
            bytes: 4 * BLOCK,
            filled: filled * BLOCK,
        };
        self.run(op).expect("there is space");
        self.run(Op::Name {
            file,
            base: Offset(number),
        })
        .expect("the name is free");
        file
    }

    fn write_op(&self, file: FileId, block: u64, byte: u8, durable: bool) -> Op {
        let position = Position(block * BLOCK);
        Op::Write {
            file,
            position,
            parts: vec![self.block(byte)],
            durable,
        }
    }

    fn write(&mut self, file: FileId, block: u64, byte: u8, durable: bool) {
        let op = self.write_op(file, block, byte, durable);
        self.run(op).expect("nothing fails here");
    }

    /// What a block may hold after a crash, over many crashes.
    fn outcomes(&self, crash: Crash, file: u64, block: usize) -> Vec<u8> {
        let mut seen: Vec<u8> = (0..200)
            .map(|seed| {
                let device = self.device.crash(crash, seed);
                let name = SegmentName::Base(Offset(file));
                let bytes = device.segment_bytes(LOG, name);
                let block = &bytes[block * BLOCK_BYTES..][..BLOCK_BYTES];
                assert!(
                    block.iter().all(|&byte| byte == block[0]),
                    "blocks are not torn inside"
                );
                block[0]
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

#[test]
fn what_was_not_synced_may_be_lost_and_nothing_else() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    rig.write(file, 0, 1, false);
    assert_eq!(rig.outcomes(Crash::Power, 1, 0), [0, 1], "not synced");
    assert_eq!(rig.outcomes(Crash::Kill, 1, 0), [1], "the device has it");
    rig.run(Op::Flush).expect("nothing fails here");
    assert_eq!(rig.outcomes(Crash::Power, 1, 0), [1], "synced");
    rig.write(file, 0, 2, false);
    rig.write(file, 0, 3, false);
    assert_eq!(
        rig.outcomes(Crash::Power, 1, 0),
        [1, 2, 3],
        "any version since"
    );
    rig.run(Op::Sync { file }).expect("nothing fails here");
    assert_eq!(rig.outcomes(Crash::Power, 1, 0), [3]);
}

#[test]
fn a_durable_write_is_a_flush_only_on_a_device_without_fua() {
    for (durable_write, wanted) in [
        (DurableWrite::ItselfOnly, vec![0, 1]),
        (DurableWrite::Flushes, vec![1]),
    ] {
        let mut rig = Rig::new(
            DeviceConfig {
                durable_write,
                ..config(0)
            },
            1,
        );
        let file = rig.segment(1, 4);
        rig.write(file, 0, 1, false);
        rig.write(file, 1, 2, true);
        assert_eq!(rig.outcomes(Crash::Power, 1, 1), [2], "itself");
        assert_eq!(rig.outcomes(Crash::Power, 1, 0), wanted, "the one before");
    }
}

#[test]
fn a_flush_covers_what_was_done_before_it_was_submitted() {
    // Which of the two finishes first is chance: look at seeds with either order.
    let mut orders = [false, false];
    for seed in 0..20 {
        let mut rig = Rig::new(config(0), seed);
        let file = rig.segment(1, 4);
        let op = rig.write_op(file, 0, 1, false);
        rig.submit(op);
        rig.submit(Op::Flush);
        let first = rig.device.wait().expect("two are in flight").op;
        orders[usize::from(first.0 == rig.op_next)] = true;
        rig.device.wait().expect("one is left");
        assert_eq!(rig.outcomes(Crash::Power, 1, 0), [0, 1], "it was in flight");
    }
    assert_eq!(orders, [true, true], "operations overtake each other");
}

#[test]
fn a_flush_brings_no_allocation() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 1);
    rig.write(file, 2, 7, false);
    rig.run(Op::Flush).expect("nothing fails here");
    assert_eq!(
        rig.outcomes(Crash::Power, 1, 2),
        [0, 7],
        "an unwritten extent reads as zeros"
    );
    rig.run(Op::Sync { file }).expect("nothing fails here");
    assert_eq!(rig.outcomes(Crash::Power, 1, 2), [7]);
}

#[test]
fn without_a_shared_flush_each_file_is_synced_alone() {
    let mut rig = Rig::new(
        DeviceConfig {
            sync_reach: SyncReach::File,
            ..config(0)
        },
        1,
    );
    let (first, second) = (rig.segment(1, 4), rig.segment(2, 4));
    rig.write(first, 0, 1, false);
    rig.write(second, 0, 2, false);
    rig.run(Op::Flush).expect("nothing fails here");
    assert_eq!(rig.outcomes(Crash::Power, 1, 0), [0, 1]);
    rig.run(Op::Sync { file: first })
        .expect("nothing fails here");
    assert_eq!(rig.outcomes(Crash::Power, 1, 0), [1]);
    assert_eq!(rig.outcomes(Crash::Power, 2, 0), [0, 2]);
}

#[test]
fn a_killed_process_makes_nothing_durable() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    rig.write(file, 0, 1, false);
    rig.device = rig.device.crash(Crash::Kill, 3);
    assert_eq!(
        rig.outcomes(Crash::Power, 1, 0),
        [0, 1],
        "the power can go after that"
    );
}

#[test]
fn a_name_is_the_old_or_the_new_one() {
    let mut rig = Rig::new(config(0), 1);
    let file = FileId(1);
    rig.device.declare(file, LOG, SegmentName::Next);
    let op = Op::Prepare {
        file,
        log: LOG,
        bytes: BLOCK,
        filled: BLOCK,
    };
    rig.submit(op);
    let lists = |rig: &Rig| {
        let list = |seed| rig.device.crash(Crash::Power, seed).list(LOG);
        let mut lists: Vec<_> = (0..200)
            .map(list)
            .map(|files| {
                files
                    .iter()
                    .map(|file| (file.name, file.bytes))
                    .collect::<Vec<_>>()
            })
            .collect();
        lists.sort();
        lists.dedup();
        lists
    };
    let next = SegmentName::Next;
    assert_eq!(
        lists(&rig),
        [vec![], vec![(next, 0)], vec![(next, BLOCK)]],
        "being prepared"
    );
    rig.device.wait().expect("it is in flight");
    assert_eq!(lists(&rig), [vec![(next, BLOCK)]], "prepared");
    rig.submit(Op::Name {
        file,
        base: Offset(9),
    });
    let named = SegmentName::Base(Offset(9));
    assert_eq!(
        lists(&rig),
        [vec![(named, BLOCK)], vec![(next, BLOCK)]],
        "being named"
    );
    rig.device.wait().expect("it is in flight");
    assert_eq!(lists(&rig), [vec![(named, BLOCK)]], "named");
}

#[test]
fn small_files_are_old_or_new_and_slots_may_be_torn() {
    let mut rig = Rig::new(config(0), 1);
    let save = |byte: u8| Op::SaveSide {
        log: LOG,
        base: Offset(0),
        bytes: vec![byte; 100],
    };
    rig.run(save(1)).expect("nothing fails here");
    rig.submit(save(2));
    rig.run(Op::SaveCheckpoint {
        bytes: vec![1; 100],
    })
    .ok();
    while rig.device.wait().is_some() {}
    rig.run(Op::SaveCheckpoint {
        bytes: vec![2; 100],
    })
    .expect("nothing fails here");
    rig.submit(Op::SaveCheckpoint {
        bytes: vec![3; 100],
    });
    rig.submit(save(4));
    let (mut torn, mut newest) = (false, false);
    for seed in 0..200 {
        let mut device = rig.device.crash(Crash::Power, seed);
        let slots = device.checkpoints();
        assert!(
            slots.contains(&vec![2; 100]),
            "the newer slot is not touched"
        );
        torn |= slots
            .iter()
            .any(|slot| slot.iter().any(|&byte| byte != slot[0]));
        newest |= slots.contains(&vec![3; 100]);
        device.submit(
            OpId(900),
            Op::LoadSide {
                log: LOG,
                base: Offset(0),
            },
        );
        let side = device.wait().expect("it is in flight").result;
        let Ok(Outcome::Side(Some(side))) = side else {
            panic!("there was one before")
        };
        assert!(
            side == vec![2; 100] || side == vec![4; 100],
            "all or nothing"
        );
    }
    assert!(torn && newest, "both happen");
}

#[test]
fn a_failed_sync_forgets() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    rig.write(file, 0, 1, false);
    rig.device.set_failures(Failures {
        sync: 1000,
        ..Failures::default()
    });
    let mut lost = false;
    for _ in 0..20 {
        rig.device.set_failures(Failures::default());
        rig.write(file, 0, 1, false);
        rig.device.set_failures(Failures {
            sync: 1000,
            ..Failures::default()
        });
        rig.run(Op::Flush).expect_err("it has to fail");
        lost |= rig.outcomes(Crash::Kill, 1, 0) == [0];
    }
    assert!(lost, "what the cache held is gone");
}

#[test]
fn the_disk_fills_up_and_heals() {
    let mut rig = Rig::new(
        DeviceConfig {
            capacity_bytes: 6 * BLOCK,
            ..config(0)
        },
        1,
    );
    let first = rig.segment(1, 1);
    let file = FileId(2);
    rig.device.declare(file, LOG, SegmentName::Next);
    let prepare = || Op::Prepare {
        file,
        log: LOG,
        bytes: 4 * BLOCK,
        filled: 0,
    };
    rig.run(prepare()).expect_err("eight blocks don't fit");
    rig.run(Op::Remove { file: first })
        .expect("nothing fails here");
    rig.run(prepare()).expect("four do");
}

#[test]
fn a_recycled_segment_has_its_former_lifes_bytes() {
    let mut rig = Rig::new(config(0), 1);
    let first = rig.segment(1, 4);
    rig.write(first, 0, 77, true);
    rig.run(Op::Remove { file: first })
        .expect("nothing fails here");
    rig.segment(2, 0);
    assert_eq!(rig.outcomes(Crash::Power, 2, 0), [77]);
    let name = SegmentName::Base(Offset(2));
    assert!(
        rig.device
            .choose_former_life(LOG, name, 0, &[5; BLOCK_BYTES])
    );
    assert_eq!(rig.outcomes(Crash::Power, 2, 0), [5]);
}

#[test]
#[should_panic(expected = "in flight at once")]
fn two_writes_of_one_block_are_a_bug() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    for byte in [1, 2] {
        let op = rig.write_op(file, 0, byte, false);
        rig.submit(op);
    }
}

#[test]
#[should_panic(expected = "goes to block")]
fn a_write_beyond_the_end_is_a_bug() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    rig.write(file, 4, 1, false);
}

#[test]
#[should_panic(expected = "while it is in use")]
fn removing_what_is_in_use_is_a_bug() {
    let mut rig = Rig::new(config(0), 1);
    let file = rig.segment(1, 4);
    let op = rig.write_op(file, 0, 1, false);
    rig.submit(op);
    rig.submit(Op::Remove { file });
}
