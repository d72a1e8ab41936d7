//! The ring of events of one shard: written by it alone, a few stores an event and no allocation;
//! read by anybody, whose copy leaves out what was written over meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::mpsc::SyncSender;

use super::event::{Event, Step};

/// Events that are kept.
pub(super) const EVENTS: usize = 64 << 10;
const MASK: u64 = EVENTS as u64 - 1;

const _: () = assert!(EVENTS.is_power_of_two(), "places are found by masking");

/// Why events are wanted in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A turn took too long.
    Stall {
        /// The shard.
        shard: u16,
        /// How long it took.
        took_ns: u64,
    },
    /// Somebody wants to see them.
    Asked,
    /// The broker ends: nobody wants any more.
    Stop,
}

type Place = [AtomicU64; 4];

/// See the module. 2 MiB.
#[derive(Debug)]
pub struct FlightRecorder {
    places: Box<[Place]>,
    /// Events recorded so far.
    head: AtomicU64,
    /// When the turn began that is not over; 0 while the shard rests.
    turn_ns: AtomicU64,
    step: AtomicU8,
    /// Who is told of a stall.
    bell: OnceLock<SyncSender<Why>>,
}

impl Default for FlightRecorder {
    fn default() -> Self {
        Self {
            // Written, so that the shard's first turns fault no pages in.
            places: (0..EVENTS).map(|_| Place::default()).collect(),
            head: AtomicU64::new(0),
            turn_ns: AtomicU64::new(0),
            step: AtomicU8::new(0),
            bell: OnceLock::new(),
        }
    }
}

impl FlightRecorder {
    /// Records an event. Only the shard may.
    pub(crate) fn record(&self, event: Event) {
        let head = self.head.load(Ordering::Relaxed);
        // Whoever sees a word of this event also sees that the one before it was over.
        fence(Ordering::Release);
        let place = &self.places[(head & MASK) as usize];
        for (word, value) in place.iter().zip(event.encode()) {
            word.store(value, Ordering::Relaxed);
        }
        self.head.store(head + 1, Ordering::Release);
    }

    /// Events recorded so far.
    pub(crate) fn recorded(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// A turn has begun, and does its first step.
    pub(crate) fn turn(&self, now_ns: u64) {
        self.turn_ns.store(now_ns, Ordering::Relaxed);
        self.step(Step::Messages);
    }

    /// The turn goes on with a step.
    pub(crate) fn step(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
    }

    /// The turn is over.
    pub(crate) fn rest(&self) {
        self.turn_ns.store(0, Ordering::Relaxed);
        self.step(Step::Rest);
    }

    /// A turn took so long that whoever waits for stalls is told. Never blocks.
    pub(crate) fn stalled(&self, shard: u16, took_ns: u64) {
        if let Some(bell) = self.bell.get() {
            // One that is being worked on is enough.
            let _ = bell.try_send(Why::Stall { shard, took_ns });
        }
    }

    /// Says who is to be told of stalls.
    pub(crate) fn connect(&self, bell: SyncSender<Why>) {
        // A second one is of a second broker on the same numbers, which there is not.
        let _ = self.bell.set(bell);
    }

    /// The turn that is not over: when it began, and what it does.
    pub(super) fn unfinished(&self) -> Option<(u64, Step)> {
        let turn_ns = self.turn_ns.load(Ordering::Relaxed);
        let step = Step::from_number(self.step.load(Ordering::Relaxed));
        (turn_ns > 0).then_some((turn_ns, step))
    }

    /// The last events, oldest first.
    pub(super) fn copy(&self) -> Vec<Event> {
        let end = self.head.load(Ordering::Acquire);
        let start = end.saturating_sub(EVENTS as u64);
        let read = |at: u64| {
            let place = &self.places[(at & MASK) as usize];
            [0, 1, 2, 3].map(|word: usize| place[word].load(Ordering::Relaxed))
        };
        let words: Vec<_> = (start..end).map(read).collect();
        fence(Ordering::Acquire);
        // The one that is being written now takes the place of the oldest.
        let now = self.head.load(Ordering::Relaxed) + 1;
        let lost = now.saturating_sub(EVENTS as u64).saturating_sub(start);
        words
            .into_iter()
            .skip(lost as usize)
            .filter_map(Event::decode)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// An event all of whose words say the same.
    fn event(number: u64) -> Event {
        Event::Turn {
            started_ns: number,
            took_ns: number,
            steps_ns: [number & 0xffff_ffff; 3],
        }
    }

    fn number(event: Event) -> u64 {
        let Event::Turn {
            started_ns,
            took_ns,
            steps_ns,
        } = event
        else {
            panic!("{event:?}");
        };
        assert_eq!(started_ns, took_ns, "a torn event");
        assert_eq!(steps_ns, [started_ns & 0xffff_ffff; 3], "a torn event");
        started_ns
    }

    #[test]
    fn the_last_events_are_kept_in_their_order() {
        let recorder = FlightRecorder::default();
        assert_eq!(recorder.copy(), []);
        for at in 0..10 {
            recorder.record(event(at));
        }
        let kept: Vec<u64> = recorder.copy().into_iter().map(number).collect();
        assert_eq!(kept, (0..10).collect::<Vec<_>>());
        let end = 3 * EVENTS as u64 + 5;
        for at in 10..end {
            recorder.record(event(at));
        }
        let kept: Vec<u64> = recorder.copy().into_iter().map(number).collect();
        assert_eq!(
            kept.len(),
            EVENTS - 1,
            "the oldest may be being written over"
        );
        assert!(kept.iter().copied().eq(end - kept.len() as u64..end));
    }

    #[test]
    fn a_reader_never_sees_half_an_event_while_the_shard_goes_on() {
        let recorder = Arc::new(FlightRecorder::default());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (recorder, stop) = (Arc::clone(&recorder), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    recorder.record(event(at));
                    at += 1;
                }
            })
        };
        for _ in 0..20 {
            let numbers: Vec<u64> = recorder.copy().into_iter().map(number).collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }

    #[test]
    fn an_unfinished_turn_shows() {
        let recorder = FlightRecorder::default();
        assert_eq!(recorder.unfinished(), None);
        recorder.turn(77);
        recorder.step(Step::Engine);
        assert_eq!(recorder.unfinished(), Some((77, Step::Engine)));
        recorder.rest();
        assert_eq!(recorder.unfinished(), None);
    }
}
