//! A consumer's part of one partition: what was fetched and not handed out yet, and where both
//! ends of that stand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_wire::batch::{BatchError, BatchHeader, check_header};
use ringway_wire::request::{FetchReply, FetchRequest, TimestampSource};
use ringway_wire::{ErrorCode, Fault, LeaderEpoch, Offset, TopicPartition};

use crate::core::backoff::Backoff;
use crate::core::fetch::{FetchedBytes, Parcel, Settings};
use crate::error::ConsumeError;

/// Pause after an empty reply that came before its time, so that nothing spins.
const EMPTY_PAUSE: Duration = Duration::from_millis(10);

/// A batch that was fetched; its header was checked, its body not yet.
#[derive(Debug)]
struct Chunk {
    bytes: FetchedBytes,
    start: usize,
    base_offset: Offset,
    next_offset: Offset,
    batch_bytes: usize,
    high_watermark: Offset,
}

/// What a window is doing.
#[derive(Debug)]
enum State {
    Idle,
    Fetching {
        fetch: u64,
        since: Instant,
    },
    Pausing {
        until: Instant,
    },
    /// Stands still; the error if it wasn't reported yet.
    Stopped(Option<ConsumeError>),
}

/// One partition.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) name: Arc<str>,
    pub(super) topic_partition: TopicPartition,
    /// Offset of the next record to hand out.
    position: Offset,
    /// Offset of the next record to fetch.
    fetch_from: Offset,
    /// Leader epoch of the last batch fetched.
    last_epoch: Option<LeaderEpoch>,
    /// No batch came since the last seek: the first one may begin before the offset wanted.
    fresh: bool,
    chunks: VecDeque<Chunk>,
    held_bytes: usize,
    /// Which time its records' timestamps are.
    pub(super) timestamp: TimestampSource,
    state: State,
    backoff: Backoff,
    /// Whether the window is in the list of those that may fetch.
    pub(super) wanting: bool,
    /// Whether the window is in the list of those that have something to hand out.
    pub(super) readable: bool,
}

impl Window {
    pub(super) fn new(name: Arc<str>, topic_partition: TopicPartition, at: Offset) -> Self {
        Self {
            name,
            topic_partition,
            position: at,
            fetch_from: at,
            last_epoch: None,
            fresh: true,
            chunks: VecDeque::new(),
            held_bytes: 0,
            timestamp: TimestampSource::Producer,
            state: State::Idle,
            backoff: Backoff::default(),
            wanting: false,
            readable: false,
        }
    }

    pub(super) const fn position(&self) -> Offset {
        self.position
    }

    /// Starts again at an offset; what was fetched and what is under way is dropped.
    pub(super) fn seek(&mut self, topic_partition: TopicPartition, to: Offset) {
        self.topic_partition = topic_partition;
        self.position = to;
        self.last_epoch = None;
        self.backoff.reset();
        self.drop_fetched(State::Idle);
    }

    fn drop_fetched(&mut self, state: State) {
        self.fetch_from = self.position;
        self.fresh = true;
        self.chunks.clear();
        self.held_bytes = 0;
        self.state = state;
    }

    /// Stands still from here on; what was fetched before is handed out first.
    pub(super) fn stop(&mut self, error: ConsumeError) {
        self.state = State::Stopped(Some(error));
    }

    /// Whether there is a batch or an error to hand out.
    pub(super) fn has_news(&self) -> bool {
        !self.chunks.is_empty() || matches!(self.state, State::Stopped(Some(_)))
    }

