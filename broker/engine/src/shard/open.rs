//! Opening partitions: recovery runs through the shard's own reads, many partitions at a time, and
//! what it finds becomes a partition.

use std::collections::{HashMap, HashSet, VecDeque};

use ringway_wire::{Offset, TopicPartition};

use crate::device::{DeviceError, FileId, Op, Outcome, SegmentName};
use crate::limits::RECOVERING_MAX;
use crate::log::{
    CheckpointEntry, Damage, Found, FoundSegment, ReadFailed, Recovered, Recovery, SideFile, Step,
};
use crate::shard::event::{Effect, FoundFile, Note, PartitionConfig};
use crate::shard::partition::{IndexState, Next, Partition, Sealed, State};
use crate::shard::tail::TailCache;
use crate::shard::writer::SegmentWriter;
use crate::shard::{Pending, Shard};
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
    /// What recovery found, while it is made durable.
    recovered: Option<Box<Recovered>>,
    /// Syncs of it that are in flight.
    syncs: usize,
    sync_error: Option<DeviceError>,
    checkpoint_next: Option<Offset>,
    deleted: bool,
}

/// Partitions that are not open yet, and those that never will be.
#[derive(Debug, Default)]
pub(super) struct Opening {
    queue: VecDeque<usize>,
    candidates: HashMap<usize, Candidate>,
    logs: HashMap<TopicPartition, usize>,
    unusable: HashMap<TopicPartition, String>,
    active: HashSet<usize>,
    slot_next: usize,
}

impl Opening {
    /// Every partition that is not open, with the reason.
    pub(super) fn states(&self) -> impl Iterator<Item = (TopicPartition, String)> + '_ {
        let recovering = self.logs.keys().map(|&log| (log, "recovering".to_owned()));
        let failed =
            |(&log, reason): (&TopicPartition, &String)| (log, format!("failed: {reason}"));
        recovering.chain(self.unusable.iter().map(failed))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn has(&self, log: TopicPartition) -> bool {
        self.logs.contains_key(&log)
    }

