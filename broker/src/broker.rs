//! A broker inside a process: started whole or not at all, stopped in order.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use ringway_tuning::Finding;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::config::{Config, ConfigError};
use crate::controller::admin::{About, Admin, Health, QUERIES_MAX};
use crate::controller::{self, DiskFiles, OpenError, SINGLE_NODE, Setup, SingleNode, Store};
use crate::data_dir::{DataDirError, Layout};
use crate::flight_dumper::FlightDumper;
use crate::launch;
use crate::listen::{self, ListenError, Listeners};
use crate::metrics::ShardMetrics;
use crate::shard_proxy::{Launch, Launched, ShardEnds, to_controller, to_shard};
use crate::wake::Wake;

pub use crate::controller::RunError;
pub use crate::flight_dumper::DumpHandle;

/// Where a broker that serves can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// The shared port, as bound.
    pub listen: String,
    /// The port of each shard, as bound.
    pub shards: Vec<String>,
    /// The admin server, as bound.
    pub admin: String,
    /// This process.
    pub pid: u32,
}

impl Ready {
    /// The line that says so: one JSON object.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'static str,
            #[serde(flatten)]
            ready: &'a Ready,
        }
        let line = Line {
            event: "ready",
            ready: self,
        };
        serde_json::to_string(&line).expect("strings and numbers are JSON")
    }
}

/// Why a broker didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A port can't be had.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The machine lacks something, by the pre-flight.
    #[error("{}", findings(.0))]
    Preflight(Vec<Finding>),
    /// The data directory can't be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// A shard or the housekeeper can't start.
    #[error("{0}")]
    Shards(Box<dyn Error + Send + Sync>),
    /// The metadata can't be read.
    #[error("{0}")]
    Metadata(String),
    /// The operating system refused something that a start needs.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It came up and went down again.
    #[error("{0}")]
    Run(#[from] RunError),
}

fn findings(fatal: &[Finding]) -> String {
    let lines: Vec<_> = fatal.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl StartError {
    /// The exit status of a process that can't start for this reason: 2 for its configuration, 3
    /// for what the machine lacks, 1 for the rest.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Listen(_)
            | Self::Preflight(_)
            | Self::DataDir(_)
            | Self::Shards(_)
            | Self::System { .. } => 3,
            Self::Metadata(_) | Self::Run(_) => 1,
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// What a broker stands on.
pub struct Ground {
    /// Directory of the metadata log; its parent is there.
    pub metadata: PathBuf,
    /// Starts the shards.
    pub launch: Launch,
}

/// Brokers, to be started.
#[derive(Debug)]
pub struct Broker;

impl Broker {
    /// Starts a broker in this process, and comes back when every partition is open. The process's
    /// limits of descriptors and locked memory are raised as far as they go.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do; nothing is left running then.
    pub fn start(config: Config) -> Result<RunningBroker, StartError> {
        config.check()?;
        let listeners = Listeners::bind(&config)?;
        let ground = launch::ground(&config)?;
        RunningBroker::start_on(config, listeners, ground)
    }
}

/// A broker that serves. Dropping it stops it and waits.
#[derive(Debug)]
pub struct RunningBroker {
    ready: Ready,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    flight: FlightDumper,
}

/// Tells a broker to stop, from anywhere.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Tells it to finish what it has accepted, and to end. More than once is as good as once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl RunningBroker {
    /// Where it can be reached.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Tells it to finish what it has accepted, and to end. Doesn't wait.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// The same, for another thread to hold.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Asks for the flight recorder's events in a file, for another thread to hold.
    #[must_use]
    pub fn dump_handle(&self) -> DumpHandle {
        self.flight.handle()
    }

    /// Waits until it has ended, by [`Self::stop`] or by itself.
    ///
    /// # Errors
    /// [`RunError`] when it ended for another reason than being told to, or not in time.
    pub fn wait(mut self) -> Result<(), RunError> {
        join(
            self.thread
                .take()
                .expect("it is taken here or when dropped"),
        )
    }

    /// Starts on given ground with a checked configuration, and comes back when every partition is open.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_on(
        config: Config,
        listeners: Listeners,
        ground: Ground,
    ) -> Result<Self, StartError> {
        let admin = listen::bind(&config.admin_listen, "the admin server")?;
        admin
            .set_nonblocking(true)
            .map_err(system("preparing the admin port"))?;
        let address = |listener| listen::local(listener).to_string();
        let ready = Ready {
            listen: address(&listeners.shared),
            shards: listeners.shards.iter().map(address).collect(),
            admin: address(&admin),
            pid: std::process::id(),
        };
        let (store, state) = open_metadata(&ground)?;
        let metrics: Arc<[_]> = (0..config.shards)
            .map(|_| Arc::new(ShardMetrics::default()))
            .collect();
        let shards = Shards::launch(&config, &listeners, &metrics, ground)?;

        let (health, healthy) = watch::channel(Health::Starting);
        let (queries, asked) = mpsc::channel(QUERIES_MAX);
        let (stop, stopped) = watch::channel(false);
        let (up, is_up) = std_mpsc::channel();
        let about = Arc::new(About::new(ready.clone()));
        let directory = Layout::new(&config.data_dir).flight();
        let flight = FlightDumper::start(Arc::clone(&metrics), directory)
            .map_err(system("starting the flight recorder's thread"))?;
        let server = Admin {
            about: Arc::clone(&about),
            shards: metrics,
            health: healthy,
            queries,
        };
        let setup = Setup {
            shards: shards.senders,
            threads: shards.launched.threads,
            after: shards.launched.after,
            from_shards: shards.reports,
            queries: asked,
            health,
            stop: stopped,
            on_ready: Box::new(move || {
                let _ = up.send(());
            }),
            about,
        };
        let thread = std::thread::Builder::new()
            .name("controller".to_owned())
            .spawn(move || run(store, state, setup, admin, server))
            .map_err(system("starting the controller's thread"))?;
        let broker = Self {
            ready,
            stop: StopHandle(stop),
            thread: Some(thread),
            flight,
        };
        match is_up.recv() {
            Ok(()) => Ok(broker),
            // It ended first, and says why.
            Err(_) => Err(broker
                .wait()
                .expect_err("it ended before it was asked to")
                .into()),
        }
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            if let Err(error) = join(thread) {
                tracing::error!("{error}");
            }
        }
    }
}

