//! The broker's TCP ports: the shared one and one per shard, bound before anything is opened, so
//! that a second broker learns at once that there is a first.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ringway_engine::meta::Addresses;

use crate::config::{Config, HostPort};

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4_096;
/// How long a port may stay taken by a broker that was killed: the kernel takes its rings apart
/// after the process is gone, and until then they hold what they were accepting on.
const RELEASED_WITHIN: Duration = Duration::from_secs(3);
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// Why a port can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} ({what}): {source}; {remedy}")]
pub struct ListenError {
    /// What the port is for.
    pub what: String,
    /// The address.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
    /// What to do.
    pub remedy: &'static str,
}

/// The listening sockets of a broker.
#[derive(Debug)]
pub struct Listeners {
    /// For connections to any shard.
    pub shared: TcpListener,
    /// For connections to one shard, by shard id.
    pub shards: Vec<TcpListener>,
}

impl Listeners {
    /// Binds every port of `config`. Without SO_REUSEPORT: a port has one broker.
    ///
    /// # Errors
    /// [`ListenError`] names the port and what to do.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let shared = bind(&config.listen, "the shared port")?;
        let at = local(&shared);
        let shards = (0..config.shards)
            .map(|shard| {
                // The configuration was checked: all ports fit.
                let port = if config.listen.port == 0 {
                    0
                } else {
                    at.port() + 1 + shard
                };
                let host = at.ip().to_string();
                bind(&HostPort { host, port }, &format!("shard {shard}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, shards })
    }

    /// What metadata names: the addresses bound, or those that `config` advertises.
    #[must_use]
    pub fn addresses(&self, config: &Config) -> Addresses {
        let shared = local(&self.shared);
        let port = config
            .advertise
            .as_ref()
            .and_then(|advertise| advertise.port);
        let port = port.unwrap_or(shared.port());
        // Ports that are mapped on the way are mapped by the same distance.
        let moved = |bound: u16| bound.wrapping_sub(shared.port()).wrapping_add(port);
        let host = config
            .advertise
            .as_ref()
            .map(|advertise| advertise.host.clone());
        Addresses {
            host: host.unwrap_or_else(|| shared.ip().to_string()),
            port,
            shard_ports: self
                .shards
                .iter()
                .map(|shard| moved(local(shard).port()))
                .collect(),
        }
    }
}

/// The address that a listener is bound to.
///
/// # Panics
/// Never for a bound socket.
#[must_use]
pub fn local(listener: &TcpListener) -> SocketAddr {
    listener
        .local_addr()
        .expect("a bound socket has an address")
}

/// Listens on one address. One that is in use is tried for up to 3 s: a broker that was killed a
/// moment ago may not have let go of it.
///
/// # Errors
/// [`ListenError`] names the port and what to do.
pub fn bind(address: &HostPort, what: &str) -> Result<TcpListener, ListenError> {
    let failed = |source: io::Error| ListenError {
        what: what.to_owned(),
        address: address.to_string(),
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another broker or program has it: stop that one, or choose other ports with \
                 --listen and --admin-listen"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: see `ip address`",
            io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher",
            _ => "see whether the host name is right",
        },
        source,
    };
    let listener = bind_released(address).map_err(failed)?;
    // SAFETY: the call takes no pointers, and the descriptor is open for as long as `listener`.
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(listener)
}

fn bind_released(address: &HostPort) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        let bound = TcpListener::bind((address.host.as_str(), address.port));
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        if !bound.as_ref().is_err_and(in_use) || start.elapsed() >= RELEASED_WITHIN {
            return bound;
        }
        std::thread::sleep(RELEASE_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[(&str, &str)]) -> Config {
        let listen = [
            ("listen", "127.0.0.1:0"),
            ("admin_listen", "127.0.0.1:0"),
            ("shards", "3"),
        ];
        Config::load(None, listen.into_iter().chain(flags.iter().copied())).unwrap()
    }

    #[test]
    fn port_zero_lets_the_kernel_choose_all() {
        let config = config(&[]);
        let listeners = Listeners::bind(&config).unwrap();
        let addresses = listeners.addresses(&config);
        assert_eq!(addresses.host, "127.0.0.1");
        assert_eq!(addresses.port, local(&listeners.shared).port());
        assert_eq!(addresses.shard_ports.len(), 3);
        let bound: Vec<_> = listeners
            .shards
            .iter()
            .map(|shard| local(shard).port())
            .collect();
        assert_eq!(addresses.shard_ports, bound);
    }

    #[test]
    fn shards_follow_the_shared_port_and_a_second_broker_is_refused() {
        // Some run of four free ports; others may be taking ports at the same time.
        let (first, listeners) = (20_000..60_000)
            .step_by(7)
            .find_map(|port| {
                let config = config(&[("listen", &format!("127.0.0.1:{port}"))]);
                Listeners::bind(&config)
                    .ok()
                    .map(|listeners| (config, listeners))
            })
            .expect("four free ports");
        let addresses = listeners.addresses(&first);
        let port = first.listen.port;
        assert_eq!(addresses.shard_ports, [port + 1, port + 2, port + 3]);
        let error = Listeners::bind(&first).unwrap_err().to_string();
        assert!(
            error.contains("the shared port") && error.contains("another broker"),
            "{error}"
        );
        // A broker whose shared port is free but a shard's is not.
        let second = config(&[
            ("listen", &format!("127.0.0.1:{}", port - 1)),
            ("shards", "1"),
        ]);
        if let Err(error) = Listeners::bind(&second) {
            let error = error.to_string();
            assert!(
                error.contains("shard 0") || error.contains("the shared port"),
                "{error}"
            );
        } else {
            panic!("port {port} is taken");
        }
    }

    #[test]
    fn what_is_advertised_is_named_and_a_mapped_port_maps_all() {
        let config = config(&[("advertise", "b1.example.org:9000")]);
        let listeners = Listeners::bind(&config).unwrap();
        let addresses = listeners.addresses(&config);
        assert_eq!(
            (addresses.host.as_str(), addresses.port),
            ("b1.example.org", 9_000)
        );
        let shared = local(&listeners.shared).port();
        for (listener, port) in listeners.shards.iter().zip(&addresses.shard_ports) {
            let distance = local(listener).port().wrapping_sub(shared);
            assert_eq!(*port, 9_000u16.wrapping_add(distance));
        }
    }

    #[test]
    fn a_wrong_host_is_named() {
        let address = "203.0.113.7:0".parse().unwrap();
        let error = bind(&address, "the shared port").unwrap_err().to_string();
        assert!(
            error.contains("203.0.113.7") && error.contains("ip address"),
            "{error}"
        );
    }
}
