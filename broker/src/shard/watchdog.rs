//! Shards that don't turn any more: told about after a second, ended with the process after five.
//! A client's time-outs would otherwise be the only sign of a broker that holds its locks for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the watchdog looks. Rarely: an idle broker sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A turn that is told about.
const WARN_AFTER: Duration = Duration::from_secs(1);
/// A turn that ends the process.
const ABORT_AFTER: Duration = Duration::from_secs(5);

/// Changes with every turn of a shard: odd while it works, even while it sleeps.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// A turn begins.
    pub(crate) fn awake(&self) {
        let beats = self.0.load(Ordering::Relaxed);
        self.0.store((beats | 1).wrapping_add(2), Ordering::Relaxed);
    }

    /// The shard may sleep as long as it likes.
    pub(crate) fn asleep(&self) {
        let beats = self.0.load(Ordering::Relaxed);
        self.0.store((beats | 1).wrapping_add(1), Ordering::Relaxed);
    }
}

/// What one look at a shard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Slow(Duration),
    Stuck(Duration),
}

/// What was seen of one shard.
#[derive(Clone, Copy, Debug)]
struct Seen {
    beats: u64,
    since: Instant,
}

impl Seen {
    fn look(&mut self, beats: u64, now: Instant) -> Verdict {
        if beats != self.beats || beats.is_multiple_of(2) {
            *self = Self { beats, since: now };
        }
        match now - self.since {
            turn if turn >= ABORT_AFTER => Verdict::Stuck(turn),
            turn if turn >= WARN_AFTER => Verdict::Slow(turn),
            _ => Verdict::Fine,
        }
    }
}

/// The thread that looks; it ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches shards, by their ids.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(pulses: Vec<Arc<Pulse>>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let since = Instant::now();
                let mut seen = vec![Seen { beats: 0, since }; pulses.len()];
                while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    let now = Instant::now();
                    for (shard, (seen, pulse)) in seen.iter_mut().zip(&pulses).enumerate() {
                        act(shard, seen.look(pulse.0.load(Ordering::Relaxed), now));
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn act(shard: usize, verdict: Verdict) {
    match verdict {
        Verdict::Fine => {}
        Verdict::Slow(turn) => {
            tracing::warn!(
                shard,
                turn_ms = turn.as_millis() as u64,
                "a shard doesn't turn"
            );
        }
        Verdict::Stuck(turn) => {
            // The logger may be what is stuck.
            eprintln!(
                "shard {shard} has not turned for {} s: a defect of the broker or a machine that \
                 stands still; aborting, so that others can take over",
                turn.as_secs()
            );
            std::process::abort();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only sleeps and looks.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_turn_is_stuck() {
        let start = Instant::now();
        let pulse = Pulse::default();
        let mut seen = Seen {
            beats: 0,
            since: start,
        };
        let mut look = |pulse: &Pulse, seconds: u64| {
            seen.look(
                pulse.0.load(Ordering::Relaxed),
                start + Duration::from_secs(seconds),
            )
        };
        pulse.asleep();
        assert_eq!(look(&pulse, 100), Verdict::Fine);
        assert_eq!(look(&pulse, 200), Verdict::Fine, "a parked shard may sleep");
        pulse.awake();
        assert_eq!(look(&pulse, 201), Verdict::Fine);
        assert_eq!(look(&pulse, 203), Verdict::Slow(Duration::from_secs(2)));
        pulse.awake();
        assert_eq!(look(&pulse, 207), Verdict::Fine, "it has turned since");
        assert_eq!(look(&pulse, 212), Verdict::Stuck(Duration::from_secs(5)));
        pulse.asleep();
        assert_eq!(look(&pulse, 213), Verdict::Fine);
    }
}
