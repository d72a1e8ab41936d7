//! Runs the `ringway` binary against a broker and collects what it says.

#![allow(dead_code, reason = "each test uses the parts that it needs")]

pub(crate) mod broker;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// After so long a command is taken to hang.
const HANGING: Duration = Duration::from_secs(120);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Run {
    /// What it wrote, as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("the output is text")
    }

    /// What it wrote, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The run, which must have ended well.
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output
                .status
                .code()
                .unwrap_or_else(|| panic!("it hung: {output:?}")),
            out: output.stdout,
            err: String::from_utf8(output.stderr).expect("messages are text"),
        }
    }
}

/// Runs commands against one broker.
pub(crate) struct Ringway {
    broker: String,
}

impl Ringway {
    /// For the broker at "host:port".
    pub(crate) fn new(broker: impl Into<String>) -> Self {
        Self {
            broker: broker.into(),
        }
    }

    /// Starts a command; its words are split at spaces, and `~` in them stands for a space.
    pub(crate) fn start(&self, line: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(line.split(' ').map(|word| word.replace('~', " ")))
            .env("RINGWAY_BROKER", &self.broker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs")
    }

    /// Runs a command without input.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.feed(line, b"")
    }

    /// Runs a command with input.
    pub(crate) fn feed(&self, line: &str, input: &[u8]) -> Run {
        feed(self.start(line), input)
    }
}

/// Gives a command its input and waits for its end.
pub(crate) fn feed(mut child: Child, input: &[u8]) -> Run {
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feeding = thread::spawn(move || {
        // A command that ends early doesn't read everything.
        let _ = stdin.write_all(&input);
    });
    let run = finish(child);
    feeding.join().expect("writing doesn't panic");
    run
}

/// Waits for the end of a command and takes the rest of its output. One that hangs is killed, so
/// that its test fails instead of hanging too.
pub(crate) fn finish(child: Child) -> Run {
    let pid = child.id();
    let (ended, wait) = mpsc::channel::<()>();
    let watching = thread::spawn(move || {
        if wait.recv_timeout(HANGING) == Err(RecvTimeoutError::Timeout) {
            kill(pid, "KILL");
        }
    });
    let output = child.wait_with_output().expect("it ends");
    drop(ended);
    watching.join().expect("watching doesn't panic");
    output.into()
}

/// Reads bytes from a running command until there are `wanted`.
pub(crate) fn read(child: &mut Child, wanted: usize) -> Vec<u8> {
    let mut bytes = vec![0; wanted];
    let stdout = child.stdout.as_mut().expect("it is piped");
    stdout.read_exact(&mut bytes).expect("so much is written");
    bytes
}

/// Sends a signal, named as `kill` names it.
pub(crate) fn signal(child: &Child, name: &str) {
    kill(child.id(), name);
}

fn kill(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Bytes without a pattern, the same in every run.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(bytes / 8 + 1)
        .flatten()
        .collect();
    out.truncate(bytes);
    out
}
