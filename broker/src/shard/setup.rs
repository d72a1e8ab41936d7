//! Starting a shard: what it is made of, and the thread that it belongs to from then on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_engine::log::{CheckpointEntry, Slot, Slots, merge};
use ringway_engine::meta::Addresses;
use ringway_engine::shard::{Shard as Machine, ShardConfig};
use ringway_wire::{ShardId, TopicPartition};

use super::dispatch::Dispatch;
use super::mesh::Mesh;
use super::net::{Network, NetworkLimits, Port, SHARDS_MAX, listeners};
use super::ring::{Ring, RingConfig, RingError};
use super::watchdog::Pulse;
use super::{Phase, Shard, clock};
use crate::config::Idle;
use crate::data_dir::{DataDir, DataDirError};
use crate::device::Disk;
use crate::housekeeper::HousekeeperProxy;
use crate::metrics::ShardMetrics;
use crate::shard_proxy::{ControllerSender, ShardInbox, ToController};

/// How long the ring may take to end its operations before the thread does.
const RING_CLOSING_MAX: Duration = Duration::from_secs(10);

/// What the checkpoints of former starts know. Read once, before any shard writes a new one.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Each entry is taken by the one shard that owns the partition now.
    entries: Mutex<BTreeMap<TopicPartition, CheckpointEntry>>,
    /// Per shard, where its next checkpoint goes and the generation to go on from.
    slots: HashMap<ShardId, (Slot, u64)>,
}

impl Recovered {
    /// Reads the checkpoints of every shard there ever was.
    ///
    /// # Errors
    /// When a slot can't be read. Damaged ones are told about and done without.
    pub fn read(data_dir: &DataDir) -> Result<Self, DataDirError> {
        let mut slots = HashMap::new();
        let mut newest = Vec::new();
        for (shard, found) in data_dir.checkpoints()? {
            let next = (found.next_slot, found.next_generation());
            let Slots {
                newest: checkpoint,
                unreadable,
                ..
            } = found;
            for (slot, error) in unreadable {
                tracing::warn!(
                    shard = shard.0,
                    ?slot,
                    %error,
                    "a checkpoint can't be read; the start takes longer without it"
                );
            }
            slots.insert(shard, next);
            newest.extend(checkpoint);
        }
        Ok(Self {
            entries: Mutex::new(merge(newest)),
            slots,
        })
    }

    /// What is known of a partition.
    pub(super) fn entry(&self, log: TopicPartition) -> Option<CheckpointEntry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&log)
    }
}

/// Everything that a shard is made of.
#[derive(Debug)]
pub struct ShardSetup {
    /// The engine's part, with the shard's number.
    pub config: ShardConfig,
    /// The data directory; its lock is held by the shard's ring.
    pub data_dir: Arc<DataDir>,
    /// What was known at the last stop.
    pub recovered: Arc<Recovered>,
    /// The shard's own port.
    pub listener: TcpListener,
    /// The port of all shards; one of them has it.
    pub shared_listener: Option<TcpListener>,
    /// What metadata names.
    pub addresses: Addresses,
    /// Largest batch, in bytes; what hello says.
    pub batch_bytes_max: u32,
    /// Limits of connections.
    pub network: NetworkLimits,
    /// Segments that are kept open while nobody uses them.
    pub open_segments_max: usize,
    /// From the controller.
    pub inbox: ShardInbox,
    /// To the controller.
    pub controller: ControllerSender,
    /// To and from the other shards.
    pub mesh: Mesh,
    /// To and from the housekeeper.
    pub housekeeper: HousekeeperProxy,
    /// The shard's numbers.
    pub metrics: Arc<ShardMetrics>,
    /// What the watchdog looks at.
    pub pulse: Arc<Pulse>,
    /// What the shard does while nothing happens.
    pub idle: Idle,
    /// The CPU that it is bound to.
    pub cpu: Option<usize>,
    /// The CPUs for the kernel's worker threads of its ring; any, if empty.
    pub worker_cpus: Vec<usize>,
}

/// Why a shard can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its ring can't be had.
    #[error("shard {shard}: {source}")]
    Ring {
        /// The shard.
        shard: ShardId,
        /// What was refused.
        source: RingError,
    },
    /// Something else was refused.
    #[error("shard {shard}: {source}")]
    Io {
        /// The shard.
        shard: ShardId,
        /// What was said.
        source: io::Error,
    },
}

