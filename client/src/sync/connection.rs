//! A connection of the synchronous face: a socket that never waits, looked at when asked to.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec;

use ringway_wire::Fault;
use ringway_wire::batch::BatchBytes;
use ringway_wire::frame::{Frame, FrameDecoder};
use ringway_wire::limits::FRAME_BYTES_MAX;
use ringway_wire::request::Reply;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Address, ClientConfig};
use crate::core::fetch::FetchedBytes;
use crate::core::outbox::{Outbox, Submission};
use crate::core::{Token, inbox};
use crate::error::ConnectionLost;
use crate::limits::{CONNECTION_REQUESTS_MAX, TURN_READS_MAX};

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The connection itself, with hello.
    Connection,
    /// A question of its own number.
    Question(u64),
    /// The producer's or consumer's core.
    Core(Token),
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The reply, with its batches.
    Replied(Reply, Option<FetchedBytes>),
    /// The last byte of a request without a reply was written.
    Written,
    /// No reply will come.
    Lost(ConnectionLost),
}

/// What became of whose request.
pub(super) type Event = (Who, Outcome);

/// Why a connection has ended.
#[derive(Debug)]
pub(super) struct Stop {
    why: String,
    refused: Option<Fault>,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self { why, refused: None }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}

/// What a turn's reading has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Nothing,
    /// All that had come.
    All,
    /// As much as one turn takes; there may be more.
    More,
}

#[derive(Debug)]
enum Stage {
    /// Trying one address of the host after another.
    Connecting {
        to: vec::IntoIter<SocketAddr>,
        trying: Option<TcpStream>,
        last: io::Error,
    },
    Open(TcpStream),
}

/// One connection; requests are taken from its making on.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: Address,
    name: Arc<str>,
    stage: Stage,
    keepalive: bool,
    /// Time to connect, and until when.
    connect: (Duration, Instant),
    outbox: Outbox<Who>,
    decoder: FrameDecoder,
    /// Those to be told that their frame is written; kept for its space.
    written: Vec<Who>,
}

impl Connection {
    /// Begins to connect. A host name is looked up first, which waits for the resolver.
    pub(super) fn begin(
        address: Address,
        config: &ClientConfig,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        let (to, last) = match (&*address.host, address.port).to_socket_addrs() {
            Ok(to) => (to, nowhere()),
            Err(error) => (Vec::new().into_iter(), error),
        };
        let mut outbox = Outbox::default();
        let deadline = now + timeout + config.request_timeout;
        outbox.push(Submission::hello(
            &config.client_name,
            Who::Connection,
            deadline,
        ));
        Self {
            name: address.to_string().into(),
            address,
            stage: Stage::Connecting {
                to,
                trying: None,
                last,
            },
            keepalive: config.keepalive,
            connect: (timeout, now + timeout),
            outbox,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            written: Vec::new(),
        }
    }

    /// Whether it is established.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Takes a request and writes what the socket takes. What becomes of it is among the events,
    /// perhaps at once.
    pub(super) fn submit(&mut self, submission: Submission<Who>, events: &mut Vec<Event>) {
        if self.outbox.requests() >= CONNECTION_REQUESTS_MAX {
            let why = format!("{CONNECTION_REQUESTS_MAX} requests are waiting already").into();
            let lost = self.lost(&why, false, None);
            events.push((submission.who, Outcome::Lost(lost)));
            return;
        }
        let idle = self.outbox.is_written();
        self.outbox.push(submission);
        if idle {
            // An error here is one that the next turn meets, too.
            let _ = self.flush(events);
        }
    }

    /// Does what can be done without waiting; whether anything was.
    pub(super) fn turn(&mut self, now: Instant, events: &mut Vec<Event>) -> Result<bool, Stop> {
        if !self.is_open() && !self.proceed(now)? {
            return Ok(false);
        }
        let before = self.outbox.is_written();
        self.flush(events)?;
        let wrote = before != self.outbox.is_written();
        let read = self.read(events)?;
        // An answer that has come is none that is overdue, however late it is looked for.
        let late = read != Read::More && self.outbox.armed.is_some_and(|at| at <= now);
        if late && self.outbox.overdue(now) {
            return Err("the broker didn't answer in time".to_owned().into());
        }
        Ok(wrote || read != Read::Nothing)
    }

