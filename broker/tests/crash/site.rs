//! A place where brokers are started again and again, on the same data and the same ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use ringway_testing::variable;
use ringway_testing::{BrokerOptions, BrokerProcess, Random, Scratch, StartError};

/// Ports of a site: the shared one, its shards', and the admin's as the last.
const PORTS: u16 = 8;
/// Below those that the kernel gives to clients, so that none of them takes one while the broker
/// is away.
const PORTS_FROM: u64 = 15_000;
const PORTS_TO: u64 = 32_000;

/// Every test here takes a whole machine: one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The broker under test. Another build of it can be put in its place, to see that it is found
/// out: `broken.sh` does.
pub(crate) fn binary() -> PathBuf {
    let other = std::env::var_os("RINGWAY_CRASH_BROKER");
    other.map_or_else(
        || env!("CARGO_BIN_EXE_ringway-broker").into(),
        PathBuf::from,
    )
}

/// A scratch directory in the build directory.
pub(crate) fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

/// Data, ports, and the broker that has them, if one runs.
pub(crate) struct Site {
    scratch: Scratch,
    data_dir: PathBuf,
    ports: u16,
    broker: Option<BrokerProcess>,
}

impl Site {
    /// A site whose data is in `data_dir`.
    pub(crate) fn new(scratch: &Scratch, data_dir: &Path) -> Self {
        Self {
            scratch: scratch.clone(),
            data_dir: data_dir.to_owned(),
            ports: free_ports(),
            broker: None,
        }
    }

    /// Where clients find the broker, whichever it is.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports)
    }

    /// How the next broker is started.
    pub(crate) fn options(&self, shards: u32) -> BrokerOptions {
        let address = |port| (std::net::Ipv4Addr::LOCALHOST, port).into();
        BrokerOptions::new(binary(), &self.scratch)
            .data_dir(&self.data_dir)
            .shards(shards)
            // Small, so that readers meet the disk, and memory that grows is not the cache's.
            .argument("--cache-bytes")
            .argument("33554432")
            .listen(address(self.ports), address(self.ports + PORTS - 1))
    }

    /// Starts a broker.
    #[track_caller]
    pub(crate) fn start(&mut self, shards: u32) {
        if let Err(error) = self.try_start(shards) {
            panic!("{error}");
        }
    }

    /// Starts a broker with options of the test's own.
    #[track_caller]
    pub(crate) fn start_with(&mut self, options: &BrokerOptions) {
        assert!(self.broker.is_none(), "one broker at a time");
        match options.start() {
            Ok(broker) => self.broker = Some(broker),
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts a broker, which may refuse.
    pub(crate) fn try_start(&mut self, shards: u32) -> Result<(), StartError> {
        assert!(self.broker.is_none(), "one broker at a time");
        self.broker = Some(self.options(shards).start()?);
        Ok(())
    }

    /// The broker that runs.
    pub(crate) fn broker(&mut self) -> &mut BrokerProcess {
        self.broker.as_mut().expect("a broker runs")
    }

    /// Kills the broker (SIGKILL), and gives back what it logged.
    pub(crate) fn kill(&mut self) -> String {
        let mut broker = self.broker.take().expect("a broker runs");
        broker.kill().unwrap();
        broker.log()
    }

    /// Asks the broker to stop (SIGTERM), which has to end with 0, and gives back what it logged.
    #[track_caller]
    pub(crate) fn stop(&mut self, within: std::time::Duration) -> String {
        let mut broker = self.broker.take().expect("a broker runs");
        let status = broker.stop(within).unwrap();
        assert_eq!(status.code(), Some(0), "{}", broker.log());
        broker.log()
    }
}

/// The first of some ports in a row that nobody has.
fn free_ports() -> u16 {
    let mut random = Random::new(u64::from(std::process::id()) << 16 ^ now_ns());
    loop {
        let first = (PORTS_FROM + random.below(PORTS_TO - PORTS_FROM)) as u16;
        let listen = |port| TcpListener::bind(("127.0.0.1", port));
        let all: Result<Vec<_>, _> = (first..first + PORTS).map(listen).collect();
        if all.is_ok() {
            return first;
        }
    }
}

fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
