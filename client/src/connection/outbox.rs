//! What a connection still has to write and what it still waits for.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use ringway_wire::CorrelationId;
use ringway_wire::batch::BatchBytes;
use ringway_wire::request::RequestKind;
use tokio::net::TcpStream;

use crate::connection::{Respond, Submission};
use crate::core::Token;

/// Slices handed to one vectored write; two per frame.
const SLICES_MAX: usize = 64;

/// Who is to be told about a request.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    pub(super) respond: Arc<dyn Respond>,
    pub(super) token: Token,
}

/// A frame being written.
#[derive(Debug)]
struct Outgoing {
    head: Vec<u8>,
    data: Option<Arc<BatchBytes>>,
    correlation: u32,
    /// Told when the last byte is written, where no reply comes.
    silent: Option<Teller>,
}

impl Outgoing {
    fn data(&self) -> &[u8] {
        self.data.as_ref().map_or(&[], |data| data.as_slice())
    }

    fn len(&self) -> usize {
        self.head.len() + self.data().len()
    }
}

/// A request whose reply is awaited.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) kind: RequestKind,
    pub(super) teller: Teller,
    deadline: Instant,
}

/// Frames to write and requests without a reply; bounded by `CONNECTION_REQUESTS_MAX` together
/// with the bounds of those who submit.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    /// Bytes of the first frame that are written.
    written: usize,
    pending: HashMap<u32, Pending>,
    correlation: u32,
    /// When the connection's timer looks at the deadlines; never later than the first of them.
    pub(super) armed: Option<Instant>,
}

impl Outbox {
    pub(super) fn requests(&self) -> usize {
        self.pending.len().max(self.queue.len())
    }

    pub(super) fn is_written(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a request; true when the timer has to be set to its deadline.
    pub(super) fn push(&mut self, submission: Submission) -> bool {
        self.correlation = self.correlation.wrapping_add(1);
        while self.pending.contains_key(&self.correlation) {
            self.correlation = self.correlation.wrapping_add(1);
        }
        let Submission {
            request,
            data,
            respond,
            token,
            deadline,
            answered,
        } = submission;
        let data_bytes = data.as_ref().map_or(0, |data| data.len());
        let head = request.to_frame(CorrelationId(self.correlation), data_bytes);
        let teller = Teller { respond, token };
        let silent = (!answered).then(|| teller.clone());
        self.queue.push_back(Outgoing {
            head,
            data,
            correlation: self.correlation,
            silent,
        });
        if !answered {
            return false;
        }
        let kind = request.kind();
        self.pending.insert(
            self.correlation,
            Pending {
                kind,
                teller,
                deadline,
            },
        );
        let earlier = self.armed.is_none_or(|armed| deadline < armed);
        if earlier {
            self.armed = Some(deadline);
        }
        earlier
    }

    /// Writes as much as the socket takes; adds those to be told that their frame is written.
    pub(super) fn flush(&mut self, stream: &TcpStream, told: &mut Vec<Teller>) -> io::Result<()> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.slices(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes, told),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut skip = self.written;
        let mut count = 0;
        for frame in self.queue.iter().take(SLICES_MAX / 2) {
            for part in [frame.head.as_slice(), frame.data()] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices[count] = IoSlice::new(&part[skipped..]);
                    count += 1;
                }
            }
        }
        count
    }

    fn advance(&mut self, bytes: usize, told: &mut Vec<Teller>) {
        self.written += bytes;
        while let Some(front) = self.queue.front()
            && self.written >= front.len()
        {
            self.written -= front.len();
            let front = self.queue.pop_front().expect("there is a first frame");
            told.extend(front.silent);
        }
    }

    /// The request that a reply belongs to.
    pub(super) fn take(&mut self, correlation: CorrelationId) -> Option<Pending> {
        self.pending.remove(&correlation.0)
    }

    /// Whether a request waits longer than it may; sets the timer anew.
    pub(super) fn overdue(&mut self, now: Instant) -> bool {
        self.armed = self.pending.values().map(|pending| pending.deadline).min();
        self.armed.is_some_and(|first| first <= now)
    }

    /// Empties it: everybody who waits, and whether the request may have reached the broker.
    pub(super) fn drain(&mut self) -> Vec<(Teller, bool)> {
        let mut told = Vec::new();
        let mut started = self.written > 0;
        for frame in self.queue.drain(..) {
            let pending = self.pending.remove(&frame.correlation);
            let teller = frame.silent.or(pending.map(|pending| pending.teller));
            told.extend(teller.map(|teller| (teller, started)));
            started = false;
        }
        let sent = self
            .pending
            .drain()
            .map(|(_, pending)| (pending.teller, true));
        told.extend(sent);
        self.written = 0;
        self.armed = None;
        told
    }
}
