//! The state machine against random logs: replay, snapshots and images agree; and each refusal.

use proptest::prelude::*;

use super::*;

const NODE: NodeId = NodeId(1);

fn register(incarnation: u128) -> Command {
    Command::RegisterBroker {
        node: NODE,
        incarnation,
    }
}

fn create(id: u128, name: &str, partitions: u32) -> Command {
    Command::CreateTopic {
        id: TopicId(id),
        name: name.to_owned(),
        partitions,
        replication_factor: 0,
        config: Vec::new(),
        created_us: 1_000,
    }
}

fn entry(key: &str, value: &str) -> ConfigEntry {
    ConfigEntry {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn delete(name: &str) -> Command {
    let name = name.to_owned();
    Command::DeleteTopic { name }
}

fn grow(name: &str, partitions: u32) -> Command {
    let name = name.to_owned();
    Command::AddPartitions { name, partitions }
}

fn alter(name: &str, key: &str, value: &str) -> Command {
    Command::AlterTopic {
        name: name.to_owned(),
        config: vec![entry(key, value)],
    }
}

/// A state with one broker, and the index of its last command.
fn ready() -> Metadata {
    let mut state = Metadata::default();
    state
        .apply(&Command::CreateCluster { cluster_id: 3 }, 1)
        .unwrap();
    state.apply(&register(1), 2).unwrap();
    state
}

fn next(state: &mut Metadata, command: &Command) -> Result<Vec<Delta>, Fault> {
    let index = state.applied() + 1;
    state.apply(command, index)
}

fn code(state: &mut Metadata, command: &Command) -> ErrorCode {
    let before = state.clone();
    let checked = state.check(command);
    let fault = next(state, command).expect_err("it has to be refused");
    assert_eq!(checked, Err(fault.clone()), "check and apply agree");
    let mut unchanged = state.clone();
    unchanged.applied = before.applied;
    assert_eq!(unchanged, before, "a refused command changes nothing");
    fault.code
}

fn commands() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "bad name", ""]);
    let value = prop::sample::select(vec![
        ("retention_ms", "1h"),
        ("retention_ms", ""),
        ("segment_bytes", "1MiB"),
        ("segment_bytes", "1"),
        ("min_in_sync", "1"),
        ("nonsense", "1"),
    ]);
    prop_oneof![
        1 => any::<u128>().prop_map(|cluster_id| Command::CreateCluster { cluster_id }),
        2 => (1u32..3, 0u128..4).prop_map(|(node, incarnation)| Command::RegisterBroker {
            node: NodeId(node),
            incarnation,
        }),
        5 => (1u128..9, name.clone(), 0u32..5, 0u16..3).prop_map(|(id, name, partitions, factor)| {
            Command::CreateTopic {
                id: TopicId(id),
                name: name.to_owned(),
                partitions,
                replication_factor: factor,
                config: vec![entry("codec", "none")],
                created_us: 7,
            }
        }),
        3 => (name.clone(), value).prop_map(|(name, (key, value))| alter(name, key, value)),
        2 => (name.clone(), 0u32..7).prop_map(|(name, partitions)| grow(name, partitions)),
        2 => name.prop_map(delete),
        1 => (0u32..9).prop_map(|count| Command::ReserveProducerIds { count }),
    ]
}

