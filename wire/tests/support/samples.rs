//! One of each thing that has golden bytes: batches, requests and replies with every field set.
//! Also compiled into the crate that builds the formats with other features of rkyv.

#![allow(dead_code, reason = "each user takes what it needs")]

use ringway_wire::batch::{
    BatchBuilder, BatchBytes, BatchLimits, Codec, Compressor, Header, LeaderStamp, ProducerStamp,
    RecordRef, encode_headers, stamp,
};
use ringway_wire::request::*;
use ringway_wire::{
    ErrorCode, Fault, LeaderEpoch, LogId, MetadataEpoch, NodeId, Offset, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, ShardId, TopicId,
};

/// What the sample batches were stamped with.
pub(crate) const LEADER: LeaderStamp = LeaderStamp {
    log_id: LogId(0x1122_3344_5566_7788),
    base_offset: Offset(1_000_000),
    append_time_us: 1_700_000_000_123_456,
    leader_epoch: LeaderEpoch(7),
    prev_header_crc: 0xcafe_f00d,
};
const PRODUCER: ProducerStamp = ProducerStamp {
    id: ProducerId(0x0102_0304_0506_0708),
    epoch: ProducerEpoch(3),
    first_sequence: Sequence(41),
};
const TOPIC: TopicId = TopicId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

/// Three records: one with everything, one with an empty value alone, one with an empty key alone.
pub(crate) fn produced_batch() -> BatchBytes {
    let headers = encode_headers([
        Header {
            name: "content",
            value: b"text",
        },
        Header {
            name: "",
            value: b"",
        },
    ]);
    let headers = headers.expect("they are short");
    let mut builder = BatchBuilder::new(BatchLimits::default());
    let records = [
        RecordRef {
            key: Some(b"key"),
            value: Some(b"hello, ring"),
            headers: &headers,
            tag: Some(b"greeting"),
            timestamp_us: 1_699_999_999_000_000,
        },
        RecordRef {
            value: Some(b""),
            timestamp_us: 1_699_999_998_999_999,
            ..RecordRef::default()
        },
        RecordRef {
            key: Some(b""),
            timestamp_us: 1_699_999_999_000_009,
            ..RecordRef::default()
        },
    ];
    for record in &records {
        builder.push(record).expect("it fits");
    }
    builder.seal(PRODUCER).expect("there are records").bytes
}

/// Two typed values with zeros between them.
pub(crate) fn produced_typed_batch() -> BatchBytes {
    let mut builder = BatchBuilder::typed(BatchLimits::default(), 0xfeed_beef_0bad_cafe);
    for (value, timestamp_us) in [(&[0xaa; 20][..], 5), (&[0xbb; 16][..], 4)] {
        let record = RecordRef {
            value: Some(value),
            timestamp_us,
            ..RecordRef::default()
        };
        builder.push(&record).expect("it fits");
    }
    builder
        .seal(ProducerStamp::default())
        .expect("there are records")
        .bytes
}

/// The same line often, each with key and tag: something to compress.
pub(crate) fn repeated_records(builder: &mut BatchBuilder) {
    let headers = encode_headers([Header {
        name: "content",
        value: b"text",
    }]);
    let headers = headers.expect("they are short");
    for index in 0..12 {
        let record = RecordRef {
            key: (index % 3 == 0).then_some(&b"key"[..]),
            value: Some(b"the same words over and over again, and then once more"),
            headers: if index == 5 { &headers } else { &[] },
            tag: (index % 4 == 0).then_some(&b"greeting"[..]),
            timestamp_us: 1_699_999_999_000_000 + index,
        };
        builder.push(&record).expect("it fits");
    }
}

/// The repeated records, compressed; `layout` makes them typed.
pub(crate) fn packed_batch(codec: Codec, layout: Option<u64>) -> BatchBytes {
    let mut builder = match layout {
        Some(layout) => BatchBuilder::typed(BatchLimits::default(), layout),
        None => BatchBuilder::new(BatchLimits::default()),
    };
    repeated_records(&mut builder);
    let sealed = builder.seal_with(PRODUCER, codec, &mut Compressor::new());
    sealed.expect("there are records").bytes
}

/// As a leader stamps it.
pub(crate) fn stamped(mut batch: BatchBytes) -> BatchBytes {
    stamp(&mut batch, &LEADER);
    batch
}

fn config() -> Vec<ConfigEntry> {
    let entry = |key: &str, value: &str| ConfigEntry {
        key: key.into(),
        value: value.into(),
    };
    vec![
        entry("durability", "fsync"),
        entry("retention_ms", "604800000"),
    ]
}

fn partitions() -> Vec<PartitionMetadata> {
    let partition = |index, shard, epoch, state| PartitionMetadata {
        partition: PartitionIndex(index),
        leader: NodeId(1),
        shard: ShardId(shard),
        leader_epoch: LeaderEpoch(epoch),
        state,
    };
    vec![
        partition(0, 1, 4, PartitionState::Retired),
        partition(1, 0, 5, PartitionState::Active),
    ]
}

