//! A segment's sparse index: where in the file an offset or a time is, to within 64 KiB or one
//! batch. It is only ever an accelerator: reading on from a floor finds the exact batch.

use ringway_wire::limits::ALIGNMENT;
use ringway_wire::{DecodeError, Offset, Position, Reader, Writer};

use crate::log::codec::{count, illegal, put_varint, time_after, varint_after};
use crate::log::limits::{INDEX_STEP_BYTES, INDEXED_SEGMENT_BYTES_MIN};

/// A batch that the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Where the batch starts in the segment's file.
    pub position: Position,
    /// The batch's append time, in microseconds since 1970; `i64::MIN` for the segment's start.
    pub append_time_us: i64,
}

/// Offsets, positions and append times of a few of a segment's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    start: Offset,
    /// A batch at or after this position gets an entry; `u64::MAX` in a small segment.
    due: u64,
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// An empty index of the segment that begins at `start` in a file of `file_bytes`; a file of
    /// up to 1 MiB gets no entries.
    #[must_use]
    pub const fn new(start: Offset, file_bytes: u64) -> Self {
        Self {
            start,
            due: if file_bytes < INDEXED_SEGMENT_BYTES_MIN {
                u64::MAX
            } else {
                INDEX_STEP_BYTES
            },
            entries: Vec::new(),
        }
    }

    /// Tells of a batch appended to the segment, in the order of the file. Whether it gets an
    /// entry is the index's own decision.
    pub fn add(&mut self, base_offset: Offset, position: Position, append_time_us: i64) {
        if position.0 < self.due {
            return;
        }
        self.due = due_after(position);
        self.entries.push(IndexEntry {
            base_offset,
            position,
            append_time_us,
        });
    }

    /// The last known batch that begins at or before `offset`; reading on from it finds `offset`
    /// if the segment has it.
    #[must_use]
    pub fn floor(&self, offset: Offset) -> IndexEntry {
        self.before(|entry| entry.base_offset <= offset)
    }

    /// The last known batch appended before `append_time_us`; reading on from it finds the first
    /// batch appended at that time or later, if the segment has it.
    #[must_use]
    pub fn floor_time(&self, append_time_us: i64) -> IndexEntry {
        self.before(|entry| entry.append_time_us < append_time_us)
    }

    fn before(&self, is_before: impl FnMut(&IndexEntry) -> bool) -> IndexEntry {
        match self.entries.partition_point(is_before) {
            0 => IndexEntry {
                base_offset: self.start,
                position: Position(0),
                append_time_us: i64::MIN,
            },
            count => self.entries[count - 1],
        }
    }

    /// The segment's base offset.
    #[must_use]
    pub const fn start(&self) -> Offset {
        self.start
    }

    /// The entries, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// A coarser index of the same batches with at most `entries_max` entries (at least 1), the
    /// last one among them, so that it goes on as this one would.
    #[must_use]
    pub fn thinned(&self, entries_max: usize) -> Self {
        let step = self.entries.len().div_ceil(entries_max.max(1)).max(1);
        let mut entries: Vec<_> = self.entries.iter().rev().step_by(step).copied().collect();
        entries.reverse();
        Self { entries, ..*self }
    }

    /// Writes whether there can be entries (one byte), their count, and each entry's distance from
    /// the one before: offset, position in units of 16 bytes, append time.
    pub fn encode(&self, out: &mut Writer) {
        out.flag(self.due != u64::MAX);
        put_varint(out, self.entries.len() as u64);
        let mut before: Option<IndexEntry> = None;
        for entry in &self.entries {
            let (offset, position) = before.map_or((self.start.0, 0), |last| {
                (last.base_offset.0, last.position.0)
            });
            put_varint(out, entry.base_offset.0 - offset);
            put_varint(out, (entry.position.0 - position) / ALIGNMENT as u64);
            match before {
                None => out.i64(entry.append_time_us),
                Some(last) => put_varint(out, entry.append_time_us.abs_diff(last.append_time_us)),
            }
            before = Some(*entry);
        }
    }

    /// Reads the index of the segment that begins at `start`.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end early, or offsets, positions or times go back.
    pub fn decode(reader: &mut Reader<'_>, start: Offset) -> Result<Self, DecodeError> {
        let mut index = Self::new(start, 0);
        if reader.flag("index kind")? {
            index.due = INDEX_STEP_BYTES;
        }
        let count = count(reader, 3, usize::MAX, "index entry count")?;
        for ordinal in 0..count {
            let entry = index.decode_entry(reader)?;
            if entry.position.0 < index.due {
                return illegal("index entry position", entry.position.0);
            }
            index.due = due_after(entry.position);
            if ordinal == 0 {
                index.entries.reserve_exact(count);
            }
            index.entries.push(entry);
        }
        Ok(index)
    }

    fn decode_entry(&self, reader: &mut Reader<'_>) -> Result<IndexEntry, DecodeError> {
        let last = self.entries.last();
        let (offset, position) = last.map_or((self.start.0, 0), |last| {
            (last.base_offset.0, last.position.0)
        });
        let base_offset = varint_after(reader, offset, 1, "index entry offset")?;
        let position = varint_after(
            reader,
            position / ALIGNMENT as u64,
            1,
            "index entry position",
        )?;
        let append_time_us = match last {
            None => reader.i64("index entry time")?,
            Some(last) => time_after(reader, last.append_time_us, "index entry time")?,
        };
        match position.checked_mul(ALIGNMENT as u64) {
            Some(position) => Ok(IndexEntry {
                base_offset: Offset(base_offset),
                position: Position(position),
                append_time_us,
            }),
            None => illegal("index entry position", position),
        }
    }
}

