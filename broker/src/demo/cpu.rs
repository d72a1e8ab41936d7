//! CPU time of this process, split by who used it: the sampler, the client with the verifier (both
//! on the main thread), and the rest, which is the broker.

use std::time::Duration;

use serde::Serialize;

use super::parse;

/// The kernel's unit in `/proc/PID/stat`: fixed at a hundredth of a second for programs.
const TICK: Duration = Duration::from_millis(10);

/// User and system time in a `stat` file; zero if it can't be read.
fn time_in(path: &str) -> Duration {
    let text = std::fs::read(path).unwrap_or_default();
    let mut ticks = 0;
    parse::process_stat(
        &String::from_utf8_lossy(&text),
        "",
        &mut |metric, _, value| {
            if matches!(metric, "user_ticks" | "system_ticks") {
                ticks += u32::try_from(value).unwrap_or(u32::MAX);
            }
        },
    );
    TICK * ticks
}

/// The calling thread's CPU time.
pub(super) fn of_this_thread() -> Duration {
    time_in("/proc/thread-self/stat")
}

/// What the process and the calling thread have used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuMark {
    process: Duration,
    thread: Duration,
}

/// Cores in use on average; 1 is one core all the time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Cores {
    /// All of the process.
    pub(super) total: f64,
    /// The broker's threads.
    pub(super) broker: f64,
    /// Producer, consumer and verifier.
    pub(super) client: f64,
    /// Reading `/proc` and encoding samples.
    pub(super) sampler: f64,
}

impl CpuMark {
    /// Now, on the thread of the client.
    pub(super) fn now() -> Self {
        Self {
            process: time_in("/proc/self/stat"),
            thread: of_this_thread(),
        }
    }

    /// What was used since, in `time`, on the same thread.
    pub(super) fn cores_since(self, sampler: Duration, time: Duration) -> Cores {
        let now = Self::now();
        let total = now.process.saturating_sub(self.process);
        let client = now.thread.saturating_sub(self.thread);
        let broker = total.saturating_sub(client).saturating_sub(sampler);
        let cores = |used: Duration| used.as_secs_f64() / time.as_secs_f64().max(1e-9);
        Cores {
            total: cores(total),
            broker: cores(broker),
            client: cores(client),
            sampler: cores(sampler),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_where_it_is_done() {
        let mark = CpuMark::now();
        while of_this_thread() < mark.thread + 5 * TICK {
            std::hint::black_box(0_u64);
        }
        let cores = mark.cores_since(Duration::ZERO, 5 * TICK);
        assert!(cores.client >= 1.0, "{cores:?}");
        assert!(cores.total > 0.0, "{cores:?}");
    }
}
