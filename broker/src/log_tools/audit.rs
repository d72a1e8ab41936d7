//! One partition from its first segment to its end: what a start would find of it, then every
//! batch, and whether side files and checkpoint say the same.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use ringway_engine::device::SegmentName;
use ringway_engine::log::{
    Chain, CheckpointEntry, Cut, Damage, EpochStart, Found, FoundSegment, ReadFailed, Recovered,
    Recovery, Side, Step as RecoveryStep,
};
use ringway_wire::batch::BatchHeader;
use ringway_wire::{LeaderEpoch, Offset, TopicPartition};

use super::finding::Finding;
use super::marks::Marks;
use super::place::{LogToolError, Place, entries};
use super::segment_file::SegmentFile;
use super::walk::{Defect, Source as _, Step, Walk};
use crate::data_dir;

/// A segment that is part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) base: Offset,
    /// The offset after its last.
    pub(super) end: Offset,
    pub(super) file_bytes: u64,
    /// Bytes in which its batches lie: of the one being written those up to the log's end.
    limit: u64,
    pub(super) sealed: bool,
    /// The file, from the data directory on.
    pub(super) file: String,
    path: PathBuf,
}

/// A batch as it is met.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) file: &'a str,
    pub(super) position: u64,
    pub(super) header: &'a BatchHeader,
    /// Its bytes; `None` where something is wrong with them.
    pub(super) bytes: Option<&'a [u8]>,
}

/// Whoever is told what is met, in the order of the log. An error ends the audit.
pub(super) trait Watcher {
    /// A partition begins.
    fn partition(&mut self, head: &Summary) -> io::Result<()>;
    /// A segment begins.
    fn segment(&mut self, segment: &Segment) -> io::Result<()>;
    /// A batch whose header is right.
    fn batch(&mut self, seen: &Seen<'_>) -> io::Result<()>;
    /// Something is damaged.
    fn damage(&mut self, finding: Finding) -> io::Result<()>;
    /// Something is worth knowing.
    fn note(&mut self, finding: Finding) -> io::Result<()>;
}

/// What there is of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) topic: String,
    pub(super) log: TopicPartition,
    pub(super) log_start: Offset,
    /// Offset of the next record.
    pub(super) log_end: Offset,
    pub(super) segments: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    /// Bytes of batches.
    pub(super) bytes: u64,
    /// Bytes of segments' files, also of those prepared ahead.
    pub(super) file_bytes: u64,
    /// Batches compressed with a codec that this build lacks: their records weren't looked at.
    pub(super) unopened: u64,
    /// The leader epochs that have a batch, and the first offset in each.
    pub(super) epochs: Vec<EpochStart>,
    /// Of the first and the last batch, in microseconds since 1970.
    pub(super) append_times_us: Option<(i64, i64)>,
    /// Findings of damage.
    pub(super) damaged: u64,
}

impl Summary {
    fn count(&mut self, header: &BatchHeader, opened: bool) {
        self.batches += 1;
        self.records += u64::from(header.record_count);
        self.bytes += u64::from(header.batch_bytes);
        self.unopened += u64::from(!opened);
        let (epoch, first_offset) = (header.leader_epoch, header.base_offset);
        if self.epochs.last().is_none_or(|last| last.epoch != epoch) {
            self.epochs.push(EpochStart {
                epoch,
                first_offset,
            });
        }
        let first_us = self
            .append_times_us
            .map_or(header.append_time_us, |times| times.0);
        self.append_times_us = Some((first_us, header.append_time_us));
    }
}

/// Looks through one partition; segments that have nothing of `offsets` are left out.
///
/// # Errors
/// When the directory can't be read, or the watcher has had enough.
pub(super) fn audit(
    place: &mut Place,
    log: TopicPartition,
    offsets: Range<Offset>,
    watcher: &mut impl Watcher,
) -> Result<Summary, LogToolError> {
    let files = list(place, log)?;
    let checkpoint = place.checkpoints.get(&log).cloned();
    let recovered = recover(place, log, &files, checkpoint.clone());
    let mut audit = Audit {
        place,
        log,
        checkpoint,
        sides: files.sides,
        summary: Summary {
            log,
            log_start: recovered.log_start,
            log_end: recovered.next_offset,
            file_bytes: files.segments.iter().map(|file| file.file_bytes).sum(),
            ..Summary::default()
        },
        watcher,
    };
    audit.summary.topic = audit.place.name(log.topic);
    audit
        .run(&recovered, &offsets)
        .map_err(LogToolError::Output)?;
    Ok(audit.summary)
}

/// The files of a partition's directory.
#[derive(Default)]
struct Files {
    segments: Vec<FoundSegment>,
    sides: BTreeSet<Offset>,
}

