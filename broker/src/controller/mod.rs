//! The controller: the metadata log and everything that hangs on it, on one thread with a
//! current-thread runtime. It never touches record data, and never waits for a shard.
//!
//! One loop selects what happened; each happening is applied at once, and what takes time runs
//! beside the loop and comes back as another happening.

mod outside;

mod store;

mod meta_log;

mod outbox;
mod requests;

pub(crate) mod admin;
mod status;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_engine::meta::{Command, Image};
use ringway_wire::request::{Reply, Request};
use ringway_wire::{ErrorCode, Fault, NodeId, ShardId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::shard_proxy::{ShardSender, ToController, ToShard};
use admin::{Health, Query};
use meta_log::{Change, MetaLog};
use outbox::Outbox;
use requests::Requests;

pub(crate) use meta_log::SingleNode;
pub(crate) use store::{DiskFiles, OpenError, Store, look as look_at_metadata};

/// The node of a cluster of one.
pub(crate) const SINGLE_NODE: NodeId = NodeId(1);
/// Requests that the controller works on at the same time; the rest wait in its queue.
const REQUESTS_MAX: usize = 512;
/// How long a message that found a queue full waits for its next try.
const RETRY: Duration = Duration::from_millis(2);
/// How often it is checked that the shards' threads are alive.
const WATCH: Duration = Duration::from_secs(1);
/// How long the shards may take to finish what they have accepted.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(30);

/// Why a broker that was running runs no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A shard can't go on.
    #[error("shard {shard} failed: {reason}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// What happened.
        reason: String,
    },
    /// Shards were asked to stop and didn't.
    #[error(
        "shards {shards:?} had not finished {} s after they were asked to stop: what they \
         acknowledged is durable, the rest is recovered at the next start", STOP_MAX.as_secs()
    )]
    Stuck {
        /// Those shards.
        shards: Vec<u16>,
    },
    /// The metadata log takes no commands.
    #[error("the metadata log refused: {0}")]
    Metadata(Fault),
    /// The controller's thread panicked: a defect.
    #[error("the controller panicked, which is a defect of this broker: {0}")]
    Panicked(String),
}

/// What the controller is given.
pub(crate) struct Setup {
    pub(crate) shards: Vec<ShardSender>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// Called when every shard's thread has ended.
    pub(crate) after: Box<dyn FnOnce() + Send>,
    pub(crate) from_shards: mpsc::Receiver<ToController>,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Called once, when every shard serves.
    pub(crate) on_ready: Box<dyn FnOnce() + Send>,
    pub(crate) about: Arc<admin::About>,
}

/// Registers this process, serves the shards until it is told to stop, and stops them.
///
/// # Errors
/// [`RunError`] when it stopped for another reason than being told to.
pub(crate) async fn run(log: SingleNode, setup: Setup) -> Result<(), RunError> {
    let result = match register(&log).await {
        Ok(()) => serve(&log, setup).await,
        Err(fault) => {
            // Shards whose queues end have nothing to do, and end.
            drop((setup.shards, setup.from_shards));
            setup
                .threads
                .into_iter()
                .for_each(|thread| drop(thread.join()));
            (setup.after)();
            Err(RunError::Metadata(fault))
        }
    };
    log.close().await;
    result
}

/// Gives a new cluster its identity, and opens new leader epochs for this start.
async fn register(log: &impl MetaLog) -> Result<(), Fault> {
    let (state, _) = log.subscribe().await?;
    if state.cluster_id() == 0 {
        let cluster_id = outside::random();
        log.propose(Command::CreateCluster { cluster_id }).await?;
    }
    let incarnation = outside::random();
    let node = SINGLE_NODE;
    log.propose(Command::RegisterBroker { node, incarnation })
        .await?;
    Ok(())
}

