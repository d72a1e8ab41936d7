//! What of a partition's log is there after a start: from the checkpoint, or the newest side file,
//! or the first segment, forward along the chain of batches to the first that doesn't follow.
//! Nothing before that point is read, so a start takes as long after a year as after a minute.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::{LogId, Offset, Position, TopicPartition};

use crate::device::SegmentName;
use crate::log::chain::{Chain, Refusal};
use crate::log::checkpoint::CheckpointEntry;
use crate::log::epochs::Epochs;
use crate::log::index::SparseIndex;
use crate::log::limits::RECOVERED_SIDES_MAX;
use crate::log::producers::Producers;
use crate::log::scan::{ReadFailed, Replay, Scan, Scanned};
use crate::log::side::Side;

/// A segment's file in the partition's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Its name.
    pub name: SegmentName,
    /// Its length in bytes.
    pub file_bytes: u64,
}

/// What is known of a partition before anything is read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The partition.
    pub log: TopicPartition,
    /// The files in its directory, in any order.
    pub segments: Vec<FoundSegment>,
    /// Its entry in the newest checkpoint that has one; one of another partition is ignored.
    pub checkpoint: Option<CheckpointEntry>,
}

/// What recovery needs next.
#[derive(Debug)]
pub enum Step {
    /// Read the whole side file of a segment and call [`Recovery::side`].
    LoadSide {
        /// The segment.
        base: Offset,
    },
    /// Read from a segment and call [`Recovery::read`].
    Read {
        /// The segment.
        name: SegmentName,
        /// Where; a whole block.
        position: Position,
        /// How many bytes; whole blocks, perhaps beyond the file's end.
        bytes: usize,
    },
    /// Nothing: this is what there is. Handed out once.
    Finished(Box<Recovered>),
}

/// The segment that appends go on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its first offset.
    pub base: Offset,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// Where the next batch goes.
    pub position: Position,
    /// The file is still called `next.log`: rename it to its base before anything else.
    pub adopted_next: bool,
}

/// What is known of a sealed segment's side file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideFile {
    /// Recovery has read it, and it is right.
    Valid,
    /// It is missing or damaged, and is to be rebuilt by a rescan.
    Unusable,
    /// Recovery didn't need it. Whoever does finds out, and rebuilds it if it can't be used.
    Unread,
}

/// A segment that is not written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset.
    pub base: Offset,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// Its side file; also [`SideFile::Valid`] when it is among [`Recovered::sides`].
    pub side: SideFile,
}

/// A batch at the log's end that didn't survive. It had not been acknowledged, unless there is
/// damage too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cut at offset {offset}, position {position} of segment {segment:?}: {reason}")]
pub struct Cut {
    /// The segment that it is in.
    pub segment: SegmentName,
    /// Where it begins.
    pub position: Position,
    /// The offset that it would have had.
    pub offset: Offset,
    /// What is wrong with it.
    pub reason: Refusal,
}

/// Records that should be there and are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Records at the log's end that were durable.
    #[error("offsets {from} to {to} (exclusive) were durable and are lost")]
    LostTail {
        /// The first lost offset; the log goes on with it, in a new epoch.
        from: Offset,
        /// The offset after the last.
        to: Offset,
    },
    /// Records at the log's start that nobody asked to remove.
    #[error("offsets {from} to {to} (exclusive) at the log's start are lost")]
    LostHead {
        /// The first lost offset.
        from: Offset,
        /// The first offset that there is.
        to: Offset,
    },
    /// Records in the middle: later segments were sealed, so all before them was durable.
    #[error(
        "offsets {from} to {to} (exclusive) are damaged from position {position} of segment \
         {segment} on: {reason}"
    )]
    Hole {
        /// The segment that they were in; it may be missing altogether.
        segment: Offset,
        /// Where the first of them begins.
        position: Position,
        /// The first damaged offset.
        from: Offset,
        /// The first offset behind the damage.
        to: Offset,
        /// What is wrong with the first of them.
        reason: Refusal,
    },
    /// Something at the log's end that the device can't read.
    #[error("offset {offset} can't be read at position {position} of segment {segment:?}")]
    Unreadable {
        /// The segment.
        segment: SegmentName,
        /// Where it begins.
        position: Position,
        /// Its offset, if it was a batch.
        offset: Offset,
    },
    /// Segments behind the log's end, and no checkpoint that could say whether what lies between
    /// was ever durable.
    #[error("segments from {first} on don't follow offset {from}, and there is no checkpoint")]
    Unproven {
        /// The log's end.
        from: Offset,
        /// The first segment behind it.
        first: Offset,
    },
}

