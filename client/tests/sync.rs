//! The synchronous face against the scripted broker: with nothing going wrong, and with everything.

mod fake_broker;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fake_broker::{FakeBroker, Fate};
use ringway_client::sync::{Client, Consumer, Idle, Producer};
use ringway_client::*;
use ringway_wire::request::{Request, RequestKind};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const ZERO: PartitionIndex = PartitionIndex(0);

fn connected(broker: &FakeBroker) -> std::result::Result<Client, ConnectError> {
    Client::with_config(ClientConfig {
        request_timeout: Duration::from_secs(2),
        ..ClientConfig::new(&broker.address())
    })
}

/// Fates for the next requests of a kind; all others are answered.
fn script(broker: &FakeBroker, kind: RequestKind, fates: impl IntoIterator<Item = Fate>) {
    let mut fates: VecDeque<_> = fates.into_iter().collect();
    broker.hook(move |request| match request.kind() == kind {
        true => fates.pop_front().unwrap_or(Fate::Answer),
        false => Fate::Answer,
    });
}

/// Sends `count` numbers to partition 0 and checks that the log has each once and in order, at the
/// offsets that the deliveries say.
fn all_arrive(broker: &FakeBroker, producer: &mut Producer, count: u32) -> Result {
    let before = broker.records("t", 0).len() as u64;
    let mut deliveries = Vec::new();
    for number in 0..count {
        deliveries.push(producer.send_to("t", ZERO, &number.to_le_bytes())?);
        producer.poll();
    }
    for (number, delivery) in deliveries.iter().enumerate() {
        let delivered = producer.wait(delivery)?;
        assert_eq!(delivered.offset, Some(Offset(before + number as u64)));
    }
    let records = broker.records("t", 0);
    assert_eq!(records.len() as u64, before + u64::from(count));
    for (number, record) in records[before as usize..].iter().enumerate() {
        let expected = (number as u32).to_le_bytes();
        assert_eq!(record.value.as_deref(), Some(&expected[..]));
    }
    Ok(())
}

/// Reads until `count` records came; checks their offsets and values from `from` on.
fn read_all(consumer: &mut Consumer, from: u64, count: u64) -> Result {
    let mut next = from;
    while next < from + count {
        for record in &consumer.next_batch()? {
            assert_eq!(record.offset.0, next);
            assert_eq!(record.value, Some(&(next as u32).to_le_bytes()[..]));
            next += 1;
        }
    }
    Ok(())
}

#[test]
fn what_is_sent_is_read_back_in_order_and_complete() -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 3);
    let client = connected(&broker)?;
    let mut producer = client.producer().trace(true).build()?;
    let mut deliveries = Vec::new();
    for number in 0..5_000_u32 {
        let (key, value) = ((number % 17).to_string(), number.to_le_bytes());
        let record = Record::value(&value).key(&key).tag("n").header("h", b"v");
        deliveries.push(producer.send("t", record)?);
    }
    let mut places = Vec::new();
    for delivery in &deliveries {
        let delivered = producer.wait(delivery)?;
        assert!(delivered.stages.is_some());
        places.push((delivered.partition, delivered.offset.unwrap()));
    }
    producer.close()?;

    let mut consumer = client.consumer().fetch_bytes(20_000).build();
    consumer.assign("t", None, StartAt::Start)?;
    let mut read = 0;
    let mut next = [Offset(0); 3];
    while read < 5_000 {
        let batch = consumer.next_batch()?;
        let partition = batch.partition();
        for record in &batch {
            assert_eq!(record.offset, next[partition.0 as usize]);
            next[partition.0 as usize] = record.offset.plus(1);
            let number = u32::from_le_bytes(record.value.unwrap().try_into()?);
            assert_eq!(places[number as usize], (partition, record.offset));
            let key = (number % 17).to_string();
            assert_eq!(partition, key_partition(key.as_bytes(), 3));
            assert_eq!(record.headers.clone().next().unwrap().name, "h");
            record.verify()?;
            read += 1;
        }
        assert_eq!(consumer.position("t", partition), Some(batch.next_offset()));
    }
    Ok(())
}

