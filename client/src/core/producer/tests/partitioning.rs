//! Which partition records go to: by key, in turn, by the user's own code; and when partitions are
//! added or retired meanwhile.

use super::*;
use crate::core::mapping::Partitions;
use crate::core::partitioner::{Candidate, Partitioning};

fn bench(partitioning: Partitioning, partitions: u32) -> Bench {
    let settings = Settings {
        partitioning,
        ..settings()
    };
    Bench::new(settings, partitions)
}

fn with_key(key: Option<&[u8]>) -> RecordRef<'_> {
    RecordRef {
        key,
        value: Some(b"v"),
        ..RecordRef::default()
    }
}

/// Pushes a record and says where its batch goes.
fn place(bench: &mut Bench, key: Option<&[u8]>) -> u32 {
    bench
        .core
        .push("t", None, &with_key(key), bench.now)
        .unwrap();
    bench.poll();
    let sent = bench.sent.pop().expect("each record leaves alone");
    bench.core.answer(sent.token, at(0), bench.now, 0);
    bench.poll();
    sent.to.partition.0
}

fn retire(partitions: u32, retired: &[usize]) -> TopicView {
    let mut view = view(1, partitions);
    let mut list = view.partitions.to_vec();
    for &index in retired {
        list[index].state = ringway_wire::request::PartitionState::Retired;
    }
    view.partitions = list.into();
    view
}

