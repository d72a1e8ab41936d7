//! Producer, consumer and administration against the scripted broker, with nothing going wrong.

mod fake_broker;

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use fake_broker::{FakeBroker, Fate};
use ringway_client::*;
use ringway_wire::request::{
    MetadataReply, PartitionMetadata, PartitionState, Reply, Request, TopicMetadata,
};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn what_is_sent_is_read_back_in_order_and_complete() -> Result {
    let broker = FakeBroker::with_shards(2);
    let client = Client::connect(&broker.address()).await?;
    client
        .admin()
        .create_topic(NewTopic::new("t").partitions(3))
        .await?;
    let producer = client.producer().trace(true).build().await?;
    let mut deliveries = Vec::new();
    for number in 0..5_000_u32 {
        let (key, value) = ((number % 17).to_string(), number.to_le_bytes());
        let record = Record::value(&value).key(&key).tag("n").header("h", b"v");
        deliveries.push(producer.send("t", record).await?);
    }
    let mut places = Vec::new();
    for delivery in deliveries {
        let delivered = delivery.await?;
        assert!(delivered.stages.is_some());
        places.push((delivered.partition, delivered.offset.unwrap()));
    }
    producer.close().await?;

    let mut consumer = client.consumer().fetch_bytes(20_000).build();
    consumer.assign("t", None, StartAt::Start).await?;
    let mut read = 0;
    let mut next = [Offset(0); 3];
    while read < 5_000 {
        let batch = consumer.next_batch().await?;
        for record in &batch {
            let partition = batch.partition();
            assert_eq!(record.offset, next[partition.0 as usize]);
            next[partition.0 as usize] = record.offset.plus(1);
            let number = u32::from_le_bytes(record.value.unwrap().try_into()?);
            assert_eq!(places[number as usize], (partition, record.offset));
            let key = (number % 17).to_string();
            assert_eq!(record.key, Some(key.as_bytes()));
            assert_eq!(partition, key_partition(key.as_bytes(), 3));
            assert_eq!(record.tag, Some(&b"n"[..]));
            assert_eq!(record.headers.clone().next().unwrap().name, "h");
            record.verify()?;
            read += 1;
        }
        assert_eq!(
            consumer.position("t", batch.partition()),
            Some(batch.next_offset())
        );
    }
    Ok(())
}

#[tokio::test]
async fn records_without_a_key_spread_evenly() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 4);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().batch_records(10).build().await?;
    for number in 0..4_000_u32 {
        drop(producer.send("t", &number.to_le_bytes()).await?);
    }
    producer.flush().await?;
    for partition in 0..4_u32 {
        let count = broker.records("t", partition).len();
        assert!((700..1300).contains(&count), "{count}");
    }
    Ok(())
}

#[tokio::test]
async fn starting_places_and_seeks() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().build().await?;
    for number in 0..100_u8 {
        drop(producer.send("t", &[number]).await?);
    }
    producer.flush().await?;
    let zero = PartitionIndex(0);
    let mut consumer = client.consumer().build();
    for (from, first) in [
        (StartAt::Start, 0),
        (StartAt::Offset(57), 57),
        (StartAt::Offset(3), 3),
    ] {
        consumer.assign("t", Some(&[zero]), from).await?;
        let batch = consumer.next_batch().await?;
        let record = batch.records().next().unwrap();
        assert_eq!(
            (record.offset.0, record.value),
            (first, Some(&[first as u8][..]))
        );
        assert_eq!(batch.len() as u64, batch.next_offset().0 - first);
    }
    consumer.seek("t", zero, StartAt::End).await?;
    assert_eq!(consumer.position("t", zero), Some(Offset(100)));
    let waiting = tokio::time::timeout(Duration::from_millis(50), consumer.next_batch());
    assert!(waiting.await.is_err(), "there is nothing after the end");
    drop(producer.send("t", b"new").await?);
    let batch = consumer.next_batch().await?;
    assert_eq!(batch.records().next().unwrap().value, Some(&b"new"[..]));

    let error = consumer
        .seek("t", PartitionIndex(9), StartAt::Start)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConsumeError::NotAssignedHere { .. }),
        "{error}"
    );
    let error = consumer
        .assign("t", Some(&[PartitionIndex(1)]), StartAt::Start)
        .await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("has no partition 1"), "{error}");
    consumer.unassign("t");
    assert!(matches!(
        consumer.next_batch().await,
        Err(ConsumeError::NotAssigned)
    ));
    Ok(())
}

