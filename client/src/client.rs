//! The client: what producers, consumers and administration share.

use std::sync::Arc;

use crate::admin::Admin;
use crate::builder::{ConsumerBuilder, ProducerBuilder};
use crate::config::ClientConfig;
use crate::error::ConnectError;
use crate::shared::Shared;

/// A connection to a cluster; cheap to clone. Its producers and consumers share one connection
/// per shard of a broker, and what is known about topics. It needs a tokio runtime with I/O and
/// time enabled. When the last clone, producer and consumer are gone, its connections close.
#[derive(Clone, Debug)]
pub struct Client {
    guard: Arc<Guard>,
}

/// Closes everything when the last user is gone.
#[derive(Debug)]
struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Client {
    /// Connects to a cluster by some of its brokers: "host:port[,host:port…]".
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub async fn connect(brokers: &str) -> Result<Self, ConnectError> {
        Self::with_config(ClientConfig::new(brokers)).await
    }

    /// Connects to a cluster. Each of the brokers is tried once.
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub async fn with_config(config: ClientConfig) -> Result<Self, ConnectError> {
        let client = Self {
            guard: Arc::new(Guard {
                shared: Shared::new(config)?,
            }),
        };
        client.shared().first_contact().await?;
        client.shared().keep_metadata();
        Ok(client)
    }

    /// Topics and offsets.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
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
    pub fn config(&self) -> &ClientConfig {
        &self.shared().config
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.guard.shared
    }
}
