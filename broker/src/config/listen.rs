//! Addresses as people write them: where to listen, and what to tell others.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `HOST:PORT`; a host is a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPort {
    /// The host, without brackets.
    pub host: String,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
}

/// `HOST` or `HOST:PORT`, as others reach this broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertise {
    /// The host, without brackets.
    pub host: String,
    /// The shared port, where it differs from the one listened on; a shard's port then differs by
    /// as much.
    pub port: Option<u16>,
}

impl HostPort {
    /// The host as an address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it stands for every address of the machine.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

fn split(text: &str) -> Result<(String, Option<&str>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            let port = match rest {
                "" => None,
                rest => Some(
                    rest.strip_prefix(':')
                        .ok_or("a port follows a bracket as :PORT")?,
                ),
            };
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "brackets hold an IPv6 address")?;
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address stands in brackets, as in [::1]:7420".to_owned());
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(legal) {
        return Err("there is no host name or address before the port".to_owned());
    }
    Ok((host.to_owned(), port))
}

fn port_number(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a port: 0 to 65535"))
}

fn write_host(host: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]")
    } else {
        f.write_str(host)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split(text)?;
        let port = port.ok_or_else(|| format!("the port is missing, as in {text}:7420"))?;
        Ok(Self {
            host,
            port: port_number(port)?,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(&self.host, f)?;
        write!(f, ":{}", self.port)
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split(text)?;
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err("nobody can connect to an address that stands for all".to_owned());
        }
        let port = port.map(port_number).transpose()?;
        if port == Some(0) {
            return Err("nobody can connect to port 0".to_owned());
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(&self.host, f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in [
            "127.0.0.1:7420",
            "localhost:0",
            "[::1]:65535",
            "broker-3.example.org:1",
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
            assert_eq!(
                text.parse::<Advertise>().is_ok(),
                !text.ends_with(":0"),
                "{text}"
            );
        }
        for text in ["broker-3", "[fe80::1]", "10.0.0.1"] {
            assert_eq!(text.parse::<Advertise>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, why) in [
            ("127.0.0.1", "port is missing"),
            (":7420", "no host"),
            ("", "no host"),
            ("::1:7420", "brackets"),
            ("[::1:7420", "not closed"),
            ("[::1]7420", ":PORT"),
            ("[zz]:1", "IPv6"),
            ("h:65536", "65535"),
            ("h:x", "not a port"),
            ("a b:1", "no host"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(
            "0.0.0.0"
                .parse::<Advertise>()
                .unwrap_err()
                .contains("stands for all")
        );
    }

    #[test]
    fn reach_is_known() {
        let is = |text: &str| {
            let address: HostPort = text.parse().unwrap();
            (address.is_unspecified(), address.is_loopback())
        };
        assert_eq!(is("0.0.0.0:1"), (true, false));
        assert_eq!(is("[::]:1"), (true, false));
        assert_eq!(is("127.1.2.3:1"), (false, true));
        assert_eq!(is("localhost:1"), (false, true));
        assert_eq!(is("10.0.0.1:1"), (false, false));
    }
}
