//! Fetch: batches of one partition from an offset on; and finding offsets.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::{LeaderEpoch, MetadataEpoch, Offset, PartitionIndex, TopicId};
use crate::request::Head;

/// Asks for batches; the reply waits until there is one or the time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// First offset wanted. The first batch of the reply may begin before it.
    pub offset: Offset,
    /// Leader epoch of the last batch that the reader has, so that it learns when the log was cut
    /// behind it; `None` before the first.
    pub last_epoch: Option<LeaderEpoch>,
    /// Bytes of batches wanted at most; one whole batch comes even if it is larger.
    pub bytes_max: u32,
    /// Records wanted at most, in whole batches; one whole batch comes even if it has more.
    /// 0 is no limit.
    pub records_max: u32,
    /// Milliseconds to wait for the first batch; 0 answers at once.
    pub wait_ms: u32,
}

fn illegal<T>(field: &'static str, value: u64) -> Result<T, DecodeError> {
    Err(DecodeError::Illegal { field, value })
}

fn encode_epoch(epoch: Option<LeaderEpoch>, out: &mut Writer) {
    out.flag(epoch.is_some());
    out.u32(epoch.unwrap_or_default().0);
}

fn decode_epoch(reader: &mut Reader<'_>) -> Result<Option<LeaderEpoch>, DecodeError> {
    let some = reader.flag("last_epoch")?;
    let epoch = LeaderEpoch(reader.u32("last_epoch")?);
    if !some && epoch.0 != 0 {
        return illegal("last_epoch", epoch.0.into());
    }
    Ok(some.then_some(epoch))
}

impl Head for FetchRequest {
    fn encode(&self, out: &mut Writer) {
        out.u128(self.topic.0);
        out.u32(self.partition.0);
        out.u64(self.offset.0);
        encode_epoch(self.last_epoch, out);
        out.u32(self.bytes_max);
        out.u32(self.records_max);
        out.u32(self.wait_ms);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: TopicId(reader.u128("topic")?),
            partition: PartitionIndex(reader.u32("partition")?),
            offset: Offset(reader.u64("offset")?),
            last_epoch: decode_epoch(reader)?,
            bytes_max: reader.u32("bytes_max")?,
            records_max: reader.u32("records_max")?,
            wait_ms: reader.u32("wait_ms")?,
        })
    }
}

/// Whole batches in the frame's data, or why there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchReply {
    /// Why there are no batches, if so.
    pub fault: Option<Fault>,
    /// Counts the changes of the topic: a larger one than the client knows means refresh.
    pub topic_epoch: MetadataEpoch,
    /// Epoch of the leader that answers.
    pub leader_epoch: LeaderEpoch,
    /// First offset that the partition still has.
    pub log_start: Offset,
    /// The offset after the last one that readers may see.
    pub high_watermark: Offset,
    /// With `log_truncated`: the reader has bytes beyond this offset that are gone; read on from
    /// here. With `damaged_batch`: the first offset after the damage. Else 0.
    pub safe_offset: Offset,
}

impl Head for FetchReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.topic_epoch.0);
        out.u32(self.leader_epoch.0);
        out.u64(self.log_start.0);
        out.u64(self.high_watermark.0);
        out.u64(self.safe_offset.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic_epoch: MetadataEpoch(reader.u64("topic_epoch")?),
            leader_epoch: LeaderEpoch(reader.u32("leader_epoch")?),
            log_start: Offset(reader.u64("log_start")?),
            high_watermark: Offset(reader.u64("high_watermark")?),
            safe_offset: Offset(reader.u64("safe_offset")?),
        })
    }
}

/// A place in a partition that isn't an offset yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first record that is still there.
    #[default]
    Start,
    /// After the last record that readers may see.
    End,
    /// The first record appended at or after this time, in microseconds since 1970; the end if
    /// there is none.
    AppendTimeUs(i64),
}

/// Finds the offset of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOffsetsRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The place.
    pub at: OffsetAt,
}

impl Head for ListOffsetsRequest {
    fn encode(&self, out: &mut Writer) {
        out.u128(self.topic.0);
        out.u32(self.partition.0);
        let (place, time_us) = match self.at {
            OffsetAt::Start => (0, 0),
            OffsetAt::End => (1, 0),
            OffsetAt::AppendTimeUs(time_us) => (2, time_us),
        };
        out.u8(place);
        out.i64(time_us);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let topic = TopicId(reader.u128("topic")?);
        let partition = PartitionIndex(reader.u32("partition")?);
        let place = reader.u8("at")?;
        let time_us = reader.i64("time_us")?;
        let at = match (place, time_us) {
            (0, 0) => OffsetAt::Start,
            (1, 0) => OffsetAt::End,
            (2, time_us) => OffsetAt::AppendTimeUs(time_us),
            (0 | 1, time_us) => return illegal("time_us", time_us as u64),
            (place, _) => return illegal("at", place.into()),
        };
        Ok(Self {
            topic,
            partition,
            at,
        })
    }
}

/// The offset of the place, and the ends of the partition beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOffsetsReply {
    /// Why there is none, if so.
    pub fault: Option<Fault>,
    /// Counts the changes of the topic.
    pub topic_epoch: MetadataEpoch,
    /// Epoch of the leader that answers.
    pub leader_epoch: LeaderEpoch,
    /// The offset asked for.
    pub offset: Offset,
    /// First offset that the partition still has.
    pub log_start: Offset,
    /// The offset after the last one that readers may see.
    pub high_watermark: Offset,
    /// Bytes of the partition's batches on disk.
    pub log_bytes: u64,
}

impl Head for ListOffsetsReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u64(self.topic_epoch.0);
        out.u32(self.leader_epoch.0);
        out.u64(self.offset.0);
        out.u64(self.log_start.0);
        out.u64(self.high_watermark.0);
        out.u64(self.log_bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            topic_epoch: MetadataEpoch(reader.u64("topic_epoch")?),
            leader_epoch: LeaderEpoch(reader.u32("leader_epoch")?),
            offset: Offset(reader.u64("offset")?),
            log_start: Offset(reader.u64("log_start")?),
            high_watermark: Offset(reader.u64("high_watermark")?),
            log_bytes: reader.u64("log_bytes")?,
        })
    }
}
