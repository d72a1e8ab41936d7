//! The replicated log of metadata commands, as the controller sees it. What is behind it, one
//! node's file or a consensus of many, is not the controller's business.

mod single_node;

use ringway_engine::meta::{Command, Delta, Metadata};
use ringway_wire::{Fault, NodeId};
use tokio::sync::mpsc;

pub(crate) use single_node::SingleNode;

/// Changes that may wait for a subscriber; the log waits for one that is behind.
pub(crate) const CHANGES_MAX: usize = 1_024;

/// What one command of the log changed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The command's place in the log.
    pub(crate) index: u64,
    /// What it changed; never empty.
    pub(crate) deltas: Vec<Delta>,
}

/// Who takes part in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Who decides its order now, if anybody.
    pub(crate) leader: Option<NodeId>,
    /// Whose word counts.
    pub(crate) voters: Vec<NodeId>,
}

/// A log of commands that everybody follows in the same order.
pub(crate) trait MetaLog: Clone + 'static {
    /// Puts a command into the log. Comes back when it is committed, and followed here, and every
    /// subscriber's queue has its change.
    ///
    /// # Errors
    /// The fault to answer with. `storage_failed` leaves open whether the command is in the log.
    async fn propose(&self, command: Command) -> Result<Vec<Delta>, Fault>;

    /// Comes back when everything committed anywhere before the call is followed here; says up to
    /// which index.
    ///
    /// # Errors
    /// The fault to answer with.
    async fn read_barrier(&self) -> Result<u64, Fault>;

    /// The metadata as it is, and every change from there on.
    ///
    /// # Errors
    /// The fault to answer with.
    async fn subscribe(&self) -> Result<(Metadata, mpsc::Receiver<Change>), Fault>;

    /// Who takes part.
    fn membership(&self) -> Membership;
}
