//! The ground under a broker: a machine that was looked at first, a data directory of its own, the
//! housekeeper, and the shards' threads, each on its core.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ringway_engine::shard::{ShardConfig, SyncScope as EngineScope};
use ringway_tuning::{LinuxHost, Requirements, Severity, SyncScope, preflight, raise_limits};

use crate::broker::{Ground, StartError};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::housekeeper::{Housekeeper, HousekeeperConfig, IO_MEMORY_BYTES};
use crate::shard::{self, Mesh, NetworkLimits, Pulse, Recovered, ShardSetup, Watchdog, mesh};
use crate::shard_proxy::{Launched, ShardEnds};

/// How long a start waits for the last writes of a broker that was killed.
const LAST_WRITES_MAX: Duration = Duration::from_secs(60);
/// Rings of the housekeeper's executor.
const HOUSEKEEPER_RINGS: u32 = 3;
/// Memory that each ring may lock, in bytes: its queues, where the kernel counts them.
const RING_LOCKED_BYTES: u64 = 128 << 10;
/// Descriptors that a broker needs beside connections and segments.
const NOFILE_BASE: u64 = 128;
/// Descriptors of a shard without which it is of no use: a few connections and segments.
const NOFILE_SHARD: u64 = 64;
/// Segments that a shard keeps open while nobody uses them.
const OPEN_SEGMENTS_MAX: usize = 512;
/// Unit of the log's direct writes, in bytes.
const BLOCK_BYTES: u32 = ringway_engine::limits::BLOCK_BYTES as u32;

/// Looks at the machine, takes the data directory, and prepares everything that shards need.
///
/// # Errors
/// [`StartError`] says what the machine lacks, or who has the directory.
pub(crate) fn ground(config: &Config) -> Result<Ground, StartError> {
    if let Err(error) = raise_limits() {
        tracing::warn!(%error, "the limits of descriptors and locked memory can't be raised");
    }
    std::fs::create_dir_all(&config.data_dir).map_err(|source| StartError::System {
        doing: "making the data directory",
        source,
    })?;
    let sync_scope = look_at_the_machine(config)?;
    let waiting = |holder: &str, waited: Duration| {
        let seconds = waited.as_secs();
        tracing::warn!(
            holder,
            seconds,
            "waiting for the last writes of a broker that was killed"
        );
    };
    let data_dir = Arc::new(DataDir::open(&config.data_dir, LAST_WRITES_MAX, waiting)?);
    let recovered = Arc::new(Recovered::read(&data_dir)?);
    let metadata = data_dir.layout().metadata();
    let config = config.clone();
    let launch = move |ends| launch(&config, sync_scope, &data_dir, &recovered, ends);
    Ok(Ground {
        metadata,
        launch: Box::new(launch),
    })
}

fn requirements(config: &Config) -> Requirements {
    let shards = u32::from(config.shards);
    let each = u64::from(shards);
    let rings = shards + HOUSEKEEPER_RINGS;
    let wanted = u64::from(config.connections_max) + OPEN_SEGMENTS_MAX as u64;
    Requirements {
        shards,
        rings,
        memlock_bytes: IO_MEMORY_BYTES as u64 + u64::from(rings) * RING_LOCKED_BYTES,
        nofile: NOFILE_BASE + each * NOFILE_SHARD,
        nofile_advised: NOFILE_BASE + each * wanted,
        data_dir: config.data_dir.clone(),
        block_bytes: BLOCK_BYTES,
        sync_scope: config.sync_scope,
    }
}

/// Runs the pre-flight, logs what it finds, and decides what one sync makes durable.
fn look_at_the_machine(config: &Config) -> Result<SyncScope, StartError> {
    let report = preflight(&requirements(config), &LinuxHost);
    for finding in report.at_least(Severity::Info) {
        let said = format!("{}: {}", finding.check, finding.current);
        let (wanted, why, remedy) = (&finding.wanted, &finding.why, &finding.remedy);
        match finding.severity {
            // The error that ends the start says it.
            Severity::Fatal | Severity::Ok => {}
            Severity::Warning => tracing::warn!(wanted, why, remedy, "{said}"),
            Severity::Info => tracing::info!(why, "{said}"),
        }
    }
    let fatal: Vec<_> = report.at_least(Severity::Fatal).cloned().collect();
    match (&report.storage, fatal.is_empty()) {
        (Some(storage), true) => Ok(config.sync_scope.unwrap_or(storage.sync_scope)),
        _ => Err(StartError::Preflight(fatal)),
    }
}

