//! The stopwatch of one turn of a shard's loop.

use super::event::{Event, Step};
use super::recorder::FlightRecorder;

/// A turn in which nothing happened is recorded from this length on: a shard that polls busily
/// would otherwise fill the recorder with nothing.
const EMPTY_TURN_NS: u64 = 20_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lap {
    started_ns: u64,
    /// Events recorded before it.
    recorded: u64,
    step: Step,
    step_started_ns: u64,
    /// Of messages, completions, the engine.
    steps_ns: [u64; 3],
}

impl Lap {
    /// A turn begins.
    pub(crate) fn begin(flight: &FlightRecorder, now_ns: u64) -> Self {
        flight.turn(now_ns);
        Self {
            started_ns: now_ns,
            recorded: flight.recorded(),
            step: Step::Messages,
            step_started_ns: now_ns,
            steps_ns: [0; 3],
        }
    }

    /// It goes on with another step.
    pub(crate) fn next(&mut self, flight: &FlightRecorder, step: Step, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(self.step_started_ns);
        match self.step {
            Step::Messages => self.steps_ns[0] = took_ns,
            Step::Completions => self.steps_ns[1] = took_ns,
            Step::Engine => self.steps_ns[2] = took_ns,
            Step::Sending | Step::Rest => {}
        }
        flight.step(step);
        self.step = step;
        self.step_started_ns = now_ns;
    }

    /// It is over. Returns how long it took, in nanoseconds.
    pub(crate) fn end(&self, flight: &FlightRecorder, now_ns: u64) -> u64 {
        let took_ns = now_ns.saturating_sub(self.started_ns);
        if took_ns >= EMPTY_TURN_NS || flight.recorded() > self.recorded {
            flight.record(Event::Turn {
                started_ns: self.started_ns,
                took_ns,
                steps_ns: self.steps_ns,
            });
        }
        flight.rest();
        took_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_recorded_with_its_steps_if_it_did_anything() {
        let flight = FlightRecorder::default();
        let lap = Lap::begin(&flight, 1_000);
        assert_eq!(lap.end(&flight, 2_000), 1_000);
        assert_eq!(flight.copy(), [], "an empty one");
        let mut lap = Lap::begin(&flight, 10_000);
        lap.next(&flight, Step::Completions, 10_010);
        assert_eq!(flight.unfinished(), Some((10_000, Step::Completions)));
        lap.next(&flight, Step::Engine, 10_030);
        lap.next(&flight, Step::Sending, 10_070);
        assert_eq!(lap.end(&flight, 60_000), 50_000);
        let turn = Event::Turn {
            started_ns: 10_000,
            took_ns: 50_000,
            steps_ns: [10, 20, 40],
        };
        assert_eq!(flight.copy(), [turn], "a long one");
        let lap = Lap::begin(&flight, 70_000);
        let at_ns = 70_001;
        flight.record(Event::Connected { source: 1, at_ns });
        lap.end(&flight, 70_002);
        assert_eq!(flight.copy().len(), 3, "a short one that did something");
    }
}
