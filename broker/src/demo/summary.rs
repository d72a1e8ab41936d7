//! What the demo says before and after: the conditions, then the result, as text for people or as
//! one JSON object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::cpu::Cores;
use super::disk::Disk;
use super::latency::Percentiles;
use super::ledger::{Sent, StagePercentiles};
use super::problem::Problem;
use super::sample::Source;
use super::session::{Outcome, Plan, TOPIC};
use crate::broker::Ready;
use crate::figures::{bytes, count, time_us};

/// How the demo ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// Whether every record arrived exactly as sent.
    verified: bool,
    /// Whether it was ended early on request.
    interrupted: bool,
    /// From the first look at `/proc` to the last acknowledgement.
    seconds: f64,
    records: Records,
    /// Bytes of the records' values.
    value_bytes: u64,
    /// Batches in which they were acknowledged.
    batches: u64,
    /// Records sent in a second, on average.
    records_per_second: f64,
    /// From sending a record to its acknowledgement as durable, in microseconds.
    produce_to_durable_us: Percentiles,
    /// Where the broker spent its share of that, in microseconds.
    stages_us: StagePercentiles,
    /// From the look at `/proc` to the verified record, in microseconds.
    end_to_end_us: Percentiles,
    problems: Vec<Problem>,
    sources: Vec<SourceLine>,
    cpu_cores: Cores,
    topic: &'static str,
    partitions: u32,
    shards: usize,
    disk: Disk,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Records {
    sampled: u64,
    sent: u64,
    acknowledged: u64,
    received: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct SourceLine {
    source: &'static str,
    samples: u64,
    readings: u64,
}

impl Summary {
    /// Of a run.
    pub(super) fn new(outcome: Outcome, plan: Plan, ready: &Ready, disk: Disk) -> Self {
        let sum = |of: fn(&Sent) -> u64| outcome.sent.iter().map(of).sum::<u64>();
        let counts = &outcome.sampled.counts;
        let sources = Source::ALL
            .iter()
            .zip(counts)
            .map(|(source, count)| SourceLine {
                source: source.name(),
                samples: count.samples,
                readings: count.readings,
            });
        let records = Records {
            sampled: counts.iter().map(|count| count.samples).sum(),
            sent: sum(|sent| sent.records),
            acknowledged: sum(|sent| sent.acknowledged),
            received: outcome.received,
        };
        let same = [records.sent, records.acknowledged, records.received]
            .iter()
            .all(|&count| count == records.sampled);
        let seconds = outcome.time.as_secs_f64();
        Self {
            verified: same && records.sent > 0 && outcome.problems.is_empty(),
            interrupted: outcome.interrupted,
            seconds,
            records,
            value_bytes: sum(|sent| sent.value_bytes),
            batches: outcome.batches,
            records_per_second: records.sent as f64 / seconds.max(1e-9),
            produce_to_durable_us: outcome.durable,
            stages_us: outcome.stages,
            end_to_end_us: outcome.end_to_end,
            sources: sources.collect(),
            problems: outcome.problems,
            cpu_cores: outcome.cores,
            topic: TOPIC,
            partitions: plan.partitions,
            shards: ready.shards.len(),
            disk,
        }
    }

    /// Whether every record arrived exactly as sent.
    pub(super) const fn verified(&self) -> bool {
        self.verified
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and finite numbers are JSON")
    }

    /// A screen of text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.verdict(&mut text);
        self.figures(&mut text);
        self.telemetry(&mut text);
        if self.disk.kept {
            let directory = &self.disk.directory;
            let _ = writeln!(
                text,
                "\nThe data is in {directory}. To look at it:\n  \
                 cargo run --release -- start --data-dir {directory}\n  \
                 cargo run --release -p ringway-cli -- offsets {TOPIC}"
            );
        }
        text
    }

    fn verdict(&self, text: &mut String) {
        let Records {
            sampled,
            sent,
            acknowledged,
            received,
        } = self.records;
        if self.interrupted {
            text.push_str("Ended early, as asked.\n");
        }
        if self.verified {
            let _ = writeln!(
                text,
                "Every record arrived exactly as sent: {} sent, acknowledged as durable, \
                 consumed,\nand verified by order, offset, sequence, CRC and content.",
                count(sent)
            );
            return;
        }
        let _ = writeln!(
            text,
            "FAILED: not every record arrived as sent. {} sampled, {} sent, {} acknowledged as\n\
             durable, {} consumed.",
            count(sampled),
            count(sent),
            count(acknowledged),
            count(received)
        );
        for problem in &self.problems {
            let Problem {
                kind,
                count: concerned,
                first,
            } = problem;
            let number = match concerned {
                0 => String::new(),
                concerned => format!(" ({})", count(*concerned)),
            };
            let _ = writeln!(text, "  {kind}{number}: {first}");
        }
    }

    fn figures(&self, text: &mut String) {
        let Self { seconds, .. } = self;
        let _ = writeln!(
            text,
            "\n  rate                {} records/s over {seconds:.1} s, {}/s of values, \
             {:.0} records a batch",
            count(self.records_per_second.round() as u64),
            bytes(self.value_bytes as f64 / seconds.max(1e-9)),
            self.records.acknowledged as f64 / self.batches.max(1) as f64,
        );
        let _ = writeln!(
            text,
            "  sending to durable  {}",
            percentiles(&self.produce_to_durable_us)
        );
        self.stages(text);
        let _ = writeln!(
            text,
            "  sample to verified  {}",
            percentiles(&self.end_to_end_us)
        );
        let _ = writeln!(
            text,
            "  the disk alone      {}\n                      \
             (4 KiB made durable, one at a time, before the run)",
            percentiles(&self.disk.durable_write_us)
        );
        let Cores {
            total,
            broker,
            client,
            sampler,
        } = self.cpu_cores;
        let _ = writeln!(
            text,
            "  CPU                 {total:.2} cores: broker {broker:.2}, client and verifier \
             {client:.2}, reading /proc {sampler:.2}"
        );
    }

    /// Where the broker spent its share; the rest is the client, the sockets and the processor.
    fn stages(&self, text: &mut String) {
        let stages = &self.stages_us;
        type At = fn(&Percentiles) -> f64;
        let rows: [(&str, At); 2] = [("in the broker, p50", |of| of.p50), ("p99", |of| of.p99)];
        for (label, at) in rows {
            let at = |stage| time_us(at(stage));
            let _ = writeln!(
                text,
                "  {label:>18}  received {:>8}   queued {:>8}   written {:>8}   flushed {:>8}",
                at(&stages.received),
                at(&stages.queued),
                at(&stages.written),
                at(&stages.durable),
            );
        }
    }

    fn telemetry(&self, text: &mut String) {
        text.push_str("\n  samples of this machine   records   looks at it per second\n");
        for line in &self.sources {
            if line.samples == 0 {
                let _ = writeln!(text, "  {:<20}  not readable here", line.source);
                continue;
            }
            let _ = writeln!(
                text,
                "  {:<20} {:>13} {:>15.1}",
                line.source,
                count(line.samples),
                line.readings as f64 / self.seconds.max(1e-9)
            );
        }
    }
}

