//! What every device has to do, as one body of checks that runs on the simulated disk and on the
//! real one. It knows nothing of crashes: that a sync syncs is for a power cut to show.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringway_wire::{Offset, PartitionIndex, Position, TopicId, TopicPartition};

use crate::buffer::{Pool, Slice};
use crate::device::{Device, DeviceError, FileId, Op, OpId, Outcome, SegmentName};
use crate::limits::BLOCK_BYTES;
use crate::log::Checkpoint;

const BLOCK: u64 = BLOCK_BYTES as u64;
const SEGMENT: u64 = 16 * BLOCK;

/// A device in a directory of its own, with what a start finds there.
pub trait Subject {
    /// The device.
    fn device(&mut self) -> &mut dyn Device;
    /// The segments in a partition's directory with their lengths in bytes, in any order.
    fn list(&mut self, log: TopicPartition) -> Vec<(SegmentName, u64)>;
    /// The contents of the checkpoint's slots, those that were ever written; a real slot may be
    /// padded.
    fn checkpoints(&mut self) -> Vec<Vec<u8>>;
    /// Another process opens the directory; nothing is in flight.
    fn reopen(&mut self);
}

/// Runs every check, each on a subject of its own.
///
/// # Panics
/// At the first thing that the device does wrong.
pub fn check(make: &mut dyn FnMut() -> Box<dyn Subject>) {
    type Check = fn(&mut Rig);
    let checks: [(&str, Check); 14] = [
        ("a segment is prepared", prepares),
        ("what is written is read", writes_and_reads),
        ("a file's end cuts a read", reads_at_the_end),
        ("many operations are in flight", keeps_many_in_flight),
        ("a fill leaves zeros", fills),
        ("a name is kept", names),
        ("a segment is found by another process", reopens),
        ("side files are replaced whole", saves_sides),
        ("the older checkpoint is replaced", saves_checkpoints),
        ("a removed segment is gone", removes),
        ("removed space serves again", recycles),
        ("a removed partition is gone", removes_partitions),
        ("a prepared file replaces the one before", replaces_next),
        ("what is not aligned is refused", refuses_misaligned),
    ];
    for (what, body) in checks {
        let mut rig = Rig::new(make());
        body(&mut rig);
        assert!(
            rig.subject.device().wait().is_none(),
            "{what}: something is left in flight"
        );
    }
}

struct Rig {
    subject: Box<dyn Subject>,
    pool: Pool,
    op_next: u64,
    file_next: u64,
}

const fn log(topic: u128, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: TopicId(topic),
        partition: PartitionIndex(partition),
    }
}

const LOG: TopicPartition = log(0x0123_4567_89ab_cdef, 0);

impl Rig {
    fn new(subject: Box<dyn Subject>) -> Self {
        Self {
            subject,
            pool: Pool::new(1 << 20),
            op_next: 0,
            file_next: 0,
        }
    }

    fn submit(&mut self, op: Op) -> OpId {
        let id = OpId(self.op_next);
        self.op_next += 1;
        self.subject.device().submit(id, op);
        id
    }

    fn run(&mut self, op: Op) -> Result<Outcome, DeviceError> {
        let id = self.submit(op);
        let done = self
            .subject
            .device()
            .wait()
            .expect("an operation in flight finishes");
        assert_eq!(done.op, id, "the only operation in flight finishes");
        done.result
    }

    #[track_caller]
    fn done(&mut self, op: Op) {
        let outcome = self.run(op).expect("the operation succeeds");
        assert!(
            matches!(outcome, Outcome::Done),
            "nothing comes of it but that it is done"
        );
    }

    fn declare(&mut self, log: TopicPartition, name: SegmentName) -> FileId {
        let file = FileId(self.file_next);
        self.file_next += 1;
        self.subject.device().declare(file, log, name);
        file
    }

    /// A prepared `next.log` and its filled bytes.
    fn prepare(&mut self, log: TopicPartition, bytes: u64, filled: u64) -> (FileId, u64) {
        let file = self.declare(log, SegmentName::Next);
        match self.run(Op::Prepare {
            file,
            log,
            bytes,
            filled,
        }) {
            Ok(Outcome::Prepared { filled }) => (file, filled),
            other => panic!("a preparation says how much is filled, not {other:?}"),
        }
    }

