//! Real shards on real ports and a real directory, with a controller that does what it is told.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_engine::meta::{Addresses, Delta, Image, Partition, Topic, TopicConfig, shard_of};
use ringway_engine::shard::{ShardConfig, SyncScope};
use ringway_wire::batch::{BatchBuilder, BatchLimits, CheckedBatch, ProducerStamp, RecordRef};
use ringway_wire::frame::{FrameDecoder, REPLY};
use ringway_wire::request::{
    Acks, FetchReply, FetchRequest, HelloRequest, ProduceReply, ProduceRequest, Reply, Request,
    RequestKind,
};
use ringway_wire::{
    CorrelationId, LeaderEpoch, MetadataEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId,
    TopicPartition,
};
use tokio::sync::mpsc;

use crate::config::Idle;
use crate::data_dir::DataDir;
use crate::housekeeper::{Housekeeper, HousekeeperConfig};
use crate::metrics::ShardMetrics;
use crate::shard::{NetworkLimits, Pulse, Recovered, ShardSetup, Watchdog, mesh, start};
use crate::shard_proxy::{ShardSender, ToController, ToShard, to_controller, to_shard};
use crate::wake::Wake;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const TOPIC: TopicId = TopicId(0x5eed);
const NODE: NodeId = NodeId(1);

pub(super) struct Rig {
    pub(super) shared: SocketAddr,
    pub(super) ports: Vec<SocketAddr>,
    pub(super) metrics: Vec<Arc<ShardMetrics>>,
    pub(super) shards: Vec<ShardSender>,
    pub(super) reports: mpsc::Receiver<ToController>,
    threads: Vec<JoinHandle<()>>,
    housekeeper: Option<Housekeeper>,
    _watchdog: Watchdog,
}

pub(super) struct Options {
    pub(super) shards: u16,
    pub(super) limits: NetworkLimits,
    pub(super) idle: Idle,
    pub(super) partitions: u32,
    /// Rises with every start.
    pub(super) leader_epoch: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 1,
            limits: NetworkLimits::default(),
            idle: Idle::Park,
            partitions: 4,
            leader_epoch: 1,
        }
    }
}

pub(super) fn at(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
    }
}

pub(super) fn topic(id: TopicId, partitions: u32) -> Topic {
    Topic {
        id,
        name: format!("topic-{id}"),
        epoch: MetadataEpoch(1),
        created_us: 0,
        replication_factor: 1,
        config: TopicConfig::default(),
        partitions: (0..partitions).map(|_| Partition::new(NODE)).collect(),
    }
}

