//! A line on the terminal that shows how far sending has come; nothing anywhere else.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::units::{bytes, count, rate};

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(100);

/// The line, if there is one.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// Shows a line if standard error is a terminal on which nobody types the input.
    pub(crate) fn start(wanted: bool) -> Self {
        let visible = wanted && io::stderr().is_terminal() && !io::stdin().is_terminal();
        let bar = visible.then(|| {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(ProgressStyle::with_template("{msg}").expect("a message is a template"))
        });
        let now = Instant::now();
        Self {
            bar,
            started: now,
            shown: now,
        }
    }

    /// Shows records and bytes sent so far, now and then.
    pub(crate) fn show(&mut self, records: u64, sent_bytes: u64) {
        let Some(bar) = &self.bar else {
            return;
        };
        let now = Instant::now();
        if now - self.shown < PERIOD {
            return;
        }
        self.shown = now;
        let time = now - self.started;
        bar.set_message(format!(
            "{} records, {}, {} records/s, {}/s",
            count(records),
            bytes(sent_bytes as f64),
            count(rate(records, time) as u64),
            bytes(rate(sent_bytes, time))
        ));
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
