//! Says what was being attempted when a system call failed: the errors of this crate are read in
//! the output of a failed test, where "Device or resource busy" alone helps nobody.

use std::fmt::Display;
use std::io;
use std::process::{Command, Stdio};

/// Adds what was attempted to an I/O error, keeping its kind.
pub(crate) trait Attempting<T> {
    fn attempting(self, what: impl Display) -> io::Result<T>;
}

impl<T> Attempting<T> for io::Result<T> {
    fn attempting(self, what: impl Display) -> io::Result<T> {
        self.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
    }
}

/// Runs a command to its end; a failure carries what it printed.
pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .attempting(format_args!("running {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{name} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end(),
    )))
}
