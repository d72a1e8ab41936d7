//! What clients do: produce, repeat, damage, read, look up, delete.

use ringway_engine::shard::Event;
use ringway_wire::request::{
    Acks, FetchRequest, ListOffsetsRequest, OffsetAt, ProduceRequest, Request, TrimBefore,
    TrimRequest,
};
use ringway_wire::{Offset, Sequence};

use crate::log::batch::{BatchNumber, Sent};
use crate::log::clients::{IN_FLIGHT_MAX, Outstanding};
use crate::log::history::Broken;
use crate::log::node::{Node, Observer, READERS};
use crate::log::replies::Waiting;

impl Node {
    /// Some client does something.
    pub(super) fn act(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        self.pass(5_000);
        if self.random.chance(self.profile.deletes) {
            self.delete();
            return self.pump(observer);
        }
        if self.random.chance(self.profile.durability_changes) {
            self.change_durability();
            return self.pump(observer);
        }
        if self.random.chance(self.profile.trims) {
            self.trim();
            return self.pump(observer);
        }
        match self.random.below(100) {
            0..62 => {
                let producer = self.random.index(self.world.producers.len());
                if self.may_produce(producer) {
                    self.produce(producer);
                }
            }
            62..66 => self.repeat(),
            66..69 => self.forbidden(),
            69..92 => {
                let reader = self.random.index(self.world.readers.len());
                self.fetch(reader);
            }
            92..94 => self.fetch_beyond(),
            94..97 => self.list_offsets(),
            _ => self.hang_up(),
        }
        Ok(())
    }

    fn is_dead(&self, log: usize) -> bool {
        self.world.history.logs[log].deleted
    }

    pub(super) fn may_produce(&self, producer: usize) -> bool {
        let log = self.world.producers[producer].log;
        !self.is_dead(log) && !self.failed.contains(&log)
    }

    /// The next batch of a producer, or again those that were refused.
    pub(super) fn produce(&mut self, index: usize) {
        let producer = &self.world.producers[index];
        if producer.resend {
            self.send_again(index);
            return;
        }
        if producer.window.len() >= IN_FLIGHT_MAX {
            return;
        }
        let number = self.new_batch(index, false);
        let sent = self.world.history.sent(number);
        let records = sent.records;
        let producer = &mut self.world.producers[index];
        if producer.id.is_some() {
            producer.next_sequence = producer.next_sequence.plus(records);
            producer.window.push_back(Outstanding {
                number,
                requests: 0,
            });
        }
        self.send(index, number);
    }

    /// Sends the whole window again, once nothing of it is in flight.
    pub(super) fn send_again(&mut self, index: usize) {
        let producer = &mut self.world.producers[index];
        if producer.is_waiting() {
            return;
        }
        producer.resend = false;
        let numbers: Vec<BatchNumber> = producer
            .window
            .iter()
            .map(|outstanding| outstanding.number)
            .collect();
        for number in numbers {
            self.send(index, number);
        }
    }

    fn new_batch(&mut self, index: usize, forbidden: bool) -> BatchNumber {
        let producer = &self.world.producers[index];
        let number = self.world.history.next_number();
        let stamp = producer.id.map(|id| (id, producer.next_sequence));
        let sent = Sent::make(
            number,
            producer.log,
            stamp,
            self.profile.sizes,
            &mut self.random,
        );
        self.world.history.add(sent, forbidden)
    }

    fn send(&mut self, index: usize, number: BatchNumber) {
        let producer = &mut self.world.producers[index];
        let first = producer
            .window
            .front()
            .is_some_and(|front| front.number == number);
        if let Some(at) = producer.window.iter().position(|at| at.number == number) {
            producer.window[at].requests += 1;
        }
        let acks = match (producer.id, self.random.below(10)) {
            (None, 0..3) => Acks::None,
            (_, 3..6) => Acks::Leader,
            _ => Acks::All,
        };
        self.world.history.sent_again(number);
        let sent = std::rc::Rc::clone(self.world.history.sent(number));
        self.trace.record(&[7, number as u64], || {
            format!("producer {index} sends batch {number}, {:?}", sent.producer)
        });
        let waiting = Waiting::Produce {
            producer: index,
            number,
            first,
        };
        self.send_bytes(sent.log, &sent.bytes, acks, waiting);
    }

