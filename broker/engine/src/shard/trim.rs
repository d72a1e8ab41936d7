//! Trim: a partition's first offset is raised on request, to an offset or to that of a time.

use ringway_wire::request::{Reply, TrimBefore, TrimReply, TrimRequest};
use ringway_wire::{ErrorCode, Fault, Offset, TopicPartition};

use crate::shard::Shard;
use crate::shard::delete::shutdown_fault;
use crate::shard::event::Token;
use crate::shard::partition::Partition;
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
        let index = match self.find(log) {
            Ok(_) if self.draining() => Err(shutdown_fault()),
            found => found,
        };
        match (index, request.before) {
            (Err(fault), _) => self.reply(token, trim_fault(None, fault)),
            (Ok(index), TrimBefore::Offset(offset)) => self.trim_before(index, token, offset),
            (Ok(index), TrimBefore::AppendTimeUs(time_us)) => {
                let then = Then::Trim;
                self.find_time(index, token, TimeSearch { time_us, then });
            }
        }
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
            let reply = trim_fault(Some(partition), fault);
            return self.reply(token, reply);
        }
        let raised = offset > partition.log_start;
        if raised {
            partition.log_start = offset;
        }
        let reply = Reply::Trim(TrimReply {
            fault: None,
            topic_epoch: partition.config.topic_epoch,
            log_start: partition.log_start,
        });
        if raised {
            self.list_for_checkpoint(index);
        }
        self.reply(token, reply);
    }
}