fn percentiles(of: &Percentiles) -> String {
    let [p50, p99, p999, max] = [of.p50, of.p99, of.p999, of.max].map(time_us);
    format!("p50 {p50:>8}   p99 {p99:>8}   p99.9 {p999:>8}   max {max:>8}")
}

/// The conditions, before the run.
pub(super) fn introduction(plan: Plan, ready: &Ready, disk: &Disk) -> String {
    let cache = match disk.volatile_cache {
        Some(true) => ", volatile write cache",
        Some(false) => ", no volatile write cache",
        None => "",
    };
    let stays = if disk.kept {
        "stays"
    } else {
        "removed at the end; --keep keeps it"
    };
    let shards = match ready.shards.len() {
        1 => "1 shard".to_owned(),
        shards => format!("{shards} shards"),
    };
    let time = length(plan.time);
    let mut text = "Ringway demo: this machine's own telemetry ".to_owned();
    let _ = writeln!(text, "through a durable log and back, for {time}.\n");
    let mut line = |label: &str, what: &str| {
        let _ = writeln!(text, "  {label:<8} {what}");
    };
    line("data", &format!("{} ({stays})", disk.directory));
    let (device, file_system) = (&disk.device, &disk.file_system);
    line(
        "disk",
        &format!("{device}, {file_system}, direct I/O{cache}"),
    );
    line("", &disk.sync_scope_reason);
    let (listen, partitions) = (&ready.listen, plan.partitions);
    line("broker", &format!("in this process: {shards}, {listen}"));
    line(
        "topic",
        &format!("{TOPIC}, {partitions} partitions, acks=all, one replica"),
    );
    line(
        "path",
        "/proc > rkyv values > client > TCP > broker > disk > broker > TCP > verifier",
    );
    for (place, words) in durable(disk).into_iter().enumerate() {
        line(if place == 0 { "durable" } else { "" }, words);
    }
    text
}

/// What an acknowledgement is worth here.
const fn durable(disk: &Disk) -> [&'static str; 2] {
    if disk.barriers {
        [
            "a record is acknowledged, and consumers see it, once the device says that it is",
            "stable: no crash and no power cut takes it then, if the device keeps its word",
        ]
    } else {
        [
            "this file system is mounted without barriers: an acknowledged record survives a",
            "crash of the broker, but a power cut may take what is in the device's cache",
        ]
    }
}

fn length(time: Duration) -> String {
    match time.as_secs() {
        1 => "1 second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests;
