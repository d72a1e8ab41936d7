//! A partition's files in memory, written the way a shard writes them, and the means to recover
//! from them.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::batch::{
    BatchBuilder, BatchLimits, LeaderStamp, ProducerStamp, RecordRef, check_header, stamp,
};
use ringway_wire::limits::BATCH_HEADER_BYTES;
use ringway_wire::{
    LeaderEpoch, Offset, PartitionIndex, Position, ProducerId, Sequence, TopicId, TopicPartition,
};

use crate::device::SegmentName;
use crate::limits::{BLOCK_BYTES, block_ceil, block_floor};
use crate::log::limits::RECOVERY_READ_BYTES_MAX;
use crate::log::recovery::{Active, Found, FoundSegment, Recovered, Recovery, Step};
use crate::log::scan::{ReadFailed, Replay};
use crate::log::{CheckpointEntry, SparseIndex};

pub(super) const LOG: TopicPartition = TopicPartition {
    topic: TopicId(0x77),
    partition: PartitionIndex(3),
};

/// The files of a partition.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) segments: BTreeMap<SegmentName, Vec<u8>>,
    pub(super) sides: BTreeMap<Offset, Vec<u8>>,
    /// Blocks, by segment and ordinal, that the device can't read.
    pub(super) bad_blocks: BTreeSet<(SegmentName, u64)>,
}

/// The log behind one of its batches.
#[derive(Clone)]
pub(super) struct State {
    pub(super) replay: Replay,
    pub(super) base: Offset,
    pub(super) position: Position,
    pub(super) index: SparseIndex,
}

/// A batch and where it is.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) segment: Offset,
    pub(super) position: u64,
    pub(super) bytes: Vec<u8>,
}

/// A log being written.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) log: TopicPartition,
    pub(super) disk: Disk,
    pub(super) state: State,
    /// The state before the first batch, then behind each.
    pub(super) states: Vec<State>,
    pub(super) batches: Vec<Placed>,
    pub(super) epoch: u32,
    pub(super) now_us: i64,
    pub(super) log_start: Offset,
    sequences: BTreeMap<u64, u32>,
}

impl Log {
    /// A log in epoch 1 whose first segment has `file_bytes`.
    pub(super) fn new(log: TopicPartition, file_bytes: usize) -> Self {
        Self::starting_at(log, Offset(0), file_bytes)
    }

    pub(super) fn starting_at(log: TopicPartition, start: Offset, file_bytes: usize) -> Self {
        let state = State {
            replay: Replay::start(log.log_id(), start),
            base: start,
            position: Position(0),
            index: SparseIndex::new(start, file_bytes as u64),
        };
        let mut disk = Disk::default();
        disk.segments
            .insert(SegmentName::Base(start), vec![0; file_bytes]);
        let mut new = Self {
            log,
            disk,
            states: vec![state.clone()],
            state,
            batches: Vec::new(),
            epoch: 0,
            now_us: 1_000,
            log_start: start,
            sequences: BTreeMap::new(),
        };
        new.open_epoch();
        new
    }

    pub(super) fn open_epoch(&mut self) {
        self.epoch += 1;
        let end = self.end();
        self.state
            .replay
            .epochs
            .open(LeaderEpoch(self.epoch), end)
            .unwrap();
    }

    pub(super) fn end(&self) -> Offset {
        self.state.replay.chain.next_offset
    }

    pub(super) fn active_file(&mut self) -> &mut Vec<u8> {
        let name = SegmentName::Base(self.state.base);
        self.disk.segments.get_mut(&name).unwrap()
    }

    /// A batch of `records` values of `value_bytes` each, stamped as the log's next.
    pub(super) fn next_batch(
        &mut self,
        records: u32,
        value_bytes: usize,
        producer: u64,
    ) -> Vec<u8> {
        let fill = self.batches.len() as u8 | 1;
        let value = vec![fill; value_bytes];
        let mut builder = BatchBuilder::new(BatchLimits {
            bytes_max: 64 << 20,
            records_max: 1 << 20,
        });
        for _ in 0..records {
            let record = RecordRef {
                value: Some(&value),
                timestamp_us: self.now_us,
                ..RecordRef::default()
            };
            builder.push(&record).unwrap();
        }
        let sequence = self.sequences.entry(producer).or_default();
        let producer = ProducerStamp {
            id: ProducerId(producer),
            first_sequence: Sequence(*sequence),
            ..ProducerStamp::default()
        };
        *sequence += records;
        let mut batch = builder.seal(producer).unwrap().bytes.to_vec();
        self.now_us += 10;
        let chain = self.state.replay.chain;
        stamp(
            &mut batch,
            &LeaderStamp {
                log_id: self.log.log_id(),
                base_offset: chain.next_offset,
                append_time_us: self.now_us,
                leader_epoch: LeaderEpoch(self.epoch),
                prev_header_crc: chain.last_header_crc.unwrap_or(0),
            },
        );
        batch
    }

