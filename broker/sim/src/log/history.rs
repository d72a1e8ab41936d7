//! Everything that clients know of the logs, and the checks that nothing ever contradicts it.
//!
//! A batch has one place at most, for ever; what was acknowledged has the place that was named;
//! what somebody has read stays as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use ringway_engine::shard::ShardConfig;
use ringway_wire::batch::{BatchHeader, CheckedBatch};
use ringway_wire::limits::LEADER_PART_BYTES;
use ringway_wire::request::Durability;
use ringway_wire::{LeaderEpoch, Offset, ProducerId, Sequence, TopicPartition};

use crate::log::batch::{BatchNumber, Sent};

/// A violated promise, in words.
pub(super) type Broken = String;

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(super) use ensure;

/// What is known of one batch.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// Where its acknowledgement said that it is.
    acknowledged: Option<Offset>,
    /// Where a reader found it.
    found: Option<Offset>,
    /// An acknowledgement said that it is on stable storage.
    durable: bool,
    /// When it was acknowledged first, by the monotonic clock.
    acknowledged_ns: u64,
    /// A crash has taken it: it must never be there again, unless it is sent again.
    lost: bool,
    /// It must never be accepted: it was damaged on its way, or leaves a gap.
    forbidden: bool,
}

/// A batch as a reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    number: BatchNumber,
    next: Offset,
    header_crc: u32,
    append_time_us: i64,
    epoch: LeaderEpoch,
}

/// One partition in the memory of its clients.
#[derive(Clone, Debug)]
pub(super) struct LogHistory {
    pub(super) log: TopicPartition,
    /// Its topic was deleted, or is being deleted.
    pub(super) deleted: bool,
    /// Its durability is `memory`.
    pub(super) memory: bool,
    /// It was at some time.
    memory_once: bool,
    /// A crash may have taken what nobody said is on stable storage; nobody has looked yet.
    may_lack: bool,
    /// The largest end of an acknowledged batch.
    pub(super) acknowledged_end: Offset,
    /// The largest end of one that was said to be on stable storage.
    durable_end: Offset,
    /// The largest high watermark that somebody was told.
    pub(super) watermark: Offset,
    /// The largest first offset that somebody was told: it never goes back.
    pub(super) start: Offset,
    /// The first offset that somebody has asked for, or that retention may lead to.
    pub(super) start_max: Offset,
    /// What readers found, by base offset.
    seen: BTreeMap<Offset, Seen>,
}

/// The batches of one reply.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    pub(super) batches: Vec<(Offset, BatchNumber)>,
    /// The offset after the last.
    pub(super) end: Offset,
    pub(super) last_epoch: Option<LeaderEpoch>,
}

/// The memory of all clients. Cloned at every crash point.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) logs: Vec<LogHistory>,
    sent: Vec<Rc<Sent>>,
    fates: Vec<Fate>,
    /// What the last crash has taken, of all logs.
    lost: Lost,
}

/// What a crash has taken of what was acknowledged from memory.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    bytes: u64,
    /// When the first and the last of it were acknowledged.
    span_ns: Option<(u64, u64)>,
}

impl History {
    pub(super) fn add_log(&mut self, log: TopicPartition, memory: bool) {
        self.logs.push(LogHistory {
            log,
            deleted: false,
            memory,
            memory_once: memory,
            may_lack: false,
            acknowledged_end: Offset(0),
            durable_end: Offset(0),
            watermark: Offset(0),
            start: Offset(0),
            start_max: Offset(0),
            seen: BTreeMap::new(),
        });
    }

    /// Number of the next batch.
    pub(super) fn next_number(&self) -> BatchNumber {
        self.sent.len()
    }

    /// Remembers a batch; with `forbidden`, nobody may ever accept it.
    pub(super) fn add(&mut self, sent: Rc<Sent>, forbidden: bool) -> BatchNumber {
        self.sent.push(sent);
        self.fates.push(Fate {
            forbidden,
            ..Fate::default()
        });
        self.sent.len() - 1
    }

    pub(super) fn sent(&self, number: BatchNumber) -> &Rc<Sent> {
        &self.sent[number]
    }

    pub(super) fn is_acknowledged(&self, number: BatchNumber) -> bool {
        self.fates[number].acknowledged.is_some()
    }

