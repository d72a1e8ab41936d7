//! Opening partitions: recovery runs through the shard's own reads, many partitions at a time, and
//! what it finds becomes a partition.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ringway_wire::{Offset, TopicPartition};

use crate::buffer::Pool;
use crate::device::{DeviceError, FileId, Op, Outcome, SegmentName};
use crate::limits::{OPENINGS_PER_TURN, RECOVERING_MAX};
use crate::log::limits::INDEXED_SEGMENT_BYTES_MIN;
use crate::log::{
    CheckpointEntry, Damage, Found, FoundSegment, ReadFailed, Recovered, Recovery, SealedSegment,
    SideFile, Step,
};
use crate::shard::event::{Effect, FoundFile, Note, PartitionConfig};
use crate::shard::partition::{IndexState, Next, Partition, Sealed, State};
use crate::shard::tail::TailCache;
use crate::shard::writer::SegmentWriter;
use crate::shard::{Pending, Shard, Timer};
use crate::time::Now;

/// A partition on its way to being open.
#[derive(Debug)]
struct Candidate {
    log: TopicPartition,
    config: PartitionConfig,
    ids: HashMap<SegmentName, FileId>,
    recovery: Option<Recovery>,
    /// Whether the step in flight loads a side file.
    loading_side: bool,
    /// Bytes that the step in flight reads.
    reading_bytes: usize,
    /// What recovery found, while it is made durable.
    recovered: Option<Box<Recovered>>,
    /// Syncs of it, or removals of what is no part of it, that are in flight.
    outstanding: usize,
    sync_error: Option<DeviceError>,
    remove_error: Option<DeviceError>,
    checkpoint_next: Option<Offset>,
    checkpoint_base: Option<Offset>,
    deleted: bool,
}

/// Partitions that are not open yet, and those that never will be.
#[derive(Debug, Default)]
pub(super) struct Opening {
    queue: VecDeque<usize>,
    candidates: HashMap<usize, Candidate>,
    logs: HashMap<TopicPartition, usize>,
    active: HashSet<usize>,
    /// Bytes that recoveries read now, and those that wait until there are fewer.
    reading_bytes: usize,
    parked: VecDeque<usize>,
    /// Recoveries begun since the last turn.
    begun: usize,
    slot_next: usize,
}

impl Opening {
    /// Every partition that is not open yet.
    pub(super) fn logs(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.logs.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn has(&self, log: TopicPartition) -> bool {
        self.logs.contains_key(&log)
    }

    pub(super) fn configure(&mut self, log: TopicPartition, config: PartitionConfig) {
        let slot = self.logs.get(&log);
        if let Some(candidate) = slot.and_then(|slot| self.candidates.get_mut(slot)) {
            let leader_epoch = candidate.config.leader_epoch;
            candidate.config = PartitionConfig {
                leader_epoch,
                ..config
            };
        }
    }

    pub(super) fn delete(&mut self, log: TopicPartition) {
        let slot = self.logs.get(&log);
        if let Some(candidate) = slot.and_then(|slot| self.candidates.get_mut(slot)) {
            candidate.deleted = true;
        }
    }
}

impl Shard {
    pub(super) fn open(
        &mut self,
        log: TopicPartition,
        config: PartitionConfig,
        files: Vec<FoundFile>,
        checkpoint: Option<Box<CheckpointEntry>>,
        now: Now,
    ) {
        if self.by_log.contains_key(&log) || self.opening.has(log) {
            debug_assert!(false, "{log} is opened twice");
            return;
        }
        let slot = self.opening.slot_next;
        self.opening.slot_next += 1;
        let segments = files
            .iter()
            .map(|file| FoundSegment {
                name: file.name,
                file_bytes: file.bytes,
            })
            .collect();
        let checkpoint_next = checkpoint.as_ref().map(|entry| entry.next_offset);
        let checkpoint_base = checkpoint.as_ref().map(|entry| entry.segment_base);
        if let Some(entry) = &checkpoint {
            self.checkpointing.inherit(entry);
        }
        let found = Found {
            log,
            segments,
            checkpoint: checkpoint.map(|entry| *entry),
        };
        let mut ids = HashMap::new();
        for file in &files {
            let id = self.new_file();
            ids.insert(file.name, id);
            self.effects.push_back(Effect::Declare {
                file: id,
                log,
                name: file.name,
            });
        }
        let recovery = Some(Recovery::new(found));
        let candidate = Candidate {
            log,
            config,
            ids,
            recovery,
            loading_side: false,
            reading_bytes: 0,
            recovered: None,
            outstanding: 0,
            sync_error: None,
            remove_error: None,
            checkpoint_next,
            checkpoint_base,
            deleted: false,
        };
        self.opening.candidates.insert(slot, candidate);
        self.opening.logs.insert(log, slot);
        self.opening.queue.push_back(slot);
        self.begin_openings(now);
    }

