//! `ringway offsets`, and the looking up that other commands share.

use ringway_client::{
    Client, OffsetAt, PartitionIndex, PartitionOffsets, RequestError, TopicDescription,
};
use tokio::task::JoinSet;

use crate::args::GlobalArgs;
use crate::commands::connect;
use crate::exit::{Exit, Failure};
use crate::limits::LOOK_UPS;
use crate::output::{print, print_json};
use crate::table::{Side, Table};

/// The partitions of a topic.
pub(super) fn indices(topic: &TopicDescription) -> Vec<PartitionIndex> {
    topic
        .partitions
        .iter()
        .map(|partition| partition.partition)
        .collect()
}

/// Looks up the ends of partitions, in their order.
pub(super) async fn look_up(
    client: &Client,
    topic: &str,
    partitions: &[PartitionIndex],
) -> Vec<Result<PartitionOffsets, RequestError>> {
    look_up_at(client, topic, partitions, OffsetAt::End).await
}

/// Looks up a place in partitions, in their order, many at a time.
pub(super) async fn look_up_at(
    client: &Client,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetAt,
) -> Vec<Result<PartitionOffsets, RequestError>> {
    let mut found: Vec<_> = partitions
        .iter()
        .map(|_| Err(RequestError::Closed))
        .collect();
    let mut waiting = partitions.iter().copied().enumerate();
    let mut running = JoinSet::new();
    loop {
        while running.len() < LOOK_UPS
            && let Some((index, partition)) = waiting.next()
        {
            let (admin, topic) = (client.admin(), topic.to_owned());
            running.spawn(async move { (index, admin.offsets(&topic, partition, at).await) });
        }
        match running.join_next().await {
            None => return found,
            Some(Ok((index, result))) => found[index] = result,
            Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Carries out `ringway offsets`.
pub(super) async fn run(global: &GlobalArgs, name: &str) -> Result<(), Failure> {
    let client = connect(global).await?;
    let partitions = indices(&client.admin().describe_topic(name).await?);
    let mut rows = Vec::with_capacity(partitions.len());
    let mut failed = None;
    for (partition, found) in partitions
        .iter()
        .zip(look_up(&client, name, &partitions).await)
    {
        match found {
            Ok(offsets) => rows.push((*partition, offsets)),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    print_offsets(global, name, &rows)?;
    // What could be had is shown; that something is missing shows in the exit code.
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn records(offsets: &PartitionOffsets) -> u64 {
    offsets.high_watermark.0.saturating_sub(offsets.log_start.0)
}

fn print_offsets(
    global: &GlobalArgs,
    name: &str,
    rows: &[(PartitionIndex, PartitionOffsets)],
) -> Result<(), Failure> {
    let records_sum: u64 = rows.iter().map(|(_, offsets)| records(offsets)).sum();
    let bytes_sum: u64 = rows.iter().map(|(_, offsets)| offsets.log_bytes).sum();
    if global.json() {
        let partitions: Vec<_> = rows
            .iter()
            .map(|(partition, offsets)| {
                serde_json::json!({
                    "partition": partition.0,
                    "start": offsets.log_start.0,
                    "end": offsets.high_watermark.0,
                    "records": records(offsets),
                    "bytes": offsets.log_bytes,
                })
            })
            .collect();
        return print_json(&serde_json::json!({
            "topic": name, "partitions": partitions, "records": records_sum, "bytes": bytes_sum,
        }));
    }
    let mut table = Table::new([
        ("PARTITION", Side::Right),
        ("START", Side::Right),
        ("END", Side::Right),
        ("RECORDS", Side::Right),
        ("BYTES", Side::Right),
    ]);
    for (partition, offsets) in rows {
        table.row([
            partition.to_string(),
            offsets.log_start.to_string(),
            offsets.high_watermark.to_string(),
            records(offsets).to_string(),
            offsets.log_bytes.to_string(),
        ]);
    }
    if rows.len() > 1 {
        let (records, bytes) = (records_sum.to_string(), bytes_sum.to_string());
        table.row([
            "all".to_owned(),
            String::new(),
            String::new(),
            records,
            bytes,
        ]);
    }
    print(&table.render())
}

/// The partitions of a topic, or the one asked for.
pub(super) async fn chosen(
    client: &Client,
    topic: &str,
    partition: Option<u32>,
) -> Result<Vec<PartitionIndex>, Failure> {
    let all = indices(&client.admin().describe_topic(topic).await?);
    let Some(wanted) = partition.map(PartitionIndex) else {
        return Ok(all);
    };
    if all.contains(&wanted) {
        return Ok(vec![wanted]);
    }
    let count = all.len();
    let word = crate::units::plural(count as u64, "partition", "partitions");
    let message =
        format!("topic {topic} has no partition {wanted}: it has {count} {word}, counted from 0");
    Err(Failure::new(Exit::NotFound, message))
}
