//! `/status`: the broker, its shards, and every partition's place and state, as JSON.

use std::collections::HashMap;
use std::time::Duration;

use ringway_engine::meta::{Image, Topic};
use ringway_wire::{ShardId, TopicPartition};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::admin::{About, Health};
use super::meta_log::Membership;
use super::outbox::Outbox;
use crate::shard_proxy::{PartitionStatus, ScrapeReply, ShardStatus, ToShard};

/// How long a shard may take to say how it is, until it counts as not responding.
const SCRAPE_MAX: Duration = Duration::from_secs(1);

/// Asks every shard how it is.
pub(super) fn ask_all(outbox: &mut Outbox) -> Vec<oneshot::Receiver<ShardStatus>> {
    (0..outbox.shards())
        .map(|shard| {
            let (reply, receiver) = ScrapeReply::new();
            outbox.send(ShardId(shard as u16), ToShard::Scrape(reply));
            receiver
        })
        .collect()
}

/// What the shards said, by shard; `None` of one that doesn't respond.
pub(super) async fn collect(
    asked: Vec<oneshot::Receiver<ShardStatus>>,
) -> Vec<Option<ShardStatus>> {
    let mut answers: Vec<_> = asked.iter().map(|_| None).collect();
    let all = async {
        for (answer, asked) in answers.iter_mut().zip(asked) {
            *answer = asked.await.ok();
        }
    };
    let _ = timeout(SCRAPE_MAX, all).await;
    answers
}

/// Where the metadata log is.
pub(super) struct Place {
    /// Everything up to here is committed; `None` when the log has failed.
    pub(super) committed: Option<u64>,
    pub(super) membership: Membership,
}

/// The whole document.
pub(super) fn to_json(
    about: &About,
    health: &Health,
    place: &Place,
    image: &Image,
    shards: &[Option<ShardStatus>],
) -> Value {
    let known: HashMap<TopicPartition, &PartitionStatus> = shards
        .iter()
        .flatten()
        .flat_map(|shard| &shard.partitions)
        .map(|partition| (partition.at, partition))
        .collect();
    json!({
        "broker": {
            "node": image.node().0,
            "cluster_id": format!("{:032x}", image.cluster_id()),
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started_us": about.started_us,
            "state": health.name(),
            "reason": health.reason(),
            "listen": about.ready.listen,
            "admin": about.ready.admin,
        },
        "metadata": {
            "committed": place.committed,
            "leader": place.membership.leader.map(|node| node.0),
            "voters": place.membership.voters.iter().map(|node| node.0).collect::<Vec<_>>(),
        },
        "shards": shards.iter().enumerate().map(|(shard, status)| json!({
            "shard": shard,
            "listen": about.ready.shards.get(shard),
            "responds": status.is_some(),
            "partitions": status.as_ref().map(|status| status.partitions.len()),
        })).collect::<Vec<_>>(),
        "topics": image.topics().map(|topic| topic_json(image, topic, &known)).collect::<Vec<_>>(),
    })
}

fn topic_json(
    image: &Image,
    topic: &Topic,
    known: &HashMap<TopicPartition, &PartitionStatus>,
) -> Value {
    let partitions = topic.indexed().map(|(index, partition)| {
        let at = topic.at(index);
        let mut value = json!({
            "partition": index.0,
            "leader": partition.leader.0,
            "leader_epoch": partition.leader_epoch.0,
            "shard": image.owner(at).map(|shard| shard.0),
        });
        match known.get(&at) {
            Some(status) => {
                value["state"] = json!(status.state);
                value["log_start"] = json!(status.log_start.0);
                value["high_watermark"] = json!(status.high_watermark.0);
                value["log_end"] = json!(status.log_end.0);
                value["log_bytes"] = json!(status.log_bytes);
            }
            None => value["state"] = json!("unknown"),
        }
        value
    });
    json!({
        "name": topic.name,
        "id": topic.id.to_string(),
        "epoch": topic.epoch.0,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
