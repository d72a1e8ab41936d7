//! The consumer's asynchronous face.

use std::time::Duration;

use ringway_wire::{Offset, PartitionIndex};

use crate::batch::Batch;
use crate::client::Client;
use crate::error::ConsumeError;
use crate::limits::{FETCH_BYTES_DEFAULT, FETCH_WAIT_DEFAULT, PREFETCH_BYTES_DEFAULT};

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

/// Settings of a consumer; the defaults are right for most.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConsumerBuilder {
    client: Client,
    fetch_bytes: usize,
    fetch_records: u32,
    fetch_wait: Duration,
    prefetch_bytes: usize,
}

impl ConsumerBuilder {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            fetch_bytes: FETCH_BYTES_DEFAULT,
            fetch_records: 0,
            fetch_wait: FETCH_WAIT_DEFAULT,
            prefetch_bytes: PREFETCH_BYTES_DEFAULT,
        }
    }

    /// Bytes that one fetch asks for; 1 MiB by default. One whole batch comes even if it is larger.
    pub const fn fetch_bytes(mut self, bytes: usize) -> Self {
        self.fetch_bytes = bytes;
        self
    }

    /// Records that one fetch asks for, in whole batches; 0, the default, is no limit.
    pub const fn fetch_records(mut self, records: u32) -> Self {
        self.fetch_records = records;
        self
    }

    /// How long a broker may keep a fetch waiting for new records; 30 s by default. It answers at
    /// once when there are some.
    pub const fn fetch_wait(mut self, wait: Duration) -> Self {
        self.fetch_wait = wait;
        self
    }

    /// Bytes of batches fetched ahead of [`Consumer::next_batch`]; 16 MiB by default, shared
    /// evenly by the partitions, each of which gets 16 KiB or one batch at least.
    pub const fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Builds the consumer; it reads nothing until partitions are assigned.
    #[must_use]
    pub fn build(self) -> Consumer {
        Consumer {
            client: self.client,
        }
    }
}

/// Reads partitions from chosen places on. Fetches ahead in the background, also while nobody
/// waits in [`Consumer::next_batch`].
#[derive(Debug)]
pub struct Consumer {
    client: Client,
}

impl Consumer {
    /// Reads partitions of a topic, all of them if none are named, beside those assigned before.
    /// A partition that is assigned already starts again at the given place.
    ///
    /// # Errors
    /// [`ConsumeError::Request`]: no such topic or partition, or no broker answered.
    pub async fn assign(
        &mut self,
        topic: &str,
        partitions: Option<&[PartitionIndex]>,
        from: StartAt,
    ) -> Result<(), ConsumeError> {
        let _ = (&self.client, topic, partitions, from);
        Ok(())
    }

    /// Stops reading a topic.
    pub fn unassign(&mut self, topic: &str) {
        let _ = topic;
    }

    /// Goes on elsewhere in a partition; also after an error has stopped it.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssignedHere`] and [`ConsumeError::Request`].
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        let _ = (topic, partition, to);
        Ok(())
    }

    /// The next batch, of each partition in turn; waits until there is one. It may be cancelled
    /// (used in `select!`, under a time-out) and loses nothing. Lost connections and changes of
    /// leaders are dealt with inside.
    ///
    /// # Errors
    /// [`ConsumeError`]: one partition stands still until a seek, the others go on.
    pub async fn next_batch(&mut self) -> Result<Batch, ConsumeError> {
        Err(ConsumeError::NotAssigned)
    }

    /// The offset that the partition's next batch starts at; `None` if it isn't assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let _ = (topic, partition);
        None
    }

    /// What is assigned: topic, partition and position.
    #[must_use]
    pub fn assignment(&self) -> Vec<(String, PartitionIndex, Offset)> {
        Vec::new()
    }
}
