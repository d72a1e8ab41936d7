//! `log verify`: what is damaged, what is worth knowing, and how much there is, as lines for people
//! or as one JSON object.

use std::io::{self, Write};

use ringway_wire::{Offset, TopicId};
use serde::Serialize;

use super::audit::{Seen, Segment, Summary, Watcher, audit};
use super::finding::Finding;
use super::place::{LogToolError, Place, Selection};
use super::waiting;
use crate::figures;

/// What is to be verified, and how that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Which part.
    pub selection: Selection,
    /// One JSON object instead of lines.
    pub json: bool,
}

/// What was found, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whether nothing is damaged.
    pub whole: bool,
    /// The cluster's identity, 32 hex digits; `null` where the metadata can't be read.
    pub cluster_id: Option<String>,
    /// How much was looked at.
    pub totals: Totals,
    /// What is damaged.
    pub damage: Vec<Finding>,
    /// What is no damage, and worth knowing.
    pub notes: Vec<Finding>,
    /// Each partition.
    pub partitions: Vec<VerifiedPartition>,
}

/// Sums over all that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Partitions, empty ones too.
    pub partitions: u64,
    /// Segments that are part of a log.
    pub segments: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Batches compressed with a codec that this build lacks: both CRCs and the table were checked,
    /// the records weren't looked at.
    pub unopened_batches: u64,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifiedPartition {
    /// The topic's name, or its id where no name is known.
    pub topic: String,
    /// The topic's id, 32 hex digits.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// The first offset of the log.
    pub log_start: u64,
    /// The offset of the next record.
    pub log_end: u64,
    /// Segments that are part of the log.
    pub segments: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Bytes of all segments' files.
    pub file_bytes: u64,
    /// Leader epochs that have a batch.
    pub epochs: Vec<VerifiedEpoch>,
    /// Append time of the first batch, in microseconds since 1970.
    pub first_append_us: Option<i64>,
    /// Append time of the last batch.
    pub last_append_us: Option<i64>,
    /// How many findings of damage are about it.
    pub damaged: u64,
}

/// A leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedEpoch {
    /// The epoch.
    pub epoch: u32,
    /// Offset of its first record.
    pub first_offset: u64,
}

impl From<&Summary> for VerifiedPartition {
    fn from(summary: &Summary) -> Self {
        Self {
            topic: summary.topic.clone(),
            topic_id: summary.log.topic.to_string(),
            partition: summary.log.partition.0,
            log_start: summary.log_start.0,
            log_end: summary.log_end.0,
            segments: summary.segments,
            batches: summary.batches,
            records: summary.records,
            bytes: summary.bytes,
            file_bytes: summary.file_bytes,
            epochs: summary
                .epochs
                .iter()
                .map(|start| VerifiedEpoch {
                    epoch: start.epoch.0,
                    first_offset: start.first_offset.0,
                })
                .collect(),
            first_append_us: summary.append_times_us.map(|times| times.0),
            last_append_us: summary.append_times_us.map(|times| times.1),
            damaged: summary.damaged,
        }
    }
}

impl Totals {
    fn add(&mut self, summary: &Summary) {
        self.partitions += 1;
        self.segments += summary.segments;
        self.batches += summary.batches;
        self.records += summary.records;
        self.bytes += summary.bytes;
        self.unopened_batches += summary.unopened;
    }
}

/// Verifies a data directory and writes what it finds to `out` as it goes, but for JSON, which is
/// written at the end.
///
/// # Errors
/// [`LogToolError`] when it can't be looked at. Damage is no error: see [`Verified::whole`].
pub fn verify(options: &VerifyOptions, out: &mut impl Write) -> Result<Verified, LogToolError> {
    let mut place = Place::open(&options.selection.data_dir, waiting)?;
    let partitions = place.select(&options.selection)?;
    let mut findings = Findings {
        verified: Verified::default(),
        out: (!options.json).then_some(&mut *out),
    };
    findings.take(&mut place).map_err(LogToolError::Output)?;
    let mut topic: Option<TopicSum> = None;
    for log in partitions {
        if let Some(before) = topic.take_if(|sum| sum.id != log.topic) {
            findings.tell(&before.line())?;
        }
        let summary = audit(&mut place, log, Offset(0)..Offset(u64::MAX), &mut findings)?;
        findings.take(&mut place).map_err(LogToolError::Output)?;
        findings.verified.totals.add(&summary);
        findings.verified.partitions.push((&summary).into());
        if options.selection.topic.is_some() {
            findings.tell(&summary_line(&summary))?;
        } else {
            let sum = topic.get_or_insert_with(|| TopicSum::new(&summary));
            sum.add(&summary);
        }
    }
    let last = topic.map(|sum| sum.line());
    let mut verified = findings.verified;
    verified.whole = verified.damage.is_empty();
    verified.cluster_id = place.cluster_id().map(|id| format!("{id:032x}"));
    finish(&verified, last, options.json, out).map_err(LogToolError::Output)?;
    Ok(verified)
}