    /// Appends a batch; the segment must have room.
    pub(super) fn append(&mut self, records: u32, value_bytes: usize, producer: u64) {
        let batch = self.next_batch(records, value_bytes, producer);
        let header = check_header(&batch, true).unwrap();
        let position = self.state.position;
        let start = position.0 as usize;
        self.active_file()[start..start + batch.len()].copy_from_slice(&batch);
        let state = &mut self.state;
        state
            .index
            .add(header.base_offset, position, header.append_time_us);
        state.replay.chain.advance(&header);
        state.replay.producers.record(&header);
        state.position = position.plus(batch.len() as u64);
        self.batches.push(Placed {
            segment: state.base,
            position: position.0,
            bytes: batch,
        });
        self.states.push(state.clone());
    }

    /// Bytes left in the active segment.
    pub(super) fn room(&mut self) -> usize {
        let position = self.state.position.0 as usize;
        self.active_file().len() - position
    }

    /// Seals the active segment and goes on in a new file with these bytes.
    pub(super) fn roll_into(&mut self, file: Vec<u8>, side: bool) {
        let replay = &self.state.replay;
        let sealed = crate::log::Side {
            log_id: self.log.log_id(),
            base_offset: self.state.base,
            next_offset: replay.chain.next_offset,
            end: self.state.position,
            last_header_crc: replay.chain.last_header_crc.unwrap(),
            last_append_time_us: replay.chain.last_append_time_us,
            index: self.state.index.clone(),
            epochs: replay.epochs.clone(),
            producers: replay.producers.clone(),
        };
        if side {
            self.disk.sides.insert(sealed.base_offset, sealed.encode());
        }
        self.state.base = self.end();
        self.state.position = Position(0);
        self.state.index = SparseIndex::new(self.state.base, file.len() as u64);
        self.disk
            .segments
            .insert(SegmentName::Base(self.state.base), file);
    }

    pub(super) fn roll(&mut self, file_bytes: usize, side: bool) {
        self.roll_into(vec![0; file_bytes], side);
    }

    /// A checkpoint of the log as it is now.
    pub(super) fn checkpoint(&self) -> CheckpointEntry {
        let replay = &self.state.replay;
        CheckpointEntry {
            log: self.log,
            segment_base: self.state.base,
            position: self.state.position,
            next_offset: replay.chain.next_offset,
            log_start: self.log_start,
            leader_epoch: LeaderEpoch(self.epoch),
            last_header_crc: replay.chain.last_header_crc.unwrap_or(0),
            last_append_time_us: replay.chain.last_append_time_us,
            index: self.state.index.clone(),
            epochs: replay.epochs.clone(),
            producers: replay.producers.clone(),
        }
    }

    /// How many batches from the first on are on the disk as they were written.
    pub(super) fn whole_prefix(&self) -> usize {
        self.whole_from(0)
    }

    /// The same, taking those before the `from`th for whole.
    pub(super) fn whole_from(&self, from: usize) -> usize {
        let torn = |batch: &Placed| {
            let file = self.disk.segments.get(&SegmentName::Base(batch.segment));
            let start = batch.position as usize;
            file.and_then(|file| file.get(start..start + batch.bytes.len()))
                != Some(batch.bytes.as_slice())
        };
        let first = self.batches[from..].iter().position(torn);
        from + first.unwrap_or(self.batches.len() - from)
    }