proptest! {
    /// The same log gives the same state, also by way of a snapshot at any point; and an image
    /// that followed the deltas is the one that the state would make afresh.
    #[test]
    fn state_and_images_are_functions_of_the_log(
        log in prop::collection::vec(commands(), 0..60),
        cut in 0usize..60,
    ) {
        let mut state = Metadata::default();
        let mut image = Image::new(NODE, 3);
        let mut snapshot = state.to_snapshot();
        let mut applied = Vec::new();
        for (place, command) in log.iter().enumerate() {
            if place == cut {
                snapshot = state.to_snapshot();
            }
            // Indices may be left out: a log of a cluster has entries of its own.
            let index = place as u64 * 2 + 1;
            let checked = state.check(command);
            let result = state.apply(command, index);
            prop_assert_eq!(checked, result.as_ref().map(|_| ()).map_err(Clone::clone));
            for delta in result.iter().flatten() {
                image.apply(delta);
            }
            applied.push((index, command));
        }
        prop_assert_eq!(&image, &state.image(NODE, 3));

        let mut replayed = Metadata::default();
        let mut resumed = Metadata::from_snapshot(&snapshot).unwrap();
        for (index, command) in applied {
            let _ = replayed.apply(command, index);
            if index > resumed.applied() {
                let _ = resumed.apply(command, index);
            }
        }
        prop_assert_eq!(&replayed, &state);
        prop_assert_eq!(&resumed, &state);
        prop_assert_eq!(replayed.to_snapshot(), resumed.to_snapshot());
    }

    #[test]
    fn no_cut_snapshot_is_one(log in prop::collection::vec(commands(), 0..20), cut in any::<u16>()) {
        let mut state = Metadata::default();
        for command in &log {
            let _ = next(&mut state, command);
        }
        let bytes = state.to_snapshot();
        let cut = usize::from(cut) % bytes.len();
        prop_assert!(Metadata::from_snapshot(&bytes[..cut]).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(Metadata::from_snapshot(&longer).is_err());
    }
}

#[test]
fn snapshot_bytes_are_fixed() {
    let mut state = ready();
    next(&mut state, &create(0xab, "t", 1)).unwrap();
    next(&mut state, &Command::ReserveProducerIds { count: 9 }).unwrap();
    let bytes = state.to_snapshot();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let config: String = TopicConfig::default()
        .stored()
        .iter()
        .flat_map(|entry| [&entry.key, &entry.value])
        .map(|text| {
            let length = format!("{:02x}00", text.len());
            length + &text.bytes().map(|b| format!("{b:02x}")).collect::<String>()
        })
        .collect();
    let golden = [
        "0100",
        "0400000000000000",
        "03000000000000000000000000000000",
        "0a00000000000000",
        "01000000",
        "01000000 01000000000000000000000000000000 0200000000000000",
        "01000000",
        "ab000000000000000000000000000000 0100 74 0300000000000000 e803000000000000 0100",
        "08000000",
        &config,
        "01000000",
        "01000000 01000000 01000000",
    ];
    assert_eq!(hex, golden.concat().replace(' ', ""));
}

#[test]
fn a_new_start_leads_in_a_new_epoch_and_the_same_one_does_not() {
    let mut state = ready();
    next(&mut state, &create(7, "t", 2)).unwrap();
    assert_eq!(
        next(&mut state, &register(1)),
        Ok(Vec::new()),
        "the same process again"
    );
    let deltas = next(&mut state, &register(2)).unwrap();
    assert_eq!(deltas.len(), 2);
    let topic = state.topics().next().unwrap().clone();
    assert_eq!(topic.epoch, MetadataEpoch(state.applied()));
    for partition in &topic.partitions {
        assert_eq!(partition.leader_epoch, LeaderEpoch(2));
        assert_eq!(partition.partition_epoch, PartitionEpoch(2));
    }
    next(
        &mut state,
        &Command::RegisterBroker {
            node: NodeId(2),
            incarnation: 9,
        },
    )
    .unwrap();
    let leads = state.topics().next().unwrap().partitions[0].leader_epoch;
    assert_eq!(
        leads,
        LeaderEpoch(2),
        "another broker's start is no election here"
    );
}

#[test]
fn epochs_rise_across_deletion_and_ids_are_not_mixed_up() {
    let mut state = ready();
    next(&mut state, &create(7, "t", 1)).unwrap();
    let before = state.topics().next().unwrap().epoch;
    assert_eq!(code(&mut state, &create(8, "t", 1)), ErrorCode::TopicExists);
    assert_eq!(code(&mut state, &create(7, "u", 1)), ErrorCode::Internal);
    next(&mut state, &delete("t")).unwrap();
    assert_eq!(code(&mut state, &delete("t")), ErrorCode::UnknownTopic);
    next(&mut state, &create(8, "t", 1)).unwrap();
    assert!(state.topics().next().unwrap().epoch > before);
}

#[test]
fn names_have_limits() {
    let mut state = ready();
    let long = "n".repeat(250);
    for name in ["", ".", "..", "a b", "ä", "a/b", "a\0", long.as_str()] {
        assert_eq!(
            code(&mut state, &create(7, name, 1)),
            ErrorCode::InvalidTopicName,
            "{name:?}"
        );
    }
    let longest = "n".repeat(249);
    for (id, name) in ["...", "a.B_9-", longest.as_str()].into_iter().enumerate() {
        next(&mut state, &create(id as u128 + 1, name, 1)).unwrap();
    }
}

#[test]
fn partitions_and_replicas_have_limits() {
    let mut state = ready();
    for partitions in [0, TOPIC_PARTITIONS_MAX + 1] {
        let refused = code(&mut state, &create(7, "t", partitions));
        assert_eq!(refused, ErrorCode::InvalidPartitions);
    }
    let mut with_replicas = |replicas| {
        let mut command = create(u128::from(replicas) + 20, &format!("r{replicas}"), 1);
        if let Command::CreateTopic {
            replication_factor, ..
        } = &mut command
        {
            *replication_factor = replicas;
        }
        next(&mut state, &command)
    };
    assert!(with_replicas(0).is_ok());
    assert!(with_replicas(1).is_ok());
    let refused = with_replicas(3).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidPartitions);
    assert!(refused.message.contains("on 1 broker;"), "{refused}");

    for topic in 0..2 {
        let fits = create(topic + 1, &format!("big{topic}"), TOPIC_PARTITIONS_MAX - 1);
        next(&mut state, &fits).unwrap();
    }
    let refused = next(&mut state, &create(9, "one-more", 1)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidPartitions);
    next(&mut state, &delete("big0")).unwrap();
    next(&mut state, &create(9, "one-more", 1)).unwrap();
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut state = ready();
    let node = NodeId(2);
    let incarnation = 5;
    let second = Command::RegisterBroker { node, incarnation };
    next(&mut state, &second).unwrap();
    next(&mut state, &create(7, "t", 3)).unwrap();
    let before = state.topics().next().unwrap().clone();
    let deltas = next(&mut state, &grow("t", 6)).unwrap();
    let topic = state.topics().next().unwrap().clone();
    assert_eq!(topic.epoch, MetadataEpoch(state.applied()));
    assert_eq!(
        topic.partitions[..3],
        before.partitions,
        "the old ones stay"
    );
    for pair in topic.partitions.windows(2) {
        assert_ne!(pair[0].leader, pair[1].leader, "leaders go on in turn");
    }
    let [
        Delta::PartitionsAdded {
            id,
            epoch,
            partitions,
        },
    ] = &deltas[..]
    else {
        panic!("{deltas:?}");
    };
    assert_eq!((*id, *epoch), (TopicId(7), topic.epoch));
    assert_eq!(partitions[..], topic.partitions[3..]);

    for too_few in [0, 3, 6] {
        let refused = next(&mut state, &grow("t", too_few)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidPartitions);
        assert!(
            refused.message.contains("6 partitions already"),
            "{refused}"
        );
    }
    let too_many = grow("t", TOPIC_PARTITIONS_MAX + 1);
    assert_eq!(code(&mut state, &too_many), ErrorCode::InvalidPartitions);
    assert_eq!(code(&mut state, &grow("u", 9)), ErrorCode::UnknownTopic);

    // What a topic has counts for the cluster's limit once, also while it grows.
    next(&mut state, &grow("t", TOPIC_PARTITIONS_MAX)).unwrap();
    next(&mut state, &create(8, "u", TOPIC_PARTITIONS_MAX - 1)).unwrap();
    next(&mut state, &grow("u", TOPIC_PARTITIONS_MAX)).unwrap();
    let refused = next(&mut state, &create(9, "v", 1)).unwrap_err();
    assert!(refused.message.contains("room for 0 more"), "{refused}");
}