    /// Whether nothing will come before a seek.
    pub(super) fn is_over(&self) -> bool {
        self.chunks.is_empty() && matches!(self.state, State::Stopped(None))
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped(_))
    }

    /// The fetch to send now, if its share of the space has room for it.
    pub(super) fn fetch(
        &mut self,
        fetch: u64,
        share: usize,
        now: Instant,
        settings: &Settings,
    ) -> Option<FetchRequest> {
        match self.state {
            State::Idle => {}
            State::Pausing { until } if until <= now => {}
            _ => return None,
        }
        let bytes = settings.fetch_bytes_of(share);
        if self.held_bytes > 0 && self.held_bytes + bytes > share {
            return None;
        }
        self.state = State::Fetching { fetch, since: now };
        Some(FetchRequest {
            topic: self.topic_partition.topic,
            partition: self.topic_partition.partition,
            offset: self.fetch_from,
            last_epoch: self.last_epoch,
            bytes_max: u32::try_from(bytes).unwrap_or(u32::MAX),
            records_max: settings.fetch_records,
            wait_ms: u32::try_from(settings.fetch_wait.as_millis()).unwrap_or(u32::MAX),
        })
    }

    /// Whether this is the fetch under way, and no seek has come since.
    pub(super) const fn awaits(&self, wanted: u64) -> bool {
        matches!(self.state, State::Fetching { fetch, .. } if fetch == wanted)
    }

    /// Pauses before the next fetch; until when.
    pub(super) fn pause(&mut self, now: Instant, random: u64) -> Instant {
        let until = now + self.backoff.next(random);
        self.state = State::Pausing { until };
        until
    }

    /// Takes a reply with batches; when to fetch again if not at once.
    pub(super) fn accept(
        &mut self,
        reply: &FetchReply,
        bytes: Option<FetchedBytes>,
        now: Instant,
        settings: &Settings,
    ) -> Option<Instant> {
        self.backoff.reset();
        let waited = match self.state {
            State::Fetching { since, .. } => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        self.state = State::Idle;
        let Some(bytes) = bytes else {
            let early = waited < settings.fetch_wait / 2 || settings.fetch_wait.is_zero();
            let until = early.then(|| now + EMPTY_PAUSE)?;
            self.state = State::Pausing { until };
            return Some(until);
        };
        let mut start = 0;
        while start < bytes.len() {
            match self.admit(&bytes[start..]) {
                Ok(header) => {
                    let batch_bytes = header.batch_bytes as usize;
                    self.fetch_from = header.next_offset();
                    self.last_epoch = Some(header.leader_epoch);
                    self.fresh = false;
                    self.held_bytes += batch_bytes;
                    self.chunks.push_back(Chunk {
                        bytes: Arc::clone(&bytes),
                        start,
                        base_offset: header.base_offset,
                        next_offset: header.next_offset(),
                        batch_bytes,
                        high_watermark: reply.high_watermark,
                    });
                    start += batch_bytes;
                }
                Err(why) => {
                    let error = self.wrong_batch(self.fetch_from, why);
                    self.stop(error);
                    return None;
                }
            }
        }
        None
    }

    /// Checks that the batch belongs here: header, log, and no gap to what came before.
    fn admit(&self, bytes: &[u8]) -> Result<BatchHeader, String> {
        let header = check_header(bytes, true).map_err(|error| error.to_string())?;
        let whole = header.batch_bytes as usize;
        if whole > bytes.len() {
            return Err(format!(
                "it has {whole} bytes, of which {} came",
                bytes.len()
            ));
        }
        let log_id = self.topic_partition.log_id();
        if header.log_id != log_id {
            return Err(format!(
                "it belongs to log {}, not to {log_id}",
                header.log_id
            ));
        }
        let (base, next) = (header.base_offset, header.next_offset());
        if base > self.fetch_from || next <= self.fetch_from {
            return Err(format!("it has the offsets from {base} to before {next}"));
        }
        if !self.fresh && base != self.fetch_from {
            return Err(format!("it begins at {base}, inside the batch before"));
        }
        if let Some(epoch) = self.last_epoch
            && header.leader_epoch < epoch
        {
            return Err(format!(
                "its leader epoch {} is older than {epoch}",
                header.leader_epoch
            ));
        }
        Ok(header)
    }

    fn wrong_batch(&self, offset: Offset, why: String) -> ConsumeError {
        ConsumeError::WrongBatch {
            topic: Arc::clone(&self.name),
            partition: self.topic_partition.partition,
            offset,
            why,
        }
    }

    /// The error that a refusal stops the partition with.
    pub(super) fn refusal(&self, reply: &FetchReply, fault: Fault) -> ConsumeError {
        let (topic, partition) = (Arc::clone(&self.name), self.topic_partition.partition);
        let (offset, safe_offset) = (self.fetch_from, reply.safe_offset);
        match fault.code {
            ErrorCode::OffsetOutOfRange => ConsumeError::OffsetOutOfRange {
                topic,
                partition,
                offset,
                log_start: reply.log_start,
                high_watermark: reply.high_watermark,
            },
            ErrorCode::LogTruncated => ConsumeError::LogTruncated {
                topic,
                partition,
                offset,
                safe_offset,
            },
            ErrorCode::DamagedBatch => {
                let message = fault.message;
                ConsumeError::Damaged {
                    topic,
                    partition,
                    offset,
                    safe_offset,
                    message,
                }
            }
            _ => ConsumeError::Refused {
                topic,
                partition,
                fault,
            },
        }
    }

    /// The next batch or error to hand out.
    pub(super) fn take(&mut self, slot: u32) -> Option<Result<Parcel, ConsumeError>> {
        let Some(chunk) = self.chunks.pop_front() else {
            let State::Stopped(error) = &mut self.state else {
                return None;
            };
            return error.take().map(Err);
        };
        self.held_bytes -= chunk.batch_bytes;
        let from = self.position.max(chunk.base_offset);
        self.position = chunk.next_offset;
        Some(Ok(Parcel {
            slot,
            topic: Arc::clone(&self.name),
            partition: self.topic_partition.partition,
            from,
            high_watermark: chunk.high_watermark,
            timestamp: self.timestamp,
            bytes: chunk.bytes,
            start: chunk.start,
        }))
    }

    /// Takes back a batch that can't be handed out: the position stays before it, and the window
    /// stands still.
    pub(super) fn put_back(&mut self, from: Offset) {
        self.position = from;
        self.drop_fetched(State::Stopped(None));
    }

    /// Takes back a batch that can't be read; gives the error.
    pub(super) fn reject(&mut self, from: Offset, why: &BatchError) -> ConsumeError {
        self.put_back(from);
        match *why {
            BatchError::CodecMissing(codec) => ConsumeError::CodecMissing {
                topic: Arc::clone(&self.name),
                partition: self.topic_partition.partition,
                offset: from,
                codec,
            },
            _ => self.wrong_batch(from, why.to_string()),
        }
    }
}