    /// A named segment whose blocks hold `seed`, `seed` + 1, …
    fn segment(&mut self, log: TopicPartition, base: u64, seed: u8) -> FileId {
        let (file, _) = self.prepare(log, SEGMENT, SEGMENT);
        self.done(Op::Name {
            file,
            base: Offset(base),
        });
        let parts = vec![self.blocks(seed, (SEGMENT / BLOCK) as u8)];
        self.done(Op::Write {
            file,
            position: Position(0),
            parts,
            durable: true,
        });
        file
    }

    /// So many blocks, each full of its own number from `seed` on.
    fn blocks(&self, seed: u8, count: u8) -> Slice {
        let bytes = usize::from(count) * BLOCK_BYTES;
        let mut block = self.pool.take(bytes);
        for (index, part) in block[..bytes].chunks_mut(BLOCK_BYTES).enumerate() {
            part.fill(seed.wrapping_add(index as u8));
        }
        block.freeze(bytes)
    }

    fn read(&mut self, file: FileId, position: u64, bytes: u64) -> Vec<u8> {
        let mut buffer = self.pool.take(bytes as usize);
        buffer.fill(0xa5);
        let position = Position(position);
        match self.run(Op::Read {
            file,
            position,
            buffer,
            bytes: bytes as usize,
        }) {
            Ok(Outcome::Read {
                buffer,
                bytes: read,
            }) => {
                assert!(read as u64 <= bytes, "no more is read than was wanted");
                buffer[..read].to_vec()
            }
            other => panic!("a read brings bytes, not {other:?}"),
        }
    }

    /// The first byte of each block, when all of a block are equal.
    fn read_blocks(&mut self, file: FileId, start: u64, count: u64) -> Vec<u8> {
        let bytes = self.read(file, start * BLOCK, count * BLOCK);
        let number = |block: &[u8]| {
            assert!(
                block.iter().all(|&byte| byte == block[0]),
                "a block is one write's"
            );
            block[0]
        };
        bytes.chunks(BLOCK_BYTES).map(number).collect()
    }

    fn list(&mut self, log: TopicPartition) -> Vec<(SegmentName, u64)> {
        let mut found = self.subject.list(log);
        found.sort_unstable();
        found
    }

    fn side(&mut self, log: TopicPartition, base: u64) -> Option<Vec<u8>> {
        match self.run(Op::LoadSide {
            log,
            base: Offset(base),
        }) {
            Ok(Outcome::Side(bytes)) => bytes,
            other => panic!("a side file's bytes are wanted, not {other:?}"),
        }
    }
}

fn prepares(rig: &mut Rig) {
    assert!(rig.list(LOG).is_empty(), "a new partition has no file");
    let (file, filled) = rig.prepare(LOG, SEGMENT, 4 * BLOCK);
    assert!(
        (4 * BLOCK..=SEGMENT).contains(&filled),
        "at least what was asked for is filled"
    );
    assert_eq!(rig.list(LOG), [(SegmentName::Next, SEGMENT)]);
    assert_eq!(
        rig.read(file, 0, SEGMENT).len() as u64,
        SEGMENT,
        "all of it can be read"
    );
    let other = log(LOG.topic.0, 1);
    let (_, filled) = rig.prepare(other, 2 * BLOCK, 0);
    assert!(filled <= 2 * BLOCK, "no more is filled than there is");
    assert_eq!(rig.list(other), [(SegmentName::Next, 2 * BLOCK)]);
}

fn writes_and_reads(rig: &mut Rig) {
    let (file, _) = rig.prepare(LOG, SEGMENT, BLOCK);
    let parts = vec![rig.blocks(1, 2), rig.blocks(50, 1), rig.blocks(70, 3)];
    rig.done(Op::Write {
        file,
        position: Position(2 * BLOCK),
        parts,
        durable: false,
    });
    rig.done(Op::Flush);
    assert_eq!(rig.read_blocks(file, 2, 6), [1, 2, 50, 70, 71, 72]);
    let parts = vec![rig.blocks(9, 1)];
    rig.done(Op::Write {
        file,
        position: Position(4 * BLOCK),
        parts,
        durable: true,
    });
    assert_eq!(
        rig.read_blocks(file, 2, 6),
        [1, 2, 9, 70, 71, 72],
        "neighbours stay"
    );
    let parts = vec![rig.blocks(33, 1)];
    rig.done(Op::Write {
        file,
        position: Position(SEGMENT - BLOCK),
        parts,
        durable: false,
    });
    rig.done(Op::Sync { file });
    assert_eq!(
        rig.read_blocks(file, SEGMENT / BLOCK - 1, 1),
        [33],
        "the last block is one"
    );
    assert_eq!(
        rig.list(LOG),
        [(SegmentName::Next, SEGMENT)],
        "writes don't change the length"
    );
}