#[test]
fn starting_places_and_seeks() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    for number in 0..100_u8 {
        drop(producer.send("t", &[number])?);
    }
    producer.flush()?;
    let mut consumer = client.consumer().build();
    assert!(matches!(
        consumer.try_next_batch(),
        Err(ConsumeError::NotAssigned)
    ));
    for (from, first) in [
        (StartAt::Start, 0),
        (StartAt::Offset(57), 57),
        (StartAt::Offset(3), 3),
    ] {
        consumer.assign("t", Some(&[ZERO]), from)?;
        let batch = consumer.next_batch()?;
        let record = batch.records().next().unwrap();
        assert_eq!(record.offset.0, first);
        assert_eq!(batch.len() as u64, batch.next_offset().0 - first);
    }
    consumer.seek("t", ZERO, StartAt::End)?;
    assert_eq!(consumer.position("t", ZERO), Some(Offset(100)));
    let nothing = consumer.next_batch_within(Duration::from_millis(20))?;
    assert!(nothing.is_none(), "there is nothing after the end");
    drop(producer.send("t", b"new")?);
    let batch = consumer.next_batch()?;
    assert_eq!(batch.records().next().unwrap().value, Some(&b"new"[..]));
    let error = consumer.seek("t", PartitionIndex(9), StartAt::Start);
    assert!(matches!(error, Err(ConsumeError::NotAssignedHere { .. })));
    let error = consumer.assign("t", Some(&[PartitionIndex(1)]), StartAt::Start);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has no partition 1"), "{error}");
    assert_eq!(consumer.assignment().len(), 1);
    consumer.unassign("t");
    assert!(matches!(
        consumer.next_batch(),
        Err(ConsumeError::NotAssigned)
    ));
    Ok(())
}

#[test]
fn an_unknown_topic_is_an_error_that_says_what_to_do() -> Result {
    let broker = FakeBroker::start();
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    let error = producer.send("nowhere", b"x").unwrap_err().to_string();
    assert!(error.contains("ringway topic create nowhere"), "{error}");
    broker.create_topic("nowhere", 1);
    let delivery = producer.send("nowhere", b"x")?;
    producer.wait(&delivery)?;
    Ok(())
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = Client::connect(&format!("127.0.0.1:{port}")).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn with_acks_none_a_delivery_means_written() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?.idle(Idle::Spin);
    let mut producer = client.producer().acks(Acks::None).build()?;
    for number in 0..200_u32 {
        let delivery = producer.send("t", &number.to_le_bytes())?;
        assert_eq!(producer.wait(&delivery)?.offset, None);
    }
    producer.close()?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    read_all(&mut consumer, 0, 200)?;
    let asked = |request: &Request| matches!(request, Request::InitProducer(_));
    assert!(!broker.seen().iter().any(asked));
    Ok(())
}

#[test]
fn a_full_buffer_makes_sending_wait_or_fail() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client
        .producer()
        .buffer_bytes(10_000)
        .when_full(WhenFull::Error)
        .build()?;
    script(&broker, RequestKind::Produce, vec![Fate::Ignore; 9]);
    let error = (0..100).find_map(|_| producer.send("t", &[0; 1_000]).err());
    assert!(matches!(error, Some(ProduceError::BufferFull { .. })));
    drop(producer);

    // Another topic: what the first producer has sent may still be on its way.
    broker.create_topic("u", 1);
    broker.hook(|_| Fate::Answer);
    let mut producer = client.producer().buffer_bytes(10_000).build()?;
    for _ in 0..100 {
        drop(producer.send("u", &[0; 1_000])?);
    }
    producer.close()?;
    assert_eq!(broker.records("u", 0).len(), 100);
    Ok(())
}

#[test]
fn a_linger_holds_a_batch_back_until_a_poll_after_its_time_or_a_flush() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().linger(Duration::from_secs(100)).build()?;
    for _ in 0..10 {
        drop(producer.send("t", b"x")?);
        producer.poll();
    }
    assert_eq!(broker.count(RequestKind::Produce), 0);
    producer.flush()?;
    assert_eq!(broker.count(RequestKind::Produce), 1);
    let mut producer = client.producer().linger(Duration::from_millis(1)).build()?;
    let delivery = producer.send("t", b"x")?;
    producer.wait(&delivery)?;
    Ok(())
}

