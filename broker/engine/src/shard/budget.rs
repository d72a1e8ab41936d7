//! Who may read from the disk next: a budget of bytes in memory, from the read to the last send of
//! it, and of bytes per second, shared fairly among the readers that wait.

use std::collections::{BTreeMap, VecDeque};

use crate::buffer::{Block, Pool, Slice, Watch};
use crate::limits::{READ_BURST_NS, READS_BESIDE_WRITES, WRITES_OVER_NS};
use crate::shard::fetch::FetchTask;

/// What one connection has to do with cold reads.
#[derive(Debug, Default)]
struct Reader {
    waiting: VecDeque<FetchTask>,
    /// Bytes that are being read for it.
    reading_bytes: usize,
    /// What was read for it and is not sent to the end, oldest first.
    held: VecDeque<Watch>,
    /// When something of it was read or sent to the end last.
    moved_ns: u64,
}

impl Reader {
    /// Forgets what is sent by now; bytes of memory that it has.
    fn held_bytes(&mut self, now_ns: u64) -> usize {
        let before = self.held.len();
        self.held.retain(|watch| !watch.is_over());
        if self.held.len() < before {
            self.moved_ns = now_ns;
        }
        let held: usize = self.held.iter().map(Watch::bytes).sum();
        held + self.reading_bytes
    }

    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.reading_bytes == 0 && self.held.is_empty()
    }
}

/// What may be done now.
#[derive(Debug)]
pub(super) enum Next {
    /// This read.
    Read(FetchTask),
    /// Nothing waits, or what is in flight has to end first.
    Nothing,
    /// Nothing until then.
    At(u64),
}

/// Reads in flight, what they brought, and those that wait for their turn.
#[derive(Debug)]
pub(super) struct Reads {
    readers: BTreeMap<u64, Reader>,
    /// Readers with something that waits, in the order of their turns.
    turns: VecDeque<u64>,
    /// Memory of all reads, until the last of it is sent.
    pool: Pool,
    bytes_max: usize,
    reading_bytes: usize,
    bytes_per_second: Option<u64>,
    /// When the bytes started so far will have been paid for.
    paid_until_ns: u64,
    /// Until then the device is taken to be busy with writes.
    writes_until_ns: u64,
    /// Since when somebody's turn has waited for memory.
    short_since_ns: Option<u64>,
    pub(super) timer_set: bool,
}

impl Reads {
    pub(super) fn new(bytes_max: usize, bytes_per_second: Option<u64>) -> Self {
        Self {
            readers: BTreeMap::new(),
            turns: VecDeque::new(),
            pool: Pool::new(bytes_max / 2),
            bytes_max,
            reading_bytes: 0,
            bytes_per_second,
            paid_until_ns: 0,
            writes_until_ns: 0,
            short_since_ns: None,
            timer_set: false,
        }
    }

    /// Whether nothing waits for its turn.
    pub(super) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Bytes of memory that reads have, until the last of it is sent.
    pub(super) fn bytes(&self) -> usize {
        self.pool.used_bytes()
    }

    /// Adds a read to those that wait.
    pub(super) fn push(&mut self, task: FetchTask) {
        let source = task.token.source;
        let reader = self.readers.entry(source).or_default();
        if reader.waiting.is_empty() {
            self.turns.push_back(source);
        }
        reader.waiting.push_back(task);
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, source: u64) {
        if let Some(reader) = self.readers.get_mut(&source) {
            reader.waiting.clear();
            self.turns.retain(|of| *of != source);
        }
    }

    /// Takes out every read that waits.
    pub(super) fn take_waiting(&mut self) -> Vec<FetchTask> {
        self.turns.clear();
        let readers = self.readers.values_mut();
        readers
            .flat_map(|reader| reader.waiting.drain(..))
            .collect()
    }

    /// A write has begun or ended: reads leave most of the device to writes for a while.
    pub(super) const fn written(&mut self, now_ns: u64) {
        self.writes_until_ns = now_ns + WRITES_OVER_NS;
    }

    /// Forgets who has nothing to do with reads any more. Before [`Reads::next`] is asked.
    pub(super) fn look_around(&mut self, now_ns: u64) {
        self.readers.retain(|_, reader| {
            reader.held_bytes(now_ns);
            !reader.is_over()
        });
    }

