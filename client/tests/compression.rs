//! Compressed batches through both faces, against the scripted broker, which stores them as they are.

mod fake_broker;

use std::time::Duration;

use fake_broker::FakeBroker;
use ringway_client::*;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const RECORDS: u32 = 4_000;
/// Batches leave full, or at the end: few records don't get much shorter.
const LINGER: Duration = Duration::from_secs(600);

fn value(number: u32) -> String {
    format!("measurement {number:08} of a sensor that always says much the same")
}

/// What is expected of the next batch; gives the number behind it.
fn check(batch: &Batch, codec: Codec, mut number: u32) -> u32 {
    assert_eq!(batch.header().attributes.codec(), codec.number());
    if codec != Codec::None {
        assert!(batch.size() * 2 < batch.header().inflated_bytes());
    }
    for record in batch {
        assert_eq!(record.offset.0, u64::from(number));
        assert_eq!(record.value, Some(value(number).as_bytes()));
        assert_eq!(record.key, Some(&b"k"[..]));
        assert_eq!(record.tag, Some(&b"t"[..]));
        record.verify().expect("the producer's CRC holds");
        number += 1;
    }
    number
}

#[tokio::test]
async fn what_one_face_compresses_both_inflate() -> Result {
    for codec in Codec::ALL {
        let broker = FakeBroker::with_shards(1);
        broker.create_topic("t", 1);
        let client = Client::connect(&broker.address()).await?;
        let producer = client
            .producer()
            .codec(codec)
            .batch_records(300)
            .linger(LINGER)
            .build()
            .await?;
        for number in 0..RECORDS {
            let value = value(number);
            let record = Record::value(&value).key("k").tag("t");
            drop(producer.send("t", record).await?);
        }
        producer.close().await?;

        let mut consumer = client.consumer().fetch_bytes(20_000).build();
        consumer.assign("t", None, StartAt::Start).await?;
        let mut next = 0;
        while next < RECORDS {
            next = check(&consumer.next_batch().await?, codec, next);
        }
        // In the middle of a batch, records before the wanted one are left out.
        consumer
            .seek("t", PartitionIndex(0), StartAt::Offset(1_234))
            .await?;
        check(&consumer.next_batch().await?, codec, 1_234);

        let address = broker.address();
        tokio::task::spawn_blocking(move || {
            let client = sync::Client::connect(&address).expect("the broker answers");
            let mut consumer = client.consumer().build();
            let assigned = consumer.assign("t", None, StartAt::Start);
            assigned.expect("the topic is there");
            let mut next = 0;
            while next < RECORDS {
                next = check(&consumer.next_batch().expect("a batch"), codec, next);
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_synchronous_face_compresses() -> Result {
    let broker = FakeBroker::with_shards(1);
    broker.create_topic("t", 1);
    let address = broker.address();
    tokio::task::spawn_blocking(move || {
        let client = sync::Client::connect(&address).expect("the broker answers");
        let builder = client.producer().codec(Codec::Lz4).batch_records(500);
        let builder = builder.linger(LINGER);
        let mut producer = builder.build().expect("lz4 is in");
        for number in 0..RECORDS {
            let value = value(number);
            let record = Record::value(&value).key("k").tag("t");
            drop(producer.send("t", record).expect("it is taken"));
        }
        producer.flush().expect("all is acknowledged");
    })
    .await?;
    let client = Client::connect(&broker.address()).await?;
    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start).await?;
    let mut next = 0;
    while next < RECORDS {
        next = check(&consumer.next_batch().await?, Codec::Lz4, next);
    }
    Ok(())
}
