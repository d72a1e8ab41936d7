//! Producer and consumer while things go wrong: connections break in every place, brokers refuse,
//! repeat, delay, corrupt, move partitions, die and come back.

mod fake_broker;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fake_broker::{FakeBroker, Fate};
use ringway_client::*;
use ringway_wire::request::{FetchReply, Reply, Request, RequestKind};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const ZERO: PartitionIndex = PartitionIndex(0);

/// Fates for the next requests of a kind; all others are answered.
fn script(broker: &FakeBroker, kind: RequestKind, fates: impl IntoIterator<Item = Fate>) {
    let mut fates: VecDeque<_> = fates.into_iter().collect();
    broker.hook(move |request| match request.kind() == kind {
        true => fates.pop_front().unwrap_or(Fate::Answer),
        false => Fate::Answer,
    });
}

/// The fate of the next fetch from offset 0. Others are answered: consumers fetch ahead, too.
fn fate_of_first_fetch(broker: &FakeBroker, fate: Fate) {
    let mut fate = Some(fate);
    broker.hook(move |request| match request {
        Request::Fetch(fetch) if fetch.offset.0 == 0 => fate.take().unwrap_or(Fate::Answer),
        _ => Fate::Answer,
    });
}

/// Sends `count` numbers to partition 0, one batch at a time in flight order, and checks that the
/// log has each once and in order, at the offsets that the deliveries say.
async fn all_arrive(broker: &FakeBroker, producer: &Producer, count: u32) -> Result {
    let before = broker.records("t", 0).len() as u64;
    let mut deliveries = Vec::new();
    for number in 0..count {
        deliveries.push(producer.send_to("t", ZERO, &number.to_le_bytes()).await?);
        tokio::task::yield_now().await;
    }
    for (number, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await?.offset, Some(Offset(before + number as u64)));
    }
    let records = broker.records("t", 0);
    assert_eq!(records.len() as u64, before + u64::from(count));
    for (number, record) in records[before as usize..].iter().enumerate() {
        assert_eq!(
            record.value.as_deref(),
            Some(&(number as u32).to_le_bytes()[..])
        );
    }
    Ok(())
}

/// Reads until `count` records came; checks their offsets and values from `from` on.
async fn read_all(consumer: &mut Consumer, from: u64, count: u64) -> Result {
    let mut next = from;
    while next < from + count {
        for record in &consumer.next_batch().await? {
            assert_eq!(record.offset.0, next);
            assert_eq!(record.value, Some(&(next as u32).to_le_bytes()[..]));
            next += 1;
        }
    }
    Ok(())
}

async fn connected(broker: &FakeBroker) -> std::result::Result<Client, ConnectError> {
    let config = ClientConfig {
        request_timeout: Duration::from_secs(2),
        ..ClientConfig::new(&broker.address())
    };
    Client::with_config(config).await
}

