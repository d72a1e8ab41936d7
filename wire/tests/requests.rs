//! Requests and replies: every field comes out as it went in, one encoding per value, and heads that
//! are cut off, too long or lying are refused with the field's name.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use ringway_wire::batch::Codec;
use ringway_wire::frame::FrameDecoder;
use ringway_wire::limits::{CONFIG_ENTRIES_MAX, FRAME_HEAD_BYTES_MAX, METADATA_TOPICS_MAX};
use ringway_wire::request::*;
use ringway_wire::{
    CorrelationId, DecodeError, ErrorCode, Fault, LeaderEpoch, MetadataEpoch, NodeId, Offset,
    PartitionIndex, ProducerEpoch, ProducerId, ShardId, TopicId,
};

#[path = "support/samples.rs"]
mod samples;

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let code = (0..ErrorCode::ALL.len()).prop_map(|index| ErrorCode::ALL[index]);
    of((code, text()).prop_map(|(code, message)| Fault::new(code, message)))
}

fn config() -> impl Strategy<Value = Vec<ConfigEntry>> {
    vec(
        (text(), text()).prop_map(|(key, value)| ConfigEntry { key, value }),
        0..4,
    )
}

fn partitions() -> impl Strategy<Value = Vec<PartitionMetadata>> {
    let state = prop_oneof![Just(PartitionState::Active), Just(PartitionState::Retired)];
    let partition = (any::<(u32, u32, u16, u32)>(), state).prop_map(
        |((partition, leader, shard, epoch), state)| PartitionMetadata {
            partition: PartitionIndex(partition),
            leader: NodeId(leader),
            shard: ShardId(shard),
            leader_epoch: LeaderEpoch(epoch),
            state,
        },
    );
    vec(partition, 0..4)
}

fn offset_at() -> impl Strategy<Value = OffsetAt> {
    prop_oneof![
        Just(OffsetAt::Start),
        Just(OffsetAt::End),
        any::<i64>().prop_map(OffsetAt::AppendTimeUs),
    ]
}

fn trim_before() -> impl Strategy<Value = TrimBefore> {
    prop_oneof![
        any::<u64>().prop_map(|offset| TrimBefore::Offset(Offset(offset))),
        any::<i64>().prop_map(TrimBefore::AppendTimeUs),
    ]
}

fn data_request() -> impl Strategy<Value = Request> {
    let acks = prop_oneof![Just(Acks::None), Just(Acks::Leader), Just(Acks::All)];
    let at = (any::<u128>(), any::<u32>());
    prop_oneof![
        (at, acks, any::<(bool, u32)>()).prop_map(
            |((topic, partition), acks, (trace, timeout_ms))| {
                Request::Produce(ProduceRequest {
                    topic: TopicId(topic),
                    partition: PartitionIndex(partition),
                    acks,
                    trace,
                    timeout_ms,
                })
            }
        ),
        (at, any::<(u64, Option<u32>, u32, u32, u32)>()).prop_map(
            |((topic, partition), (offset, last_epoch, bytes_max, records_max, wait_ms))| {
                Request::Fetch(FetchRequest {
                    topic: TopicId(topic),
                    partition: PartitionIndex(partition),
                    offset: Offset(offset),
                    last_epoch: last_epoch.map(LeaderEpoch),
                    bytes_max,
                    records_max,
                    wait_ms,
                })
            }
        ),
        (at, offset_at()).prop_map(|((topic, partition), at)| {
            Request::ListOffsets(ListOffsetsRequest {
                topic: TopicId(topic),
                partition: PartitionIndex(partition),
                at,
            })
        }),
        Just(Request::InitProducer(InitProducerRequest)),
        (at, trim_before()).prop_map(|((topic, partition), before)| {
            Request::Trim(TrimRequest {
                topic: TopicId(topic),
                partition: PartitionIndex(partition),
                before,
            })
        }),
    ]
}

fn admin_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (any::<(u16, u16)>(), text()).prop_map(|((version_min, version_max), client)| {
            Request::Hello(HelloRequest {
                version_min,
                version_max,
                client,
            })
        }),
        of(vec(text(), 0..5)).prop_map(|topics| Request::Metadata(MetadataRequest { topics })),
        (text(), any::<(u32, u16)>(), config()).prop_map(
            |(name, (partitions, replication_factor), config)| {
                Request::CreateTopic(CreateTopicRequest {
                    name,
                    partitions,
                    replication_factor,
                    config,
                })
            }
        ),
        (text(), config())
            .prop_map(|(name, config)| Request::AlterTopic(AlterTopicRequest { name, config })),
        text().prop_map(|name| Request::DeleteTopic(DeleteTopicRequest { name })),
        (text(), any::<u32>()).prop_map(|(name, partitions)| {
            Request::AddPartitions(AddPartitionsRequest { name, partitions })
        }),
        text().prop_map(|name| Request::DescribeTopic(DescribeTopicRequest { name })),
    ]
}

