//! The checker finds out every kind of lie: histories that are right, each broken by hand in one
//! place.

use super::*;
use crate::history::Sent;
use crate::identity::Lane;

const RUN: u32 = 5;

fn place(partition: u32) -> Place {
    Place {
        topic: "t".to_owned(),
        partition,
    }
}

fn record(lane: u32, sequence: u64) -> Identity {
    Identity {
        run: RUN,
        lane: Lane(lane),
        sequence,
        value_bytes: 10,
    }
}

fn whole(lane: u32, sequence: u64) -> Content {
    Content::Whole(record(lane, sequence))
}

/// Everything that the checker looks at.
#[derive(Clone)]
struct Case {
    before: History,
    after: History,
    reading: Reading,
    seen: Sightings,
}

impl Case {
    /// Two lanes into partition 0 and one into partition 1; the second lane has a record refused
    /// and its last one unknown; a consumer saw the first three of partition 0.
    fn right() -> Self {
        let mut history = History::new(RUN, [place(0), place(0), place(1)]);
        let said = [
            (0, Outcome::Acknowledged(Some(0))),
            (0, Outcome::Acknowledged(Some(2))),
            (0, Outcome::Acknowledged(None)),
            (1, Outcome::Acknowledged(Some(1))),
            (1, Outcome::Refused),
            (1, Outcome::Unknown),
            (2, Outcome::Acknowledged(Some(0))),
            (2, Outcome::Unknown),
        ];
        for (lane, outcome) in said {
            let value_bytes = 10;
            let sent = &mut history.lanes[lane].sent;
            sent.push(Sent {
                value_bytes,
                outcome,
            });
        }
        let log = [
            whole(0, 0),
            whole(1, 0),
            whole(0, 1),
            whole(0, 2),
            whole(1, 2),
        ];
        let seen = Sightings {
            records: [(place(0), numbered(&log[..3]))].into(),
            errors: Vec::new(),
        };
        let reading = [(place(0), read(&log)), (place(1), read(&[whole(2, 0)]))];
        Self {
            before: history.clone(),
            after: history,
            reading: reading.into(),
            seen,
        }
    }

    fn log(&mut self, partition: u32) -> &mut Vec<(u64, Content)> {
        let reading = self
            .reading
            .get_mut(&place(partition))
            .expect("it is there");
        &mut reading.records
    }

    fn violations(&self) -> Vec<Violation> {
        check(&self.before, &self.after, &self.reading, &self.seen)
    }
}

fn numbered(records: &[Content]) -> Vec<(u64, Content)> {
    (0..).zip(records.iter().copied()).collect()
}

fn read(records: &[Content]) -> PartitionReading {
    PartitionReading {
        start: 0,
        end: records.len() as u64,
        records: numbered(records),
    }
}

/// Breaks a right history, and expects to be told so first of all.
#[track_caller]
fn breaks(by: impl FnOnce(&mut Case), expected: &Violation) {
    let mut case = Case::right();
    by(&mut case);
    let violations = case.violations();
    assert!(violations.contains(expected), "{violations:?}");
}

#[test]
fn a_right_history_passes() {
    assert_eq!(Case::right().violations(), []);
}

#[test]
fn what_is_unknown_may_be_missing_or_there() {
    let mut case = Case::right();
    case.log(0).pop();
    case.reading.get_mut(&place(0)).unwrap().end = 4;
    case.log(1).push((1, whole(2, 1)));
    case.reading.get_mut(&place(1)).unwrap().end = 2;
    assert_eq!(case.violations(), []);
}

#[test]
fn what_was_sent_while_reading_may_be_there() {
    let mut case = Case::right();
    case.before.lanes[2].sent.pop();
    case.log(1).push((1, whole(2, 1)));
    assert_eq!(case.violations(), []);
    case.after = case.before.clone();
    let expected = Violation::NeverSent(place(1), whole(2, 1), 1);
    assert_eq!(case.violations(), [expected]);
}

#[test]
fn a_lost_record_is_found_out() {
    let lost = Violation::Lost(place(1), record(2, 0));
    breaks(|case| case.log(1).clear(), &lost);
    breaks(
        |case| {
            case.reading.remove(&place(1));
        },
        &lost,
    );
}

#[test]
fn a_lost_record_without_an_offset_is_found_out() {
    let lost = Violation::Lost(place(0), record(0, 2));
    breaks(|case| case.log(0).truncate(3), &lost);
}

#[test]
fn a_short_reading_is_found_out() {
    let short = Violation::Short(place(0), 5, 4);
    breaks(
        |case| {
            case.log(0).pop();
        },
        &short,
    );
}

