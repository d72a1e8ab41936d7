//! The clients: producers that send again what was not acknowledged, and readers.

use std::collections::VecDeque;

use ringway_wire::{LeaderEpoch, Offset, ProducerId, Sequence};

use crate::log::batch::BatchNumber;

/// Batches of a producer that may be unacknowledged at once; the broker remembers as many.
pub(super) const IN_FLIGHT_MAX: usize = 5;

/// A batch that an idempotent producer has not seen acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) number: BatchNumber,
    /// Requests for it that are not answered.
    pub(super) requests: u32,
}

/// A client that sends to one partition.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) log: usize,
    /// `None`: its batches are not checked for duplicates, and it sends each once.
    pub(super) id: Option<ProducerId>,
    pub(super) next_sequence: Sequence,
    /// Not acknowledged, in the order of their sequences.
    pub(super) window: VecDeque<Outstanding>,
    /// The last that were acknowledged, in the order of their sequences.
    pub(super) acknowledged: VecDeque<BatchNumber>,
    /// Something was refused: when nothing is in flight, all of the window is sent again.
    pub(super) resend: bool,
}

impl Producer {
    pub(super) const fn new(log: usize, id: Option<ProducerId>) -> Self {
        Self {
            log,
            id,
            next_sequence: Sequence(0),
            window: VecDeque::new(),
            acknowledged: VecDeque::new(),
            resend: false,
        }
    }

    /// Some of what was acknowledged is lost: it goes on as another producer, and what was not
    /// acknowledged is left to its fate.
    pub(super) fn begin_again(&mut self, id: ProducerId) {
        *self = Self::new(self.log, Some(id));
    }

    /// The broker is gone: what was not acknowledged is sent again.
    pub(super) fn disconnect(&mut self) {
        self.resend = !self.window.is_empty();
        for outstanding in &mut self.window {
            outstanding.requests = 0;
        }
    }

    /// Whether a request for a batch of the window is unanswered.
    pub(super) fn is_waiting(&self) -> bool {
        self.window
            .iter()
            .any(|outstanding| outstanding.requests > 0)
    }

    /// A request for a batch was answered.
    pub(super) fn answered(&mut self, number: BatchNumber) {
        let found = self
            .window
            .iter_mut()
            .find(|outstanding| outstanding.number == number);
        if let Some(outstanding) = found {
            outstanding.requests = outstanding.requests.saturating_sub(1);
        }
    }

    /// A batch was acknowledged.
    pub(super) fn acknowledge(&mut self, number: BatchNumber) {
        let at = self
            .window
            .iter()
            .position(|outstanding| outstanding.number == number);
        if let Some(at) = at {
            self.window.remove(at);
            // Acknowledgements may overtake each other; what the broker remembers goes by sequence.
            let at = self.acknowledged.partition_point(|&known| known < number);
            self.acknowledged.insert(at, number);
            if self.acknowledged.len() > IN_FLIGHT_MAX {
                self.acknowledged.pop_front();
            }
        }
    }
}

/// A client that reads one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) log: usize,
    pub(super) offset: Offset,
    pub(super) last_epoch: Option<LeaderEpoch>,
    /// It begins again from some offset instead of following the tail.
    pub(super) cold: bool,
    pub(super) waiting: bool,
    /// It has read beyond where a crash has cut the log: the next answer has to say so.
    pub(super) cut: Option<Offset>,
}

impl Reader {
    pub(super) const fn new(log: usize, cold: bool) -> Self {
        Self {
            log,
            offset: Offset(0),
            last_epoch: None,
            cold,
            waiting: false,
            cut: None,
        }
    }
}