    /// Starts recoveries: as many as may run at the same time, and in one turn only so many of
    /// those that end at once because there is nothing to be recovered.
    pub(super) fn advance_openings(&mut self, now: Now) {
        self.opening.begun = 0;
        self.begin_openings(now);
        if self.opening.begun == OPENINGS_PER_TURN && !self.opening.queue.is_empty() {
            self.timers.set(now.mono_ns, Timer::Openings);
        }
    }

    fn begin_openings(&mut self, now: Now) {
        while self.opening.active.len() < RECOVERING_MAX
            && self.opening.begun < OPENINGS_PER_TURN
            && let Some(slot) = self.opening.queue.pop_front()
        {
            self.opening.begun += 1;
            self.opening.active.insert(slot);
            self.recover(slot, now);
        }
    }

    fn candidate(&mut self, slot: usize) -> &mut Candidate {
        let candidate = self.opening.candidates.get_mut(&slot);
        candidate.expect("it is being recovered")
    }

    /// Does a recovery's next step.
    fn recover(&mut self, slot: usize, now: Now) {
        let candidate = self.candidate(slot);
        let recovery = candidate.recovery.as_mut().expect("it isn't finished");
        let log = candidate.log;
        match recovery.step() {
            Step::LoadSide { base } => {
                candidate.loading_side = true;
                self.submit(Op::LoadSide { log, base }, Pending::Recover(slot));
            }
            Step::Read {
                name,
                position,
                bytes,
            } => {
                let others = self.opening.reading_bytes;
                if others > 0 && others + bytes > self.config.read_bytes_max {
                    self.opening.parked.push_back(slot);
                    return;
                }
                let candidate = self.candidate(slot);
                candidate.loading_side = false;
                candidate.reading_bytes = bytes;
                let file = candidate.ids[&name];
                self.opening.reading_bytes += bytes;
                let buffer = self.pool.take(bytes);
                let op = Op::Read {
                    file,
                    position,
                    buffer,
                    bytes,
                };
                self.submit(op, Pending::Recover(slot));
            }
            Step::Finished(recovered) => self.recovered(slot, recovered, now),
        }
    }

    pub(super) fn recover_done(
        &mut self,
        slot: usize,
        result: Result<Outcome, DeviceError>,
        now: Now,
    ) {
        let candidate = self.candidate(slot);
        let recovery = candidate.recovery.as_mut().expect("it isn't finished");
        match result {
            Ok(Outcome::Side(side)) => recovery.side(side.as_deref()),
            Ok(Outcome::Read { buffer, bytes }) => recovery.read(Ok(&buffer[..bytes])),
            Ok(Outcome::Done | Outcome::Prepared { .. }) => {
                unreachable!("recovery only reads")
            }
            // A side file that can't be read is as good as none.
            Err(_) if candidate.loading_side => recovery.side(None),
            Err(_) => recovery.read(Err(ReadFailed)),
        }
        let read_bytes = std::mem::take(&mut candidate.reading_bytes);
        self.opening.reading_bytes -= read_bytes;
        for parked in std::mem::take(&mut self.opening.parked) {
            self.recover(parked, now);
        }
        self.recover(slot, now);
    }

    /// What recovery read may still be in the device's cache only: it counts when it is synced.
    fn recovered(&mut self, slot: usize, recovered: Box<Recovered>, now: Now) {
        let candidate = self.candidate(slot);
        candidate.recovery = None;
        let beyond = candidate.checkpoint_next != Some(recovered.next_offset);
        let files = if beyond {
            unproven_files(&recovered, &candidate.ids)
        } else {
            Vec::new()
        };
        candidate.recovered = Some(recovered);
        candidate.outstanding = files.len();
        if files.is_empty() {
            return self.remove_left_overs(slot, now);
        }
        for file in files {
            self.submit(Op::Sync { file }, Pending::RecoverSync(slot));
        }
    }

    pub(super) fn recover_synced(&mut self, slot: usize, error: Option<DeviceError>, now: Now) {
        let candidate = self.candidate(slot);
        candidate.outstanding -= 1;
        candidate.sync_error = candidate.sync_error.take().or(error);
        if candidate.outstanding == 0 {
            self.remove_left_overs(slot, now);
        }
    }