fn list(place: &mut Place, log: TopicPartition) -> Result<Files, LogToolError> {
    let mut files = Files::default();
    for (name, path) in entries(&place.layout.partition(log))? {
        let side = name.strip_suffix(".side").map(|base| format!("{base}.log"));
        let side = side.and_then(|name| data_dir::parse_segment(&name));
        if let Some(SegmentName::Base(base)) = side {
            files.sides.insert(base);
        } else if let Some(name) = data_dir::parse_segment(&name) {
            let io_error = |source| LogToolError::Io {
                path: path.clone(),
                source,
            };
            let file_bytes = path.metadata().map_err(io_error)?.len();
            files.segments.push(FoundSegment { name, file_bytes });
        } else if !name.ends_with(data_dir::TEMPORARY) {
            place.note_foreign(&path);
        }
    }
    Ok(files)
}

/// What a start would make of the partition.
fn recover(
    place: &Place,
    log: TopicPartition,
    files: &Files,
    checkpoint: Option<CheckpointEntry>,
) -> Box<Recovered> {
    let mut recovery = Recovery::new(Found {
        log,
        segments: files.segments.clone(),
        checkpoint,
    });
    let mut open: Option<(SegmentName, Option<SegmentFile>)> = None;
    loop {
        match recovery.step() {
            RecoveryStep::LoadSide { base } => {
                let bytes = std::fs::read(place.layout.side(log, base)).ok();
                recovery.side(bytes.as_deref());
            }
            RecoveryStep::Read {
                name,
                position,
                bytes,
            } => {
                if open.as_ref().is_none_or(|(open, _)| *open != name) {
                    let path = place.layout.segment(log, name);
                    open = Some((name, SegmentFile::open(&path).ok()));
                }
                let file = open.as_mut().and_then(|(_, file)| file.as_mut());
                let read = file.map_or(Err(ReadFailed), |file| file.bytes(position.0, bytes));
                recovery.read(read);
            }
            RecoveryStep::Finished(recovered) => return recovered,
        }
    }
}

struct Audit<'a, W> {
    place: &'a Place,
    log: TopicPartition,
    checkpoint: Option<CheckpointEntry>,
    sides: BTreeSet<Offset>,
    summary: Summary,
    watcher: &'a mut W,
}