/// The core of each shard, and those left to everything else. Without pinning both are empty.
fn places(pins: bool, shards: usize, cores: &[usize]) -> (Vec<usize>, Vec<usize>) {
    if !pins || shards > cores.len() {
        return (Vec::new(), Vec::new());
    }
    // The first cores are those on which most kernels run their own errands.
    let (others, own) = cores.split_at(cores.len() - shards);
    (own.to_vec(), others.to_vec())
}

fn launch(
    config: &Config,
    sync_scope: SyncScope,
    data_dir: &Arc<DataDir>,
    recovered: &Arc<Recovered>,
    ends: Vec<ShardEnds>,
) -> Result<Launched, Box<dyn Error + Send + Sync>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let cores: Vec<_> = cores.into_iter().map(|core| core.id).collect();
    let (own, others) = places(config.pins(), ends.len(), &cores);
    let housekeeper = Housekeeper::start(
        data_dir,
        HousekeeperConfig {
            cpus: others.clone(),
            ..HousekeeperConfig::default()
        },
    )?;
    let wakes: Vec<_> = ends
        .iter()
        .map(|ends| Arc::clone(ends.inbox.wake()))
        .collect();
    let pulses: Vec<_> = ends.iter().map(|_| Arc::new(Pulse::default())).collect();
    let watchdog = Watchdog::start(pulses.clone())?;
    let mut threads = Vec::new();
    for ((ends, mesh), pulse) in ends.into_iter().zip(mesh(&wakes)).zip(pulses) {
        let parts = Parts {
            config,
            sync_scope,
            data_dir,
            recovered,
            housekeeper: &housekeeper,
            cpu: own.get(usize::from(ends.shard.0)).copied(),
            worker_cpus: &others,
        };
        threads.push(shard::start(parts.setup(ends, mesh, pulse))?);
    }
    Ok(Launched {
        threads,
        after: Box::new(move || {
            housekeeper.join();
            drop(watchdog);
        }),
    })
}

/// What all shards have in common, and the core of one.
struct Parts<'a> {
    config: &'a Config,
    sync_scope: SyncScope,
    data_dir: &'a Arc<DataDir>,
    recovered: &'a Arc<Recovered>,
    housekeeper: &'a Housekeeper,
    cpu: Option<usize>,
    worker_cpus: &'a [usize],
}

impl Parts<'_> {
    fn setup(&self, ends: ShardEnds, mesh: Mesh, pulse: Arc<Pulse>) -> ShardSetup {
        let config = self.config;
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let network = NetworkLimits {
            connections_max: config.connections_max as usize,
            frame_bytes_max: config.frame_bytes_max(),
            receive_bytes_max: bytes(config.produce_bytes_max),
            ..NetworkLimits::default()
        };
        ShardSetup {
            config: ShardConfig {
                sync_scope: match self.sync_scope {
                    SyncScope::Device => EngineScope::Device,
                    SyncScope::File => EngineScope::File,
                },
                cache_bytes_max: bytes(config.cache_bytes),
                pending_bytes_max: bytes(config.produce_bytes_max),
                unsynced_bytes_max: config.unsynced_bytes_max,
                unsynced_ns_max: config.unsynced_ms_max * 1_000_000,
                read_bytes_max: bytes(config.cold_read_in_flight_bytes),
                read_bytes_per_second: config.cold_read_bytes_per_second,
                ..ShardConfig::new(ends.shard)
            },
            data_dir: Arc::clone(self.data_dir),
            recovered: Arc::clone(self.recovered),
            listener: ends.listener,
            // One shard accepts for all and deals the connections out.
            shared_listener: (ends.shard.0 == 0).then_some(ends.shared),
            addresses: ends.addresses,
            batch_bytes_max: config.batch_bytes_max,
            network,
            open_segments_max: OPEN_SEGMENTS_MAX,
            housekeeper: self.housekeeper.proxy(Arc::clone(ends.inbox.wake())),
            inbox: ends.inbox,
            controller: ends.controller,
            mesh,
            metrics: ends.metrics,
            pulse,
            idle: config.idle,
            cpu: self.cpu,
            worker_cpus: self.worker_cpus.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_get_the_last_cores_and_everything_else_the_first() {
        let cores = [0, 1, 2, 3];
        assert_eq!(places(true, 3, &cores), (vec![1, 2, 3], vec![0]));
        assert_eq!(places(true, 4, &cores), (vec![0, 1, 2, 3], vec![]));
        assert_eq!(
            places(true, 5, &cores),
            (vec![], vec![]),
            "not two to a core"
        );
        assert_eq!(places(false, 3, &cores), (vec![], vec![]));
    }

    #[test]
    fn the_default_locks_less_than_8_mib() {
        let mut config = Config::default();
        for shards in [1, 16] {
            config.shards = shards;
            assert!(
                requirements(&config).memlock_bytes < 8 << 20,
                "{shards} shards"
            );
        }
    }
}
