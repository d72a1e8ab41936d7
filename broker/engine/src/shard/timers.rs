//! Deadlines, in the order in which they come.

use std::collections::BTreeMap;

/// Names a timer so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId {
    deadline_ns: u64,
    ordinal: u64,
}

/// What is due when.
#[derive(Debug)]
pub(super) struct Timers<T> {
    due: BTreeMap<TimerId, T>,
    ordinal: u64,
}

impl TimerId {
    /// Before every other.
    pub(super) const FIRST: Self = Self {
        deadline_ns: 0,
        ordinal: 0,
    };
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            ordinal: 0,
        }
    }
}

impl<T> Timers<T> {
    /// Sets a timer.
    pub(super) fn set(&mut self, deadline_ns: u64, what: T) -> TimerId {
        self.ordinal += 1;
        let id = TimerId {
            deadline_ns,
            ordinal: self.ordinal,
        };
        self.due.insert(id, what);
        id
    }

    /// Takes a timer back.
    pub(super) fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.due.remove(&id)
    }

    /// The next timer that is due.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(TimerId, T)> {
        let first = self.due.first_entry()?;
        (first.key().deadline_ns <= now_ns).then(|| first.remove_entry())
    }

    /// When the next timer is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.first_key_value().map(|(id, _)| id.deadline_ns)
    }
}