fn finish(
    verified: &Verified,
    last: Option<String>,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, verified)?;
        return writeln!(out);
    }
    if let Some(line) = last {
        writeln!(out, "{line}")?;
    }
    let totals = &verified.totals;
    let verdict = match verified.damage.len() {
        0 => "whole".to_owned(),
        1 => "DAMAGED: 1 finding above".to_owned(),
        count => format!("DAMAGED: {count} findings above"),
    };
    writeln!(
        out,
        "{verdict}: {}, {}, {}, {} checked",
        counted(totals.partitions, "partition"),
        counted(totals.batches, "batch"),
        counted(totals.records, "record"),
        figures::bytes(totals.bytes as f64),
    )?;
    if totals.unopened_batches > 0 {
        writeln!(
            out,
            "{} compressed with a codec that this build lacks: their CRCs were checked, their \
             records weren't looked at",
            counted(totals.unopened_batches, "batch")
        )?;
    }
    out.flush()
}

/// A number and its noun.
fn counted(count: u64, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "batch") => format!("{} batches", figures::count(count)),
        _ => format!("{} {noun}s", figures::count(count)),
    }
}

fn summary_line(summary: &Summary) -> String {
    let epochs = match &summary.epochs[..] {
        [] => String::new(),
        [only] => format!(", epoch {}", only.epoch),
        [first, .., last] => format!(", epochs {} to {}", first.epoch, last.epoch),
    };
    format!(
        "topic {}, partition {}: offsets {} to {} (exclusive), {}, {}, {}{epochs}{}",
        summary.topic,
        summary.log.partition,
        summary.log_start,
        summary.log_end,
        counted(summary.segments, "segment"),
        counted(summary.batches, "batch"),
        figures::bytes(summary.bytes as f64),
        damaged(summary.damaged),
    )
}

fn damaged(count: u64) -> &'static str {
    if count > 0 { ", DAMAGED" } else { "" }
}

/// A topic's partitions, summed up for one line.
struct TopicSum {
    id: TopicId,
    name: String,
    damaged: u64,
    totals: Totals,
}

impl TopicSum {
    fn new(first: &Summary) -> Self {
        Self {
            id: first.log.topic,
            name: first.topic.clone(),
            damaged: 0,
            totals: Totals::default(),
        }
    }

    fn add(&mut self, summary: &Summary) {
        self.damaged += summary.damaged;
        self.totals.add(summary);
    }

    fn line(&self) -> String {
        let totals = &self.totals;
        format!(
            "topic {}: {}, {}, {}, {}{}",
            self.name,
            counted(totals.partitions, "partition"),
            counted(totals.segments, "segment"),
            counted(totals.records, "record"),
            figures::bytes(totals.bytes as f64),
            damaged(self.damaged),
        )
    }
}

/// Keeps what is found, and writes it down at once for people.
struct Findings<'a, W> {
    verified: Verified,
    out: Option<&'a mut W>,
}

impl<W: Write> Findings<'_, W> {
    /// What was found outside of any partition.
    fn take(&mut self, place: &mut Place) -> io::Result<()> {
        for finding in std::mem::take(&mut place.damage) {
            self.damage(finding)?;
        }
        for finding in std::mem::take(&mut place.notes) {
            self.note(finding)?;
        }
        Ok(())
    }

    fn tell(&mut self, line: &str) -> Result<(), LogToolError> {
        self.line(line).map_err(LogToolError::Output)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        match &mut self.out {
            Some(out) => writeln!(out, "{line}"),
            None => Ok(()),
        }
    }
}

impl<W: Write> Watcher for Findings<'_, W> {
    fn partition(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    fn segment(&mut self, _: &Segment) -> io::Result<()> {
        Ok(())
    }

    fn batch(&mut self, _: &Seen<'_>) -> io::Result<()> {
        Ok(())
    }

    fn damage(&mut self, finding: Finding) -> io::Result<()> {
        self.line(&format!("damage: {finding}"))?;
        self.verified.damage.push(finding);
        Ok(())
    }

    fn note(&mut self, finding: Finding) -> io::Result<()> {
        self.line(&format!("note: {finding}"))?;
        self.verified.notes.push(finding);
        Ok(())
    }
}
