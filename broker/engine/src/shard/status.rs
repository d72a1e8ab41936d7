//! What a shard says about its partitions when somebody asks.

use ringway_wire::{Offset, TopicPartition};

use crate::shard::Shard;
use crate::shard::partition::State;

/// One partition as its shard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub log: TopicPartition,
    /// "recovering", "ready", "full", "failed" or "deleting", with the reason.
    pub state: String,
    /// First offset that is still there.
    pub log_start: Offset,
    /// The offset after the last that readers may see.
    pub high_watermark: Offset,
    /// The offset after the last that was appended.
    pub log_end: Offset,
    /// Bytes of its batches on disk.
    pub log_bytes: u64,
}

impl Shard {
    /// Every partition that was handed over, in any order. Those that are not open have no offsets
    /// yet.
    pub fn statuses(&self) -> impl Iterator<Item = PartitionStatus> + '_ {
        let open = self
            .partitions
            .iter()
            .flatten()
            .map(|partition| PartitionStatus {
                log: partition.log,
                state: match &partition.state {
                    State::Ready => "ready".to_owned(),
                    State::Full => "full".to_owned(),
                    State::Failed(reason) => format!("failed: {reason}"),
                    State::Deleting => "deleting".to_owned(),
                },
                log_start: partition.log_start,
                high_watermark: partition.high_watermark(),
                log_end: partition.log_end,
                log_bytes: partition.log_bytes(),
            });
        let closed = self.opening.logs().map(|log| PartitionStatus {
            log,
            state: "recovering".to_owned(),
            log_start: Offset(0),
            high_watermark: Offset(0),
            log_end: Offset(0),
            log_bytes: 0,
        });
        open.chain(closed)
    }
}
