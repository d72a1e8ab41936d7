//! `ringway top`: looks at a broker again and again, and shows what has changed.

mod http;
mod report;
mod sample;
mod screen;

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::args::{GlobalArgs, TopArgs};
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::output::{Reader, print, print_json};
use report::{Report, Sample, report};

/// Carries out `ringway top`.
pub(super) async fn run(global: &GlobalArgs, args: &TopArgs) -> Result<(), Failure> {
    let environment = |error: io::Error| Failure::new(Exit::Environment, error.to_string());
    let mut interrupt = Interrupt::watch().map_err(environment)?;
    let mut reader = Reader::watch().map_err(environment)?;
    let start = Instant::now();
    let mut before = look(args, start).await?;
    // The picture stays where it is only if somebody looks at it.
    let in_place = !args.once && !global.json() && io::stdout().is_terminal();
    let place = Place::take(in_place)?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            () = interrupt.asked() => return Ok(()),
            () = reader.gone() => return Ok(()),
        }
        match look(args, start).await {
            Ok(after) => {
                if let Some(report) = report(&before, &after) {
                    place.show(global, args, &report)?;
                    if args.once {
                        return Ok(());
                    }
                }
                before = after;
            }
            // Somebody who watches wants to see it come back.
            Err(failure) if place.in_place => place.say(&format!("{failure}; trying again"))?,
            Err(failure) => return Err(failure),
        }
    }
}

/// One look at the broker.
async fn look(args: &TopArgs, start: Instant) -> Result<Sample, Failure> {
    let admin = &args.admin;
    let failure = |error: &dyn std::fmt::Display| {
        let message = format!(
            "the admin server at {admin}: {error}; name another with --admin or RINGWAY_ADMIN"
        );
        Failure::new(Exit::Environment, message)
    };
    let metrics = http::get(admin, "/metrics")
        .await
        .map_err(|error| failure(&error))?;
    let at = start.elapsed();
    let status = http::get(admin, "/status")
        .await
        .map_err(|error| failure(&error))?;
    let text = String::from_utf8_lossy(&metrics);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Sample {
        at,
        unix_us: unix.as_ref().map_or(0, Duration::as_micros) as i64,
        shards: sample::parse_metrics(&text).map_err(|error| failure(&error))?,
        status: sample::parse_status(&status).map_err(|error| failure(&error))?,
    })
}

/// Where reports go: one after the other, or in place on a screen of their own, which is given
/// back at the end.
struct Place {
    in_place: bool,
}

impl Place {
    fn take(in_place: bool) -> Result<Self, Failure> {
        if in_place {
            // The terminal's other screen, without a cursor.
            print("\x1b[?1049h\x1b[?25l\x1b[Hlooking …\x1b[J")?;
        }
        Ok(Self { in_place })
    }

    fn show(&self, global: &GlobalArgs, args: &TopArgs, report: &Report) -> Result<(), Failure> {
        if global.json() {
            let mut shown = report.clone();
            shown.partitions.truncate(args.limit);
            let value = serde_json::to_value(&shown).unwrap_or_default();
            return print_json(&value);
        }
        let text = screen::render(report, args.limit);
        match (self.in_place, args.once) {
            (true, _) => self.say(&text),
            (false, true) => print(&text),
            (false, false) => print(&(text + "\n")),
        }
    }

    /// Puts a text in the place of the one before, without a moment of emptiness.
    fn say(&self, text: &str) -> Result<(), Failure> {
        let lines = text.trim_end().replace('\n', "\x1b[K\n");
        print(&format!("\x1b[H{lines}\x1b[K\x1b[J"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.in_place {
            let _ = print("\x1b[?25h\x1b[?1049l");
        }
    }
}
