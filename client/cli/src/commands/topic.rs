//! `ringway topic …`.

use std::time::{Duration, UNIX_EPOCH};

use ringway_client::{
    NewTopic, Offset, PartitionIndex, PartitionMetadata, PartitionOffsets, TopicDescription,
    TrimBefore,
};

use crate::args::{
    AddPartitionsArgs, AlterArgs, Before, CreateArgs, GlobalArgs, KeyValue, TopicCommand, TrimArgs,
};
use crate::commands::connect;
use crate::commands::offsets::{indices, look_up};
use crate::exit::Failure;
use crate::output::{print, print_json, tell};
use crate::table::{Side, Table};

/// Carries out a topic command.
pub(super) async fn run(global: &GlobalArgs, command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(global, args).await,
        TopicCommand::List => list(global).await,
        TopicCommand::Describe(args) => describe(global, &args.name).await,
        TopicCommand::Delete(args) => delete(global, &args.name).await,
        TopicCommand::Alter(args) => alter(global, args).await,
        TopicCommand::AddPartitions(args) => add_partitions(global, args).await,
        TopicCommand::Trim(args) => trim(global, args).await,
    }
}

fn pairs(config: &[KeyValue]) -> Vec<(String, String)> {
    config
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect()
}

async fn create(global: &GlobalArgs, args: &CreateArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let mut topic = NewTopic::new(&args.name).partitions(args.partitions);
    for (key, value) in pairs(&args.config) {
        topic = topic.config(key, value);
    }
    let id = admin.create_topic(topic).await?;
    if global.json() {
        return print_json(&serde_json::json!({
            "topic": args.name, "id": id.to_string(), "partitions": args.partitions,
        }));
    }
    let word = crate::units::plural(args.partitions.into(), "partition", "partitions");
    print(&format!(
        "created {} with {} {word}\n",
        args.name, args.partitions
    ))
}

async fn list(global: &GlobalArgs) -> Result<(), Failure> {
    let mut topics = connect(global).await?.admin().list_topics().await?;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if global.json() {
        let topics: Vec<_> = topics
            .iter()
            .map(|topic| {
                serde_json::json!({
                    "topic": topic.name,
                    "id": topic.topic.to_string(),
                    "partitions": topic.partitions.len(),
                })
            })
            .collect();
        return print_json(&serde_json::json!({ "topics": topics }));
    }
    let mut table = Table::new([("TOPIC", Side::Left), ("PARTITIONS", Side::Right)]);
    for topic in topics {
        table.row([topic.name, topic.partitions.len().to_string()]);
    }
    print(&table.render())
}

async fn delete(global: &GlobalArgs, name: &str) -> Result<(), Failure> {
    connect(global).await?.admin().delete_topic(name).await?;
    if global.json() {
        return print_json(&serde_json::json!({ "topic": name, "deleted": true }));
    }
    print(&format!("deleted {name}\n"))
}

async fn alter(global: &GlobalArgs, args: &AlterArgs) -> Result<(), Failure> {
    let config = pairs(&args.config);
    connect(global)
        .await?
        .admin()
        .alter_topic(&args.name, &config)
        .await?;
    if global.json() {
        let config: serde_json::Map<_, _> = config
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        return print_json(&serde_json::json!({ "topic": args.name, "config": config }));
    }
    let count = config.len() as u64;
    let word = crate::units::plural(count, "key", "keys");
    print(&format!("changed {count} {word} of {}\n", args.name))
}

async fn add_partitions(global: &GlobalArgs, args: &AddPartitionsArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let epoch = admin.add_partitions(&args.name, args.to).await?;
    if global.json() {
        return print_json(&serde_json::json!({
            "topic": args.name, "partitions": args.to, "metadata_epoch": epoch.0,
        }));
    }
    print(&format!("{} has {} partitions now\n", args.name, args.to))
}

async fn trim(global: &GlobalArgs, args: &TrimArgs) -> Result<(), Failure> {
    let before = match args.before {
        Before::Offset(offset) => TrimBefore::Offset(Offset(offset)),
        Before::TimeUs(time_us) => TrimBefore::AppendTimeUs(time_us),
    };
    let admin = connect(global).await?.admin();
    let start = admin
        .trim(&args.name, PartitionIndex(args.partition), before)
        .await?;
    if global.json() {
        return print_json(&serde_json::json!({
            "topic": args.name, "partition": args.partition, "start": start.0,
        }));
    }
    print(&format!(
        "{}/{} starts at offset {start} now\n",
        args.name, args.partition
    ))
}

async fn describe(global: &GlobalArgs, name: &str) -> Result<(), Failure> {
    let client = connect(global).await?;
    let topic = client.admin().describe_topic(name).await?;
    let looked_up = look_up(&client, name, &indices(&topic)).await;
    let offsets: Vec<_> = looked_up
        .iter()
        .map(|result| result.as_ref().ok())
        .collect();
    // A partition that can't be reached doesn't hide the others.
    for error in looked_up.iter().filter_map(|result| result.as_ref().err()) {
        tell(&format!("ringway: {error}"));
    }
    if global.json() {
        return print_json(&description_json(&topic, &offsets));
    }
    print(&description(&topic, &offsets))
}

