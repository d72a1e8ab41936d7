//! Planted bugs: a layer between the engine and the disk that breaks one of the engine's rules from
//! outside, so that a simulation that passes with it is worth nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringway_engine::buffer::{Pool, Slice};
use ringway_engine::device::{Device, Done, FileId, Op, OpId, Outcome};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::Position;

use crate::device::SimDevice;

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The tail rule: what a block held before is zeros when it is written again.
    ZeroedTail,
    /// The tail rule: a block that is written again gets its former bytes.
    StaleTail,
    /// The sync order: a flush or sync is submitted before the writes that it is for, and the one
    /// after them is left out.
    EarlySync,
    /// The sync order: a flush or sync is answered when it is submitted.
    AnsweredSync,
    /// No flush or sync is ever carried out.
    NoSync,
    /// Writes are answered when they are submitted, so that the sync comes too early.
    AnsweredWrite,
    /// The one-durable-write rule: of several writes the last one is durable, and no flush
    /// follows. Right on a device without FUA, wrong on one with it.
    LastWriteDurable,
    /// What a start found in the device's cache counts without a sync.
    NoSyncAtStart,
    /// Segments go although no checkpoint says that the log starts behind them: checkpoints are
    /// answered and never saved.
    NoCheckpoint,
}

impl Sabotage {
    /// Every planted bug with its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("zeroed-tail", Self::ZeroedTail),
        ("stale-tail", Self::StaleTail),
        ("early-sync", Self::EarlySync),
        ("answered-sync", Self::AnsweredSync),
        ("no-sync", Self::NoSync),
        ("answered-write", Self::AnsweredWrite),
        ("last-write-durable", Self::LastWriteDurable),
        ("no-sync-at-start", Self::NoSyncAtStart),
        ("no-checkpoint", Self::NoCheckpoint),
    ];
}

/// Ids of operations that the engine knows nothing of.
const OWN_IDS: u64 = 1 << 60;

/// Stands between the engine and the disk.
#[derive(Debug)]
pub(super) struct Saboteur {
    kind: Option<Sabotage>,
    pool: Pool,
    answers: VecDeque<Done>,
    /// Operations whose completion the engine has had already, or never asked for.
    swallowed: BTreeSet<OpId>,
    /// The last block written of each file.
    tails: BTreeMap<FileId, (u64, Vec<u8>)>,
    held: VecDeque<(OpId, Op)>,
    ahead: BTreeSet<OpId>,
    synced_early: bool,
    own_next: u64,
    pub(super) open: bool,
}

impl Saboteur {
    pub(super) fn new(kind: Option<Sabotage>) -> Self {
        Self {
            kind,
            pool: Pool::new(1 << 20),
            answers: VecDeque::new(),
            swallowed: BTreeSet::new(),
            tails: BTreeMap::new(),
            held: VecDeque::new(),
            ahead: BTreeSet::new(),
            synced_early: false,
            own_next: OWN_IDS,
            open: false,
        }
    }

    /// Whether a completion may come.
    pub(super) fn is_busy(&self, device: &SimDevice) -> bool {
        device.in_flight() > 0 || !self.answers.is_empty() || !self.held.is_empty()
    }

    pub(super) fn submit(&mut self, device: &mut SimDevice, id: OpId, op: Op) {
        let Some(kind) = self.kind else {
            return device.submit(id, op);
        };
        let is_sync = matches!(op, Op::Flush | Op::Sync { .. });
        let is_write = matches!(op, Op::Write { durable: false, .. });
        match kind {
            Sabotage::NoSync if is_sync => self.answer(id),
            Sabotage::NoCheckpoint if matches!(op, Op::SaveCheckpoint { .. }) => self.answer(id),
            Sabotage::NoSyncAtStart if is_sync && !self.open => self.answer(id),
            Sabotage::AnsweredSync if is_sync => {
                self.answer(id);
                self.submit_own(device, Op::Flush);
            }
            Sabotage::AnsweredWrite if is_write => {
                self.answer(id);
                self.swallowed.insert(id);
                device.submit(id, op);
            }
            Sabotage::EarlySync if is_write => {
                if !std::mem::replace(&mut self.synced_early, true) {
                    self.submit_own(device, Op::Flush);
                }
                device.submit(id, op);
            }
            Sabotage::EarlySync if is_sync => {
                self.synced_early = false;
                self.answer(id);
            }
            Sabotage::LastWriteDurable if is_write => self.held.push_back((id, op)),
            Sabotage::LastWriteDurable if matches!(op, Op::Flush) => self.answer(id),
            Sabotage::ZeroedTail | Sabotage::StaleTail => {
                let op = self.spoil_tail(kind, op);
                device.submit(id, op);
            }
            _ => device.submit(id, op),
        }
    }

    pub(super) fn wait(&mut self, device: &mut SimDevice) -> Option<Done> {
        if let Some(done) = self.answers.pop_front() {
            return Some(done);
        }
        loop {
            self.release(device);
            let done = device.wait()?;
            self.ahead.remove(&done.op);
            if !self.swallowed.remove(&done.op) {
                return Some(done);
            }
        }
    }

    fn answer(&mut self, id: OpId) {
        self.answers.push_back(Done {
            op: id,
            result: Ok(Outcome::Done),
        });
    }

    fn submit_own(&mut self, device: &mut SimDevice, op: Op) {
        let id = OpId(self.own_next);
        self.own_next += 1;
        self.swallowed.insert(id);
        device.submit(id, op);
    }

    /// Lets all held writes but one go, and that one, durable, once the others are done.
    fn release(&mut self, device: &mut SimDevice) {
        while self.held.len() > 1 {
            let (id, op) = self.held.pop_front().expect("there are several");
            self.ahead.insert(id);
            device.submit(id, op);
        }
        if self.ahead.is_empty()
            && let Some((id, mut op)) = self.held.pop_front()
        {
            if let Op::Write { durable, .. } = &mut op {
                *durable = true;
            }
            device.submit(id, op);
        }
    }

    fn spoil_tail(&mut self, kind: Sabotage, op: Op) -> Op {
        let Op::Write {
            file,
            position,
            parts,
            durable,
        } = op
        else {
            return op;
        };
        let first = parts[0].slice(0..BLOCK_BYTES);
        let mut block = self.pool.take(BLOCK_BYTES);
        block[..BLOCK_BYTES].copy_from_slice(&first);
        if let Some((at, before)) = self.tails.get(&file)
            && *at == position.0
        {
            let old = before
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            match kind {
                Sabotage::StaleTail => block[..BLOCK_BYTES].copy_from_slice(before),
                _ => block[..old].fill(0),
            }
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let last = parts.last().expect("a write has parts");
        let tail = last[last.len() - BLOCK_BYTES..].to_vec();
        self.tails
            .insert(file, (position.0 + (bytes - BLOCK_BYTES) as u64, tail));
        let mut spoiled: Vec<Slice> = vec![block.freeze(BLOCK_BYTES)];
        if parts[0].len() > BLOCK_BYTES {
            spoiled.push(parts[0].slice(BLOCK_BYTES..parts[0].len()));
        }
        spoiled.extend_from_slice(&parts[1..]);
        Op::Write {
            file,
            position: Position(position.0),
            parts: spoiled,
            durable,
        }
    }
}