    pub(super) fn why_unusable(&self, log: TopicPartition) -> Option<&str> {
        self.unusable.get(&log).map(String::as_str)
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
        self.unusable.remove(&log);
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
            recovered: None,
            syncs: 0,
            sync_error: None,
            checkpoint_next,
            deleted: false,
        };
        self.opening.candidates.insert(slot, candidate);
        self.opening.logs.insert(log, slot);
        self.opening.queue.push_back(slot);
        self.advance_openings(now);
    }

    /// Starts recoveries, as many as may run at the same time.
    pub(super) fn advance_openings(&mut self, now: Now) {
        while self.opening.active.len() < RECOVERING_MAX
            && let Some(slot) = self.opening.queue.pop_front()
        {
            self.opening.active.insert(slot);
            self.recover(slot, now);
        }
    }

    /// Does a recovery's next step.
    fn recover(&mut self, slot: usize, now: Now) {
        let candidate = self
            .opening
            .candidates
            .get_mut(&slot)
            .expect("it is being recovered");
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
                candidate.loading_side = false;
                let file = candidate.ids[&name];
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
        let candidate = self
            .opening
            .candidates
            .get_mut(&slot)
            .expect("it is being recovered");
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
        self.recover(slot, now);
    }

    /// What recovery read may still be in the device's cache only: it counts when it is synced.
    fn recovered(&mut self, slot: usize, recovered: Box<Recovered>, now: Now) {
        let candidate = self
            .opening
            .candidates
            .get_mut(&slot)
            .expect("it is being recovered");
        candidate.recovery = None;
        let beyond = candidate.checkpoint_next != Some(recovered.next_offset);
        let files = if beyond {
            unproven_files(&recovered, &candidate.ids)
        } else {
            Vec::new()
        };
        candidate.recovered = Some(recovered);
        candidate.syncs = files.len();
        if files.is_empty() {
            return self.opened(slot, now);
        }
        for file in files {
            self.submit(Op::Sync { file }, Pending::RecoverSync(slot));
        }
    }

    pub(super) fn recover_synced(&mut self, slot: usize, error: Option<DeviceError>, now: Now) {
        let candidate = self
            .opening
            .candidates
            .get_mut(&slot)
            .expect("it is being recovered");
        candidate.syncs -= 1;
        candidate.sync_error = candidate.sync_error.take().or(error);
        if candidate.syncs == 0 {
            self.opened(slot, now);
        }
    }

    /// What recovery found is durable, or the device has failed.
    fn opened(&mut self, slot: usize, now: Now) {
        let mut candidate = self
            .opening
            .candidates
            .remove(&slot)
            .expect("it is being recovered");
        self.opening.active.remove(&slot);
        self.opening.logs.remove(&candidate.log);
        let error = candidate.sync_error.take();
        self.install(candidate);
        if let Some(error) = error {
            self.fail_device(error, true);
        }
        self.advance_openings(now);
    }

    /// Makes a partition of what recovery found.
    fn install(&mut self, candidate: Candidate) {
        let Candidate {
            log,
            config,
            ids,
            recovered,
            deleted,
            ..
        } = candidate;
        let recovered = *recovered.expect("recovery has ended");
        let mut partition = Partition::new(log, config, recovered.log_start);
        partition.epochs = recovered.epochs;
        if let Err(error) = partition
            .epochs
            .open(config.leader_epoch, recovered.next_offset)
        {
            let reason = format!("its leader epoch is not newer than the log's: {error}");
            self.note(Note::State {
                log,
                state: format!("failed: {reason}"),
            });
            self.opening.unusable.insert(log, reason);
            return;
        }
        partition.log_end = recovered.next_offset;
        partition.durable_end = recovered.next_offset;
        partition.last_header_crc = recovered.last_header_crc;
        partition.last_append_time_us = recovered.last_append_time_us;
        partition.producers = recovered.producers;
        let indexed = |side| {
            if side == SideFile::Unusable {
                IndexState::Missing
            } else {
                IndexState::OnDisk
            }
        };
        partition.sealed = recovered
            .sealed
            .iter()
            .map(|sealed| Sealed {
                base: sealed.base,
                file: ids[&SegmentName::Base(sealed.base)],
                file_bytes: sealed.file_bytes,
                index: indexed(sealed.side),
            })
            .collect();
        // A `next.log` that isn't in use is left to be replaced: the process that made it may have
        // died before its name and size were durable, and nothing may be acknowledged in it then.
        // A segment without records may be too small for the next batch, and has the name that a
        // larger one would need.
        let mut empty = None;
        if let Some(active) = recovered.active.filter(|active| active.position.0 == 0) {
            empty = Some(ids[&SegmentName::Base(active.base)]);
            partition.next = Next::Discarding;
        } else if let Some(active) = recovered.active {
            let name = match active.adopted_next {
                true => SegmentName::Next,
                false => SegmentName::Base(active.base),
            };
            partition.segment_bytes_last = active.file_bytes;
            partition.writers.push_back(SegmentWriter::recovered(
                ids[&name],
                &active,
                recovered.index,
                &recovered.tail_block,
                &self.pool,
            ));
            if active.adopted_next {
                partition.next = Next::Unnamed {
                    file: ids[&name],
                    base: active.base,
                };
            }
        }
        let index = self.partitions.len();
        self.partitions.push(Some(Box::new(partition)));
        self.by_log.insert(log, index);
        self.counters.partitions += 1;
        if let Some(file) = empty {
            self.submit(Op::Remove { file }, Pending::Discard(index));
        }
        for side in recovered.sides {
            let base = side.base_offset;
            let op = Op::SaveSide {
                log,
                base,
                bytes: side.encode(),
            };
            self.submit(
                op,
                Pending::SaveSide {
                    partition: index,
                    base,
                },
            );
        }
        for base in recovered.orphans {
            let file = ids[&SegmentName::Base(base)];
            self.submit(Op::Remove { file }, Pending::Remove(index));
        }
        self.note(Note::Opened {
            log,
            log_start: recovered.log_start,
            log_end: recovered.next_offset,
            scanned_bytes: recovered.scanned_bytes,
            cut: recovered.cut.map(|cut| cut.to_string()),
        });
        self.weigh_damage(index, &recovered.damage);
        if deleted {
            self.delete(log);
        } else if let Some(error) = self.device_failed.clone() {
            self.fail_partition(index, &format!("a flush of the device failed: {error}"));
        } else {
            self.want_space(index);
        }
    }

    /// Says what is lost. Where the log's end is among it, nothing is appended any more: a
    /// person has to decide.
    fn weigh_damage(&mut self, index: usize, damage: &[Damage]) {
        for each in damage {
            let partition = self.partitions[index]
                .as_deref()
                .expect("it was just opened");
            let (log, log_end) = (partition.log, partition.log_end);
            let offset = match each {
                Damage::LostTail { from, .. }
                | Damage::LostHead { from, .. }
                | Damage::Hole { from, .. }
                | Damage::Unproven { from, .. } => *from,
                Damage::Unreadable { offset, .. } => *offset,
            };
            self.counters.damaged += 1;
            self.note(Note::Damaged {
                log,
                offset,
                reason: each.to_string(),
            });
            if offset >= log_end {
                let reason = format!(
                    "{each}; restore the partition's files, or delete the topic if the rest may go"
                );
                self.fail_partition(index, &reason);
            }
        }
    }
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
    /// A partition without records.
    pub(super) fn new(log: TopicPartition, config: PartitionConfig, log_start: Offset) -> Self {
        Self {
            log,
            config,
            state: State::Ready,
            log_start,
            log_end: log_start,
            durable_end: log_start,
            last_header_crc: 0,
            last_append_time_us: i64::MIN,
            epochs: Default::default(),
            producers: Default::default(),
            sealed: Vec::new(),
            writers: VecDeque::new(),
            next: Next::None,
            segment_bytes_last: 0,
            tail: TailCache::default(),
            acks: VecDeque::new(),
            waiters: Vec::new(),
            cursors: VecDeque::new(),
            dirty: false,
            in_flight: 0,
            retry: None,
            snapshot_wanted: false,
        }
    }
}