impl Rig {
    pub(super) fn new(root: &Path, options: Options) -> Self {
        let data_dir = Arc::new(DataDir::open(root, PATIENCE, |_, _| {}).unwrap());
        let recovered = Arc::new(Recovered::read(&data_dir).unwrap());
        let housekeeper = Housekeeper::start(&data_dir, HousekeeperConfig::default()).unwrap();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = bind();
        let listeners: Vec<TcpListener> = (0..options.shards).map(|_| bind()).collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let ports: Vec<SocketAddr> = listeners.iter().map(address).collect();
        let wakes: Vec<Arc<Wake>> = (0..options.shards)
            .map(|_| Arc::new(Wake::new().unwrap()))
            .collect();
        let pulses: Vec<Arc<Pulse>> = wakes.iter().map(|_| Arc::default()).collect();
        let (controller, reports) = to_controller();
        let mut rig = Self {
            shared: address(&shared),
            ports: ports.clone(),
            metrics: Vec::new(),
            shards: Vec::new(),
            reports,
            threads: Vec::new(),
            _watchdog: Watchdog::start(pulses.clone()).unwrap(),
            housekeeper: None,
        };
        let mut shared = Some(shared);
        let parts = listeners
            .into_iter()
            .zip(mesh(&wakes))
            .zip(pulses)
            .zip(wakes);
        for (index, (((listener, mesh), pulse), wake)) in parts.enumerate() {
            let (sender, inbox) = to_shard(Arc::clone(&wake));
            let metrics = Arc::new(ShardMetrics::default());
            rig.metrics.push(Arc::clone(&metrics));
            rig.shards.push(sender);
            let mut config = ShardConfig::new(ShardId(index as u16));
            config.sync_scope = SyncScope::Device;
            let setup = ShardSetup {
                config,
                data_dir: Arc::clone(&data_dir),
                recovered: Arc::clone(&recovered),
                listener,
                shared_listener: shared.take(),
                addresses: Addresses {
                    host: "127.0.0.1".to_owned(),
                    port: rig.shared.port(),
                    shard_ports: ports.iter().map(SocketAddr::port).collect(),
                },
                batch_bytes_max: BATCH_BYTES_MAX,
                network: options.limits.clone(),
                open_segments_max: 64,
                inbox,
                controller: controller.clone(),
                mesh,
                housekeeper: housekeeper.proxy(wake),
                metrics,
                pulse,
                idle: options.idle,
                cpu: None,
                worker_cpus: Vec::new(),
            };
            rig.threads.push(start(setup).unwrap());
        }
        rig.housekeeper = Some(housekeeper);
        let mut image = Image::new(NODE, options.shards);
        image.apply(&Delta::ClusterCreated { cluster_id: 77 });
        let mut topic = topic(TOPIC, options.partitions);
        for partition in &mut topic.partitions {
            partition.leader_epoch = LeaderEpoch(options.leader_epoch);
        }
        image.apply(&Delta::TopicCreated(Box::new(topic)));
        for shard in &rig.shards {
            shard.send(ToShard::Image(Box::new(image.clone()))).unwrap();
        }
        for _ in 0..options.shards {
            let report = rig.report();
            assert!(matches!(report, ToController::AllOpen { .. }), "{report:?}");
        }
        rig
    }

    /// The next message for the controller.
    pub(super) fn report(&mut self) -> ToController {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.reports.try_recv() {
                Ok(report) => return report,
                Err(_) => assert!(Instant::now() < end, "no report came"),
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(super) fn owner(&self, partition: u32) -> usize {
        usize::from(shard_of(at(partition), self.ports.len() as u16).0)
    }

    /// Stops every shard in order; all threads have ended.
    pub(super) fn stop(mut self) {
        for shard in &self.shards {
            shard.send(ToShard::Stop).unwrap();
        }
        for _ in 0..self.threads.len() {
            let report = self.report();
            assert!(matches!(report, ToController::Stopped { .. }), "{report:?}");
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.housekeeper.take().unwrap().join();
    }
}

/// A client that waits for its answers.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    decoder: FrameDecoder,
    next: u32,
    kinds: HashMap<u32, RequestKind>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            decoder: FrameDecoder::new(usize::MAX),
            next: 1,
            kinds: HashMap::new(),
        }
    }

    /// Connects and says hello.
    pub(super) fn hello(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        let hello = HelloRequest {
            client: "test".to_owned(),
            ..HelloRequest::default()
        };
        let (_, reply, _) = client.ask(&hello.into(), &[]);
        let Reply::Hello(reply) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((reply.fault, reply.cluster_id), (None, 77));
        client
    }

    pub(super) fn send(&mut self, request: &Request, data: &[u8]) -> u32 {
        let correlation = self.next;
        self.next += 1;
        self.kinds.insert(correlation, request.kind());
        let head = request.to_frame(CorrelationId(correlation), data.len());
        self.stream.write_all(&head).unwrap();
        self.stream.write_all(data).unwrap();
        correlation
    }

