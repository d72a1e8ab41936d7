//! A listener with bounds: so many connections at a time, and none that stays silent for long. A
//! monitoring system that vanishes, or a port scanner, costs nothing that doesn't come back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may neither send nor take anything.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// Pause after an accept that failed, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener.
pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    silent_max: Duration,
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            silent_max: SILENT_MAX,
        }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permits = Arc::clone(&self.permits);
        let permit = permits
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let connection = Connection {
                        stream,
                        silence: Box::pin(sleep(self.silent_max)),
                        silent_max: self.silent_max,
                        _permit: permit,
                    };
                    return (connection, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection was not accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it has been silent for too long.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    silent_max: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Passes on what happened; nothing for too long is an error.
    fn unless_silent<T>(
        &mut self,
        context: &mut Context<'_>,
        happened: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if happened.is_ready() {
            let deadline = Instant::now() + self.silent_max;
            self.silence.as_mut().reset(deadline);
            return happened;
        }
        self.silence
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.unless_silent(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_silent(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    async fn listener() -> (Limited, SocketAddr) {
        let listener = Limited::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_silent_connection_ends() {
        run(async {
            let (mut listener, address) = listener().await;
            listener.silent_max = Duration::from_millis(20);
            let _client = TcpStream::connect(address).await.unwrap();
            let (mut connection, _) = listener.accept().await;
            let error = connection.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn one_more_than_the_limit_waits_for_one_to_end() {
        run(async {
            let (mut listener, address) = listener().await;
            listener.permits = Arc::new(Semaphore::new(1));
            let _clients = [
                TcpStream::connect(address).await.unwrap(),
                TcpStream::connect(address).await.unwrap(),
            ];
            let (first, _) = listener.accept().await;
            let second = tokio::time::timeout(Duration::from_millis(50), listener.accept());
            assert!(second.await.is_err(), "the limit is one");
            drop(first);
            listener.accept().await;
        });
    }
}
