//! What a connection still has to write and what it still waits for. Which socket, and how whoever
//! asked is told, is the driver's business: `W` says who it is.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use ringway_wire::CorrelationId;
use ringway_wire::batch::BatchBytes;
use ringway_wire::frame::{Frame, REPLY};
use ringway_wire::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use ringway_wire::request::{HelloRequest, Reply, Request, RequestKind};

/// Slices handed to one vectored write; two per frame.
const SLICES_MAX: usize = 64;

/// A request to send.
#[derive(Debug)]
pub(crate) struct Submission<W> {
    pub(crate) request: Request,
    pub(crate) data: Option<Arc<BatchBytes>>,
    /// Who is told what becomes of it.
    pub(crate) who: W,
    /// Without a reply until then, the connection is taken for dead.
    pub(crate) deadline: Instant,
    /// Whether a reply comes.
    pub(crate) answered: bool,
}

impl<W> Submission<W> {
    /// The first request on every connection.
    pub(crate) fn hello(client_name: &str, who: W, deadline: Instant) -> Self {
        let hello = HelloRequest {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            client: client_name.to_owned(),
        };
        Self {
            request: hello.into(),
            data: None,
            who,
            deadline,
            answered: true,
        }
    }
}

/// A frame being written.
#[derive(Debug)]
struct Outgoing<W> {
    head: Vec<u8>,
    data: Option<Arc<BatchBytes>>,
    correlation: u32,
    /// Told when the last byte is written, where no reply comes.
    silent: Option<W>,
    /// When it has to be written, where no reply comes.
    deadline: Instant,
}

impl<W> Outgoing<W> {
    fn data(&self) -> &[u8] {
        self.data.as_ref().map_or(&[], |data| data.as_slice())
    }

    fn len(&self) -> usize {
        self.head.len() + self.data().len()
    }
}

/// A request whose reply is awaited.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    kind: RequestKind,
    pub(crate) who: W,
    deadline: Instant,
}

impl<W> Pending<W> {
    /// The reply in a frame, or why it can't be one.
    pub(crate) fn read(&self, frame: &Frame<'_>) -> Result<Reply, String> {
        let (kind, found) = (self.kind, frame.header.kind);
        if found != kind.number() | REPLY {
            return Err(format!(
                "the reply to {kind:?} can't be read: a frame of kind {found:#06x} answers it"
            ));
        }
        Reply::from_head(kind, frame.head)
            .map_err(|error| format!("the reply to {kind:?} can't be read: {error}"))
    }
}

/// Frames to write and requests without a reply; bounded by `CONNECTION_REQUESTS_MAX` together
/// with the bounds of those who submit.
#[derive(Debug)]
pub(crate) struct Outbox<W> {
    queue: VecDeque<Outgoing<W>>,
    /// Bytes of the first frame that are written.
    written: usize,
    pending: HashMap<u32, Pending<W>>,
    correlation: u32,
    /// When the connection's timer looks at the deadlines; never later than the first of them.
    pub(crate) armed: Option<Instant>,
}

impl<W> Default for Outbox<W> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            written: 0,
            pending: HashMap::new(),
            correlation: 0,
            armed: None,
        }
    }
}

impl<W> Outbox<W> {
    pub(crate) fn requests(&self) -> usize {
        self.pending.len().max(self.queue.len())
    }

