//! The consumer: what is fetched next and what is handed out next, fair over partitions and bounded
//! in bytes. Answers go in by `answer`, `poll` says what to do, `take` gives what came.

mod opener;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_wire::batch::{BatchBytes, BatchError};
use ringway_wire::request::{FetchReply, FetchRequest, TimestampSource};
use ringway_wire::{Offset, PartitionIndex, TopicId, TopicPartition};

use crate::core::Token;
use crate::core::faults::{metadata_in_doubt, passes};
pub(crate) use crate::core::fetch::opener::Opener;
use crate::core::fetch::window::Window;
use crate::core::metadata::TopicView;
use crate::error::ConsumeError;
use crate::limits::FETCH_BYTES_MIN;

/// Bytes of one fetch reply, shared by the batches in it.
pub(crate) type FetchedBytes = Arc<BatchBytes>;

/// How a consumer works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) fetch_bytes: usize,
    pub(crate) fetch_records: u32,
    pub(crate) fetch_wait: Duration,
    pub(crate) prefetch_bytes: usize,
}

impl Settings {
    /// Bytes that each of so many partitions may hold.
    fn share(&self, partitions: usize) -> usize {
        (self.prefetch_bytes / partitions.max(1)).max(FETCH_BYTES_MIN)
    }

    /// Bytes of one fetch of a partition with such a share: half of it, so that one half is
    /// fetched while the other is read.
    fn fetch_bytes_of(&self, share: usize) -> usize {
        self.fetch_bytes
            .min((share / 2).max(FETCH_BYTES_MIN))
            .max(1)
    }
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Send a fetch to whoever leads the partition, and give its [`Answer`].
    Fetch { token: Token, request: FetchRequest },
    /// Ask for a topic's metadata again and call [`Fetcher::update_topic`].
    Refresh(Arc<str>),
}

/// What became of a fetch.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The broker replied; `None` is no batch.
    Reply(FetchReply, Option<FetchedBytes>),
    /// No answer will come: the connection is gone, or nobody leads the partition.
    Lost,
}

/// A batch to hand out, once its body is checked.
#[derive(Debug)]
pub(crate) struct Parcel {
    slot: u32,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionIndex,
    /// First offset wanted.
    pub(crate) from: Offset,
    pub(crate) high_watermark: Offset,
    /// Which time its records' timestamps are.
    pub(crate) timestamp: TimestampSource,
    pub(crate) bytes: FetchedBytes,
    pub(crate) start: usize,
}

/// All partitions that a consumer reads.
#[derive(Debug)]
pub(crate) struct Fetcher {
    settings: Settings,
    windows: Vec<Option<Window>>,
    vacant: Vec<u32>,
    slots: HashMap<Arc<str>, BTreeMap<PartitionIndex, u32>>,
    /// Topics of which all partitions are read, also those still to come.
    whole: HashSet<Arc<str>>,
    wanting: VecDeque<u32>,
    readable: VecDeque<u32>,
    timers: BTreeSet<(Instant, u32)>,
    doubts: VecDeque<Arc<str>>,
    fetches: u64,
}

