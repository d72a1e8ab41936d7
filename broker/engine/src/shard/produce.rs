//! Produce requests: from the checks at the door to the acknowledgement.

use ringway_wire::request::{
    Acks, Durability, ProduceReply, ProduceRequest, Reply, Request, StageTimes,
};
use ringway_wire::{ErrorCode, Fault, Offset, TopicPartition};

use crate::shard::delete::shutdown_fault;
use crate::shard::event::{Effect, Token};
use crate::shard::partition::{Appended, Partition, PendingAck};
use crate::shard::{Shard, Timer};
use crate::time::Now;

/// How often produce requests are looked through for those whose time ran out.
const ACK_SCAN_NS: u64 = 100_000_000;

/// When the stages of a round began and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundClock {
    pub(super) started_ns: u64,
    pub(super) written_ns: u64,
    pub(super) durable_ns: u64,
}

impl Shard {
    pub(super) fn request(
        &mut self,
        token: Token,
        received_ns: u64,
        request: &Request,
        data: &[u8],
        now: Now,
    ) {
        match request {
            Request::Produce(produce) => self.produce(token, received_ns, produce, data, now),
            Request::Fetch(fetch) => self.fetch(token, *fetch, now),
            Request::ListOffsets(list) => self.list_offsets(token, *list, now),
            Request::Trim(trim) => self.trim(token, *trim),
            _ => debug_assert!(false, "a driver routes other requests elsewhere"),
        }
    }

    /// The partition's place, or why it can't be used now.
    pub(super) fn find(&self, log: TopicPartition) -> Result<usize, Fault> {
        if let Some(&index) = self.by_log.get(&log) {
            return Ok(index);
        }
        if self.opening.has(log) {
            let message = format!("{log} is being recovered, try again in a moment");
            return Err(Fault::new(ErrorCode::PartitionRecovering, message));
        }
        let message = format!("this shard doesn't have {log}: refresh the metadata");
        Err(Fault::new(ErrorCode::NotLeader, message))
    }

    fn produce(
        &mut self,
        token: Token,
        received_ns: u64,
        request: &ProduceRequest,
        data: &[u8],
        now: Now,
    ) {
        let log = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let index = match self.find(log).and_then(|index| self.may_append(index)) {
            Ok(index) => index,
            Err(fault) => return self.produce_fault(token, request.acks, None, fault),
        };
        let partition = self.partitions[index]
            .as_deref_mut()
            .expect("it was just found");
        let (next_offset, base_offset, append_time_us) =
            match partition.append(data, now, &self.pool) {
                Err(fault) => {
                    return self.produce_fault(token, request.acks, Some(index), fault);
                }
                Ok(Appended::Duplicate {
                    base_offset,
                    next_offset,
                    append_time_us,
                }) => {
                    self.counters.duplicates += 1;
                    (next_offset, base_offset, append_time_us)
                }
                Ok(Appended::Batch {
                    base_offset,
                    next_offset,
                    append_time_us,
                    new_chunk,
                }) => {
                    if new_chunk {
                        self.evictable.push_back((index, base_offset));
                    }
                    self.counters.batches += 1;
                    self.counters.records += next_offset.0 - base_offset.0;
                    self.counters.append_bytes += data.len() as u64;
                    self.counters.pending_bytes += data.len() as u64;
                    (next_offset, base_offset, append_time_us)
                }
            };
        self.advance_stable(index, now);
        if request.acks != Acks::None {
            let ack = PendingAck {
                next_offset,
                base_offset,
                append_time_us,
                token,
                trace: request.trace,
                deadline_ns: now.mono_ns + u64::from(request.timeout_ms) * 1_000_000,
                received_ns,
                appended_ns: now.mono_ns,
            };
            self.acknowledge_when_stable(index, ack, now);
        }
        self.want_space(index, now);
        self.mark_dirty(index);
    }

    /// Whether the partition and the shard's memory take a batch now.
    fn may_append(&mut self, index: usize) -> Result<usize, Fault> {
        if self.draining() {
            return Err(shutdown_fault());
        }
        let partition = self.partitions[index]
            .as_deref()
            .expect("it was just found");
        if let Some(fault) = partition.append_fault() {
            return Err(fault);
        }
        if self.counters.pending_bytes >= self.config.pending_bytes_max as u64 {
            self.counters.overloaded += 1;
            let message = format!(
                "{} bytes wait for the disk already: send slower or try again",
                self.counters.pending_bytes
            );
            return Err(Fault::new(ErrorCode::Overloaded, message));
        }
        Ok(index)
    }

