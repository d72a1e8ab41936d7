//! The client: what producers, consumers and administration share.

use std::sync::Arc;

use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::consumer::ConsumerBuilder;
use crate::error::ConnectError;
use crate::producer::ProducerBuilder;

/// A connection to a cluster; cheap to clone. Its producers and consumers share one connection
/// per shard of a broker, and what is known about topics. It needs a tokio runtime with I/O and
/// time enabled. When the last clone, producer and consumer are gone, its connections close.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Connects to a cluster by some of its brokers: "host:port[,host:port…]".
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub async fn connect(brokers: &str) -> Result<Self, ConnectError> {
        Self::with_config(ClientConfig::new(brokers)).await
    }

    /// Connects to a cluster.
    ///
    /// # Errors
    /// [`ConnectError`]: none of the brokers answered, or an address can't be read.
    pub async fn with_config(config: ClientConfig) -> Result<Self, ConnectError> {
        let _ = config.addresses()?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Topics and offsets.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A producer with the default settings, to be changed and built.
    #[must_use]
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// A consumer with the default settings, to be changed and built.
    #[must_use]
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }
}
