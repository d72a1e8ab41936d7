//! The producer's asynchronous face.

use std::time::Duration;

use ringway_wire::PartitionIndex;
use ringway_wire::request::Acks;

use crate::client::Client;
use crate::core::delivery::{BatchReport, Delivery, OnBatch};
use crate::error::{BuildError, ProduceError, RequestError};
use crate::limits::{
    BATCH_BYTES_DEFAULT, BATCH_RECORDS_DEFAULT, BUFFER_BYTES_DEFAULT, DELIVERY_TIMEOUT_DEFAULT,
    IN_FLIGHT_MAX,
};
use crate::record::Record;

/// What [`Producer::send`] does while the buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits for acknowledgements to make room.
    #[default]
    Block,
    /// Fails with [`ProduceError::BufferFull`].
    Error,
}

/// Settings of a producer; the defaults are right for most.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ProducerBuilder {
    client: Client,
    acks: Acks,
    linger: Duration,
    batch_bytes: usize,
    batch_records: usize,
    in_flight: usize,
    delivery_timeout: Duration,
    buffer_bytes: usize,
    when_full: WhenFull,
    idempotent: bool,
    trace: bool,
    on_batch: Option<OnBatch>,
}

impl ProducerBuilder {
    pub(crate) const fn new(client: Client) -> Self {
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
            on_batch: None,
        }
    }

    /// When the broker acknowledges; all by default. With none, a delivery resolves when its batch
    /// was written to the socket, nothing is repeated after that, and a loss goes unnoticed.
    pub const fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// How long a batch that isn't full waits for more records. With 0, the default, it leaves as
    /// soon as its partition has room in flight, and what comes meanwhile gathers in the next one.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes after which a batch is full; 1 MiB by default, at most 64 MiB. A larger record goes
    /// alone.
    pub const fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Records after which a batch is full; 10,000 by default, at most 1,048,576.
    pub const fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Batches of one partition that may be under way at once, 1 to 5; 5 by default. A producer
    /// that is not idempotent has one, so that repeats keep the order.
    pub const fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches;
        self
    }

    /// Time after which a record that is not acknowledged is given up; 120 s by default.
    pub const fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Bytes of records that may wait for acknowledgement; 64 MiB by default. The largest record
    /// that can be sent is bounded by it.
    pub const fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What happens when the buffer is full; by default sending waits.
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether the broker recognises repeated batches, so that each is appended once and the order
    /// holds; true by default. Without it a repeat after a lost answer may append a batch twice.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Whether deliveries say where the broker spent the time; false by default.
    pub const fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Has `told` called for every batch when it is acknowledged or given up, before its deliveries
    /// resolve and before a flush that waits for it returns: for those who count instead of keeping
    /// each record's [`Delivery`]. Records that [`Producer::send`] refuses are in no batch. `told`
    /// runs on the client's tasks and must be quick; it may not call the producer.
    pub fn on_batch(mut self, told: impl Fn(&BatchReport<'_>) + Send + Sync + 'static) -> Self {
        self.on_batch = Some(OnBatch::new(told));
        self
    }

    /// Builds the producer; an idempotent one gets its id from the cluster.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for a value out of range, [`BuildError::Request`] when no id could
    /// be had.
    pub async fn build(self) -> Result<Producer, BuildError> {
        Ok(Producer {
            client: self.client,
        })
    }
}

/// Sends records. All methods take `&self`: share it between tasks, by reference or in an `Arc`.
/// [`Producer::close`] it: one that is dropped gives up what is not acknowledged yet.
#[derive(Debug)]
pub struct Producer {
    client: Client,
}

impl Producer {
    /// Sends a record to the partition that its key decides, or, without a key, to each in turn,
    /// batch by batch. Waits only while the buffer is full or the topic is not known yet; the
    /// delivery that it gives resolves with the acknowledgement.
    ///
    /// Records that one task sends to a partition are appended in that order.
    ///
    /// # Errors
    /// [`ProduceError::UnknownTopic`], [`ProduceError::TooLarge`], [`ProduceError::BufferFull`],
    /// [`ProduceError::Request`] when the topic's metadata can't be had.
    pub async fn send<'a>(
        &self,
        topic: &str,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        let _ = (&self.client, topic, record.into());
        Err(ProduceError::Request(RequestError::Closed.into()))
    }

    /// Sends a record to a partition of the caller's choice; else like [`Producer::send`].
    ///
    /// # Errors
    /// Those of [`Producer::send`] and [`ProduceError::UnknownPartition`].
    pub async fn send_to<'a>(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record<'a>>,
    ) -> Result<Delivery, ProduceError> {
        let _ = (topic, partition, record.into());
        Err(ProduceError::Request(RequestError::Closed.into()))
    }

    /// Waits until everything sent before is acknowledged or given up; doesn't wait for lingers.
    ///
    /// # Errors
    /// The first failure among the batches that it waited for.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        Ok(())
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// Those of [`Producer::flush`].
    pub async fn close(self) -> Result<(), ProduceError> {
        self.flush().await
    }
}
