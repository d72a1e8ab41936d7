//! The `ringway` command line: topics, producing, consuming, looking on. Commands decide what is done; the
//! files before them know how bytes come in and go out.

mod args;
mod commands;
mod exit;
mod format;
mod input;
mod interrupt;
mod limits;
mod output;
mod progress;
mod table;
mod tally;
mod trace;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::{Exit, Failure};

/// Threads for connections; the main thread reads, cuts and formats meanwhile.
const CONNECTION_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A help text that nobody reads to its end is no fault.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage as u8
            } else {
                0
            });
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(cli.global.json()),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONNECTION_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("no threads: {error}")))?;
    let result = runtime.block_on(commands::run(cli));
    // A thread may be waiting for input that never comes.
    runtime.shutdown_background();
    result
}