    /// A topic gets another durability.
    pub(super) fn change_durability(&mut self, log: usize) {
        let log = &mut self.logs[log];
        log.memory = !log.memory;
        log.memory_once |= log.memory;
    }

    /// A batch is sent, perhaps once more.
    pub(super) fn sent_again(&mut self, number: BatchNumber) {
        self.fates[number].lost = false;
    }

    /// A producer was told where its batch is, and what would be left of it after a crash.
    pub(super) fn acknowledged(
        &mut self,
        number: BatchNumber,
        base: Offset,
        durability: Durability,
        now_ns: u64,
    ) -> Result<(), Broken> {
        let fate = &mut self.fates[number];
        let sent = &self.sent[number];
        let durable = durability == Durability::Fsync;
        ensure!(
            durable || self.logs[sent.log].memory_once,
            "batch {number} was acknowledged from memory, its topic is not of that durability"
        );
        ensure!(
            !fate.forbidden,
            "batch {number} was acknowledged although it is damaged or early"
        );
        for before in [fate.acknowledged, fate.found].into_iter().flatten() {
            ensure!(
                before == base,
                "batch {number} was acknowledged at offset {base}, it was at {before} before"
            );
        }
        if fate.acknowledged.is_none() {
            fate.acknowledged_ns = now_ns;
        }
        fate.acknowledged = Some(base);
        fate.durable |= durable;
        let log = &mut self.logs[sent.log];
        let end = base.plus(sent.records.into());
        log.acknowledged_end = log.acknowledged_end.max(end);
        if durable {
            log.durable_end = log.durable_end.max(end);
        }
        Ok(())
    }

    /// A clean stop is over: everything is on stable storage.
    pub(super) fn all_durable(&mut self) {
        for fate in &mut self.fates {
            fate.durable |= fate.acknowledged.is_some();
        }
        for log in &mut self.logs {
            log.durable_end = log.acknowledged_end;
        }
    }

    /// A broker starts on what is left.
    pub(super) fn crashed(&mut self) {
        self.lost = Lost::default();
        for log in &mut self.logs {
            log.may_lack = true;
        }
    }

    /// After a crash somebody hears for the first time where a log ends: what was acknowledged from
    /// memory behind it is lost, within the bounds, and nothing else. The producers that lack
    /// something, if anything is lost.
    pub(super) fn cut(
        &mut self,
        log: usize,
        end: Offset,
        bounds: &ShardConfig,
    ) -> Result<Option<BTreeSet<ProducerId>>, Broken> {
        let at = &mut self.logs[log];
        let told = at.watermark.max(at.acknowledged_end);
        if !std::mem::take(&mut at.may_lack) || told <= end {
            return Ok(None);
        }
        let mut losers = BTreeSet::new();
        for (number, fate) in self.fates.iter_mut().enumerate() {
            let sent = &self.sent[number];
            let place = fate.acknowledged.or(fate.found);
            if sent.log != log || place.is_none_or(|base| base < end) {
                continue;
            }
            ensure!(
                !fate.durable,
                "batch {number} is lost: it was said to be on stable storage"
            );
            if fate.acknowledged.is_some() {
                let at = fate.acknowledged_ns;
                self.lost.bytes += sent.bytes.len() as u64;
                let (first, last) = self.lost.span_ns.unwrap_or((at, at));
                self.lost.span_ns = Some((first.min(at), last.max(at)));
                losers.extend(sent.producer.map(|(id, _)| id));
            }
            *fate = Fate {
                lost: true,
                ..Fate::default()
            };
        }
        ensure!(
            self.lost.bytes <= bounds.unsynced_bytes_max,
            "{} bytes are lost that were acknowledged from memory, {} may be",
            self.lost.bytes,
            bounds.unsynced_bytes_max
        );
        let (first, last) = self.lost.span_ns.unwrap_or_default();
        ensure!(
            last - first <= bounds.unsynced_ns_max,
            "what was acknowledged from memory in {} ns is lost, {} may be",
            last - first,
            bounds.unsynced_ns_max
        );
        let log = &mut self.logs[log];
        log.watermark = end;
        log.acknowledged_end = log.acknowledged_end.min(end);
        drop(log.seen.split_off(&end));
        Ok(Some(losers))
    }

