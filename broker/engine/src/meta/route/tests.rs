//! Owners, and where each kind of request goes.

use ringway_wire::request::{
    AddPartitionsRequest, AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest,
    DescribeTopicRequest, HelloRequest, InitProducerRequest, MetadataRequest,
};
use ringway_wire::{ErrorCode, NodeId, PartitionIndex};

use super::*;
use crate::meta::{Command, Metadata};

fn state(partitions: u32) -> Metadata {
    let mut state = Metadata::default();
    let register = |node| Command::RegisterBroker {
        node: NodeId(node),
        incarnation: 1,
    };
    state.apply(&register(1), 1).unwrap();
    let topic = Command::CreateTopic {
        id: TopicId(7),
        name: "t".to_owned(),
        partitions,
        replication_factor: 0,
        config: Vec::new(),
        created_us: 0,
    };
    state.apply(&topic, 2).unwrap();
    state
}

fn produce(topic: u128, partition: u32) -> Request {
    Request::Produce(ProduceRequest {
        topic: TopicId(topic),
        partition: PartitionIndex(partition),
        ..ProduceRequest::default()
    })
}

#[test]
fn neighbours_go_to_neighbouring_shards_and_topics_start_anywhere() {
    for shards in [1, 2, 3, 8, 64] {
        let mut starts = vec![0; usize::from(shards)];
        for topic in 0..10_000 {
            let at = |partition| TopicPartition {
                topic: TopicId(topic),
                partition: PartitionIndex(partition),
            };
            let first = shard_of(at(0), shards);
            starts[usize::from(first.0)] += 1;
            assert_eq!(shard_of(at(1), shards).0, (first.0 + 1) % shards);
            assert_eq!(shard_of(at(u32::from(shards)), shards), first);
            assert!(shard_of(at(u32::MAX), shards).0 < shards);
        }
        let fair = 10_000 / usize::from(shards);
        for count in starts {
            assert!(
                (fair / 2..=fair * 2).contains(&count),
                "{count} of {fair} on one of {shards}"
            );
        }
    }
}

#[test]
fn data_goes_to_the_owner() {
    let image = state(4).image(NodeId(1), 2);
    for partition in 0..4 {
        let owner = shard_of(
            TopicPartition {
                topic: TopicId(7),
                partition: PartitionIndex(partition),
            },
            2,
        );
        let other = ShardId(1 - owner.0);
        let (topic, partition) = (TopicId(7), PartitionIndex(partition));
        let requests = [
            produce(7, partition.0),
            Request::Fetch(FetchRequest {
                topic,
                partition,
                ..FetchRequest::default()
            }),
            Request::ListOffsets(ListOffsetsRequest {
                topic,
                partition,
                ..ListOffsetsRequest::default()
            }),
            Request::Trim(TrimRequest {
                topic,
                partition,
                ..TrimRequest::default()
            }),
        ];
        for request in requests {
            assert_eq!(route(&image, owner, &request), Route::Here);
            assert_eq!(route(&image, other, &request), Route::Shard(owner));
        }
    }
}

#[test]
fn what_any_shard_knows_it_answers_and_changes_go_to_the_controller() {
    let image = state(1).image(NodeId(1), 2);
    let here: [Request; 3] = [
        HelloRequest::default().into(),
        MetadataRequest::default().into(),
        DescribeTopicRequest::default().into(),
    ];
    let controller: [Request; 5] = [
        CreateTopicRequest::default().into(),
        AlterTopicRequest::default().into(),
        DeleteTopicRequest::default().into(),
        AddPartitionsRequest::default().into(),
        InitProducerRequest.into(),
    ];
    for shard in [ShardId(0), ShardId(1)] {
        for request in &here {
            assert_eq!(route(&image, shard, request), Route::Here);
        }
        for request in &controller {
            assert_eq!(route(&image, shard, request), Route::Controller);
        }
    }
}

fn code_and_epoch(route: Route) -> (ErrorCode, MetadataEpoch) {
    let Route::Answer(reply) = route else {
        panic!("{route:?} is no answer");
    };
    let (fault, epoch) = match *reply {
        Reply::Produce(reply) => (reply.fault, reply.topic_epoch),
        Reply::Fetch(reply) => (reply.fault, reply.topic_epoch),
        Reply::ListOffsets(reply) => (reply.fault, reply.topic_epoch),
        other => panic!("{other:?} answers nothing that was asked"),
    };
    (
        fault.expect("an answer from the router is a refusal").code,
        epoch,
    )
}

#[test]
fn what_nobody_can_answer_is_refused_in_the_words_of_its_kind() {
    let image = state(4).image(NodeId(1), 2);
    let unknown = route(&image, ShardId(0), &produce(8, 0));
    assert_eq!(
        code_and_epoch(unknown),
        (ErrorCode::UnknownTopic, MetadataEpoch(0))
    );
    let beyond = route(&image, ShardId(0), &produce(7, 4));
    assert_eq!(
        code_and_epoch(beyond),
        (ErrorCode::UnknownPartition, MetadataEpoch(2))
    );
    let fetch = Request::Fetch(FetchRequest::default());
    assert!(matches!(
        route(&image, ShardId(0), &fetch),
        Route::Answer(reply) if matches!(*reply, Reply::Fetch(_))
    ));
    let list = Request::ListOffsets(ListOffsetsRequest::default());
    assert!(matches!(
        route(&image, ShardId(0), &list),
        Route::Answer(reply) if matches!(*reply, Reply::ListOffsets(_))
    ));
    let trim = Request::Trim(TrimRequest::default());
    assert!(matches!(
        route(&image, ShardId(0), &trim),
        Route::Answer(reply) if matches!(*reply, Reply::Trim(_))
    ));
}

#[test]
fn another_brokers_partition_is_refused_here() {
    let image = state(4).image(NodeId(2), 2);
    let elsewhere = route(&image, ShardId(0), &produce(7, 0));
    assert_eq!(
        code_and_epoch(elsewhere),
        (ErrorCode::NotLeader, MetadataEpoch(2))
    );
}