fn reads_at_the_end(rig: &mut Rig) {
    let file = rig.segment(LOG, 0, 10);
    let last = SEGMENT / BLOCK - 1;
    assert_eq!(
        rig.read_blocks(file, last, 3),
        [10 + last as u8],
        "the rest isn't there"
    );
    assert!(
        rig.read(file, SEGMENT, BLOCK).is_empty(),
        "nothing is at the end"
    );
    assert!(
        rig.read(file, SEGMENT + 4 * BLOCK, BLOCK).is_empty(),
        "nothing is beyond"
    );
}

fn keeps_many_in_flight(rig: &mut Rig) {
    let file = rig.segment(LOG, 0, 0);
    let (next, _) = rig.prepare(LOG, SEGMENT, SEGMENT);
    let mut ids = Vec::new();
    for block in 0..(SEGMENT / BLOCK) as u8 {
        for (file, seed) in [(file, 100), (next, 200)] {
            let parts = vec![rig.blocks(block + seed, 1)];
            let position = Position(u64::from(block) * BLOCK);
            ids.push(rig.submit(Op::Write {
                file,
                position,
                parts,
                durable: block % 3 == 0,
            }));
        }
    }
    ids.push(rig.submit(Op::Flush));
    ids.push(rig.submit(Op::SaveSide {
        log: LOG,
        base: Offset(0),
        bytes: vec![1; 100],
    }));
    let mut finished = Vec::new();
    while let Some(done) = rig.subject.device().wait() {
        assert!(
            done.result.is_ok(),
            "{:?} failed: {:?}",
            done.op,
            done.result
        );
        finished.push(done.op);
    }
    finished.sort_unstable();
    assert_eq!(finished, ids, "each operation finishes once");
    for (file, seed) in [(file, 100), (next, 200)] {
        let wanted: Vec<u8> = (0..(SEGMENT / BLOCK) as u8)
            .map(|block| block + seed)
            .collect();
        assert_eq!(rig.read_blocks(file, 0, SEGMENT / BLOCK), wanted);
    }
}

fn fills(rig: &mut Rig) {
    let (file, _) = rig.prepare(LOG, SEGMENT, BLOCK);
    let parts = vec![rig.blocks(5, 2)];
    rig.done(Op::Write {
        file,
        position: Position(0),
        parts,
        durable: true,
    });
    rig.done(Op::Fill {
        file,
        start: Position(2 * BLOCK),
        end: Position(6 * BLOCK),
    });
    assert_eq!(rig.read_blocks(file, 0, 6), [5, 6, 0, 0, 0, 0]);
    assert_eq!(rig.list(LOG), [(SegmentName::Next, SEGMENT)]);
}

fn names(rig: &mut Rig) {
    let (file, _) = rig.prepare(LOG, SEGMENT, SEGMENT);
    let parts = vec![rig.blocks(1, 1)];
    rig.done(Op::Write {
        file,
        position: Position(0),
        parts,
        durable: true,
    });
    let base = Offset(18_446_744_073_709_551_000);
    rig.done(Op::Name { file, base });
    assert_eq!(rig.list(LOG), [(SegmentName::Base(base), SEGMENT)]);
    let parts = vec![rig.blocks(2, 1)];
    rig.done(Op::Write {
        file,
        position: Position(BLOCK),
        parts,
        durable: true,
    });
    assert_eq!(
        rig.read_blocks(file, 0, 2),
        [1, 2],
        "the number goes on standing for the file"
    );
    rig.prepare(LOG, 2 * SEGMENT, BLOCK);
    let both = [
        (SegmentName::Base(base), SEGMENT),
        (SegmentName::Next, 2 * SEGMENT),
    ];
    assert_eq!(rig.list(LOG), both);
}

