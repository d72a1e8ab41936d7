//! A client for tests that go one step at a time, and what a broker says of itself over HTTP and
//! in /proc.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_client::{
    Client, ConsumeError, Delivered, Delivery, NewTopic, OffsetAt, PartitionIndex, ProduceError,
    Producer, StartAt,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// No test is about how fast it is; what takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client with one producer that gives up after some seconds.
pub(crate) struct Plain {
    runtime: Runtime,
    client: Client,
    producer: Producer,
}

/// What one pass over a partition gave.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Offsets and values.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    /// Errors, each of which was stepped over.
    pub(crate) errors: Vec<ConsumeError>,
}

impl Plain {
    /// Connects; records that aren't acknowledged within `delivery_timeout` are given up.
    pub(crate) fn connect(address: &str, delivery_timeout: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (client, producer) = runtime.block_on(async {
            let client = Client::connect(address).await.unwrap();
            let builder = client.producer().delivery_timeout(delivery_timeout);
            let producer = builder.build().await.unwrap();
            (client, producer)
        });
        Self {
            runtime,
            client,
            producer,
        }
    }

    /// The client, for what isn't here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Runs something to its end.
    pub(crate) fn run<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Makes a topic.
    pub(crate) fn create(&self, name: &str, partitions: u32, segment_bytes: u64) {
        let topic = NewTopic::new(name)
            .partitions(partitions)
            .config("segment_bytes", segment_bytes.to_string());
        self.run(self.client.admin().create_topic(topic)).unwrap();
    }

    /// Sends one record, and doesn't wait for its acknowledgement.
    pub(crate) fn send(&self, topic: &str, partition: u32, value: &[u8]) -> Delivery {
        let sending = self
            .producer
            .send_to(topic, PartitionIndex(partition), value);
        self.run(sending).unwrap()
    }

    /// Sends one record and waits for what becomes of it.
    pub(crate) fn produce(
        &self,
        topic: &str,
        partition: u32,
        value: &[u8],
    ) -> Result<Delivered, ProduceError> {
        let delivery = self.send(topic, partition, value);
        self.run(delivery)
    }

    /// Reads a partition from its start to its end, stepping over what can't be read.
    pub(crate) fn read(&self, topic: &str, partition: u32) -> Pass {
        let partition = PartitionIndex(partition);
        self.run(async {
            let ends = self
                .client
                .admin()
                .offsets(topic, partition, OffsetAt::End)
                .await
                .unwrap();
            let mut consumer = self.client.consumer().build();
            let only = [partition];
            consumer
                .assign(topic, Some(&only), StartAt::Start)
                .await
                .unwrap();
            let mut pass = Pass::default();
            while consumer.position(topic, partition).unwrap() < ends.high_watermark {
                let next = timeout(PATIENCE, consumer.next_batch()).await;
                match next.expect("records or an error") {
                    Ok(batch) => {
                        let records = batch.records().map(|record| {
                            (record.offset.0, record.value.unwrap_or_default().to_vec())
                        });
                        pass.records.extend(records);
                    }
                    Err(error) => {
                        let safe = error.safe_offset();
                        pass.errors.push(error);
                        let Some(safe) = safe else {
                            break;
                        };
                        let to = StartAt::Offset(safe.0);
                        consumer.seek(topic, partition, to).await.unwrap();
                    }
                }
            }
            pass
        })
    }
}

impl Pass {
    /// The values, where there must be no error.
    #[track_caller]
    pub(crate) fn values(self) -> Vec<Vec<u8>> {
        assert!(self.errors.is_empty(), "{:?}", self.errors);
        self.records.into_iter().map(|(_, value)| value).collect()
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The body of a page of the admin server.
pub(crate) fn page(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A number of /metrics, all shards together.
pub(crate) fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = page(admin, "/metrics");
    let start = format!("ringway_{name}{{");
    let lines = text.lines().filter(|line| line.starts_with(&start));
    let values: Vec<u64> = lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    assert!(!values.is_empty(), "no metric ringway_{name}");
    values.iter().sum()
}

/// The states of a topic's partitions, as /status has them.
pub(crate) fn states(admin: SocketAddr, topic: &str) -> Vec<String> {
    let status: serde_json::Value = serde_json::from_str(&page(admin, "/status")).unwrap();
    let topics = status["topics"].as_array().unwrap();
    let found = topics.iter().find(|each| each["name"] == topic);
    let partitions = found.expect("the topic is there")["partitions"].as_array();
    let state = |partition: &serde_json::Value| partition["state"].as_str().unwrap().to_owned();
    partitions.unwrap().iter().map(state).collect()
}

/// A number of a file in /proc whose lines are `name: number`.
pub(crate) fn proc_number(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap()
}
