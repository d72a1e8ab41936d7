//! The leader epochs of a partition and where each began. By comparing (epoch, end offset) a
//! reader or a replica finds where its history and the log's part.

use ringway_wire::{DecodeError, LeaderEpoch, Offset, Reader, Writer};

use crate::log::codec::{count, illegal, put_varint, varint_after};
use crate::log::limits::EPOCHS_MAX;

/// An epoch and the offset of the first record appended in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first record, or the log's end while it has none.
    pub first_offset: Offset,
}

/// An epoch that doesn't follow the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {} at offset {} doesn't follow epoch {} at offset {}",
    .wanted.epoch, .wanted.first_offset, .latest.epoch, .latest.first_offset
)]
pub struct EpochNotNewer {
    /// The epoch to be opened.
    pub wanted: EpochStart,
    /// The latest one.
    pub latest: EpochStart,
}

/// Epochs in rising order; their first offsets rise too, so an epoch without a record is replaced
/// by the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    /// No epoch yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { starts: Vec::new() }
    }

    /// Opens `epoch` at `first_offset`, the log's end. The latest epoch, opened again at the same
    /// offset, changes nothing. An epoch that has no record yet is replaced: its records would
    /// begin and end at `first_offset`, as the one's before it end there.
    ///
    /// Beyond [`EPOCHS_MAX`] the oldest becomes part of its successor, which then seems to begin
    /// earlier than it did; a reader of the forgotten epoch is sent back too far, never too little.
    ///
    /// # Errors
    /// [`EpochNotNewer`] when the epoch isn't newer than the latest or the offset is before the
    /// latest's first.
    pub fn open(&mut self, epoch: LeaderEpoch, first_offset: Offset) -> Result<(), EpochNotNewer> {
        let wanted = EpochStart {
            epoch,
            first_offset,
        };
        if let Some(latest) = self.starts.last_mut() {
            if *latest == wanted {
                return Ok(());
            }
            if latest.epoch >= epoch || latest.first_offset > first_offset {
                return Err(EpochNotNewer {
                    wanted,
                    latest: *latest,
                });
            }
            if latest.first_offset == first_offset {
                *latest = wanted;
                return Ok(());
            }
        }
        self.starts.push(wanted);
        if self.starts.len() > EPOCHS_MAX {
            self.starts[1].first_offset = self.starts[0].first_offset;
            self.starts.remove(0);
        }
        Ok(())
    }

    /// Tells of a batch read from the log: its epoch is opened if it is newer than the latest.
    pub fn observe(&mut self, epoch: LeaderEpoch, base_offset: Offset) {
        if self.latest().is_none_or(|latest| latest.epoch < epoch) {
            // An older epoch can't have begun behind this batch; if it says so, it had no record.
            self.truncate(base_offset);
            let opened = self.open(epoch, base_offset);
            debug_assert!(opened.is_ok(), "{opened:?}");
        }
    }

    /// The latest epoch and its first offset.
    #[must_use]
    pub fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// Where the records of `epoch` end in a log that ends at `log_end`: the end offset of the
    /// largest known epoch up to `epoch`. For an epoch older than all known ones it is the first
    /// offset of the oldest: what such a reader saw below it may stand, nothing above does.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Offset {
        let newer = self.starts.partition_point(|start| start.epoch <= epoch);
        let end = self.starts.get(newer).map(|next| next.first_offset);
        end.unwrap_or(log_end).min(log_end)
    }

    /// The epoch that the record at `offset` was appended in, if it is known.
    #[must_use]
    pub fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self
            .starts
            .partition_point(|start| start.first_offset <= offset);
        after.checked_sub(1).map(|index| self.starts[index].epoch)
    }

    /// Forgets every epoch that begins at or behind `to`: the log now ends there.
    pub fn truncate(&mut self, to: Offset) {
        let kept = self.starts.partition_point(|start| start.first_offset < to);
        self.starts.truncate(kept);
    }

    /// Forgets the epochs whose records all lie below `log_start`; the one at `log_start` now
    /// begins there.
    pub fn forget_before(&mut self, log_start: Offset) {
        let begun = self
            .starts
            .partition_point(|start| start.first_offset <= log_start);
        if begun > 0 {
            self.starts.drain(..begun - 1);
            self.starts[0].first_offset = log_start;
        }
    }

    /// Writes the count, then each epoch's distance from the one before: epoch, first offset.
    pub fn encode(&self, out: &mut Writer) {
        put_varint(out, self.starts.len() as u64);
        let mut last = (0, 0);
        for start in &self.starts {
            put_varint(out, u64::from(start.epoch.0) - last.0);
            put_varint(out, start.first_offset.0 - last.1);
            last = (start.epoch.0.into(), start.first_offset.0);
        }
    }

    /// Reads what [`Epochs::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end early, there are too many, or epochs or offsets don't
    /// rise.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = count(reader, 2, EPOCHS_MAX, "epoch count")?;
        let mut starts = Vec::with_capacity(count);
        let mut last = (0, 0);
        for ordinal in 0..count {
            let least = u64::from(ordinal > 0);
            let epoch = varint_after(reader, last.0, least, "epoch")?;
            let first_offset = varint_after(reader, last.1, least, "first offset of an epoch")?;
            last = (epoch, first_offset);
            let Ok(epoch) = u32::try_from(epoch) else {
                return illegal("epoch", epoch);
            };
            starts.push(EpochStart {
                epoch: LeaderEpoch(epoch),
                first_offset: Offset(first_offset),
            });
        }
        Ok(Self { starts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(starts: &[(u32, u64)]) -> Epochs {
        let mut epochs = Epochs::new();
        for &(epoch, first_offset) in starts {
            epochs
                .open(LeaderEpoch(epoch), Offset(first_offset))
                .unwrap();
        }
        epochs
    }

    fn decoded(epochs: &Epochs) -> Epochs {
        let mut out = Writer::default();
        epochs.encode(&mut out);
        let bytes = out.into_bytes();
        let mut reader = Reader::new(&bytes);
        let decoded = Epochs::decode(&mut reader).unwrap();
        reader.finish().unwrap();
        decoded
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        let epochs = opened(&[(1, 0), (2, 10), (3, 10), (3, 10), (5, 20)]);
        assert_eq!(epochs, opened(&[(1, 0), (3, 10), (5, 20)]));
        assert_eq!(epochs.end_of(LeaderEpoch(2), Offset(25)), Offset(10));
        assert_eq!(epochs.end_of(LeaderEpoch(4), Offset(25)), Offset(20));
        assert_eq!(epochs.end_of(LeaderEpoch(5), Offset(25)), Offset(25));
        assert_eq!(epochs.end_of(LeaderEpoch(0), Offset(25)), Offset(0));
        assert_eq!(epochs.of(Offset(19)), Some(LeaderEpoch(3)));
        assert_eq!(epochs.of(Offset(20)), Some(LeaderEpoch(5)));
    }

    #[test]
    fn going_back_is_refused() {
        let mut epochs = opened(&[(4, 10)]);
        for (epoch, offset) in [(4, 11), (3, 11), (5, 9)] {
            let refused = epochs.open(LeaderEpoch(epoch), Offset(offset));
            assert!(refused.is_err(), "{epoch} at {offset}");
        }
        assert_eq!(epochs, opened(&[(4, 10)]));
    }

    #[test]
    fn a_forgotten_epoch_sends_its_reader_back_too_far_and_never_too_little() {
        let mut epochs = Epochs::new();
        for epoch in 0..EPOCHS_MAX as u32 + 10 {
            epochs
                .open(LeaderEpoch(epoch), Offset(u64::from(epoch) * 10))
                .unwrap();
        }
        assert_eq!(epochs.starts().len(), EPOCHS_MAX);
        assert_eq!(epochs.end_of(LeaderEpoch(3), Offset(1 << 40)), Offset(0));
        assert_eq!(epochs.end_of(LeaderEpoch(10), Offset(1 << 40)), Offset(110));
        assert_eq!(decoded(&epochs), epochs);
    }

    #[test]
    fn epochs_follow_the_log_at_both_ends() {
        let mut epochs = opened(&[(1, 0), (2, 10), (3, 20)]);
        epochs.truncate(Offset(20));
        assert_eq!(epochs, opened(&[(1, 0), (2, 10)]));
        epochs.forget_before(Offset(15));
        assert_eq!(epochs, opened(&[(2, 15)]));
        epochs.truncate(Offset(15));
        assert_eq!(epochs.latest(), None);
    }

    proptest! {
        /// The model is the epoch of every single record.
        #[test]
        fn ends_are_those_of_a_full_list(
            runs in prop::collection::vec((1..3_u32, 0..4_u64), 1..30), asked in 0..70_u32,
        ) {
            let (mut epochs, mut observed) = (Epochs::new(), Epochs::new());
            let mut records = Vec::new();
            let mut epoch = 0;
            for (step, count) in runs {
                epoch += step;
                epochs.open(LeaderEpoch(epoch), Offset(records.len() as u64)).unwrap();
                for _ in 0..count {
                    observed.observe(LeaderEpoch(epoch), Offset(records.len() as u64));
                    records.push(epoch);
                }
            }
            let log_end = Offset(records.len() as u64);
            let wanted = records.iter().filter(|&&epoch| epoch <= asked).count() as u64;
            prop_assert_eq!(epochs.end_of(LeaderEpoch(asked), log_end), Offset(wanted));
            prop_assert_eq!(decoded(&epochs), epochs.clone());
            epochs.truncate(log_end);
            prop_assert_eq!(observed, epochs);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(epochs) = Epochs::decode(&mut Reader::new(&bytes)) {
                prop_assert_eq!(decoded(&epochs), epochs);
            }
        }
    }
}
