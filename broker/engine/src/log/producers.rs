//! What a partition remembers of its producers, so that a batch sent twice is appended once and a
//! missing one is noticed. The state follows from the log alone: every replica and every restart
//! comes to the same one.

use std::collections::BTreeMap;

use ringway_wire::batch::BatchHeader;
use ringway_wire::{
    DecodeError, ErrorCode, Offset, ProducerEpoch, ProducerId, Reader, Sequence, Writer,
};

use crate::log::codec::{count, illegal, put_varint, time_after, varint, varint_after};
use crate::log::limits::{PRODUCER_BATCHES_MAX, PRODUCERS_FORGOTTEN_AT_ONCE, PRODUCERS_MAX};

/// What is to be done with a producer's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: append it, then [`Producers::record`] it.
    Append,
    /// It was appended before: answer as then.
    Duplicate {
        /// The offset that the batch's first record got.
        base_offset: Offset,
        /// The append time that it got, in microseconds since 1970.
        append_time_us: i64,
    },
    /// It must not be appended.
    Refuse {
        /// What the reply says.
        code: ErrorCode,
        /// The facts, for people.
        message: String,
    },
}

/// A batch of a producer that was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct KeptBatch {
    first_sequence: Sequence,
    /// Sequence of the last record less that of the first.
    last_delta: u32,
    base_offset: Offset,
    append_time_us: i64,
}

impl KeptBatch {
    const fn of(header: &BatchHeader) -> Self {
        Self {
            first_sequence: header.first_sequence,
            last_delta: header.last_offset_delta,
            base_offset: header.base_offset,
            append_time_us: header.append_time_us,
        }
    }

    const fn next_sequence(&self) -> Sequence {
        self.first_sequence.plus(self.last_delta).plus(1)
    }
}

/// The last batches of one producer, the oldest first, their sequences without a gap; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    kept_count: u8,
    kept: [KeptBatch; PRODUCER_BATCHES_MAX],
}

impl Producer {
    fn new(epoch: ProducerEpoch, first: KeptBatch) -> Self {
        let mut kept = [KeptBatch::default(); PRODUCER_BATCHES_MAX];
        kept[0] = first;
        Self {
            epoch,
            kept_count: 1,
            kept,
        }
    }

    fn kept(&self) -> &[KeptBatch] {
        &self.kept[..self.kept_count.into()]
    }

    fn last(&self) -> &KeptBatch {
        &self.kept[usize::from(self.kept_count) - 1]
    }

    fn push(&mut self, batch: KeptBatch) {
        if usize::from(self.kept_count) == PRODUCER_BATCHES_MAX {
            self.kept.rotate_left(1);
            self.kept[PRODUCER_BATCHES_MAX - 1] = batch;
        } else {
            self.kept[usize::from(self.kept_count)] = batch;
            self.kept_count += 1;
        }
    }

    fn check(&self, header: &BatchHeader) -> Verdict {
        if header.producer_epoch < self.epoch {
            return refuse(
                header,
                ErrorCode::FencedProducer,
                format!("a newer user of the id has epoch {}", self.epoch),
            );
        }
        if header.producer_epoch > self.epoch {
            return match header.first_sequence {
                Sequence(0) => Verdict::Append,
                _ => refuse(
                    header,
                    ErrorCode::OutOfOrderSequence,
                    "a new epoch begins at sequence 0".to_owned(),
                ),
            };
        }
        let expected = self.last().next_sequence();
        if header.first_sequence == expected {
            return Verdict::Append;
        }
        let same = |batch: &&KeptBatch| {
            batch.first_sequence == header.first_sequence
                && batch.last_delta == header.last_offset_delta
        };
        if let Some(batch) = self.kept().iter().find(same) {
            return Verdict::Duplicate {
                base_offset: batch.base_offset,
                append_time_us: batch.append_time_us,
            };
        }
        let behind = expected.0.wrapping_sub(header.first_sequence.0);
        let whole = u64::from(behind) > u64::from(header.last_offset_delta);
        if behind < 1 << 31 && whole {
            return refuse(
                header,
                ErrorCode::DuplicateSequence,
                format!("its records were appended before; sequence {expected} comes next"),
            );
        }
        refuse(
            header,
            ErrorCode::OutOfOrderSequence,
            format!("sequence {expected} comes next"),
        )
    }
}

fn refuse(header: &BatchHeader, code: ErrorCode, why: String) -> Verdict {
    let (id, epoch) = (header.producer_id, header.producer_epoch);
    let (first, last) = (header.first_sequence, header.last_sequence());
    let message =
        format!("batch of producer {id} epoch {epoch}, sequences {first} to {last}: {why}");
    Verdict::Refuse { code, message }
}

