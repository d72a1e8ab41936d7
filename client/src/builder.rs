//! Settings of producers and consumers, the same for every face.

use std::time::Duration;

use ringway_wire::Offset;
use ringway_wire::batch::{BatchLimits, Codec};
use ringway_wire::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use ringway_wire::request::{Acks, OffsetAt};

use crate::core::delivery::{BatchReport, OnBatch};
use crate::core::fetch::Settings as FetchSettings;
use crate::core::partitioner::Partitioning;
use crate::core::producer::Settings as ProducerSettings;
use crate::error::BuildError;
use crate::limits::{
    BATCH_BYTES_DEFAULT, BATCH_RECORDS_DEFAULT, BUFFER_BYTES_DEFAULT, DELIVERY_TIMEOUT_DEFAULT,
    FETCH_BYTES_DEFAULT, FETCH_WAIT_DEFAULT, IN_FLIGHT_MAX, PREFETCH_BYTES_DEFAULT,
};
use crate::profile::Profile;

/// What a producer's `send` does while the buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits for acknowledgements to make room.
    #[default]
    Block,
    /// Fails with [`ProduceError::BufferFull`](crate::ProduceError::BufferFull).
    Error,
}

/// Settings of a producer; the defaults are right for most.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ProducerBuilder<C> {
    pub(crate) client: C,
    acks: Acks,
    linger: Duration,
    batch_bytes: usize,
    batch_records: usize,
    in_flight: usize,
    delivery_timeout: Duration,
    buffer_bytes: usize,
    pub(crate) when_full: WhenFull,
    idempotent: bool,
    trace: bool,
    partitioning: Partitioning,
    codec: Option<Codec>,
    pub(crate) on_batch: Option<OnBatch>,
}

impl<C> ProducerBuilder<C> {
    pub(crate) const fn new(client: C) -> Self {
        Self {
            client,
            acks: Acks::All,
            linger: Duration::ZERO,
            batch_bytes: BATCH_BYTES_DEFAULT,
            batch_records: BATCH_RECORDS_DEFAULT,
            in_flight: IN_FLIGHT_MAX,
            delivery_timeout: DELIVERY_TIMEOUT_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            when_full: WhenFull::Block,
            idempotent: true,
            trace: false,
            partitioning: Partitioning::ByKey,
            codec: None,
            on_batch: None,
        }
    }

    /// Sets linger, batch and buffer sizes to the values of a [`Profile`]; what is set after it
    /// wins. Balanced by default.
    pub fn profile(mut self, profile: Profile) -> Self {
        let values = profile.values();
        self.linger = values.linger;
        self.batch_bytes = values.batch_bytes;
        self.batch_records = values.batch_records;
        self.buffer_bytes = values.buffer_bytes;
        self
    }

    /// When the broker acknowledges; all by default. With none, a delivery resolves when its batch
    /// was written to the socket, nothing is repeated after that, and a loss goes unnoticed.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// How long a batch that isn't full waits for more records. With 0, the default, it leaves as
    /// soon as its partition has room in flight, and what comes meanwhile gathers in the next one.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes, before compression, after which a batch is full; 1 MiB by default, at most 64 MiB. A larger record goes
    /// alone.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Records after which a batch is full; 10,000 by default, at most 1,048,576.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Batches of one partition that may be under way at once, 1 to 5; 5 by default. A producer
    /// that is not idempotent has one, so that repeats keep the order.
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches;
        self
    }

    /// Time after which a record that is not acknowledged is given up; 120 s by default.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Bytes of records that may wait for acknowledgement; 64 MiB by default. The largest record
    /// that can be sent is bounded by it.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What happens when the buffer is full; by default sending waits.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether the broker recognises repeated batches, so that each is appended once and the order
    /// holds; true by default. Without it a repeat after a lost answer may append a batch twice.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Whether deliveries say where the broker spent the time; false by default.
    pub fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// How partitions are chosen for records that are sent without one; by key by default.
    pub fn partitioning(mut self, partitioning: Partitioning) -> Self {
        self.partitioning = partitioning;
        self
    }

    /// What batches are compressed with; by default what each topic's `codec` says. A batch that
    /// compression doesn't make shorter goes as it is, and so do all those of a topic whose codec
    /// this build leaves out (features `lz4`, on by default, and `zstd`). A batch is compressed when
    /// it leaves, and sending waits meanwhile: lz4 takes 0.4 ms a MiB, zstd 1.5 ms (log lines and
    /// noise, half each; 2 shared cores).
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Has `told` called for every batch when it is acknowledged or given up, before its deliveries
    /// resolve and before a flush that waits for it returns: for those who count instead of keeping
    /// each record's [`Delivery`](crate::Delivery). Records that `send` refuses are in no batch.
    /// `told` runs where the client does its work and must be quick; it may not call the producer.
    pub fn on_batch(mut self, told: impl Fn(&BatchReport<'_>) + Send + Sync + 'static) -> Self {
        self.on_batch = Some(OnBatch::new(told));
        self
    }

    /// The settings, if each is in its range.
    pub(crate) fn settings(&self) -> Result<ProducerSettings, BuildError> {
        let wrong = |setting, value: usize, why| {
            Err(BuildError::Setting {
                setting,
                value: value.to_string(),
                why,
            })
        };
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight) {
            return wrong("in_flight", self.in_flight, "it is between 1 and 5");
        }
        if !(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            return wrong(
                "batch_bytes",
                self.batch_bytes,
                "it is between 1 and 64 MiB",
            );
        }
        if !(1..=BATCH_RECORDS_MAX).contains(&self.batch_records) {
            return wrong(
                "batch_records",
                self.batch_records,
                "it is between 1 and 2^20",
            );
        }
        if let Some(codec) = self.codec.filter(|codec| !codec.available()) {
            return Err(BuildError::Setting {
                setting: "codec",
                value: codec.to_string(),
                why: "this build leaves it out: turn on the feature of its name",
            });
        }
        if self.buffer_bytes == 0 {
            return wrong("buffer_bytes", 0, "no record would fit");
        }
        for (setting, value) in [
            ("linger", self.linger),
            ("delivery_timeout", self.delivery_timeout),
        ] {
            if value > DURATION_MAX {
                let (value, why) = (format!("{value:?}"), "it is at most a year");
                return Err(BuildError::Setting {
                    setting,
                    value,
                    why,
                });
            }
        }
        // A batch that is lost on the way would leave a gap that nobody hears of.
        let idempotent = self.idempotent && self.acks != Acks::None;
        let repeats_reorder = !idempotent && self.acks != Acks::None;
        Ok(ProducerSettings {
            acks: self.acks,
            linger: self.linger,
            limits: BatchLimits {
                bytes_max: self.batch_bytes,
                records_max: self.batch_records,
            },
            in_flight: if repeats_reorder { 1 } else { self.in_flight },
            delivery_timeout: self.delivery_timeout,
            buffer_bytes: self.buffer_bytes,
            idempotent,
            trace: self.trace,
            layout: None,
            partitioning: self.partitioning.clone(),
            codec: self.codec,
        })
    }
}