    pub(crate) fn is_written(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a request; true when the timer has to be set to its deadline.
    pub(crate) fn push(&mut self, submission: Submission<W>) -> bool {
        self.correlation = self.correlation.wrapping_add(1);
        while self.pending.contains_key(&self.correlation) {
            self.correlation = self.correlation.wrapping_add(1);
        }
        let Submission {
            request,
            data,
            who,
            deadline,
            answered,
        } = submission;
        let data_bytes = data.as_ref().map_or(0, |data| data.len());
        let head = request.to_frame(CorrelationId(self.correlation), data_bytes);
        let kind = request.kind();
        let silent = if answered {
            let pending = Pending {
                kind,
                who,
                deadline,
            };
            self.pending.insert(self.correlation, pending);
            None
        } else {
            Some(who)
        };
        self.queue.push_back(Outgoing {
            head,
            data,
            correlation: self.correlation,
            silent,
            deadline,
        });
        let earlier = self.armed.is_none_or(|armed| deadline < armed);
        if earlier {
            self.armed = Some(deadline);
        }
        earlier
    }

    /// Writes as much as the socket takes; adds those to be told that their frame is written.
    pub(crate) fn flush(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
        told: &mut Vec<W>,
    ) -> io::Result<()> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.slices(&mut slices);
            match write(&slices[..count]) {
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

    fn advance(&mut self, bytes: usize, told: &mut Vec<W>) {
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
    pub(crate) fn take(&mut self, correlation: CorrelationId) -> Option<Pending<W>> {
        self.pending.remove(&correlation.0)
    }

    /// Whether a request waits longer than it may; sets the timer anew.
    pub(crate) fn overdue(&mut self, now: Instant) -> bool {
        let replies = self.pending.values().map(|pending| pending.deadline);
        let silent = self.queue.iter().find(|frame| frame.silent.is_some());
        self.armed = replies.chain(silent.map(|frame| frame.deadline)).min();
        self.armed.is_some_and(|first| first <= now)
    }

    /// Empties it: everybody who waits, and whether the request may have reached the broker.
    pub(crate) fn drain(&mut self) -> Vec<(W, bool)> {
        let mut told = Vec::new();
        let mut started = self.written > 0;
        for frame in self.queue.drain(..) {
            let pending = self.pending.remove(&frame.correlation);
            let who = frame.silent.or(pending.map(|pending| pending.who));
            told.extend(who.map(|who| (who, started)));
            started = false;
        }
        let sent = self.pending.drain().map(|(_, pending)| (pending.who, true));
        told.extend(sent);
        self.written = 0;
        self.armed = None;
        told
    }
}

#[cfg(test)]
mod tests {
    use ringway_wire::frame::FrameDecoder;
    use ringway_wire::request::{MetadataRequest, ProduceRequest};

    use super::*;

    fn submission(number: u64, data_bytes: usize, answered: bool) -> Submission<u64> {
        let mut data = BatchBytes::new();
        data.resize(data_bytes, number as u8);
        let request: Request = match data_bytes {
            0 => MetadataRequest::default().into(),
            _ => ProduceRequest::default().into(),
        };
        Submission {
            request,
            data: (data_bytes > 0).then(|| Arc::new(data)),
            who: number,
            deadline: Instant::now(),
            answered,
        }
    }

    /// A socket that takes `room` bytes until it is emptied.
    struct Socket {
        taken: Vec<u8>,
        room: usize,
    }

    impl Socket {
        fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let before = self.taken.len();
            for slice in slices {
                let bytes = slice.len().min(self.room - self.taken.len());
                self.taken.extend_from_slice(&slice[..bytes]);
            }
            match self.taken.len() - before {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                bytes => Ok(bytes),
            }
        }
    }

    #[test]
    fn frames_leave_whole_and_in_order_however_little_the_socket_takes() {
        let mut outbox = Outbox::default();
        for number in 0..200 {
            let bytes = [0, 16, 4_096, 100_000][number as usize % 4];
            outbox.push(submission(number, bytes, number % 3 != 0));
        }
        let mut decoder = FrameDecoder::new(1 << 20);
        let (mut told, mut seen, mut room) = (Vec::new(), 0_u64, 1);
        let mut socket = Socket {
            taken: Vec::new(),
            room,
        };
        while seen < 200 {
            outbox
                .flush(|slices| socket.write(slices), &mut told)
                .unwrap();
            decoder.push(&socket.taken);
            room = room * 7 % 65_521;
            socket = Socket {
                taken: Vec::new(),
                room,
            };
            while let Some(frame) = decoder.next_frame().unwrap() {
                assert_eq!(u64::from(frame.header.correlation.0), seen + 1);
                assert!(frame.data.iter().all(|&byte| byte == seen as u8));
                assert_eq!(frame.data.len(), [0, 16, 4_096, 100_000][seen as usize % 4]);
                seen += 1;
            }
        }
        assert!(outbox.is_written());
        assert_eq!(told, (0..200).step_by(3).collect::<Vec<_>>());
    }

    #[test]
    fn an_end_tells_what_may_have_been_sent() {
        let mut outbox = Outbox::default();
        outbox.push(submission(0, 16, true));
        for number in 1..4 {
            outbox.push(submission(number, 1 << 20, number != 3));
        }
        let mut socket = Socket {
            taken: Vec::new(),
            room: 100_000,
        };
        let mut told = Vec::new();
        outbox
            .flush(|slices| socket.write(slices), &mut told)
            .unwrap();
        assert!(told.is_empty() && !outbox.is_written());
        let mut ends = outbox.drain();
        ends.sort_unstable();
        assert_eq!(ends, [(0, true), (1, true), (2, false), (3, false)]);
        assert!(outbox.is_written() && outbox.requests() == 0);
    }

    #[test]
    fn the_first_deadline_counts() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        let second = std::time::Duration::from_secs(1);
        let at = |deadline| Submission {
            deadline,
            ..submission(0, 0, true)
        };
        assert!(outbox.push(at(now + 2 * second)));
        assert!(
            !outbox.push(at(now + 3 * second)),
            "the timer is early enough"
        );
        assert!(outbox.push(at(now + second)));
        outbox.take(CorrelationId(3));
        assert!(!outbox.overdue(now + second), "that one was answered");
        assert_eq!(outbox.armed, Some(now + 2 * second));
        assert!(outbox.overdue(now + 2 * second));
        // Where no reply comes, writing has to end in time.
        let mut outbox = Outbox::default();
        assert!(outbox.push(Submission {
            answered: false,
            ..at(now + second)
        }));
        assert!(!outbox.overdue(now));
        assert!(outbox.overdue(now + second));
    }
}
