//! The connections of a client, one per port.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Address;
use crate::connection::{Connection, Ended, Options};
use crate::core::detours::{Detours, Way};
use crate::core::metadata::Leader;
use crate::limits::SHARD_CONNECT_TIMEOUT;

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<Address, Arc<Connection>>,
    detours: Detours,
    closed: bool,
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Pool {
    options: Options,
    inner: Mutex<Inner>,
}

/// Hears of ends; apart from the pool, whose connections would keep it alive.
struct Ear(Arc<Pool>);

impl Ended for Ear {
    fn ended(&self, address: &Address, connected: bool) {
        let mut inner = self.0.lock();
        inner.connections.remove(address);
        inner.detours.ended(address, connected, Instant::now());
    }
}

impl Pool {
    pub(crate) fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            options,
            inner: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a shared port.
    pub(crate) fn shared(self: &Arc<Self>, address: &Address) -> Arc<Connection> {
        self.open(address, None)
    }

    /// The connection to the shard that owns a partition, or to the broker's shared port where
    /// that can't be reached.
    pub(crate) fn shard(self: &Arc<Self>, leader: &Leader) -> Arc<Connection> {
        let Leader { shared, own } = leader;
        let Some(own) = own else {
            return self.open(shared, None);
        };
        let way = {
            let Inner {
                connections,
                detours,
                ..
            } = &mut *self.lock();
            let is_open = || connections.get(own).is_some_and(|found| found.is_open());
            detours.way(own, is_open, Instant::now())
        };
        match way {
            Way::Direct => self.open(own, Some(shared)),
            Way::Around { probe } => {
                if probe {
                    self.open(own, Some(shared));
                }
                self.open(shared, None)
            }
        }
    }

    fn open(self: &Arc<Self>, address: &Address, shared: Option<&Address>) -> Arc<Connection> {
        let mut inner = self.lock();
        if let Some(connection) = inner.connections.get(address)
            && !connection.is_closed()
        {
            return Arc::clone(connection);
        }
        let mut options = self.options.clone();
        if let Some(shared) = shared {
            options.connect_timeout = SHARD_CONNECT_TIMEOUT;
            inner.detours.begun(address, shared);
        }
        let ear = Arc::new(Ear(Arc::clone(self)));
        let connection = Connection::open(address.clone(), options, ear);
        if inner.closed {
            drop(inner);
            connection.close("the client is closed");
            return connection;
        }
        inner
            .connections
            .insert(address.clone(), Arc::clone(&connection));
        connection
    }

    /// Closes all connections, for good.
    pub(crate) fn close(&self) {
        let connections = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.connections)
        };
        for connection in connections.into_values() {
            connection.close("the client is closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_shard_port_is_gone_around_and_found_again() {
        let shared = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let address = |address: SocketAddr| Address::parse(&address.to_string()).unwrap();
        let leader = Leader {
            shared: address(shared.local_addr().unwrap()),
            own: Some(address(own)),
        };
        let pool = Pool::new(Options {
            client_name: String::new(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            keepalive: false,
        });
        let first = pool.shard(&leader);
        until(|| first.is_closed()).await;
        let detour = pool.shard(&leader);
        until(|| detour.is_open()).await;
        // The probe that this began fails, too; the next one has to wait for its time.
        until(|| pool.lock().connections.len() == 1).await;
        assert!(Arc::ptr_eq(&detour, &pool.shard(&leader)));
        assert_eq!(pool.lock().connections.len(), 1);

        let _own = TcpListener::bind(own).await.unwrap();
        pool.lock().detours.probe_now();
        assert!(
            Arc::ptr_eq(&detour, &pool.shard(&leader)),
            "the traffic doesn't wait"
        );
        until(|| pool.lock().connections.values().all(|each| each.is_open())).await;
        let direct = pool.shard(&leader);
        assert!(!Arc::ptr_eq(&detour, &direct) && direct.is_open());
        assert!(pool.lock().detours.is_empty());

        pool.close();
        assert!(direct.is_closed() && detour.is_closed());
        assert!(pool.shard(&leader).is_closed(), "closed is closed for good");
    }
}
