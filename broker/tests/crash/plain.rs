//! A client for tests that go one step at a time.

use std::time::{Duration, Instant};

use ringway_client::{
    Client, ConsumeError, Delivered, Delivery, NewTopic, OffsetAt, PartitionIndex, ProduceError,
    Producer, StartAt,
};
pub(crate) use ringway_testing::{metric, page, proc_number, states};
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
