//! The demonstration: a broker in this process, this machine's own telemetry published to it and
//! consumed from it over real sockets and a real disk, and every record verified.
//!
//! Modules stand in the order of the data flow: samples are read and encoded, sent and entered into
//! the ledger, consumed and verified, and told.

mod clock;
mod cpu;
mod disk;
mod interrupt;
mod latency;
mod place;

mod sample;

mod parse;
mod sampler;

mod problem;

mod ledger;
mod verify;

mod live;
mod session;
mod summary;

use std::io;
use std::io::Write as _;
use std::process::ExitCode;

use ringway_client::{BuildError, ConnectError, ConsumeError, RequestError};

use crate::cli::DemoOptions;
use crate::{Broker, Config, RunError, StartError, logging};
use disk::Disk;
use interrupt::Interrupt;
use live::Live;
use place::{Place, PlaceError};
use session::Plan;
use summary::Summary;

/// Most shards that the demo starts: what it publishes is little work for more.
const SHARDS_MAX: u16 = 4;
/// Partitions for each shard, so that commit rounds have several to write.
const PARTITIONS_PER_SHARD: u32 = 2;
/// Fewest partitions.
const PARTITIONS_MIN: u32 = 4;

/// Some record didn't arrive as sent, or the broker failed.
const FAILED: u8 = 1;
/// The machine lacks something.
const ENVIRONMENT: u8 = 3;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Place(#[from] PlaceError),
    #[error("the broker didn't start: {0}")]
    Start(#[from] StartError),
    #[error("the broker failed: {0}")]
    Broker(#[from] RunError),
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("{0}")]
    Build(#[from] BuildError),
    #[error("{0}")]
    Consume(#[from] ConsumeError),
}

impl DemoError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Place(_) | Self::System(..) => ENVIRONMENT,
            Self::Start(error) => error.exit_code(),
            _ => FAILED,
        }
    }
}

/// Runs the demonstration, and says on standard output how it went. Success only if every record
/// arrived exactly as sent.
#[must_use]
pub fn run(options: &DemoOptions) -> ExitCode {
    match demonstrate(options) {
        Ok(summary) => {
            let text = match options.json {
                true => summary.json() + "\n",
                false => summary.text(),
            };
            print(&text);
            ExitCode::from(if summary.verified() { 0 } else { FAILED })
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints; where nobody reads, the exit status still says how it went.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn demonstrate(options: &DemoOptions) -> Result<Summary, DemoError> {
    let place = Place::choose(options.data_dir.as_deref(), options.keep)?;
    let disk =
        Disk::examine(&place).map_err(|error| DemoError::System("measuring the disk", error))?;
    let config = config(&place);
    logging::start(&config);
    let plan = Plan {
        time: options.duration,
        partitions: PARTITIONS_MIN.max(u32::from(config.shards) * PARTITIONS_PER_SHARD),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DemoError::System("starting the client's runtime", error))?;
    let interrupt = {
        let _within = runtime.enter();
        Interrupt::listen().map_err(|error| DemoError::System("listening for signals", error))?
    };
    let broker = Broker::start(config)?;
    let ready = broker.ready().clone();
    if !options.json {
        print(&(summary::introduction(plan, &ready, &disk) + "\n"));
    }
    let mut live = Live::new(!options.json, options.duration);
    let outcome = runtime.block_on(session::run(&ready.listen, plan, interrupt, &mut live));
    live.end();
    // Connections go before the broker does.
    drop(runtime);
    broker.stop();
    let ended = broker.wait();
    let outcome = outcome?;
    ended?;
    drop(place);
    Ok(Summary::new(outcome, plan, &ready, disk))
}

/// The defaults, on ports that the kernel chooses.
fn config(place: &Place) -> Config {
    let default = Config::default();
    let port = |text: &str| text.parse().expect("the address is legal");
    Config {
        data_dir: place.path().to_owned(),
        listen: port("127.0.0.1:0"),
        admin_listen: port("127.0.0.1:0"),
        shards: default.shards.min(SHARDS_MAX),
        log_level: tracing::Level::WARN,
        ..default
    }
}