    fn send_bytes(&mut self, log: usize, bytes: &[u8], acks: Acks, waiting: Waiting) {
        let place = self.world.history.logs[log].log;
        let request = Request::Produce(ProduceRequest {
            topic: place.topic,
            partition: place.partition,
            acks,
            trace: self.random.chance(100),
            timeout_ms: if self.random.chance(950) { 30_000 } else { 20 },
        });
        self.request(&request, bytes, (acks != Acks::None).then_some(waiting));
    }

    /// A producer sends one of its last batches once more, without need.
    fn repeat(&mut self) {
        let index = self.random.index(self.world.producers.len());
        let producer = &self.world.producers[index];
        if producer.id.is_none() || producer.resend || !self.may_produce(index) {
            return;
        }
        let waiting = producer.window.iter().map(|outstanding| outstanding.number);
        // What the broker still remembers: the last five, those in the window among them.
        let room = IN_FLIGHT_MAX - producer.window.len();
        let numbers: Vec<BatchNumber> = producer
            .acknowledged
            .iter()
            .rev()
            .take(room)
            .copied()
            .chain(waiting)
            .collect();
        if !numbers.is_empty() {
            let number = numbers[self.random.index(numbers.len())];
            self.send(index, number);
        }
    }

    /// A batch that nobody may accept: damaged on its way, or one that leaves a gap.
    fn forbidden(&mut self) {
        let index = self.random.index(self.world.producers.len());
        if !self.may_produce(index) {
            return;
        }
        let producer = &mut self.world.producers[index];
        let sequence = producer.next_sequence;
        let gap = producer.id.is_some() && self.random.chance(500);
        if gap {
            // Beyond all that is in the window: it can't become the next one by and by.
            producer.next_sequence = Sequence(sequence.0 + 1_000_000);
        }
        let number = self.new_batch(index, true);
        self.world.producers[index].next_sequence = sequence;
        let sent = std::rc::Rc::clone(self.world.history.sent(number));
        let mut bytes = sent.bytes.clone();
        if !gap {
            match self.random.below(4) {
                0 => {
                    let len = self.random.index(bytes.len());
                    bytes.resize(len, 0);
                }
                _ => {
                    let at = self.random.index(bytes.len());
                    bytes[at] ^= 1 << self.random.below(8);
                }
            }
        }
        self.send_bytes(sent.log, &bytes, Acks::All, Waiting::Forbidden { number });
    }

    pub(super) fn fetch(&mut self, index: usize) {
        let mut reader = self.world.readers[index];
        if reader.waiting || self.is_dead(reader.log) {
            return;
        }
        if reader.cold && self.random.chance(300) {
            let end = self.world.history.logs[reader.log].seen_end();
            reader.offset = Offset(self.random.below(end.0 + 1));
            reader.last_epoch = None;
            reader.cut = None;
        }
        reader.waiting = true;
        self.world.readers[index] = reader;
        let bytes_max = [100, 4_096, 100_000, 1 << 20][self.random.index(4)];
        let records_max = if self.random.chance(800) {
            0
        } else {
            1 + self.random.below(50) as u32
        };
        let wait_ms = if self.random.chance(500) {
            0
        } else {
            1 + self.random.below(500) as u32
        };
        let place = self.world.history.logs[reader.log].log;
        let request = Request::Fetch(FetchRequest {
            topic: place.topic,
            partition: place.partition,
            offset: reader.offset,
            last_epoch: reader.last_epoch,
            bytes_max,
            records_max,
            wait_ms,
        });
        let offset = reader.offset;
        self.request(
            &request,
            &[],
            Some(Waiting::Fetch {
                reader: index,
                offset,
            }),
        );
    }

