//! What clients make of the answers, and which answers are broken promises.

use ringway_engine::buffer::Slice;
use ringway_wire::batch::BatchBytes;
use ringway_wire::request::{
    Durability, FetchReply, ListOffsetsReply, OffsetAt, ProduceReply, Reply, TrimBefore, TrimReply,
};
use ringway_wire::{ErrorCode, Fault, Offset};

use crate::log::batch::BatchNumber;
use crate::log::history::{Broken, HandedOut, ensure};
use crate::log::node::Node;

/// Whose answer is due.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A producer's; `first`: everything before the batch was acknowledged when it was sent.
    Produce {
        producer: usize,
        number: BatchNumber,
        first: bool,
    },
    /// Nobody may accept this one.
    Forbidden {
        number: BatchNumber,
    },
    Fetch {
        reader: usize,
        offset: Offset,
    },
    /// A fetch of what can't be there.
    Beyond {
        log: usize,
    },
    List {
        log: usize,
        at: OffsetAt,
    },
    Trim {
        log: usize,
        before: TrimBefore,
    },
    /// A check's own fetch, then its answer.
    Audit {
        log: usize,
        offset: Offset,
    },
    Audited {
        answer: Result<(HandedOut, Offset), (Fault, Offset)>,
    },
}

fn code_of(reply: &FetchReply) -> Option<ErrorCode> {
    reply.fault.as_ref().map(|fault| fault.code)
}

impl Waiting {
    /// Whether a producer waits.
    pub(super) const fn is_producers(&self) -> bool {
        matches!(self, Self::Produce { .. } | Self::Forbidden { .. })
    }
}

impl Node {
    pub(super) fn reply(
        &mut self,
        correlation: u32,
        reply: Reply,
        data: &[Slice],
    ) -> Result<(), Broken> {
        let Some(waiting) = self.waiting.remove(&correlation) else {
            // A reader's that hung up, or a second answer.
            let of_reader = matches!(
                reply,
                Reply::Fetch(_) | Reply::ListOffsets(_) | Reply::Trim(_)
            );
            ensure!(
                of_reader,
                "request {correlation} was answered twice, or never made: {reply:?}"
            );
            return Ok(());
        };
        match (waiting, reply) {
            (
                Waiting::Produce {
                    producer,
                    number,
                    first,
                },
                Reply::Produce(reply),
            ) => self.produced(producer, number, first, &reply),
            (Waiting::Forbidden { number }, Reply::Produce(reply)) => {
                ensure!(
                    reply.fault.is_some(),
                    "batch {number} was accepted: it is damaged or early"
                );
                self.coverage.hit("forbidden batch refused");
                if let Some(fault) = &reply.fault {
                    self.count_fault(fault.code);
                }
                Ok(())
            }
            (Waiting::Fetch { reader, offset }, Reply::Fetch(reply)) => {
                self.fetched(reader, offset, &reply, data)
            }
            (Waiting::Beyond { log }, Reply::Fetch(reply)) => self.refused(log, &reply),
            (Waiting::List { log, at }, Reply::ListOffsets(reply)) => self.listed(log, at, &reply),
            (Waiting::Trim { log, before }, Reply::Trim(reply)) => {
                self.trimmed(log, before, &reply)
            }
            (Waiting::Audit { log, offset }, Reply::Fetch(reply)) => {
                self.told_start(log, &reply)?;
                let answer = match reply.fault {
                    Some(fault) => Err((fault, reply.safe_offset)),
                    None => {
                        let watermark = reply.high_watermark;
                        Ok((self.take(log, offset, watermark, data)?, watermark))
                    }
                };
                self.waiting
                    .insert(correlation, Waiting::Audited { answer });
                Ok(())
            }
            (waiting, reply) => Err(format!("{waiting:?} was answered with {reply:?}")),
        }
    }

    /// Checks batches that were handed out.
    fn take(
        &mut self,
        log: usize,
        wanted: Offset,
        watermark: Offset,
        data: &[Slice],
    ) -> Result<HandedOut, Broken> {
        if !self.damage_expected {
            self.cut(log, watermark)?;
            self.world.history.told_watermark(log, watermark)?;
        }
        let mut bytes = BatchBytes::new();
        for slice in data {
            bytes.extend_from_slice(slice);
        }
        self.world
            .history
            .handed_out(log, wanted, watermark, &bytes)
    }