#[test]
fn every_batch_is_reported_once() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 4);
    let client = connected(&broker)?;
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let mut producer = client
        .producer()
        .batch_records(7)
        .on_batch(move |report| {
            assert!(report.result.is_ok());
            count.fetch_add(report.records, Ordering::Relaxed);
        })
        .build()?;
    for number in 0..1_000_u32 {
        drop(producer.send("t", &number.to_le_bytes())?);
    }
    producer.flush()?;
    assert_eq!(told.load(Ordering::Relaxed), 1_000);
    for partition in 0..4 {
        let records = broker.records("t", partition).len();
        assert!((150..350).contains(&records), "{partition}: {records}");
    }
    Ok(())
}

#[test]
fn whatever_happens_to_a_produce_request_it_is_appended_once_and_in_order() -> Result {
    let fates = [
        Fate::HangUp,
        Fate::LoseAnswer,
        Fate::CutAnswer(1),
        Fate::CutAnswer(30),
        Fate::AnswerTwice,
        Fate::Garbage,
        Fate::Late(Duration::from_millis(20)),
        Fate::refuse(ErrorCode::NotLeader),
        Fate::refuse(ErrorCode::Overloaded),
        Fate::refuse(ErrorCode::TimedOut),
        Fate::refuse(ErrorCode::UnknownTopic),
        Fate::refuse(ErrorCode::ShuttingDown),
    ];
    for fate in fates {
        for answered_before in [0, 1, 3] {
            let broker = FakeBroker::start();
            broker.create_topic("t", 1);
            let mut producer = connected(&broker)?.producer().build()?;
            let mut fates = vec![Fate::Answer; answered_before];
            fates.extend([fate.clone(), Fate::Answer, fate.clone()]);
            script(&broker, RequestKind::Produce, fates);
            all_arrive(&broker, &mut producer, 40)?;
            producer.close()?;
        }
    }
    Ok(())
}

#[test]
fn whatever_happens_to_a_fetch_the_consumer_gets_everything_once() -> Result {
    let fates = [
        Fate::HangUp,
        Fate::CutAnswer(1),
        Fate::CutAnswer(50),
        Fate::CutAnswer(1_000),
        Fate::AnswerTwice,
        Fate::Garbage,
        Fate::Late(Duration::from_millis(20)),
        Fate::refuse(ErrorCode::NotLeader),
        Fate::refuse(ErrorCode::PartitionRecovering),
        Fate::refuse(ErrorCode::UnknownTopic),
    ];
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().batch_records(10).build()?;
    all_arrive(&broker, &mut producer, 300)?;
    for fate in fates {
        let script_of = [fate.clone(), Fate::Answer, fate];
        script(&broker, RequestKind::Fetch, script_of);
        let mut consumer = client.consumer().fetch_bytes(1).build();
        consumer.assign("t", None, StartAt::Start)?;
        read_all(&mut consumer, 0, 300)?;
    }
    Ok(())
}

#[test]
fn a_damaged_batch_is_reported_and_can_be_asked_for_again() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    all_arrive(&broker, &mut producer, 20)?;
    script(&broker, RequestKind::Fetch, [Fate::Corrupt(40)]);
    let mut consumer = client.consumer().fetch_bytes(1).build();
    consumer.assign("t", None, StartAt::Start)?;
    let error = loop {
        match consumer.next_batch() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let safe = error.safe_offset().expect("it says where to go on");
    consumer.seek("t", ZERO, StartAt::Offset(safe.0))?;
    read_all(&mut consumer, safe.0, 20 - safe.0)
}

#[test]
fn a_broker_may_die_and_come_back_and_leaders_may_move() -> Result {
    let broker = FakeBroker::with_shards(3);
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    all_arrive(&broker, &mut producer, 10)?;
    read_all(&mut consumer, 0, 10)?;
    broker.stop();
    let deliveries: Vec<_> = (10..20_u32)
        .map(|number| producer.send_to("t", ZERO, &number.to_le_bytes()).unwrap())
        .collect();
    for _ in 0..100 {
        producer.poll();
        assert!(consumer.try_next_batch()?.is_none());
    }
    broker.start_again();
    for delivery in &deliveries {
        producer.wait(delivery)?;
    }
    read_all(&mut consumer, 10, 10)?;
    broker.move_leaders();
    for number in 20..40_u32 {
        let delivery = producer.send_to("t", ZERO, &number.to_le_bytes())?;
        producer.wait(&delivery)?;
    }
    read_all(&mut consumer, 20, 20)?;
    let asked_shard = |(port, kind): &(u16, RequestKind)| {
        *kind == RequestKind::Produce && *port != broker.ports()[0]
    };
    assert!(
        broker.came_to().iter().any(asked_shard),
        "shards are asked at their own ports"
    );
    Ok(())
}

