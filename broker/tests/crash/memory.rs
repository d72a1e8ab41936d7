//! Topics with durability `memory`: a broker that is killed loses the end of what it acknowledged,
//! no more than it may, and whoever has read it is told; one that is stopped loses nothing.

use std::time::Duration;

use ringway_client::{Consumer, NewTopic, PartitionIndex, StartAt};
use ringway_testing::BrokerOptions;
use tokio::time::timeout;

use crate::plain::{PATIENCE, Plain, metric, wait_until};
use crate::site::{Site, alone, scratch};

const TOPIC: &str = "memory";
const ROUNDS: usize = 4;
const UNSYNCED_BYTES_MAX: usize = 64 << 10;
/// Long enough that a broker is killed within half of it.
const UNSYNCED_MS_MAX: usize = 4_000;
/// With what a batch of one record adds, some of them are more than may be lost.
const VALUE_BYTES: usize = 4_000;

fn options(site: &Site) -> BrokerOptions {
    site.options(1)
        .argument("--unsynced-bytes-max")
        .argument(UNSYNCED_BYTES_MAX.to_string())
        .argument("--unsynced-ms-max")
        .argument(UNSYNCED_MS_MAX.to_string())
}

fn value(number: usize) -> Vec<u8> {
    let mut value = vec![(number % 251) as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&(number as u64).to_le_bytes());
    value
}

fn connect(site: &Site) -> Plain {
    Plain::connect(&site.address(), PATIENCE)
}

fn consumer(plain: &Plain, from: usize) -> Consumer {
    let only = [PartitionIndex(0)];
    let start = StartAt::Offset(from as u64);
    plain.run(async {
        let mut consumer = plain.client().consumer().build();
        consumer.assign(TOPIC, Some(&only), start).await.unwrap();
        consumer
    })
}

/// Reads up to an offset, or up to an error that says where to go on.
fn read_to(plain: &Plain, consumer: &mut Consumer, end: usize) -> Option<u64> {
    let at = |consumer: &Consumer| consumer.position(TOPIC, PartitionIndex(0)).unwrap().0;
    while at(consumer) < end as u64 {
        let next = plain.run(async { timeout(PATIENCE, consumer.next_batch()).await });
        match next.expect("records or an error") {
            Ok(_) => {}
            Err(error) => return Some(error.safe_offset().expect("it says where to go on").0),
        }
    }
    None
}

#[test]
fn a_broker_killed_loses_no_more_than_it_may_and_says_so_to_readers() {
    let _alone = alone();
    let scratch = scratch("memory");
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start_with(&options(&site));
    let plain = connect(&site);
    let topic = NewTopic::new(TOPIC).config("durability", "memory");
    plain
        .run(plain.client().admin().create_topic(topic))
        .unwrap();
    drop(plain);
    let (mut kept, mut lost_ever) = (0, 0);
    for round in 0..ROUNDS {
        let plain = connect(&site);
        // The last ones are few, so that nothing writes them before the kill.
        let acknowledged = kept + [40, 3, 30, 2][round % 4];
        let mut reader = consumer(&plain, kept);
        for number in kept..acknowledged {
            let delivered = plain.produce(TOPIC, 0, &value(number)).unwrap();
            assert_eq!(delivered.offset.map(|at| at.0), Some(number as u64));
        }
        assert_eq!(read_to(&plain, &mut reader, acknowledged), None);
        site.kill();
        site.start_with(&options(&site));
        let again = connect(&site);
        let values = again.read(TOPIC, 0).values();
        let lost = acknowledged - values.len();
        println!("round {round}: {lost} of {acknowledged} acknowledged records are lost");
        for (number, found) in values.iter().enumerate() {
            assert_eq!(*found, value(number), "nothing else, nothing in between");
        }
        assert!(lost * VALUE_BYTES <= UNSYNCED_BYTES_MAX, "{lost} are lost");
        kept = values.len();
        lost_ever += lost;
        if lost > 0 {
            let written = again.produce(TOPIC, 0, &value(kept)).unwrap();
            assert_eq!(written.offset.map(|at| at.0), Some(kept as u64));
            let told = read_to(&plain, &mut reader, acknowledged + 1);
            assert_eq!(
                told,
                Some(kept as u64),
                "the reader hears where the log was cut"
            );
            kept += 1;
        }
    }
    assert!(
        lost_ever > 0,
        "nothing was acknowledged before it was written"
    );
    let log = site.stop(Duration::from_secs(20));
    assert!(log.contains("stopped in order"), "{log}");
    site.start_with(&options(&site));
    let plain = connect(&site);
    assert_eq!(
        plain.read(TOPIC, 0).values().len(),
        kept,
        "a stop loses nothing"
    );
    site.stop(Duration::from_secs(20));
}

#[test]
fn what_a_memory_topic_acknowledged_is_on_the_disk_in_time() {
    let _alone = alone();
    let scratch = scratch("memory-time");
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start_with(&site.options(1));
    let plain = connect(&site);
    let topic = NewTopic::new(TOPIC).config("durability", "memory");
    plain
        .run(plain.client().admin().create_topic(topic))
        .unwrap();
    for number in 0..10 {
        plain.produce(TOPIC, 0, &value(number)).unwrap();
    }
    let admin = site.broker().admin();
    wait_until("all is written", || metric(admin, "unsynced_bytes") == 0);
    site.kill();
    site.start_with(&site.options(1));
    assert_eq!(connect(&site).read(TOPIC, 0).values().len(), 10);
    site.stop(Duration::from_secs(20));
}
