//! Flights in the trace format of Chrome, which Perfetto opens: a process for each shard, its turns
//! and commit rounds as slices, requests, disk operations and jobs as spans of their own.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};

use ringway_wire::request::RequestKind;

use super::event::{DeviceKind, Event, JobKind, RoundEvent, Step};
use super::recorder::FlightRecorder;

/// Threads of a shard's process in the trace.
const TURNS: u32 = 1;
const ROUNDS: u32 = 2;
/// Turns from this length on show their steps.
const STEPS_FROM_NS: u64 = 20_000;

/// What was copied from the recorders of all shards.
pub(crate) struct Flight {
    /// Why it was dumped.
    pub(crate) reason: String,
    /// Time of the copy: microseconds since 1970, and nanoseconds of the shards' clock.
    pub(crate) unix_us: i64,
    pub(crate) mono_ns: u64,
    shards: Vec<Shard>,
}

struct Shard {
    events: Vec<Event>,
    unfinished: Option<(u64, Step)>,
}

impl Flight {
    /// Copies what the recorders hold now.
    pub(crate) fn copy<'a>(
        reason: String,
        (unix_us, mono_ns): (i64, u64),
        recorders: impl Iterator<Item = &'a FlightRecorder>,
    ) -> Self {
        let shard = |recorder: &FlightRecorder| Shard {
            events: recorder.copy(),
            unfinished: recorder.unfinished(),
        };
        Self {
            reason,
            unix_us,
            mono_ns,
            shards: recorders.map(shard).collect(),
        }
    }

    /// Forgets what was over more than `ns` before the copy.
    pub(crate) fn keep_last(&mut self, ns: u64) {
        let from = self.mono_ns.saturating_sub(ns);
        for shard in &mut self.shards {
            shard.events.retain(|event| event.end_ns() >= from);
        }
    }
}

/// A time in microseconds, with its nanoseconds.
struct Us(u64);

impl fmt::Display for Us {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// A request that was taken and not answered yet.
struct Open {
    kind: RequestKind,
    received_ns: u64,
    appended_ns: u64,
    bytes: u32,
    shard: usize,
}

/// Writes a flight as one JSON object.
///
/// # Errors
/// What `out` says.
pub(crate) fn write_trace(flight: &Flight, out: &mut impl Write) -> io::Result<()> {
    let mut trace = Trace {
        out,
        first: true,
        requests: HashMap::new(),
        jobs: HashMap::new(),
        rounds: vec![None; flight.shards.len()],
    };
    write!(
        trace.out,
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"program\":\"ringway-broker {}\",\
         \"reason\":{},\"dumped_unix_us\":{},\"dumped_us\":{}}},\"traceEvents\":[",
        env!("CARGO_PKG_VERSION"),
        serde_json::Value::from(flight.reason.as_str()),
        flight.unix_us,
        Us(flight.mono_ns),
    )?;
    let mut all: Vec<(usize, &Event)> = Vec::new();
    for (shard, flown) in flight.shards.iter().enumerate() {
        trace.names(shard)?;
        all.extend(flown.events.iter().map(|event| (shard, event)));
    }
    // A request may be taken by one shard and answered by another.
    all.sort_by_key(|(_, event)| event.end_ns());
    for (shard, event) in all {
        trace.event(shard, event)?;
    }
    trace.still_open()?;
    for (shard, flown) in flight.shards.iter().enumerate() {
        if let Some((since_ns, step)) = flown.unfinished {
            trace.unfinished(shard, since_ns, step)?;
        }
    }
    writeln!(trace.out, "\n]}}")
}

struct Trace<'a, W> {
    out: &'a mut W,
    first: bool,
    requests: HashMap<(u64, u32), Open>,
    jobs: HashMap<(usize, u64), (JobKind, u64)>,
    /// By shard, the last round.
    rounds: Vec<Option<RoundEvent>>,
}