#[test]
fn a_shard_port_that_cannot_be_reached_is_gone_around() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?.port()
    };
    broker.name_shard_ports(vec![nobody]);
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    all_arrive(&broker, &mut producer, 10)?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    read_all(&mut consumer, 0, 10)
}

#[test]
fn partitions_that_are_added_are_used_and_read() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client.producer().batch_records(1).build()?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    producer.send("t", b"x").map(drop)?;
    producer.flush()?;
    broker.add_partitions("t", 4);
    let read = Cell::new(0);
    let mut used = [false; 4];
    while !used.iter().all(|&used| used) {
        drop(producer.send("t", b"x")?);
        producer.flush()?;
        while let Some(batch) = consumer.try_next_batch()? {
            used[batch.partition().0 as usize] = true;
            read.set(read.get() + batch.len());
        }
    }
    Ok(())
}

#[test]
fn new_partitions_are_used_from_the_request_after_the_reply_that_tells_of_them() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let mut producer = connected(&broker)?.producer().build()?;
    let moved = (0..).map(|number| format!("key-{number}"));
    let mut moved = moved.filter(|key| key_partition(key.as_bytes(), 2) == PartitionIndex(1));
    let delivery = producer.send("t", b"x")?;
    let _ = producer.wait(&delivery)?;
    for partitions in 2..6 {
        broker.add_partitions("t", partitions);
        let delivery = producer.send_to("t", ZERO, b"x")?;
        let _ = producer.wait(&delivery)?;
        let key = moved.next().unwrap();
        let delivery = producer.send("t", Record::value("x").key(&key))?;
        let partition = producer.wait(&delivery)?.partition;
        assert_eq!(partition, key_partition(key.as_bytes(), partitions));
    }
    Ok(())
}

#[test]
fn topics_are_administered_without_a_runtime() -> Result {
    let broker = FakeBroker::start();
    let client = connected(&broker)?;
    let mut admin = client.admin();
    let topic = NewTopic::new("t").partitions(2).config("codec", "none");
    let id = admin.create_topic(topic.clone())?;
    let again = admin.create_topic(topic).unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::TopicExists));
    let mut producer = client.producer().batch_records(1).build()?;
    all_arrive(&broker, &mut producer, 10)?;

    admin.add_partitions("t", 3)?;
    let fewer = admin.add_partitions("t", 3).unwrap_err();
    assert_eq!(fewer.code(), Some(ErrorCode::InvalidPartitions));
    admin.alter_topic("t", &[("retention_ms".to_owned(), "5".to_owned())])?;
    let described = admin.describe_topic("t")?;
    assert_eq!((described.topic, described.partitions.len()), (id, 3));
    assert!(
        described
            .config
            .contains(&("retention_ms".to_owned(), "5".to_owned()))
    );
    assert_eq!(admin.list_topics()?.len(), 1);
    assert_eq!(admin.brokers()?.len(), 1);

    let start = admin.trim("t", ZERO, TrimBefore::Offset(Offset(4)))?;
    assert_eq!(start, Offset(4));
    let offsets = admin.offsets("t", ZERO, OffsetAt::Start)?;
    assert_eq!(
        (offsets.offset, offsets.high_watermark),
        (Offset(4), Offset(10))
    );
    let beyond = admin.trim("t", ZERO, TrimBefore::Offset(Offset(11)));
    assert_eq!(
        beyond.unwrap_err().code(),
        Some(ErrorCode::OffsetOutOfRange)
    );
    let nowhere = admin.trim("t", PartitionIndex(3), TrimBefore::Offset(Offset(0)));
    assert!(matches!(
        nowhere,
        Err(RequestError::UnknownPartition { .. })
    ));
    admin.delete_topic("t")?;
    let gone = admin.describe_topic("t").unwrap_err();
    assert!(matches!(gone, RequestError::UnknownTopic { .. }));
    Ok(())
}

