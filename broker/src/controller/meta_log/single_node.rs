//! A cluster of one: its own word is the consensus, and its disk the only one to wait for.
//!
//! A task owns store and state. Proposals that come while it syncs go together into the next round.

use std::rc::Rc;

use ringway_engine::meta::{Command, Delta, Metadata};
use ringway_wire::{ErrorCode, Fault, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};

use super::{CHANGES_MAX, Change, Membership, MetaLog};
use crate::controller::store::{AppendError, Files, Store};

/// Proposals that may wait for the writer; who has one more waits.
const QUEUE_MAX: usize = 256;
/// Proposals that are synced together.
const ROUND_MAX: usize = 64;

type Answer<T> = oneshot::Sender<Result<T, Fault>>;

enum Ask {
    Propose(Command, Answer<Vec<Delta>>),
    Barrier(oneshot::Sender<u64>),
    Subscribe(oneshot::Sender<(Metadata, mpsc::Receiver<Change>)>),
}

/// The log of a cluster of one. Clones are the same log; it ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct SingleNode {
    node: NodeId,
    queue: mpsc::Sender<Ask>,
    writer: Rc<JoinHandle<()>>,
}

impl SingleNode {
    /// Goes on from what the store has. To be called inside a `LocalSet`.
    pub(crate) fn start<F>(node: NodeId, store: Store<F>, state: Metadata) -> Self
    where
        F: Files + Send + 'static,
    {
        let (queue, asks) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            store: Some(store),
            state,
            subscribers: Vec::new(),
        };
        Self {
            node,
            queue,
            writer: Rc::new(spawn_local(writer.run(asks))),
        }
    }

    /// Ends the log after what was proposed, with a snapshot, so that the next start has nothing
    /// to replay. Other clones are of no use from here on.
    pub(crate) async fn close(self) {
        drop(self.queue);
        if let Ok(writer) = Rc::try_unwrap(self.writer) {
            let _ = writer.await;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let ended = || Fault::new(ErrorCode::ShuttingDown, "the metadata log has ended");
        self.queue.send(ask(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

impl MetaLog for SingleNode {
    async fn propose(&self, command: Command) -> Result<Vec<Delta>, Fault> {
        self.ask(|answer| Ask::Propose(command, answer)).await?
    }

    async fn read_barrier(&self) -> Result<u64, Fault> {
        self.ask(Ask::Barrier).await
    }

    async fn subscribe(&self) -> Result<(Metadata, mpsc::Receiver<Change>), Fault> {
        self.ask(Ask::Subscribe).await
    }

    fn membership(&self) -> Membership {
        Membership {
            leader: Some(self.node),
            voters: vec![self.node],
        }
    }
}

struct Writer<F> {
    /// Elsewhere only while a blocking thread writes.
    store: Option<Store<F>>,
    state: Metadata,
    subscribers: Vec<mpsc::Sender<Change>>,
}

impl<F: Files + Send + 'static> Writer<F> {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut round = Vec::with_capacity(ROUND_MAX);
        while asks.recv_many(&mut round, ROUND_MAX).await > 0 {
            let mut proposals = Vec::new();
            let mut others = Vec::new();
            for ask in round.drain(..) {
                match ask {
                    // One that would be refused now needs no place in the log.
                    Ask::Propose(command, answer) => match self.state.check(&command) {
                        Ok(()) => proposals.push((command, answer)),
                        Err(fault) => drop(answer.send(Err(fault))),
                    },
                    other => others.push(other),
                }
            }
            self.commit(proposals).await;
            for ask in others {
                self.answer(ask);
            }
            if self.store.as_ref().is_some_and(Store::wants_snapshot) {
                self.snapshot().await;
            }
        }
        self.snapshot().await;
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Barrier(answer) => drop(answer.send(self.state.applied())),
            Ask::Subscribe(answer) => {
                let (sender, receiver) = mpsc::channel(CHANGES_MAX);
                if answer.send((self.state.clone(), receiver)).is_ok() {
                    self.subscribers.push(sender);
                }
            }
            Ask::Propose(..) => unreachable!("proposals went into the round"),
        }
    }

    async fn commit(&mut self, proposals: Vec<(Command, Answer<Vec<Delta>>)>) {
        if proposals.is_empty() {
            return;
        }
        let (commands, answers): (Vec<_>, Vec<_>) = proposals.into_iter().unzip();
        let (commands, appended) = self
            .blocking(move |store| {
                let appended = store.append(&commands);
                (commands, appended)
            })
            .await;
        let first = match appended {
            Ok(first) => first,
            Err(error) => {
                tracing::error!(%error, "metadata command refused");
                let fault = fault_of(&error);
                answers
                    .into_iter()
                    .for_each(|answer| drop(answer.send(Err(fault.clone()))));
                return;
            }
        };
        for (index, (command, answer)) in (first..).zip(commands.iter().zip(answers)) {
            let result = self.state.apply(command, index);
            if let Ok(deltas) = &result {
                self.publish(index, deltas).await;
            }
            // Who asked may have gone; the command stands all the same.
            let _ = answer.send(result);
        }
    }

    async fn publish(&mut self, index: u64, deltas: &[Delta]) {
        if deltas.is_empty() {
            return;
        }
        let deltas = deltas.to_vec();
        let change = Change { index, deltas };
        let mut gone = Vec::new();
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            if subscriber.send(change.clone()).await.is_err() {
                gone.push(place);
            }
        }
        for place in gone.into_iter().rev() {
            self.subscribers.swap_remove(place);
        }
    }

    async fn snapshot(&mut self) {
        let state = self.state.clone();
        if let Err(error) = self.blocking(move |store| store.snapshot(&state)).await {
            tracing::warn!(%error, "no metadata snapshot; the log goes on without");
        }
    }

    /// Does something with the store on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store<F>) -> T + Send + 'static,
    ) -> T {
        let mut store = self
            .store
            .take()
            .expect("the writer does one thing at a time");
        let done = spawn_blocking(move || {
            let value = work(&mut store);
            (store, value)
        });
        let (store, value) = done.await.expect("the store doesn't panic");
        self.store = Some(store);
        value
    }
}