async fn serve<L: MetaLog>(log: &L, mut setup: Setup) -> Result<(), RunError> {
    let (state, mut changes) = log.subscribe().await.map_err(RunError::Metadata)?;
    let mut controller = Controller::new(log.clone(), &state, &mut setup);
    loop {
        // Biased: a change goes out before the answer that tells of it.
        tokio::select! {
            biased;
            change = changes.recv() => match change {
                Some(change) => controller.change(&change),
                None => return Err(RunError::Metadata(log_ended())),
            },
            Some(done) = controller.tasks.join_next() => controller.done(done),
            _ = setup.stop.wait_for(|stop| *stop), if !controller.is_stopping() => {
                controller.begin_stop(None);
            }
            message = setup.from_shards.recv(), if controller.has_room() => match message {
                Some(message) => controller.message(message),
                None => {
                    controller.all_gone();
                    break;
                }
            },
            Some(query) = setup.queries.recv(), if controller.has_room() => {
                controller.query(query);
            }
            () = sleep_until(controller.next_look) => controller.look(),
        }
        if controller.is_over() {
            break;
        }
    }
    controller.finish().await
}

fn log_ended() -> Fault {
    Fault::new(ErrorCode::Internal, "it has ended by itself")
}

fn without_a_word(shard: usize) -> RunError {
    RunError::Shard {
        shard: ShardId(shard as u16),
        reason: "its thread ended without a word, which is a defect".to_owned(),
    }
}

/// What came of something that ran beside the loop.
enum Done {
    Answer(ShardId, ringway_engine::shard::Token, Reply),
    Status,
}

struct Controller<L> {
    requests: Requests<L>,
    image: Image,
    outbox: Outbox,
    tasks: JoinSet<Done>,
    threads: Vec<JoinHandle<()>>,
    after: Box<dyn FnOnce() + Send>,
    /// By shard: whether it serves, and whether it has stopped.
    open: Vec<bool>,
    stopped: Vec<bool>,
    health: watch::Sender<Health>,
    on_ready: Option<Box<dyn FnOnce() + Send>>,
    about: Arc<admin::About>,
    stopping: Option<Stopping>,
    next_look: Instant,
}

struct Stopping {
    deadline: Instant,
    /// What made it stop, if it wasn't told to.
    error: Option<RunError>,
}

impl<L: MetaLog> Controller<L> {
    fn new(log: L, state: &ringway_engine::meta::Metadata, setup: &mut Setup) -> Self {
        let shards = setup.shards.len();
        let count = u16::try_from(shards).expect("shards are counted in 16 bits");
        let image = state.image(SINGLE_NODE, count);
        let mut outbox = Outbox::new(std::mem::take(&mut setup.shards));
        outbox.send_all(|| ToShard::Image(Box::new(image.clone())));
        setup.about.metadata(&image);
        Self {
            requests: Requests::new(log),
            image,
            outbox,
            tasks: JoinSet::new(),
            threads: std::mem::take(&mut setup.threads),
            after: std::mem::replace(&mut setup.after, Box::new(|| ())),
            open: vec![false; shards],
            stopped: vec![false; shards],
            health: setup.health.clone(),
            on_ready: Some(std::mem::replace(&mut setup.on_ready, Box::new(|| ()))),
            about: Arc::clone(&setup.about),
            stopping: None,
            next_look: Instant::now(),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether something new may be taken on.
    fn has_room(&self) -> bool {
        !self.outbox.is_held_up() && self.tasks.len() < REQUESTS_MAX
    }

    fn is_over(&self) -> bool {
        let stopping = |stopping: &Stopping| {
            self.stopped.iter().all(|stopped| *stopped) || Instant::now() >= stopping.deadline
        };
        self.stopping.as_ref().is_some_and(stopping)
    }

    fn change(&mut self, change: &Change) {
        for delta in &change.deltas {
            self.image.apply(delta);
        }
        self.about.metadata(&self.image);
        self.outbox.send_deltas(&change.deltas);
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Answer(shard, token, reply)) => {
                self.outbox.send(shard, ToShard::Answer { token, reply });
            }
            Ok(Done::Status) => {}
            // The one who asked gets no answer and times out; everybody else goes on.
            Err(error) => tracing::error!(%error, "a request made the controller panic: a defect"),
        }
    }

