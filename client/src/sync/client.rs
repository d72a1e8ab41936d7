//! Where producers and consumers of the synchronous face come from.

use crate::builder::{ConsumerBuilder, ProducerBuilder};
use crate::config::{Address, ClientConfig};
use crate::error::ConnectError;
use crate::sync::admin::Admin;
use crate::sync::link::Link;

/// What a call that waits does with the core while there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Offers it to other threads between two looks, and goes on at once if none wants it.
    #[default]
    Yield,
    /// Keeps it: for a core that nobody else uses.
    Spin,
}

/// A cluster; cheap to clone. It holds no connection: each producer and consumer has its own.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    brokers: Vec<Address>,
    idle: Idle,
}

impl Client {
    /// Finds a cluster by some of its brokers: "host:port[,host:port…]".
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub fn connect(brokers: &str) -> Result<Self, ConnectError> {
        Self::with_config(ClientConfig::new(brokers))
    }

    /// Finds a cluster. Each of the brokers is tried once.
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub fn with_config(config: ClientConfig) -> Result<Self, ConnectError> {
        let client = Self {
            brokers: config.addresses()?,
            config,
            idle: Idle::default(),
        };
        client.link().first_contact()?;
        Ok(client)
    }

    /// What calls that wait do while there is nothing to do; by default they yield.
    #[must_use]
    pub const fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// Topics and offsets, over connections of its own.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.link())
    }

    /// A producer with the default settings, to be changed and built.
    pub fn producer(&self) -> ProducerBuilder<Self> {
        ProducerBuilder::new(self.clone())
    }

    /// A consumer with the default settings, to be changed and built.
    pub fn consumer(&self) -> ConsumerBuilder<Self> {
        ConsumerBuilder::new(self.clone())
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// New connections.
    pub(super) fn link(&self) -> Link {
        Link::new(self.config.clone(), self.brokers.clone(), self.idle)
    }
}
