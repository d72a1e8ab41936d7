//! One shard's numbers: relaxed atomics with one writer, read by the controller whenever somebody
//! asks. A shard pays one store for a count, and two for an observation.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::flight::FlightRecorder;

/// A number that only rises. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owner may: it is a load and a store, not an atomic addition.
    pub fn add(&self, count: u64) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets a total that is counted elsewhere.
    pub fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram, the last for everything beyond the largest bound.
pub const BUCKETS: usize = 46;
/// The first bucket ends at 2^10 ns, about 1 µs.
const FIRST_POWER: u32 = 10;

/// Times in exponential buckets, two to each power of two: bounds are 2^n and 1.5 × 2^n ns from
/// 1 µs to 4.3 s. Written by one thread, read by any.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one observation, in nanoseconds.
    pub fn observe(&self, ns: u64) {
        let bucket = &self.buckets[Self::bucket(ns)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let sum = self.sum_ns.load(Ordering::Relaxed);
        self.sum_ns.store(sum.wrapping_add(ns), Ordering::Relaxed);
    }

    /// The bucket of a time: the first whose bound is not below it.
    const fn bucket(ns: u64) -> usize {
        if ns <= 1 << FIRST_POWER {
            return 0;
        }
        let below = ns - 1;
        let power = 63 - below.leading_zeros();
        let half = (below >> (power - 1)) & 1;
        let bucket = ((power - FIRST_POWER) * 2 + half as u32) as usize + 1;
        if bucket < BUCKETS {
            bucket
        } else {
            BUCKETS - 1
        }
    }

    /// The largest time of a bucket, in nanoseconds; `None` for the last, which has none.
    #[must_use]
    pub const fn bound_ns(bucket: usize) -> Option<u64> {
        if bucket + 1 >= BUCKETS {
            return None;
        }
        let power = 1u64 << (FIRST_POWER + (bucket as u32) / 2);
        Some(if bucket.is_multiple_of(2) {
            power
        } else {
            power + power / 2
        })
    }

    /// Observations in each bucket, and the sum of all times in nanoseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS], u64) {
        let counts = std::array::from_fn(|place| self.buckets[place].load(Ordering::Relaxed));
        (counts, self.sum_ns.load(Ordering::Relaxed))
    }
}

