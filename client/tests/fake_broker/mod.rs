//! A broker in memory for tests: the real protocol over real sockets, logs without a disk, and a
//! hook that decides the fate of each request. Threads and blocking sockets only; far too slow and
//! trusting to be a broker.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses the parts that it needs"
)]

mod connection;
mod store;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringway_wire::request::{Reply, Request, RequestKind};
use ringway_wire::{ErrorCode, Fault, Offset, PartitionIndex};

use store::Store;

/// What a hook has done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answer,
    /// It is answered after some time; later requests overtake it.
    Late(Duration),
    /// It is refused.
    Refuse(Fault),
    /// It gets no answer; nothing is done.
    Ignore,
    /// Nothing is done and the connection is closed.
    HangUp,
    /// It is carried out, but instead of the answer the connection is closed.
    LoseAnswer,
    /// It is carried out, but the connection is closed after so many bytes of the answer.
    CutAnswer(usize),
    /// It is carried out, but never answered.
    KeepAnswer,
    /// It is answered twice.
    AnswerTwice,
    /// It is answered, with a bit of the data flipped at so many bytes from its end.
    Corrupt(usize),
    /// It is answered with bytes that are no frame.
    Garbage,
    /// It is answered with this and no data, whatever it was.
    With(Reply),
}

impl Fate {
    /// Refuses with a code.
    #[must_use]
    pub fn refuse(code: ErrorCode) -> Self {
        Self::Refuse(Fault::new(code, "refused by the test"))
    }
}

type Hook = Box<dyn FnMut(&Request) -> Fate + Send>;

/// What all connections share.
struct Shared {
    store: Mutex<Store>,
    /// Told of every append.
    grown: Condvar,
    hook: Mutex<Hook>,
    ending: AtomicBool,
    /// Connections being served.
    open: AtomicUsize,
    /// Host port and shard ports, as metadata names them.
    ports: Vec<u16>,
    /// Shard ports that metadata names instead of the real ones.
    named: Mutex<Option<Vec<u16>>>,
    streams: Mutex<Vec<TcpStream>>,
    seen: Mutex<Vec<Request>>,
    /// The kind of each request and the port that it came to.
    came_to: Mutex<Vec<(u16, RequestKind)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record as a test looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: u64,
    /// Microseconds since 1970.
    pub timestamp_us: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The tag.
    pub tag: Option<Vec<u8>>,
}

/// A running broker; ends when dropped.
pub struct FakeBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeBroker {
    /// A broker with one shard, on ports that the kernel chooses.
    #[must_use]
    pub fn start() -> Self {
        Self::with_shards(1)
    }

    /// A broker with some shards, each with a port of its own.
    #[must_use]
    pub fn with_shards(shards: u16) -> Self {
        let listeners: Vec<_> = (0..=shards)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(shards)),
            grown: Condvar::new(),
            hook: Mutex::new(Box::new(|_| Fate::Answer)),
            ending: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            ports: listeners
                .iter()
                .map(|listener| address(listener).port())
                .collect(),
            named: Mutex::default(),
            streams: Mutex::default(),
            seen: Mutex::default(),
            came_to: Mutex::default(),
        });
        let first = address(&listeners[0]);
        for listener in listeners {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared));
        }
        Self {
            address: first,
            shared,
        }
    }

    /// Its shared port, as "host:port".
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Has every request but hello decided by `hook`, from now on.
    pub fn hook(&self, hook: impl FnMut(&Request) -> Fate + Send + 'static) {
        *lock(&self.shared.hook) = Box::new(hook);
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        lock(&self.shared.store)
            .create(name, partitions, &[])
            .unwrap();
    }

    /// Every record of a partition.
    #[must_use]
    pub fn records(&self, topic: &str, partition: u32) -> Vec<Stored> {
        lock(&self.shared.store).records(topic, PartitionIndex(partition))
    }

    /// How many batches a partition has.
    #[must_use]
    pub fn batch_count(&self, topic: &str, partition: u32) -> usize {
        lock(&self.shared.store).batch_count(topic, PartitionIndex(partition))
    }

    /// Takes away the oldest batches of a partition that end at or below an offset.
    pub fn cut(&self, topic: &str, partition: u32, below: u64) {
        lock(&self.shared.store).cut(topic, PartitionIndex(partition), Offset(below));
    }

    /// Every request that was read so far, in their order.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// The kind of each request that was read so far and the port that it came to.
    #[must_use]
    pub fn came_to(&self) -> Vec<(u16, RequestKind)> {
        lock(&self.shared.came_to).clone()
    }

    /// How many requests of a kind were read so far.
    #[must_use]
    pub fn count(&self, kind: RequestKind) -> usize {
        self.came_to().iter().filter(|seen| seen.1 == kind).count()
    }

    /// The shared port and the shards'.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.shared.ports
    }

    /// Has metadata name other ports for the shards.
    pub fn name_shard_ports(&self, ports: Vec<u16>) {
        *lock(&self.shared.named) = Some(ports);
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Forgets what producers have sent, as if their time were over.
    pub fn forget_producers(&self) {
        lock(&self.shared.store).forget_producers();
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        lock(&self.shared.store).delete(name).unwrap();
        self.shared.grown.notify_all();
    }

    /// Grows a topic to so many partitions.
    pub fn add_partitions(&self, name: &str, partitions: u32) {
        lock(&self.shared.store)
            .add_partitions(name, partitions)
            .unwrap();
    }

    /// Dies: connections break and nobody listens. What was appended stays.
    pub fn stop(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.disconnect();
        self.shared.grown.notify_all();
        for &port in &self.shared.ports {
            while TcpStream::connect(("127.0.0.1", port)).is_ok() {
                thread::yield_now();
            }
        }
        self.disconnect();
    }

    /// Comes back on the same ports.
    pub fn start_again(&self) {
        self.shared.ending.store(false, Ordering::Relaxed);
        for &port in &self.shared.ports {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || accept(&listener, &shared));
        }
    }

    /// Closes all connections; new ones are taken.
    pub fn disconnect(&self) {
        for stream in lock(&self.shared.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Gives partitions new leader epochs and other shards, as after a new election.
    pub fn move_leaders(&self) {
        lock(&self.shared.store).move_leaders();
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.disconnect();
        self.shared.grown.notify_all();
        for &port in &self.shared.ports {
            // Wakes the accepting thread, which then sees the end.
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        if let Ok(clone) = stream.try_clone() {
            lock(&shared.streams).push(clone);
        }
        let shared = Arc::clone(shared);
        shared.open.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            connection::serve(stream, &shared);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