impl<W: Write> Trace<'_, W> {
    /// Begins an object with what every event has.
    fn begin(&mut self, name: &str, phase: char, shard: usize, at_ns: u64) -> io::Result<()> {
        let comma = if self.first { "" } else { "," };
        self.first = false;
        write!(
            self.out,
            "{comma}\n{{\"name\":\"{name}\",\"ph\":\"{phase}\",\"pid\":{},\"ts\":{}",
            shard + 1,
            Us(at_ns)
        )
    }

    fn names(&mut self, shard: usize) -> io::Result<()> {
        self.begin("process_name", 'M', shard, 0)?;
        write!(self.out, ",\"args\":{{\"name\":\"shard {shard}\"}}}}")?;
        for (thread, name) in [(TURNS, "turns"), (ROUNDS, "commit rounds")] {
            self.begin("thread_name", 'M', shard, 0)?;
            write!(
                self.out,
                ",\"tid\":{thread},\"args\":{{\"name\":\"{name}\"}}}}"
            )?;
        }
        Ok(())
    }

    /// A slice of one of the shard's threads; those within it come after it.
    fn slice(
        &mut self,
        (name, shard, thread): (&str, usize, u32),
        (at_ns, took_ns): (u64, u64),
        arguments: fmt::Arguments<'_>,
    ) -> io::Result<()> {
        self.begin(name, 'X', shard, at_ns)?;
        write!(
            self.out,
            ",\"tid\":{thread},\"dur\":{},\"args\":{{{arguments}}}}}",
            Us(took_ns)
        )
    }

    /// Begins ('b') or ends ('e') a span that may overlap others.
    fn span(
        &mut self,
        (name, category, phase): (&str, &str, char),
        (shard, at_ns): (usize, u64),
        id: fmt::Arguments<'_>,
        arguments: fmt::Arguments<'_>,
    ) -> io::Result<()> {
        self.begin(name, phase, shard, at_ns)?;
        write!(
            self.out,
            ",\"tid\":0,\"cat\":\"{category}\",\"id\":\"{id}\",\"args\":{{{arguments}}}}}"
        )
    }

    fn instant(&mut self, name: &str, (shard, at_ns): (usize, u64), source: u64) -> io::Result<()> {
        self.begin(name, 'i', shard, at_ns)?;
        write!(
            self.out,
            ",\"tid\":{TURNS},\"s\":\"t\",\"args\":{{\"connection\":\"{source:x}\"}}}}"
        )
    }

    fn event(&mut self, shard: usize, event: &Event) -> io::Result<()> {
        match *event {
            Event::Turn {
                started_ns,
                took_ns,
                steps_ns,
            } => self.turn(shard, (started_ns, took_ns), steps_ns),
            Event::Round(round) => self.round(shard, round),
            Event::Device {
                kind,
                id,
                started_ns,
                took_ns,
                bytes,
                failed,
            } => {
                let failed = if failed { ",\"failed\":true" } else { "" };
                let id = format_args!("{shard}.{id}");
                let bytes = match kind {
                    DeviceKind::Sync | DeviceKind::Flush => 0,
                    _ => bytes,
                };
                let name = (kind.name(), "disk", 'b');
                self.span(
                    name,
                    (shard, started_ns),
                    id,
                    format_args!("\"bytes\":{bytes}{failed}"),
                )?;
                let end = (shard, started_ns + took_ns);
                self.span((kind.name(), "disk", 'e'), end, id, format_args!(""))
            }
            Event::Accepted { .. } => self.accepted(shard, event),
            Event::Answered { .. } => self.answered(shard, event),
            Event::JobSent { kind, id, at_ns } => {
                self.jobs.insert((shard, id), (kind, at_ns));
                Ok(())
            }
            Event::JobDone { id, at_ns, failed } => match self.jobs.remove(&(shard, id)) {
                Some((kind, sent_ns)) => {
                    self.job(shard, id, (kind, sent_ns), failed)?;
                    let name = (kind.name(), "housekeeper", 'e');
                    self.span(
                        name,
                        (shard, at_ns),
                        format_args!("{shard}.{id}"),
                        format_args!(""),
                    )
                }
                None => Ok(()),
            },
            Event::Connected { source, at_ns } => self.instant("connected", (shard, at_ns), source),
            Event::Disconnected { source, at_ns } => {
                self.instant("disconnected", (shard, at_ns), source)
            }
        }
    }

    fn turn(
        &mut self,
        shard: usize,
        (started_ns, took_ns): (u64, u64),
        steps_ns: [u64; 3],
    ) -> io::Result<()> {
        let turn = ("turn", shard, TURNS);
        self.slice(turn, (started_ns, took_ns), format_args!(""))?;
        if took_ns < STEPS_FROM_NS {
            return Ok(());
        }
        let end_ns = started_ns + took_ns;
        let mut at_ns = started_ns;
        let last_ns = took_ns.saturating_sub(steps_ns.iter().sum());
        let [messages_ns, completions_ns, engine_ns] = steps_ns;
        for (step, step_ns) in [
            (Step::Messages, messages_ns),
            (Step::Completions, completions_ns),
            (Step::Engine, engine_ns),
            (Step::Sending, last_ns),
        ] {
            let step_ns = step_ns.min(end_ns - at_ns);
            let name = (step.name(), shard, TURNS);
            self.slice(name, (at_ns, step_ns), format_args!(""))?;
            at_ns += step_ns;
        }
        Ok(())
    }

    fn round(&mut self, shard: usize, round: RoundEvent) -> io::Result<()> {
        let RoundEvent {
            started_ns,
            written_ns,
            durable_ns,
            writes,
            bytes,
        } = round;
        let whole = (started_ns, written_ns + durable_ns);
        let arguments = format_args!("\"writes\":{writes},\"bytes\":{bytes}");
        self.slice(("round", shard, ROUNDS), whole, arguments)?;
        let write = ("write", shard, ROUNDS);
        self.slice(write, (started_ns, written_ns), format_args!(""))?;
        if durable_ns > 0 {
            let sync = (started_ns + written_ns, durable_ns);
            self.slice(("sync", shard, ROUNDS), sync, format_args!(""))?;
        }
        self.rounds[shard] = Some(round);
        Ok(())
    }

    fn accepted(&mut self, shard: usize, event: &Event) -> io::Result<()> {
        let Event::Accepted {
            kind,
            source,
            correlation,
            received_ns,
            took_ns,
            bytes,
            answered,
        } = *event
        else {
            return Ok(());
        };
        let open = Open {
            kind,
            received_ns,
            appended_ns: received_ns + took_ns,
            bytes,
            shard,
        };
        if answered {
            self.requests.insert((source, correlation), open);
            return Ok(());
        }
        let (name, id) = (name(kind), format_args!("{source:x}.{correlation:x}"));
        let arguments = format_args!("\"bytes\":{bytes},\"answer\":\"none wanted\"");
        self.span((name, "request", 'b'), (shard, received_ns), id, arguments)?;
        let end = (shard, received_ns + took_ns);
        self.span((name, "request", 'e'), end, id, format_args!(""))
    }

    /// A request from its last byte to its answer; a produce request with its stages.
    fn answered(&mut self, shard: usize, event: &Event) -> io::Result<()> {
        let Event::Answered {
            kind,
            source,
            correlation,
            received_ns,
            took_ns,
            bytes,
        } = *event
        else {
            return Ok(());
        };
        let end_ns = received_ns + took_ns;
        let open = self.requests.remove(&(source, correlation));
        let (name, id) = (name(kind), format_args!("{source:x}.{correlation:x}"));
        let begin = (name, "request", 'b');
        let at = (shard, received_ns);
        let reply = format_args!("\"reply_bytes\":{bytes}");
        match open.filter(|open| open.received_ns == received_ns) {
            None => self.span(begin, at, id, reply)?,
            Some(open) => {
                let round = self.rounds[open.shard].filter(|round| {
                    kind == RequestKind::Produce && round.started_ns >= open.appended_ns
                });
                let (sent, by, first) = (open.bytes, open.shard, open.appended_ns - received_ns);
                match round {
                    None => self.span(
                        begin,
                        at,
                        id,
                        format_args!(
                            "{reply},\"bytes\":{sent},\"shard\":{by},\"received_us\":{}",
                            Us(first)
                        ),
                    )?,
                    Some(round) => {
                        let over_ns = round.started_ns + round.written_ns + round.durable_ns;
                        self.span(
                            begin,
                            at,
                            id,
                            format_args!(
                                "{reply},\"bytes\":{sent},\"shard\":{by},\"received_us\":{},\
                                 \"queued_us\":{},\"written_us\":{},\"durable_us\":{},\
                                 \"answered_us\":{}",
                                Us(first),
                                Us(round.started_ns - open.appended_ns),
                                Us(round.written_ns),
                                Us(round.durable_ns),
                                Us(end_ns.saturating_sub(over_ns)),
                            ),
                        )?;
                    }
                }
            }
        }
        self.span(
            (name, "request", 'e'),
            (shard, end_ns),
            id,
            format_args!(""),
        )
    }

    fn job(
        &mut self,
        shard: usize,
        id: u64,
        (kind, sent_ns): (JobKind, u64),
        failed: bool,
    ) -> io::Result<()> {
        let failed = if failed { "\"failed\":true" } else { "" };
        self.span(
            (kind.name(), "housekeeper", 'b'),
            (shard, sent_ns),
            format_args!("{shard}.{id}"),
            format_args!("{failed}"),
        )
    }

    /// What has begun and isn't over: Perfetto draws it to the end.
    fn still_open(&mut self) -> io::Result<()> {
        for ((source, correlation), open) in std::mem::take(&mut self.requests) {
            self.span(
                (name(open.kind), "request", 'b'),
                (open.shard, open.received_ns),
                format_args!("{source:x}.{correlation:x}"),
                format_args!("\"bytes\":{},\"answer\":\"not yet\"", open.bytes),
            )?;
        }
        for ((shard, id), job) in std::mem::take(&mut self.jobs) {
            self.job(shard, id, job, false)?;
        }
        Ok(())
    }

    fn unfinished(&mut self, shard: usize, since_ns: u64, step: Step) -> io::Result<()> {
        self.begin("turn", 'B', shard, since_ns)?;
        write!(
            self.out,
            ",\"tid\":{TURNS},\"args\":{{\"not_over\":true,\"step\":\"{}\"}}}}",
            step.name()
        )
    }
}

/// A kind of request for people.
const fn name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Hello => "hello",
        RequestKind::Metadata => "metadata",
        RequestKind::Produce => "produce",
        RequestKind::Fetch => "fetch",
        RequestKind::ListOffsets => "list offsets",
        RequestKind::CreateTopic => "create topic",
        RequestKind::AlterTopic => "alter topic",
        RequestKind::DeleteTopic => "delete topic",
        RequestKind::DescribeTopic => "describe topic",
        RequestKind::InitProducer => "init producer",
        RequestKind::AddPartitions => "add partitions",
        RequestKind::Trim => "trim",
    }
}

#[cfg(test)]
mod tests;
