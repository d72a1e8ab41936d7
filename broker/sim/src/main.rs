//! `ringway-sim`: long simulations from the command line. The short ones run in the tests.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use ringway_sim::device::DurableWrite;
use ringway_sim::log::{Points, Sabotage, Sweep, Tally, sweep};

/// Deterministic simulations of Ringway's engine.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One shard's log on a disk that forgets, crashed at its operations.
    Log(LogArgs),
}

#[derive(Debug, Args)]
struct LogArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Crash after every submission and completion, not only after some.
    #[arg(long)]
    every_operation: bool,
    /// Crash after this one alone, and print everything that happened if a promise breaks.
    #[arg(long, conflicts_with = "every_operation")]
    point: Option<u64>,
    /// Print everything that happened if a promise breaks.
    #[arg(long)]
    trace: bool,
    /// Break a rule on purpose: the simulation has to fail.
    #[arg(long, value_parser = sabotage)]
    sabotage: Option<Sabotage>,
    /// The device's durable writes make nothing durable but themselves (true), or everything before
    /// them (false) [default: as the seed has it]
    #[arg(long)]
    fua: Option<bool>,
    /// Print how often what happened.
    #[arg(long)]
    counts: bool,
    /// Threads [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
}

fn sabotage(name: &str) -> Result<Sabotage, String> {
    let found = Sabotage::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, sabotage)| *sabotage).ok_or_else(|| {
        let names: Vec<&str> = Sabotage::ALL.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Crash points, of 1,000, without `--every-operation`.
const SOME_POINTS: u64 = 50;

fn main() -> ExitCode {
    let Command {
        what: What::Log(args),
    } = Command::parse();
    let begun = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runs = Sweep {
        from: args.from,
        seeds: args.seeds,
        points: match args.point {
            Some(point) => Points::One(point),
            None if args.every_operation => Points::Every,
            None => Points::Some(SOME_POINTS),
        },
        sabotage: args.sabotage,
        durable_write: args.fua.map(|fua| match fua {
            true => DurableWrite::ItselfOnly,
            false => DurableWrite::Flushes,
        }),
        threads: args.threads.unwrap_or(cores),
        lines: args.trace || args.point.is_some(),
    };
    let progress = Progress::new(begun, args.seeds);
    match sweep(runs, |tally| progress.show(tally)) {
        Ok(tally) => {
            progress.end();
            for (what, count) in tally.counts.iter().filter(|_| args.counts) {
                println!("{count:>10}  {what}");
            }
            println!(
                "{} after {:.1} s: no promise broken",
                words(&tally),
                seconds(begun)
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            progress.end();
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn seconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}

fn words(tally: &Tally) -> String {
    format!(
        "{} seeds, {} crash points, {} operations",
        tally.seeds, tally.points, tally.operations
    )
}

/// A line on a terminal, once in a while.
struct Progress {
    begun: Instant,
    seeds: u64,
    shown_ms: AtomicU64,
    terminal: bool,
}

impl Progress {
    fn new(begun: Instant, seeds: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            begun,
            seeds,
            shown_ms: AtomicU64::new(0),
            terminal,
        }
    }

    fn show(&self, tally: &Tally) {
        let every = if self.terminal {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(10)
        };
        let now_ms = self.begun.elapsed().as_millis() as u64;
        if now_ms < self.shown_ms.load(Ordering::Relaxed) + every.as_millis() as u64 {
            return;
        }
        self.shown_ms.store(now_ms, Ordering::Relaxed);
        let (start, end) = if self.terminal {
            ("\r", "")
        } else {
            ("", "\n")
        };
        eprint!("{start}{} of {}{end}", words(tally), self.seeds);
        let _ = std::io::stderr().flush();
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