    /// Compares a recovery with the state behind the first `count` batches.
    pub(super) fn assert_recovered(&self, recovered: &Recovered, count: usize) {
        let wanted = &self.states[count];
        let chain = wanted.replay.chain;
        assert_eq!(
            recovered.next_offset, chain.next_offset,
            "{:?}",
            recovered.cut
        );
        assert_eq!(
            recovered.last_header_crc,
            chain.last_header_crc.unwrap_or(0)
        );
        assert_eq!(recovered.last_append_time_us, chain.last_append_time_us);
        assert_eq!(recovered.producers, wanted.replay.producers);
        let active = recovered.active.expect("there is a segment");
        self.assert_tail(&active, &recovered.tail_block);
        if active.position.0 == 0 {
            // The next segment is there already, empty.
            assert_eq!(active.base, chain.next_offset);
            return;
        }
        let mut epochs = recovered.epochs.clone();
        epochs.truncate(chain.next_offset);
        let mut wanted_epochs = wanted.replay.epochs.clone();
        wanted_epochs.truncate(chain.next_offset);
        assert_eq!(epochs, wanted_epochs);
        assert_eq!(
            (active.base, active.position),
            (wanted.base, wanted.position)
        );
        assert_eq!(recovered.index.entries(), wanted.index.entries());
    }

    fn assert_tail(&self, active: &Active, tail: &[u8]) {
        let name = match active.adopted_next {
            true => SegmentName::Next,
            false => SegmentName::Base(active.base),
        };
        let file = &self.disk.segments[&name];
        let start = block_floor(active.position.0) as usize;
        assert_eq!(tail, &file[start..active.position.0 as usize]);
        assert_eq!(active.file_bytes, file.len() as u64);
    }

    pub(super) fn recover(&self, checkpoint: Option<CheckpointEntry>) -> Recovered {
        self.disk.recover(self.log, checkpoint)
    }
}

impl Disk {
    fn found(&self, log: TopicPartition, checkpoint: Option<CheckpointEntry>) -> Found {
        let segment = |(&name, file): (&SegmentName, &Vec<u8>)| FoundSegment {
            name,
            file_bytes: file.len() as u64,
        };
        Found {
            log,
            segments: self.segments.iter().rev().map(segment).collect(),
            checkpoint,
        }
    }

    /// Runs a recovery to its end, looking at each of its requests.
    pub(super) fn recover(
        &self,
        log: TopicPartition,
        checkpoint: Option<CheckpointEntry>,
    ) -> Recovered {
        let mut recovery = Recovery::new(self.found(log, checkpoint));
        for _ in 0..100_000 {
            match recovery.step() {
                Step::Finished(recovered) => return *recovered,
                Step::LoadSide { base } => {
                    assert!(self.segments.contains_key(&SegmentName::Base(base)));
                    recovery.side(self.sides.get(&base).map(Vec::as_slice));
                }
                Step::Read {
                    name,
                    position,
                    bytes,
                } => recovery.read(self.read(name, position, bytes)),
            }
        }
        panic!("recovery doesn't end");
    }

    /// Reads as a device does: whole blocks, fewer bytes at the file's end.
    pub(super) fn read(
        &self,
        name: SegmentName,
        position: Position,
        bytes: usize,
    ) -> Result<&[u8], ReadFailed> {
        let file = &self.segments[&name];
        assert!(
            bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES),
            "{bytes} bytes"
        );
        assert_eq!(block_floor(position.0), position.0);
        let end = position.0 + bytes as u64;
        assert!(
            end <= block_ceil(file.len() as u64),
            "{name:?}: {end} of {}",
            file.len()
        );
        assert!(bytes as u64 <= self.largest_batch(name).max(RECOVERY_READ_BYTES_MAX));
        let mut blocks = position.0 / BLOCK_BYTES as u64..end / BLOCK_BYTES as u64;
        if blocks.any(|block| self.bad_blocks.contains(&(name, block))) {
            return Err(ReadFailed);
        }
        let start = (position.0 as usize).min(file.len());
        Ok(&file[start..(end as usize).min(file.len())])
    }

    /// A bound for reads: the largest length that any header-like bytes in the file announce.
    fn largest_batch(&self, name: SegmentName) -> u64 {
        let file = &self.segments[&name];
        let headers = file.chunks(16).enumerate().filter_map(|(ordinal, line)| {
            let start = ordinal * 16;
            let magic = line.starts_with(b"RWB1");
            let header = file
                .get(start..start + BATCH_HEADER_BYTES)
                .filter(|_| magic)?;
            check_header(header, true)
                .ok()
                .map(|header| u64::from(header.batch_bytes))
        });
        headers.max().unwrap_or(0) + 2 * BLOCK_BYTES as u64
    }
}