impl<W: Watcher> Audit<'_, W> {
    fn run(&mut self, recovered: &Recovered, offsets: &Range<Offset>) -> io::Result<()> {
        self.watcher.partition(&self.summary)?;
        let mut chain: Option<Chain> = None;
        let gone = recovered.log_start;
        for segment in self.plan(recovered) {
            if segment.end <= gone && segment.end > segment.base {
                let problem = "it lies below the log's start, and goes at the next start";
                let note = Finding::new("removable", problem).in_file(segment.file);
                self.note(note)?;
                continue;
            }
            let is_empty = segment.end == segment.base;
            if segment.base >= offsets.end || (segment.end <= offsets.start && !is_empty) {
                continue;
            }
            let before = chain.unwrap_or(Chain::start(self.log.log_id(), segment.base));
            let before = self.connect(before, &segment)?;
            chain = Some(self.segment(&segment, before)?);
        }
        self.lost(recovered)?;
        self.left_over(recovered)?;
        self.check_epochs()
    }

    /// The segments of the log, in its order.
    fn plan(&self, recovered: &Recovered) -> Vec<Segment> {
        let make = |name, base, end, file_bytes, limit, sealed| {
            let path = self.place.layout.segment(self.log, name);
            Segment {
                name,
                base,
                end,
                file_bytes,
                limit,
                sealed,
                file: self.place.shown(&path),
                path,
            }
        };
        let active = recovered.active.as_ref();
        let last = active.map_or(recovered.next_offset, |active| active.base);
        let bases = recovered.sealed.iter().map(|sealed| sealed.base);
        let ends = bases.skip(1).chain([last]);
        let sealed = recovered.sealed.iter().zip(ends).map(|(sealed, end)| {
            let name = SegmentName::Base(sealed.base);
            let bytes = sealed.file_bytes;
            make(name, sealed.base, end, bytes, bytes, true)
        });
        let active = active.map(|active| {
            let name = match active.adopted_next {
                true => SegmentName::Next,
                false => SegmentName::Base(active.base),
            };
            let (end, limit) = (recovered.next_offset, active.position.0);
            make(name, active.base, end, active.file_bytes, limit, false)
        });
        sealed.chain(active).collect()
    }

    /// The chain as it has to be where a segment begins.
    fn connect(&mut self, mut chain: Chain, segment: &Segment) -> io::Result<Chain> {
        if chain.next_offset < segment.base {
            let missing = Finding::new("gap", "no segment has what was before this one")
                .in_file(segment.file.clone())
                .offsets(chain.next_offset, segment.base);
            self.damage(missing)?;
            chain.next_offset = segment.base;
            chain.last_header_crc = None;
        }
        Ok(chain)
    }

    fn segment(&mut self, segment: &Segment, chain: Chain) -> io::Result<Chain> {
        self.summary.segments += 1;
        self.watcher.segment(segment)?;
        let mut file = match SegmentFile::open(&segment.path) {
            Ok(file) => file,
            Err(error) => {
                let finding = Finding::new("unreadable", error.to_string());
                self.damage(
                    finding
                        .in_file(segment.file.clone())
                        .offsets(segment.base, segment.end),
                )?;
                return Ok(Chain {
                    next_offset: segment.end,
                    last_header_crc: None,
                    ..chain
                });
            }
        };
        let mut marks = self.marks(segment)?;
        let mut walk = Walk::new(chain, segment.limit, segment.end);
        loop {
            let position = walk.position;
            marks
                .iter_mut()
                .for_each(|marks| marks.pass(position, &walk.chain));
            match walk.next(&mut file) {
                None => break,
                Some(Step::Batch {
                    position,
                    header,
                    defect,
                    opened,
                }) => {
                    if defect.is_none() {
                        self.summary.count(&header, opened);
                    }
                    self.batch(segment, &mut file, position, &header, defect)?;
                }
                Some(broken) => {
                    let goes_on = self.broken(segment, broken, &marks)?;
                    let to = goes_on.unwrap_or(u64::MAX);
                    marks.iter_mut().for_each(|marks| marks.skip(to));
                }
            }
        }
        for mut marks in marks {
            marks.finish(walk.position);
            if let Some(problem) = marks.wrong {
                let problem = format!("it contradicts {}: {problem}", segment.file);
                self.damage(Finding::new("contradiction", problem).in_file(marks.file))?;
            }
        }
        Ok(walk.chain)
    }

    /// What other files say of a segment.
    fn marks(&mut self, segment: &Segment) -> io::Result<Vec<Marks>> {
        let mut marks = Vec::new();
        let checkpoint = self.checkpoint.as_ref();
        if let Some(entry) = checkpoint.filter(|entry| entry.segment_base == segment.base) {
            marks.push(Marks::of_checkpoint("the checkpoint".to_owned(), entry));
        }
        if !segment.sealed {
            return Ok(marks);
        }
        let path = self.place.layout.side(self.log, segment.base);
        let file = self.place.shown(&path);
        if !self.sides.contains(&segment.base) {
            let problem =
                "its side file is missing, as a crash leaves it; the broker makes it again";
            self.note(Finding::new("no_side_file", problem).in_file(segment.file.clone()))?;
            return Ok(marks);
        }
        let bytes = std::fs::read(&path).map_err(|error| error.to_string());
        let side = bytes.and_then(|bytes| {
            Side::decode(&bytes, self.log.log_id(), segment.base).map_err(|error| error.to_string())
        });
        match side {
            Ok(side) => marks.push(Marks::of_side(file, &side)),
            Err(error) => {
                let problem = format!("{error}; the broker makes it again from the segment");
                self.damage(Finding::new("side_file", problem).in_file(file))?;
            }
        }
        Ok(marks)
    }

    fn batch(
        &mut self,
        segment: &Segment,
        file: &mut SegmentFile,
        position: u64,
        header: &BatchHeader,
        defect: Option<Defect>,
    ) -> io::Result<()> {
        let whole = defect.is_none();
        if let Some(defect) = defect {
            let finding = Finding::new(defect.kind(), defect.to_string())
                .in_file(segment.file.clone())
                .at(position)
                .offsets(header.base_offset, header.next_offset());
            self.damage(finding)?;
        }
        let bytes = file.bytes(position, header.batch_bytes as usize).ok();
        self.watcher.batch(&Seen {
            file: &segment.file,
            position,
            header,
            bytes: bytes.filter(|_| whole),
        })
    }

    /// Tells of a break, and where the segment goes on.
    fn broken(
        &mut self,
        segment: &Segment,
        step: Step,
        marks: &[Marks],
    ) -> io::Result<Option<u64>> {
        let Step::Broken {
            position,
            from,
            to,
            resumed,
            defect,
        } = step
        else {
            return Ok(None);
        };
        let ends = |marks: &Marks| segment.sealed && marks.ends_at(position, from);
        if resumed.is_none() && marks.iter().any(ends) {
            let problem = "this segment is whole, and the one that follows it is missing";
            let missing = Finding::new("missing_segment", problem).in_file(segment.file.clone());
            self.damage(missing.at(position).offsets(from, to))?;
            return Ok(None);
        }
        let goes_on = match resumed {
            Some(at) if at > position => format!("; the log goes on at position {at}"),
            Some(_) => String::new(),
            None => "; nothing of the log follows in this file".to_owned(),
        };
        let finding = Finding::new(defect.kind(), format!("{defect}{goes_on}"))
            .in_file(segment.file.clone())
            .at(position)
            .offsets(from, to);
        self.damage(finding)?;
        Ok(resumed)
    }

    /// What recovery says is lost, where no segment that was walked through shows it.
    fn lost(&mut self, recovered: &Recovered) -> io::Result<()> {
        for damage in &recovered.damage {
            let finding = match *damage {
                // Met on the walk.
                Damage::Hole { .. } => continue,
                Damage::LostTail { from, to } => {
                    let mut finding = Finding::new("lost_tail", damage.to_string());
                    if let Some(active) = &recovered.active {
                        let name = match active.adopted_next {
                            true => SegmentName::Next,
                            false => SegmentName::Base(active.base),
                        };
                        finding = finding.in_file(self.file(name)).at(active.position.0);
                    }
                    finding.offsets(from, to)
                }
                Damage::LostHead { from, to } => {
                    Finding::new("lost_head", damage.to_string()).offsets(from, to)
                }
                Damage::Unreadable {
                    segment, position, ..
                } => Finding::new("unreadable", damage.to_string())
                    .in_file(self.file(segment))
                    .at(position.0),
                Damage::Unproven { from, first } => Finding::new("unproven", damage.to_string())
                    .in_file(self.file(SegmentName::Base(first)))
                    .offsets(from, first),
            };
            self.damage(finding)?;
        }
        Ok(())
    }

    /// What a crash may leave behind the log's end.
    fn left_over(&mut self, recovered: &Recovered) -> io::Result<()> {
        if let Some(cut) = &recovered.cut {
            let whole = match self.whole_behind(cut) {
                0 => String::new(),
                1 => "; one whole batch follows it".to_owned(),
                count => format!("; {count} whole batches follow it"),
            };
            let problem = format!(
                "the log ends here, before a batch that isn't whole ({}): what a crash leaves of a \
                 write that wasn't acknowledged{whole}",
                cut.reason
            );
            let note = Finding::new("torn_tail", problem)
                .in_file(self.file(cut.segment))
                .at(cut.position.0);
            self.note(note)?;
        }
        for &base in &recovered.orphans {
            let problem = match recovered.damage.is_empty() {
                true => "no part of the log: what a crash leaves of what wasn't acknowledged",
                false => "no part of the log as far as a start can tell; it is kept aside",
            };
            let note = Finding::new("left_over", problem);
            self.note(note.in_file(self.file(SegmentName::Base(base))))?;
        }
        Ok(())
    }

    /// How many whole batches follow one that isn't: few after a crash, which tears what was being
    /// written; many are a sign of decay.
    fn whole_behind(&self, cut: &Cut) -> u64 {
        let path = self.place.layout.segment(self.log, cut.segment);
        let file = SegmentFile::open(&path).and_then(|file| Ok((file, path.metadata()?.len())));
        let Ok((mut file, file_bytes)) = file else {
            return 0;
        };
        let chain = Chain::start(self.log.log_id(), cut.offset);
        let mut walk = Walk::onwards(chain, cut.position.0, file_bytes);
        let steps = std::iter::from_fn(|| walk.next(&mut file));
        let whole = steps.skip(1).take_while(|step| {
            let defect = match step {
                Step::Batch { defect, .. } => defect.as_ref(),
                Step::Broken { defect, .. } => Some(defect),
            };
            defect.is_none()
        });
        whole.count() as u64
    }

    /// No batch is of an epoch that the metadata has yet to open.
    fn check_epochs(&mut self) -> io::Result<()> {
        let topic = self.place.topic(self.log.topic);
        let known = topic.and_then(|topic| topic.partition(self.log.partition));
        let latest = self.summary.epochs.iter().map(|start| start.epoch).max();
        let (Some(known), Some(latest)) = (known, latest) else {
            return Ok(());
        };
        let LeaderEpoch(opened) = known.leader_epoch;
        if latest.0 > opened {
            let problem = format!(
                "batches of epoch {latest} are there, and the metadata has opened {opened} epochs \
                 only: it is older than the log"
            );
            return self.damage(Finding::new("metadata_behind", problem));
        }
        Ok(())
    }

    fn file(&self, name: SegmentName) -> String {
        self.place.shown(&self.place.layout.segment(self.log, name))
    }

    fn damage(&mut self, finding: Finding) -> io::Result<()> {
        self.summary.damaged += 1;
        let finding = finding.of(&self.summary.topic, self.log);
        self.watcher.damage(finding)
    }

    fn note(&mut self, finding: Finding) -> io::Result<()> {
        let finding = finding.of(&self.summary.topic, self.log);
        self.watcher.note(finding)
    }
}