/// The log as it is after a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first offset still in the log.
    pub log_start: Offset,
    /// The offset of the next record.
    pub next_offset: Offset,
    /// Where appends go on; `None` when the next one begins a new segment.
    pub active: Option<Active>,
    /// Header CRC of the last batch; 0 before the first.
    pub last_header_crc: u32,
    /// Append time of the last batch, in microseconds since 1970; `i64::MIN` before the first.
    pub last_append_time_us: i64,
    /// The leader epochs.
    pub epochs: Epochs,
    /// The producers as after the last batch.
    pub producers: Producers,
    /// The active segment's index; an empty one at `next_offset` without a segment.
    pub index: SparseIndex,
    /// The sealed segments, in the order of their offsets. Some may lie below `log_start`.
    pub sealed: Vec<SealedSegment>,
    /// Side files to be written: of the newest segments that were passed, at most
    /// [`RECOVERED_SIDES_MAX`].
    pub sides: Vec<Side>,
    /// Segments that are no part of the log, to be removed before anything is appended, and not
    /// to be recycled with their bytes: their first batch may follow the log's last. With damage
    /// they are better kept aside under other names.
    pub orphans: Vec<Offset>,
    /// Length of a `next.log` that isn't in use, in bytes.
    pub spare_bytes: Option<u64>,
    /// The active segment's bytes from its last block's start up to its position, which the next
    /// write of that block has to repeat.
    pub tail_block: Vec<u8>,
    /// What was cut off at the end, if anything.
    pub cut: Option<Cut>,
    /// What is lost.
    pub damage: Vec<Damage>,
    /// Bytes read from segments.
    pub scanned_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    /// Looking for the newest side file that can be used; the newest candidate is the last.
    Side {
        candidates: Vec<Offset>,
        /// The log has ended before them, it seems.
        beyond: bool,
    },
    /// Reading a segment.
    Scan(Scan),
    /// Done.
    Finished(Option<Box<Recovered>>),
}

/// The machine: ask [`Recovery::step`], do it, tell the result.
#[derive(Debug)]
pub struct Recovery {
    log_id: LogId,
    checkpoint: Option<CheckpointEntry>,
    /// Length of each segment's file.
    segments: BTreeMap<Offset, u64>,
    next_bytes: Option<u64>,
    side_files: BTreeMap<Offset, SideFile>,
    replay: Replay,
    phase: Phase,
    /// Where the log ends unless something follows, and why.
    ended: Option<(Scan, Refusal)>,
    /// The side file of the segment in `ended`, if `next.log` turns out to follow.
    ended_side: Option<Side>,
    sides: Vec<Side>,
    orphans: BTreeSet<Offset>,
    cut: Option<Cut>,
    damage: Vec<Damage>,
    scanned_bytes: u64,
}

impl Recovery {
    /// Begins with what was found.
    #[must_use]
    pub fn new(found: Found) -> Self {
        let mut segments = BTreeMap::new();
        let mut next_bytes = None;
        for segment in &found.segments {
            match segment.name {
                SegmentName::Base(base) => drop(segments.insert(base, segment.file_bytes)),
                SegmentName::Next => next_bytes = Some(segment.file_bytes),
            }
        }
        let log_id = found.log.log_id();
        let mut recovery = Self {
            log_id,
            checkpoint: found.checkpoint.filter(|entry| entry.log == found.log),
            side_files: segments
                .keys()
                .map(|&base| (base, SideFile::Unread))
                .collect(),
            segments,
            next_bytes,
            replay: Replay::start(log_id, Offset(0)),
            phase: Phase::Finished(None),
            ended: None,
            ended_side: None,
            sides: Vec::new(),
            orphans: BTreeSet::new(),
            cut: None,
            damage: Vec::new(),
            scanned_bytes: 0,
        };
        recovery.begin();
        recovery
    }

