//! The task of a connection: connects, reads frames, writes what submitting couldn't, and ends the
//! connection when a reply is overdue.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use ringway_wire::Fault;
use ringway_wire::frame::{Frame, FrameDecoder};
use ringway_wire::limits::FRAME_BYTES_MAX;
use ringway_wire::request::Reply;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{sleep_until, timeout};

use crate::config::Address;
use crate::connection::{Closed, Connection, Ended, Options, Respond, Submission, Teller};
use crate::core::{Token, inbox};
use crate::error::ConnectionLost;

/// Why the task ends the connection.
#[derive(Debug)]
enum Stop {
    /// Something happened to the connection.
    Because(String),
    /// The broker refused it.
    Refused(Fault),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

/// Queues hello, before anything else.
pub(super) fn greet(connection: &Arc<Connection>, options: &Options) {
    let deadline = Instant::now() + options.connect_timeout + options.request_timeout;
    let teller = Teller {
        respond: Arc::new(Greeting),
        token: Token { slot: 0, number: 0 },
    };
    let hello = Submission::hello(&options.client_name, teller, deadline);
    connection.lock().outbox.push(hello);
}

/// Hello's replies are looked at by the task itself.
#[derive(Debug)]
struct Greeting;

impl Respond for Greeting {
    fn replied(&self, _: Token, _: Reply, _: &[u8]) {}
    fn written(&self, _: Token) {}
    fn lost(&self, _: Token, _: ConnectionLost) {}
}

/// Ends the connection however the task ends: also when its runtime does, or by a panic.
struct Ending {
    connection: Arc<Connection>,
    address: Address,
    ended: Arc<dyn Ended>,
    connected: bool,
    stop: Option<Stop>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let closed = match self.stop.take() {
            None => Closed {
                why: "the runtime has stopped".into(),
                refused: None,
            },
            Some(Stop::Because(why)) => Closed {
                why: why.into(),
                refused: None,
            },
            Some(Stop::Refused(fault)) => {
                let why = format!("the broker refused the connection: {fault}").into();
                Closed {
                    why,
                    refused: Some(fault),
                }
            }
        };
        // First, so that whoever hears of the loss and tries again finds what it means.
        self.ended.ended(&self.address, self.connected);
        self.connection.end(closed);
    }
}

/// The whole life of a connection.
pub(super) async fn run(
    connection: Arc<Connection>,
    address: Address,
    options: Options,
    ended: Arc<dyn Ended>,
) {
    let mut ending = Ending {
        connection: Arc::clone(&connection),
        address,
        ended,
        connected: false,
        stop: None,
    };
    let limit = options.connect_timeout;
    let stream = match timeout(limit, connect(&ending.address, options.keepalive)).await {
        Ok(Ok(stream)) => Arc::new(stream),
        Ok(Err(error)) => {
            ending.stop = Some(format!("can't connect: {error}").into());
            return;
        }
        Err(_) => {
            ending.stop = Some(format!("no connection within {limit:?}").into());
            return;
        }
    };
    ending.connected = true;
    let stop = serve(&connection, &stream).await;
    ending.stop = Some(stop.unwrap_or_else(|stop| stop));
}

async fn connect(address: &Address, keepalive: bool) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for found in lookup_host((&*address.host, address.port)).await? {
        let socket = match found {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        socket.set_keepalive(keepalive)?;
        match socket.connect(found).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the task is woken by.
enum Event {
    Nudged,
    Readable,
    Writable,
    Deadline,
}

/// Reads and writes until something ends it.
async fn serve(connection: &Connection, stream: &Arc<TcpStream>) -> Result<Stop, Stop> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    connection.lock().stream = Some(Arc::clone(stream));
    let mut timer = pin!(sleep_until(Instant::now().into()));
    let mut armed = None;
    loop {
        let (unwritten, wanted) = flush(connection, stream)?;
        if armed != wanted {
            armed = wanted;
            if let Some(at) = armed {
                timer.as_mut().reset(at.into());
            }
        }
        let mut nudged = pin!(connection.nudge.notified());
        let event = poll_fn(|context| {
            if nudged.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(Event::Nudged));
            }
            if let Poll::Ready(ready) = stream.poll_read_ready(context) {
                return Poll::Ready(ready.map(|()| Event::Readable));
            }
            if unwritten && let Poll::Ready(ready) = stream.poll_write_ready(context) {
                return Poll::Ready(ready.map(|()| Event::Writable));
            }
            if armed.is_some() && timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(Event::Deadline));
            }
            Poll::Pending
        });
        match event.await.map_err(|error| error.to_string())? {
            Event::Nudged | Event::Writable => {}
            Event::Readable => read(connection, stream, &mut decoder)?,
            Event::Deadline => {
                if connection.lock().outbox.overdue(Instant::now()) {
                    return Ok(Stop::Because("the broker didn't answer in time".to_owned()));
                }
                armed = None;
            }
        }
    }
}

/// Writes what it can; whether something is left, and the first deadline.
fn flush(connection: &Connection, stream: &TcpStream) -> Result<(bool, Option<Instant>), Stop> {
    let mut told = Vec::new();
    let (result, left) = {
        let mut inner = connection.lock();
        let write = |slices: &[IoSlice<'_>]| stream.try_write_vectored(slices);
        let result = inner.outbox.flush(write, &mut told);
        (result, (!inner.outbox.is_written(), inner.outbox.armed))
    };
    for teller in told {
        teller.respond.written(teller.token);
    }
    result.map_err(|error| error.to_string())?;
    Ok(left)
}

/// Reads once and hands out the whole frames.
fn read(
    connection: &Connection,
    stream: &TcpStream,
    decoder: &mut FrameDecoder,
) -> Result<(), Stop> {
    match stream.try_read(inbox::space(decoder)) {
        Ok(0) => return Err(Stop::Because("the broker closed the connection".to_owned())),
        Ok(bytes) => decoder.filled(bytes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error.to_string().into()),
    }
    while let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
        dispatch(connection, &frame)?;
    }
    Ok(())
}

/// Gives a reply to whoever waits for it. One that nobody waits for is not taken: a repeated reply
/// does no harm.
fn dispatch(connection: &Connection, frame: &Frame<'_>) -> Result<(), Stop> {
    let Some(pending) = connection.lock().outbox.take(frame.header.correlation) else {
        return Ok(());
    };
    let read = pending.read(frame);
    let Teller { respond, token } = pending.who;
    match read {
        Ok(Reply::Hello(hello)) => hello
            .fault
            .map_or(Ok(()), |fault| Err(Stop::Refused(fault))),
        Ok(reply) => {
            respond.replied(token, reply, frame.data);
            Ok(())
        }
        Err(why) => {
            let closed = Closed {
                why: why.as_str().into(),
                refused: None,
            };
            respond.lost(token, connection.lost(closed, true));
            Err(why.into())
        }
    }
}