/// The producers of a partition, at most [`PRODUCERS_MAX`]. Cheap to ask, one look-up a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    /// No producer yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
        }
    }

    /// Producers remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the batch, not yet stamped, comes next from its producer. Batches without a
    /// producer always do.
    #[must_use]
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        if header.producer_id == ProducerId::NONE {
            return Verdict::Append;
        }
        match self.by_id.get(&header.producer_id) {
            Some(producer) => producer.check(header),
            None if header.first_sequence == Sequence(0) => Verdict::Append,
            None => refuse(
                header,
                ErrorCode::UnknownProducer,
                "the partition doesn't know the producer, or not any more: get a new producer id"
                    .to_owned(),
            ),
        }
    }

    /// Remembers a batch that was appended or read from the log, stamped. A batch that doesn't
    /// continue what is remembered (of a newer epoch, or after the producer was forgotten) begins
    /// its producer's state anew.
    pub fn record(&mut self, header: &BatchHeader) {
        if header.producer_id == ProducerId::NONE {
            return;
        }
        let batch = KeptBatch::of(header);
        let epoch = header.producer_epoch;
        match self.by_id.get_mut(&header.producer_id) {
            Some(producer)
                if producer.epoch == epoch
                    && producer.last().next_sequence() == batch.first_sequence =>
            {
                producer.push(batch);
            }
            Some(producer) => *producer = Producer::new(epoch, batch),
            None => {
                self.by_id
                    .insert(header.producer_id, Producer::new(epoch, batch));
                if self.by_id.len() > PRODUCERS_MAX {
                    self.forget_oldest();
                }
            }
        }
    }

    /// Forgets the longest unused; those of one append time in the order of their ids.
    fn forget_oldest(&mut self) {
        let used = |(&id, producer): (&ProducerId, &Producer)| (producer.last().append_time_us, id);
        let mut by_use: Vec<_> = self.by_id.iter().map(used).collect();
        by_use.select_nth_unstable(PRODUCERS_FORGOTTEN_AT_ONCE - 1);
        for (_, id) in &by_use[..PRODUCERS_FORGOTTEN_AT_ONCE] {
            self.by_id.remove(id);
        }
    }

    /// Forgets the producers whose last batch was appended before `before_us`, in microseconds
    /// since 1970. If one goes on, it is told that it is unknown.
    pub fn expire(&mut self, before_us: i64) {
        self.by_id
            .retain(|_, producer| producer.last().append_time_us >= before_us);
    }

    /// Writes the count and each producer: id, epoch, number of batches, sequence, offset and time
    /// of the oldest; per batch the number of records less one; per batch but the oldest the
    /// distance of offset and time from the one before.
    pub fn encode(&self, out: &mut Writer) {
        put_varint(out, self.by_id.len() as u64);
        for (id, producer) in &self.by_id {
            out.u64(id.0);
            out.u16(producer.epoch.0);
            out.u8(producer.kept_count);
            let mut before = producer.kept()[0];
            out.u32(before.first_sequence.0);
            put_varint(out, before.base_offset.0);
            out.i64(before.append_time_us);
            put_varint(out, before.last_delta.into());
            for batch in &producer.kept()[1..] {
                put_varint(out, batch.last_delta.into());
                put_varint(out, batch.base_offset.0 - before.base_offset.0);
                put_varint(out, batch.append_time_us.abs_diff(before.append_time_us));
                before = *batch;
            }
        }
    }

    /// Reads what [`Producers::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end early, ids, offsets or times don't rise, or there are
    /// more producers or batches than are ever kept.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = count(
            reader,
            PRODUCER_ENCODED_BYTES_MIN,
            PRODUCERS_MAX,
            "producer count",
        )?;
        let mut producers = Self::new();
        let mut last = ProducerId::NONE;
        for _ in 0..count {
            let id = ProducerId(reader.u64("producer id")?);
            if id <= last {
                return illegal("producer id", id.0);
            }
            last = id;
            producers.by_id.insert(id, decode_producer(reader)?);
        }
        Ok(producers)
    }
}

/// Bytes of the shortest producer: one batch of one record at a small offset.
const PRODUCER_ENCODED_BYTES_MIN: usize = 8 + 2 + 1 + 4 + 1 + 8 + 1;

fn decode_producer(reader: &mut Reader<'_>) -> Result<Producer, DecodeError> {
    let epoch = ProducerEpoch(reader.u16("producer epoch")?);
    let kept_count = reader.u8("batch count of a producer")?;
    if kept_count == 0 || usize::from(kept_count) > PRODUCER_BATCHES_MAX {
        return illegal("batch count of a producer", kept_count.into());
    }
    let mut batch = KeptBatch {
        first_sequence: Sequence(reader.u32("first sequence")?),
        base_offset: Offset(varint(reader, "base offset")?),
        append_time_us: reader.i64("append time")?,
        last_delta: decode_delta(reader)?,
    };
    let mut producer = Producer::new(epoch, batch);
    for _ in 1..kept_count {
        batch = KeptBatch {
            first_sequence: batch.next_sequence(),
            last_delta: decode_delta(reader)?,
            base_offset: Offset(varint_after(reader, batch.base_offset.0, 1, "base offset")?),
            append_time_us: time_after(reader, batch.append_time_us, "append time")?,
        };
        producer.push(batch);
    }
    Ok(producer)
}

fn decode_delta(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let delta = varint(reader, "records less one")?;
    u32::try_from(delta).or_else(|_| illegal("records less one", delta))
}

#[cfg(test)]
mod tests;
