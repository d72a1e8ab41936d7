//! The broker's process: it understands its command line, runs a broker until a signal comes, and
//! says by its exit status how that went.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use ringway_broker::broker::{DumpHandle, StopHandle};
use ringway_broker::cli::{self, Action, UsageError};
use ringway_broker::log_tools::{self, LogToolError};
use ringway_broker::supervisor::Supervisor;
use ringway_broker::{Broker, Config, Ready, logging};
use tokio::signal::unix::{SignalKind, signal};

/// Failed, for a reason that is neither the user's nor the machine's.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// The machine lacks something.
const ENVIRONMENT: u8 = 3;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Action::Start(config)) => start(*config),
        Ok(Action::Demo(options)) => ringway_broker::demo::run(&options),
        Ok(Action::ConfigPrint(config)) => print(&config.to_toml()),
        Ok(Action::ConfigCheck(config)) => {
            for warning in config.warnings() {
                eprintln!("warning: {warning}");
            }
            print("the configuration is right\n")
        }
        Ok(Action::LogVerify(options)) => {
            let verified = log_tools::verify(&options, &mut io::stdout().lock());
            looked(verified.map(|verified| verified.whole))
        }
        Ok(Action::LogDump(options)) => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            looked(log_tools::dump(&options, &mut out))
        }
        Ok(Action::Completions(shell)) => print(&cli::completions(shell)),
        Err(UsageError::Clap(error)) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
        }
        Err(UsageError::Config(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        }
    }
}

/// The status of having looked for damage.
fn looked(whole: Result<bool, LogToolError>) -> ExitCode {
    match whole {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        // Whoever closed the pipe has seen enough.
        Err(LogToolError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(match error {
                LogToolError::UnknownTopic { .. } | LogToolError::UnknownPartition { .. } => USAGE,
                _ => ENVIRONMENT,
            })
        }
    }
}

/// Prints; whoever closed the pipe has seen enough.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: standard output: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn start(config: Config) -> ExitCode {
    logging::start(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let ready_file = config.ready_file.clone();
    if let Some(path) = &ready_file {
        // One of a former run would lie.
        let _ = std::fs::remove_file(path);
    }
    let stop = match Signals::listen() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: signals can't be listened for: {error}");
            return ExitCode::from(ENVIRONMENT);
        }
    };
    let broker = match Broker::start(config) {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    stop.goes_to(broker.stop_handle(), broker.dump_handle());
    if let Err(error) = announce(broker.ready(), ready_file.as_deref()) {
        tracing::error!("{error}");
        broker.stop();
        let _ = broker.wait();
        return ExitCode::from(ENVIRONMENT);
    }
    Supervisor::from_environment().ready();
    let ended = broker.wait();
    if let Some(path) = &ready_file {
        let _ = std::fs::remove_file(path);
    }
    match ended {
        Ok(()) => {
            tracing::info!("stopped in order");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Says that the broker serves: one line on standard output, and the file if one is wanted.
fn announce(ready: &Ready, file: Option<&Path>) -> Result<(), String> {
    let line = ready.to_json_line() + "\n";
    if let Some(path) = file {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        std::fs::write(&temporary, &line)
            .and_then(|()| std::fs::rename(&temporary, path))
            .map_err(|error| format!("the ready file {} can't be made: {error}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    // Nobody may be there to read it; the broker serves all the same.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    tracing::info!(listen = ready.listen, admin = ready.admin, "ready");
    Ok(())
}

/// Where a signal goes: to the broker, once there is one.
#[derive(Clone, Default)]
struct Signals(Arc<Mutex<Option<(StopHandle, DumpHandle)>>>);

impl Signals {
    /// Begins to listen for SIGTERM, SIGINT and SIGUSR1, on a thread of their own.
    fn listen() -> io::Result<Self> {
        let signals = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let guard = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut user = signal(SignalKind::user_defined1())?;
        drop(guard);
        let target = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut first = true;
                    loop {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                            _ = user.recv() => {
                                target.dump();
                                continue;
                            }
                        }
                        target.arrived(first);
                        first = false;
                    }
                });
            })?;
        Ok(signals)
    }

    fn goes_to(&self, stop: StopHandle, dump: DumpHandle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, dump));
    }

    /// Asks for the flight recorder's events. A broker that isn't there yet has none.
    fn dump(&self) {
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, dump)) = &*broker {
            dump.dump();
        }
    }

    /// The first stops the broker in order, the second at once. A start can be broken off at any
    /// point: it leaves nothing that the next one doesn't recover.
    fn arrived(&self, first: bool) {
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*broker, first) {
            (Some((stop, _)), true) => {
                tracing::info!("stopping: finishing what was accepted");
                Supervisor::from_environment().stopping();
                stop.stop();
            }
            (None, true) => std::process::exit(0),
            (_, false) => {
                tracing::warn!("stopping at once: the next start has to recover");
                std::process::exit(FAILED.into());
            }
        }
    }
}
