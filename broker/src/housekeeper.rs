//! The housekeeper: one thread for all that has no latency bound, so that no shard ever waits for a
//! directory, an allocation or a file full of zeros.
//!
//! It is a glommio executor with a task queue for each kind of work, and it runs only while there
//! is work: between jobs the thread waits for the channel. So a parked executor is never
//! accounted as waiting for a disk, and what glommio 0.9 may leave lying when it parks with
//! runnable tasks is found at the next tick of the timer that runs as long as a job does.

mod jobs;
mod pool;
mod zeros;

use std::cell::Cell;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{
    Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle,
};
use ringway_engine::device::{DeviceError, OpId, Outcome, SegmentName};
use ringway_engine::log::Slot;
use ringway_wire::{Offset, Position, ShardId, TopicPartition};

use crate::data_dir::{DataDir, Layout};
use crate::shard::ring::MAKING;
use crate::wake::Wake;
use jobs::Worker;
pub use pool::PoolLimits;

/// Jobs that may wait for the housekeeper; a shard keeps what doesn't fit.
pub const JOBS_MAX: usize = 4_096;
/// Registered memory of the executor for its direct writes. Small, so that it fits a locked-memory
/// limit of 8 MiB beside the shards' rings.
pub const IO_MEMORY_BYTES: usize = 1 << 20;
/// Submissions of each of the executor's three rings.
const RING_DEPTH: usize = 64;
/// Rings that glommio makes for an executor.
const EXECUTOR_RINGS: usize = 3;
/// Threads for calls that block (directories, allocation): each waits for the disk most of its
/// time.
const BLOCKING_THREADS: usize = 4;
/// How often the executor looks for more jobs while it works.
const TICK: Duration = Duration::from_micros(500);

/// Something to be done in the data directory.
#[derive(Debug)]
pub enum Job {
    /// Makes a partition's `next.log` (see [`ringway_engine::device::Op::Prepare`]).
    Prepare {
        /// The partition.
        log: TopicPartition,
        /// Bytes of the file.
        bytes: u64,
        /// Bytes to be filled from the start on.
        filled: u64,
    },
    /// Writes zeros over a range of a segment, durably.
    Fill {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        name: SegmentName,
        /// The name that it is being given at the same time, if so.
        next_name: Option<SegmentName>,
        /// First byte; a multiple of the block.
        start: Position,
        /// End; a multiple of the block.
        end: Position,
    },
    /// Gives `next.log` its base offset as its name, durably.
    Name {
        /// The partition.
        log: TopicPartition,
        /// Offset of its first record.
        base: Offset,
    },
    /// Writes a side file, durably and all or nothing.
    SaveSide {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        base: Offset,
        /// The file's bytes.
        bytes: Vec<u8>,
    },
    /// Reads a side file.
    LoadSide {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        base: Offset,
    },
    /// Writes a checkpoint slot, durably. The other slot is whole meanwhile.
    SaveCheckpoint {
        /// The shard.
        shard: ShardId,
        /// The slot.
        slot: Slot,
        /// The checkpoint's bytes.
        bytes: Vec<u8>,
    },
    /// Removes a segment and its side file.
    Remove {
        /// The partition.
        log: TopicPartition,
        /// The segment.
        name: SegmentName,
    },
    /// Removes the directory of a partition.
    RemovePartition {
        /// The partition.
        log: TopicPartition,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum Answer {
    /// Done.
    Done,
    /// A segment is prepared.
    Prepared {
        /// Bytes from the start that are written.
        filled: u64,
    },
    /// A side file's bytes, if there is one.
    Side(Option<Vec<u8>>),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done => Self::Done,
            Answer::Prepared { filled } => Self::Prepared { filled },
            Answer::Side(bytes) => Self::Side(bytes),
        }
    }
}

/// What a job came to, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Segments prepared.
    pub prepared: u64,
    /// Of them, those of a former life.
    pub recycled: u64,
    /// Bytes of zeros written.
    pub zeroed_bytes: u64,
}

/// A job that is over.
#[derive(Debug)]
pub struct Finished {
    /// The engine's operation.
    pub op: OpId,
    /// What came of it.
    pub result: Result<Answer, DeviceError>,
    /// What was done for it, also in vain.
    pub tally: Tally,
}

