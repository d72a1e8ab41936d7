//! Asking any broker: one after another, again with pauses, until the time is over or asking again
//! could do harm.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Address;
use crate::core::backoff::Backoff;
use crate::error::ConnectionLost;

/// Whether asking again can do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads.
    Harmless,
    /// It changes something: not after it may have reached a broker.
    IfUnsent,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Ask this broker; without a reply, tell [`Inquiry::lost`].
    Ask(Address),
    /// Nothing until then.
    Pause(Instant),
    /// Give up.
    Fail(ConnectionLost),
}

/// One question to whichever broker answers.
#[derive(Debug)]
pub(crate) struct Inquiry {
    repeat: Repeat,
    deadline: Instant,
    /// Brokers still to be asked in this round.
    left: VecDeque<Address>,
    /// When the next round begins; `None` in the middle of one.
    round_at: Option<Instant>,
    backoff: Backoff,
    /// What happened last in this round.
    last: Option<ConnectionLost>,
    failed: Option<ConnectionLost>,
}

impl Inquiry {
    /// A question that is asked for so long.
    pub(crate) fn new(repeat: Repeat, now: Instant, within: Duration) -> Self {
        Self {
            repeat,
            deadline: now + within,
            left: VecDeque::new(),
            round_at: Some(now),
            backoff: Backoff::default(),
            last: None,
            failed: None,
        }
    }

    /// What to do next; `candidates` are the brokers known now, the best first.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        random: u64,
        candidates: impl FnOnce() -> Vec<Address>,
    ) -> Step {
        if let Some(lost) = &self.failed {
            return Step::Fail(lost.clone());
        }
        match self.round_at {
            Some(at) if now < at => return Step::Pause(at),
            Some(_) => {
                self.round_at = None;
                self.left = candidates().into();
            }
            None => {}
        }
        if let Some(address) = self.left.pop_front() {
            return Step::Ask(address);
        }
        let at = now + self.backoff.next(random);
        if let Some(lost) = self.last.take()
            && at >= self.deadline
        {
            self.failed = Some(lost.clone());
            return Step::Fail(lost);
        }
        self.round_at = Some(at);
        Step::Pause(at)
    }

    /// Takes that the broker asked last can't do it now: whether it is asked again, after a pause.
    pub(crate) fn put_off(&mut self, now: Instant, random: u64) -> bool {
        let at = now + self.backoff.next(random);
        if at >= self.deadline {
            return false;
        }
        self.round_at = Some(at);
        true
    }

    /// Takes that the broker asked last gave no reply.
    pub(crate) fn lost(&mut self, lost: ConnectionLost, now: Instant) {
        let stop = lost.refused.is_some()
            || (lost.sent && self.repeat == Repeat::IfUnsent)
            || now >= self.deadline;
        if stop {
            self.failed = Some(lost);
        } else {
            self.last = Some(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn brokers() -> Vec<Address> {
        ["a:1", "b:1"]
            .map(|text| Address::parse(text).unwrap())
            .into()
    }

    fn lost(sent: bool) -> ConnectionLost {
        ConnectionLost {
            address: "a:1".into(),
            why: "gone".into(),
            sent,
            refused: None,
        }
    }

    #[test]
    fn each_broker_is_asked_in_turn_and_again_after_a_pause_until_the_end() {
        let now = Instant::now();
        let mut inquiry = Inquiry::new(Repeat::Harmless, now, SECOND);
        let mut at = now;
        let mut asked = 0;
        let failed = loop {
            match inquiry.step(at, 0, brokers) {
                Step::Ask(address) => {
                    assert_eq!(address, brokers()[asked % 2]);
                    asked += 1;
                    inquiry.lost(lost(true), at);
                }
                Step::Pause(until) => {
                    assert!(asked % 2 == 0 && until > at);
                    assert!(matches!(inquiry.step(at, 0, brokers), Step::Pause(_)));
                    at = until;
                }
                Step::Fail(lost) => break lost,
            }
        };
        assert!(failed.sent && asked > 8 && at < now + SECOND);
        assert!(matches!(inquiry.step(at, 0, brokers), Step::Fail(_)));
    }

    #[test]
    fn what_may_have_changed_something_is_not_asked_again() {
        let now = Instant::now();
        for (repeat, sent, fails) in [
            (Repeat::IfUnsent, true, true),
            (Repeat::IfUnsent, false, false),
            (Repeat::Harmless, true, false),
        ] {
            let mut inquiry = Inquiry::new(repeat, now, SECOND);
            assert!(matches!(inquiry.step(now, 0, brokers), Step::Ask(_)));
            inquiry.lost(lost(sent), now);
            let failed = matches!(inquiry.step(now, 0, brokers), Step::Fail(_));
            assert_eq!(failed, fails, "{repeat:?} {sent}");
        }
    }

    #[test]
    fn who_is_put_off_asks_again_after_pauses_until_the_end() {
        let now = Instant::now();
        let mut inquiry = Inquiry::new(Repeat::IfUnsent, now, SECOND);
        let mut at = now;
        let mut asked = 0;
        loop {
            assert!(matches!(inquiry.step(at, 0, brokers), Step::Ask(_)));
            asked += 1;
            if !inquiry.put_off(at, 0) {
                break;
            }
            let Step::Pause(until) = inquiry.step(at, 0, brokers) else {
                panic!("no pause");
            };
            assert!(until > at);
            at = until;
        }
        assert!(asked > 4 && at < now + SECOND);
    }

    #[test]
    fn what_is_lost_after_the_end_is_the_end() {
        let now = Instant::now();
        let mut inquiry = Inquiry::new(Repeat::Harmless, now, SECOND);
        assert!(matches!(inquiry.step(now, 0, brokers), Step::Ask(_)));
        inquiry.lost(lost(false), now + SECOND);
        assert!(matches!(
            inquiry.step(now + SECOND, 0, brokers),
            Step::Fail(_)
        ));
    }
}
