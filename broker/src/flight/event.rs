//! One event in 32 bytes: when it began, how long it took, and two numbers whose meaning is that
//! of its kind.

use ringway_wire::request::RequestKind;

/// What the parts of a turn of a shard's loop are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Nothing: it sleeps, or enters the kernel.
    Rest = 0,
    /// Messages of other threads.
    Messages = 1,
    /// Completions of the ring, and the requests in what was received.
    Completions = 2,
    /// The engine's turn, and carrying out what it wants.
    Engine = 3,
    /// Sending replies, messages and reports.
    Sending = 4,
}

impl Step {
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Messages,
            2 => Self::Completions,
            3 => Self::Engine,
            4 => Self::Sending,
            _ => Self::Rest,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Messages => "messages",
            Self::Completions => "completions",
            Self::Engine => "engine",
            Self::Sending => "sending",
        }
    }
}

/// An operation on the shard's own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DeviceKind {
    Write = 0,
    DurableWrite = 1,
    Read = 2,
    Sync = 3,
    Flush = 4,
}

impl DeviceKind {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Write,
            1 => Self::DurableWrite,
            2 => Self::Read,
            3 => Self::Sync,
            _ => Self::Flush,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::DurableWrite => "durable write",
            Self::Read => "read",
            Self::Sync => "sync",
            Self::Flush => "flush",
        }
    }
}

/// A job of the housekeeper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum JobKind {
    Prepare = 0,
    Fill = 1,
    Name = 2,
    SaveSide = 3,
    LoadSide = 4,
    SaveCheckpoint = 5,
    Remove = 6,
    RemovePartition = 7,
    Other = 8,
}

impl JobKind {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Prepare,
            1 => Self::Fill,
            2 => Self::Name,
            3 => Self::SaveSide,
            4 => Self::LoadSide,
            5 => Self::SaveCheckpoint,
            6 => Self::Remove,
            7 => Self::RemovePartition,
            _ => Self::Other,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare a segment",
            Self::Fill => "fill a segment",
            Self::Name => "name a segment",
            Self::SaveSide => "save a side file",
            Self::LoadSide => "load a side file",
            Self::SaveCheckpoint => "save the checkpoint",
            Self::Remove => "remove a segment",
            Self::RemovePartition => "remove a partition",
            Self::Other => "job",
        }
    }
}

/// A commit round that is over. Times are nanoseconds of the shards' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundEvent {
    pub(crate) started_ns: u64,
    /// How long the writes took, and then the sync.
    pub(crate) written_ns: u64,
    pub(crate) durable_ns: u64,
    pub(crate) writes: u32,
    pub(crate) bytes: u64,
}

/// Something that happened on a shard. Times are nanoseconds of the shards' clock; times that took
/// longer than 4.29 s are cut to that, but for the length of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A turn is over.
    Turn {
        started_ns: u64,
        took_ns: u64,
        /// Of messages, completions and the engine; the rest was sending.
        steps_ns: [u64; 3],
    },
    /// A request was taken by the shard that answers it: from its last byte to the end of its
    /// checks; a batch is appended then.
    Accepted {
        kind: RequestKind,
        source: u64,
        correlation: u32,
        received_ns: u64,
        took_ns: u64,
        bytes: u32,
        /// Whether it will be answered.
        answered: bool,
    },
    /// A request was answered: from its last byte to its reply on the way to the client.
    Answered {
        kind: RequestKind,
        source: u64,
        correlation: u32,
        received_ns: u64,
        took_ns: u64,
        bytes: u32,
    },
    /// An operation on the shard's files is over.
    Device {
        kind: DeviceKind,
        id: u64,
        started_ns: u64,
        took_ns: u64,
        bytes: u64,
        failed: bool,
    },
    /// A commit round is over.
    Round(RoundEvent),
    /// The housekeeper was asked for something.
    JobSent { kind: JobKind, id: u64, at_ns: u64 },
    /// The housekeeper is done with it.
    JobDone { id: u64, at_ns: u64, failed: bool },
    /// A client has connected.
    Connected { source: u64, at_ns: u64 },
    /// A connection is gone.
    Disconnected { source: u64, at_ns: u64 },
}