    /// What is needed next; asking again changes nothing.
    ///
    /// # Panics
    /// When asked again after [`Step::Finished`].
    pub fn step(&mut self) -> Step {
        match &mut self.phase {
            Phase::Side { candidates, .. } => Step::LoadSide {
                base: *candidates
                    .last()
                    .expect("a search without candidates is over"),
            },
            Phase::Scan(scan) => {
                let (position, bytes) = scan.wanted().expect("a scan that wants nothing is over");
                Step::Read {
                    name: scan.name,
                    position,
                    bytes,
                }
            }
            Phase::Finished(recovered) => {
                Step::Finished(recovered.take().expect("a recovery is handed out once"))
            }
        }
    }

    /// Takes the side file that was asked for; `None` when there is none or it can't be read.
    pub fn side(&mut self, bytes: Option<&[u8]>) {
        let Phase::Side { candidates, beyond } = &mut self.phase else {
            debug_assert!(false, "no side file was asked for");
            return;
        };
        let beyond = *beyond;
        let base = candidates
            .pop()
            .expect("a search without candidates is over");
        let file_bytes = self.segments.get(&base).copied().unwrap_or(0);
        let side = bytes.and_then(|bytes| Side::decode(bytes, self.log_id, base).ok());
        match side.filter(|side| side.end.0 <= file_bytes) {
            Some(side) => {
                self.side_files.insert(base, SideFile::Valid);
                if beyond {
                    self.note_hole();
                }
                self.resume_after(&side, file_bytes);
            }
            None => {
                self.side_files.insert(base, SideFile::Unusable);
                if candidates.is_empty() {
                    self.without_sides(beyond);
                }
            }
        }
    }

    /// Takes what the read brought; fewer bytes only where the file ends.
    pub fn read(&mut self, result: Result<&[u8], ReadFailed>) {
        let Phase::Scan(scan) = &mut self.phase else {
            debug_assert!(false, "nothing was to be read");
            return;
        };
        let scanned = match result {
            Ok(bytes) => {
                self.scanned_bytes += bytes.len() as u64;
                scan.read(&mut self.replay, bytes)
            }
            Err(ReadFailed) => scan.failed(),
        };
        if let Scanned::Ended(refusal) = scanned {
            self.scan_ended(refusal);
        } else {
            debug_assert!(scan.wanted().is_some(), "more was wanted");
        }
    }

    /// Chooses where to start.
    fn begin(&mut self) {
        let Some(entry) = &self.checkpoint else {
            return self.search(self.segments.keys().copied().collect(), false);
        };
        let replay = Replay {
            chain: Chain {
                log_id: self.log_id,
                next_offset: entry.next_offset,
                last_header_crc: Some(entry.last_header_crc),
                last_epoch: entry.leader_epoch,
                last_append_time_us: entry.last_append_time_us,
            },
            epochs: entry.epochs.clone(),
            producers: entry.producers.clone(),
        };
        let found = self.segments.get(&entry.segment_base).copied();
        if let Some(file_bytes) = found.filter(|&file_bytes| entry.position.0 <= file_bytes) {
            let name = SegmentName::Base(entry.segment_base);
            let index = if entry.position.0 == 0 {
                SparseIndex::new(entry.segment_base, file_bytes)
            } else {
                entry.index.clone()
            };
            let scan = Scan::resume(name, file_bytes, entry.position, index);
            self.replay = replay;
            self.scan(scan);
        } else if entry.position.0 == 0 {
            // Nothing in the missing segment was durable.
            self.replay = replay;
            self.follow();
        } else {
            self.search(self.segments.keys().copied().collect(), false);
        }
    }

    /// Looks for the newest usable side file among those of `candidates`, in rising order.
    fn search(&mut self, candidates: Vec<Offset>, beyond: bool) {
        if candidates.is_empty() {
            self.without_sides(beyond);
        } else {
            self.phase = Phase::Side { candidates, beyond };
        }
    }

    /// No side file helps: reads from the first segment on, or ends where the log has ended.
    fn without_sides(&mut self, beyond: bool) {
        if beyond {
            return self.finish();
        }
        match self.segments.first_key_value() {
            Some((&base, &file_bytes)) => {
                self.replay = Replay::start(self.log_id, base);
                self.scan(Scan::new(SegmentName::Base(base), base, file_bytes));
            }
            None => {
                // The only segment may still be called `next.log`.
                let base = self
                    .checkpoint
                    .as_ref()
                    .map_or(Offset(0), |entry| entry.segment_base);
                self.replay = Replay::start(self.log_id, base);
                self.follow();
            }
        }
    }