#[test]
fn without_a_broker_there_is_no_place_for_a_topic() {
    let mut state = Metadata::default();
    assert_eq!(
        code(&mut state, &create(7, "t", 1)),
        ErrorCode::InvalidPartitions
    );
}

#[test]
fn configuration_is_checked_at_creation_and_change() {
    let mut state = ready();
    next(&mut state, &create(7, "t", 1)).unwrap();
    for (key, value) in [
        ("nonsense", "1"),
        ("min_in_sync", "2"),
        ("durability", "disk"),
    ] {
        assert_eq!(
            code(&mut state, &alter("t", key, value)),
            ErrorCode::InvalidConfig,
            "{key}"
        );
    }
    assert_eq!(
        code(&mut state, &alter("u", "codec", "")),
        ErrorCode::UnknownTopic
    );
    let deltas = next(&mut state, &alter("t", "segment_bytes", "1MiB")).unwrap();
    let [Delta::TopicAltered { epoch, config, .. }] = &deltas[..] else {
        panic!("{deltas:?}");
    };
    assert_eq!(
        (*epoch, config.segment_bytes),
        (MetadataEpoch(state.applied()), 1 << 20)
    );
}

#[test]
fn producer_ids_start_at_one_and_never_come_twice() {
    let mut state = ready();
    let mut reserve = |count| next(&mut state, &Command::ReserveProducerIds { count });
    assert_eq!(
        reserve(10),
        Ok(vec![Delta::ProducerIdsReserved {
            first: 1,
            count: 10
        }])
    );
    assert_eq!(
        reserve(1),
        Ok(vec![Delta::ProducerIdsReserved {
            first: 11,
            count: 1
        }])
    );
    assert!(reserve(0).is_err());
    assert!(reserve(PRODUCER_IDS_MAX + 1).is_err());
}

#[test]
fn a_cluster_has_one_identity() {
    let mut state = ready();
    assert_eq!(
        code(&mut state, &Command::CreateCluster { cluster_id: 4 }),
        ErrorCode::Internal
    );
    assert_eq!(state.cluster_id(), 3);
}

#[test]
#[should_panic(expected = "comes after entry 2")]
fn an_entry_never_counts_twice() {
    let mut state = ready();
    let _ = state.apply(&register(2), 2);
}

#[test]
fn a_hostile_name_is_shown_short_and_quoted() {
    let shown = shown(&"\n".repeat(5_000));
    assert!(shown.len() < 1_000 && !shown.contains('\n'));
}
