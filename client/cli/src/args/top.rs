//! `ringway top`.

use std::time::Duration;

use clap::Args;

/// The help that `top --help` adds.
pub(crate) const LONG_ABOUT: &str = "\
Show what a broker is doing: its shards, its hot partitions, and where time goes.

Asks the broker's admin server (not its client port) for its numbers again and again, and shows
what has changed in between. Percentiles are those of the interval, over all shards, as the upper
bound of their bucket: a p99 of 768 µs says that 99 % took at most so long. On a terminal the
picture stays in place until Ctrl-C; elsewhere, one picture follows the other.";

const AFTER: &str = "\
Examples:
  ringway top
  ringway top --admin 10.0.0.7:7400 --interval 5s
  ringway top --once
  ringway top --once --interval 10s --output json | jq .stages";

/// `ringway top`
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct TopArgs {
    /// The broker's admin server, as its `admin_listen` says
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "RINGWAY_ADMIN",
        default_value = "127.0.0.1:7400"
    )]
    pub(crate) admin: String,
    /// Time between two looks, 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Show one interval, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Most shards and most partitions shown, the busiest first
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) limit: usize,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 2s or 1m"))?;
    if !(Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&time) {
        return Err("it is between 100ms and 1h".to_owned());
    }
    Ok(time)
}
