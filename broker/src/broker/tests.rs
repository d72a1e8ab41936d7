//! The whole broker on shards that only keep their image: start, requests, HTTP, failures, stop.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ringway_engine::meta::Image;
use ringway_engine::shard::Token;
use ringway_wire::request::{
    CreateTopicRequest, DeleteTopicRequest, InitProducerRequest, Reply, Request,
};
use ringway_wire::{CorrelationId, ErrorCode, LeaderEpoch, Offset, ShardId};
use serde_json::Value;

use super::*;
use crate::shard_proxy::{PartitionStatus, ShardStatus, ToController, ToShard};

/// What a test tells a shard to do, and what the shard has seen.
#[derive(Default)]
struct Desk {
    to_send: Mutex<VecDeque<ToController>>,
    vanish: Mutex<bool>,
    image: Mutex<Option<Image>>,
    answers: Mutex<Vec<(Token, Reply)>>,
    device_failed: Mutex<Option<String>>,
}

type Desks = Arc<[Desk]>;

/// A shard without data.
fn shard(mut setup: ShardEnds, desks: Desks, silent: bool) {
    let shard = setup.shard;
    let desk = &desks[usize::from(shard.0)];
    loop {
        if *desk.vanish.lock().unwrap() {
            return;
        }
        while let Some(message) = desk.to_send.lock().unwrap().pop_front() {
            setup.controller.send(message).unwrap();
        }
        let Some(message) = setup.inbox.take() else {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        };
        match message {
            ToShard::Image(image) => {
                *desk.image.lock().unwrap() = Some(*image);
                if !silent {
                    setup
                        .controller
                        .send(ToController::AllOpen { shard })
                        .unwrap();
                }
            }
            ToShard::Deltas(deltas) => {
                let mut image = desk.image.lock().unwrap();
                let image = image.as_mut().expect("the image comes first");
                deltas.iter().for_each(|delta| image.apply(delta));
            }
            ToShard::Answer { token, reply } => {
                // What an answer tells of, its shard has heard before.
                if let Reply::CreateTopic(reply) = &reply
                    && reply.fault.is_none()
                {
                    let image = desk.image.lock().unwrap();
                    assert!(image.as_ref().unwrap().topic(reply.topic).is_some());
                }
                desk.answers.lock().unwrap().push((token, reply));
            }
            ToShard::DeviceFailed { reason } => {
                *desk.device_failed.lock().unwrap() = Some(reason);
            }
            ToShard::Scrape(reply) => reply.send(scraped(shard, desk)),
            ToShard::Stop => {
                setup
                    .controller
                    .send(ToController::Stopped { shard })
                    .unwrap();
                return;
            }
        }
    }
}

fn scraped(shard: ShardId, desk: &Desk) -> ShardStatus {
    let image = desk.image.lock().unwrap();
    let partition = |at| PartitionStatus {
        at,
        state: "ready".to_owned(),
        log_start: Offset(0),
        high_watermark: Offset(5),
        log_end: Offset(6),
        log_bytes: 77,
    };
    ShardStatus {
        partitions: image
            .as_ref()
            .unwrap()
            .owned_by(shard)
            .map(partition)
            .collect(),
    }
}

struct Test {
    directory: PathBuf,
    desks: Desks,
    /// Whether everything was over at the end.
    ended: Arc<AtomicBool>,
}