fn data_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (
            fault(),
            any::<(u64, u64, i64, u64, Option<(u64, u64, u64, u64)>)>(),
            prop_oneof![Just(Durability::Memory), Just(Durability::Fsync)],
        )
            .prop_map(
                |(
                    fault,
                    (topic_epoch, base_offset, append_time_us, log_start, stages),
                    durability,
                )| {
                    Reply::Produce(ProduceReply {
                        fault,
                        topic_epoch: MetadataEpoch(topic_epoch),
                        base_offset: Offset(base_offset),
                        append_time_us,
                        log_start: Offset(log_start),
                        durability,
                        stages: stages.map(|(received_ns, queued_ns, written_ns, durable_ns)| {
                            StageTimes {
                                received_ns,
                                queued_ns,
                                written_ns,
                                durable_ns,
                            }
                        }),
                    })
                }
            ),
        (fault(), any::<(u64, u32, u64, u64, u64)>()).prop_map(
            |(fault, (topic_epoch, leader_epoch, log_start, high_watermark, safe_offset))| {
                Reply::Fetch(FetchReply {
                    fault,
                    topic_epoch: MetadataEpoch(topic_epoch),
                    leader_epoch: LeaderEpoch(leader_epoch),
                    log_start: Offset(log_start),
                    high_watermark: Offset(high_watermark),
                    safe_offset: Offset(safe_offset),
                })
            }
        ),
        (fault(), any::<(u64, u32, u64, u64, u64, u64)>()).prop_map(
            |(fault, (topic_epoch, leader_epoch, offset, log_start, high_watermark, log_bytes))| {
                Reply::ListOffsets(ListOffsetsReply {
                    fault,
                    topic_epoch: MetadataEpoch(topic_epoch),
                    leader_epoch: LeaderEpoch(leader_epoch),
                    offset: Offset(offset),
                    log_start: Offset(log_start),
                    high_watermark: Offset(high_watermark),
                    log_bytes,
                })
            }
        ),
        (fault(), any::<(u64, u64)>()).prop_map(|(fault, (topic_epoch, log_start))| {
            Reply::Trim(TrimReply {
                fault,
                topic_epoch: MetadataEpoch(topic_epoch),
                log_start: Offset(log_start),
            })
        }),
        (fault(), any::<(u64, u16)>()).prop_map(|(fault, (producer_id, producer_epoch))| {
            Reply::InitProducer(InitProducerReply {
                fault,
                producer_id: ProducerId(producer_id),
                producer_epoch: ProducerEpoch(producer_epoch),
            })
        }),
    ]
}

fn metadata_reply() -> impl Strategy<Value = Reply> {
    let broker = (any::<u32>(), text(), any::<u16>(), vec(any::<u16>(), 0..4)).prop_map(
        |(node, host, port, shard_ports)| BrokerMetadata {
            node: NodeId(node),
            host,
            port,
            shard_ports,
        },
    );
    let timestamp = prop_oneof![
        Just(TimestampSource::Producer),
        Just(TimestampSource::Append)
    ];
    let how = ((0..3_usize).prop_map(|index| Codec::ALL[index]), timestamp);
    let topic = (fault(), text(), any::<(u128, u64)>(), how, partitions()).prop_map(
        |(fault, name, (topic, epoch), (codec, timestamp), partitions)| TopicMetadata {
            fault,
            name,
            topic: TopicId(topic),
            epoch: MetadataEpoch(epoch),
            codec,
            timestamp,
            partitions,
        },
    );
    (fault(), vec(broker, 0..3), vec(topic, 0..3)).prop_map(|(fault, brokers, topics)| {
        Reply::Metadata(MetadataReply {
            fault,
            brokers,
            topics,
        })
    })
}

