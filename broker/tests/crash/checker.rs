//! Holds what lies in the log against what producers were told and what a consumer saw. It decides
//! nothing about how the three were got.

use std::collections::HashMap;
use std::fmt;

use crate::history::{History, Outcome, PartitionReading, Place, Reading, Sightings};
use crate::identity::{Content, Identity};

#[cfg(test)]
mod tests;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An acknowledged record isn't there.
    Lost(Place, Identity),
    /// A record is there, but not where its acknowledgement said.
    Moved(Place, Identity, u64),
    /// A record is there twice.
    Twice(Place, Identity, u64),
    /// A record stands behind one that its producer sent later.
    OutOfOrder(Place, Identity, u64),
    /// A record that was refused for certain is there.
    RefusedButThere(Place, Identity, u64),
    /// A record that nobody sent, at least not here.
    NeverSent(Place, Content, u64),
    /// A record has other bytes than those that were sent.
    Altered(Place, Identity, u64),
    /// An offset is missing or stands twice: what comes instead of the one that should.
    Gap(Place, u64, u64),
    /// The records don't reach the end that the broker names.
    Short(Place, u64, u64),
    /// What a consumer has seen at an offset is gone, or it is something else now.
    Unseen(Place, u64, Content, Option<Content>),
    /// A consumer was handed an offset other than the next.
    Skipped(Place, u64, u64),
    /// A consumer met an error.
    Consumer(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(place, record) => {
                write!(f, "{place}: acknowledged and lost: {record:?}")
            }
            Self::Moved(place, record, offset) => {
                write!(
                    f,
                    "{place}: at {offset}, not where its acknowledgement said: {record:?}"
                )
            }
            Self::Twice(place, record, offset) => {
                write!(f, "{place}: again at {offset}: {record:?}")
            }
            Self::OutOfOrder(place, record, offset) => {
                write!(f, "{place}: behind a later one at {offset}: {record:?}")
            }
            Self::RefusedButThere(place, record, offset) => {
                write!(f, "{place}: refused, yet at {offset}: {record:?}")
            }
            Self::NeverSent(place, content, offset) => {
                write!(f, "{place}: nobody sent what is at {offset}: {content:?}")
            }
            Self::Altered(place, record, offset) => {
                write!(f, "{place}: other bytes at {offset}: {record:?}")
            }
            Self::Gap(place, expected, found) => {
                write!(f, "{place}: offset {found} instead of {expected}")
            }
            Self::Short(place, end, found) => {
                write!(f, "{place}: ends at {found}, but the broker says {end}")
            }
            Self::Unseen(place, offset, seen, now) => {
                write!(
                    f,
                    "{place}: a consumer saw {seen:?} at {offset}, now there is {now:?}"
                )
            }
            Self::Skipped(place, expected, found) => {
                write!(
                    f,
                    "{place}: a consumer was handed offset {found} instead of {expected}"
                )
            }
            Self::Consumer(error) => write!(f, "a consumer met an error: {error}"),
        }
    }
}

/// Everything that is wrong with what was read.
///
/// `before` is the history as it was when reading began: what was acknowledged until then has to
/// be there. `after` is the history when it had ended: what was sent until then may be there.
/// `seen` is what a consumer had seen before reading began.
pub(crate) fn check(
    before: &History,
    after: &History,
    reading: &Reading,
    seen: &Sightings,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = HashMap::new();
    for (place, partition) in reading {
        check_offsets(place, partition, &mut violations);
        check_records(place, partition, after, &mut found, &mut violations);
    }
    check_acknowledged(before, reading, &found, &mut violations);
    let errors = seen.errors.iter().cloned();
    violations.extend(errors.map(Violation::Consumer));
    for (place, sightings) in &seen.records {
        check_sightings(place, sightings, reading.get(place), &mut violations);
    }
    violations
}

