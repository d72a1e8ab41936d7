//! The ports that a shard accepts on.

use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use super::Requests;
use crate::shard::ring::{Completion, Key, Owner, Ring, Role};

/// How long accepting rests after it failed, most likely for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Which port a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// This shard's.
    Own,
    /// That of all shards, whose connections are dealt out.
    Shared,
}

#[derive(Debug)]
struct Listener {
    port: Port,
    socket: TcpListener,
    accepting: Option<Key>,
    retry_at_ns: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    stopped: bool,
}

/// The listeners of a shard.
pub(crate) fn listeners(sockets: Vec<(Port, TcpListener)>) -> Listeners {
    let listener = |(port, socket)| Listener {
        port,
        socket,
        accepting: None,
        retry_at_ns: None,
    };
    Listeners {
        listeners: sockets.into_iter().map(listener).collect(),
        stopped: false,
    }
}

impl Listeners {
    /// Accepts wherever it isn't done yet.
    pub(super) fn accept(&mut self, ring: &mut Ring) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.accepting.is_some() || self.stopped {
                continue;
            }
            let owner = Owner {
                role: Role::Accept,
                id: index as u64,
            };
            listener.retry_at_ns = None;
            listener.accepting = Some(ring.accept(owner, listener.socket.as_raw_fd()));
        }
    }

    /// The connection of a completion, if this shard is to have it.
    pub(super) fn accepted(
        &mut self,
        completion: Completion,
        requests: &mut impl Requests,
        now_ns: u64,
    ) -> Option<OwnedFd> {
        let listener = &mut self.listeners[completion.owner.id as usize];
        if !completion.more {
            listener.accepting = None;
            listener.retry_at_ns = Some(now_ns);
        }
        if let Err(error) = completion.result
            && !self.stopped
        {
            tracing::warn!(%error, "accepting connections failed; trying again");
            listener.retry_at_ns = Some(now_ns + REST.as_nanos() as u64);
        }
        let socket = completion.descriptor?;
        match listener.port {
            Port::Own => Some(socket),
            Port::Shared => requests.deal(socket),
        }
    }

    /// Accepts again where it failed long enough ago.
    pub(super) fn retry(&mut self, ring: &mut Ring, now_ns: u64) {
        if self.next_retry_ns().is_some_and(|at| at <= now_ns) {
            self.accept(ring);
        }
    }

    pub(super) fn next_retry_ns(&self) -> Option<u64> {
        match self.stopped {
            true => None,
            false => self
                .listeners
                .iter()
                .filter_map(|listener| listener.retry_at_ns)
                .min(),
        }
    }

    /// Accepts no more. The ports stay bound until this is dropped.
    pub(super) fn stop(&mut self, ring: &mut Ring) {
        self.stopped = true;
        for key in self
            .listeners
            .iter()
            .filter_map(|listener| listener.accepting)
        {
            ring.cancel(key);
        }
    }
}
