//! The broker as a child process: started and awaited, stopped, or killed; its log is shown when a
//! test fails.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::failure::Attempting;
use crate::scratch::Scratch;
use crate::{sweep, sys};

/// How long a process may take to go after SIGKILL: its file descriptors are closed first, and on
/// a disk without power each of them waits for errors.
const DEATH_MAX: Duration = Duration::from_secs(60);
/// How much of the log a failed test shows, in bytes from its end.
const LOG_SHOWN_MAX: usize = 16 << 10;
const POLL: Duration = Duration::from_millis(2);

/// How to start a broker. The same options can start one again and again, on the same data.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    binary: PathBuf,
    data_dir: PathBuf,
    shards: u32,
    listen: String,
    admin_listen: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    ready_max: Duration,
    scratch: Scratch,
}

impl BrokerOptions {
    /// One shard, ports chosen by the kernel, data in the scratch directory. `binary` is
    /// `env!("CARGO_BIN_EXE_ringway-broker")` in the broker's own tests.
    pub fn new(binary: impl Into<PathBuf>, scratch: &Scratch) -> Self {
        Self {
            binary: binary.into(),
            data_dir: scratch.path().join("data"),
            shards: 1,
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            ready_max: Duration::from_secs(60),
            scratch: scratch.clone(),
        }
    }

    /// Where the data is, on a [`PowerCutDisk`](crate::PowerCutDisk) for example. The log and the
    /// working directory stay in the scratch directory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = path.into();
        self
    }

    /// `--shards`.
    #[must_use]
    pub fn shards(mut self, count: u32) -> Self {
        self.shards = count;
        self
    }

    /// `--listen` and `--admin-listen`, for a restart on the ports of before.
    #[must_use]
    pub fn listen(mut self, shared: SocketAddr, admin: SocketAddr) -> Self {
        self.listen = shared.to_string();
        self.admin_listen = admin.to_string();
        self
    }

    /// One more argument, after the others.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// How long it may take until the broker says that it is ready; 60 s unless said otherwise.
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.ready_max = limit;
        self
    }

    /// Starts a broker and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it ends first, says something else, or takes too long (it is killed then). The error has
    /// its exit status and its log, so that a test can expect a refusal.
    pub fn start(&self) -> Result<BrokerProcess, StartError> {
        let (child, log) = self.spawn().map_err(StartError::before_start)?;
        let mut child = Reaper(child);
        let stdout = child.0.stdout.take().expect("standard output was piped");
        let lines = read_lines(stdout);
        let mut grace = Duration::ZERO;
        let why = match lines.recv_timeout(self.ready_max) {
            Ok(line) => match Ready::parse(&line) {
                Some(ready) => {
                    let _scratch = self.scratch.clone();
                    return Ok(BrokerProcess {
                        child,
                        ready,
                        log,
                        _scratch,
                    });
                }
                None => format!("its first line of output isn't the ready line: {line:?}"),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                format!("it wasn't ready within {:?}", self.ready_max)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // It has closed its output, so it is about to end with a status of its own.
                grace = Duration::from_secs(10);
                "it ended before it was ready".to_owned()
            }
        };
        let ended = child.wait(grace).ok().flatten();
        let status = ended.or_else(|| child.kill().ok());
        Err(StartError {
            why,
            status,
            log: read_log(&log),
        })
    }

    fn spawn(&self) -> io::Result<(Child, PathBuf)> {
        let directory = self.scratch.create_dir("broker")?;
        let log = directory.join("log");
        let stderr = File::create(&log).attempting("creating the broker's log")?;
        let mut command = Command::new(&self.binary);
        command.arg("start").arg("--data-dir").arg(&self.data_dir);
        command.args([
            "--listen",
            &self.listen,
            "--admin-listen",
            &self.admin_listen,
        ]);
        command
            .arg("--shards")
            .arg(self.shards.to_string())
            .args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .env(sweep::MARK, self.scratch.path())
            .current_dir(&directory);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let child = command.spawn();
        Ok((
            child.attempting(format_args!("starting {}", self.binary.display()))?,
            log,
        ))
    }
}

/// Why a broker didn't become ready.
#[derive(Debug)]
pub struct StartError {
    /// What happened.
    pub why: String,
    /// How it ended; `None` if it never started or couldn't be killed.
    pub status: Option<ExitStatus>,
    /// What it wrote to standard error.
    pub log: String,
}

impl StartError {
    fn before_start(error: io::Error) -> Self {
        Self {
            why: error.to_string(),
            status: None,
            log: String::new(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker did not start: {}", self.why)?;
        if let Some(status) = self.status {
            write!(f, " ({status})")?;
        }
        write!(f, "; its log:\n{}", self.log)
    }
}

impl std::error::Error for StartError {}

/// A running broker. Dropping it kills it; if the test is panicking, its log is shown first.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Reaper,
    ready: Ready,
    log: PathBuf,
    _scratch: Scratch,
}

impl BrokerProcess {
    /// The shared port.
    pub fn listen(&self) -> SocketAddr {
        self.ready.listen
    }

    /// The port of each shard, by its index.
    pub fn shards(&self) -> &[SocketAddr] {
        &self.ready.shards
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    /// The process, as its parent knows it.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Sends it a signal: `libc::SIGSTOP` makes a zombie of it, `libc::SIGCONT` revives that.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: i32) -> io::Result<()> {
        if let Some(status) = self.child.0.try_wait()? {
            return Err(io::Error::other(format!("the broker has ended: {status}")));
        }
        sys::signal(self.pid(), signal)
    }

    /// Waits until it ends by itself, or the time is over.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.child.wait(limit)
    }

    /// Kills it (SIGKILL), and waits until it's gone.
    ///
    /// # Errors
    /// If it isn't gone after 60 s, which means that it waits for a device.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// If it takes longer than `limit`. It's still running then.
    pub fn stop(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.child.wait(limit)?.ok_or_else(|| {
            let what = format!("the broker was still running {limit:?} after SIGTERM");
            io::Error::new(io::ErrorKind::TimedOut, what)
        })
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let start = log.len().saturating_sub(LOG_SHOWN_MAX);
            let shown = String::from_utf8_lossy(&log[start..]);
            eprintln!(
                "---- log of the broker (pid {}) ----\n{shown}----",
                self.pid()
            );
        }
    }
}

/// A child that doesn't outlive its owner.
#[derive(Debug)]
struct Reaper(Child);

impl Reaper {
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            let status = self.0.try_wait()?;
            if status.is_some() || start.elapsed() > limit {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.wait(DEATH_MAX)?.ok_or_else(|| {
            let what = format!("the broker was still there {DEATH_MAX:?} after SIGKILL");
            io::Error::new(io::ErrorKind::TimedOut, what)
        })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // One that can't be killed is left to the next sweep.
        let _ = self.kill();
    }
}

/// The line that a broker prints when it can be used.
#[derive(Debug)]
struct Ready {
    listen: SocketAddr,
    shards: Vec<SocketAddr>,
    admin: SocketAddr,
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let address = |value: &serde_json::Value| value.as_str()?.parse::<SocketAddr>().ok();
        if line["event"] != "ready" || !line["pid"].is_u64() {
            return None;
        }
        Some(Self {
            listen: address(&line["listen"])?,
            shards: line["shards"]
                .as_array()?
                .iter()
                .map(address)
                .collect::<Option<_>>()?,
            admin: address(&line["admin"])?,
        })
    }
}

/// The lines of the output; read to its end, so that the broker never blocks on a full pipe.
fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens after the first line.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn read_log(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