fn reopens(rig: &mut Rig) {
    rig.segment(LOG, 0, 20);
    rig.segment(LOG, 7, 40);
    let (next, _) = rig.prepare(LOG, SEGMENT, SEGMENT);
    let parts = vec![rig.blocks(90, 1)];
    rig.done(Op::Write {
        file: next,
        position: Position(0),
        parts,
        durable: true,
    });
    rig.subject.reopen();
    let [first, second] = [0, 7].map(|base| SegmentName::Base(Offset(base)));
    let all = [
        (first, SEGMENT),
        (second, SEGMENT),
        (SegmentName::Next, SEGMENT),
    ];
    assert_eq!(rig.list(LOG), all);
    for (name, seed) in [(second, 40), (first, 20), (SegmentName::Next, 90)] {
        let file = rig.declare(LOG, name);
        assert_eq!(rig.read_blocks(file, 0, 1), [seed]);
    }
    let file = rig.declare(log(LOG.topic.0, 5), first);
    let buffer = rig.pool.take(BLOCK_BYTES);
    let read = Op::Read {
        file,
        position: Position(0),
        buffer,
        bytes: BLOCK_BYTES,
    };
    assert!(
        !succeeds(rig, read),
        "a segment that isn't there can't be read"
    );
}

fn saves_sides(rig: &mut Rig) {
    let other = log(LOG.topic.0, 1);
    for log in [LOG, other] {
        rig.segment(log, 0, 1);
        rig.segment(log, 9, 1);
        assert_eq!(rig.side(log, 0), None, "there is none at first");
    }
    let long: Vec<u8> = (0..100_001).map(|index| index as u8).collect();
    rig.done(Op::SaveSide {
        log: LOG,
        base: Offset(0),
        bytes: long.clone(),
    });
    rig.done(Op::SaveSide {
        log: LOG,
        base: Offset(9),
        bytes: b"nine".to_vec(),
    });
    rig.done(Op::SaveSide {
        log: other,
        base: Offset(0),
        bytes: b"other".to_vec(),
    });
    assert_eq!(rig.side(LOG, 0), Some(long));
    rig.done(Op::SaveSide {
        log: LOG,
        base: Offset(0),
        bytes: b"short".to_vec(),
    });
    rig.subject.reopen();
    assert_eq!(
        rig.side(LOG, 0),
        Some(b"short".to_vec()),
        "nothing is left of a longer one"
    );
    assert_eq!(rig.side(LOG, 9), Some(b"nine".to_vec()));
    assert_eq!(rig.side(other, 0), Some(b"other".to_vec()));
    assert_eq!(rig.side(other, 9), None);
    let segments = rig.list(LOG);
    assert_eq!(
        segments.len(),
        2,
        "side files are not segments: {segments:?}"
    );
}

fn saves_checkpoints(rig: &mut Rig) {
    let generations = |rig: &mut Rig| {
        let slots = rig.subject.checkpoints();
        let mut found: Vec<u64> = slots
            .iter()
            .map(|slot| {
                Checkpoint::decode(slot)
                    .expect("a saved slot can be read")
                    .generation
            })
            .collect();
        found.sort_unstable();
        found
    };
    let save = |rig: &mut Rig, generation| {
        let checkpoint = Checkpoint {
            generation,
            ..Checkpoint::default()
        };
        rig.done(Op::SaveCheckpoint {
            bytes: checkpoint.encode(),
        });
    };
    assert!(generations(rig).is_empty(), "there is none at first");
    save(rig, 1);
    assert_eq!(generations(rig), [1]);
    save(rig, 2);
    save(rig, 3);
    assert_eq!(generations(rig), [2, 3], "the older one is replaced");
    rig.subject.reopen();
    assert_eq!(generations(rig), [2, 3]);
    save(rig, 4);
    assert_eq!(generations(rig), [3, 4], "also by another process");
}

fn removes(rig: &mut Rig) {
    let first = rig.segment(LOG, 0, 1);
    rig.done(Op::SaveSide {
        log: LOG,
        base: Offset(0),
        bytes: b"side".to_vec(),
    });
    let second = rig.segment(LOG, 9, 60);
    rig.done(Op::Remove { file: first });
    assert_eq!(rig.list(LOG), [(SegmentName::Base(Offset(9)), SEGMENT)]);
    assert_eq!(rig.side(LOG, 0), None, "its side file goes with it");
    assert_eq!(rig.read_blocks(second, 0, 2), [60, 61]);
    let (next, _) = rig.prepare(LOG, SEGMENT, 0);
    rig.done(Op::Remove { file: next });
    assert_eq!(
        rig.list(LOG).len(),
        1,
        "a file without a name of its own can go, too"
    );
}

