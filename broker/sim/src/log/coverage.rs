//! What really happened in a run: a simulation that never cuts a tail proves nothing about tails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How often each thing happened, by its name.
pub type Counts = BTreeMap<&'static str, u64>;

/// Things that have to happen in a sweep of any length, so that its passing means something.
pub const EVENTS: [&str; 40] = [
    "acknowledged",
    "acknowledged again",
    "acknowledged from memory",
    "acknowledged from memory and lost",
    "acknowledged beyond the bounds of memory",
    "answered late",
    "checkpoint lost",
    "checkpoint saved",
    "clean stop",
    "cold read",
    "damage found",
    "durability changed",
    "durable write",
    "file synced",
    "filled ahead",
    "flushed",
    "forbidden batch refused",
    "former life at the log's end",
    "housekeeping failed",
    "killed",
    "killed or cut while opening",
    "large batch",
    "log cut",
    "log start raised",
    "next.log continued",
    "no space",
    "out of order refused",
    "overloaded",
    "power cut",
    "read before the start",
    "read failed",
    "reader told of a cut",
    "side file damaged",
    "segment removed",
    "segment sealed",
    "storage failed",
    "sync failed",
    "topic deleted",
    "trimmed",
    "write failed",
];

/// Counts for a run and everything that starts in it. A clone counts into the same place.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage(Rc<RefCell<Counts>>);

impl Coverage {
    pub(super) fn hit(&self, what: &'static str) {
        debug_assert!(EVENTS.contains(&what), "{what} has a line in the list");
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        self.0.borrow().clone()
    }
}
