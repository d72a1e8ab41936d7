//! Which shard ports can't be reached, and the way around: the broker's shared port, until a try
//! beside the traffic has led to a connection.

use std::collections::HashMap;
use std::time::Instant;

use crate::config::Address;
use crate::limits::PROBE_PAUSE;

/// The way around a shard port that can't be reached.
#[derive(Debug)]
struct Detour {
    /// The broker's shared port. When the connection to it ends, the detour is forgotten.
    shared: Address,
    /// When to try the shard's port again, beside the traffic: it may have been only a broker that
    /// was just starting.
    probe_at: Instant,
}

/// How to get to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its own port.
    Direct,
    /// By the broker's shared port; with `probe`, its own is to be tried beside.
    Around { probe: bool },
}

/// What is known against shard ports.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    detours: HashMap<Address, Detour>,
    /// The shared port of each shard port that a connection was begun to.
    shards: HashMap<Address, Address>,
}

impl Detours {
    /// The way to a shard's own port; `is_open` says whether a connection to it is established.
    pub(crate) fn way(
        &mut self,
        own: &Address,
        is_open: impl FnOnce() -> bool,
        now: Instant,
    ) -> Way {
        let Some(detour) = self.detours.get_mut(own) else {
            return Way::Direct;
        };
        let probe = detour.probe_at <= now;
        if probe {
            detour.probe_at = now + PROBE_PAUSE;
        }
        if is_open() {
            self.detours.remove(own);
            return Way::Direct;
        }
        Way::Around { probe }
    }

    /// Has every port that is gone around tried the next time that it is asked for.
    #[cfg(all(test, feature = "async"))]
    pub(crate) fn probe_now(&mut self) {
        for detour in self.detours.values_mut() {
            detour.probe_at = Instant::now();
        }
    }

    #[cfg(all(test, feature = "async"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.detours.is_empty()
    }

    /// Notes that a connection to a shard's own port was begun.
    pub(crate) fn begun(&mut self, own: &Address, shared: &Address) {
        if !self.shards.contains_key(own) {
            self.shards.insert(own.clone(), shared.clone());
        }
    }

    /// Notes the end of a connection; `connected`: whether it ever was established.
    pub(crate) fn ended(&mut self, address: &Address, connected: bool, now: Instant) {
        self.detours.retain(|_, detour| detour.shared != *address);
        if let Some(shared) = self.shards.remove(address)
            && !connected
        {
            let detour = || Detour {
                shared,
                probe_at: now,
            };
            self.detours.entry(address.clone()).or_insert_with(detour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_gone_around_tried_now_and_then_and_found_again() {
        let own = Address::parse("a:2").unwrap();
        let shared = Address::parse("a:1").unwrap();
        let now = Instant::now();
        let mut detours = Detours::default();
        assert_eq!(detours.way(&own, || false, now), Way::Direct);
        detours.begun(&own, &shared);
        detours.ended(&own, false, now);
        let mut way = |is_open, at| detours.way(&own, || is_open, at);
        assert_eq!(way(false, now), Way::Around { probe: true });
        assert_eq!(way(false, now), Way::Around { probe: false });
        let later = now + PROBE_PAUSE;
        assert_eq!(way(false, later), Way::Around { probe: true });
        assert_eq!(way(true, later), Way::Direct);
        assert_eq!(way(false, later), Way::Direct, "the detour has ended");
    }

    #[test]
    fn a_detour_ends_with_the_connection_that_it_uses() {
        let own = Address::parse("a:2").unwrap();
        let shared = Address::parse("a:1").unwrap();
        let now = Instant::now();
        let mut detours = Detours::default();
        detours.begun(&own, &shared);
        detours.ended(&own, true, now);
        assert_eq!(detours.way(&own, || false, now), Way::Direct);
        detours.begun(&own, &shared);
        detours.ended(&own, false, now);
        detours.ended(&shared, true, now);
        assert_eq!(detours.way(&own, || false, now), Way::Direct);
    }
}
