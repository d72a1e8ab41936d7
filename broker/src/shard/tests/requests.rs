//! What a well-behaved client gets: durable appends, reads, forwarding, order, an orderly end.

use std::time::Duration;

use ringway_engine::meta::Delta;
use ringway_wire::request::{
    Acks, InitProducerReply, InitProducerRequest, MetadataRequest, Reply, Request,
};
use ringway_wire::{ErrorCode, ProducerId, TopicId};

use super::rig::{Client, Options, Rig, batch, fetch, produce, topic, wait_until};
use crate::config::Idle;
use crate::shard_proxy::{ScrapeReply, ToController, ToShard};
use crate::testing::scratch;

#[test]
fn what_is_produced_is_durable_and_read_again_after_a_restart() {
    let scratch = scratch("produce");
    let values: Vec<Vec<u8>> = (0..200_u32).map(|n| n.to_le_bytes().repeat(50)).collect();
    let rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::hello(rig.ports[0]);
    for (index, value) in values.iter().enumerate() {
        let reply = client.produce(1, &[value]);
        assert_eq!((reply.fault, reply.base_offset.0), (None, index as u64));
    }
    assert_eq!(client.read_all(1), values);
    assert!(client.read_all(0).is_empty());
    rig.stop();
    for shards in [1, 2] {
        let leader_epoch = 1 + u32::from(shards);
        let options = Options {
            shards,
            leader_epoch,
            ..Options::default()
        };
        let rig = Rig::new(scratch.path(), options);
        let mut client = Client::hello(rig.shared);
        assert_eq!(client.read_all(1), values, "with {shards} shards");
        rig.stop();
    }
}

#[test]
fn a_request_on_any_port_is_answered() {
    let scratch = scratch("forward");
    let rig = Rig::new(
        scratch.path(),
        Options {
            shards: 3,
            partitions: 6,
            ..Options::default()
        },
    );
    let mut wanted = 0;
    for address in [
        rig.ports[0],
        rig.ports[1],
        rig.ports[2],
        rig.shared,
        rig.shared,
    ] {
        let mut client = Client::hello(address);
        for partition in 0..6 {
            let reply = client.produce(partition, &[b"here"]);
            assert_eq!((reply.fault, reply.base_offset.0), (None, wanted));
        }
        wanted += 1;
    }
    let mut client = Client::hello(rig.ports[0]);
    for partition in 0..6 {
        assert_eq!(client.read_all(partition).len() as u64, wanted);
    }
    let forwarded: u64 = rig
        .metrics
        .iter()
        .map(|one| one.requests_forwarded.get())
        .sum();
    assert!(forwarded > 0, "some went to another shard");
    let accepted: Vec<u64> = rig
        .metrics
        .iter()
        .map(|one| one.connections_accepted.get())
        .collect();
    assert_eq!(accepted.iter().sum::<u64>(), 6);
    rig.stop();
}