/// One request of each kind.
pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Hello(HelloRequest {
            version_min: 1,
            version_max: 2,
            client: "sample".into(),
        }),
        Request::Metadata(MetadataRequest {
            topics: Some(vec!["a".into(), "quotes".into()]),
        }),
        Request::Produce(ProduceRequest {
            topic: TOPIC,
            partition: PartitionIndex(3),
            acks: Acks::All,
            trace: true,
            timeout_ms: 30_000,
        }),
        Request::Fetch(FetchRequest {
            topic: TOPIC,
            partition: PartitionIndex(3),
            offset: Offset(1_000_001),
            last_epoch: Some(LeaderEpoch(7)),
            bytes_max: 1 << 20,
            records_max: 500,
            wait_ms: 30_000,
        }),
        Request::ListOffsets(ListOffsetsRequest {
            topic: TOPIC,
            partition: PartitionIndex(3),
            at: OffsetAt::AppendTimeUs(1_700_000_000_000_000),
        }),
        Request::CreateTopic(CreateTopicRequest {
            name: "quotes".into(),
            partitions: 4,
            replication_factor: 3,
            config: config(),
        }),
        Request::AlterTopic(AlterTopicRequest {
            name: "quotes".into(),
            config: config(),
        }),
        Request::DeleteTopic(DeleteTopicRequest {
            name: "quotes".into(),
        }),
        Request::DescribeTopic(DescribeTopicRequest {
            name: "quotes".into(),
        }),
        Request::InitProducer(InitProducerRequest),
        Request::AddPartitions(AddPartitionsRequest {
            name: "quotes".into(),
            partitions: 8,
        }),
        Request::Trim(TrimRequest {
            topic: TOPIC,
            partition: PartitionIndex(3),
            before: TrimBefore::AppendTimeUs(1_700_000_000_000_000),
        }),
    ]
}

/// One good reply to each kind of request.
pub(crate) fn replies() -> Vec<Reply> {
    let epoch = MetadataEpoch(9);
    vec![
        Reply::Hello(HelloReply {
            fault: None,
            version: 2,
            node: NodeId(1),
            cluster_id: 0xdead_beef_0000_0000_0000_0000_0000_0001,
            batch_bytes_max: 1 << 20,
        }),
        Reply::Metadata(MetadataReply {
            fault: None,
            brokers: vec![BrokerMetadata {
                node: NodeId(1),
                host: "127.0.0.1".into(),
                port: 7420,
                shard_ports: vec![7421, 7422],
            }],
            topics: vec![
                TopicMetadata {
                    fault: None,
                    name: "quotes".into(),
                    topic: TOPIC,
                    epoch,
                    codec: Codec::Zstd,
                    timestamp: TimestampSource::Append,
                    partitions: partitions(),
                },
                TopicMetadata {
                    fault: Some(Fault::new(ErrorCode::UnknownTopic, "no topic a")),
                    name: "a".into(),
                    ..TopicMetadata::default()
                },
            ],
        }),
        Reply::Produce(ProduceReply {
            fault: None,
            topic_epoch: epoch,
            base_offset: Offset(1_000_000),
            append_time_us: 1_700_000_000_123_456,
            log_start: Offset(12),
            durability: Durability::Fsync,
            stages: Some(StageTimes {
                received_ns: 1_000,
                queued_ns: 20_000,
                written_ns: 150_000,
                durable_ns: 60_000,
            }),
        }),
        Reply::Fetch(FetchReply {
            fault: Some(Fault::new(ErrorCode::LogTruncated, "read on from 1000")),
            topic_epoch: epoch,
            leader_epoch: LeaderEpoch(8),
            log_start: Offset(12),
            high_watermark: Offset(1_000),
            safe_offset: Offset(1_000),
        }),
        Reply::ListOffsets(ListOffsetsReply {
            fault: None,
            topic_epoch: epoch,
            leader_epoch: LeaderEpoch(7),
            offset: Offset(1_000_000),
            log_start: Offset(12),
            high_watermark: Offset(1_000_003),
            log_bytes: 1 << 33,
        }),
        Reply::CreateTopic(CreateTopicReply {
            fault: None,
            topic: TOPIC,
            epoch,
        }),
        Reply::AlterTopic(TopicReply { fault: None }),
        Reply::DeleteTopic(TopicReply {
            fault: Some(Fault::new(ErrorCode::UnknownTopic, "no topic quotes")),
        }),
        Reply::DescribeTopic(DescribeTopicReply {
            fault: None,
            topic: TOPIC,
            epoch,
            created_us: 1_690_000_000_000_000,
            replication_factor: 3,
            config: config(),
            partitions: partitions(),
        }),
        Reply::InitProducer(InitProducerReply {
            fault: None,
            producer_id: ProducerId(4_711),
            producer_epoch: ProducerEpoch(1),
        }),
        Reply::AddPartitions(AddPartitionsReply { fault: None, epoch }),
        Reply::Trim(TrimReply {
            fault: None,
            topic_epoch: epoch,
            log_start: Offset(1_000_000),
        }),
    ]
}

/// Bytes as lines of sixteen.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        text += &format!("{byte:02x}");
        text.push(if index % 16 == 15 { '\n' } else { ' ' });
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}