fn check_offsets(place: &Place, partition: &PartitionReading, violations: &mut Vec<Violation>) {
    let mut next = partition.start;
    for (offset, _) in &partition.records {
        if *offset != next {
            violations.push(Violation::Gap(place.clone(), next, *offset));
        }
        next = offset + 1;
    }
    if next < partition.end {
        violations.push(Violation::Short(place.clone(), partition.end, next));
    }
}

/// Where each record stands, after looking at each by itself and at the order of each lane.
fn check_records(
    place: &Place,
    partition: &PartitionReading,
    history: &History,
    found: &mut HashMap<Identity, u64>,
    violations: &mut Vec<Violation>,
) {
    let mut newest = HashMap::new();
    for (offset, content) in &partition.records {
        let offset = *offset;
        let record = match *content {
            Content::Whole(record) => record,
            Content::Altered(record) => {
                violations.push(Violation::Altered(place.clone(), record, offset));
                continue;
            }
            Content::Foreign => {
                violations.push(Violation::NeverSent(place.clone(), *content, offset));
                continue;
            }
        };
        let Some(outcome) = outcome_of(history, place, record) else {
            violations.push(Violation::NeverSent(place.clone(), *content, offset));
            continue;
        };
        if found.insert(record, offset).is_some() {
            violations.push(Violation::Twice(place.clone(), record, offset));
            continue;
        }
        if newest
            .get(&record.lane)
            .is_some_and(|newest| *newest > record.sequence)
        {
            violations.push(Violation::OutOfOrder(place.clone(), record, offset));
        } else {
            newest.insert(record.lane, record.sequence);
        }
        match outcome {
            Outcome::Refused => {
                violations.push(Violation::RefusedButThere(place.clone(), record, offset));
            }
            Outcome::Acknowledged(Some(said)) if said != offset => {
                violations.push(Violation::Moved(place.clone(), record, offset));
            }
            Outcome::Acknowledged(_) | Outcome::Unknown => {}
        }
    }
}

/// What was said of a record; `None` if it was never sent, or not here.
fn outcome_of(history: &History, place: &Place, record: Identity) -> Option<Outcome> {
    let lane = history.lanes.get(record.lane.0 as usize)?;
    let sent = lane.sent.get(usize::try_from(record.sequence).ok()?)?;
    let same =
        record.run == history.run && lane.place == *place && sent.value_bytes == record.value_bytes;
    same.then_some(sent.outcome)
}

fn check_acknowledged(
    history: &History,
    reading: &Reading,
    found: &HashMap<Identity, u64>,
    violations: &mut Vec<Violation>,
) {
    for (lane, records) in history.lanes.iter().enumerate() {
        let start = reading.get(&records.place).map_or(0, |each| each.start);
        for (sequence, sent) in records.sent.iter().enumerate() {
            let record = Identity {
                run: history.run,
                lane: crate::identity::Lane(lane as u32),
                sequence: sequence as u64,
                value_bytes: sent.value_bytes,
            };
            // Before the partition's start it has gone by retention; where it was not said, it may
            // have been there.
            let stays = match sent.outcome {
                Outcome::Acknowledged(Some(offset)) => offset >= start,
                Outcome::Acknowledged(None) => start == 0,
                Outcome::Unknown | Outcome::Refused => false,
            };
            if stays && !found.contains_key(&record) {
                violations.push(Violation::Lost(records.place.clone(), record));
            }
        }
    }
}

fn check_sightings(
    place: &Place,
    sightings: &[(u64, Content)],
    reading: Option<&PartitionReading>,
    violations: &mut Vec<Violation>,
) {
    let now: HashMap<u64, Content> = reading
        .into_iter()
        .flat_map(|reading| reading.records.iter().copied())
        .collect();
    let start = reading.map_or(0, |reading| reading.start);
    let mut next = sightings.first().map_or(0, |(offset, _)| *offset);
    for (offset, content) in sightings {
        if *offset != next {
            violations.push(Violation::Skipped(place.clone(), next, *offset));
        }
        next = offset + 1;
        let there = now.get(offset).copied();
        if *offset >= start && there != Some(*content) {
            violations.push(Violation::Unseen(place.clone(), *offset, *content, there));
        }
    }
}
