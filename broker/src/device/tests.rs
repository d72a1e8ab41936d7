//! What is special about the real disk, beyond what every device has to do.

use ringway_engine::buffer::{Pool, Slice};
use ringway_engine::device::{Device as _, DeviceError, FileId, Op, OpId, Outcome, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_testing::{FileSystem, LoopFs, LoopFsOptions, Need, require};
use ringway_wire::{Offset, PartitionIndex, Position, TopicId, TopicPartition};

use super::real::RealDevice;
use crate::shard::ring::PARTS_MAX;
use crate::testing::scratch;

const LOG: TopicPartition = TopicPartition {
    topic: TopicId(7),
    partition: PartitionIndex(0),
};

struct Rig {
    device: RealDevice,
    pool: Pool,
    ops: u64,
}

impl Rig {
    fn new(root: &std::path::Path) -> Self {
        Self {
            device: RealDevice::open(root),
            pool: Pool::new(1 << 20),
            ops: 0,
        }
    }

    fn run(&mut self, op: Op) -> Result<Outcome, DeviceError> {
        self.ops += 1;
        self.device.submit(OpId(self.ops), op);
        let done = self.device.wait().unwrap();
        assert_eq!(done.op, OpId(self.ops));
        done.result
    }

    fn segment(
        &mut self,
        file: FileId,
        log: TopicPartition,
        bytes: u64,
    ) -> Result<u64, DeviceError> {
        self.device.declare(file, log, SegmentName::Next);
        let filled = bytes;
        match self.run(Op::Prepare {
            file,
            log,
            bytes,
            filled,
        })? {
            Outcome::Prepared { filled } => Ok(filled),
            other => panic!("{other:?}"),
        }
    }

    fn block(&self, byte: u8) -> Slice {
        let mut block = self.pool.take(BLOCK_BYTES);
        block[..BLOCK_BYTES].fill(byte);
        block.freeze(BLOCK_BYTES)
    }

    fn first_bytes(&mut self, file: FileId, blocks: usize) -> Vec<u8> {
        let bytes = blocks * BLOCK_BYTES;
        let buffer = self.pool.take(bytes);
        let position = Position(0);
        match self
            .run(Op::Read {
                file,
                position,
                buffer,
                bytes,
            })
            .unwrap()
        {
            Outcome::Read { buffer, bytes } => buffer[..bytes]
                .chunks(BLOCK_BYTES)
                .map(|block| block[0])
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_write_of_more_parts_than_the_kernel_takes_is_whole() {
    let scratch = scratch("parts");
    let mut rig = Rig::new(scratch.path());
    let file = FileId(1);
    let blocks = PARTS_MAX + 7;
    rig.segment(file, LOG, (blocks * BLOCK_BYTES) as u64)
        .unwrap();
    let parts = (0..blocks).map(|index| rig.block(index as u8)).collect();
    let position = Position(0);
    rig.run(Op::Write {
        file,
        position,
        parts,
        durable: true,
    })
    .unwrap();
    let wanted: Vec<u8> = (0..blocks).map(|index| index as u8).collect();
    assert_eq!(rig.first_bytes(file, blocks), wanted);
}

#[test]
fn more_files_than_may_be_open_are_all_usable() {
    let scratch = scratch("files");
    let mut rig = Rig::new(scratch.path());
    for number in 0..5_u32 {
        let log = TopicPartition {
            partition: PartitionIndex(number),
            ..LOG
        };
        let file = FileId(number.into());
        rig.segment(file, log, 2 * BLOCK_BYTES as u64).unwrap();
        let parts = vec![rig.block(number as u8)];
        let position = Position(0);
        rig.run(Op::Write {
            file,
            position,
            parts,
            durable: false,
        })
        .unwrap();
    }
    for number in [0, 4, 1, 3, 2, 0_u8] {
        assert_eq!(rig.first_bytes(FileId(number.into()), 1), [number]);
    }
    let segments = std::fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = std::fs::read_link(entry.as_ref().unwrap().path()).unwrap_or_default();
        target.starts_with(scratch.path()) && target.extension().is_some_and(|end| end == "log")
    });
    assert!(segments.count() <= 2, "descriptors are bounded");
}

#[test]
fn a_file_is_found_while_it_is_being_named() {
    let scratch = scratch("naming");
    let mut rig = Rig::new(scratch.path());
    for round in 0..50_u64 {
        let file = FileId(round);
        rig.segment(file, LOG, BLOCK_BYTES as u64).unwrap();
        let base = Offset(round);
        rig.device
            .submit(OpId(1_000 + round), Op::Name { file, base });
        let parts = vec![rig.block(round as u8)];
        let position = Position(0);
        rig.device.submit(
            OpId(2_000 + round),
            Op::Write {
                file,
                position,
                parts,
                durable: true,
            },
        );
        for _ in 0..2 {
            let done = rig.device.wait().unwrap();
            assert!(done.result.is_ok(), "{done:?}");
        }
        assert_eq!(rig.first_bytes(file, 1), [round as u8]);
    }
}

#[test]
fn misaligned_writes_and_unknown_files_are_errors_with_reasons() {
    let scratch = scratch("misaligned");
    let mut rig = Rig::new(scratch.path());
    let file = FileId(1);
    rig.segment(file, LOG, 4 * BLOCK_BYTES as u64).unwrap();
    let parts = vec![rig.block(1)];
    let write = Op::Write {
        file,
        position: Position(512),
        parts,
        durable: false,
    };
    let Err(DeviceError::Failed(text)) = rig.run(write) else {
        panic!("a misaligned write is refused");
    };
    assert!(text.contains("whole blocks"), "{text}");
    let unknown = Op::Sync { file: FileId(99) };
    let Err(DeviceError::Failed(text)) = rig.run(unknown) else {
        panic!("an unknown file is refused");
    };
    assert!(text.contains("not declared"), "{text}");
    rig.device
        .declare(FileId(2), LOG, SegmentName::Base(Offset(5)));
    let Err(DeviceError::Failed(text)) = rig.run(Op::Sync { file: FileId(2) }) else {
        panic!("a missing file is an error");
    };
    assert!(text.contains("00000000000000000005.log"), "{text}");
}

#[test]
fn a_full_disk_is_told_from_a_broken_one_and_heals() {
    if !require(&[Need::Mounts, Need::Loop, Need::MkfsExt4]) {
        return;
    }
    let scratch = scratch("full");
    let options = LoopFsOptions::new(FileSystem::Ext4, 64 << 20);
    let volume = LoopFs::new(&scratch, options).unwrap();
    let mut rig = Rig::new(&volume.path().join("data"));
    let at = |partition| TopicPartition {
        partition: PartitionIndex(partition),
        ..LOG
    };
    let mut partition = 0;
    let full = loop {
        let file = FileId(partition.into());
        match rig.segment(file, at(partition), 8 << 20) {
            Ok(_) => partition += 1,
            Err(error) => break error,
        }
        assert!(partition < 100, "64 MiB hold no 100 segments of 8 MiB");
    };
    assert_eq!(full, DeviceError::Full);
    assert!(partition > 2);
    let directory = rig.device.data_dir.layout().partition(at(partition));
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert!(
        left.is_empty(),
        "what failed leaves nothing behind: {left:?}"
    );
    rig.run(Op::Remove { file: FileId(0) }).unwrap();
    rig.segment(FileId(500), at(partition), 8 << 20)
        .expect("space that came back is used");
}