const TURN: u64 = 1;
const ACCEPTED: u64 = 2;
const ANSWERED: u64 = 3;
const DEVICE: u64 = 4;
const ROUND: u64 = 5;
const JOB_SENT: u64 = 6;
const JOB_DONE: u64 = 7;
const CONNECTED: u64 = 8;
const DISCONNECTED: u64 = 9;

/// A number in 32 bits, cut to the largest.
const fn short(number: u64) -> u64 {
    if number > u32::MAX as u64 {
        u32::MAX as u64
    } else {
        number
    }
}

const fn low(word: u64) -> u64 {
    word & u32::MAX as u64
}

/// Kind, detail (a byte), a flag, and a length of time in the upper half.
const fn tagged(kind: u64, detail: u64, flag: bool, took_ns: u64) -> u64 {
    kind | detail << 8 | (flag as u64) << 16 | short(took_ns) << 32
}

impl Event {
    /// The event in four words.
    pub(super) const fn encode(&self) -> [u64; 4] {
        match *self {
            Self::Turn {
                started_ns,
                took_ns,
                steps_ns: [messages_ns, completions_ns, engine_ns],
            } => {
                // A turn may stand still for long, and its third word is its own.
                let first = tagged(TURN, 0, false, messages_ns);
                let steps = short(completions_ns) | short(engine_ns) << 32;
                [started_ns, first, took_ns, steps]
            }
            Self::Accepted {
                kind,
                source,
                correlation,
                received_ns,
                took_ns,
                bytes,
                answered,
            } => {
                let first = tagged(ACCEPTED, kind as u64, answered, took_ns);
                let rest = correlation as u64 | (bytes as u64) << 32;
                [received_ns, first, source, rest]
            }
            Self::Answered {
                kind,
                source,
                correlation,
                received_ns,
                took_ns,
                bytes,
            } => {
                let first = tagged(ANSWERED, kind as u64, false, took_ns);
                let rest = correlation as u64 | (bytes as u64) << 32;
                [received_ns, first, source, rest]
            }
            Self::Device {
                kind,
                id,
                started_ns,
                took_ns,
                bytes,
                failed,
            } => {
                let first = tagged(DEVICE, kind as u64, failed, took_ns);
                [started_ns, first, id, bytes]
            }
            Self::Round(round) => {
                let first = tagged(ROUND, 0, false, round.durable_ns);
                let second = short(round.written_ns) | (round.writes as u64) << 32;
                [round.started_ns, first, second, round.bytes]
            }
            Self::JobSent { kind, id, at_ns } => {
                [at_ns, tagged(JOB_SENT, kind as u64, false, 0), id, 0]
            }
            Self::JobDone { id, at_ns, failed } => [at_ns, tagged(JOB_DONE, 0, failed, 0), id, 0],
            Self::Connected { source, at_ns } => [at_ns, tagged(CONNECTED, 0, false, 0), source, 0],
            Self::Disconnected { source, at_ns } => {
                [at_ns, tagged(DISCONNECTED, 0, false, 0), source, 0]
            }
        }
    }