type Offsets<'a> = [Option<&'a PartitionOffsets>];

/// Microseconds since 1970 as date and time in UTC.
fn date(us: i64) -> String {
    let since = Duration::from_micros(us.max(0).unsigned_abs());
    UNIX_EPOCH.checked_add(since).map_or_else(
        || us.to_string(),
        |time| humantime::format_rfc3339_millis(time).to_string(),
    )
}

fn description(topic: &TopicDescription, offsets: &Offsets<'_>) -> String {
    let mut facts = Table::new([("TOPIC", Side::Left), (":", Side::Left)]);
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("name", topic.name.clone());
    fact("id", topic.topic.to_string());
    fact("created", date(topic.created_us));
    fact("partitions", topic.partitions.len().to_string());
    fact("replicas", topic.replication_factor.to_string());
    for (key, value) in &topic.config {
        fact(key, value.clone());
    }
    let mut table = Table::new([
        ("PARTITION", Side::Right),
        ("LEADER", Side::Right),
        ("SHARD", Side::Right),
        ("EPOCH", Side::Right),
        ("START", Side::Right),
        ("END", Side::Right),
        ("BYTES", Side::Right),
    ]);
    for (partition, offsets) in topic.partitions.iter().zip(offsets) {
        let of = |what: fn(&PartitionOffsets) -> u64| {
            offsets.map_or_else(|| "-".to_owned(), |offsets| what(offsets).to_string())
        };
        table.row([
            partition.partition.to_string(),
            partition.leader.to_string(),
            partition.shard.to_string(),
            partition.leader_epoch.to_string(),
            of(|offsets| offsets.log_start.0),
            of(|offsets| offsets.high_watermark.0),
            of(|offsets| offsets.log_bytes),
        ]);
    }
    let facts = facts.render();
    // The facts need no title.
    let facts = facts.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{facts}\n{}", table.render())
}

fn description_json(topic: &TopicDescription, offsets: &Offsets<'_>) -> serde_json::Value {
    let config: serde_json::Map<_, _> = topic
        .config
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let partition = |(partition, offsets): (&PartitionMetadata, &Option<&PartitionOffsets>)| {
        serde_json::json!({
            "partition": partition.partition.0,
            "leader": partition.leader.0,
            "shard": partition.shard.0,
            "leader_epoch": partition.leader_epoch.0,
            "start": offsets.map(|offsets| offsets.log_start.0),
            "end": offsets.map(|offsets| offsets.high_watermark.0),
            "bytes": offsets.map(|offsets| offsets.log_bytes),
        })
    };
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .zip(offsets)
        .map(partition)
        .collect();
    serde_json::json!({
        "topic": topic.name,
        "id": topic.topic.to_string(),
        "metadata_epoch": topic.epoch.0,
        "created_ms": topic.created_us.div_euclid(1_000),
        "replication_factor": topic.replication_factor,
        "config": config,
        "partitions": partitions,
    })
}

#[cfg(test)]
mod tests {
    use ringway_client::{
        LeaderEpoch, MetadataEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId,
    };

    use super::*;

    fn topic() -> TopicDescription {
        let partition = |index| PartitionMetadata {
            partition: PartitionIndex(index),
            leader: NodeId(1),
            shard: ShardId(index as u16),
            leader_epoch: LeaderEpoch(5),
            ..PartitionMetadata::default()
        };
        TopicDescription {
            name: "orders".to_owned(),
            topic: TopicId(0xab),
            epoch: MetadataEpoch(9),
            created_us: 1_700_000_000_123_456,
            replication_factor: 1,
            config: vec![("durability".to_owned(), "fsync".to_owned())],
            partitions: vec![partition(0), partition(1)],
        }
    }

    const OFFSETS: PartitionOffsets = PartitionOffsets {
        offset: Offset(3),
        log_start: Offset(3),
        high_watermark: Offset(10),
        log_bytes: 4096,
        leader_epoch: LeaderEpoch(5),
    };

    #[test]
    fn a_description_has_configuration_and_partitions() {
        let text = description(&topic(), &[Some(&OFFSETS), None]);
        let expected = "\
name        orders
id          000000000000000000000000000000ab
created     2023-11-14T22:13:20.123Z
partitions  2
replicas    1
durability  fsync

PARTITION  LEADER  SHARD  EPOCH  START  END  BYTES
        0       1      0      5      3   10   4096
        1       1      1      5      -    -      -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_the_same() {
        let json = description_json(&topic(), &[Some(&OFFSETS), None]);
        assert_eq!(json["config"]["durability"], "fsync");
        assert_eq!(json["created_ms"], 1_700_000_000_123_i64);
        assert_eq!(json["partitions"][0]["end"], 10);
        assert_eq!(json["partitions"][1]["end"], serde_json::Value::Null);
    }
}
