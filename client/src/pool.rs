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