fn recycles(rig: &mut Rig) {
    let removed = rig.segment(LOG, 0, 1);
    rig.done(Op::Remove { file: removed });
    let other = log(LOG.topic.0 + 1, 3);
    for (bytes, filled) in [
        (SEGMENT, BLOCK),
        (SEGMENT / 2, 0),
        (2 * SEGMENT, 2 * SEGMENT),
    ] {
        let (file, now_filled) = rig.prepare(other, bytes, filled);
        assert!(
            (filled..=bytes).contains(&now_filled),
            "{now_filled} of {bytes} are filled"
        );
        assert_eq!(
            rig.list(other),
            [(SegmentName::Next, bytes)],
            "it has the length asked for"
        );
        let parts = vec![rig.blocks(7, 3)];
        rig.done(Op::Write {
            file,
            position: Position(0),
            parts,
            durable: true,
        });
        assert_eq!(rig.read_blocks(file, 0, 3), [7, 8, 9]);
        rig.done(Op::Remove { file });
        assert!(rig.list(other).is_empty());
    }
}

fn removes_partitions(rig: &mut Rig) {
    let other = log(LOG.topic.0, 1);
    for log in [LOG, other] {
        rig.segment(log, 0, 1);
        rig.segment(log, 5, 1);
        rig.done(Op::SaveSide {
            log,
            base: Offset(0),
            bytes: b"side".to_vec(),
        });
        rig.prepare(log, SEGMENT, 0);
    }
    rig.done(Op::RemovePartition { log: LOG });
    assert!(rig.list(LOG).is_empty(), "nothing is left");
    assert_eq!(rig.side(LOG, 0), None);
    assert_eq!(rig.list(other).len(), 3, "the neighbour stays");
    assert_eq!(rig.side(other, 0), Some(b"side".to_vec()));
    rig.done(Op::RemovePartition {
        log: log(LOG.topic.0 + 9, 0),
    });
    rig.subject.reopen();
    assert!(rig.list(LOG).is_empty());
}

fn replaces_next(rig: &mut Rig) {
    let (before, _) = rig.prepare(LOG, SEGMENT, SEGMENT);
    let parts = vec![rig.blocks(3, 1)];
    rig.done(Op::Write {
        file: before,
        position: Position(0),
        parts,
        durable: true,
    });
    rig.subject.reopen();
    let (file, _) = rig.prepare(LOG, 2 * SEGMENT, BLOCK);
    assert_eq!(rig.list(LOG), [(SegmentName::Next, 2 * SEGMENT)]);
    let parts = vec![rig.blocks(4, 1)];
    rig.done(Op::Write {
        file,
        position: Position(0),
        parts,
        durable: true,
    });
    assert_eq!(rig.read_blocks(file, 0, 1), [4]);
}

/// Whether an operation is carried out: a real device answers what it can't do with an error, the
/// simulated one stops.
fn succeeds(rig: &mut Rig, op: Op) -> bool {
    catch_unwind(AssertUnwindSafe(|| rig.run(op).is_ok())).unwrap_or(false)
}

fn refuses_misaligned(rig: &mut Rig) {
    let file = rig.segment(LOG, 0, 1);
    let aligned = rig.blocks(9, 2);
    let shifted = aligned.slice(1..BLOCK_BYTES + 1);
    let short = aligned.slice(0..100);
    for (position, part) in [(1, aligned.slice(0..BLOCK_BYTES)), (0, shifted), (0, short)] {
        let parts = vec![part];
        let write = Op::Write {
            file,
            position: Position(position),
            parts,
            durable: false,
        };
        assert!(
            !succeeds(rig, write),
            "a write that isn't aligned is refused"
        );
    }
    for (position, bytes) in [(1, BLOCK_BYTES), (0, 100)] {
        let buffer = rig.pool.take(BLOCK_BYTES);
        let read = Op::Read {
            file,
            position: Position(position),
            buffer,
            bytes,
        };
        assert!(!succeeds(rig, read), "a read that isn't aligned is refused");
    }
    assert_eq!(rig.read_blocks(file, 0, 2), [1, 2], "nothing has changed");
}