/// The multiple of the step that follows `position`.
const fn due_after(position: Position) -> u64 {
    (position.0 / INDEX_STEP_BYTES + 1).saturating_mul(INDEX_STEP_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BIG: u64 = 256 << 20;

    fn built(batches: &[IndexEntry], file_bytes: u64) -> SparseIndex {
        let mut index = SparseIndex::new(Offset(10), file_bytes);
        for batch in batches {
            index.add(batch.base_offset, batch.position, batch.append_time_us);
        }
        index
    }

    /// Batches as a segment that begins at offset 10 has them.
    fn batches() -> impl Strategy<Value = Vec<IndexEntry>> {
        let steps = prop::collection::vec((1..50_u64, 10..8_000_u64, 0..5_i64), 0..200);
        steps.prop_map(|steps| {
            let mut next = IndexEntry {
                base_offset: Offset(10),
                position: Position(0),
                append_time_us: -3,
            };
            let step = |(records, blocks, us): (u64, u64, i64)| {
                let batch = next;
                next.base_offset.0 += records;
                next.position.0 += blocks * 16;
                next.append_time_us += us;
                batch
            };
            steps.into_iter().map(step).collect()
        })
    }

    fn decoded(index: &SparseIndex) -> SparseIndex {
        let mut out = Writer::default();
        index.encode(&mut out);
        let bytes = out.into_bytes();
        let mut reader = Reader::new(&bytes);
        let decoded = SparseIndex::decode(&mut reader, index.start()).unwrap();
        reader.finish().unwrap();
        decoded
    }

    #[test]
    fn the_first_batch_at_or_after_every_step_is_known() {
        let batch = |offset, position| IndexEntry {
            base_offset: Offset(offset),
            position: Position(position),
            append_time_us: 0,
        };
        let all = [
            batch(10, 0),
            batch(11, 65_520),
            batch(12, 65_536),
            batch(13, 131_056),
            batch(14, 131_088),
            batch(15, 400_000),
            batch(16, 450_000),
        ];
        let index = built(&all, BIG);
        assert_eq!(index.entries(), [all[2], all[4], all[5]]);
        assert_eq!(index.floor(Offset(11)).position, Position(0));
        assert_eq!(index.floor(Offset(13)), all[2]);
        assert_eq!(index.floor(Offset(u64::MAX)), all[5]);
    }

    #[test]
    fn a_small_segment_has_no_entries() {
        let index = built(
            &[IndexEntry {
                base_offset: Offset(20),
                position: Position(900 << 10),
                append_time_us: 1,
            }],
            1 << 20,
        );
        assert_eq!(index.entries(), []);
        assert_eq!(decoded(&index), index);
    }

    proptest! {
        #[test]
        fn floors_are_those_of_a_full_list(
            all in batches(), offset in 10..12_000_u64, time in -5..900_i64,
        ) {
            let index = built(&all, BIG);
            for (found, wanted) in [
                (index.floor(Offset(offset)),
                 all.iter().rfind(|batch| batch.base_offset.0 <= offset)),
                (index.floor_time(time), all.iter().rfind(|batch| batch.append_time_us < time)),
            ] {
                let wanted = wanted.map_or(Position(0), |batch| batch.position);
                prop_assert!(found.position <= wanted);
                let passed = all.iter()
                    .filter(|batch| batch.position > found.position && batch.position <= wanted)
                    .filter(|batch| batch.position.0 / INDEX_STEP_BYTES
                        > found.position.0 / INDEX_STEP_BYTES)
                    .map(|batch| batch.position.0 / INDEX_STEP_BYTES)
                    .min();
                // The wanted batch lies in the step of the floor, or is itself beyond the next
                // entry, which doesn't qualify.
                prop_assert!(passed.is_none(), "step {passed:?} lies between");
            }
        }

        #[test]
        fn an_index_reads_back_and_goes_on(all in batches(), split in 0..200_usize) {
            let split = split.min(all.len());
            let mut index = decoded(&built(&all[..split], BIG));
            for batch in &all[split..] {
                index.add(batch.base_offset, batch.position, batch.append_time_us);
            }
            prop_assert_eq!(index, built(&all, BIG));
        }

        #[test]
        fn a_thinned_index_is_bounded_and_ends_alike(all in batches(), max in 1..40_usize) {
            let index = built(&all, BIG);
            let thinned = index.thinned(max);
            prop_assert!(thinned.entries().len() <= max);
            prop_assert_eq!(thinned.entries().last(), index.entries().last());
            prop_assert!(thinned.entries().iter().all(|entry| index.entries().contains(entry)));
            prop_assert_eq!(decoded(&thinned), thinned);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(index) = SparseIndex::decode(&mut Reader::new(&bytes), Offset(3)) {
                prop_assert!(index.entries().len() <= bytes.len());
            }
        }
    }
}
