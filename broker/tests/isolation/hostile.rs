//! Thousands of slow connections, garbage, floods of requests for topics that aren't there, and
//! clients that never read, beside one that behaves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway_testing::{BrokerOptions, BrokerProcess, Scratch, metric, variable};

use crate::attack::{Attack, Plan};
use crate::bulk::Bulk;
use crate::figures::Phase;
use crate::paced::Paced;
use crate::resident::{Watch, resident};

/// The broker's memory may grow by so much, whoever is connected. What could grow: frames on their
/// way in, replies on their way out, what connections are remembered by.
const GROWTH_BYTES_MAX: u64 = 512 << 20;
/// A record of the well-behaved client.
const EVERY: Duration = Duration::from_millis(2);
/// Its partitions. With one, each round of it is a single durable write, alone as beside others:
/// with more, waiting would gather partitions, and make another, dearer kind of round of it.
const PARTITIONS: u32 = 1;
/// Parts of the time with attackers, each between two without.
const ROUNDS: u64 = 5;

#[test]
fn hostile_clients_cost_bounded_memory_and_no_record() {
    let seconds = variable("RINGWAY_HOSTILE_SECONDS", 5);
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "hostile").unwrap();
    let options = BrokerOptions::new(crate::binary(), &scratch)
        // Smaller than what deaf clients fetch, and full before they do.
        .argument("--cache-bytes")
        .argument("33554432");
    let mut broker = options.start().unwrap();
    let bulk_bytes = variable("RINGWAY_HOSTILE_BULK_BYTES", 128 << 20);
    let bulk = Bulk::fill(&broker.listen().to_string(), bulk_bytes);
    let mut attack = Attack::prepare(&plan(&broker, &bulk));
    let paced = Paced::start(&broker.listen().to_string(), EVERY, PARTITIONS);

    std::thread::sleep(Duration::from_millis(500));
    let before = resident(broker.pid());
    let watch = Watch::start(broker.pid());
    let beside = Duration::from_secs(seconds) / ROUNDS as u32;
    let mut told = String::new();
    for _ in 0..ROUNDS {
        alone(&paced, beside / 3);
        attack.begin();
        paced.enter(Phase::Beside);
        std::thread::sleep(beside);
        paced.enter(Phase::Between);
        told = attack.end();
        settle(broker.admin());
    }
    alone(&paced, beside / 3);
    drop(attack);
    let report = paced.finish();
    let most = watch.most();

    let grown = most.saturating_sub(before);
    println!(
        "{told}\n{} records of a good client, all there\n\n{}\n{}\nresident memory: {} MiB alone, \
         {} MiB at most beside (+ {} MiB)",
        report.records,
        report.acknowledged.table("from due to acknowledged"),
        report.delivered.table("from due to delivered"),
        before >> 20,
        most >> 20,
        grown >> 20,
    );
    assert!(report.acknowledged.beside.count() > 0);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    let status = broker.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", broker.log());
}

fn plan(broker: &BrokerProcess, bulk: &Bulk) -> Plan {
    let ports: Vec<SocketAddr> = std::iter::once(broker.listen())
        .chain(broker.shards().iter().copied())
        .collect();
    Plan {
        ports,
        topic: bulk.topic,
        records: bulk.records,
        slow: variable("RINGWAY_HOSTILE_SLOW", 500) as usize,
        deaf: variable("RINGWAY_HOSTILE_DEAF", 50) as usize,
        floods: variable("RINGWAY_HOSTILE_FLOODS", 8) as usize,
        garbage: variable("RINGWAY_HOSTILE_GARBAGE", 2) as usize,
    }
}

fn alone(paced: &Paced, time: Duration) {
    paced.enter(Phase::Alone);
    std::thread::sleep(time);
    paced.enter(Phase::Between);
}

/// Waits until the broker has noticed that they are gone.
fn settle(admin: SocketAddr) {
    let begin = Instant::now();
    while metric(admin, "connections") > 10 {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(60), "connections stay");
        std::thread::sleep(Duration::from_millis(50));
    }
}