#[derive(Debug)]
struct Order {
    op: OpId,
    job: Job,
    /// As many answers wait here as orders were accepted, which is bounded.
    answers: Sender<Finished>,
    wake: Arc<Wake>,
}

impl Order {
    fn answer(self, result: Result<Answer, DeviceError>, tally: Tally) {
        // A shard that has ended needs no answer.
        let _ = self.answers.send(Finished {
            op: self.op,
            result,
            tally,
        });
        self.wake.ring();
    }
}

/// What a housekeeper works with.
#[derive(Debug)]
pub struct HousekeeperConfig {
    /// The CPUs that it may use; any, if empty.
    pub cpus: Vec<usize>,
    /// How much space it may keep for segments to come.
    pub pool: PoolLimits,
    /// Segments up to this size are zero-filled whole; larger ones as far as asked.
    pub fill_whole_bytes_max: u64,
}

impl Default for HousekeeperConfig {
    fn default() -> Self {
        Self {
            cpus: Vec::new(),
            pool: PoolLimits::default(),
            fill_whole_bytes_max: 4 << 20,
        }
    }
}

/// The running thread. It ends when every shard has dropped its [`HousekeeperProxy`].
#[derive(Debug)]
pub struct Housekeeper {
    thread: JoinHandle<()>,
    orders: SyncSender<Order>,
}

impl Housekeeper {
    /// Starts the thread on a data directory.
    ///
    /// # Errors
    /// When the thread or its executor's rings can't be had, or don't hold the directory's lock.
    pub fn start(data_dir: &DataDir, config: HousekeeperConfig) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(JOBS_MAX);
        let (report, started) = sync_channel(1);
        let layout = data_dir.layout().clone();
        let lock = data_dir.lock().try_clone_to_owned()?;
        let thread = std::thread::Builder::new()
            .name("housekeeper".to_owned())
            .spawn(move || match prepare_thread(&config, lock) {
                Ok(executor) => {
                    let _ = report.send(Ok(()));
                    run(&executor, &receiver, &layout, &config);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            })?;
        let ended = || io::Error::other("the housekeeper ended while it started");
        started.recv().map_err(|_| ended())??;
        Ok(Self { thread, orders })
    }

    /// The way to the housekeeper for a shard whose bell is `wake`.
    #[must_use]
    pub fn proxy(&self, wake: Arc<Wake>) -> HousekeeperProxy {
        let (answers, finished) = channel();
        HousekeeperProxy {
            orders: self.orders.clone(),
            answers,
            finished,
            wake,
            peeked: None,
        }
    }

    /// Waits until all jobs are done and the thread has ended.
    ///
    /// # Panics
    /// When the thread did.
    pub fn join(self) {
        drop(self.orders);
        self.thread.join().expect("the housekeeper doesn't panic");
    }
}

/// A shard's way to the housekeeper and back.
#[derive(Debug)]
pub struct HousekeeperProxy {
    orders: SyncSender<Order>,
    answers: Sender<Finished>,
    finished: Receiver<Finished>,
    wake: Arc<Wake>,
    peeked: Option<Finished>,
}

impl HousekeeperProxy {
    /// Passes a job on. Its result comes back by [`HousekeeperProxy::take`]; never blocks.
    ///
    /// # Errors
    /// The job, when the queue is full: try again at the next turn.
    ///
    /// # Panics
    /// When the housekeeper is gone, which it can't be before its proxies.
    pub fn send(&self, op: OpId, job: Job) -> Result<(), Box<Job>> {
        let order = Order {
            op,
            job,
            answers: self.answers.clone(),
            wake: Arc::clone(&self.wake),
        };
        match self.orders.try_send(order) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(order)) => Err(Box::new(order.job)),
            Err(TrySendError::Disconnected(_)) => panic!("the housekeeper ended before a shard"),
        }
    }

    /// The next job that is over, if there is one.
    pub fn take(&mut self) -> Option<Finished> {
        self.peeked.take().or_else(|| self.finished.try_recv().ok())
    }

    /// Whether no job is over; to be asked after [`Wake::announce_sleep`].
    pub fn is_empty(&mut self) -> bool {
        self.peeked = self.take();
        self.peeked.is_none()
    }
}