    /// Asks for what can't be there.
    fn fetch_beyond(&mut self) {
        let logs = self.world.live_logs();
        if logs.is_empty() {
            return;
        }
        let log = logs[self.random.index(logs.len())];
        let place = self.world.history.logs[log].log;
        let request = Request::Fetch(FetchRequest {
            topic: place.topic,
            partition: place.partition,
            offset: Offset(1 << 40),
            last_epoch: None,
            bytes_max: 1_000,
            records_max: 0,
            wait_ms: 10,
        });
        self.request(&request, &[], Some(Waiting::Beyond { log }));
    }

    fn list_offsets(&mut self) {
        let logs = self.world.live_logs();
        if logs.is_empty() {
            return;
        }
        let log = logs[self.random.index(logs.len())];
        let history = &self.world.history.logs[log];
        let place = history.log;
        let from = Offset(self.random.below(history.seen_end().0 + 1));
        let at = match (self.random.below(3), history.some_time_us(from)) {
            (0, _) => OffsetAt::Start,
            (1, Some(time_us)) => OffsetAt::AppendTimeUs(time_us),
            _ => OffsetAt::End,
        };
        let request = ListOffsetsRequest {
            topic: place.topic,
            partition: place.partition,
            at,
        };
        let request = Request::ListOffsets(request);
        self.request(&request, &[], Some(Waiting::List { log, at }));
    }

    /// Somebody wants a log to begin later, sometimes later than it can.
    fn trim(&mut self) {
        let logs = self.world.live_logs();
        if logs.is_empty() {
            return;
        }
        let log = logs[self.random.index(logs.len())];
        let beyond = if self.random.chance(50) { 1_000_000 } else { 0 };
        let history = &mut self.world.history.logs[log];
        let offset = self.random.below(history.watermark.0 + 1) + beyond;
        let before = match history.some_time_us(Offset(offset)) {
            Some(time_us) if self.random.chance(300) => TrimBefore::AppendTimeUs(time_us),
            _ => TrimBefore::Offset(Offset(offset)),
        };
        // A time leads to a batch that is not older, or to the end.
        history.start_max = history.start_max.max(match before {
            TrimBefore::Offset(offset) if beyond == 0 => offset,
            TrimBefore::Offset(_) => Offset(0),
            TrimBefore::AppendTimeUs(_) => Offset(u64::MAX),
        });
        let place = history.log;
        let request = Request::Trim(TrimRequest {
            topic: place.topic,
            partition: place.partition,
            before,
        });
        self.request(&request, &[], Some(Waiting::Trim { log, before }));
    }

    /// The readers' connection breaks: their answers never come, and they ask again.
    fn hang_up(&mut self) {
        self.shard
            .apply(Event::Gone { source: READERS }, self.world.now);
        self.waiting.retain(|_, waiting| waiting.is_producers());
        for reader in &mut self.world.readers {
            reader.waiting = false;
        }
    }

    fn change_durability(&mut self) {
        let logs = self.world.live_logs();
        if logs.is_empty() {
            return;
        }
        let log = logs[self.random.index(logs.len())];
        self.world.history.change_durability(log);
        self.coverage.hit("durability changed");
        let config = self.config_of(log);
        let log = self.world.history.logs[log].log;
        self.shard
            .apply(Event::Configure { log, config }, self.world.now);
    }

    fn delete(&mut self) {
        let logs = self.world.live_logs();
        if logs.is_empty() {
            return;
        }
        let log = logs[self.random.index(logs.len())];
        self.world.history.logs[log].deleted = true;
        let place = self.world.history.logs[log].log;
        self.shard
            .apply(Event::Delete { log: place }, self.world.now);
        self.create();
    }
}
