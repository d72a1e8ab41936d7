//! What can be wrong with what arrived: counted by kind, with the first case of each in words.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A way in which records can fail to be as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A record was refused or given up by the producer.
    NotAcknowledged,
    /// An acknowledgement for a record that was not sent or had been acknowledged before.
    AcknowledgedTwice,
    /// Offsets or sequences were left out.
    Gap,
    /// Offsets or sequences came again, or in the wrong order.
    Repeated,
    /// A record's CRC doesn't match its bytes.
    Damaged,
    /// A value is no sample, or not one of its partition.
    NotASample,
    /// Every single record looks right, but the bytes are not those that were sent.
    Different,
    /// Records were sent and never arrived.
    Missing,
    /// More records are there than were sent.
    TooMany,
    /// The consumer failed.
    NotConsumed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAcknowledged => "not acknowledged",
            Self::AcknowledgedTwice => "acknowledged twice",
            Self::Gap => "left out",
            Self::Repeated => "repeated or out of order",
            Self::Damaged => "damaged",
            Self::NotASample => "not a sample",
            Self::Different => "other bytes than sent",
            Self::Missing => "missing",
            Self::TooMany => "too many",
            Self::NotConsumed => "not consumed",
        })
    }
}

/// Problems of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// The kind.
    pub(super) kind: Kind,
    /// How many records it concerns.
    pub(super) count: u64,
    /// The first of them in words.
    pub(super) first: String,
}

/// All that was found wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(BTreeMap<Kind, Problem>);

impl Problems {
    /// Counts `count` records; `first` is asked for only the first time.
    pub(super) fn add(&mut self, kind: Kind, count: u64, first: impl FnOnce() -> String) {
        self.0
            .entry(kind)
            .or_insert_with(|| Problem {
                kind,
                count: 0,
                first: first(),
            })
            .count += count;
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those found, by kind.
    pub(super) fn list(&self) -> Vec<Problem> {
        self.0.values().cloned().collect()
    }

    /// Takes over what was found elsewhere.
    pub(super) fn extend(&mut self, others: &Self) {
        for problem in others.0.values() {
            self.add(problem.kind, problem.count, || problem.first.clone());
        }
    }
}
