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
    /// When it has to be written, where no reply comes.
    deadline: Instant,
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
        let kind = request.kind();
        self.queue.push_back(Outgoing {
            head,
            data,
            correlation: self.correlation,
            silent,
            deadline,
        });
        if answered {
            self.pending.insert(
                self.correlation,
                Pending {
                    kind,
                    teller,
                    deadline,
                },
            );
        }
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
        let replies = self.pending.values().map(|pending| pending.deadline);
        let silent = self.queue.iter().find(|frame| frame.silent.is_some());
        self.armed = replies.chain(silent.map(|frame| frame.deadline)).min();
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ringway_wire::frame::FrameDecoder;
    use ringway_wire::request::{MetadataRequest, ProduceRequest, Reply, Request};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::error::ConnectionLost;

    #[derive(Debug, Default)]
    struct Heard {
        written: Mutex<Vec<u64>>,
    }

    impl Respond for Heard {
        fn replied(&self, _: Token, _: Reply, _: &[u8]) {}

        fn written(&self, token: Token) {
            self.written.lock().unwrap().push(token.number);
        }

        fn lost(&self, _: Token, _: ConnectionLost) {}
    }

    fn submission(number: u64, data_bytes: usize, answered: bool) -> Submission {
        let mut data = BatchBytes::new();
        data.resize(data_bytes, number as u8);
        let request: Request = match data_bytes {
            0 => MetadataRequest::default().into(),
            _ => ProduceRequest::default().into(),
        };
        Submission {
            request,
            data: (data_bytes > 0).then(|| Arc::new(data)),
            respond: Arc::new(Heard::default()),
            token: Token { slot: 0, number },
            deadline: Instant::now(),
            answered,
        }
    }

    /// A socket that takes little, and its other end.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(16 << 10).unwrap();
        let one = socket
            .connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (other, _) = listener.accept().await.unwrap();
        (one, other)
    }

    #[tokio::test]
    async fn frames_leave_whole_and_in_order_however_little_the_socket_takes() {
        let (stream, mut other) = pair().await;
        let mut outbox = Outbox::default();
        for number in 0..200 {
            let bytes = [0, 16, 4_096, 100_000][number as usize % 4];
            outbox.push(submission(number, bytes, number % 3 != 0));
        }
        let mut decoder = FrameDecoder::new(1 << 20);
        let (mut told, mut seen) = (Vec::new(), 0_u64);
        while seen < 200 {
            let bytes = tokio::select! {
                ready = stream.writable(), if !outbox.is_written() => {
                    ready.unwrap();
                    outbox.flush(&stream, &mut told).unwrap();
                    continue;
                }
                bytes = other.read(decoder.spare(7_777)) => bytes.unwrap(),
            };
            decoder.filled(bytes);
            while let Some(frame) = decoder.next_frame().unwrap() {
                assert_eq!(u64::from(frame.header.correlation.0), seen + 1);
                assert!(frame.data.iter().all(|&byte| byte == seen as u8));
                assert_eq!(frame.data.len(), [0, 16, 4_096, 100_000][seen as usize % 4]);
                seen += 1;
            }
        }
        assert!(outbox.is_written());
        let told: Vec<_> = told.iter().map(|teller| teller.token.number).collect();
        assert_eq!(told, (0..200).step_by(3).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_end_tells_what_may_have_been_sent() {
        let (stream, _other) = pair().await;
        stream.writable().await.unwrap();
        let mut outbox = Outbox::default();
        outbox.push(submission(0, 16, true));
        for number in 1..4 {
            outbox.push(submission(number, 64 << 20, number != 3));
        }
        let mut told = Vec::new();
        outbox.flush(&stream, &mut told).unwrap();
        assert!(told.is_empty() && !outbox.is_written());
        let mut ends: Vec<_> = outbox
            .drain()
            .into_iter()
            .map(|(teller, sent)| (teller.token.number, sent))
            .collect();
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