    /// The next reply; `None` when the broker has closed the connection.
    pub(super) fn next_reply(&mut self) -> Option<(u32, Reply, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                let number = frame.header.kind & !REPLY;
                let correlation = frame.header.correlation.0;
                let kind = self.kinds.remove(&correlation);
                let kind = kind.or(RequestKind::from_number(number)).unwrap();
                assert_eq!(number, kind.number());
                let reply = Reply::from_head(kind, frame.head).unwrap();
                return Some((correlation, reply, frame.data.to_vec()));
            }
            let spare = self.decoder.spare(64 << 10);
            match self.stream.read(spare) {
                Ok(0) => return None,
                Ok(bytes) => self.decoder.filled(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("neither an answer nor an end: {error}"),
            }
        }
    }

    pub(super) fn ask(&mut self, request: &Request, data: &[u8]) -> (u32, Reply, Vec<u8>) {
        let correlation = self.send(request, data);
        let answer = self.next_reply().expect("the broker answers");
        assert_eq!(answer.0, correlation);
        answer
    }

    pub(super) fn produce(&mut self, partition: u32, values: &[&[u8]]) -> ProduceReply {
        let (_, reply, _) = self.ask(&produce(partition, Acks::All), &batch(values));
        match reply {
            Reply::Produce(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn fetch(&mut self, partition: u32, offset: u64, wait_ms: u32) -> Fetched {
        let (_, reply, data) = self.ask(&fetch(partition, offset, wait_ms), &[]);
        let Reply::Fetch(reply) = reply else {
            panic!("{reply:?}");
        };
        Fetched::new(reply, &data)
    }

    /// Every value from an offset to the high watermark.
    pub(super) fn read_all(&mut self, partition: u32) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        loop {
            let fetched = self.fetch(partition, values.len() as u64, 0);
            assert_eq!(fetched.reply.fault, None);
            if values.len() as u64 == fetched.reply.high_watermark.0 {
                return values;
            }
            assert_eq!(
                fetched.first,
                values.len() as u64,
                "offsets follow one another"
            );
            values.extend(fetched.values);
        }
    }
}

/// What the shards accept, as a broker does by default.
pub(super) const BATCH_BYTES_MAX: u32 = 16 << 20;

pub(super) struct Fetched {
    pub(super) reply: FetchReply,
    pub(super) first: u64,
    pub(super) values: Vec<Vec<u8>>,
}

impl Fetched {
    fn new(reply: FetchReply, data: &[u8]) -> Self {
        let mut aligned = ringway_engine::buffer::Pool::new(0).take(data.len());
        aligned[..data.len()].copy_from_slice(data);
        let mut rest = &aligned[..data.len()];
        let mut values = Vec::new();
        let mut first = u64::MAX;
        while !rest.is_empty() {
            let bytes = ringway_wire::batch::check_header(rest, true)
                .unwrap()
                .batch_bytes as usize;
            let batch = CheckedBatch::check(&rest[..bytes]).unwrap();
            for record in batch.records() {
                first = first.min(record.offset.0);
                values.push(record.value.unwrap().to_vec());
            }
            rest = &rest[bytes..];
        }
        Self {
            reply,
            first,
            values,
        }
    }
}

pub(super) fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits {
        bytes_max: 64 << 20,
        ..BatchLimits::default()
    });
    for value in values {
        let record = RecordRef {
            value: Some(value),
            ..RecordRef::default()
        };
        builder.push(&record).unwrap();
    }
    builder
        .seal(ProducerStamp::default())
        .unwrap()
        .bytes
        .to_vec()
}

pub(super) fn produce(partition: u32, acks: Acks) -> Request {
    let at = at(partition);
    ProduceRequest {
        topic: at.topic,
        partition: at.partition,
        acks,
        trace: false,
        timeout_ms: 30_000,
    }
    .into()
}

pub(super) fn fetch(partition: u32, offset: u64, wait_ms: u32) -> Request {
    let at = at(partition);
    FetchRequest {
        topic: at.topic,
        partition: at.partition,
        offset: Offset(offset),
        bytes_max: 1 << 20,
        wait_ms,
        ..FetchRequest::default()
    }
    .into()
}

/// Waits until something is so.
pub(super) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}
