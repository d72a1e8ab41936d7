//! What the clones of a client share: connections, metadata and its refreshing, single requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringway_wire::limits::METADATA_TOPICS_MAX;
use ringway_wire::request::{MetadataReply, MetadataRequest, Reply, Request};
use ringway_wire::{MetadataEpoch, PartitionIndex, TopicId, TopicPartition};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};

use crate::calls::{
    Call, GetMetadata, LeaderInquiry, Verdict, is_put_off, no_leader, unmentioned, usable,
    within_limits,
};
use crate::config::{Address, ClientConfig};
use crate::connection::{Connection, Options, Respond, Submission, Teller};
use crate::core::Token;
use crate::core::inquiry::{Inquiry, Repeat, Step};
use crate::core::metadata::{Metadata, TopicView};
use crate::error::{ConnectError, ConnectionLost, RequestError};
use crate::limits::CATCH_UP_MAX;
use crate::machine::random;
use crate::pool::Pool;

/// Takes a lock; what it guards is consistent between calls, also after a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state behind a client.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    bootstrap: Vec<Address>,
    pool: Arc<Pool>,
    metadata: Mutex<Metadata>,
    /// The metadata's version.
    changed: watch::Sender<u64>,
    /// Tells the refreshing task that there is something to ask for.
    doubted: Notify,
    /// One loads unknown topics at a time, so that many senders don't ask for the same.
    loading: tokio::sync::Mutex<()>,
    /// The broker that answered last.
    good: Mutex<Option<Address>>,
    keeper: Mutex<Option<AbortHandle>>,
}

impl Shared {
    pub(crate) fn new(config: ClientConfig) -> Result<Arc<Self>, ConnectError> {
        let bootstrap = config.addresses()?;
        let options = Options {
            client_name: config.client_name.clone(),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            keepalive: config.keepalive,
        };
        Ok(Arc::new(Self {
            config,
            bootstrap,
            pool: Pool::new(options),
            metadata: Mutex::default(),
            changed: watch::Sender::new(0),
            doubted: Notify::new(),
            loading: tokio::sync::Mutex::default(),
            good: Mutex::default(),
            keeper: Mutex::default(),
        }))
    }

    pub(crate) fn close(&self) {
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
        self.pool.close();
    }

    /// Learns the brokers from the first one that answers.
    pub(crate) async fn first_contact(&self) -> Result<(), ConnectError> {
        let mut tried = Vec::new();
        for address in &self.bootstrap {
            let request = MetadataRequest {
                topics: Some(Vec::new()),
            };
            match self.ask(&self.pool.shared(address), request.into()).await {
                Ok(Reply::Metadata(reply)) => {
                    if let Some(fault) = reply.fault {
                        return Err(ConnectError::Refused(fault));
                    }
                    *lock(&self.good) = Some(address.clone());
                    self.learn(reply);
                    return Ok(());
                }
                Ok(_) => unreachable!("a connection gives replies of the request's kind"),
                Err(lost) => tried.push(lost),
            }
        }
        match tried.iter().find_map(|lost| lost.refused.clone()) {
            Some(fault) => Err(ConnectError::Refused(fault)),
            None => Err(ConnectError::Unreachable { tried }),
        }
    }

    fn learn(&self, reply: MetadataReply) {
        let version = {
            let mut metadata = lock(&self.metadata);
            metadata.apply(reply, Instant::now());
            metadata.version()
        };
        self.changed.send_replace(version);
    }

    /// Hears of every change of the metadata.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A topic as last heard of.
    pub(crate) fn known_topic(&self, name: &str) -> Option<TopicView> {
        lock(&self.metadata).topic(name).cloned()
    }

    /// A topic, asked for if it isn't known.
    pub(crate) async fn topic(&self, name: &str) -> Result<TopicView, RequestError> {
        if let Some(view) = self.known_topic(name) {
            return Ok(view);
        }
        let _turn = self.loading.lock().await;
        if let Some(view) = self.known_topic(name) {
            return Ok(view);
        }
        self.load(name).await
    }

    /// A topic, asked for if it isn't known, or not to have a partition that is wanted: somebody
    /// may have added it.
    pub(crate) async fn topic_with(
        &self,
        name: &str,
        wanted: Option<PartitionIndex>,
    ) -> Result<TopicView, RequestError> {
        let view = self.topic(name).await?;
        if wanted.is_none_or(|wanted| view.at(wanted).is_ok()) {
            return Ok(view);
        }
        let _turn = self.loading.lock().await;
        self.load(name).await
    }

    async fn load(&self, name: &str) -> Result<TopicView, RequestError> {
        let topics = vec![name.to_owned()];
        let reply = self.call(&GetMetadata { topics }).await?;
        let usable = usable(&reply, name);
        self.learn(reply);
        usable?;
        self.known_topic(name).ok_or_else(|| unmentioned(name))
    }