    /// Somebody was told how far readers may see.
    pub(super) fn told_watermark(&mut self, log: usize, watermark: Offset) -> Result<(), Broken> {
        let log = &mut self.logs[log];
        ensure!(
            watermark >= log.watermark,
            "{}: the high watermark went back from {} to {watermark}",
            log.log,
            log.watermark
        );
        ensure!(
            watermark >= log.acknowledged_end,
            "{}: the high watermark is {watermark}, {} was acknowledged",
            log.log,
            log.acknowledged_end
        );
        log.watermark = watermark;
        Ok(())
    }

    /// Somebody was told where a log begins.
    pub(super) fn told_start(&mut self, log: usize, start: Offset) -> Result<(), Broken> {
        let log = &mut self.logs[log];
        ensure!(
            start >= log.start,
            "{}: the first offset went back from {} to {start}",
            log.log,
            log.start
        );
        ensure!(
            start <= log.start_max,
            "{}: offset {start} is the first, nothing behind {} was to go",
            log.log,
            log.start_max
        );
        log.start = start;
        Ok(())
    }

    /// The checkpoints are gone: where the logs begin is what their first segments say, again.
    pub(super) fn forget_starts(&mut self) {
        for log in &mut self.logs {
            log.start = Offset(0);
        }
    }

    /// Whether a log may have lost its first segments.
    pub(super) fn is_trimmed(&self) -> bool {
        self.logs.iter().any(|log| log.start_max > Offset(0))
    }

    /// Checks batches that were handed out for a fetch at `wanted`: which they are, and the end of
    /// the last.
    pub(super) fn handed_out(
        &mut self,
        log: usize,
        wanted: Offset,
        watermark: Offset,
        bytes: &[u8],
    ) -> Result<HandedOut, Broken> {
        let mut rest = bytes;
        let mut out = HandedOut {
            end: wanted,
            ..HandedOut::default()
        };
        let mut next: Option<Offset> = None;
        while !rest.is_empty() {
            let batch = CheckedBatch::check(rest)
                .map_err(|error| format!("damaged bytes were handed out: {error}"))?;
            let header = *batch.header();
            let base = header.base_offset;
            let fits = match next {
                Some(next) => base == next,
                None => base <= wanted && wanted < header.next_offset(),
            };
            ensure!(
                fits,
                "a batch of offset {base} came where {:?} or {wanted} was due",
                next
            );
            ensure!(
                header.next_offset() <= watermark,
                "offset {base} was handed out, the high watermark is {watermark}"
            );
            out.batches.push((base, self.found(log, &batch)?));
            out.end = header.next_offset();
            out.last_epoch = Some(header.leader_epoch);
            next = Some(header.next_offset());
            rest = &rest[header.batch_bytes as usize..];
        }
        Ok(out)
    }

    /// A reader found a batch.
    fn found(&mut self, log: usize, batch: &CheckedBatch<'_>) -> Result<BatchNumber, Broken> {
        let header = batch.header();
        let base = header.base_offset;
        let mut number = None;
        for record in batch.records() {
            record
                .verify()
                .map_err(|error| format!("offset {base}: {error}"))?;
            number = number.or(Sent::number(record.key));
        }
        let number = number.filter(|&number| number < self.sent.len());
        let Some(number) = number else {
            return Err(format!("nobody sent what is at {base}"));
        };
        let sent = &self.sent[number];
        ensure!(
            sent.log == log,
            "batch {number} of another partition is at offset {base}"
        );
        let body = &batch.bytes()[LEADER_PART_BYTES..];
        ensure!(
            *body == *sent.body(),
            "batch {number} at offset {base} has other bytes"
        );
        let fate = &mut self.fates[number];
        ensure!(!fate.lost, "batch {number} was lost and is at {base}");
        ensure!(
            !fate.forbidden,
            "batch {number} is at {base} although it is damaged or early"
        );
        for before in [fate.acknowledged, fate.found].into_iter().flatten() {
            ensure!(
                before == base,
                "batch {number} is at {base}, it was at {before} before"
            );
        }
        fate.found = Some(base);
        self.logs[log].see(header, number)?;
        Ok(number)
    }