impl Fetcher {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            windows: Vec::new(),
            vacant: Vec::new(),
            slots: HashMap::new(),
            whole: HashSet::new(),
            wanting: VecDeque::new(),
            readable: VecDeque::new(),
            timers: BTreeSet::new(),
            doubts: VecDeque::new(),
            fetches: 0,
        }
    }

    /// The topics of which something is read.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slots.keys()
    }

    /// Partitions that are read.
    fn count(&self) -> usize {
        self.windows.len() - self.vacant.len()
    }

    fn slot(&self, topic: &str, partition: PartitionIndex) -> Option<u32> {
        self.slots.get(topic)?.get(&partition).copied()
    }

    fn window(&mut self, slot: u32) -> Option<&mut Window> {
        self.windows.get_mut(slot as usize)?.as_mut()
    }

    /// Reads a partition from an offset on, also if it is read elsewhere now.
    pub(crate) fn assign(&mut self, view: &TopicView, partition: PartitionIndex, offset: Offset) {
        let at = TopicPartition {
            topic: view.topic,
            partition,
        };
        let slot = match self.slot(&view.name, partition) {
            Some(slot) => {
                self.window(slot)
                    .expect("assigned slots are in use")
                    .seek(at, offset);
                slot
            }
            None => self.open(Window::new(Arc::clone(&view.name), at, offset)),
        };
        let window = self.window(slot).expect("assigned slots are in use");
        window.timestamp = view.timestamp;
        self.want(slot);
    }

    /// A place for a new window.
    fn open(&mut self, window: Window) -> u32 {
        let (topic, partition) = (Arc::clone(&window.name), window.topic_partition.partition);
        let window = Some(window);
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.windows[slot as usize] = window;
                slot
            }
            None => {
                self.windows.push(window);
                self.windows.len() as u32 - 1
            }
        };
        self.slots.entry(topic).or_default().insert(partition, slot);
        slot
    }

    /// Reads partitions of the topic that are added later, too, each from its start.
    pub(crate) fn follow(&mut self, topic: &Arc<str>) {
        self.whole.insert(Arc::clone(topic));
    }

    /// Stops reading a topic.
    pub(crate) fn unassign(&mut self, topic: &str) {
        self.whole.remove(topic);
        for slot in self.slots.remove(topic).unwrap_or_default().into_values() {
            self.windows[slot as usize] = None;
            self.vacant.push(slot);
            self.wanting.retain(|&each| each != slot);
            self.readable.retain(|&each| each != slot);
            self.timers.retain(|&(_, each)| each != slot);
        }
        // The others' shares have grown.
        for slot in 0..self.windows.len() as u32 {
            self.want(slot);
        }
    }

    /// Stops reading everything.
    #[cfg(feature = "async")]
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.settings);
    }

    /// Goes on elsewhere; false when the partition isn't assigned.
    pub(crate) fn seek(&mut self, topic: &str, partition: PartitionIndex, to: Offset) -> bool {
        let Some(slot) = self.slot(topic, partition) else {
            return false;
        };
        let window = self.window(slot).expect("assigned slots are in use");
        window.seek(window.topic_partition, to);
        self.want(slot);
        true
    }

    /// The next offset that would be handed out.
    pub(crate) fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let slot = self.slot(topic, partition)?;
        self.windows[slot as usize].as_ref().map(Window::position)
    }

    /// Everything that is read and where.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (&Arc<str>, PartitionIndex, Offset)> {
        self.windows.iter().flatten().map(|window| {
            (
                &window.name,
                window.topic_partition.partition,
                window.position(),
            )
        })
    }

    /// Puts a window on the list of those that may fetch.
    fn want(&mut self, slot: u32) {
        if let Some(window) = self.windows[slot as usize].as_mut()
            && !window.wanting
        {
            window.wanting = true;
            self.wanting.push_back(slot);
        }
    }

    /// Puts a window on the list of those that have something to hand out, if it has.
    fn show(&mut self, slot: u32) {
        if let Some(window) = self.windows[slot as usize].as_mut()
            && !window.readable
            && window.has_news()
        {
            window.readable = true;
            self.readable.push_back(slot);
        }
    }

    /// What to do now; to be called until there is nothing.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        if let Some(name) = self.doubts.pop_front() {
            return Some(Action::Refresh(name));
        }
        while let Some(&(at, slot)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.want(slot);
        }
        let share = self.settings.share(self.count());
        while let Some(slot) = self.wanting.pop_front() {
            let (settings, fetch) = (self.settings, self.fetches + 1);
            let Some(window) = self.window(slot) else {
                continue;
            };
            window.wanting = false;
            if let Some(request) = window.fetch(fetch, share, now, &settings) {
                self.fetches = fetch;
                return Some(Action::Fetch {
                    token: Token {
                        slot,
                        number: fetch,
                    },
                    request,
                });
            }
        }
        None
    }

    /// When to poll again if nothing happens before; whoever polls all the time needs none.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The topic that a fetch belongs to, if it is still read.
    pub(crate) fn topic_of(&self, token: Token) -> Option<TopicId> {
        let window = self.windows.get(token.slot as usize)?.as_ref()?;
        Some(window.topic_partition.topic)
    }

    /// Whether an answer to this fetch is still of use.
    pub(crate) fn awaits(&self, token: Token) -> bool {
        let window = self
            .windows
            .get(token.slot as usize)
            .and_then(Option::as_ref);
        window.is_some_and(|window| window.awaits(token.number))
    }

    /// Takes what became of a fetch, unless a seek has come since.
    pub(crate) fn answer(&mut self, token: Token, answer: Answer, now: Instant, random: u64) {
        if !self.awaits(token) {
            return;
        }
        let (slot, settings) = (token.slot, self.settings);
        let window = self.window(slot).expect("an awaited answer has a window");
        let (pause, doubt) = match answer {
            Answer::Lost => (Some(window.pause(now, random)), true),
            Answer::Reply(mut reply, bytes) => match reply.fault.take() {
                None => (window.accept(&reply, bytes, now, &settings), false),
                Some(fault) if passes(fault.code) => (
                    Some(window.pause(now, random)),
                    metadata_in_doubt(fault.code),
                ),
                Some(fault) => {
                    let error = window.refusal(&reply, fault);
                    window.stop(error);
                    (None, false)
                }
            },
        };
        let name = doubt.then(|| Arc::clone(&window.name));
        if let Some(name) = name.filter(|name| !self.doubts.contains(name)) {
            self.doubts.push_back(name);
        }
        match pause {
            Some(until) => {
                self.timers.insert((until, slot));
            }
            None => self.want(slot),
        }
        self.show(slot);
    }

    /// Takes what is known of a topic now. `None`: it doesn't exist.
    pub(crate) fn update_topic(&mut self, name: &str, view: Option<&TopicView>) {
        let Some(slots) = self.slots.get(name) else {
            return;
        };
        let partitions = view.map_or(0, |view| view.partitions.len() as u32);
        let slots: Vec<_> = slots
            .iter()
            .map(|(&partition, &slot)| (partition, slot))
            .collect();
        for &(partition, slot) in &slots {
            let window = self.window(slot).expect("assigned slots are in use");
            let same = view.filter(|view| view.topic == window.topic_partition.topic);
            if let Some(view) = same {
                window.timestamp = view.timestamp;
            }
            if (same.is_none() || partition.0 >= partitions) && !window.is_stopped() {
                window.stop(ConsumeError::Gone {
                    topic: Arc::clone(&window.name),
                    partition,
                });
                self.show(slot);
            }
        }
        let Some(view) = view.filter(|_| self.whole.contains(name)) else {
            return;
        };
        for partition in (0..partitions).map(PartitionIndex) {
            if self.slot(name, partition).is_none() {
                self.assign(view, partition, Offset(0));
            }
        }
    }

    /// The next batch or error, of each partition in turn.
    pub(crate) fn take(&mut self) -> Option<Result<Parcel, ConsumeError>> {
        while let Some(slot) = self.readable.pop_front() {
            let Some(window) = self.window(slot) else {
                continue;
            };
            window.readable = false;
            let taken = window.take(slot);
            self.show(slot);
            self.want(slot);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Why waiting for a batch is in vain, if it is.
    pub(crate) fn in_vain(&self) -> Option<ConsumeError> {
        if self.count() == 0 {
            return Some(ConsumeError::NotAssigned);
        }
        let all = self.windows.iter().flatten().all(Window::is_over);
        all.then_some(ConsumeError::Stopped)
    }

    /// Takes back the batch just taken, which can't be handed out; the partition stands still.
    pub(crate) fn put_back(&mut self, parcel: &Parcel) {
        let window = self.window(parcel.slot).expect("the parcel was just taken");
        window.put_back(parcel.from);
    }

    /// Takes back the batch just taken, which can't be read; gives the error to report.
    pub(crate) fn reject(&mut self, parcel: &Parcel, why: &BatchError) -> ConsumeError {
        let window = self.window(parcel.slot).expect("the parcel was just taken");
        window.reject(parcel.from, why)
    }
}
