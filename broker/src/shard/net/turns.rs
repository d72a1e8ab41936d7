//! Who has requests taken when, and for how long at a time. A client that asks little has them
//! taken as they come; those that ask for more than a share of the core take turns, a slice of time
//! each, and a turn of the shard ends when its time for that is over. So a flood of requests holds
//! up whoever sends it, and the others by one turn at most.

use std::collections::VecDeque;

use super::id::ConnectionId;

/// Time that the requests of waiting connections may take in one turn of the shard, in nanoseconds,
/// but for the last one.
pub(super) const TURN_NS_MAX: u64 = 250_000;
/// Time of one connection before it is another's turn.
pub(super) const SLICE_NS: u64 = 50_000;
/// Requests that come within this time after the turn began are taken at once from connections with
/// credit; after it they wait for the turn's end, so that completions don't starve the disk.
pub(super) const AT_ONCE_NS_MAX: u64 = 1_000_000;
/// The most credit that a quiet connection gathers.
const CREDIT_NS_MAX: i64 = 200_000;
/// What a new connection has: its hello and some requests.
const CREDIT_NS_NEW: i64 = 50_000;
/// One part in so many of the time that passes becomes credit, divided by those that wait: half of
/// the time goes to whoever asks for less than a fair share, wherever that many ask for more.
const EARNED_PART: u64 = 2;
/// As many are taken to wait at least.
const WAITING_MIN: u64 = 8;
/// So many with credit go before one without, at most.
const FRESH_IN_A_ROW_MAX: u32 = 4;
/// The largest debt.
const DEBT_NS_MAX: i64 = 50_000;

/// Time that a connection's requests may take before it has to wait for its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    left_ns: i64,
    at_ns: u64,
}

impl Credit {
    pub(super) const fn new(now_ns: u64) -> Self {
        Self {
            left_ns: CREDIT_NS_NEW,
            at_ns: now_ns,
        }
    }

    /// What is left, with what was earned meanwhile beside so many that wait; 0 if nothing.
    pub(super) fn at(&mut self, now_ns: u64, waiting: usize) -> u64 {
        let part = EARNED_PART * (waiting as u64).max(WAITING_MIN);
        let earned = now_ns.saturating_sub(self.at_ns) / part;
        self.left_ns = (self.left_ns + earned as i64).min(CREDIT_NS_MAX);
        self.at_ns = self.at_ns.max(now_ns);
        self.left_ns.max(0) as u64
    }

    /// Takes away what was used. A debt is bounded, so that a client that calms down is soon one
    /// that asks little.
    pub(super) fn spend(&mut self, ns: u64) {
        self.left_ns = self.left_ns.saturating_sub_unsigned(ns).max(-DEBT_NS_MAX);
    }
}

/// The connections that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that had credit.
    fresh: VecDeque<ConnectionId>,
    /// Those that had none.
    heavy: VecDeque<ConnectionId>,
    /// Of the first kind since one of the second.
    fresh_in_a_row: u32,
}

impl Turns {
    /// Adds one at the end. It must not wait already.
    pub(super) fn add(&mut self, id: ConnectionId, has_credit: bool) {
        match has_credit {
            true => self.fresh.push_back(id),
            false => self.heavy.push_back(id),
        }
    }

    /// Whose turn it is: those with credit first, but not for ever.
    pub(super) fn next(&mut self) -> Option<ConnectionId> {
        let first_of_heavy = match self.fresh_in_a_row >= FRESH_IN_A_ROW_MAX {
            true => self.heavy.pop_front(),
            false => None,
        };
        let next = first_of_heavy.or_else(|| {
            let fresh = self.fresh.pop_front()?;
            self.fresh_in_a_row += 1;
            Some(fresh)
        });
        if next.is_none() || first_of_heavy.is_some() {
            self.fresh_in_a_row = 0;
        }
        next.or_else(|| self.heavy.pop_front())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.heavy.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.heavy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ringway_wire::ShardId;

    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId {
            shard: ShardId(0),
            slot,
            generation: 0,
        }
    }

    #[test]
    fn credit_is_earned_with_time_and_bounded_both_ways() {
        let mut credit = Credit::new(1_000);
        assert_eq!(credit.at(1_000, 0), CREDIT_NS_NEW as u64);
        credit.spend(CREDIT_NS_NEW as u64);
        assert_eq!(credit.at(1_000, 0), 0);
        assert_eq!(credit.at(1_000 + 160, 1), 10, "a sixteenth");
        assert_eq!(credit.at(1_160 + 2_000, 100), 20, "less beside many");
        assert_eq!(credit.at(u64::MAX / 2, 0), CREDIT_NS_MAX as u64);
        credit.spend(u64::MAX / 4);
        let debt = DEBT_NS_MAX as u64 * 16;
        assert_eq!(credit.at(u64::MAX / 2 + debt, 0), 0, "nothing is left");
        assert!(credit.at(u64::MAX / 2 + debt + 160, 0) > 0, "soon there is");
        assert!(
            credit.at(0, 0) > 0,
            "a clock that was read before is no harm"
        );
    }

    #[test]
    fn a_light_client_waits_for_no_flood_and_floods_wait_for_each_other() {
        let mut turns = Turns::default();
        for flood in 0..3 {
            turns.add(id(flood), false);
        }
        let mut order = Vec::new();
        for turn in 0..6 {
            if turn == 4 {
                turns.add(id(9), true);
            }
            let next = turns.next().unwrap();
            order.push(next.slot);
            if next.slot < 9 {
                turns.add(next, false);
            }
        }
        assert_eq!(order, [0, 1, 2, 0, 9, 1]);
        assert!(!turns.is_empty());
    }

    #[test]
    fn many_with_credit_do_not_starve_those_without() {
        let mut turns = Turns::default();
        turns.add(id(0), false);
        turns.add(id(1), false);
        for slot in 10..30 {
            turns.add(id(slot), true);
        }
        let order: Vec<u32> = (0..12).map(|_| turns.next().unwrap().slot).collect();
        assert_eq!(order, [10, 11, 12, 13, 0, 14, 15, 16, 17, 1, 18, 19]);
        assert_eq!(turns.len(), 10);
    }
}