    /// Removes what has a name that the log may need later, before it goes on. Where a person has
    /// to decide, everything stays as it is.
    fn remove_left_overs(&mut self, slot: usize, now: Now) {
        let candidate = self.candidate(slot);
        let Some(recovered) = candidate.recovered.as_deref_mut() else {
            return;
        };
        // A segment without records may be too small for the next batch.
        let empty = recovered.active.take_if(|active| active.position.0 == 0);
        let orphans = std::mem::take(&mut recovered.orphans).into_iter();
        let mut bases: Vec<Offset> = orphans.chain(empty.map(|active| active.base)).collect();
        if candidate.sync_error.is_some() || fatal_damage(recovered).is_some() {
            bases.clear();
        }
        candidate.outstanding = bases.len();
        if bases.is_empty() {
            return self.opened(slot, now);
        }
        let name = |base| candidate.ids[&SegmentName::Base(base)];
        let files: Vec<FileId> = bases.into_iter().map(name).collect();
        for file in files {
            self.submit(Op::Remove { file }, Pending::RecoverRemove(slot));
        }
    }

    pub(super) fn recover_removed(&mut self, slot: usize, error: Option<DeviceError>, now: Now) {
        let candidate = self.candidate(slot);
        candidate.outstanding -= 1;
        candidate.remove_error = candidate.remove_error.take().or(error);
        if candidate.outstanding == 0 {
            self.opened(slot, now);
        }
    }

    /// What recovery found is durable, or the device has failed.
    fn opened(&mut self, slot: usize, now: Now) {
        let candidate = self.opening.candidates.remove(&slot);
        let mut candidate = candidate.expect("it is being recovered");
        self.opening.active.remove(&slot);
        self.opening.logs.remove(&candidate.log);
        let error = candidate.sync_error.take();
        self.install(candidate, now);
        if let Some(error) = error {
            self.fail_device(error, true);
        }
    }

    /// Makes a partition of what recovery found.
    fn install(&mut self, candidate: Candidate, now: Now) {
        let (log, deleted) = (candidate.log, candidate.deleted);
        let recovered = *candidate.recovered.expect("recovery has ended");
        let mut partition = Partition::new(log, candidate.config, recovered.log_start);
        partition.epochs = recovered.epochs.clone();
        partition.checkpoint_base = candidate.checkpoint_base.unwrap_or_default();
        let epoch = candidate.config.leader_epoch;
        let opened = partition.epochs.open(epoch, recovered.next_offset);
        partition.take_over(&recovered, &candidate.ids, &self.pool, now);
        let index = self.partitions.len();
        self.partitions.push(Some(Box::new(partition)));
        self.by_log.insert(log, index);
        self.counters.partitions += 1;
        self.list_for_checkpoint(index);
        for side in &recovered.sides {
            let (base, bytes) = (side.base_offset, side.encode());
            let partition = index;
            let pending = Pending::SaveSide { partition, base };
            self.submit(Op::SaveSide { log, base, bytes }, pending);
        }
        self.note(Note::Opened {
            log,
            log_start: recovered.log_start,
            log_end: recovered.next_offset,
            scanned_bytes: recovered.scanned_bytes,
            cut: recovered.cut.as_ref().map(ToString::to_string),
        });
        self.weigh_damage(index, &recovered);
        self.expire(index);
        for sealed in &recovered.sealed {
            if sealed.side == SideFile::Unusable && is_indexed(sealed) {
                self.rebuild_side(index, sealed.base);
            }
        }
        if let Err(error) = opened {
            let reason = format!("its leader epoch is not newer than the log's: {error}");
            self.fail_partition(index, &reason);
        }
        if let Some(error) = candidate.remove_error {
            self.fail_partition(index, &format!("a left-over segment stays: {error}"));
        }
        if deleted {
            self.delete(log);
        } else if let Some(error) = self.device_failed.clone() {
            self.fail_partition(index, &format!("a flush of the device failed: {error}"));
        } else {
            self.want_space(index, now);
        }
    }