impl Test {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(format!("ringway-broker-{unique}"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let desks = Arc::new([Desk::default(), Desk::default()]);
        let ended = Arc::default();
        Self {
            directory,
            desks,
            ended,
        }
    }

    fn start_with(
        &self,
        flags: &[(&str, &str)],
        silent: bool,
    ) -> Result<RunningBroker, StartError> {
        let ours = [
            ("listen", "127.0.0.1:0"),
            ("admin_listen", "127.0.0.1:0"),
            ("shards", "2"),
        ];
        let config = Config::load(None, ours.into_iter().chain(flags.iter().copied())).unwrap();
        let desks = Arc::clone(&self.desks);
        let ended = Arc::clone(&self.ended);
        let launch = move |setups: Vec<ShardEnds>| {
            let start = |setup| {
                let desks = Arc::clone(&desks);
                std::thread::spawn(move || shard(setup, desks, silent))
            };
            Ok(Launched {
                threads: setups.into_iter().map(start).collect(),
                after: Box::new(move || ended.store(true, Ordering::Relaxed)),
            })
        };
        let ground = Ground {
            metadata: self.directory.join("metadata"),
            launch: Box::new(launch),
        };
        let listeners = Listeners::bind(&config)?;
        RunningBroker::start_on(config, listeners, ground)
    }

    fn start(&self) -> RunningBroker {
        self.start_with(&[], false).unwrap()
    }

    /// Passes a request on as shard `shard` would, and waits for the answer.
    fn ask(&self, shard: u16, request: impl Into<Request>) -> Reply {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let token = Token {
            source: 9,
            correlation: CorrelationId(NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        let desk = &self.desks[usize::from(shard)];
        let request = ToController::Request {
            shard: ShardId(shard),
            token,
            request: request.into(),
        };
        desk.to_send.lock().unwrap().push_back(request);
        eventually(|| {
            let mut answers = desk.answers.lock().unwrap();
            let place = answers.iter().position(|(other, _)| *other == token)?;
            Some(answers.swap_remove(place).1)
        })
    }

    fn create(&self, shard: u16, name: &str, partitions: u32) -> Option<ErrorCode> {
        let request = CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            ..CreateTopicRequest::default()
        };
        match self.ask(shard, request) {
            Reply::CreateTopic(reply) => reply.fault.map(|fault| fault.code),
            other => panic!("{other:?}"),
        }
    }

    fn leader_epoch(&self, shard: usize, name: &str) -> Option<LeaderEpoch> {
        let image = self.desks[shard].image.lock().unwrap();
        let topic = image.as_ref()?.topic_named(name)?;
        Some(topic.partitions[0].leader_epoch)
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Waits for something that has to happen.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..100_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    panic!("it never happened");
}

/// The status code and body of a GET over a real socket.
fn get(broker: &RunningBroker, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&broker.ready().admin).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}

#[test]
fn topics_live_across_restarts_and_each_start_leads_in_a_new_epoch() {
    let test = Test::new();
    let broker = test.start();
    let cluster = test.desks[0]
        .image
        .lock()
        .unwrap()
        .as_ref()
        .unwrap()
        .cluster_id();
    assert_ne!(cluster, 0);
    assert_eq!(test.create(0, "a", 4), None);
    assert_eq!(test.create(1, "a", 4), Some(ErrorCode::TopicExists));
    assert_eq!(test.create(1, "b/c", 4), Some(ErrorCode::InvalidTopicName));
    for shard in 0..2 {
        let epoch = eventually(|| test.leader_epoch(shard, "a"));
        assert_eq!(epoch, LeaderEpoch(1));
    }
    assert!(!test.ended.load(Ordering::Relaxed));
    broker.stop();
    broker.wait().unwrap();
    assert!(test.ended.load(Ordering::Relaxed), "the ground is cleared");

    let broker = test.start();
    assert_eq!(test.leader_epoch(0, "a"), Some(LeaderEpoch(2)));
    let image = test.desks[1].image.lock().unwrap().clone().unwrap();
    assert_eq!(image.cluster_id(), cluster);
    let name = "a".to_owned();
    assert!(matches!(
        test.ask(1, DeleteTopicRequest { name }),
        Reply::DeleteTopic(reply) if reply.fault.is_none()
    ));
    eventually(|| test.leader_epoch(0, "a").is_none().then_some(()));
    broker.stop();
    broker.wait().unwrap();
}

#[test]
fn producer_ids_never_come_twice() {
    let test = Test::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let _broker = test.start();
        for shard in [0, 1, 0, 1] {
            match test.ask(shard, InitProducerRequest) {
                Reply::InitProducer(reply) => ids.push(reply.producer_id),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(ids.iter().all(|id| id.0 != 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
}

#[test]
fn http_tells_how_it_is() {
    let test = Test::new();
    let broker = test.start();
    test.create(0, "a", 3);
    assert_eq!(get(&broker, "/healthz"), (200, "serving\n".to_owned()));
    assert_eq!(get(&broker, "/nonsense").0, 404);

    let (code, text) = get(&broker, "/metrics");
    assert_eq!(code, 200);
    for line in [
        "ringway_serving 1",
        "ringway_metadata_topics 1",
        "ringway_metadata_partitions 3",
        "ringway_connections{shard=\"1\"} 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }

    let (code, text) = get(&broker, "/status");
    assert_eq!(code, 200);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["broker"]["state"], "serving");
    assert_eq!(status["broker"]["listen"], broker.ready().listen);
    assert_eq!(status["shards"][1]["responds"], true);
    // The cluster's identity, this start, the topic.
    assert_eq!(status["metadata"]["committed"], 3);
    assert_eq!(status["metadata"]["voters"], serde_json::json!([1]));
    assert_eq!(status["topics"][0]["name"], "a");
    let partitions = status["topics"][0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    for partition in partitions {
        assert_eq!(partition["state"], "ready");
        assert_eq!(partition["high_watermark"], 5);
        assert_eq!(partition["leader_epoch"], 1);
    }
    broker.stop();
    broker.wait().unwrap();
}

#[test]
fn a_failed_device_is_told_to_every_other_shard_and_shown() {
    let test = Test::new();
    let broker = test.start();
    let failed = ToController::DeviceFailed {
        shard: ShardId(0),
        reason: "EIO".to_owned(),
    };
    test.desks[0].to_send.lock().unwrap().push_back(failed);
    eventually(|| test.desks[1].device_failed.lock().unwrap().clone());
    assert_eq!(*test.desks[0].device_failed.lock().unwrap(), None);
    assert_eq!(
        get(&broker, "/healthz"),
        (503, "impaired: EIO\n".to_owned())
    );
    assert!(get(&broker, "/metrics").1.contains("ringway_serving 0"));
    assert_eq!(test.create(1, "a", 1), None, "metadata goes on");
}

#[test]
fn a_shard_that_fails_takes_the_broker_down_in_order() {
    let test = Test::new();
    let broker = test.start();
    let failed = ToController::Failed {
        shard: ShardId(1),
        reason: "no ring".to_owned(),
    };
    test.desks[1].to_send.lock().unwrap().push_back(failed);
    *test.desks[1].vanish.lock().unwrap() = true;
    let error = broker.wait().unwrap_err();
    let shard = ShardId(1);
    // It vanishes with or without having said why.
    let reason = match &error {
        RunError::Shard { reason, .. } => reason.clone(),
        other => panic!("{other}"),
    };
    assert_eq!(error, RunError::Shard { shard, reason });
}

#[test]
fn a_shard_that_vanishes_is_noticed() {
    let test = Test::new();
    let broker = test.start();
    *test.desks[0].vanish.lock().unwrap() = true;
    let error = broker.wait().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("shard 0 failed: its thread ended"),
        "{error}"
    );
}

#[test]
fn a_start_that_fails_says_why() {
    let test = Test::new();
    let failed = ToController::Failed {
        shard: ShardId(0),
        reason: "no ring".to_owned(),
    };
    test.desks[0].to_send.lock().unwrap().push_back(failed);
    let error = test.start_with(&[], true).unwrap_err();
    assert_eq!(error.to_string(), "shard 0 failed: no ring");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let test = Test::new();
    let broker = test.start();
    let listen = [("listen", broker.ready().listen.as_str())];
    let error = Test::new()
        .start_with(&listen, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("another broker"), "{error}");
    let admin = [("admin_listen", broker.ready().admin.as_str())];
    let error = Test::new()
        .start_with(&admin, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the admin server"), "{error}");
}

#[test]
fn damaged_metadata_refuses_the_start() {
    let test = Test::new();
    test.start();
    let metadata = test.directory.join("metadata");
    for entry in std::fs::read_dir(&metadata).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let error = test.start_with(&[], false).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn the_ready_line_is_one_json_object() {
    let test = Test::new();
    let broker = test.start();
    let line = broker.ready().to_json_line();
    assert!(
        line.starts_with("{\"event\":\"ready\",\"listen\":\"127.0.0.1:"),
        "{line}"
    );
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["shards"].as_array().unwrap().len(), 2);
    assert_eq!(value["pid"], std::process::id());
}
