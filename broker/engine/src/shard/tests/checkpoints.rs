//! Many busy partitions: checkpoints are made in bounded steps, with everything else in between, and
//! no round has too many writes.

use super::rig::{Rig, kind, log, plain, shard_config};
use crate::device::Done;
use crate::limits::{CHECKPOINT_STEP_PARTITIONS, ROUND_WRITES_MAX};
use crate::log::Checkpoint;
use crate::shard::Effect;

const PARTITIONS: u32 = 2_000;

#[test]
fn a_checkpoint_of_many_busy_partitions_holds_nobody_up() {
    let mut rig = Rig::without_partitions(shard_config(), 64 << 10);
    for partition in 0..PARTITIONS {
        rig.open(log(partition));
    }
    rig.run_for(1_000_000);
    for partition in 0..PARTITIONS {
        rig.produce_to(log(partition), &plain(&[b"x"]));
    }
    rig.run();
    rig.now.mono_ns += 1_000_000_000;
    let (mut turns, mut saved) = (0, None);
    while saved.is_none() {
        rig.shard.turn(rig.now);
        turns += 1;
        while let Some(effect) = rig.shard.next_effect() {
            if let Effect::Device(id, op) = effect {
                assert_eq!(kind(&op), "save checkpoint");
                saved = Some((id, op));
            }
        }
        let again = rig.shard.next_deadline_ns();
        assert!(
            saved.is_some() || again.is_some_and(|at| at <= rig.now.mono_ns),
            "the next step comes at once"
        );
    }
    let least = PARTITIONS as usize / CHECKPOINT_STEP_PARTITIONS;
    assert!(turns > least, "{turns} turns are too long ones");
    let Some((id, crate::device::Op::SaveCheckpoint { bytes })) = saved else {
        unreachable!("the loop ends with one");
    };
    let checkpoint = Checkpoint::decode(&bytes).expect("it is whole");
    assert_eq!(checkpoint.entries.len(), PARTITIONS as usize);
    let result = Ok(crate::device::Outcome::Done);
    rig.shard
        .apply(crate::shard::Event::Done(Done { op: id, result }), rig.now);
}

#[test]
fn a_partition_deleted_between_two_steps_is_not_in_the_checkpoint() {
    let mut rig = Rig::without_partitions(shard_config(), 64 << 10);
    for partition in 0..PARTITIONS {
        rig.open(log(partition));
    }
    rig.run_for(1_000_000);
    for partition in 0..PARTITIONS {
        rig.produce_to(log(partition), &plain(&[b"x"]));
    }
    rig.run();
    rig.now.mono_ns += 1_000_000_000;
    rig.shard.turn(rig.now);
    let gone = [0, 1_000, PARTITIONS - 1].map(log);
    for log in gone {
        rig.shard
            .apply(crate::shard::Event::Delete { log }, rig.now);
    }
    rig.run_for(10_000_000);
    let checkpoint = rig.checkpoint.expect("one was saved");
    assert_eq!(checkpoint.entries.len(), PARTITIONS as usize - gone.len());
}

#[test]
fn a_round_has_no_more_writes_than_files_may_be_open() {
    let mut rig = Rig::without_partitions(shard_config(), 64 << 10);
    for partition in 0..PARTITIONS {
        rig.open(log(partition));
    }
    rig.run_for(1_000_000);
    rig.hold_kinds = vec!["write"];
    let asked: Vec<u32> = (0..PARTITIONS)
        .map(|partition| rig.produce_to(log(partition), &plain(&[b"x"])))
        .collect();
    rig.run();
    let mut rounds = 0;
    while !asked.iter().all(|it| rig.answered(*it)) {
        let writes = rig.held.len();
        assert!((1..=ROUND_WRITES_MAX).contains(&writes), "{writes} writes");
        while !rig.held.is_empty() {
            rig.finish_held(0, None);
        }
        rig.run();
        rounds += 1;
    }
    assert_eq!(rounds, (PARTITIONS as usize).div_ceil(ROUND_WRITES_MAX));
}
