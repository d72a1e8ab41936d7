//! Trim: a partition's oldest records go before retention would take them.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::{MetadataEpoch, Offset, PartitionIndex, TopicId};
use crate::request::Head;

/// Where the records that stay begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimBefore {
    /// At this offset; not above the high watermark.
    Offset(Offset),
    /// At the first record appended at or after this time, in microseconds since 1970; at the high
    /// watermark if there is none.
    AppendTimeUs(i64),
}

impl Default for TrimBefore {
    fn default() -> Self {
        Self::Offset(Offset(0))
    }
}

/// Removes the records before a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The place.
    pub before: TrimBefore,
}

impl Head for TrimRequest {
    fn encode(&self, out: &mut Writer) {
        out.u128(self.topic.0);
        out.u32(self.partition.0);
        match self.before {
            TrimBefore::Offset(offset) => {
                out.u8(0);
                out.u64(offset.0);
            }
            TrimBefore::AppendTimeUs(time_us) => {
                out.u8(1);
                out.i64(time_us);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let topic = TopicId(reader.u128("topic")?);
        let partition = PartitionIndex(reader.u32("partition")?);
        let before = match reader.flag("at")? {
            false => TrimBefore::Offset(Offset(reader.u64("offset")?)),
            true => TrimBefore::AppendTimeUs(reader.i64("time_us")?),
        };
        Ok(Self {
            topic,
            partition,
            before,
        })
    }
}

/// Where the partition begins now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrimReply {
    /// Why nothing was removed, if so.
    pub fault: Option<Fault>,
    /// Counts the changes of the topic.
    pub topic_epoch: MetadataEpoch,
    /// First offset that the partition has from now on, also after any crash.
    pub log_start: Offset,
}

impl Head for TrimReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.topic_epoch.0);
        out.u64(self.log_start.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic_epoch: MetadataEpoch(reader.u64("topic_epoch")?),
            log_start: Offset(reader.u64("log_start")?),
        })
    }
}