#[test]
fn a_producer_that_the_broker_forgot_gets_a_new_id() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let mut producer = connected(&broker)?.producer().build()?;
    all_arrive(&broker, &mut producer, 5)?;
    broker.forget_producers();
    let delivery = producer.send_to("t", ZERO, b"lost")?;
    let error = producer.wait(&delivery).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownProducer), "{error}");
    let delivery = producer.send_to("t", ZERO, b"goes on")?;
    assert_eq!(producer.wait(&delivery)?.offset, Some(Offset(5)));
    assert_eq!(broker.count(RequestKind::InitProducer), 2);
    Ok(())
}

/// A thread may have other things to do for longer than any time-out.
#[test]
fn what_came_while_nobody_polled_came_in_time() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = Client::with_config(ClientConfig {
        request_timeout: Duration::from_secs(2),
        ..ClientConfig::new(&broker.address())
    })?;
    let mut producer = client
        .producer()
        .delivery_timeout(Duration::from_secs(2))
        .build()?;
    let first = producer.send("t", &0_u32.to_le_bytes())?;
    producer.wait(&first)?;
    let delivery = producer.send("t", &1_u32.to_le_bytes())?;
    let mut consumer = client.consumer().fetch_wait(Duration::ZERO).build();
    consumer.assign("t", None, StartAt::Start)?;
    read_all(&mut consumer, 0, 2)?;
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(producer.wait(&delivery)?.offset, Some(Offset(1)));
    let connections = broker.connections();
    let third = producer.send("t", &2_u32.to_le_bytes())?;
    producer.wait(&third)?;
    read_all(&mut consumer, 2, 1)?;
    assert_eq!(broker.connections(), connections, "nobody was given up");
    Ok(())
}

#[test]
fn what_is_not_answered_is_given_up_in_time_and_a_drop_gives_up_at_once() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    let mut producer = client
        .producer()
        .delivery_timeout(Duration::from_millis(50))
        .build()?;
    broker.hook(|request| match request.kind() {
        RequestKind::Produce => Fate::Ignore,
        _ => Fate::Answer,
    });
    let delivery = producer.send("t", b"x")?;
    let error = producer.wait(&delivery).unwrap_err();
    assert!(matches!(error, ProduceError::TimedOut { .. }), "{error}");
    let mut producer = client.producer().build()?;
    let delivery = producer.send("t", b"x")?;
    drop(producer);
    assert!(matches!(
        delivery.result(),
        Some(Err(ProduceError::Closed { .. }))
    ));
    Ok(())
}

#[test]
fn a_partition_that_somebody_added_is_found_when_it_is_asked_for() -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 2);
    let client = connected(&broker)?;
    let mut producer = client.producer().build()?;
    let delivery = producer.send("t", b"a")?;
    producer.wait(&delivery)?;
    let mut admin = client.admin();
    admin.offsets("t", ZERO, OffsetAt::End)?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", Some(&[ZERO]), StartAt::Offset(0))?;
    broker.add_partitions("t", 4);
    let delivery = producer.send_to("t", PartitionIndex(3), b"b")?;
    let delivered = producer.wait(&delivery)?;
    assert_eq!(delivered.partition, PartitionIndex(3));
    admin.offsets("t", PartitionIndex(3), OffsetAt::End)?;
    consumer.assign("t", Some(&[PartitionIndex(3)]), StartAt::Offset(0))?;
    let missing = producer.send_to("t", PartitionIndex(4), b"c").unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::UnknownPartition));
    Ok(())
}

#[test]
fn a_broker_that_is_at_a_limit_is_asked_again() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let client = connected(&broker)?;
    for kind in [RequestKind::InitProducer, RequestKind::Metadata] {
        script(
            &broker,
            kind,
            [
                Fate::refuse(ErrorCode::Overloaded),
                Fate::refuse(ErrorCode::Overloaded),
            ],
        );
        let mut producer = client.producer().build()?;
        let delivery = producer.send("t", b"a")?;
        producer.wait(&delivery)?;
    }
    script(
        &broker,
        RequestKind::CreateTopic,
        [Fate::refuse(ErrorCode::Overloaded)],
    );
    client.admin().create_topic(NewTopic::new("u"))?;
    Ok(())
}
