//! The answers that any shard gives, and their size.

use std::time::Duration;

use ringway_wire::LeaderEpoch;
use ringway_wire::request::Head;

use super::*;
use crate::limits::{PARTITIONS_MAX, TOPICS_MAX};
use crate::meta::config::TopicConfig;
use crate::meta::topic::Partition;

fn topic(id: u128, name: &str, partitions: usize) -> Topic {
    Topic {
        id: TopicId(id),
        name: name.to_owned(),
        epoch: ringway_wire::MetadataEpoch(9),
        created_us: 5,
        replication_factor: 1,
        config: TopicConfig::default(),
        partitions: vec![Partition::new(NodeId(1)); partitions],
    }
}

fn image(topics: impl IntoIterator<Item = Topic>) -> Image {
    let mut image = Image::new(NodeId(1), 2);
    image.apply(&Delta::ClusterCreated { cluster_id: 77 });
    for topic in topics {
        image.apply(&Delta::TopicCreated(Box::new(topic)));
    }
    image
}

fn addresses() -> Addresses {
    Addresses {
        host: "h".to_owned(),
        port: 7_420,
        shard_ports: vec![7_421, 7_422],
    }
}

fn ask(image: &Image, names: &[&str]) -> MetadataReply {
    let topics = Some(names.iter().map(|name| (*name).to_owned()).collect());
    image.metadata_reply(&MetadataRequest { topics }, &addresses())
}

#[test]
fn hello_agrees_on_the_highest_common_version_or_says_why_not() {
    let image = image([]);
    let hello = |version_min, version_max| {
        let client = String::new();
        let request = HelloRequest {
            version_min,
            version_max,
            client,
        };
        image.hello_reply(&request, 1 << 20)
    };
    let agreed = hello(0, 9);
    assert_eq!(agreed.fault, None);
    assert_eq!(
        (
            agreed.version,
            agreed.node,
            agreed.cluster_id,
            agreed.batch_bytes_max
        ),
        (PROTOCOL_VERSION_MAX, NodeId(1), 77, 1 << 20)
    );
    for (min, max) in [(PROTOCOL_VERSION_MAX + 1, 9), (3, 2)] {
        let refused = hello(min, max).fault.expect("nothing in common");
        assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
    }
}

#[test]
fn metadata_names_owners_addresses_and_what_is_unknown() {
    let image = image([topic(1, "a", 2), topic(2, "b", 1)]);
    let all = image.metadata_reply(&MetadataRequest::default(), &addresses());
    let names: Vec<_> = all.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(all.brokers[0].shard_ports, [7_421, 7_422]);
    let first = &all.topics[0];
    for partition in &first.partitions {
        let at = TopicPartition {
            topic: first.topic,
            partition: partition.partition,
        };
        assert_eq!(Some(partition.shard), image.owner(at));
        assert_eq!(partition.leader_epoch, LeaderEpoch(1));
    }
    let some = ask(&image, &["b", "c"]);
    assert_eq!(some.topics[0].topic, TopicId(2));
    assert_eq!(some.topics[1].name, "c");
    assert_eq!(
        some.topics[1].fault.as_ref().unwrap().code,
        ErrorCode::UnknownTopic
    );
    assert_eq!(ask(&image, &[]).topics, []);
}

#[test]
fn a_full_clusters_metadata_fits_one_reply() {
    let each = PARTITIONS_MAX / TOPICS_MAX;
    let name = |n: usize| format!("{n:0>249}");
    let image = image((0..TOPICS_MAX).map(|n| topic(n as u128 + 1, &name(n), each)));
    let reply = image.metadata_reply(&MetadataRequest::default(), &addresses());
    assert_eq!(reply.fault, None);
    assert_eq!(reply.topics.len(), TOPICS_MAX);
    assert!(reply.to_head().len() <= FRAME_HEAD_BYTES_MAX);
}

#[test]
fn no_question_makes_a_reply_too_large_for_a_frame() {
    let image = image([topic(1, "a", 1_000)]);
    let long = "x".repeat(60_000);
    let many_blanks = vec![""; 1_000_000];
    let one_over_and_over = vec!["a"; 2_000];
    let long_unknown = vec![long.as_str(); 130];
    for names in [&many_blanks[..], &one_over_and_over[..], &long_unknown[..]] {
        let reply = ask(&image, names);
        let fault = reply.fault.as_ref().expect("it asks for too much");
        assert!(fault.message.contains("fewer topics"), "{fault}");
        assert!(reply.to_head().len() < 1_000);
    }
    assert!(ask(&image, &long_unknown[..100]).to_head().len() <= FRAME_HEAD_BYTES_MAX);
}

#[test]
fn describe_names_every_key_with_the_value_in_force() {
    let image = image([topic(1, "a", 1)]);
    let describe = |name: &str| {
        let name = name.to_owned();
        image.describe_topic(&DescribeTopicRequest { name })
    };
    let reply = describe("a");
    assert_eq!(reply.created_us, 5);
    let keys: Vec<_> = reply
        .config
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!(keys, TopicConfig::KEYS);
    let value = |key| {
        &reply
            .config
            .iter()
            .find(|entry| entry.key == key)
            .unwrap()
            .value
    };
    assert_eq!(value("retention_ms"), "604800000");
    assert_eq!(value("retention_bytes"), "unlimited");
    assert_eq!(value("min_in_sync"), "1");
    assert_eq!(describe("b").fault.unwrap().code, ErrorCode::UnknownTopic);
}

#[test]
fn an_owner_learns_what_it_has_to_follow() {
    let image = image([topic(1, "a", 5)]);
    let mine: Vec<_> = image.owned_by(ShardId(0)).collect();
    let others: Vec<_> = image.owned_by(ShardId(1)).collect();
    assert_eq!(mine.len() + others.len(), 5);
    assert!(mine.iter().all(|at| image.owner(*at) == Some(ShardId(0))));
    let config = image.partition_config(mine[0]).unwrap();
    assert_eq!(config.leader_epoch, LeaderEpoch(1));
    assert_eq!(config.segment_bytes, 256 << 20);
    assert_eq!(config.retention, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.retention_bytes, None);
}