    /// The event of four words; `None` where there is none yet.
    pub(super) fn decode([at_ns, first, a, b]: [u64; 4]) -> Option<Self> {
        let detail = (first >> 8) as u8;
        let flag = first >> 16 & 1 == 1;
        let took_ns = first >> 32;
        let request = || RequestKind::from_number(detail.into());
        Some(match first & 0xff {
            TURN => Self::Turn {
                started_ns: at_ns,
                took_ns: a,
                steps_ns: [took_ns, low(b), b >> 32],
            },
            ACCEPTED => Self::Accepted {
                kind: request()?,
                source: a,
                correlation: low(b) as u32,
                received_ns: at_ns,
                took_ns,
                bytes: (b >> 32) as u32,
                answered: flag,
            },
            ANSWERED => Self::Answered {
                kind: request()?,
                source: a,
                correlation: low(b) as u32,
                received_ns: at_ns,
                took_ns,
                bytes: (b >> 32) as u32,
            },
            DEVICE => Self::Device {
                kind: DeviceKind::from_number(detail),
                id: a,
                started_ns: at_ns,
                took_ns,
                bytes: b,
                failed: flag,
            },
            ROUND => Self::Round(RoundEvent {
                started_ns: at_ns,
                written_ns: low(a),
                durable_ns: took_ns,
                writes: (a >> 32) as u32,
                bytes: b,
            }),
            JOB_SENT => Self::JobSent {
                kind: JobKind::from_number(detail),
                id: a,
                at_ns,
            },
            JOB_DONE => Self::JobDone {
                id: a,
                at_ns,
                failed: flag,
            },
            CONNECTED => Self::Connected { source: a, at_ns },
            DISCONNECTED => Self::Disconnected { source: a, at_ns },
            _ => return None,
        })
    }

    /// When it was over.
    pub(super) const fn end_ns(&self) -> u64 {
        match *self {
            Self::Turn {
                started_ns,
                took_ns,
                ..
            }
            | Self::Device {
                started_ns,
                took_ns,
                ..
            } => started_ns + took_ns,
            Self::Accepted {
                received_ns,
                took_ns,
                ..
            }
            | Self::Answered {
                received_ns,
                took_ns,
                ..
            } => received_ns + took_ns,
            Self::Round(round) => round.started_ns + round.written_ns + round.durable_ns,
            Self::JobSent { at_ns, .. }
            | Self::JobDone { at_ns, .. }
            | Self::Connected { at_ns, .. }
            | Self::Disconnected { at_ns, .. } => at_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_back() {
        let mut events = vec![
            Event::Turn {
                started_ns: 1 << 50,
                took_ns: 1 << 40,
                steps_ns: [7, 8, 9],
            },
            Event::Round(RoundEvent {
                started_ns: 77,
                written_ns: 1_000,
                durable_ns: 2_000,
                writes: 512,
                bytes: 1 << 33,
            }),
            Event::JobDone {
                id: 3,
                at_ns: 9,
                failed: true,
            },
            Event::Connected {
                source: u64::MAX,
                at_ns: 1,
            },
            Event::Disconnected {
                source: 5,
                at_ns: 2,
            },
        ];
        for &kind in RequestKind::ALL {
            events.push(Event::Accepted {
                kind,
                source: u64::MAX,
                correlation: u32::MAX,
                received_ns: 5,
                took_ns: 6,
                bytes: u32::MAX,
                answered: true,
            });
            events.push(Event::Answered {
                kind,
                source: 1,
                correlation: 2,
                received_ns: 3,
                took_ns: u32::MAX.into(),
                bytes: 4,
            });
        }
        for number in 0..5 {
            events.push(Event::Device {
                kind: DeviceKind::from_number(number),
                id: 4,
                started_ns: 5,
                took_ns: 6,
                bytes: 1 << 40,
                failed: number == 1,
            });
        }
        for number in 0..9 {
            events.push(Event::JobSent {
                kind: JobKind::from_number(number),
                id: 1,
                at_ns: 2,
            });
        }
        for event in events {
            assert_eq!(Event::decode(event.encode()), Some(event));
        }
        assert_eq!(Event::decode([0; 4]), None, "memory that nobody wrote");
    }

    #[test]
    fn what_takes_too_long_is_cut() {
        let round = RoundEvent {
            started_ns: 0,
            written_ns: 1 << 40,
            durable_ns: 1 << 40,
            writes: 1,
            bytes: 0,
        };
        let Some(Event::Round(cut)) = Event::decode(Event::Round(round).encode()) else {
            panic!("it is a round");
        };
        assert_eq!((cut.written_ns, cut.durable_ns), (0xffff_ffff, 0xffff_ffff));
        assert_eq!(cut.writes, 1);
    }
}