    /// The log had seemed to end, and goes on behind a later segment.
    fn note_hole(&mut self) {
        let from = self.replay.chain.next_offset;
        let later = self.segments.range(from.plus(1)..).next();
        let to = later.map_or(from, |(&base, _)| base);
        let (segment, position, reason) = match self.ended.take() {
            Some((scan, reason)) => (scan.base, scan.position, reason),
            None => (from, Position(0), Refusal::FileEnds),
        };
        self.pass(segment, from);
        self.damage.push(Damage::Hole {
            segment,
            position,
            from,
            to,
            reason,
        });
        self.cut = None;
    }

    /// Goes on behind a sealed segment.
    fn resume_after(&mut self, side: &Side, file_bytes: u64) {
        self.replay = Replay::after(side);
        let name = SegmentName::Base(side.base_offset);
        self.scan(Scan::resume(name, file_bytes, side.end, side.index.clone()));
    }

    fn scan(&mut self, scan: Scan) {
        let over = scan.wanted().is_none();
        self.phase = Phase::Scan(scan);
        if over {
            self.scan_ended(Refusal::FileEnds);
        }
    }

    /// The batches of a segment have ended, in the segment or with it.
    fn scan_ended(&mut self, reason: Refusal) {
        let Phase::Scan(scan) = std::mem::replace(&mut self.phase, Phase::Finished(None)) else {
            return;
        };
        let offset = self.replay.chain.next_offset;
        if reason == Refusal::Unreadable {
            self.damage.push(Damage::Unreadable {
                segment: scan.name,
                position: scan.position,
                offset,
            });
        }
        let tried_next = scan.name == SegmentName::Next;
        if !reason.is_plain_end() {
            self.cut = Some(Cut {
                segment: scan.name,
                position: scan.position,
                offset,
                reason: reason.clone(),
            });
        } else if !tried_next || scan.position.0 > 0 {
            self.cut = None;
        }
        if !tried_next {
            self.ended = Some((scan, reason));
            self.follow();
        } else if scan.position.0 > 0 {
            // `next.log` follows indeed: the segment before it is sealed.
            if let Some((before, _)) = self.ended.take() {
                self.pass(before.base, scan.base);
            }
            self.keep_ended_side();
            self.ended = Some((scan, reason));
            self.look_beyond();
        } else {
            self.look_beyond();
        }
    }

    /// Looks for the segment that goes on at the log's end, by its name or as `next.log`.
    fn follow(&mut self) {
        let next_offset = self.replay.chain.next_offset;
        let ended = self.ended.as_ref().map(|(scan, _)| scan);
        if ended.is_some_and(|scan| scan.base == next_offset) {
            return self.look_beyond();
        }
        let following = self.segments.get(&next_offset).copied();
        if following.is_some() || self.next_bytes.is_some() {
            let unsaved = |scan: &&Scan| self.side_files.get(&scan.base) != Some(&SideFile::Valid);
            self.ended_side = ended.filter(unsaved).map(|scan| scan.side(&self.replay));
        }
        if let Some(file_bytes) = following {
            if let Some((before, _)) = self.ended.take() {
                self.pass(before.base, next_offset);
            }
            self.keep_ended_side();
            self.cut = None;
            self.scan(Scan::new(
                SegmentName::Base(next_offset),
                next_offset,
                file_bytes,
            ));
        } else if let Some(file_bytes) = self.next_bytes {
            self.scan(Scan::new(SegmentName::Next, next_offset, file_bytes));
        } else {
            self.look_beyond();
        }
    }

    /// Nothing follows. Later segments are left-overs of what wasn't acknowledged, unless one of
    /// them was sealed: then everything before it was durable, and the log goes on behind it.
    fn look_beyond(&mut self) {
        let next_offset = self.replay.chain.next_offset;
        let unread = |base: &Offset| self.side_files.get(base) == Some(&SideFile::Unread);
        let beyond = self
            .segments
            .range(next_offset.plus(1)..)
            .map(|(&base, _)| base);
        let candidates: Vec<_> = beyond.filter(unread).collect();
        self.search(candidates, true);
    }