fn admin_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (fault(), any::<(u16, u32, u128, u32)>()).prop_map(
            |(fault, (version, node, cluster_id, batch_bytes_max))| {
                let node = NodeId(node);
                Reply::Hello(HelloReply {
                    fault,
                    version,
                    node,
                    cluster_id,
                    batch_bytes_max,
                })
            }
        ),
        (fault(), any::<(u128, u64)>()).prop_map(|(fault, (topic, epoch))| {
            let (topic, epoch) = (TopicId(topic), MetadataEpoch(epoch));
            Reply::CreateTopic(CreateTopicReply {
                fault,
                topic,
                epoch,
            })
        }),
        fault().prop_map(|fault| Reply::AlterTopic(TopicReply { fault })),
        fault().prop_map(|fault| Reply::DeleteTopic(TopicReply { fault })),
        (fault(), any::<u64>()).prop_map(|(fault, epoch)| {
            let epoch = MetadataEpoch(epoch);
            Reply::AddPartitions(AddPartitionsReply { fault, epoch })
        }),
        (
            fault(),
            any::<(u128, u64, i64, u16)>(),
            config(),
            partitions()
        )
            .prop_map(
                |(fault, (topic, epoch, created_us, replication_factor), config, partitions)| {
                    Reply::DescribeTopic(DescribeTopicReply {
                        fault,
                        topic: TopicId(topic),
                        epoch: MetadataEpoch(epoch),
                        created_us,
                        replication_factor,
                        config,
                        partitions,
                    })
                }
            ),
    ]
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in(
        request in prop_oneof![data_request(), admin_request()],
        correlation in any::<u32>(),
    ) {
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.push(&request.to_frame(CorrelationId(correlation), 0));
        let frame = decoder.next_frame().unwrap().unwrap();
        prop_assert_eq!(frame.header.correlation, CorrelationId(correlation));
        prop_assert_eq!(frame.header.kind, request.kind().number());
        let kind = RequestKind::from_number(frame.header.kind).unwrap();
        prop_assert_eq!(Request::from_head(kind, frame.head), Ok(request));
    }

    #[test]
    fn replies_come_out_as_they_went_in(
        reply in prop_oneof![data_reply(), metadata_reply(), admin_reply()],
        correlation in any::<u32>(),
    ) {
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.push(&reply.to_frame(CorrelationId(correlation), 0));
        let frame = decoder.next_frame().unwrap().unwrap();
        prop_assert_eq!(frame.header.correlation, CorrelationId(correlation));
        prop_assert_eq!(frame.header.kind, reply.kind().number() | 0x8000);
        prop_assert_eq!(Reply::from_head(reply.kind(), frame.head), Ok(reply));
    }
}

#[test]
fn every_truncation_and_every_byte_too_many_is_found() {
    let heads = samples::requests()
        .into_iter()
        .map(|request| (request.kind(), request.to_head()));
    for (kind, mut head) in heads {
        for left in 0..head.len() {
            let refused = Request::from_head(kind, &head[..left]).unwrap_err();
            assert!(
                matches!(refused, DecodeError::Truncated { .. }),
                "{kind:?}: {refused}"
            );
        }
        head.push(0);
        let read = Request::from_head(kind, &head);
        match kind {
            RequestKind::Hello => assert!(read.is_ok(), "hello may grow"),
            _ => assert_eq!(read, Err(DecodeError::Trailing(1)), "{kind:?}"),
        }
    }
    for reply in samples::replies() {
        let (kind, mut head) = (reply.kind(), reply.to_head());
        for left in 0..head.len() {
            let refused = Reply::from_head(kind, &head[..left]).unwrap_err();
            assert!(
                matches!(refused, DecodeError::Truncated { .. }),
                "{kind:?}: {refused}"
            );
        }
        head.push(0);
        let read = Reply::from_head(kind, &head);
        match kind {
            RequestKind::Hello => assert!(read.is_ok(), "hello may grow"),
            _ => assert_eq!(read, Err(DecodeError::Trailing(1)), "{kind:?}"),
        }
    }
}