/// Binds the thread and makes its executor, whose rings hold the lock from then on.
fn prepare_thread(config: &HousekeeperConfig, lock: OwnedFd) -> io::Result<LocalExecutor> {
    if !config.cpus.is_empty() {
        crate::sys::bind_to_cpus(&config.cpus)?;
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("housekeeper")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .make()
        .map_err(io_error)?;
    let held = hold_by_rings(lock.as_fd())?;
    if held < EXECUTOR_RINGS {
        let text = format!("{held} of the executor's {EXECUTOR_RINGS} rings hold the lock file");
        return Err(io::Error::other(text));
    }
    Ok(executor)
}

/// Registers the lock with every ring of this process that has no files registered and takes them
/// from this thread: those that this thread has just made. A shard's ring has the lock already, and
/// takes nothing from another thread. Tells how many took it.
fn hold_by_rings(lock: BorrowedFd<'_>) -> io::Result<usize> {
    let mut held = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // A descriptor that was closed since has no target any more.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(ring) = number.filter(|_| target.as_os_str() == "anon_inode:[io_uring]") else {
            continue;
        };
        match crate::sys::register_file(ring, lock) {
            Ok(()) => held += 1,
            // Has files; belongs to another thread; is closed or something else by now.
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST | libc::EBADF | libc::EOPNOTSUPP) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(held)
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(action).await
}

/// What glommio says, with the operating system's number if there is one.
fn io_error(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(source)
        | glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}

/// The task queues, by what waits for their jobs.
struct Queues {
    /// Somebody's first append, or the start of a shard.
    urgent: TaskQueueHandle,
    /// The zeros ahead of a writer.
    filling: TaskQueueHandle,
    /// Nobody.
    removing: TaskQueueHandle,
}

impl Queues {
    fn of(&self, job: &Job) -> TaskQueueHandle {
        match job {
            Job::Fill { .. } => self.filling,
            Job::Remove { .. } | Job::RemovePartition { .. } => self.removing,
            _ => self.urgent,
        }
    }
}

fn run(
    executor: &LocalExecutor,
    orders: &Receiver<Order>,
    layout: &Layout,
    config: &HousekeeperConfig,
) {
    let create = |shares, name| {
        glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
    };
    let queues = executor.run(async {
        Queues {
            urgent: create(1_000, "urgent"),
            filling: create(300, "filling"),
            removing: create(100, "removing"),
        }
    });
    let worker = Worker::new(layout.clone(), config);
    while let Ok(first) = orders.recv() {
        executor.run(work(first, orders, &queues, &worker));
    }
}

/// A job whose panic is its own failure, and nobody else's.
async fn guarded(
    job: impl Future<Output = Result<Answer, DeviceError>>,
) -> Result<Answer, DeviceError> {
    let mut job = pin!(job);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let text = text.unwrap_or_default();
            Poll::Ready(Err(DeviceError::Failed(format!(
                "the housekeeper panicked: {text}"
            ))))
        })
    })
    .await
}

/// Does an order and those that come meanwhile, until none is left.
async fn work(first: Order, orders: &Receiver<Order>, queues: &Queues, worker: &Rc<Worker>) {
    let unfinished = Rc::new(Cell::new(0_usize));
    let begin = |order: Order| {
        let (worker, unfinished) = (Rc::clone(worker), Rc::clone(&unfinished));
        unfinished.set(unfinished.get() + 1);
        let queue = queues.of(&order.job);
        let task = async move {
            let tally = Cell::default();
            let result = guarded(worker.carry_out(&order.job, &tally)).await;
            order.answer(result, tally.get());
            unfinished.set(unfinished.get() - 1);
        };
        let task = glommio::spawn_local_into(task, queue);
        task.expect("the queues live as long as the executor")
            .detach();
    };
    begin(first);
    loop {
        while let Ok(order) = orders.try_recv() {
            begin(order);
        }
        glommio::timer::sleep(TICK).await;
        if unfinished.get() == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