    fn acknowledge_when_stable(&mut self, index: usize, ack: PendingAck, now: Now) {
        let partition = self.partitions[index]
            .as_deref_mut()
            .expect("it was just found");
        if ack.next_offset <= partition.acknowledged_end() {
            let reply = produce_reply(partition, &ack, stages(&ack, None));
            self.reply(ack.token, reply);
            return;
        }
        partition.wait_stable(ack);
        if partition.acks_listed {
            return;
        }
        partition.acks_listed = true;
        if self.ack_waiting.is_empty() {
            self.timers.set(now.mono_ns + ACK_SCAN_NS, Timer::AckScan);
        }
        self.ack_waiting.push(index);
    }

    /// Answers every produce request whose batch has become durable in a round, or may be
    /// acknowledged without one.
    pub(super) fn acknowledge(&mut self, index: usize, clock: Option<RoundClock>) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        while let Some(ack) = partition.acks.front()
            && ack.next_offset <= partition.acknowledged_end()
        {
            let ack = partition.acks.pop_front().expect("there is a first");
            let stages = stages(&ack, clock);
            let reply = produce_reply(partition, &ack, stages);
            let token = ack.token;
            self.effects.push_back(Effect::Reply {
                token,
                reply,
                data: Vec::new(),
            });
        }
    }

    /// Answers the produce requests that wait at a partition for more than what is before an offset
    /// with a fault: whether their batches will be in the log is not known.
    pub(super) fn fail_acks(&mut self, index: usize, from: Offset, fault: &Fault) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let topic_epoch = partition.config.topic_epoch;
        let log_start = partition.log_start;
        let kept = partition
            .acks
            .partition_point(|ack| ack.next_offset <= from);
        for ack in partition.acks.split_off(kept) {
            let fault = Some(fault.clone());
            let reply = ProduceReply {
                fault,
                topic_epoch,
                log_start,
                ..ProduceReply::default()
            };
            self.reply(ack.token, Reply::Produce(reply));
        }
    }

    /// Answers the produce requests whose time ran out. A partition without any leaves the list
    /// here, so that it isn't touched at every acknowledgement.
    pub(super) fn scan_acks(&mut self, now: Now) {
        for index in std::mem::take(&mut self.ack_waiting) {
            let Some(partition) = self.partitions[index].as_deref_mut() else {
                continue;
            };
            let (log, topic_epoch) = (partition.log, partition.config.topic_epoch);
            let late = partition.late_acks(now.mono_ns);
            partition.acks_listed = !partition.acks.is_empty();
            if partition.acks_listed {
                self.ack_waiting.push(index);
            }
            for ack in late {
                let message = format!(
                    "the batch for {log} did not become durable in time; it may still: a retry \
                     with the same sequence is safe"
                );
                let reply = ProduceReply {
                    fault: Some(Fault::new(ErrorCode::TimedOut, message)),
                    topic_epoch,
                    ..ProduceReply::default()
                };
                self.reply(ack.token, Reply::Produce(reply));
            }
        }
        if !self.ack_waiting.is_empty() {
            self.timers.set(now.mono_ns + ACK_SCAN_NS, Timer::AckScan);
        }
    }

    fn produce_fault(&mut self, token: Token, acks: Acks, index: Option<usize>, fault: Fault) {
        if acks == Acks::None {
            return;
        }
        let partition = index.and_then(|index| self.partitions[index].as_deref());
        let topic_epoch = partition.map_or_else(Default::default, |at| at.config.topic_epoch);
        let reply = ProduceReply {
            fault: Some(fault),
            topic_epoch,
            ..ProduceReply::default()
        };
        self.reply(token, Reply::Produce(reply));
    }

    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.effects.push_back(Effect::Reply {
            token,
            reply,
            data: Vec::new(),
        });
    }
}

fn stages(ack: &PendingAck, clock: Option<RoundClock>) -> StageTimes {
    let received_ns = ack.appended_ns.saturating_sub(ack.received_ns);
    let Some(clock) = clock else {
        return StageTimes {
            received_ns,
            ..StageTimes::default()
        };
    };
    StageTimes {
        received_ns,
        // An ack of an earlier batch in a capped round may have come after the round began.
        queued_ns: clock.started_ns.saturating_sub(ack.appended_ns),
        written_ns: clock.written_ns - clock.started_ns,
        durable_ns: clock.durable_ns - clock.written_ns,
    }
}

fn produce_reply(partition: &Partition, ack: &PendingAck, stages: StageTimes) -> Reply {
    Reply::Produce(ProduceReply {
        fault: None,
        topic_epoch: partition.config.topic_epoch,
        base_offset: ack.base_offset,
        append_time_us: ack.append_time_us,
        log_start: partition.log_start,
        durability: match ack.next_offset <= partition.durable_end {
            true => Durability::Fsync,
            false => Durability::Memory,
        },
        stages: ack.trace.then_some(stages),
    })
}
