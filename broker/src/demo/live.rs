//! The lines on a terminal that show how the run goes; nothing anywhere else.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::latency::Percentiles;
use crate::figures::{bytes, count, time_us};

/// How the run stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// The demo's clock.
    pub(super) now_ns: u64,
    /// Records given to the producer.
    pub(super) sent: u64,
    /// Records acknowledged as durable.
    pub(super) acknowledged: u64,
    /// Records consumed and verified.
    pub(super) verified: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// From sending to acknowledgement, since the last look.
    pub(super) durable: Percentiles,
    /// From the look at `/proc` to the verified record, since the last look.
    pub(super) end_to_end: Percentiles,
    /// Whether nothing wrong was found.
    pub(super) healthy: bool,
}

/// The lines, if there is somebody to see them.
#[derive(Debug)]
pub(super) struct Live {
    bar: Option<ProgressBar>,
    length: Duration,
    last: Figures,
}

impl Live {
    /// Lines for a run of some length, if standard error is a terminal.
    pub(super) fn new(wanted: bool, length: Duration) -> Self {
        let bar = (wanted && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template is legal");
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        Self {
            bar,
            length,
            last: Figures::default(),
        }
    }

    /// Whether anybody sees them.
    pub(super) const fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows the figures, and rates since the last call.
    pub(super) fn show(&mut self, figures: &Figures) {
        let Some(bar) = &self.bar else { return };
        bar.set_message(lines(figures, &self.last, self.length));
        self.last = *figures;
    }

    /// Takes the lines away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn lines(now: &Figures, last: &Figures, length: Duration) -> String {
    let elapsed = Duration::from_nanos(now.now_ns);
    let since = Duration::from_nanos(now.now_ns - last.now_ns).as_secs_f64();
    let rate = |now: u64, last: u64| (now - last) as f64 / since.max(1e-9);
    let records = |now, last| count(rate(now, last).round() as u64);
    let percentiles = |of: &Percentiles| {
        let [p50, p99, p999] = [of.p50, of.p99, of.p999].map(time_us);
        format!("p50 {p50:>8}   p99 {p99:>8}   p99.9 {p999:>8}")
    };
    let state = if now.healthy {
        "as sent"
    } else {
        "NOT as sent"
    };
    let phase = if elapsed < length {
        format!("{} s of {} s", elapsed.as_secs(), length.as_secs())
    } else {
        "finishing".to_owned()
    };
    format!(
        "  {phase}: {} records verified, {state}\n  \
         sent {}/s   durable {}/s   verified {}/s   {}/s of values\n  \
         sending to durable    {}\n  \
         sample to verified    {}",
        count(now.verified),
        records(now.sent, last.sent),
        records(now.acknowledged, last.acknowledged),
        records(now.verified, last.verified),
        bytes(rate(now.bytes, last.bytes)),
        percentiles(&now.durable),
        percentiles(&now.end_to_end),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_since_the_last_look() {
        let last = Figures {
            now_ns: 1_000_000_000,
            sent: 10_000,
            ..Figures::default()
        };
        let now = Figures {
            now_ns: 3_000_000_000,
            sent: 130_000,
            acknowledged: 100_000,
            verified: 90_000,
            bytes: 10_000_000,
            healthy: true,
            ..last
        };
        let text = lines(&now, &last, Duration::from_secs(20));
        for part in [
            "3 s of 20 s: 90,000 records verified, as sent",
            "sent 60,000/s",
            "durable 50,000/s",
            "5.00 MB/s of values",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let end = Figures {
            healthy: false,
            ..now
        };
        let text = lines(&end, &last, Duration::from_secs(3));
        assert!(
            text.contains("finishing") && text.contains("NOT as sent"),
            "{text}"
        );
    }
}