/// Longest linger and delivery time-out.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record that is still there.
    #[default]
    Start,
    /// After the last record that can be read now.
    End,
    /// At an offset.
    Offset(u64),
    /// At the first record appended at or after this time, in microseconds since 1970; at the end
    /// if there is none.
    TimeUs(i64),
}

impl StartAt {
    /// The offset, or where it has to be looked up.
    pub(crate) const fn known(self) -> Result<Offset, OffsetAt> {
        match self {
            Self::Offset(offset) => Ok(Offset(offset)),
            Self::Start => Err(OffsetAt::Start),
            Self::End => Err(OffsetAt::End),
            Self::TimeUs(time_us) => Err(OffsetAt::AppendTimeUs(time_us)),
        }
    }
}

/// Settings of a consumer; the defaults are right for most.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConsumerBuilder<C> {
    pub(crate) client: C,
    fetch_bytes: usize,
    fetch_records: u32,
    fetch_wait: Duration,
    prefetch_bytes: usize,
}

impl<C> ConsumerBuilder<C> {
    pub(crate) const fn new(client: C) -> Self {
        Self {
            client,
            fetch_bytes: FETCH_BYTES_DEFAULT,
            fetch_records: 0,
            fetch_wait: FETCH_WAIT_DEFAULT,
            prefetch_bytes: PREFETCH_BYTES_DEFAULT,
        }
    }

    /// Sets the sizes of fetches to the values of a [`Profile`]; what is set after it wins.
    /// Balanced by default.
    pub fn profile(mut self, profile: Profile) -> Self {
        let values = profile.values();
        self.fetch_bytes = values.fetch_bytes;
        self.prefetch_bytes = values.prefetch_bytes;
        self
    }

    /// Bytes that one fetch asks for; 1 MiB by default. One whole batch comes even if it is larger.
    pub fn fetch_bytes(mut self, bytes: usize) -> Self {
        self.fetch_bytes = bytes;
        self
    }

    /// Records that one fetch asks for, in whole batches; 0, the default, is no limit.
    pub fn fetch_records(mut self, records: u32) -> Self {
        self.fetch_records = records;
        self
    }

    /// How long a broker may keep a fetch waiting for new records; 30 s by default. It answers at
    /// once when there are some.
    pub fn fetch_wait(mut self, wait: Duration) -> Self {
        self.fetch_wait = wait;
        self
    }

    /// Bytes of batches fetched ahead of `next_batch`; 16 MiB by default, shared
    /// evenly by the partitions, each of which gets 16 KiB or one batch at least. Compressed
    /// batches wait as they are: each is inflated when it is handed out.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// The settings.
    pub(crate) fn settings(&self) -> FetchSettings {
        FetchSettings {
            fetch_bytes: self.fetch_bytes.clamp(1, BATCH_BYTES_MAX),
            fetch_records: self.fetch_records,
            fetch_wait: self.fetch_wait.min(FETCH_WAIT_MAX),
            prefetch_bytes: self.prefetch_bytes,
        }
    }
}

/// Longest wait of a fetch.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
