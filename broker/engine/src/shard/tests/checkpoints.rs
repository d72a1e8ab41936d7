//! Checkpoints of many partitions: made in bounded steps, with everything else in between.

use super::rig::{Rig, kind, log, plain, shard_config};
use crate::device::Done;
use crate::limits::CHECKPOINT_STEP_PARTITIONS;
use crate::log::Checkpoint;
use crate::shard::Effect;

const PARTITIONS: u32 = 2_000;

#[test]
fn a_checkpoint_of_many_busy_partitions_holds_nobody_up() {
    let mut rig = Rig::without_partitions(shard_config(), 64 << 10);
    for partition in 0..PARTITIONS {
        rig.open(log(partition));
    }
    rig.run();
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
    rig.run();
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
