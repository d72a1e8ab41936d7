//! What became of the records that were sent: counted by batch, told as text or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use ringway_wire::request::StageTimes;

use crate::exit::{Exit, Failure};
use crate::limits::SUMMARY_PARTITIONS;
use crate::trace::Trace;
use crate::units::{bytes, count, plural, rate};

/// Records of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    records: u64,
    first_offset: u64,
    last_offset: u64,
}

/// Records that failed with one error.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failed {
    records: u64,
    /// The first one's words.
    first: String,
}

/// Counts records and what became of them.
#[derive(Debug)]
pub(crate) struct Tally {
    topic: String,
    records: u64,
    bytes: u64,
    delivered: u64,
    /// Those of them that are in a broker's memory and not yet on stable storage.
    from_memory: u64,
    spans: BTreeMap<u32, Span>,
    failed: BTreeMap<String, Failed>,
    /// The name of the error that came first.
    first_failed: Option<String>,
    trace: Option<Trace>,
}

impl Tally {
    /// Nothing so far.
    pub(crate) fn new(topic: &str, trace: bool) -> Self {
        Self {
            topic: topic.to_owned(),
            records: 0,
            bytes: 0,
            delivered: 0,
            from_memory: 0,
            spans: BTreeMap::new(),
            failed: BTreeMap::new(),
            first_failed: None,
            trace: trace.then(Trace::new),
        }
    }

    /// More records were read and given to the producer.
    pub(crate) fn sent(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }

    /// Records and bytes read so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// A batch of `records` was acknowledged; without an offset where the broker doesn't say it.
    pub(crate) fn delivered(&mut self, partition: u32, base_offset: Option<u64>, records: u64) {
        self.delivered += records;
        let Some(first) = base_offset.filter(|_| records > 0) else {
            return;
        };
        let last = first + records - 1;
        let span = self.spans.entry(partition).or_insert(Span {
            records: 0,
            first_offset: first,
            last_offset: last,
        });
        span.records += records;
        span.first_offset = span.first_offset.min(first);
        span.last_offset = span.last_offset.max(last);
    }

    /// Of the records acknowledged, so many were in the broker's memory only.
    pub(crate) fn in_memory(&mut self, records: u64) {
        self.from_memory += records;
    }

    /// Where the time of a batch went.
    pub(crate) fn timed(&mut self, times: &StageTimes) {
        if let Some(trace) = &mut self.trace {
            trace.add(times);
        }
    }

    /// Records failed with the error of this name.
    pub(crate) fn failed(&mut self, records: u64, name: &str, message: impl FnOnce() -> String) {
        if let Some(failed) = self.failed.get_mut(name) {
            failed.records += records;
            return;
        }
        self.failed.insert(
            name.to_owned(),
            Failed {
                records,
                first: message(),
            },
        );
        self.first_failed.get_or_insert_with(|| name.to_owned());
    }

    /// Counts the records of which nothing was heard as failed.
    pub(crate) fn rest_failed(&mut self, name: &str, message: impl FnOnce() -> String) {
        let heard_of = self.delivered + self.failed_records();
        // A record that was given to the producer at the moment of an interrupt isn't counted yet.
        self.records = self.records.max(heard_of);
        match self.records.saturating_sub(heard_of) {
            0 => {}
            rest => self.failed(rest, name, message),
        }
    }

    /// Records that failed.
    fn failed_records(&self) -> u64 {
        self.failed.values().map(|failed| failed.records).sum()
    }

