//! A connection to one port of a broker: requests go out in the order they are submitted, replies
//! find back by their number. Submitting writes at once where the socket takes it; one task reads,
//! writes what is left, and watches the time.

mod task;

use std::fmt;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ringway_wire::Fault;
use ringway_wire::request::Reply;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::Address;
use crate::core::Token;
use crate::core::outbox::{self, Outbox};
use crate::error::ConnectionLost;
use crate::limits::CONNECTION_REQUESTS_MAX;

/// Hears what becomes of requests. Called on any thread and not to be slow.
pub(crate) trait Respond: fmt::Debug + Send + Sync {
    /// The reply came; `data` are its batches, valid during the call.
    fn replied(&self, token: Token, reply: Reply, data: &[u8]);
    /// The last byte of a request without a reply was written.
    fn written(&self, token: Token);
    /// No reply will come.
    fn lost(&self, token: Token, lost: ConnectionLost);
}

/// Who is to be told about a request.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) respond: Arc<dyn Respond>,
    pub(crate) token: Token,
}

/// A request to send.
pub(crate) type Submission = outbox::Submission<Teller>;

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) client_name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) keepalive: bool,
}

/// Hears how a connection ended.
pub(crate) trait Ended: Send + Sync {
    /// `connected`: whether there ever was a connection.
    fn ended(&self, address: &Address, connected: bool);
}

#[derive(Debug, Default)]
struct Inner {
    outbox: Outbox<Teller>,
    stream: Option<Arc<TcpStream>>,
    closed: Option<Closed>,
}

/// Why a connection is closed.
#[derive(Clone, Debug)]
struct Closed {
    why: Arc<str>,
    refused: Option<Fault>,
}

/// One connection; usable from its making on, also while it is being established.
#[derive(Debug)]
pub(crate) struct Connection {
    name: Arc<str>,
    inner: Mutex<Inner>,
    /// Tells the task that something has changed.
    nudge: Notify,
    task: OnceLock<AbortHandle>,
}

impl Connection {
    /// Starts to connect, on the current tokio runtime.
    pub(crate) fn open(address: Address, options: Options, ended: Arc<dyn Ended>) -> Arc<Self> {
        let connection = Arc::new(Self {
            name: address.to_string().into(),
            inner: Mutex::default(),
            nudge: Notify::new(),
            task: OnceLock::new(),
        });
        task::greet(&connection, &options);
        let task = task::run(Arc::clone(&connection), address, options, ended);
        let _ = connection.task.set(tokio::spawn(task).abort_handle());
        connection
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Whether it is established and not closed yet.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().stream.is_some()
    }

    /// Sends a request behind those submitted before. What becomes of it is told to its
    /// `respond`, perhaps before this returns.
    pub(crate) fn submit(&self, submission: Submission) {
        let mut inner = self.lock();
        let full = inner.outbox.requests() >= CONNECTION_REQUESTS_MAX;
        if full || inner.closed.is_some() {
            let closed = inner.closed.clone().unwrap_or_else(|| Closed {
                why: format!("{CONNECTION_REQUESTS_MAX} requests are waiting already").into(),
                refused: None,
            });
            drop(inner);
            let Teller { respond, token } = submission.who;
            respond.lost(token, self.lost(closed, false));
            return;
        }
        let idle = inner.outbox.is_written();
        let mut nudge = inner.outbox.push(submission);
        let mut told = Vec::new();
        if idle && let Some(stream) = inner.stream.clone() {
            // An error here is one that the task meets, too.
            let write = |slices: &[IoSlice<'_>]| stream.try_write_vectored(slices);
            let _ = inner.outbox.flush(write, &mut told);
            nudge |= !inner.outbox.is_written();
        }
        drop(inner);
        if nudge {
            self.nudge.notify_one();
        }
        for teller in told {
            teller.respond.written(teller.token);
        }
    }

    fn lost(&self, closed: Closed, sent: bool) -> ConnectionLost {
        let Closed { why, refused } = closed;
        ConnectionLost {
            address: Arc::clone(&self.name),
            why,
            sent,
            refused,
        }
    }

    /// Closes the connection, if it is open, and tells everybody who waits.
    pub(crate) fn close(&self, why: &str) {
        self.end(Closed {
            why: why.into(),
            refused: None,
        });
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn end(&self, closed: Closed) {
        let told = {
            let mut inner = self.lock();
            if inner.closed.is_some() {
                return;
            }
            inner.closed = Some(closed.clone());
            inner.stream = None;
            inner.outbox.drain()
        };
        for (teller, sent) in told {
            teller
                .respond
                .lost(teller.token, self.lost(closed.clone(), sent));
        }
    }
}