#[test]
fn a_record_elsewhere_is_found_out() {
    let swap = |case: &mut Case| {
        let log = case.log(0);
        (log[0].1, log[1].1) = (log[1].1, log[0].1);
    };
    breaks(swap, &Violation::Moved(place(0), record(0, 0), 1));
    breaks(
        swap,
        &Violation::Unseen(place(0), 0, whole(0, 0), Some(whole(1, 0))),
    );
}

#[test]
fn a_record_twice_is_found_out() {
    let twice = Violation::Twice(place(0), record(0, 2), 5);
    breaks(|case| case.log(0).push((5, whole(0, 2))), &twice);
}

#[test]
fn a_record_in_two_partitions_is_found_out() {
    let elsewhere = Violation::NeverSent(place(1), whole(0, 0), 1);
    breaks(|case| case.log(1).push((1, whole(0, 0))), &elsewhere);
}

#[test]
fn a_wrong_order_is_found_out() {
    let behind = Violation::OutOfOrder(place(0), record(0, 1), 3);
    breaks(
        |case| {
            let log = case.log(0);
            (log[2].1, log[3].1) = (log[3].1, log[2].1);
        },
        &behind,
    );
}

#[test]
fn a_refused_record_is_found_out() {
    let there = Violation::RefusedButThere(place(0), record(1, 1), 4);
    breaks(|case| case.log(0)[4].1 = whole(1, 1), &there);
}

#[test]
fn a_record_of_nobody_is_found_out() {
    let stranger = Violation::NeverSent(place(0), Content::Foreign, 4);
    breaks(|case| case.log(0)[4].1 = Content::Foreign, &stranger);
    let unsent = Violation::NeverSent(place(1), whole(2, 9), 1);
    breaks(|case| case.log(1).push((1, whole(2, 9))), &unsent);
    let laneless = Violation::NeverSent(place(1), whole(9, 0), 1);
    breaks(|case| case.log(1).push((1, whole(9, 0))), &laneless);
}

#[test]
fn a_record_of_another_run_or_size_is_found_out() {
    let right = record(2, 1);
    let others = [
        Identity { run: 6, ..right },
        Identity {
            value_bytes: 11,
            ..right
        },
    ];
    for other in others {
        let content = Content::Whole(other);
        let stranger = Violation::NeverSent(place(1), content, 1);
        breaks(|case| case.log(1).push((1, content)), &stranger);
    }
}

#[test]
fn altered_bytes_are_found_out() {
    let altered = Violation::Altered(place(0), record(0, 1), 2);
    let alter = |case: &mut Case| case.log(0)[2].1 = Content::Altered(record(0, 1));
    breaks(alter, &altered);
    breaks(alter, &Violation::Lost(place(0), record(0, 1)));
}

#[test]
fn a_gap_is_found_out() {
    breaks(|case| case.log(0)[4].0 = 5, &Violation::Gap(place(0), 4, 5));
    breaks(
        |case| {
            case.log(0).remove(0);
        },
        &Violation::Gap(place(0), 0, 1),
    );
}

#[test]
fn what_a_consumer_saw_and_is_gone_is_found_out() {
    let gone = Violation::Unseen(place(1), 1, whole(2, 1), None);
    breaks(
        |case| {
            let seen = vec![(0, whole(2, 0)), (1, whole(2, 1))];
            case.seen.records.insert(place(1), seen);
        },
        &gone,
    );
}

#[test]
fn what_a_consumer_saw_altered_is_found_out() {
    let altered = Content::Altered(record(0, 1));
    let unseen = Violation::Unseen(place(0), 2, altered, Some(whole(0, 1)));
    breaks(
        |case| case.seen.records.get_mut(&place(0)).unwrap()[2].1 = altered,
        &unseen,
    );
}

#[test]
fn a_consumer_that_skips_repeats_or_fails_is_found_out() {
    let skipped = Violation::Skipped(place(0), 1, 2);
    breaks(
        |case| {
            case.seen.records.get_mut(&place(0)).unwrap().remove(1);
        },
        &skipped,
    );
    let again = Violation::Skipped(place(0), 1, 0);
    breaks(
        |case| {
            let seen = case.seen.records.get_mut(&place(0)).unwrap();
            seen.insert(0, seen[0]);
        },
        &again,
    );
    let error = Violation::Consumer("it broke".to_owned());
    breaks(|case| case.seen.errors.push("it broke".to_owned()), &error);
}