    /// An error if any record failed: how many and why.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let Some(first) = self
            .first_failed
            .as_ref()
            .and_then(|name| self.failed.get(name))
        else {
            return Ok(());
        };
        let by_error: Vec<String> = self
            .failed
            .iter()
            .map(|(name, failed)| format!("{name}: {}", count(failed.records)))
            .collect();
        let message = format!(
            "{} of {} {} failed ({}); first error: {}",
            count(self.failed_records()),
            count(self.records),
            plural(self.records, "record", "records"),
            by_error.join(", "),
            first.first
        );
        Err(Failure::new(Exit::Failed, message))
    }

    /// The summary for people, several lines.
    pub(crate) fn render(&self, time: Duration) -> String {
        let mut out = format!(
            "{} {} ({}) to {} in {:.2} s: {} records/s, {}/s",
            count(self.records),
            plural(self.records, "record", "records"),
            bytes(self.bytes as f64),
            self.topic,
            time.as_secs_f64(),
            count(rate(self.records, time) as u64),
            bytes(rate(self.bytes, time)),
        );
        for (partition, span) in self.spans.iter().take(SUMMARY_PARTITIONS) {
            let _ = write!(
                out,
                "\n  partition {partition}: {} {}, offsets {} to {}",
                count(span.records),
                plural(span.records, "record", "records"),
                span.first_offset,
                span.last_offset
            );
        }
        let more = self.spans.len().saturating_sub(SUMMARY_PARTITIONS) as u64;
        if more > 0 {
            let _ = write!(
                out,
                "\n  and {more} more {}",
                plural(more, "partition", "partitions")
            );
        }
        if self.from_memory > 0 {
            let _ = write!(
                out,
                "\n{} acknowledged from memory: a crash of the broker right now may take the last \
                 of them back",
                count(self.from_memory),
            );
        }
        if let Some(trace) = &self.trace {
            let batches = trace.batches();
            let word = plural(batches, "batch", "batches");
            let _ = write!(out, "\nwhere the time of {} {word} went:\n", count(batches));
            out.push_str(trace.render().trim_end());
        }
        out
    }

    /// The same for programs.
    pub(crate) fn to_json(&self, time: Duration, interrupted: bool) -> serde_json::Value {
        let partitions: Vec<_> = self
            .spans
            .iter()
            .map(|(partition, span)| {
                serde_json::json!({
                    "partition": partition,
                    "records": span.records,
                    "first_offset": span.first_offset,
                    "last_offset": span.last_offset,
                })
            })
            .collect();
        let errors: Vec<_> = self
            .failed
            .iter()
            .map(|(name, failed)| {
                serde_json::json!({
                    "error": name, "records": failed.records, "first": failed.first,
                })
            })
            .collect();
        let mut json = serde_json::json!({
            "topic": self.topic,
            "records": self.records,
            "bytes": self.bytes,
            "seconds": time.as_secs_f64(),
            "records_per_second": rate(self.records, time),
            "bytes_per_second": rate(self.bytes, time),
            "acknowledged": self.delivered,
            "from_memory": self.from_memory,
            "failed": self.failed_records(),
            "errors": errors,
            "partitions": partitions,
            "interrupted": interrupted,
        });
        if let Some(trace) = &self.trace {
            json["trace"] = trace.to_json();
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::new("orders", false);
        tally.sent(4, 400);
        tally.sent(6, 600);
        tally.delivered(1, Some(45), 1);
        tally.delivered(1, Some(50), 2);
        tally.delivered(0, Some(7), 1);
        tally.delivered(1, Some(40), 2);
        tally
    }

    #[test]
    fn partitions_have_their_offsets() {
        let json = tally().to_json(Duration::from_secs(2), false);
        assert_eq!(json["records"], 10);
        assert_eq!(json["bytes_per_second"], 500.0);
        assert_eq!(json["acknowledged"], 6);
        let expected = serde_json::json!([
            {"partition": 0, "records": 1, "first_offset": 7, "last_offset": 7},
            {"partition": 1, "records": 5, "first_offset": 40, "last_offset": 51},
        ]);
        assert_eq!(json["partitions"], expected);
        let text = tally().render(Duration::from_secs(2));
        assert_eq!(
            text,
            "10 records (1.00 kB) to orders in 2.00 s: 5 records/s, 500 B/s\n  \
             partition 0: 1 record, offsets 7 to 7\n  partition 1: 5 records, offsets 40 to 51"
        );
    }

    #[test]
    fn what_is_in_memory_only_is_told() {
        let mut tally = tally();
        assert_eq!(tally.to_json(Duration::ZERO, false)["from_memory"], 0);
        assert!(!tally.render(Duration::ZERO).contains("memory"));
        tally.in_memory(5);
        assert_eq!(tally.to_json(Duration::ZERO, false)["from_memory"], 5);
        let text = tally.render(Duration::ZERO);
        assert!(text.contains("\n5 acknowledged from memory"), "{text}");
    }

    #[test]
    fn failures_are_counted_by_error_and_the_first_is_told() {
        let mut tally = tally();
        assert!(tally.verdict().is_ok());
        tally.failed(1, "timed_out", || "partition 3 did not answer".to_owned());
        tally.failed(2, "record_too_large", || "too large".to_owned());
        tally.failed(1, "timed_out", || unreachable!("only the first is kept"));
        let message = tally.verdict().unwrap_err().to_string();
        assert_eq!(
            message,
            "4 of 10 records failed (record_too_large: 2, timed_out: 2); \
             first error: partition 3 did not answer"
        );
        let json = tally.to_json(Duration::ZERO, true);
        assert_eq!(json["failed"], 4);
        assert_eq!(json["errors"][1]["first"], "partition 3 did not answer");
        assert_eq!(json["interrupted"], true);
    }

    #[test]
    fn records_of_which_nothing_was_heard_failed() {
        let mut tally = tally();
        tally.rest_failed("lost", || "lost".to_owned());
        tally.rest_failed("lost", || unreachable!("all are accounted for"));
        assert_eq!(tally.failed_records(), 4);
    }

    #[test]
    fn many_partitions_are_not_all_named() {
        let mut tally = Tally::new("t", true);
        for partition in 0..SUMMARY_PARTITIONS as u32 {
            tally.delivered(partition, Some(0), 1);
        }
        assert!(!tally.render(Duration::ZERO).contains("more"));
        tally.delivered(1_000, Some(0), 1);
        assert!(
            tally
                .render(Duration::ZERO)
                .contains("and 1 more partition")
        );
    }
}