    /// Whether a fault is no surprise whoever gets it.
    fn excused(&self, log: usize, code: ErrorCode) -> bool {
        let deleted = self.world.history.logs[log].deleted;
        match code {
            ErrorCode::UnknownTopic | ErrorCode::NotLeader => deleted,
            ErrorCode::Overloaded | ErrorCode::TimedOut | ErrorCode::PartitionRecovering => true,
            ErrorCode::StorageFull => {
                self.profile.failures.full > 0 || self.profile.device.capacity_bytes < u64::MAX
            }
            ErrorCode::StorageFailed => self.profile.has_failures(),
            ErrorCode::ShuttingDown => self.drained,
            _ => false,
        }
    }

    fn produced(
        &mut self,
        index: usize,
        number: BatchNumber,
        first: bool,
        reply: &ProduceReply,
    ) -> Result<(), Broken> {
        let log = self.world.producers[index].log;
        self.world.producers[index].answered(number);
        let Some(fault) = &reply.fault else {
            let again = self.world.history.is_acknowledged(number);
            self.coverage.hit(if again {
                "acknowledged again"
            } else {
                "acknowledged"
            });
            if self.world.history.sent(number).bytes.len() > 256 << 10 {
                self.coverage.hit("large batch");
            }
            self.count_durability(log, reply.durability);
            let (base, now_ns) = (reply.base_offset, self.world.now.mono_ns);
            let history = &mut self.world.history;
            history.acknowledged(number, base, reply.durability, now_ns)?;
            if !self.damage_expected {
                self.allow_retention(log);
                self.world.history.told_start(log, reply.log_start)?;
            }
            self.world.producers[index].acknowledge(number);
            return Ok(());
        };
        let late = matches!(
            fault.code,
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer
        );
        ensure!(
            self.excused(log, fault.code) || (late && !first),
            "batch {number} was refused: {fault}"
        );
        self.count_fault(fault.code);
        if !self.world.history.is_acknowledged(number) {
            let producer = &mut self.world.producers[index];
            producer.resend |= producer.window.iter().any(|at| at.number == number);
        }
        Ok(())
    }

    /// A log's end is told: after a crash, for the first time.
    fn cut(&mut self, log: usize, end: Offset) -> Result<(), Broken> {
        let history = &mut self.world.history;
        let Some(losers) = history.cut(log, end, &self.profile.shard)? else {
            return Ok(());
        };
        if !losers.is_empty() {
            self.coverage.hit("acknowledged from memory and lost");
        }
        for index in 0..self.world.producers.len() {
            let id = self.world.producers[index].id;
            if id.is_some_and(|id| losers.contains(&id)) {
                let id = self.world.new_producer();
                self.world.producers[index].begin_again(id);
            }
        }
        for reader in &mut self.world.readers {
            if reader.log != log || reader.offset <= end {
                continue;
            }
            match reader.last_epoch {
                Some(_) => reader.cut = Some(reader.cut.unwrap_or(end).min(end)),
                None => reader.offset = end,
            }
        }
        Ok(())
    }

    fn count_durability(&self, log: usize, durability: Durability) {
        match durability {
            Durability::Memory => self.coverage.hit("acknowledged from memory"),
            Durability::Fsync if self.world.history.logs[log].memory => {
                self.coverage
                    .hit("acknowledged beyond the bounds of memory");
            }
            Durability::Fsync => {}
        }
    }

    fn count_fault(&self, code: ErrorCode) {
        match code {
            ErrorCode::Overloaded => self.coverage.hit("overloaded"),
            ErrorCode::TimedOut => self.coverage.hit("answered late"),
            ErrorCode::StorageFailed => self.coverage.hit("storage failed"),
            ErrorCode::OutOfOrderSequence => self.coverage.hit("out of order refused"),
            _ => {}
        }
    }