#[tokio::test]
async fn whatever_happens_to_a_produce_request_it_is_appended_once_and_in_order() -> Result {
    let fates = [
        Fate::HangUp,
        Fate::LoseAnswer,
        Fate::CutAnswer(1),
        Fate::CutAnswer(16),
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
            let client = connected(&broker).await?;
            let producer = client.producer().build().await?;
            let mut script_of = vec![Fate::Answer; answered_before];
            script_of.extend([fate.clone(), Fate::Answer, fate.clone()]);
            script(&broker, RequestKind::Produce, script_of);
            all_arrive(&broker, &producer, 40).await?;
            producer.close().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn whatever_happens_to_a_fetch_the_consumer_gets_everything_once() -> Result {
    let fates = [
        Fate::HangUp,
        Fate::LoseAnswer,
        Fate::CutAnswer(1),
        Fate::CutAnswer(50),
        Fate::CutAnswer(700),
        Fate::AnswerTwice,
        Fate::Garbage,
        Fate::Late(Duration::from_millis(20)),
        Fate::refuse(ErrorCode::NotLeader),
        Fate::refuse(ErrorCode::PartitionRecovering),
        Fate::refuse(ErrorCode::UnknownPartition),
    ];
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().batch_records(7).build().await?;
    all_arrive(&broker, &producer, 200).await?;
    for fate in fates {
        script(
            &broker,
            RequestKind::Fetch,
            [fate.clone(), Fate::Answer, fate],
        );
        let mut consumer = client.consumer().fetch_bytes(2_000).build();
        consumer.assign("t", None, StartAt::Start).await?;
        read_all(&mut consumer, 0, 200).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_that_names_the_place_and_a_seek_goes_on() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    all_arrive(&broker, &producer, 1).await?;
    // In the body, in the header's leader part, in the header's CRC.
    let batch_bytes = 128 + 32 + 16 + 16;
    for from_end in [40, batch_bytes - 20, batch_bytes - 44] {
        fate_of_first_fetch(&broker, Fate::Corrupt(from_end));
        let mut consumer = client.consumer().build();
        consumer.assign("t", None, StartAt::Start).await?;
        let error = consumer.next_batch().await.unwrap_err();
        assert!(matches!(error, ConsumeError::WrongBatch { .. }), "{error}");
        assert!(
            error.to_string().contains("t/0") && error.to_string().contains("CRC"),
            "{error}"
        );
        assert_eq!(error.safe_offset(), Some(Offset(0)));
        let stopped = consumer.next_batch().await.unwrap_err();
        assert!(matches!(stopped, ConsumeError::Stopped), "{stopped}");
        consumer.seek("t", ZERO, StartAt::Offset(0)).await?;
        read_all(&mut consumer, 0, 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn truncation_damage_and_range_errors_carry_a_safe_offset() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    all_arrive(&broker, &producer, 10).await?;
    for code in [ErrorCode::LogTruncated, ErrorCode::DamagedBatch] {
        let reply = FetchReply {
            fault: Some(Fault::new(code, "as the test says")),
            safe_offset: Offset(4),
            ..FetchReply::default()
        };
        fate_of_first_fetch(&broker, Fate::With(Reply::Fetch(reply)));
        let mut consumer = client.consumer().build();
        consumer.assign("t", None, StartAt::Start).await?;
        let error = consumer.next_batch().await.unwrap_err();
        assert_eq!(error.safe_offset(), Some(Offset(4)), "{error}");
        consumer.seek("t", ZERO, StartAt::Offset(4)).await?;
        read_all(&mut consumer, 4, 6).await?;
    }
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Offset(77)).await?;
    let error = consumer.next_batch().await.unwrap_err();
    assert!(error.to_string().contains("goes from 0 to 10"), "{error}");
    assert_eq!(error.safe_offset(), Some(Offset(10)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_comes_back_is_used_again() -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    let sent = AtomicU32::new(0);
    let total = 3_000;
    let send = async {
        let mut deliveries = Vec::new();
        while sent.load(Ordering::Relaxed) < total {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            deliveries.push(producer.send_to("t", ZERO, &number.to_le_bytes()).await?);
            if number.is_multiple_of(50) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        for (number, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await?.offset, Some(Offset(number as u64)));
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let die = async {
        for stop_at in [300, 1_500] {
            while sent.load(Ordering::Relaxed) < stop_at {
                tokio::task::yield_now().await;
            }
            broker.stop();
            tokio::time::sleep(Duration::from_millis(30)).await;
            broker.start_again();
        }
        Ok(())
    };
    let (send, read, die) = tokio::join!(send, read_all(&mut consumer, 0, total.into()), die);
    send.and(read).and(die)?;
    assert_eq!(broker.records("t", 0).len(), total as usize);
    // Once it is back, it is found on the shard's own port again.
    let before = broker.came_to().len();
    let came_to_shard = || {
        let came = broker.came_to().split_off(before);
        came.contains(&(broker.ports()[1], RequestKind::Produce))
    };
    while !came_to_shard() {
        let _ = producer.send_to("t", ZERO, b"last").await?.await?;
    }
    Ok(())
}

#[tokio::test]
async fn partitions_that_move_are_followed() -> Result {
    let broker = FakeBroker::with_shards(3);
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    for round in 0..3_usize {
        all_arrive(&broker, &producer, 5).await?;
        // Wait until the epoch in the replies has led to new metadata.
        let shard_port = broker.ports()[1 + round];
        while !broker
            .came_to()
            .contains(&(shard_port, RequestKind::Produce))
        {
            all_arrive(&broker, &producer, 1).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        broker.move_leaders();
    }
    Ok(())
}

#[tokio::test]
async fn each_request_goes_to_the_owning_shard_over_one_connection_per_port() -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 2);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    for partition in [0, 1, 0, 1] {
        let sent = producer
            .send_to("t", PartitionIndex(partition), b"x")
            .await?;
        let _ = sent.await?;
        drop(consumer.next_batch().await?);
    }
    let came = broker.came_to();
    let of_kind = |kind| came.iter().filter(move |seen| seen.1 == kind);
    for kind in [RequestKind::Produce, RequestKind::Fetch] {
        assert!(of_kind(kind).all(|seen| seen.0 != broker.ports()[0]));
        assert!(
            broker.ports()[1..]
                .iter()
                .all(|&port| of_kind(kind).any(|seen| seen.0 == port))
        );
    }
    assert_eq!(
        of_kind(RequestKind::Hello).count(),
        3,
        "one connection per port"
    );
    Ok(())
}

#[tokio::test]
async fn a_shard_port_that_cannot_be_reached_is_replaced_by_the_shared_one() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    broker.name_shard_ports(vec![closed]);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    all_arrive(&broker, &producer, 20).await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    read_all(&mut consumer, 0, 20).await?;
    let came = broker.came_to();
    assert!(
        came.iter().all(|seen| seen.0 == broker.ports()[0]),
        "{came:?}"
    );
    assert_eq!(broker.count(RequestKind::Hello), 1, "it is remembered");
    Ok(())
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_given_up_after_the_request_time_out() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let config = ClientConfig {
        request_timeout: Duration::from_millis(100),
        ..ClientConfig::new(&broker.address())
    };
    let client = Client::with_config(config).await?;
    let producer = client.producer().build().await?;
    script(
        &broker,
        RequestKind::Produce,
        [Fate::KeepAnswer, Fate::Ignore],
    );
    all_arrive(&broker, &producer, 10).await?;
    script(
        &broker,
        RequestKind::DescribeTopic,
        vec![Fate::Ignore; 1_000],
    );
    let error = client.admin().describe_topic("t").await.unwrap_err();
    assert!(
        error.to_string().contains("didn't answer in time"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_forgotten_producer_gets_a_new_id_and_goes_on() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    all_arrive(&broker, &producer, 5).await?;
    broker.forget_producers();
    let error = producer.send("t", b"lost").await?.await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownProducer), "{error}");
    all_arrive(&broker, &producer, 5).await?;
    assert_eq!(broker.count(RequestKind::InitProducer), 2);
    Ok(())
}

#[tokio::test]
async fn a_fatal_refusal_fails_its_batch_and_every_batch_is_reported_once() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let counts = std::sync::Arc::new(Mutex::new((0, 0)));
    let told = std::sync::Arc::clone(&counts);
    let producer = client.producer().batch_records(1).on_batch(move |report| {
        let mut counts = told.lock().unwrap();
        match report.result {
            Ok(_) => counts.0 += report.records,
            Err(_) => counts.1 += report.records,
        }
    });
    let producer = producer.build().await?;
    let fates = [Fate::Answer, Fate::refuse(ErrorCode::RecordTooLarge)];
    script(&broker, RequestKind::Produce, fates);
    let mut deliveries = Vec::new();
    for number in 0..20_u8 {
        deliveries.push(producer.send("t", &[number]).await?);
    }
    assert!(producer.flush().await.is_err());
    let results: Vec<_> = deliveries
        .iter()
        .map(|each| each.result().unwrap())
        .collect();
    let good = results.iter().filter(|result| result.is_ok()).count();
    let values: Vec<_> = broker
        .records("t", 0)
        .into_iter()
        .map(|each| each.value)
        .collect();
    assert_eq!(values.len(), good);
    let sorted = values.is_sorted();
    assert!(sorted && good < 20, "{values:?}");
    let refused = results[1].as_ref().unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::RecordTooLarge));
    assert_eq!(*counts.lock().unwrap(), (good as u32, 20 - good as u32));
    Ok(())
}

#[tokio::test]
async fn records_that_nobody_takes_time_out_and_say_why() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client
        .producer()
        .delivery_timeout(Duration::from_millis(500))
        .build()
        .await?;
    let full = Fate::refuse(ErrorCode::StorageFull);
    script(&broker, RequestKind::Produce, vec![full; 1_000]);
    let error = producer.send("t", b"x").await?.await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("not acknowledged within 500ms: storage_full"),
        "{text}"
    );
    script(&broker, RequestKind::Produce, []);
    // The pause after so many refusals may be longer than the next record's time, too.
    tokio::time::sleep(ringway_client::limits::BACKOFF_MAX).await;
    all_arrive(&broker, &producer, 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_full_buffer_blocks_or_fails_and_frees_again() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let value = [7; 1_000];
    let producer = client
        .producer()
        .buffer_bytes(5_000)
        .when_full(WhenFull::Error)
        .build()
        .await?;
    script(
        &broker,
        RequestKind::Produce,
        [Fate::Late(Duration::from_millis(30))],
    );
    let mut taken = Vec::new();
    let error = loop {
        match producer.send("t", &value).await {
            Ok(delivery) => taken.push(delivery),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            ProduceError::BufferFull {
                buffer_bytes: 5_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(taken.len(), 4);
    producer.flush().await?;
    drop(producer.send("t", &value).await?);
    let error = producer.send("t", &[0; 6_000]).await.unwrap_err();
    assert!(
        matches!(error, ProduceError::TooLarge { limit: 5_000, .. }),
        "{error}"
    );

    // With a linger of an hour only the full buffer makes the batch leave.
    let hour = Duration::from_secs(3_600);
    let producer = client
        .producer()
        .buffer_bytes(5_000)
        .linger(hour)
        .build()
        .await?;
    let producer = std::sync::Arc::new(producer);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let producer = std::sync::Arc::clone(&producer);
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                drop(producer.send("t", &[7; 1_000]).await.unwrap());
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    producer.flush().await?;
    assert_eq!(broker.records("t", 0).len(), 105);
    Ok(())
}

#[tokio::test]
async fn a_deleted_topic_stops_producer_and_consumer_with_an_error() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    let mut consumer = client
        .consumer()
        .fetch_wait(Duration::from_millis(20))
        .build();
    all_arrive(&broker, &producer, 3).await?;
    consumer.assign("t", None, StartAt::Start).await?;
    read_all(&mut consumer, 0, 3).await?;
    broker.delete_topic("t");
    let error = consumer.next_batch().await.unwrap_err();
    assert!(matches!(error, ConsumeError::Gone { .. }), "{error}");
    let error = async { producer.send("t", b"x").await?.await }
        .await
        .unwrap_err();
    assert!(
        matches!(error, ProduceError::UnknownTopic { .. }),
        "{error}"
    );
    broker.create_topic("t", 1);
    all_arrive(&broker, &producer, 3).await?;
    Ok(())
}

#[tokio::test]
async fn new_partitions_are_used_and_read() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::End).await?;
    let _ = producer.send("t", b"x").await?.await?;
    let moved = (0..).map(|number| format!("key-{number}"));
    let mut moved = moved.filter(|key| key_partition(key.as_bytes(), 2) == PartitionIndex(1));
    for partitions in 2..6 {
        broker.add_partitions("t", partitions);
        // The first reply after it tells; from the next request on the new ones are used.
        let _ = producer
            .send_to("t", PartitionIndex(0), b"x")
            .await?
            .await?;
        let key = moved.next().unwrap();
        let record = Record::value("x").key(&key);
        let partition = producer.send("t", record).await?.await?.partition;
        assert_eq!(partition, key_partition(key.as_bytes(), partitions));
    }
    while consumer.next_batch().await?.partition() != PartitionIndex(1) {}
    Ok(())
}

#[tokio::test]
async fn next_batch_may_be_cancelled_at_any_time() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().batch_records(3).build().await?;
    let mut consumer = client.consumer().fetch_bytes(500).build();
    consumer.assign("t", None, StartAt::Start).await?;
    let mut next = 0_u64;
    let early = tokio::time::timeout(Duration::from_millis(5), consumer.next_batch());
    assert!(early.await.is_err(), "there is nothing yet");
    all_arrive(&broker, &producer, 300).await?;
    while next < 300 {
        let wait = Duration::from_micros(next % 7 * 20);
        let Ok(batch) = tokio::time::timeout(wait, consumer.next_batch()).await else {
            continue;
        };
        for record in &batch? {
            assert_eq!(record.offset.0, next);
            next += 1;
        }
    }
    Ok(())
}

#[tokio::test]
async fn unreachable_and_refusing_brokers_are_named() -> Result {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let error = Client::connect(&closed.to_string()).await.unwrap_err();
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    assert!(matches!(
        Client::connect("nonsense").await,
        Err(ConnectError::Address { .. })
    ));
    // The second of two brokers is enough.
    let broker = FakeBroker::start();
    let client = Client::connect(&format!("{closed},{}", broker.address())).await?;
    assert!(client.admin().list_topics().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_dropped_client_closes_its_connections_and_fails_what_is_open() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    script(&broker, RequestKind::Produce, vec![Fate::Ignore; 10]);
    let delivery = producer.send("t", b"x").await?;
    tokio::time::sleep(Duration::from_millis(5)).await;
    drop(client);
    assert!(
        delivery.result().is_none(),
        "the producer keeps the connections open"
    );
    drop(producer);
    let error = delivery.await.unwrap_err();
    assert!(matches!(error, ProduceError::Closed { .. }), "{error}");
    while broker.connections() > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[test]
fn a_runtime_that_ends_under_a_client_does_no_harm() {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    script(&broker, RequestKind::Produce, vec![Fate::Ignore; 10]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (client, producer, delivery) = runtime.block_on(async {
        let client = connected(&broker).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        let delivery = producer.send("t", b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        (client, producer, delivery)
    });
    drop(runtime);
    assert!(delivery.result().is_none());
    drop(producer);
    assert!(delivery.result().unwrap().is_err());
    drop(client);
}

#[tokio::test]
async fn a_dropped_consumer_fetches_no_more() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = connected(&broker).await?;
    let producer = client.producer().build().await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    all_arrive(&broker, &producer, 1).await?;
    read_all(&mut consumer, 0, 1).await?;
    drop(consumer);
    // Answers the fetch that was under way; with the next two, one sent in reply would be there.
    for _ in 0..3 {
        let _ = producer.send("t", b"x").await?.await?;
    }
    let before = broker.count(RequestKind::Fetch);
    for _ in 0..3 {
        let _ = producer.send("t", b"x").await?.await?;
    }
    assert_eq!(broker.count(RequestKind::Fetch), before);
    Ok(())
}

fn _is_send<T: Send>(_: T) {}

fn _futures_may_move_between_threads(producer: &Producer, consumer: &mut Consumer) {
    _is_send(producer.send("t", b"x"));
    _is_send(producer.flush());
    _is_send(consumer.next_batch());
}

#[tokio::test]
async fn a_broker_that_is_at_a_limit_is_asked_again() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    for kind in [RequestKind::InitProducer, RequestKind::Metadata] {
        script(
            &broker,
            kind,
            [
                Fate::refuse(ErrorCode::Overloaded),
                Fate::refuse(ErrorCode::Overloaded),
            ],
        );
        let producer = client.producer().build().await?;
        producer.send("t", b"a").await?.await?;
    }
    script(
        &broker,
        RequestKind::CreateTopic,
        [Fate::refuse(ErrorCode::Overloaded)],
    );
    client.admin().create_topic(NewTopic::new("u")).await?;
    Ok(())
}