    /// Waits until a topic is known as of an epoch that a reply told of, for which the refresh is
    /// under way; not longer than records may wait for it.
    pub(crate) async fn wait_for_topic(&self, name: &str, epoch: MetadataEpoch) {
        let mut changes = self.changes();
        let newer = async {
            while self
                .known_topic(name)
                .is_some_and(|view| view.epoch < epoch)
            {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(CATCH_UP_MAX, newer).await;
    }

    /// Notes the epoch that a reply carried.
    pub(crate) fn note_epoch(&self, topic: TopicId, epoch: MetadataEpoch) {
        if lock(&self.metadata).note_epoch(topic, epoch) {
            self.doubted.notify_one();
        }
    }

    /// Notes that a topic's metadata is in doubt.
    pub(crate) fn doubt(&self, name: &Arc<str>) {
        if lock(&self.metadata).doubt(name) {
            self.doubted.notify_one();
        }
    }

    /// Starts the task that refreshes what is in doubt.
    pub(crate) fn keep_metadata(self: &Arc<Self>) {
        let task = tokio::spawn(Arc::clone(self).refresh_for_ever());
        *lock(&self.keeper) = Some(task.abort_handle());
    }

    async fn refresh_for_ever(self: Arc<Self>) {
        loop {
            let due = lock(&self.metadata).refresh_due(Instant::now());
            let Some((at, mut names)) = due else {
                self.doubted.notified().await;
                continue;
            };
            sleep_until(at.into()).await;
            names.truncate(METADATA_TOPICS_MAX);
            match self.call(&GetMetadata { topics: names }).await {
                Ok(reply) => self.learn(reply),
                Err(_) => lock(&self.metadata).refresh_failed(Instant::now()),
            }
        }
    }

    /// The connection to the leader of a partition, if one is known.
    pub(crate) fn leader(&self, of: TopicPartition) -> Option<Arc<Connection>> {
        let leader = lock(&self.metadata).leader(of)?;
        Some(self.pool.shard(&leader))
    }

    /// Brokers to ask, the one that answered last before the others.
    fn candidates(&self) -> Vec<Address> {
        let good = lock(&self.good).clone();
        lock(&self.metadata).candidates(good, &self.bootstrap)
    }

    /// Asks any broker; again, with pauses, until the request time-out.
    pub(crate) async fn call<C: Call>(&self, call: &C) -> Result<C::Output, RequestError> {
        let what = || call.what();
        call.read(self.request(what, call.request(), C::REPEAT).await?)
    }

    /// Asks any broker; again, with pauses, until the request time-out.
    pub(crate) async fn request(
        &self,
        what: impl Fn() -> String,
        request: Request,
        repeat: Repeat,
    ) -> Result<Reply, RequestError> {
        within_limits(&what, &request)?;
        let within = self.config.request_timeout;
        let mut inquiry = Inquiry::new(repeat, Instant::now(), within);
        loop {
            match inquiry.step(Instant::now(), random(), || self.candidates()) {
                Step::Ask(address) => {
                    let connection = self.pool.shared(&address);
                    match self.ask(&connection, request.clone()).await {
                        Ok(reply) => {
                            *lock(&self.good) = Some(address);
                            let put_off = is_put_off(&reply);
                            if !put_off || !inquiry.put_off(Instant::now(), random()) {
                                return Ok(reply);
                            }
                        }
                        Err(lost) => inquiry.lost(lost, Instant::now()),
                    }
                }
                Step::Pause(until) => sleep_until(until.into()).await,
                Step::Fail(lost) => {
                    return Err(RequestError::Unreachable {
                        what: what(),
                        within,
                        lost,
                    });
                }
            }
        }
    }

    /// Asks the leader of a partition; again, with pauses, while leaders change.
    pub(crate) async fn request_leader(
        &self,
        what: impl Fn() -> String,
        topic: &str,
        partition: PartitionIndex,
        make: impl Fn(TopicPartition) -> Request,
    ) -> Result<Reply, RequestError> {
        let mut inquiry = LeaderInquiry::new(Instant::now(), self.config.request_timeout);
        loop {
            let view = self.topic_with(topic, Some(partition)).await?;
            let at = view.at(partition)?;
            let answer = match self.leader(at) {
                Some(connection) => self.ask(&connection, make(at)).await,
                None => Err(no_leader(&what())),
            };
            match inquiry.judge(&what, answer, Instant::now(), random())? {
                Verdict::Done(reply) => return Ok(reply),
                Verdict::Again(at) => {
                    self.doubt(&view.name);
                    sleep_until(at.into()).await;
                }
            }
        }
    }

    /// One request on one connection.
    async fn ask(
        &self,
        connection: &Arc<Connection>,
        request: Request,
    ) -> Result<Reply, ConnectionLost> {
        let (sender, receiver) = oneshot::channel();
        connection.submit(Submission {
            request,
            data: None,
            who: Teller {
                respond: Arc::new(Asker {
                    sender: Mutex::new(Some(sender)),
                }),
                token: Token { slot: 0, number: 0 },
            },
            deadline: Instant::now() + self.config.request_timeout,
            answered: true,
        });
        receiver.await.unwrap_or_else(|_| {
            let why = "the request was forgotten".into();
            Err(ConnectionLost {
                address: "".into(),
                why,
                sent: true,
                refused: None,
            })
        })
    }

    /// When a request on a connection that may wait so long is overdue.
    pub(crate) fn request_deadline(&self, wait: Duration) -> Instant {
        Instant::now() + self.config.request_timeout + wait
    }
}

/// Waits for one reply.
#[derive(Debug)]
struct Asker {
    sender: Mutex<Option<oneshot::Sender<Result<Reply, ConnectionLost>>>>,
}

impl Asker {
    fn tell(&self, result: Result<Reply, ConnectionLost>) {
        if let Some(sender) = lock(&self.sender).take() {
            // Whoever asked may be gone.
            let _ = sender.send(result);
        }
    }
}

impl Respond for Asker {
    fn replied(&self, _: Token, reply: Reply, _: &[u8]) {
        self.tell(Ok(reply));
    }

    fn written(&self, _: Token) {}

    fn lost(&self, _: Token, lost: ConnectionLost) {
        self.tell(Err(lost));
    }
}