macro_rules! shard_metrics {
    (
        counters { $($(#[doc = $counter_help:literal])* $counter:ident,)* }
        gauges { $($(#[doc = $gauge_help:literal])* $gauge:ident,)* }
        histograms { $($(#[doc = $histogram_help:literal])* $histogram:ident,)* }
    ) => {
        /// One shard's numbers, and what it did last. The shard is the only one who writes them.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            /// What it did last.
            pub flight: FlightRecorder,
            $($(#[doc = $counter_help])* pub $counter: Counter,)*
            $($(#[doc = $gauge_help])* pub $gauge: Gauge,)*
            $($(#[doc = $histogram_help])* pub $histogram: Histogram,)*
        }

        impl ShardMetrics {
            /// Every counter with its name and help, in the order of their definition.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($counter), concat!($($counter_help,)*), self.$counter.get()),)*]
                    .into_iter()
            }

            /// Every gauge with its name and help, in the order of their definition.
            pub fn gauges(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($gauge), concat!($($gauge_help,)*), self.$gauge.get()),)*]
                    .into_iter()
            }

            /// Every histogram with its name and help, in the order of their definition.
            pub fn histograms(
                &self,
            ) -> impl Iterator<Item = (&'static str, &'static str, &Histogram)> {
                [$((stringify!($histogram), concat!($($histogram_help,)*), &self.$histogram),)*]
                    .into_iter()
            }
        }
    };
}

// A counter's name on /metrics is `ringway_NAME_total`, a gauge's `ringway_NAME`, a stage's
// `ringway_NAME_seconds`; the help is the first lines here.
shard_metrics! {
    counters {
        /// Turns of the shard's loop.
        turns,
        /// Times that the shard went to sleep for want of work.
        parks,
        /// System calls made by the shard's loop.
        system_calls,
        /// Connections accepted.
        connections_accepted,
        /// Connections closed because what came over them was wrong.
        connections_faulted,
        /// Connections refused at the limit.
        connections_refused,
        /// Bytes received from clients.
        received_bytes,
        /// Bytes sent to clients.
        sent_bytes,
        /// Requests received.
        requests,
        /// Requests answered with a fault.
        requests_faulted,
        /// Requests passed on to the shard that owns the partition.
        requests_forwarded,
        /// Requests refused for want of memory.
        requests_overloaded,
        /// Batches appended.
        produced_batches,
        /// Records appended.
        produced_records,
        /// Bytes of batches appended.
        produced_bytes,
        /// Produce requests that repeated a batch.
        produced_duplicates,
        /// Bytes of batches handed to consumers.
        fetched_bytes,
        /// Bytes of batches handed out from the tail cache.
        fetched_cache_bytes,
        /// Bytes of batches read from disk for consumers.
        fetched_disk_bytes,
        /// Writes to the device.
        device_writes,
        /// Bytes written to the device.
        device_written_bytes,
        /// Reads from the device.
        device_reads,
        /// Bytes read from the device.
        device_read_bytes,
        /// Syncs of the device.
        device_syncs,
        /// Device operations that failed.
        device_errors,
        /// Commit rounds: writes that became durable together.
        commit_rounds,
        /// Operations that the kernel passed to a worker thread.
        ring_punts,
        /// Times that the ring's completion queue overflowed.
        ring_overflows,
        /// Turns that took longer than 5 ms.
        slow_turns,
        /// Batches found damaged.
        damaged_batches,
        /// Segments that retention or a trim has emptied, and that are removed.
        removed_segments,
        /// Bytes of those segments.
        removed_bytes,
        /// Segments prepared for records to come.
        prepared_segments,
        /// Of them, those that were recycled and need no zeros.
        recycled_segments,
        /// Bytes of zeros written into segments, so that appends change no metadata.
        zeroed_bytes,
    }
    gauges {
        /// Open connections.
        connections,
        /// Partitions that this shard owns.
        partitions,
        /// Partitions that can't do everything: full, failed or damaged.
        partitions_impaired,
        /// Fetches that wait for records.
        waiting_fetches,
        /// Bytes of the tail cache.
        cache_bytes,
        /// Bytes of produce requests in memory that are not answered.
        produce_bytes,
        /// Bytes acknowledged from memory and not yet on the disk.
        unsynced_bytes,
        /// Bytes of memory for requests on their way in.
        receive_bytes,
        /// Bytes of replies that are not sent.
        send_bytes,
        /// Device operations in flight.
        device_in_flight,
    }
    histograms {
        /// Produce: from a request's last byte to its append in memory.
        produce_received,
        /// Produce: from the append to the start of the write.
        produce_queued,
        /// Produce: from the start of the write to its completion.
        produce_written,
        /// Produce: from the write's completion to that of the sync.
        produce_durable,
        /// Produce: from a request's last byte to its answer.
        produce,
        /// Fetch: from a request's last byte to its answer, waiting for records included.
        fetch,
        /// Writes to the device.
        device_write,
        /// Syncs of the device.
        device_sync,
        /// Reads from the device.
        device_read,
        /// Turns of the shard's loop, sleep not included.
        turn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_first_bucket_that_holds_it() {
        for bucket in 0..BUCKETS - 1 {
            let bound = Histogram::bound_ns(bucket).unwrap();
            assert_eq!(Histogram::bucket(bound), bucket, "{bound} ns");
            assert_eq!(Histogram::bucket(bound + 1), bucket + 1, "{} ns", bound + 1);
        }
        assert_eq!(Histogram::bucket(0), 0);
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(Histogram::bound_ns(BUCKETS - 1), None);
        assert_eq!(Histogram::bound_ns(BUCKETS - 2), Some(1 << 32));
    }

    #[test]
    fn what_was_counted_is_read() {
        let metrics = ShardMetrics::default();
        metrics.requests.add(2);
        metrics.requests.add(3);
        metrics.connections.set(7);
        metrics.produce.observe(1_500);
        let (name, help, value) = metrics.counters().find(|c| c.0 == "requests").unwrap();
        assert_eq!((name, help, value), ("requests", " Requests received.", 5));
        assert!(
            metrics
                .gauges()
                .any(|gauge| gauge.0 == "connections" && gauge.2 == 7)
        );
        let (counts, sum_ns) = metrics.produce.read();
        assert_eq!(counts.iter().sum::<u64>(), 1);
        assert_eq!(counts[1], 1, "1.5 µs is in the bucket up to 1.536 µs");
        assert_eq!(sum_ns, 1_500);
    }
}
