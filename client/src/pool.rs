//! The connections of a client, one per port, and which shard ports can't be reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringway_wire::request::BrokerMetadata;

use crate::config::Address;
use crate::connection::{Connection, Ended, Options};
use crate::core::metadata::Route;
use crate::limits::SHARD_CONNECT_TIMEOUT;

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<Address, Arc<Connection>>,
    /// Shard ports that can't be reached, each with the broker's shared one. Forgotten when the
    /// connection to that one ends: a broker that starts again may be reached better.
    detours: HashMap<Address, Address>,
    /// The shared port of each shard port that was connected to.
    shards: HashMap<Address, Address>,
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
        inner.detours.retain(|_, shared| shared != address);
        if let Some(shared) = inner.shards.remove(address)
            && !connected
        {
            inner.detours.insert(address.clone(), shared);
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
        let own = broker.shard_ports.get(usize::from(to.shard.0));
        let own = own.map(|&port| Address {
            host: Arc::clone(&shared.host),
            port,
        });
        match own {
            Some(own) if !self.lock().detours.contains_key(&own) => self.open(&own, Some(shared)),
            _ => self.open(&shared, None),
        }
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