fn join(thread: JoinHandle<Result<(), RunError>>) -> Result<(), RunError> {
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(RunError::Panicked(text.unwrap_or_default()))
    })
}

type Opened = (Store<DiskFiles>, ringway_engine::meta::Metadata);

fn open_metadata(ground: &Ground) -> Result<Opened, StartError> {
    let files = DiskFiles::in_directory(&ground.metadata)
        .map_err(system("making the metadata directory"))?;
    let refused = |error: OpenError| StartError::Metadata(error.to_string());
    let (store, state, cut) = Store::open(files).map_err(refused)?;
    if let Some(cut) = cut {
        tracing::warn!(
            file = cut.name,
            position = cut.position,
            bytes = cut.bytes,
            "cut off the end of the metadata log, which a crash had left half written"
        );
    }
    Ok((store, state))
}

struct Shards {
    senders: Vec<crate::shard_proxy::ShardSender>,
    launched: Launched,
    reports: mpsc::Receiver<crate::shard_proxy::ToController>,
}

impl Shards {
    fn launch(
        config: &Config,
        listeners: &Listeners,
        metrics: &[Arc<ShardMetrics>],
        ground: Ground,
    ) -> Result<Self, StartError> {
        let (controller, reports) = to_controller();
        let addresses = listeners.addresses(config);
        let mut senders = Vec::new();
        let mut ends = Vec::new();
        for (shard, metrics) in (0..config.shards).zip(metrics) {
            let copied = system("copying a port's descriptor");
            let wake = Wake::new().map_err(system("making an eventfd"))?;
            let (sender, inbox) = to_shard(Arc::new(wake));
            senders.push(sender);
            ends.push(ShardEnds {
                shard: ringway_wire::ShardId(shard),
                listener: listeners.shards[usize::from(shard)]
                    .try_clone()
                    .map_err(system("copying a port's descriptor"))?,
                shared: listeners.shared.try_clone().map_err(copied)?,
                addresses: addresses.clone(),
                inbox,
                controller: controller.clone(),
                metrics: Arc::clone(metrics),
            });
        }
        Ok(Self {
            senders,
            launched: (ground.launch)(ends).map_err(StartError::Shards)?,
            reports,
        })
    }
}

fn run(
    store: Store<DiskFiles>,
    state: ringway_engine::meta::Metadata,
    setup: Setup,
    listener: std::net::TcpListener,
    admin: Admin,
) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .expect("a runtime needs two descriptors");
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)
            .expect("a listening socket that doesn't block is one for the runtime");
        let server = tokio::spawn(controller::admin::serve(listener, admin));
        let log = SingleNode::start(SINGLE_NODE, store, state);
        let result = controller::run(log, setup).await;
        server.abort();
        result
    })
}

#[cfg(test)]
mod tests;