/// Starts a shard's thread; returns when its ring is there. It serves from the first metadata
/// image on, and ends when it is told to stop.
///
/// # Errors
/// [`StartError`] says what the shard can't have.
///
/// # Panics
/// When the shard's number is above 4095: connections are numbered within that.
pub fn start(setup: ShardSetup) -> Result<JoinHandle<()>, StartError> {
    let shard = setup.config.id;
    assert!(
        shard.0 < SHARDS_MAX,
        "shards are numbered below {SHARDS_MAX}"
    );
    let io_error = |source| StartError::Io { shard, source };
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let _guard = AbortOnPanic;
            match prepare(setup) {
                Ok(shard) => {
                    let _ = report.send(Ok(()));
                    serve(shard);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        })
        .map_err(io_error)?;
    let ended = |_| io_error(io::Error::other("the thread ended while it started"));
    started.recv().map_err(ended)??;
    Ok(thread)
}

/// A shard that panics leaves operations in flight, and the device would write into memory that
/// somebody else has by then.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "a shard panicked: aborting, so that its writes in flight hit nobody's memory"
            );
            std::process::abort();
        }
    }
}

fn prepare(setup: ShardSetup) -> Result<Shard, StartError> {
    let id = setup.config.id;
    let io_error = |source| StartError::Io { shard: id, source };
    let ring_error = |source| StartError::Ring { shard: id, source };
    if let Some(cpu) = setup.cpu {
        bind(cpu);
    }
    let mut ring = Ring::new(&RingConfig {
        lock: Some(setup.data_dir.lock()),
        worker_cpus: &setup.worker_cpus,
        ..RingConfig::default()
    })
    .map_err(ring_error)?;
    ring.provide_receive_buffers().map_err(ring_error)?;
    let anchor = setup
        .data_dir
        .anchor()
        .try_clone_to_owned()
        .map_err(io_error)?;
    let layout = setup.data_dir.layout().clone();
    let metrics = Arc::clone(&setup.metrics);
    let mut ports = vec![(Port::Own, setup.listener)];
    ports.extend(
        setup
            .shared_listener
            .map(|listener| (Port::Shared, listener)),
    );
    let (checkpoint_slot, generation) = setup
        .recovered
        .slots
        .get(&id)
        .copied()
        .unwrap_or((Slot::A, 0));
    let mut machine = Machine::new(setup.config);
    machine.continue_checkpoints(generation);
    Ok(Shard {
        dispatch: Dispatch {
            here: id,
            machine,
            image: None,
            mesh: setup.mesh,
            controller: setup.controller,
            addresses: setup.addresses,
            batch_bytes_max: setup.batch_bytes_max,
            metrics: Arc::clone(&metrics),
            forwarded: HashSet::new(),
            unanswered: 0,
            now: clock::now(),
        },
        network: Network::new(id, setup.network, listeners(ports), Arc::clone(&metrics)),
        disk: Disk::new(
            layout,
            anchor,
            setup.open_segments_max,
            Arc::clone(&metrics),
        ),
        ring,
        inbox: setup.inbox,
        housekeeper: setup.housekeeper,
        data_dir: setup.data_dir,
        recovered: setup.recovered,
        owned: BTreeMap::new(),
        checkpoint_slot,
        jobs: VecDeque::new(),
        after: HashMap::new(),
        reports: VecDeque::new(),
        completions: Vec::new(),
        idle: setup.idle,
        phase: Phase::Serving,
        last_requests: 0,
        all_open_told: false,
        again: false,
        pulse: setup.pulse,
        metrics,
    })
}

/// Binds the thread to its core. Where that is refused (a container's CPU set), it runs unbound.
fn bind(cpu: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        tracing::warn!(cpu, "a shard can't be bound to its CPU; it runs on any");
    }
}

fn serve(mut shard: Shard) {
    let result = shard.run();
    let id = shard.dispatch.here;
    let controller = shard.dispatch.controller.clone();
    shard.pulse.asleep();
    if !shard.ring.close(RING_CLOSING_MAX) {
        let left = shard.ring.in_flight();
        tracing::error!(
            shard = id.0,
            left,
            "operations don't end; their memory is given up"
        );
    }
    drop(shard);
    let last = match result {
        Ok(()) => ToController::Stopped { shard: id },
        Err(reason) => {
            tracing::error!(shard = id.0, reason, "a shard can't go on");
            ToController::Failed { shard: id, reason }
        }
    };
    let mut last = Box::new(last);
    // The controller waits for this message; a full queue empties.
    while let Err(back) = controller.send(*last) {
        if controller.is_closed() {
            return;
        }
        last = back;
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::AbortOnPanic;

    /// Set in the child that is to panic.
    const CHILD: &str = "RINGWAY_TEST_PANICS";

    #[test]
    fn a_panic_on_a_shard_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let thread = std::thread::spawn(|| {
                let _guard = AbortOnPanic;
                panic!("a defect");
            });
            // A process that gets past this hasn't been ended.
            let _ = thread.join();
            return;
        }
        let name = "shard::setup::tests::a_panic_on_a_shard_ends_the_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("aborting"), "{text}");
    }
}