    fn fetched(
        &mut self,
        index: usize,
        offset: Offset,
        reply: &FetchReply,
        data: &[Slice],
    ) -> Result<(), Broken> {
        self.world.readers[index].waiting = false;
        let log = self.world.readers[index].log;
        self.told_start(log, reply)?;
        let cut = self.world.readers[index].cut;
        if let (Some(cut), Some(ErrorCode::LogTruncated)) = (cut, code_of(reply)) {
            ensure!(
                reply.safe_offset <= cut,
                "a reader at {offset} was told to go on at {}, the log was cut at {cut}",
                reply.safe_offset
            );
            self.coverage.hit("reader told of a cut");
            let reader = &mut self.world.readers[index];
            (reader.offset, reader.last_epoch, reader.cut) = (reply.safe_offset, None, None);
            return Ok(());
        }
        if let Some(fault) = &reply.fault {
            if fault.code == ErrorCode::OffsetOutOfRange && offset < reply.log_start {
                self.coverage.hit("read before the start");
                ensure!(
                    reply.safe_offset == reply.log_start,
                    "a fetch at {offset} is to go on at {}, the log starts at {}",
                    reply.safe_offset,
                    reply.log_start
                );
                let reader = &mut self.world.readers[index];
                (reader.offset, reader.last_epoch) = (reply.safe_offset, None);
                return Ok(());
            }
            ensure!(
                self.excused(log, fault.code),
                "a fetch at {offset} failed: {fault}"
            );
            return Ok(());
        }
        ensure!(
            cut.is_none(),
            "a reader at {offset} isn't told that the log was cut at {cut:?}"
        );
        let out = self.take(log, offset, reply.high_watermark, data)?;
        let reader = &mut self.world.readers[index];
        reader.offset = out.end;
        reader.last_epoch = out.last_epoch.or(reader.last_epoch);
        Ok(())
    }

    /// A fetch's answer tells where the log starts, unless there is none.
    fn told_start(&mut self, log: usize, reply: &FetchReply) -> Result<(), Broken> {
        let code = reply.fault.as_ref().map(|fault| fault.code);
        let told = matches!(code, None | Some(ErrorCode::OffsetOutOfRange));
        if !told || self.damage_expected || self.world.history.logs[log].deleted {
            return Ok(());
        }
        self.allow_retention(log);
        self.world.history.told_start(log, reply.log_start)
    }

    /// What is durable may go by retention.
    pub(super) fn allow_retention(&mut self, log: usize) {
        if self.profile.has_retention() {
            self.world.history.logs[log].start_max = Offset(u64::MAX);
        }
    }

    fn trimmed(&mut self, log: usize, before: TrimBefore, reply: &TrimReply) -> Result<(), Broken> {
        let history = &self.world.history.logs[log];
        if let Some(fault) = &reply.fault {
            let beyond = match before {
                TrimBefore::Offset(offset) => offset > history.watermark,
                TrimBefore::AppendTimeUs(_) => false,
            };
            let out = fault.code == ErrorCode::OffsetOutOfRange;
            ensure!(
                (out && beyond) || self.excused(log, fault.code),
                "a trim of {before:?} failed: {fault}"
            );
            return Ok(());
        }
        if history.deleted || self.damage_expected {
            return Ok(());
        }
        if let TrimBefore::Offset(offset) = before {
            ensure!(
                reply.log_start >= offset,
                "{} was trimmed to {offset} and starts at {}",
                history.log,
                reply.log_start
            );
        }
        self.coverage.hit("trimmed");
        self.world.history.told_start(log, reply.log_start)
    }

    fn refused(&self, log: usize, reply: &FetchReply) -> Result<(), Broken> {
        let code = reply.fault.as_ref().map(|fault| fault.code);
        let right = code == Some(ErrorCode::OffsetOutOfRange);
        let excused = code.is_some_and(|code| self.excused(log, code));
        ensure!(
            right || excused,
            "a fetch far beyond the end was answered with {reply:?}"
        );
        Ok(())
    }

    fn listed(&mut self, log: usize, at: OffsetAt, reply: &ListOffsetsReply) -> Result<(), Broken> {
        if let Some(fault) = &reply.fault {
            ensure!(
                self.excused(log, fault.code),
                "list offsets failed: {fault}"
            );
            return Ok(());
        }
        if self.world.history.logs[log].deleted {
            return Ok(());
        }
        self.world
            .history
            .told_watermark(log, reply.high_watermark)?;
        self.allow_retention(log);
        self.world.history.told_start(log, reply.log_start)?;
        match at {
            OffsetAt::Start => ensure!(
                reply.offset == reply.log_start,
                "the log starts at {}, not at {}",
                reply.log_start,
                reply.offset
            ),
            OffsetAt::End => {
                ensure!(
                    reply.offset == reply.high_watermark,
                    "the log ends at {}",
                    reply.offset
                );
            }
            OffsetAt::AppendTimeUs(time_us) => {
                self.world.history.logs[log].check_since(time_us, reply.offset)?;
            }
        }
        Ok(())
    }
}
