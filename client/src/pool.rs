//! The connections of a client, one per port, and which shard ports can't be reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringway_wire::request::BrokerMetadata;

use crate::config::Address;
use crate::connection::{Connection, Ended, Options};
use crate::core::metadata::Route;
use crate::limits::{PROBE_PAUSE, SHARD_CONNECT_TIMEOUT};

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<Address, Arc<Connection>>,
    /// Shard ports that can't be reached.
    detours: HashMap<Address, Detour>,
    /// The shared port of each shard port that was connected to.
    shards: HashMap<Address, Address>,
    closed: bool,
}

/// The way around a shard port that can't be reached.
#[derive(Debug)]
struct Detour {
    /// The broker's shared port. When the connection to it ends, the detour is forgotten.
    shared: Address,
    /// When to try the shard's port again, beside the traffic: it may have been only a broker that
    /// was just starting.
    probe_at: Instant,
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
        inner.detours.retain(|_, detour| detour.shared != *address);
        if let Some(shared) = inner.shards.remove(address)
            && !connected
        {
            let detour = || Detour {
                shared,
                probe_at: Instant::now(),
            };
            inner.detours.entry(address.clone()).or_insert_with(detour);
        }
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
    pub(crate) fn shard(self: &Arc<Self>, broker: &BrokerMetadata, to: Route) -> Arc<Connection> {
        let shared = shared_address(broker);
        let Some(&port) = broker.shard_ports.get(usize::from(to.shard.0)) else {
            return self.open(&shared, None);
        };
        let own = Address {
            host: Arc::clone(&shared.host),
            port,
        };
        if self.is_reachable(&own, &shared) {
            return self.open(&own, Some(shared));
        }
        self.open(&shared, None)
    }

    /// Whether nothing is known against a shard's port. Where a detour is in use, tries the port
    /// now and then, and ends the detour when that has led to a connection.
    fn is_reachable(self: &Arc<Self>, own: &Address, shared: &Address) -> bool {
        let mut inner = self.lock();
        let Some(detour) = inner.detours.get_mut(own) else {
            return true;
        };
        let now = Instant::now();
        let probe = detour.probe_at <= now;
        if probe {
            detour.probe_at = now + PROBE_PAUSE;
        }
        if inner
            .connections
            .get(own)
            .is_some_and(|probed| probed.is_open())
        {
            inner.detours.remove(own);
            return true;
        }
        drop(inner);
        if probe {
            self.open(own, Some(shared.clone()));
        }
        false
    }

    fn open(self: &Arc<Self>, address: &Address, shared: Option<Address>) -> Arc<Connection> {
        let mut inner = self.lock();
        if let Some(connection) = inner.connections.get(address)
            && !connection.is_closed()
        {
            return Arc::clone(connection);
        }
        let mut options = self.options.clone();
        if let Some(shared) = shared {
            options.connect_timeout = SHARD_CONNECT_TIMEOUT;
            inner.shards.insert(address.clone(), shared);
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

/// A broker's shared port.
pub(crate) fn shared_address(broker: &BrokerMetadata) -> Address {
    Address {
        host: broker.host.as_str().into(),
        port: broker.port,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringway_wire::{NodeId, ShardId};
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
        let broker = BrokerMetadata {
            node: NodeId(1),
            host: "127.0.0.1".to_owned(),
            port: shared.local_addr().unwrap().port(),
            shard_ports: vec![own.port()],
        };
        let pool = Pool::new(Options {
            client_name: String::new(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            keepalive: false,
        });
        let route = Route {
            node: NodeId(1),
            shard: ShardId(0),
        };
        let first = pool.shard(&broker, route);
        until(|| first.is_closed()).await;
        let detour = pool.shard(&broker, route);
        until(|| detour.is_open()).await;
        // The probe that this began fails, too; the next one has to wait for its time.
        until(|| pool.lock().connections.len() == 1).await;
        assert!(Arc::ptr_eq(&detour, &pool.shard(&broker, route)));
        assert_eq!(pool.lock().connections.len(), 1);

        let _own = TcpListener::bind(own).await.unwrap();
        for detour in pool.lock().detours.values_mut() {
            detour.probe_at = Instant::now();
        }
        assert!(
            Arc::ptr_eq(&detour, &pool.shard(&broker, route)),
            "the traffic doesn't wait"
        );
        until(|| pool.lock().connections.values().all(|each| each.is_open())).await;
        let direct = pool.shard(&broker, route);
        assert!(!Arc::ptr_eq(&detour, &direct) && direct.is_open());
        assert!(pool.lock().detours.is_empty());

        pool.close();
        assert!(direct.is_closed() && detour.is_closed());
        assert!(
            pool.shard(&broker, route).is_closed(),
            "closed is closed for good"
        );
    }
}