    /// Goes on connecting; whether the connection is established now.
    fn proceed(&mut self, now: Instant) -> Result<bool, Stop> {
        let (limit, deadline) = self.connect;
        let Stage::Connecting { to, trying, last } = &mut self.stage else {
            return Ok(true);
        };
        loop {
            let stream = match trying.take() {
                Some(stream) => stream,
                None => match to.next() {
                    Some(address) => match begin_to_connect(address, self.keepalive) {
                        Ok(stream) => stream,
                        Err(error) => {
                            *last = error;
                            continue;
                        }
                    },
                    None => return Err(format!("can't connect: {last}").into()),
                },
            };
            match is_connected(&stream) {
                Ok(true) => {
                    self.stage = Stage::Open(stream);
                    return Ok(true);
                }
                Ok(false) if now >= deadline => {
                    return Err(format!("no connection within {limit:?}").into());
                }
                Ok(false) => {
                    *trying = Some(stream);
                    return Ok(false);
                }
                Err(error) => *last = error,
            }
        }
    }

    fn flush(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let Stage::Open(stream) = &mut self.stage else {
            return Ok(());
        };
        let write = |slices: &[IoSlice<'_>]| stream.write_vectored(slices);
        let result = self.outbox.flush(write, &mut self.written);
        events.extend(self.written.drain(..).map(|who| (who, Outcome::Written)));
        result
    }

    /// Reads what has come, up to a bound.
    fn read(&mut self, events: &mut Vec<Event>) -> Result<Read, Stop> {
        let mut found = Read::Nothing;
        for _ in 0..TURN_READS_MAX {
            let Stage::Open(stream) = &mut self.stage else {
                return Ok(found);
            };
            let space = inbox::space(&mut self.decoder);
            let offered = space.len();
            let bytes = match stream.read(space) {
                Ok(0) => return Err("the broker closed the connection".to_owned().into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            found = Read::All;
            self.decoder.filled(bytes);
            while let Some(frame) = self
                .decoder
                .next_frame()
                .map_err(|error| error.to_string())?
            {
                take(&mut self.outbox, &self.name, &frame, events)?;
            }
            if bytes < offered {
                return Ok(found);
            }
        }
        Ok(Read::More)
    }

    /// Ends the connection: everybody who waits hears of it.
    pub(super) fn end(mut self, stop: Stop, events: &mut Vec<Event>) {
        let Stop { why, refused } = stop;
        let why = match &refused {
            Some(fault) => format!("the broker refused the connection: {fault}").into(),
            None => why.into(),
        };
        for (who, sent) in self.outbox.drain() {
            let lost = self.lost(&why, sent, refused.clone());
            events.push((who, Outcome::Lost(lost)));
        }
    }

    fn lost(&self, why: &Arc<str>, sent: bool, refused: Option<Fault>) -> ConnectionLost {
        ConnectionLost {
            address: Arc::clone(&self.name),
            why: Arc::clone(why),
            sent,
            refused,
        }
    }
}

/// Takes a reply for whoever waits for it. One that nobody waits for is not taken: a repeated reply
/// does no harm.
fn take(
    outbox: &mut Outbox<Who>,
    name: &Arc<str>,
    frame: &Frame<'_>,
    events: &mut Vec<Event>,
) -> Result<(), Stop> {
    let Some(pending) = outbox.take(frame.header.correlation) else {
        return Ok(());
    };
    match pending.read(frame) {
        Ok(Reply::Hello(hello)) => hello.fault.map_or(Ok(()), |fault| {
            Err(Stop {
                why: String::new(),
                refused: Some(fault),
            })
        }),
        Ok(reply) => {
            let data = (!frame.data.is_empty()).then(|| {
                let mut bytes = BatchBytes::with_capacity(frame.data.len());
                bytes.extend_from_slice(frame.data);
                Arc::new(bytes)
            });
            events.push((pending.who, Outcome::Replied(reply, data)));
            Ok(())
        }
        Err(why) => {
            let lost = ConnectionLost {
                address: Arc::clone(name),
                why: why.as_str().into(),
                sent: true,
                refused: None,
            };
            events.push((pending.who, Outcome::Lost(lost)));
            Err(why.into())
        }
    }
}

/// A socket that has begun to connect.
fn begin_to_connect(to: SocketAddr, keepalive: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(keepalive)?;
    match socket.connect(&to.into()) {
        Err(error) if !is_under_way(&error) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether an error of connecting says that it has begun: Unix calls it "in progress", Windows
/// "would block".
fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a connection is established; an error if it never will be.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
