//! Partitions deleted while something is under way for them.

use ringway_wire::ErrorCode;

use super::rig::{LOG, Rig, io_error, log, plain, shard_config};
use crate::shard::{Event, Note, ShardConfig};

#[test]
fn a_round_in_flight_is_counted_once() {
    let mut rig = Rig::new(1 << 20);
    rig.append(&plain(&[b"a"]));
    rig.hold_kinds = vec!["write", "durable write"];
    let produced = rig.produce(&plain(&[b"b"]));
    rig.run();
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.run();
    assert_eq!(rig.produced(produced), Err(ErrorCode::UnknownTopic));
    rig.release();
    assert_eq!(rig.shard.counters().pending_bytes, 0);
    assert!(rig.notes.contains(&Note::Deleted { log: LOG }));
    assert!(rig.files.is_empty());
}

#[test]
fn a_cold_read_that_waits_for_its_turn_is_answered() {
    let config = ShardConfig {
        read_bytes_per_second: Some(1_000),
        cache_bytes_max: 64 << 10,
        ..shard_config()
    };
    let mut rig = Rig::without_partitions(config, 1 << 20);
    rig.open(LOG);
    for _ in 0..20 {
        rig.append(&plain(&[&[7; 30_000]]));
    }
    rig.ops.clear();
    let fetches: Vec<u32> = (0..3).map(|offset| rig.fetch(offset, 0)).collect();
    rig.run();
    assert_eq!(rig.ops, ["read"]);
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.run();
    for fetch in &fetches[1..] {
        let fault = rig.fetch_reply(*fetch).fault.as_ref();
        assert_eq!(fault.map(|fault| fault.code), Some(ErrorCode::UnknownTopic));
    }
    assert!(rig.notes.contains(&Note::Deleted { log: LOG }));
}

#[test]
fn an_index_that_is_being_loaded_is_waited_for() {
    let mut rig = Rig::new(4 << 20);
    for _ in 0..200 {
        rig.append(&plain(&[&[7; 60_000]]));
    }
    rig.run_for(1_200_000_000);
    rig.restart();
    rig.hold_kinds = vec!["load side"];
    let fetch = rig.fetch(150, 0);
    rig.run();
    assert_eq!(rig.held_kinds(), ["load side"]);
    rig.shard.apply(Event::Delete { log: LOG }, rig.now);
    rig.run();
    rig.release();
    let fault = rig.fetch_reply(fetch).fault.as_ref();
    assert_eq!(fault.map(|fault| fault.code), Some(ErrorCode::UnknownTopic));
    assert!(rig.notes.contains(&Note::Deleted { log: LOG }));
}

#[test]
fn a_partition_that_is_deleted_at_any_step_goes_with_its_files() {
    for kind in [
        "prepare",
        "name",
        "write",
        "durable write",
        "flush",
        "sync",
        "fill",
        "save side",
    ] {
        for error in [
            None,
            Some(io_error()),
            Some(crate::device::DeviceError::Full),
        ] {
            let mut rig = Rig::new(1 << 20);
            rig.open(log(1));
            rig.run();
            rig.hold_kinds = vec![kind];
            for _ in 0..5 {
                rig.produce(&plain(&[&[7; 40_000]]));
                rig.produce_to(log(1), &plain(&[b"other"]));
                rig.run();
            }
            rig.shard.apply(Event::Delete { log: LOG }, rig.now);
            rig.run();
            while !rig.held.is_empty() {
                rig.finish_held(0, error.clone());
            }
            rig.release();
            rig.run_for(3_000_000_000);
            let name = format!("{kind}, {error:?}");
            assert!(rig.notes.contains(&Note::Deleted { log: LOG }), "{name}");
            assert!(rig.files.keys().all(|(of, _)| *of != LOG), "{name}");
        }
    }
}