    /// The next read, if one may begin. Each reader has its turn, and nobody overtakes one who
    /// waits for room and has no more than a fair share.
    pub(super) fn next(&mut self, now_ns: u64) -> Next {
        if self.turns.is_empty() {
            self.short_since_ns = None;
            return Next::Nothing;
        }
        if self.bytes_per_second.is_some() && self.paid_until_ns > now_ns {
            return Next::At(self.paid_until_ns);
        }
        let share = self.bytes_max / self.readers.len().max(1);
        let fair = |source: &u64| {
            let reader = &mut self.readers.get_mut(source).expect("it waits");
            let bytes = reader.held_bytes(now_ns);
            bytes == 0 || bytes + reader.waiting[0].read_bytes <= share
        };
        let at = self.turns.iter().position(fair).unwrap_or(0);
        let source = self.turns[at];
        let bytes = self.readers[&source].waiting[0].read_bytes;
        if !self.has_room(bytes, now_ns) {
            return match self.reading_bytes {
                0 => Next::At(now_ns + WRITES_OVER_NS),
                _ => Next::Nothing,
            };
        }
        self.turns.remove(at);
        let reader = self.readers.get_mut(&source).expect("it waits");
        let task = reader.waiting.pop_front().expect("it waits");
        if !reader.waiting.is_empty() {
            self.turns.push_back(source);
        }
        Next::Read(task)
    }

    /// Whether so many bytes may be read now.
    fn has_room(&mut self, bytes: usize, now_ns: u64) -> bool {
        let used = self.pool.used_bytes();
        if used > 0 && used + bytes > self.bytes_max {
            // Only what isn't sent can last; what is being read comes.
            let short = self.reading_bytes == 0;
            self.short_since_ns = short.then(|| self.short_since_ns.unwrap_or(now_ns));
            return false;
        }
        self.short_since_ns = None;
        let beside_writes = self.writes_until_ns > now_ns;
        let device_max = match beside_writes {
            true => self.bytes_max / READS_BESIDE_WRITES,
            false => self.bytes_max,
        };
        self.reading_bytes == 0 || self.reading_bytes + bytes <= device_max
    }

    /// Memory for a read that begins now.
    pub(super) fn begin(&mut self, source: u64, bytes: usize, now_ns: u64) -> Block {
        if let Some(rate) = self.bytes_per_second {
            let cost_ns = (bytes as u128 * 1_000_000_000 / u128::from(rate.max(1))) as u64;
            let from_ns = self.paid_until_ns.max(now_ns.saturating_sub(READ_BURST_NS));
            self.paid_until_ns = from_ns + cost_ns;
        }
        self.reading_bytes += bytes;
        let reader = self.readers.entry(source).or_default();
        reader.reading_bytes += bytes;
        self.pool.take(bytes)
    }

    /// A read is over.
    pub(super) fn end(&mut self, source: u64, bytes: usize) {
        self.reading_bytes -= bytes;
        let reader = self.readers.get_mut(&source).expect("it was reading");
        reader.reading_bytes -= bytes;
    }

    /// What was read is about to be handed out, and counts until the last of it is sent.
    pub(super) fn hold(&mut self, source: u64, slice: &Slice, now_ns: u64) {
        let reader = self.readers.entry(source).or_default();
        if reader.held.is_empty() {
            reader.moved_ns = now_ns;
        }
        reader.held.push_back(slice.watch());
    }

    /// A reader that takes nothing of what it asked for while others wait for that memory.
    pub(super) fn stalled(&mut self, now_ns: u64, patience_ns: u64) -> Option<u64> {
        let since_ns = self.short_since_ns?;
        if since_ns + patience_ns > now_ns {
            return None;
        }
        let holders = self.readers.iter_mut().filter_map(|(&source, reader)| {
            (reader.held_bytes(now_ns) > 0).then_some((reader.moved_ns, source))
        });
        let (moved_ns, source) = holders.min()?;
        (moved_ns + patience_ns <= now_ns).then(|| {
            self.short_since_ns = Some(now_ns);
            source
        })
    }
}