/// A kind, the words of the refusal, and what makes the sample illegal.
type Case = (RequestKind, &'static str, fn(&mut Vec<u8>));

#[test]
fn illegal_values_are_refused_by_name() {
    let refused = |kind, change: fn(&mut Vec<u8>)| {
        let requests = samples::requests();
        let request = requests
            .iter()
            .find(|request| request.kind() == kind)
            .unwrap();
        let mut head = request.to_head();
        change(&mut head);
        Request::from_head(kind, &head)
            .expect_err("it was accepted")
            .to_string()
    };
    let cases: &[Case] = &[
        (RequestKind::Produce, "acks can't be 3", |head| head[20] = 3),
        (RequestKind::Produce, "trace can't be 2", |head| {
            head[21] = 2
        }),
        (RequestKind::Fetch, "last_epoch can't be 2", |head| {
            head[28] = 2
        }),
        // No epoch, but a number where it would be.
        (RequestKind::Fetch, "last_epoch can't be 7", |head| {
            head[28] = 0
        }),
        (RequestKind::ListOffsets, "at can't be 3", |head| {
            head[20] = 3
        }),
        (RequestKind::ListOffsets, "time_us can't be", |head| {
            head[20] = 1
        }),
        (RequestKind::Trim, "at can't be 2", |head| head[20] = 2),
        (RequestKind::Metadata, "topics can't be 2", |head| {
            head[0] = 2
        }),
        (RequestKind::Metadata, "topic is not UTF-8", |head| {
            head[7] = 0xff
        }),
        (RequestKind::CreateTopic, "name is not UTF-8", |head| {
            head[2] = 0xff
        }),
    ];
    for &(kind, expected, change) in cases {
        let refusal = refused(kind, change);
        assert!(
            refusal.contains(expected),
            "{kind:?}: wanted {expected:?}, got {refusal:?}"
        );
    }
}

#[test]
fn lists_in_requests_have_an_end() {
    let topics = |count| {
        let topics = Some(vec![String::new(); count]);
        let head = MetadataRequest { topics }.to_head();
        MetadataRequest::from_head(&head).map(|request| request.topics.unwrap().len())
    };
    assert_eq!(topics(METADATA_TOPICS_MAX), Ok(METADATA_TOPICS_MAX));
    let value = METADATA_TOPICS_MAX as u64 + 1;
    let field = "topics";
    assert_eq!(
        topics(METADATA_TOPICS_MAX + 1),
        Err(DecodeError::Illegal { field, value })
    );
    let config = vec![ConfigEntry::default(); CONFIG_ENTRIES_MAX + 1];
    let head = AlterTopicRequest {
        name: String::new(),
        config,
    }
    .to_head();
    let refusal = AlterTopicRequest::from_head(&head).unwrap_err().to_string();
    assert_eq!(refusal, "config can't be 257");
}

#[test]
fn a_code_from_a_newer_broker_is_an_internal_error_with_its_message() {
    let fault = Some(Fault::new(ErrorCode::Overloaded, "of the future"));
    let mut head = TopicReply { fault }.to_head();
    head[..2].copy_from_slice(&60_000_u16.to_le_bytes());
    let read = TopicReply::from_head(&head).unwrap().fault.unwrap();
    assert_eq!(read, Fault::new(ErrorCode::Internal, "of the future"));
}

#[test]
fn text_above_the_limit_is_cut_at_a_character() {
    let name = "é".repeat(40_000);
    let head = DeleteTopicRequest { name }.to_head();
    let read = DeleteTopicRequest::from_head(&head).unwrap();
    assert_eq!(read.name, "é".repeat(32_767));
}

#[test]
fn every_kind_can_fail() {
    for &kind in RequestKind::ALL {
        assert_eq!(RequestKind::from_number(kind.number()), Some(kind));
        let fault = Fault::new(ErrorCode::ShuttingDown, "later");
        let reply = Reply::failed(kind, fault.clone());
        assert_eq!(reply.kind(), kind);
        let head = reply.to_head();
        assert_eq!(Reply::from_head(kind, &head), Ok(reply));
        let mut expected = fault.code.number().to_le_bytes().to_vec();
        expected.extend_from_slice(b"\x05\0later");
        assert!(head.starts_with(&expected), "the fault stands first");
    }
    assert_eq!(RequestKind::from_number(0), None);
    assert_eq!(RequestKind::from_number(u16::MAX), None);
}

#[test]
fn a_reply_above_the_limit_becomes_an_error() {
    let topic = TopicMetadata {
        partitions: vec![PartitionMetadata::default(); 100_000],
        ..TopicMetadata::default()
    };
    let topics = vec![topic; 6];
    let reply = Reply::Metadata(MetadataReply {
        topics,
        ..MetadataReply::default()
    });
    assert!(reply.to_head().len() > FRAME_HEAD_BYTES_MAX);
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&reply.to_frame(CorrelationId(1), 0));
    let frame = decoder.next_frame().unwrap().unwrap();
    let read = MetadataReply::from_head(frame.head).unwrap();
    assert_eq!(read.fault.unwrap().code, ErrorCode::ReplyTooLarge);
}
