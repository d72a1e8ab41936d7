//! What is known outside the broker: which records were sent, what was said of each, and what a
//! consumer saw meanwhile.

use std::collections::BTreeMap;
use std::fmt;

use crate::identity::{Content, Identity, Lane};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The topic's name.
    pub(crate) topic: String,
    /// The partition's index.
    pub(crate) partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What a producer was told of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing yet, or nothing for certain: it may be there, once.
    Unknown,
    /// It is safe; at this offset, if the broker still knew it.
    Acknowledged(Option<u64>),
    /// It was not appended, for certain.
    Refused,
}

/// A record that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Bytes of its value.
    pub(crate) value_bytes: u32,
    /// What was said of it.
    pub(crate) outcome: Outcome,
}

/// The records of a lane, by their sequence.
#[derive(Clone, Debug)]
pub(crate) struct LaneHistory {
    /// Where they go.
    pub(crate) place: Place,
    /// Each of them.
    pub(crate) sent: Vec<Sent>,
}

/// All records of a load.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// What every record of the load bears.
    pub(crate) run: u32,
    /// The lanes, by their number.
    pub(crate) lanes: Vec<LaneHistory>,
}

impl History {
    /// A history in which nothing was sent yet.
    pub(crate) fn new(run: u32, places: impl IntoIterator<Item = Place>) -> Self {
        let lane = |place| LaneHistory {
            place,
            sent: Vec::new(),
        };
        Self {
            run,
            lanes: places.into_iter().map(lane).collect(),
        }
    }

    /// Notes a record that is about to be sent.
    pub(crate) fn invoke(&mut self, lane: Lane, value_bytes: u32) -> Identity {
        let sent = &mut self.lanes[lane.0 as usize].sent;
        let sequence = sent.len() as u64;
        sent.push(Sent {
            value_bytes,
            outcome: Outcome::Unknown,
        });
        Identity {
            run: self.run,
            lane,
            sequence,
            value_bytes,
        }
    }

    /// Notes what was said of a record.
    pub(crate) fn conclude(&mut self, record: Identity, outcome: Outcome) {
        let lane = &mut self.lanes[record.lane.0 as usize];
        lane.sent[record.sequence as usize].outcome = outcome;
    }

    /// How many records were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let all = self.lanes.iter().flat_map(|lane| &lane.sent);
        all.filter(|sent| matches!(sent.outcome, Outcome::Acknowledged(_)))
            .count()
    }
}

/// What lies in a partition from its start to the end that was asked for before reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionReading {
    /// The first offset that is there.
    pub(crate) start: u64,
    /// The offset after the last one.
    pub(crate) end: u64,
    /// Each record with its offset, in the order of reading.
    pub(crate) records: Vec<(u64, Content)>,
}

/// What lies in all partitions of a load.
pub(crate) type Reading = BTreeMap<Place, PartitionReading>;

/// What a consumer saw while the load ran, in the order of seeing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings {
    /// Each record with its offset.
    pub(crate) records: BTreeMap<Place, Vec<(u64, Content)>>,
    /// Errors that the consumer met.
    pub(crate) errors: Vec<String>,
}