    /// After a restart the whole log was read from its start up to its end: nothing may be missing.
    pub(super) fn complete(
        &self,
        log: usize,
        batches: &[(Offset, BatchNumber)],
        end: Offset,
    ) -> Result<(), Broken> {
        let history = &self.logs[log];
        ensure!(
            end >= history.acknowledged_end,
            "acknowledged records are lost: the log ends at {end}, {} was acknowledged",
            history.acknowledged_end
        );
        ensure!(
            end >= history.watermark,
            "records that readers may have seen are lost: the log ends at {end}, readers were \
             told {}",
            history.watermark
        );
        let there: HashMap<BatchNumber, Offset> = batches
            .iter()
            .map(|&(base, number)| (number, base))
            .collect();
        for (number, fate) in self.fates.iter().enumerate() {
            if self.sent[number].log == log
                && let Some(base) = fate.acknowledged
                && base.plus(self.sent[number].records.into()) > history.start
            {
                let at = there.get(&number);
                ensure!(
                    at == Some(&base),
                    "batch {number}, acknowledged at {base}, is at {at:?}"
                );
            }
        }
        self.in_order(batches, history.start)
    }

    /// Each producer's batches stand in the order of their sequences, none missing but those that
    /// went with the log's first offsets.
    fn in_order(&self, batches: &[(Offset, BatchNumber)], start: Offset) -> Result<(), Broken> {
        let mut next: HashMap<ProducerId, Sequence> = HashMap::new();
        for &(base, number) in batches {
            let sent = &self.sent[number];
            let Some((id, sequence)) = sent.producer else {
                continue;
            };
            let wanted = next.get(&id).copied();
            let first = wanted.is_none() && start > Offset(0);
            let wanted = wanted.unwrap_or_default();
            ensure!(
                sequence == wanted || first,
                "producer {id}: sequence {sequence} is at offset {base} where {wanted} was due"
            );
            next.insert(id, sequence.plus(sent.records));
        }
        Ok(())
    }
}

impl LogHistory {
    fn see(&mut self, header: &BatchHeader, number: BatchNumber) -> Result<(), Broken> {
        let base = header.base_offset;
        ensure!(
            header.log_id == self.log.log_id(),
            "offset {base} has another log's name"
        );
        let seen = Seen {
            number,
            next: header.next_offset(),
            header_crc: header.header_crc,
            append_time_us: header.append_time_us,
            epoch: header.leader_epoch,
        };
        if let Some(before) = self.seen.get(&base) {
            ensure!(
                *before == seen,
                "offset {base} was {before:?} and is {seen:?}"
            );
            return Ok(());
        }
        if let Some((at, before)) = self.seen.range(..base).next_back() {
            ensure!(
                before.next <= base,
                "offset {base} lies inside the batch at {at}"
            );
            if before.next == base {
                follows(before, &seen, header.prev_header_crc, base)?;
            }
        } else if base == Offset(0) {
            let chain = header.prev_header_crc;
            ensure!(
                chain == 0,
                "the first batch follows another one ({chain:#x})"
            );
        }
        self.seen.insert(base, seen);
        Ok(())
    }

    /// The offset where readers have seen everything before, for a place to start in the middle.
    pub(super) fn seen_end(&self) -> Offset {
        self.seen
            .last_key_value()
            .map_or(Offset(0), |(_, seen)| seen.next)
    }

    /// Checks the answer to "the first record appended at or after this time".
    pub(super) fn check_since(&self, time_us: i64, offset: Offset) -> Result<(), Broken> {
        for (base, seen) in self.seen.range(self.start..) {
            let old = seen.append_time_us < time_us;
            ensure!(
                old == (*base < offset),
                "offset {offset} was named for time {time_us}, the batch at {base} is of {}",
                seen.append_time_us
            );
        }
        Ok(())
    }

    /// The append time of some batch that readers have seen.
    pub(super) fn some_time_us(&self, from: Offset) -> Option<i64> {
        self.seen
            .range(from..)
            .next()
            .map(|(_, seen)| seen.append_time_us)
    }
}

fn follows(before: &Seen, seen: &Seen, chain: u32, base: Offset) -> Result<(), Broken> {
    ensure!(
        chain == before.header_crc,
        "the batch at {base} doesn't follow the one before it: {chain:#x}, {:#x}",
        before.header_crc
    );
    ensure!(
        seen.epoch >= before.epoch && seen.append_time_us >= before.append_time_us,
        "epoch or append time goes back at {base}"
    );
    Ok(())
}
