//! A batch as a consumer hands it out: checked once, inflated if it was compressed, read in place.
//! One of this crate's two files with `unsafe`: a checked view is kept beside the bytes that it
//! looks into.

use std::fmt;
use std::sync::Arc;

use ringway_wire::batch::{BatchError, BatchHeader, CheckedBatch, RecordView, Records};
use ringway_wire::request::TimestampSource;
use ringway_wire::{LeaderEpoch, Offset, PartitionIndex};

use crate::core::fetch::{FetchedBytes, Parcel};

/// Records of one partition, in their order, with no gap to the batch before. It owns its bytes:
/// keep it as long as you like, but note that the uncompressed batches of one reply share their
/// memory.
pub struct Batch {
    topic: Arc<str>,
    partition: PartitionIndex,
    from: Offset,
    high_watermark: Offset,
    /// Which time its records' timestamps are.
    timestamp: TimestampSource,
    /// Looks into `bytes`; its lifetime is a lie that never leaves this file.
    view: CheckedBatch<'static>,
    /// Keeps what `view` looks into.
    _bytes: FetchedBytes,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("from", &self.from)
            .field("header", self.header())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Checks an uncompressed batch; records below those wanted are left out.
    pub(crate) fn open(parcel: &Parcel) -> Result<Self, BatchError> {
        let bytes = Arc::clone(&parcel.bytes);
        Self::hold(parcel, bytes, |bytes| {
            CheckedBatch::check(&bytes[parcel.start..])
        })
    }

    /// Checks a batch that was inflated into `bytes`; else like [`Batch::open`].
    pub(crate) fn open_inflated(parcel: &Parcel, bytes: FetchedBytes) -> Result<Self, BatchError> {
        Self::hold(parcel, bytes, |bytes| CheckedBatch::check_inflated(bytes))
    }

    /// Keeps bytes and the view that `check` makes of them.
    fn hold(
        parcel: &Parcel,
        bytes: FetchedBytes,
        check: impl for<'a> FnOnce(&'a [u8]) -> Result<CheckedBatch<'a>, BatchError>,
    ) -> Result<Self, BatchError> {
        let view = check(&bytes)?;
        // SAFETY: the view borrows from the heap buffer of `bytes` (by its type from nothing that
        // lives shorter), which the same struct keeps alive through its `Arc`. Nobody changes or
        // moves that buffer meanwhile: an `Arc`'s content can only be changed through `get_mut`,
        // by its sole owner, and this struct is one of the owners. Every accessor shortens the
        // lifetime to that of `&self` before anything gets out.
        let view = unsafe { std::mem::transmute::<CheckedBatch<'_>, CheckedBatch<'static>>(view) };
        Ok(Self {
            topic: Arc::clone(&parcel.topic),
            partition: parcel.partition,
            from: parcel.from,
            high_watermark: parcel.high_watermark,
            timestamp: parcel.timestamp,
            view,
            _bytes: bytes,
        })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// First offset of [`Batch::records`].
    pub(crate) const fn from(&self) -> Offset {
        self.from
    }

    /// The offset after the last one that could be read when this batch was fetched.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The offset after this batch's last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.view.header().next_offset()
    }

    /// Epoch of the leader that appended the batch.
    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.view.header().leader_epoch
    }

    /// When the leader appended it, in microseconds since 1970.
    #[must_use]
    pub const fn append_time_us(&self) -> i64 {
        self.view.header().append_time_us
    }

    /// Every field of the batch's header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        self.view.header()
    }

    /// Bytes of the whole batch as it is stored, that is compressed, if it is.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.view.header().batch_bytes as usize
    }

    /// The records from the wanted offset on, in place. In a topic whose `timestamp` is `append`,
    /// the batch's append time stands in the place of their producer's.
    #[must_use]
    pub fn records(&self) -> BatchRecords<'_> {
        let view: &CheckedBatch<'_> = &self.view;
        let base = view.header().base_offset.0;
        let below = self.from.0.saturating_sub(base);
        let mut records = view.records();
        if below > 0 {
            let entries = view.entries();
            let skipped =
                entries.partition_point(|entry| u64::from(entry.offset_delta.to_native()) < below);
            if skipped > 0 {
                let _ = records.nth(skipped - 1);
            }
        }
        let append_time_us = match self.timestamp {
            TimestampSource::Producer => None,
            TimestampSource::Append => Some(self.append_time_us()),
        };
        BatchRecords {
            records,
            append_time_us,
        }
    }

    /// How many records [`Batch::records`] gives.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether there is none: where a log is compacted, those wanted may be gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = RecordView<'a>;
    type IntoIter = BatchRecords<'a>;

    fn into_iter(self) -> BatchRecords<'a> {
        self.records()
    }
}

/// Iterates over a batch's records in place.
#[derive(Clone, Debug)]
pub struct BatchRecords<'a> {
    records: Records<'a>,
    /// What is shown as their timestamp, if not their own.
    append_time_us: Option<i64>,
}

impl<'a> Iterator for BatchRecords<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        let mut record = self.records.next()?;
        if let Some(append_time_us) = self.append_time_us {
            record.timestamp_us = append_time_us;
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl ExactSizeIterator for BatchRecords<'_> {}