fn fault_of(error: &AppendError) -> Fault {
    let code = match error {
        AppendError::Full(_) => ErrorCode::StorageFull,
        AppendError::Failed(_) => ErrorCode::StorageFailed,
    };
    Fault::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ringway_wire::TopicId;
    use tokio::task::LocalSet;

    use super::*;
    use crate::controller::store::DiskFiles;

    fn run(name: &str, test: impl AsyncFnOnce(PathBuf)) {
        let unique = format!("ringway-meta-log-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&directory);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, test(directory.clone()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn open(directory: &std::path::Path) -> SingleNode {
        let files = DiskFiles::in_directory(directory).unwrap();
        let (store, state, _) = Store::open(files).unwrap();
        SingleNode::start(NodeId(1), store, state)
    }

    fn create(id: u128, name: &str) -> Command {
        Command::CreateTopic {
            id: TopicId(id),
            name: name.to_owned(),
            partitions: 1,
            replication_factor: 0,
            config: Vec::new(),
            created_us: 0,
        }
    }

    fn register() -> Command {
        Command::RegisterBroker {
            node: NodeId(1),
            incarnation: 1,
        }
    }

    #[test]
    fn subscribers_have_a_change_before_its_proposer_knows() {
        run("order", async |directory| {
            let log = open(&directory);
            let (state, mut changes) = log.subscribe().await.unwrap();
            assert_eq!(state.applied(), 0);
            log.propose(register()).await.unwrap();
            let deltas = log.propose(create(7, "t")).await.unwrap();
            assert_eq!(changes.try_recv().unwrap().index, 1);
            assert_eq!(changes.try_recv().unwrap(), Change { index: 2, deltas });
            assert_eq!(log.read_barrier().await, Ok(2));
            assert_eq!(log.membership().leader, Some(NodeId(1)));
        });
    }

    #[test]
    fn of_many_proposals_at_once_one_of_each_name_wins_and_a_restart_agrees() {
        run("race", async |directory| {
            let log = open(&directory);
            log.propose(register()).await.unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            for id in 0..200 {
                let log = log.clone();
                let name = format!("t{}", id % 10);
                tasks.spawn_local(async move { log.propose(create(id + 1, &name)).await });
            }
            let results = tasks.join_all().await;
            let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!(won.len(), 10);
            assert!(
                lost.iter()
                    .all(|r| r.as_ref().unwrap_err().code == ErrorCode::TopicExists)
            );
            let (before, _) = log.subscribe().await.unwrap();
            log.close().await;

            let log = open(&directory);
            let (after, _) = log.subscribe().await.unwrap();
            assert_eq!(before, after);
            assert_eq!(after.topics().len(), 10);
        });
    }

    #[test]
    fn a_closed_log_says_so() {
        run("closed", async |directory| {
            let log = open(&directory);
            log.writer.abort();
            tokio::task::yield_now().await;
            let fault = log.propose(register()).await.unwrap_err();
            assert_eq!(fault.code, ErrorCode::ShuttingDown);
        });
    }
}