    fn message(&mut self, message: ToController) {
        match message {
            ToController::Request {
                shard,
                token,
                request,
            } => self.request(shard, token, request),
            ToController::AllOpen { shard } => {
                self.open[usize::from(shard.0)] = true;
                if self.open.iter().all(|open| *open) && !self.is_stopping() {
                    self.health.send_replace(Health::Serving);
                    if let Some(on_ready) = self.on_ready.take() {
                        on_ready();
                    }
                }
            }
            ToController::DeviceFailed { shard, reason } => {
                tracing::error!(%shard, reason, "the device failed: nothing is made durable any more");
                self.health.send_replace(Health::Impaired(reason.clone()));
                for other in (0..self.outbox.shards() as u16).filter(|other| *other != shard.0) {
                    let reason = reason.clone();
                    self.outbox
                        .send(ShardId(other), ToShard::DeviceFailed { reason });
                }
            }
            ToController::Failed { shard, reason } => {
                self.stopped[usize::from(shard.0)] = true;
                self.begin_stop(Some(RunError::Shard { shard, reason }));
            }
            ToController::Stopped { shard } => self.stopped[usize::from(shard.0)] = true,
        }
    }

    fn request(&mut self, shard: ShardId, token: ringway_engine::shard::Token, request: Request) {
        if self.is_stopping() {
            let fault = Fault::new(ErrorCode::ShuttingDown, "the broker is shutting down");
            let reply = requests::refusal(&request, fault);
            self.outbox.send(shard, ToShard::Answer { token, reply });
            return;
        }
        let requests = self.requests.clone();
        self.tasks.spawn_local(async move {
            let reply = requests.answer(request).await;
            Done::Answer(shard, token, reply)
        });
    }

    fn query(&mut self, Query::Status(answer): Query) {
        let asked = status::ask_all(&mut self.outbox);
        let image = self.image.clone();
        let health = self.health.borrow().clone();
        let about = Arc::clone(&self.about);
        let log = self.requests.log().clone();
        self.tasks.spawn_local(async move {
            let committed = log.read_barrier().await.ok();
            let place = status::Place {
                committed,
                membership: log.membership(),
            };
            let shards = status::collect(asked).await;
            let _ = answer.send(status::to_json(&about, &health, &place, &image, &shards));
            Done::Status
        });
    }

    /// Tries again what was held up, and looks after the shards' threads.
    fn look(&mut self) {
        self.outbox.push_on();
        let ended = |(shard, thread): (usize, &JoinHandle<()>)| {
            (thread.is_finished() && !self.stopped[shard]).then_some(shard)
        };
        if let Some(shard) = self.threads.iter().enumerate().find_map(ended) {
            self.stopped[shard] = true;
            self.begin_stop(Some(without_a_word(shard)));
        }
        let pause = if self.outbox.is_held_up() {
            RETRY
        } else {
            WATCH
        };
        self.next_look = Instant::now() + pause;
        if let Some(stopping) = &self.stopping {
            self.next_look = self.next_look.min(stopping.deadline);
        }
    }

    /// The shards hold the other ends of the queue: when it is closed, all have gone.
    fn all_gone(&mut self) {
        if let Some(shard) = self.stopped.iter().position(|stopped| !stopped) {
            self.stopped.fill(true);
            self.begin_stop(Some(without_a_word(shard)));
        }
    }

    fn begin_stop(&mut self, error: Option<RunError>) {
        if let Some(error) = &error {
            tracing::error!("{error}");
        }
        if self.stopping.is_some() {
            return;
        }
        self.health.send_replace(Health::Stopping);
        self.outbox.send_all(|| ToShard::Stop);
        self.stopping = Some(Stopping {
            deadline: Instant::now() + STOP_MAX,
            error,
        });
        self.next_look = Instant::now();
    }

    async fn finish(mut self) -> Result<(), RunError> {
        self.tasks.shutdown().await;
        let stuck: Vec<u16> = (0..self.stopped.len() as u16)
            .filter(|shard| !self.stopped[usize::from(*shard)])
            .collect();
        // One that has said its last word ends; one that is stuck may never.
        for (shard, thread) in self.threads.into_iter().enumerate() {
            if self.stopped[shard] {
                let _ = thread.join();
            }
        }
        if stuck.is_empty() {
            (self.after)();
        }
        match self.stopping.and_then(|stopping| stopping.error) {
            Some(error) => Err(error),
            None if stuck.is_empty() => Ok(()),
            None => Err(RunError::Stuck { shards: stuck }),
        }
    }
}
