//! One hostile connection, which never blocks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ringway_wire::CorrelationId;
use ringway_wire::request::{HelloRequest, Request};

use super::{Counts, Field};

/// An end that the other side has made, in whatever way.
#[derive(Debug)]
pub(super) struct Ended;

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
}

/// The bytes of a request.
pub(super) fn frame(request: impl Into<Request>) -> Vec<u8> {
    request.into().to_frame(CorrelationId(2), 0)
}

/// The bytes of hello.
pub(super) fn hello() -> Vec<u8> {
    frame(HelloRequest::default())
}

impl Connection {
    /// Connects to one of the ports; `None` when that is refused just now (too many ports in use,
    /// the broker's queue is full), after a moment.
    pub(super) fn open(field: &Field, number: u64) -> Option<Self> {
        let ports = &field.plan.ports;
        let port = &ports[(number % ports.len() as u64) as usize];
        let Ok(stream) = TcpStream::connect_timeout(port, Duration::from_millis(200)) else {
            super::rest();
            return None;
        };
        stream.set_nonblocking(true).expect("a socket has modes");
        Counts::add(&field.counts.connections, 1);
        Some(Self { stream })
    }

    /// Writes as much as the other side takes now.
    pub(super) fn write(&mut self, field: &Field, bytes: &[u8]) -> Result<usize, Ended> {
        match self.stream.write(bytes) {
            Ok(written) => {
                Counts::add(&field.counts.sent_bytes, written as u64);
                Ok(written)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(self.ended(field)),
        }
    }

    /// Reads what is there, up to the buffer's size, and forgets it.
    pub(super) fn read(&mut self, field: &Field, buffer: &mut [u8]) -> Result<usize, Ended> {
        match self.stream.read(buffer) {
            Ok(0) => Err(self.ended(field)),
            Ok(read) => {
                Counts::add(&field.counts.read_bytes, read as u64);
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(self.ended(field)),
        }
    }

    fn ended(&self, field: &Field) -> Ended {
        Counts::add(&field.counts.closed, 1);
        Ended
    }
}

/// The same bytes again and again, from where the last write ended.
#[derive(Clone, Debug)]
pub(super) struct Endless {
    bytes: Vec<u8>,
    next: usize,
}

impl Endless {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        assert!(!bytes.is_empty(), "nothing can't be repeated");
        Self { bytes, next: 0 }
    }

    /// Writes as much as the other side takes now, once around at most.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        field: &Field,
    ) -> Result<usize, Ended> {
        let written = connection.write(field, &self.bytes[self.next..])?;
        self.next = (self.next + written) % self.bytes.len();
        Ok(written)
    }
}