#[test]
fn a_waiting_fetch_is_woken_by_a_producer_on_another_shard() {
    let scratch = scratch("wake");
    let rig = Rig::new(
        scratch.path(),
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    let owner = rig.owner(0);
    let mut consumer = Client::hello(rig.ports[1 - owner]);
    let waiting = consumer.send(&fetch(0, 0, 30_000), &[]);
    wait_until("the fetch waits", || {
        rig.metrics[owner].waiting_fetches.get() == 1
    });
    let mut producer = Client::hello(rig.ports[owner]);
    producer.produce(0, &[b"news"]);
    let (correlation, reply, data) = consumer.next_reply().unwrap();
    assert_eq!(correlation, waiting);
    assert!(matches!(reply, Reply::Fetch(_)) && !data.is_empty());
    // A consumer that goes away is forgotten, on the other shard too.
    consumer.send(&fetch(0, 1, 30_000), &[]);
    wait_until("the fetch waits", || {
        rig.metrics[owner].waiting_fetches.get() == 1
    });
    drop(consumer);
    wait_until("nobody waits", || {
        rig.metrics[owner].waiting_fetches.get() == 0
    });
    rig.stop();
}

#[test]
fn pipelined_batches_keep_their_order() {
    for idle in [Idle::Park, Idle::BusyPoll] {
        let scratch = scratch("order");
        let rig = Rig::new(
            scratch.path(),
            Options {
                shards: 2,
                idle,
                ..Options::default()
            },
        );
        let mut client = Client::hello(rig.shared);
        let count = 500_u32;
        for number in 0..count {
            let acks = if number % 3 == 0 {
                Acks::None
            } else {
                Acks::All
            };
            let value = number.to_le_bytes().repeat(1 + number as usize % 700);
            client.send(&produce(number % 2, acks), &batch(&[&value]));
        }
        for _ in (0..count).filter(|number| number % 3 != 0) {
            let (_, reply, _) = client.next_reply().unwrap();
            assert!(matches!(reply, Reply::Produce(reply) if reply.fault.is_none()));
        }
        for partition in 0..2 {
            let values = client.read_all(partition);
            let numbers: Vec<u32> = values
                .iter()
                .map(|value| u32::from_le_bytes(value[..4].try_into().unwrap()))
                .collect();
            let sent: Vec<u32> = (0..count)
                .filter(|number| number % 2 == partition)
                .collect();
            assert_eq!(numbers, sent);
        }
        rig.stop();
    }
}

#[test]
fn large_batches_pass_whole() {
    let scratch = scratch("large");
    let rig = Rig::new(
        scratch.path(),
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    let mut client = Client::hello(rig.ports[0]);
    for partition in 0..2 {
        let large: Vec<u8> = (0..3_900_000_u32).map(|n| (n / 11) as u8).collect();
        let reply = client.produce(partition, &[&large, b"small", &large]);
        assert_eq!(reply.fault, None);
        assert_eq!(
            client.read_all(partition),
            [large.clone(), b"small".to_vec(), large]
        );
    }
    rig.stop();
}

#[test]
fn metadata_changes_reach_shards_and_the_controller_answers() {
    let scratch = scratch("metadata");
    let mut rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::hello(rig.ports[0]);
    let id = TopicId(0xf00d);
    let created = Delta::TopicCreated(Box::new(topic(id, 2)));
    rig.shards[0].send(ToShard::Deltas(vec![created])).unwrap();
    let all = Request::Metadata(MetadataRequest { topics: None });
    let (_, reply, _) = client.ask(&all, &[]);
    assert!(matches!(reply, Reply::Metadata(reply) if reply.topics.len() == 2));
    let (sender, status) = ScrapeReply::new();
    rig.shards[0].send(ToShard::Scrape(sender)).unwrap();
    assert_eq!(status.blocking_recv().unwrap().partitions.len(), 6);

    let correlation = client.send(&Request::InitProducer(InitProducerRequest), &[]);
    let ToController::Request {
        shard,
        token,
        request,
    } = rig.report()
    else {
        panic!("the controller is asked");
    };
    assert!(matches!(request, Request::InitProducer(_)));
    let reply = InitProducerReply {
        producer_id: ProducerId(9),
        ..InitProducerReply::default()
    };
    let answer = ToShard::Answer {
        token,
        reply: Reply::InitProducer(reply),
    };
    rig.shards[usize::from(shard.0)].send(answer).unwrap();
    let (answered, reply, _) = client.next_reply().unwrap();
    assert_eq!(answered, correlation);
    assert!(matches!(reply, Reply::InitProducer(reply) if reply.producer_id.0 == 9));

    client.produce(0, &[b"gone soon"]);
    rig.shards[0]
        .send(ToShard::Deltas(vec![Delta::TopicDeleted {
            id: super::rig::TOPIC,
        }]))
        .unwrap();
    wait_until("the topic is gone", || {
        client.produce(0, &[b"x"]).fault.map(|fault| fault.code) == Some(ErrorCode::UnknownTopic)
    });
    let directory = scratch
        .path()
        .join("topics")
        .join(super::rig::TOPIC.to_string());
    wait_until("its directory is gone", || !directory.exists());
    rig.stop();
}

#[test]
fn a_failed_device_stops_appends_and_reads_go_on() {
    let scratch = scratch("device-failed");
    let rig = Rig::new(
        scratch.path(),
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    let mut client = Client::hello(rig.shared);
    for partition in 0..2 {
        assert_eq!(client.produce(partition, &[b"before"]).fault, None);
    }
    for shard in &rig.shards {
        shard
            .send(ToShard::DeviceFailed {
                reason: "no flush".to_owned(),
            })
            .unwrap();
    }
    for partition in 0..2 {
        let fault = client.produce(partition, &[b"after"]).fault.unwrap();
        assert_eq!(fault.code, ErrorCode::StorageFailed);
        assert_eq!(client.read_all(partition), [b"before".to_vec()]);
    }
    rig.stop();
}

#[test]
fn stopping_answers_what_was_accepted() {
    let scratch = scratch("stop");
    let rig = Rig::new(
        scratch.path(),
        Options {
            shards: 2,
            ..Options::default()
        },
    );
    let mut waiting = Client::hello(rig.ports[0]);
    waiting.send(&fetch(0, 0, 30_000), &[]);
    let mut client = Client::hello(rig.ports[0]);
    client.produce(1, &[b"x"]);
    for _ in 0..50 {
        client.send(&produce(1, Acks::All), &batch(&[&[7; 5_000]]));
    }
    wait_until("all came in", || rig.metrics[0].requests.get() >= 54);
    let begin = std::time::Instant::now();
    rig.stop();
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "a stop takes seconds"
    );
    let mut answered = 0;
    while let Some((_, Reply::Produce(reply), _)) = client.next_reply() {
        assert_eq!(reply.fault, None);
        answered += 1;
    }
    assert_eq!(answered, 50);
    let rig = Rig::new(
        scratch.path(),
        Options {
            leader_epoch: 2,
            ..Options::default()
        },
    );
    assert_eq!(Client::hello(rig.shared).read_all(1).len(), 51);
    rig.stop();
}
