//! What a supervisor is told that waits for the broker: that it serves, and that it is stopping.
//! systemd names a socket in `NOTIFY_SOCKET` for that; without it nobody is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Whoever started the broker and waits for it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: Option<OsString>,
}

impl Supervisor {
    /// The one that the environment names, if there is one.
    #[must_use]
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        Self {
            socket: socket.filter(|name| !name.is_empty()),
        }
    }

    /// The broker serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The broker finishes what it has accepted, and ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what was accepted");
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        // A supervisor that can't be told gives up by itself; the broker serves all the same.
        if let Err(error) = send(socket, state) {
            tracing::warn!(%error, socket = %socket.display(), "the supervisor can't be told");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // Linux' names outside of the file system.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(receiver: &UnixDatagram, supervisor: &Supervisor) -> String {
        supervisor.ready();
        let mut buffer = [0; 100];
        let bytes = receiver.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_a_name_without_one() {
        let scratch = crate::testing::scratch("supervisor");
        let path = scratch.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let socket = Some(path.into_os_string());
        let heard = told(&receiver, &Supervisor { socket });
        assert!(heard.starts_with("READY=1\n"), "{heard}");

        let name = format!("ringway-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        let socket = Some(format!("@{name}").into());
        assert_eq!(told(&receiver, &Supervisor { socket }), heard);

        // Nobody there is no reason to fail.
        Supervisor { socket: None }.ready();
        let socket = Some("/nowhere/notify".into());
        Supervisor { socket }.stopping();
    }
}
