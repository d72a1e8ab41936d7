//! Log lines on standard error: text for people, or one JSON object a line for programs.

use std::io::{self, IsTerminal};

use crate::config::{Config, LogFormat};

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(config: &Config) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The only error is that it was done before.
    let _ = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