fn refusal(bench: &mut Bench, partition: Option<u32>) -> ProduceError {
    let partition = partition.map(PartitionIndex);
    let refused = bench.core.push("t", partition, &with_key(None), bench.now);
    match refused {
        Err(PushError::Never(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_turn_every_partition_gets_the_same_whatever_the_keys() {
    let mut bench = bench(Partitioning::RoundRobin, 3);
    let first = place(&mut bench, Some(b"k"));
    for round in 1..30 {
        let key = (round % 2 == 0).then_some(&b"k"[..]);
        assert_eq!(place(&mut bench, key), (first + round) % 3);
    }
}

#[test]
fn a_record_that_finds_no_room_does_not_lose_its_turn() {
    let settings = Settings {
        partitioning: Partitioning::RoundRobin,
        buffer_bytes: 64,
        in_flight: 1,
        ..settings()
    };
    let mut bench = Bench::new(settings, 2);
    let push = |bench: &mut Bench| bench.core.push("t", None, &with_key(None), bench.now);
    push(&mut bench).unwrap();
    bench.poll();
    let first = bench.sent[0].to.partition;
    assert!(matches!(push(&mut bench), Err(PushError::Full)));
    assert!(matches!(push(&mut bench), Err(PushError::Full)));
    bench.answer(0, at(0));
    push(&mut bench).unwrap();
    bench.poll();
    assert_ne!(bench.sent[0].to.partition, first);
}

#[test]
fn ones_own_partitioner_sees_the_record_and_the_partitions() {
    let own = Partitioning::own(|record: &Candidate<'_>, partitions: &Partitions| {
        assert_eq!((record.topic, record.value), ("t", Some(&b"v"[..])));
        match record.key {
            Some(b"last") => partitions.active_at(u64::from(partitions.active_count()) - 1),
            Some(b"nowhere") => PartitionIndex(partitions.count()),
            _ => PartitionIndex(0),
        }
    });
    let mut bench = bench(own, 3);
    assert_eq!(place(&mut bench, Some(b"last")), 2);
    assert_eq!(place(&mut bench, None), 0);
    bench.core.update_topic("t", Some(&view(1, 5)), 0);
    assert_eq!(place(&mut bench, Some(b"last")), 4);
    let nowhere = bench
        .core
        .push("t", None, &with_key(Some(b"nowhere")), bench.now);
    assert!(
        matches!(
            nowhere,
            Err(PushError::Never(ProduceError::UnknownPartition { .. }))
        ),
        "{nowhere:?}"
    );
    bench.core.update_topic("t", Some(&retire(5, &[0])), 0);
    assert!(matches!(
        refusal(&mut bench, None),
        ProduceError::Retired { .. }
    ));
}

#[test]
fn new_partitions_get_keys_from_the_next_record_on_and_only_they_do() {
    let mut bench = bench(Partitioning::ByKey, 4);
    let keys: Vec<String> = (0..200).map(|number| format!("key-{number}")).collect();
    let before: Vec<u32> = keys
        .iter()
        .map(|key| place(&mut bench, Some(key.as_bytes())))
        .collect();
    bench.core.update_topic("t", Some(&view(1, 6)), 0);
    let mut moved = 0;
    for (key, before) in keys.iter().zip(before) {
        let after = place(&mut bench, Some(key.as_bytes()));
        assert!(after == before || after >= 4, "{key}: {before} to {after}");
        moved += usize::from(after != before);
    }
    assert!((40..100).contains(&moved), "{moved} of 200 moved");
}

#[test]
fn a_retired_partition_gets_nothing_by_any_way_of_choosing() {
    for partitioning in [Partitioning::ByKey, Partitioning::RoundRobin] {
        let mut bench = bench(partitioning, 4);
        place(&mut bench, None);
        bench.core.update_topic("t", Some(&retire(4, &[1, 2])), 0);
        for number in 0..100_u32 {
            let key = number.to_le_bytes();
            let key = (number % 3 > 0).then_some(&key[..]);
            let at = place(&mut bench, key);
            assert!(at == 0 || at == 3, "{at}");
        }
        let refused = refusal(&mut bench, Some(2)).to_string();
        assert!(refused.contains("t/2 is retired"), "{refused}");
        assert!(matches!(
            refusal(&mut bench, Some(4)),
            ProduceError::UnknownPartition { partitions: 4, .. }
        ));
    }
}

#[test]
fn what_was_on_its_way_to_a_partition_that_is_retired_arrives() {
    let mut bench = Bench::new(settings(), 2);
    let delivery = bench.push(b"x");
    bench.poll();
    bench.core.update_topic("t", Some(&retire(2, &[0])), 0);
    bench.answer(0, at(7));
    assert_eq!(offset(&delivery), 7);
}

/// A good answer that tells of a topic's epoch.
fn told(epoch: u64) -> Answer {
    Answer::Reply(ProduceReply {
        topic_epoch: MetadataEpoch(epoch),
        ..ProduceReply::default()
    })
}

fn newer(partitions: u32, epoch: u64) -> TopicView {
    TopicView {
        epoch: MetadataEpoch(epoch),
        ..view(1, partitions)
    }
}

#[test]
fn after_a_reply_of_a_newer_epoch_records_wait_for_it_once() {
    let mut bench = bench(Partitioning::RoundRobin, 2);
    let push = |bench: &mut Bench, partition: Option<u32>| {
        let partition = partition.map(PartitionIndex);
        let pushed = bench.core.push("t", partition, &with_key(None), bench.now);
        bench.poll();
        pushed.map(drop)
    };
    let behind = |pushed, epoch| match pushed {
        Err(PushError::TopicBehind(of)) => assert_eq!(of, MetadataEpoch(epoch)),
        other => panic!("{other:?}"),
    };
    for _ in 0..4 {
        push(&mut bench, None).unwrap();
    }
    bench.answer(0, told(1));
    push(&mut bench, None).expect("that is the one it knows");
    bench.answer(0, told(5));
    behind(push(&mut bench, None), 5);
    behind(push(&mut bench, Some(3)), 5);
    push(&mut bench, Some(1)).expect("its place is clear");
    // What is known is newer, yet not new enough; then the newest is.
    bench.core.update_topic("t", Some(&newer(3, 4)), 0);
    behind(push(&mut bench, None), 5);
    bench.core.update_topic("t", Some(&newer(4, 5)), 0);
    push(&mut bench, None).unwrap();
    push(&mut bench, Some(3)).unwrap();
    // Where it can't be had, records wait once, not after every reply.
    bench.answer(0, told(6));
    behind(push(&mut bench, None), 6);
    bench.core.make_do("t");
    push(&mut bench, None).unwrap();
    bench.answer(0, told(6));
    push(&mut bench, None).unwrap();
    bench.answer(0, told(7));
    behind(push(&mut bench, None), 7);
}

#[test]
fn an_answer_about_a_topic_that_was_replaced_says_nothing_of_the_new_one() {
    let mut bench = bench(Partitioning::ByKey, 1);
    let record = with_key(None);
    bench.core.push("t", None, &record, bench.now).unwrap();
    bench.poll();
    let old = bench.sent.pop().unwrap();
    bench.core.update_topic("t", Some(&view(2, 1)), 0);
    bench.core.push("t", None, &record, bench.now).unwrap();
    let Answer::Reply(reply) = at(0) else {
        panic!("it is a reply");
    };
    let late = Answer::Reply(ProduceReply {
        topic_epoch: MetadataEpoch(100),
        ..reply
    });
    bench.core.answer(old.token, late, bench.now, 0);
    assert_eq!(bench.core.topic_of(old.token), None);
    bench.core.push("t", None, &record, bench.now).unwrap();
}
