//! Trim: a partition's first offset is raised on request, to an offset or to that of a time.
//! Answered once that is durable, so that no crash brings the records back.

use ringway_wire::request::{Reply, TrimBefore, TrimReply, TrimRequest};
use ringway_wire::{ErrorCode, Fault, Offset, TopicPartition};

use crate::shard::Shard;
use crate::shard::delete::shutdown_fault;
use crate::shard::event::Token;
use crate::shard::partition::{Partition, PendingTrim};
use crate::shard::seek::{Then, TimeSearch};

/// The reply to a trim that can't be done.
pub(super) fn trim_fault(partition: Option<&Partition>, fault: Fault) -> Reply {
    Reply::Trim(TrimReply {
        fault: Some(fault),
        topic_epoch: partition.map_or_else(Default::default, |at| at.config.topic_epoch),
        log_start: partition.map_or(Offset(0), |at| at.log_start),
    })
}

impl Shard {
    pub(super) fn trim(&mut self, token: Token, request: TrimRequest) {
        let log = TopicPartition {
            topic: request.topic,
            partition: request.partition,
        };
        let index = self.find(log).and_then(|index| self.may_trim(index));
        match (index, request.before) {
            (Err(fault), _) => self.reply(token, trim_fault(None, fault)),
            (Ok(index), TrimBefore::Offset(offset)) => self.trim_before(index, token, offset),
            (Ok(index), TrimBefore::AppendTimeUs(time_us)) => {
                let then = Then::Trim;
                self.find_time(index, token, TimeSearch { time_us, then });
            }
        }
    }

    /// Whether a later first offset can be made durable now.
    fn may_trim(&self, index: usize) -> Result<usize, Fault> {
        if self.draining() {
            return Err(shutdown_fault());
        }
        let partition = self.partitions[index].as_deref();
        partition
            .and_then(Partition::failed_fault)
            .map_or(Ok(index), Err)
    }

    /// What is before an offset goes.
    pub(super) fn trim_before(&mut self, index: usize, token: Token, offset: Offset) {
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        let high_watermark = partition.high_watermark();
        if offset > high_watermark {
            let message = format!(
                "{} ends at offset {high_watermark}: it can't be trimmed to {offset}",
                partition.log
            );
            let fault = Fault::new(ErrorCode::OffsetOutOfRange, message);
            return self.refuse_trim(index, token, fault);
        }
        // A read of the disk may have come between the request and this.
        if let Err(fault) = self.may_trim(index) {
            return self.refuse_trim(index, token, fault);
        }
        let partition = self.partitions[index].as_deref_mut().expect("it exists");
        partition.trims.push(PendingTrim { token, to: offset });
        if offset <= partition.log_start {
            return self.answer_trims(index);
        }
        if offset > partition.durable_end {
            // Shown from memory only: it is written first.
            return self.mark_dirty_now(index);
        }
        self.want_start(index, offset);
        self.checkpointing.make_due();
    }

    /// More is durable: perhaps up to where somebody wants the log to start.
    pub(super) fn advance_trims(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref() else {
            return;
        };
        let durable = partition.trims.iter().map(|trim| trim.to);
        let durable = durable.filter(|&to| to <= partition.durable_end).max();
        if let Some(to) = durable.filter(|&to| to > partition.start_wanted) {
            self.want_start(index, to);
            self.checkpointing.make_due();
        }
    }

    fn refuse_trim(&mut self, index: usize, token: Token, fault: Fault) {
        let partition = self.partitions[index].as_deref();
        let reply = trim_fault(partition, fault);
        self.reply(token, reply);
    }

    /// Answers the requests whose first offset is durable.
    pub(super) fn answer_trims(&mut self, index: usize) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        let log_start = partition.log_start;
        let topic_epoch = partition.config.topic_epoch;
        let over = partition.trims.extract_if(.., |trim| trim.to <= log_start);
        for trim in over.collect::<Vec<_>>() {
            let reply = TrimReply {
                fault: None,
                topic_epoch,
                log_start,
            };
            self.reply(trim.token, Reply::Trim(reply));
        }
    }

    /// Answers every request that waits with a fault: which offset will be the first is not known.
    pub(super) fn fail_trims(&mut self, index: usize, fault: &Fault) {
        let Some(partition) = self.partitions[index].as_deref_mut() else {
            return;
        };
        for trim in std::mem::take(&mut partition.trims) {
            self.refuse_trim(index, trim.token, fault.clone());
        }
    }
}
