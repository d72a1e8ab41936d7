//! What a shard tells people, metrics and the controller.

use ringway_engine::buffer::Slice;
use ringway_engine::device::DeviceError;
use ringway_engine::shard::{Event, Note, Token};
use ringway_engine::time::Now;
use ringway_wire::request::Reply;

use super::mesh::Message;
use super::{Phase, Shard};
use crate::flight::{Event as Flown, RoundEvent};
use crate::shard_proxy::{PartitionStatus, ShardStatus, ToController};

/// A reply and its data as one run of bytes, for another thread.
pub(super) fn whole_frame(token: Token, reply: &Reply, data: &[Slice]) -> Vec<u8> {
    let bytes: usize = data.iter().map(|slice| slice.len()).sum();
    let mut frame = reply.to_frame(token.correlation, bytes);
    frame.reserve_exact(bytes);
    for slice in data {
        frame.extend_from_slice(slice);
    }
    frame
}

impl Shard {
    pub(super) fn note(&mut self, note: Note, now: Now) {
        let shard = self.dispatch.here.0;
        match note {
            Note::Opened {
                log,
                log_start,
                log_end,
                scanned_bytes,
                cut,
            } => {
                let (start, end) = (log_start.0, log_end.0);
                match cut {
                    Some(cut) => tracing::warn!(
                        shard, %log, start, end, scanned_bytes, cut, "opened a partition that \
                         was cut off behind its last whole batch"
                    ),
                    None => {
                        tracing::debug!(shard, %log, start, end, scanned_bytes, "opened");
                    }
                }
            }
            Note::Trimmed {
                log,
                log_start,
                segments,
            } => {
                tracing::debug!(shard, %log, start = log_start.0, segments, "begins later");
            }
            Note::NotRemoved { log, base, error } => tracing::warn!(
                shard, %log, base = base.0, %error, "a segment whose records are gone couldn't be \
                 removed; it will be tried again"
            ),
            Note::Deleted { log } => tracing::info!(shard, %log, "deleted a partition"),
            Note::State { log, state } => tracing::warn!(shard, %log, state, "changed its state"),
            Note::Damaged {
                log,
                offset,
                reason,
            } => {
                tracing::error!(shard, %log, offset = offset.0, reason, "a batch is damaged");
            }
            Note::Unwritten { log, from, to } => {
                let (from, to) = (from.0, to.0);
                tracing::error!(
                    shard, %log, from, to, "records that were acknowledged from memory are lost \
                     with this stop: the disk is full or has failed"
                );
            }
            Note::FlushFailed { error } => self.flush_failed(&error),
            Note::Drained => {
                if self.phase == Phase::Draining {
                    self.phase = Phase::Drained {
                        since_ns: now.mono_ns,
                    };
                }
            }
        }
    }

    /// The device may have dropped anybody's writes: every shard has to know before its next
    /// acknowledgement. Straight from shard to shard; the controller hears of it as well.
    fn flush_failed(&mut self, error: &DeviceError) {
        let shard = self.dispatch.here;
        tracing::error!(shard = shard.0, %error, "a flush failed: nothing more is made durable");
        let message = || Message::DeviceFailed {
            error: error.clone(),
        };
        self.dispatch.mesh.broadcast(message);
        let reason = error.to_string();
        self.reports
            .push_back(ToController::DeviceFailed { shard, reason });
    }

    pub(super) fn device_failed(&mut self, reason: String, now: Now) {
        let error = DeviceError::Failed(reason);
        self.dispatch
            .machine
            .apply(Event::DeviceFailed { error }, now);
    }

    pub(super) fn status(&self) -> ShardStatus {
        let partition = |status: ringway_engine::shard::PartitionStatus| PartitionStatus {
            at: status.log,
            state: status.state,
            log_start: status.log_start,
            high_watermark: status.high_watermark,
            log_end: status.log_end,
            log_bytes: status.log_bytes,
        };
        ShardStatus {
            partitions: self.dispatch.machine.statuses().map(partition).collect(),
        }
    }

    /// Numbers for metrics, and messages for the controller.
    pub(super) fn report(&mut self) {
        let metrics = &self.metrics;
        let machine = &mut self.dispatch.machine;
        let counters = machine.counters();
        metrics.produced_batches.set(counters.batches);
        metrics.produced_records.set(counters.records);
        metrics.produced_bytes.set(counters.append_bytes);
        metrics.produced_duplicates.set(counters.duplicates);
        metrics.commit_rounds.set(counters.rounds);
        metrics.fetched_bytes.set(counters.fetch_bytes);
        metrics.fetched_cache_bytes.set(counters.tail_bytes);
        metrics.fetched_disk_bytes.set(counters.cold_read_bytes);
        metrics.damaged_batches.set(counters.damaged);
        metrics.removed_segments.set(counters.removed_segments);
        metrics.removed_bytes.set(counters.removed_bytes);
        metrics.partitions.set(counters.partitions);
        metrics.waiting_fetches.set(counters.waiting);
        metrics.produce_bytes.set(counters.pending_bytes);
        metrics.unsynced_bytes.set(counters.unsynced_bytes);
        metrics.cache_bytes.set(counters.buffer_bytes);
        for times in machine.round_times() {
            metrics.produce_queued.observe(times.queued_ns);
            metrics.produce_written.observe(times.written_ns);
            metrics.produce_durable.observe(times.durable_ns);
            let took_ns = times.written_ns + times.durable_ns;
            metrics.flight.record(Flown::Round(RoundEvent {
                started_ns: times.ended_ns.saturating_sub(took_ns),
                written_ns: times.written_ns,
                durable_ns: times.durable_ns,
                writes: times.writes,
                bytes: times.bytes,
            }));
        }
        let ring = self.ring.counters();
        metrics.system_calls.set(ring.enters);
        metrics.ring_punts.set(ring.punts);
        metrics.ring_overflows.set(ring.overflows);
        let shard = self.dispatch.here;
        if !self.all_open_told && self.dispatch.image.is_some() && machine.all_open() {
            self.all_open_told = true;
            self.reports.push_back(ToController::AllOpen { shard });
        }
        while let Some(report) = self.reports.pop_front() {
            if let Err(report) = self.dispatch.controller.send(report) {
                if !self.dispatch.controller.is_closed() {
                    self.reports.push_front(*report);
                }
                return;
            }
        }
    }
}
