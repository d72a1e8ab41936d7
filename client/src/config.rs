//! How a client reaches its brokers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConnectError;
use crate::limits::{CONNECT_TIMEOUT_DEFAULT, REQUEST_TIMEOUT_DEFAULT};

/// Settings of a client; the defaults are right for most.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to begin with, each "host:port"; one that answers is enough.
    pub brokers: Vec<String>,
    /// The client's name in the broker's logs; at most 255 bytes are kept.
    pub client_name: String,
    /// After so long without an answer a connection is taken for dead, and calls of
    /// `Admin` fail. 30 s by default; a consumer's wait comes on top.
    pub request_timeout: Duration,
    /// Time to connect to a broker. 3 s by default; a shard's own port gets 250 ms.
    pub connect_timeout: Duration,
    /// Whether the kernel probes idle connections. On by default.
    pub keepalive: bool,
}

impl ClientConfig {
    /// The defaults for some brokers: "host:port[,host:port…]".
    #[must_use]
    pub fn new(brokers: &str) -> Self {
        let brokers = brokers
            .split(',')
            .map(str::trim)
            .filter(|broker| !broker.is_empty());
        Self {
            brokers: brokers.map(str::to_owned).collect(),
            client_name: "ringway-client".to_owned(),
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            keepalive: true,
        }
    }

    /// The brokers as addresses.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, ConnectError> {
        if self.brokers.is_empty() {
            return Err(ConnectError::NoBroker);
        }
        self.brokers
            .iter()
            .map(|broker| Address::parse(broker))
            .collect()
    }
}

/// Host and port of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl Address {
    /// Reads "host:port", "[v6]:port".
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Address {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self {
            host: bare.unwrap_or(host).into(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_wrong_ones_are_named() {
        for text in ["localhost:7420", "[::1]:7420", "10.0.0.1:1"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["localhost", ":7420", "::1:7420", "a:b", "a:70000", ""] {
            assert!(
                matches!(Address::parse(text), Err(ConnectError::Address { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn brokers_are_split_at_commas() {
        assert_eq!(ClientConfig::new("a:1, b:2,").brokers, ["a:1", "b:2"]);
        assert!(matches!(
            ClientConfig::new("").addresses(),
            Err(ConnectError::NoBroker)
        ));
    }
}
