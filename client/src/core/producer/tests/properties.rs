//! Properties of the producer under any order of pushes, answers, refusals and breaks.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Push(usize),
    /// The broker takes so many requests and answers in this order.
    Serve(usize),
    /// An answer is delivered.
    Deliver(usize),
    /// The connection breaks: requests taken are appended, answers lost.
    Break(usize),
    /// The broker can't take the next one for now.
    Refuse,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_usize..6).prop_map(Event::Push),
        4 => (1_usize..6).prop_map(Event::Serve),
        4 => (0_usize..6).prop_map(Event::Deliver),
        1 => (0_usize..6).prop_map(Event::Break),
        1 => Just(Event::Refuse),
        2 => (1_u64..2_000).prop_map(Event::Pass),
    ]
}

/// A connection's requests not taken by the broker yet, and its answers not delivered yet.
struct World {
    bench: Bench,
    log: Log,
    answers: Vec<(Transmit, Answer)>,
    deliveries: Vec<Delivery>,
}

impl World {
    fn apply(&mut self, event: &Event, limits: BatchLimits) {
        match *event {
            Event::Push(count) => {
                for _ in 0..count {
                    let number = self.deliveries.len() as u32;
                    let delivery = self.bench.push(&number.to_le_bytes());
                    self.deliveries.push(delivery);
                }
            }
            Event::Serve(count) => {
                for _ in 0..count.min(self.bench.sent.len()) {
                    let transmit = self.bench.sent.remove(0);
                    let header = BatchHeader::decode(&transmit.bytes).unwrap();
                    assert!(header.record_count as usize <= limits.records_max);
                    let answer = self.log.append(&transmit);
                    self.answers.push((transmit, answer));
                }
            }
            Event::Refuse if !self.bench.sent.is_empty() => {
                let transmit = self.bench.sent.remove(0);
                self.answers.push((transmit, fault(ErrorCode::Overloaded)));
            }
            Event::Refuse => {}
            Event::Deliver(index) if index < self.answers.len() => {
                let (transmit, answer) = self.answers.remove(index);
                self.bench
                    .core
                    .answer(transmit.token, answer, self.bench.now, 0);
            }
            Event::Deliver(_) => {}
            Event::Break(taken) => {
                let mut ends: Vec<_> = self.answers.drain(..).map(|each| each.0).collect();
                for (index, transmit) in self.bench.sent.drain(..).enumerate() {
                    if index < taken {
                        let _ = self.log.append(&transmit);
                    }
                    ends.push(transmit);
                }
                for transmit in ends {
                    self.bench
                        .core
                        .answer(transmit.token, lost(true), self.bench.now, 0);
                }
            }
            Event::Pass(ms) => self.bench.now += Duration::from_millis(ms),
        }
        self.bench.poll();
        let unanswered = self.bench.sent.len() + self.answers.len();
        assert!(unanswered <= self.bench.core.settings().in_flight);
    }
}

proptest! {
    /// Whatever breaks in between: every record is in the log once, in the order of sending,
    /// at the offset that its delivery says.
    #[test]
    fn order_and_exactly_once_survive_refusals_and_breaks(
        events in proptest::collection::vec(event(), 1..50),
        records_max in 1_usize..8,
        in_flight in 1_usize..6,
    ) {
        let limits = BatchLimits { bytes_max: 1 << 20, records_max };
        let settings = Settings { limits, in_flight, ..settings() };
        let mut world = World {
            bench: Bench::new(settings, 1),
            log: Log::default(),
            answers: Vec::new(),
            deliveries: Vec::new(),
        };
        for event in &events {
            world.apply(event, limits);
        }
        for _ in 0..events.len() * 6 + 10 {
            world.apply(&Event::Serve(5), limits);
            world.apply(&Event::Deliver(0), limits);
            world.apply(&Event::Pass(20), limits);
        }
        let expected: Vec<_> = (0..world.deliveries.len() as u32).collect();
        prop_assert_eq!(&world.log.values, &expected);
        for (number, delivery) in world.deliveries.iter().enumerate() {
            prop_assert_eq!(offset(delivery), number as u64);
        }
        prop_assert_eq!(world.bench.core.held_bytes(), 0);
        prop_assert_eq!(world.bench.identities_asked, 0);
    }

    /// Records without a key go to every partition about equally often, whatever the limits.
    #[test]
    fn records_without_a_key_spread(partitions in 1_u32..9, records_max in 1_usize..20) {
        let limits = BatchLimits { bytes_max: 1 << 20, records_max };
        let linger = SECOND;
        let mut bench = Bench::new(Settings { limits, linger, ..settings() }, partitions);
        let rounds = 10;
        for _ in 0..partitions as usize * records_max * rounds {
            let record = RecordRef { value: Some(b"x"), ..RecordRef::default() };
            let _ = bench.core.push("t", None, &record, bench.now).unwrap();
        }
        bench.pass(linger);
        let mut counts = vec![0; partitions as usize];
        while !bench.sent.is_empty() {
            counts[bench.sent[0].to.partition.0 as usize] += bench.header(0).record_count;
            bench.answer(0, at(0));
        }
        prop_assert_eq!(counts, vec![(records_max * rounds) as u32; partitions as usize]);
    }
}