#[tokio::test]
async fn topics_are_created_described_altered_listed_and_deleted() -> Result {
    let broker = FakeBroker::with_shards(1);
    let client = Client::connect(&broker.address()).await?;
    let admin = client.admin();
    let topic = NewTopic::new("a").partitions(2).config("retention_ms", "5");
    let id = admin.create_topic(topic.clone()).await?;
    let error = admin.create_topic(topic).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicExists), "{error}");
    admin
        .alter_topic("a", &[("codec".into(), "none".into())])
        .await?;
    let described = admin.describe_topic("a").await?;
    assert_eq!((described.topic, described.config.len()), (id, 2));
    let listed = admin.list_topics().await?;
    assert_eq!((listed.len(), listed[0].partitions.len()), (1, 2));
    assert_eq!(admin.brokers().await?[0].shard_ports.len(), 1);
    let offsets = admin.offsets("a", PartitionIndex(1), OffsetAt::End).await?;
    assert_eq!(
        (offsets.offset, offsets.high_watermark),
        (Offset(0), Offset(0))
    );
    let error = admin
        .offsets("a", PartitionIndex(2), OffsetAt::End)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition), "{error}");
    admin.delete_topic("a").await?;
    let error = admin.describe_topic("a").await.unwrap_err();
    assert!(
        error.to_string().contains("ringway topic create a"),
        "{error}"
    );
    let huge = ("k".to_owned(), "v".repeat(60_000));
    let error = admin.alter_topic("a", &vec![huge; 200]).await.unwrap_err();
    assert!(error.to_string().contains("above the limit"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_topic_is_an_error_that_says_what_to_do() -> Result {
    let broker = FakeBroker::with_shards(1);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().build().await?;
    let error = producer.send("nowhere", b"x").await.unwrap_err();
    assert!(
        error.to_string().contains("ringway topic create nowhere"),
        "{error}"
    );
    let mut consumer = client.consumer().build();
    let error = consumer
        .assign("nowhere", None, StartAt::Start)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("ringway topic create nowhere"),
        "{error}"
    );
    broker.create_topic("nowhere", 1);
    producer.send("nowhere", b"x").await?.await?;
    Ok(())
}

#[tokio::test]
async fn with_acks_none_a_delivery_means_written() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().acks(Acks::None).build().await?;
    for number in 0..1_000_u32 {
        let delivered = producer.send("t", &number.to_le_bytes()).await?.await?;
        assert_eq!(delivered.offset, None);
    }
    producer.close().await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    let mut next = 0_u32;
    while next < 1_000 {
        for record in &consumer.next_batch().await? {
            assert_eq!(record.value, Some(&next.to_le_bytes()[..]));
            next += 1;
        }
    }
    let asked = |request: &Request| matches!(request, Request::InitProducer(_));
    assert!(!broker.seen().iter().any(asked));
    Ok(())
}

#[tokio::test]
async fn a_partition_that_somebody_added_is_found_when_it_is_asked_for() -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 2);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().build().await?;
    producer.send("t", b"a").await?.await?;
    // Nobody asks the broker for anything between this and what follows.
    broker.add_partitions("t", 4);
    let delivered = producer
        .send_to("t", PartitionIndex(3), b"b")
        .await?
        .await?;
    assert_eq!(delivered.partition, PartitionIndex(3));
    broker.add_partitions("t", 5);
    let at = OffsetAt::End;
    let offsets = client.admin().offsets("t", PartitionIndex(4), at).await?;
    assert_eq!(offsets.offset, Offset(0));
    broker.add_partitions("t", 6);
    let mut consumer = client.consumer().build();
    let at = StartAt::Offset(0);
    consumer.assign("t", Some(&[PartitionIndex(5)]), at).await?;
    // One that there isn't is still an error.
    let missing = producer.send_to("t", PartitionIndex(6), b"c").await;
    let Err(ProduceError::UnknownPartition { partitions, .. }) = missing else {
        panic!("{missing:?}");
    };
    assert_eq!(partitions, 6);
    let admin = client.admin();
    let missing = admin.offsets("t", PartitionIndex(6), OffsetAt::End).await;
    let missing = missing.unwrap_err();
    assert!(matches!(missing, RequestError::UnknownPartition { .. }));
    Ok(())
}

#[tokio::test]
async fn partitions_added_while_a_whole_topic_is_assigned_are_read_too() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().build().await?;
    producer.send("t", b"a").await?.await?;
    let mut consumer = client.consumer().build();
    {
        // It has looked at the topic and asks where partition 0 starts.
        let mut assigning = pin!(consumer.assign("t", None, StartAt::Start));
        let begun = poll_fn(|context| Poll::Ready(assigning.as_mut().poll(context)));
        assert!(begun.await.is_pending());
        broker.add_partitions("t", 2);
        // This client knows of it before the answer is looked at.
        let to = PartitionIndex(1);
        while producer.send_to("t", to, b"b").await.is_err() {
            producer
                .send_to("t", PartitionIndex(0), b"c")
                .await?
                .await?;
        }
        assigning.await?;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(20), consumer.next_batch());
        seen.insert(next.await??.partition());
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_whose_partitions_are_all_retired_refuses_records() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 2);
    let client = Client::connect(&broker.address()).await?;
    let producer = client.producer().build().await?;
    let retired = |index| PartitionMetadata {
        partition: PartitionIndex(index),
        state: PartitionState::Retired,
        ..PartitionMetadata::default()
    };
    let topic = TopicMetadata {
        name: "t".to_owned(),
        topic: TopicId(7),
        partitions: vec![retired(0), retired(1)],
        ..TopicMetadata::default()
    };
    broker.hook(move |request| match request {
        Request::Metadata(_) => Fate::With(Reply::Metadata(MetadataReply {
            topics: vec![topic.clone()],
            ..MetadataReply::default()
        })),
        _ => Fate::Answer,
    });
    let refused = producer.send("t", b"a").await.unwrap_err();
    assert!(
        matches!(refused, ProduceError::AllRetired { .. }),
        "{refused}"
    );
    Ok(())
}
