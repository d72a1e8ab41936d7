//! Brokers killed under load, again and again on the same data: producers and a consumer go on
//! through all of it, and nothing that was acknowledged is lost, doubled or out of order.

use std::time::Duration;

use ringway_testing::Random;

use crate::load::{Load, LoadOptions, Mood};
use crate::site::{Site, alone, scratch, variable};

/// `RINGWAY_CRASH_KILLS` sets how often a broker is killed in all of this file's tests together.
const KILLS: u64 = 10;
const SEGMENT_BYTES: u64 = 256 << 10;
/// A few segments.
const RETENTION_BYTES: u64 = 1 << 20;

#[test]
fn one_shard_killed_under_load_loses_nothing() {
    killed_under_load("kill-1", |_| 1, (0, 2), None);
}

#[test]
fn shards_that_change_in_number_killed_under_load_lose_nothing() {
    let shards = |round| [2, 1, 3, 2][round as usize % 4];
    killed_under_load("kill-n", shards, (1, 2), None);
}

/// Records go at one end while they come at the other: what has gone stays gone, nothing else does,
/// and no start finds damage where a segment was removed.
#[test]
fn brokers_killed_while_retention_removes_segments_lose_nothing_else() {
    let shards = |round| [1, 2][round as usize % 2];
    killed_under_load("kill-r", shards, (1, 2), Some(RETENTION_BYTES));
}

/// A part of all kills, its rest of the division added.
fn killed_under_load(
    name: &str,
    shards: impl Fn(u64) -> u32,
    (rest, of): (u64, u64),
    retention_bytes: Option<u64>,
) {
    let _alone = alone();
    let kills = (variable("RINGWAY_CRASH_KILLS", KILLS) + rest) / of;
    let seed = variable("RINGWAY_CRASH_SEED", 1) * 100 + rest;
    let scratch = scratch(name);
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start(shards(0));
    let options = LoadOptions {
        seed,
        producers: 3,
        segment_bytes: SEGMENT_BYTES,
        retention_bytes,
    };
    let load = Load::start(&site.address(), options);
    let mut random = Random::new(seed);
    for kill in 1..=kills {
        load.set(if kill % 4 == 0 {
            Mood::Lone
        } else {
            Mood::Wide
        });
        load.wait_for(10 + random.below(if kill % 4 == 0 { 100 } else { 2_000 }) as usize);
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        site.kill();
        site.start(shards(kill));
        // With and without a load on the broker that has just recovered.
        if kill % 2 == 0 {
            load.set(Mood::Quiet);
        }
        load.verify(&format!("after kill {kill} of {name}, seed {seed}"));
        println!("kill {kill}: {} acknowledged", load.acknowledged());
    }
    let trimmed = load.trimmed();
    load.finish();
    assert_eq!(trimmed > 0, retention_bytes.is_some(), "{trimmed} trimmed");
}