    /// Says what is lost. Where the log's end is among it, nothing is appended any more: a
    /// person has to decide.
    fn weigh_damage(&mut self, index: usize, recovered: &Recovered) {
        for each in &recovered.damage {
            let log = self.partition(index).expect("it was just opened").log;
            self.counters.damaged += 1;
            self.note(Note::Damaged {
                log,
                offset: damaged_offset(each),
                reason: each.to_string(),
            });
        }
        if let Some(damage) = fatal_damage(recovered) {
            let reason = format!(
                "{damage}; restore the partition's files, or delete the topic if the rest may go"
            );
            self.fail_partition(index, &reason);
        }
    }
}

/// Whether a segment is so large that its side file has an index.
const fn is_indexed(sealed: &SealedSegment) -> bool {
    sealed.file_bytes >= INDEXED_SEGMENT_BYTES_MIN
}

const fn damaged_offset(damage: &Damage) -> Offset {
    match damage {
        Damage::LostTail { from, .. }
        | Damage::LostHead { from, .. }
        | Damage::Hole { from, .. }
        | Damage::Unproven { from, .. } => *from,
        Damage::Unreadable { offset, .. } => *offset,
    }
}

/// Damage that the log's end is among.
fn fatal_damage(recovered: &Recovered) -> Option<&Damage> {
    let at_end = |damage: &&Damage| damaged_offset(damage) >= recovered.next_offset;
    recovered.damage.iter().find(at_end)
}

/// The files whose last writes may not be durable: a segment's name proves those before it, so the
/// last one with a name, and `next.log` if the log goes on in it.
fn unproven_files(recovered: &Recovered, ids: &HashMap<SegmentName, FileId>) -> Vec<FileId> {
    let active = recovered.active.as_ref();
    let last_sealed = recovered
        .sealed
        .last()
        .filter(|_| active.is_none_or(|active| active.adopted_next))
        .map(|sealed| ids[&SegmentName::Base(sealed.base)]);
    let active = active.map(|active| match active.adopted_next {
        true => ids[&SegmentName::Next],
        false => ids[&SegmentName::Base(active.base)],
    });
    last_sealed.into_iter().chain(active).collect()
}

impl Partition {
    /// Becomes what recovery found. A `next.log` that isn't in use is left to be replaced: the
    /// process that made it may have died before its name and size were durable, and nothing may be
    /// acknowledged in it then.
    fn take_over(
        &mut self,
        recovered: &Recovered,
        ids: &HashMap<SegmentName, FileId>,
        pool: &Pool,
        now: Now,
    ) {
        self.log_end = recovered.next_offset;
        self.durable_end = recovered.next_offset;
        self.stable_end = recovered.next_offset;
        self.last_header_crc = recovered.last_header_crc;
        self.last_append_time_us = recovered.last_append_time_us;
        self.producers = recovered.producers.clone();
        let sides = recovered.sides.iter();
        let ended_us: HashMap<Offset, i64> = sides
            .map(|side| (side.base_offset, side.last_append_time_us))
            .collect();
        let sealed = |sealed: &SealedSegment| Sealed {
            base: sealed.base,
            file: ids[&SegmentName::Base(sealed.base)],
            file_bytes: sealed.file_bytes,
            began_us: None,
            ended_us: ended_us.get(&sealed.base).copied(),
            index: match sealed.side {
                SideFile::Valid | SideFile::Unread if is_indexed(sealed) => IndexState::OnDisk,
                _ => IndexState::Missing,
            },
        };
        self.sealed = recovered.sealed.iter().map(sealed).collect();
        let Some(active) = &recovered.active else {
            return;
        };
        let base = active.base;
        let file = match active.adopted_next {
            true => ids[&SegmentName::Next],
            false => ids[&SegmentName::Base(base)],
        };
        if active.adopted_next {
            self.next = Next::Unnamed { file, base };
        }
        let (index, tail_block) = (recovered.index.clone(), &recovered.tail_block);
        let writer = SegmentWriter::recovered(file, active, index, tail_block, pool, now.mono_ns);
        self.writers.push_back(writer);
    }

    /// A partition without records.
    pub(super) fn new(log: TopicPartition, config: PartitionConfig, log_start: Offset) -> Self {
        Self {
            log,
            config,
            state: State::Ready,
            log_start,
            start_wanted: log_start,
            checkpoint_base: Offset(0),
            log_end: log_start,
            durable_end: log_start,
            stable_end: log_start,
            unsynced_bytes: 0,
            oldest_ns: None,
            last_header_crc: 0,
            last_append_time_us: i64::MIN,
            epochs: Default::default(),
            producers: Default::default(),
            sealed: Vec::new(),
            expired: VecDeque::new(),
            removing: false,
            pins: BTreeMap::new(),
            aging: false,
            trims: Vec::new(),
            writers: VecDeque::new(),
            next: Next::None,
            tail: TailCache::default(),
            acks: VecDeque::new(),
            acks_listed: false,
            waiters: BTreeMap::new(),
            cursors: VecDeque::new(),
            dirty: false,
            in_flight: 0,
            retry: None,
            checkpoint_listed: false,
        }
    }
}