    /// Leaves the segment that begins at `base` and ends at `end`; one between is no part of the
    /// log.
    fn pass(&mut self, base: Offset, end: Offset) {
        let between = self.segments.range(base.plus(1)..end.max(base.plus(1)));
        self.orphans.extend(between.map(|(&base, _)| base));
    }

    fn keep_ended_side(&mut self) {
        if let Some(side) = self.ended_side.take() {
            self.side_files.insert(side.base_offset, SideFile::Valid);
            self.sides.push(side);
            if self.sides.len() > RECOVERED_SIDES_MAX {
                let dropped = self.sides.remove(0);
                self.side_files
                    .insert(dropped.base_offset, SideFile::Unusable);
            }
        }
    }

    fn finish(&mut self) {
        let ended = self.ended.take();
        let next_offset = self.replay.chain.next_offset;
        let adopted_next = matches!(&ended, Some((scan, _)) if scan.name == SegmentName::Next);
        let orphans_from = match &ended {
            Some((scan, _)) => scan.base.plus(1),
            None => next_offset,
        };
        self.orphans
            .extend(self.segments.range(orphans_from..).map(|(&base, _)| base));
        let log_start = self.judge_damage(ended.as_ref().map(|(scan, _)| scan.base));
        let active = ended
            .map(|(scan, _)| scan)
            .filter(|scan| scan.tail.is_some());
        let sealed = self.sealed(active.as_ref());
        let chain = self.replay.chain;
        let replay = std::mem::replace(&mut self.replay, Replay::start(self.log_id, Offset(0)));
        self.phase = Phase::Finished(Some(Box::new(Recovered {
            log_start,
            next_offset,
            active: active.as_ref().map(|scan| Active {
                base: scan.base,
                file_bytes: scan.file_bytes,
                position: scan.position,
                adopted_next,
            }),
            last_header_crc: chain.last_header_crc.unwrap_or(0),
            last_append_time_us: chain.last_append_time_us,
            epochs: replay.epochs,
            producers: replay.producers,
            sealed,
            sides: std::mem::take(&mut self.sides),
            orphans: std::mem::take(&mut self.orphans).into_iter().collect(),
            spare_bytes: self.next_bytes.filter(|_| !adopted_next),
            tail_block: active
                .as_ref()
                .and_then(|scan| scan.tail.clone())
                .unwrap_or_default(),
            index: active.map_or_else(|| SparseIndex::new(next_offset, 0), |scan| scan.index),
            cut: self.cut.take(),
            damage: std::mem::take(&mut self.damage),
            scanned_bytes: self.scanned_bytes,
        })));
    }

    /// Compares what there is, with the last segment at `last`, with what the checkpoint had
    /// promised. Returns where the log starts.
    fn judge_damage(&mut self, last: Option<Offset>) -> Offset {
        let next_offset = self.replay.chain.next_offset;
        let mut kept = self
            .segments
            .keys()
            .filter(|base| !self.orphans.contains(base));
        let there = kept.next().copied().or(last).unwrap_or(next_offset);
        let Some(entry) = &self.checkpoint else {
            if let Some(&first) = self.orphans.first() {
                let from = next_offset;
                self.damage.push(Damage::Unproven { from, first });
            }
            return there;
        };
        if next_offset < entry.next_offset {
            self.damage.push(Damage::LostTail {
                from: next_offset,
                to: entry.next_offset,
            });
        }
        if entry.log_start < there {
            self.damage.push(Damage::LostHead {
                from: entry.log_start,
                to: there,
            });
        }
        entry.log_start.max(there).min(next_offset)
    }

    fn sealed(&self, active: Option<&Scan>) -> Vec<SealedSegment> {
        let is_sealed = |base: &Offset| {
            !self.orphans.contains(base) && active.is_none_or(|active| active.base != *base)
        };
        let segments = self.segments.iter().filter(|(base, _)| is_sealed(base));
        let segment = |(&base, &file_bytes): (&Offset, &u64)| SealedSegment {
            base,
            file_bytes,
            side: self
                .side_files
                .get(&base)
                .copied()
                .unwrap_or(SideFile::Unread),
        };
        segments.map(segment).collect()
    }
}

#[cfg(test)]
mod tests;
