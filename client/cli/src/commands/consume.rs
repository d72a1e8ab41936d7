//! `ringway consume`: plans where each partition starts and ends, then writes what comes.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use ringway_client::{
    Batch, Client, ConsumeError, Consumer, Offset, OffsetAt, PartitionIndex, PartitionOffsets,
    StartAt,
};

use crate::args::{ConsumeArgs, GlobalArgs, StartFrom};
use crate::commands::connect;
use crate::commands::offsets::{chosen, look_up_at};
use crate::exit::{Exit, Failure};
use crate::format::Format;
use crate::interrupt::Interrupt;
use crate::output::{Output, Reader, tell};
use crate::units::{bytes, count, plural, rate};

/// Carries out `ringway consume`.
pub(super) async fn run(global: &GlobalArgs, args: &ConsumeArgs) -> Result<(), Failure> {
    let client = connect(global).await?;
    let environment = |error: std::io::Error| Failure::new(Exit::Environment, error.to_string());
    let watched = Watched {
        interrupt: Interrupt::watch().map_err(environment)?,
        reader: Reader::watch().map_err(environment)?,
    };
    let plan = plan(&client, args).await?;
    let mut consumer = client.consumer().profile(args.profile.into()).build();
    assign(&mut consumer, args, &plan)
        .await
        .map_err(|error| stopped(&error))?;
    let format = match (&args.format, global.json()) {
        (Some(format), _) => format.clone(),
        (None, true) => Format::Json,
        (None, false) => Format::default(),
    };
    let mut writing = Writing {
        format,
        output: Output::stdout()?,
        topic: &args.topic,
        ends: plan
            .iter()
            .filter_map(|plan| Some((plan.partition, plan.end?)))
            .collect(),
        until_end: args.until_end,
        left: args.count.unwrap_or(u64::MAX),
        records: 0,
    };
    let started = Instant::now();
    let ended = writing.follow(&mut consumer, watched).await;
    writing.output.flush()?;
    if ended? == Ended::Interrupted {
        writing.summarise(started, global.json());
    }
    Ok(())
}

/// Assigns the plan. Partitions that start alike and never end are assigned as "all", so that those
/// which the topic gets later are read too.
async fn assign(
    consumer: &mut Consumer,
    args: &ConsumeArgs,
    plan: &[Planned],
) -> Result<(), ConsumeError> {
    if let (None, false, Some(start)) = (args.partition, args.until_end, simple(args.from)) {
        return consumer.assign(&args.topic, None, start).await;
    }
    for planned in plan {
        consumer
            .assign(&args.topic, Some(&[planned.partition]), planned.start)
            .await?;
    }
    Ok(())
}

/// A start that is the same for every partition and needs no looking up.
fn simple(from: StartFrom) -> Option<StartAt> {
    match from {
        StartFrom::Start => Some(StartAt::Start),
        StartFrom::End => Some(StartAt::End),
        StartFrom::TimeUs(us) => Some(StartAt::TimeUs(us)),
        StartFrom::Offset(_) => None,
    }
}

/// Where a partition starts and, if it does, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    partition: PartitionIndex,
    start: StartAt,
    end: Option<Offset>,
}

/// Decides where each partition starts and ends. Partitions with nothing to read before their end
/// are left out.
async fn plan(client: &Client, args: &ConsumeArgs) -> Result<Vec<Planned>, Failure> {
    let partitions = chosen(client, &args.topic, args.partition).await?;
    if let Some(start) = simple(args.from)
        && !args.until_end
    {
        let planned = |partition| Planned {
            partition,
            start,
            end: None,
        };
        return Ok(partitions.into_iter().map(planned).collect());
    }
    let at = match args.from {
        StartFrom::Start | StartFrom::Offset(_) => OffsetAt::Start,
        StartFrom::End => OffsetAt::End,
        StartFrom::TimeUs(us) => OffsetAt::AppendTimeUs(us),
    };
    let found = look_up_at(client, &args.topic, &partitions, at).await;
    let mut planned = Vec::with_capacity(partitions.len());
    for (partition, offsets) in partitions.into_iter().zip(found) {
        planned.extend(plan_one(args, partition, &offsets?)?);
    }
    Ok(planned)
}

/// Decides for one partition from its ends; `None` when its end is reached already.
fn plan_one(
    args: &ConsumeArgs,
    partition: PartitionIndex,
    offsets: &PartitionOffsets,
) -> Result<Option<Planned>, Failure> {
    let (first, end) = (offsets.log_start, offsets.high_watermark);
    let start = match args.from {
        StartFrom::Offset(wanted) => {
            let nearest = Offset(wanted.clamp(first.0, end.0.max(first.0)));
            if nearest.0 != wanted && args.partition.is_some() {
                return Err(Failure::new(
                    Exit::Refused,
                    format!(
                        "{}/{partition}: offset {wanted} is not in the log, which goes from {first} \
                         to {end}: choose --from within it, start or end",
                        args.topic
                    ),
                ));
            }
            nearest
        }
        StartFrom::Start | StartFrom::End | StartFrom::TimeUs(_) => offsets.offset,
    };
    if args.until_end && start >= end {
        return Ok(None);
    }
    Ok(Some(Planned {
        partition,
        // From the start means that also when the log's start moves on in between.
        start: match args.from {
            StartFrom::Start => StartAt::Start,
            _ => StartAt::Offset(start.0),
        },
        end: args.until_end.then_some(end),
    }))
}

/// An error of the consumer, with the options that go on behind it.
fn stopped(error: &ConsumeError) -> Failure {
    let partition = match error {
        ConsumeError::OffsetOutOfRange { partition, .. }
        | ConsumeError::LogTruncated { partition, .. }
        | ConsumeError::Damaged { partition, .. }
        | ConsumeError::WrongBatch { partition, .. } => Some(partition),
        _ => None,
    };
    match (Failure::from(error), partition, error.safe_offset()) {
        (Failure::Told { exit, message }, Some(partition), Some(offset)) => Failure::new(
            exit,
            format!("{message}; here that is --partition {partition} --from {offset}"),
        ),
        (failure, ..) => failure,
    }
}

/// What may end the following.
struct Watched {
    interrupt: Interrupt,
    reader: Reader,
}

/// Why the following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Everything asked for was written.
    Done,
    /// The user asked for it.
    Interrupted,
    /// Nobody reads the output any more.
    Unread,
}

/// Writes batches until the end.
struct Writing<'a> {
    format: Format,
    output: Output,
    topic: &'a str,
    /// Partitions that haven't reached their end, and the end.
    ends: BTreeMap<PartitionIndex, Offset>,
    until_end: bool,
    /// Records still wanted.
    left: u64,
    records: u64,
}

impl Writing<'_> {
    async fn follow(
        &mut self,
        consumer: &mut Consumer,
        mut watched: Watched,
    ) -> Result<Ended, Failure> {
        while !self.done() {
            if watched.interrupt.is_asked() {
                return Ok(Ended::Interrupted);
            }
            let mut next = pin!(consumer.next_batch());
            let ready = poll_fn(|context| match next.as_mut().poll(context) {
                Poll::Ready(batch) => Poll::Ready(Some(batch)),
                Poll::Pending => Poll::Ready(None),
            });
            let batch = match ready.await {
                Some(batch) => batch,
                // Nothing is waiting: what was formatted goes out before anything else.
                None => {
                    self.output.flush()?;
                    tokio::select! {
                        batch = &mut next => batch,
                        () = watched.interrupt.asked() => return Ok(Ended::Interrupted),
                        () = watched.reader.gone() => return Ok(Ended::Unread),
                    }
                }
            };
            self.write(&batch.map_err(|error| stopped(&error))?)?;
        }
        Ok(Ended::Done)
    }

    fn done(&self) -> bool {
        self.left == 0 || (self.until_end && self.ends.is_empty())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let partition = batch.partition();
        let end = match (self.until_end, self.ends.get(&partition)) {
            (false, _) => Offset(u64::MAX),
            (true, Some(&end)) => end,
            (true, None) => return Ok(()),
        };
        for record in batch.records() {
            if record.offset >= end || self.left == 0 {
                break;
            }
            self.format
                .write(self.topic, partition, &record, self.output.buffer());
            self.output.spill()?;
            self.left -= 1;
            self.records += 1;
        }
        if batch.next_offset() >= end {
            self.ends.remove(&partition);
        }
        Ok(())
    }

    fn summarise(&self, started: Instant, json: bool) {
        let time = started.elapsed();
        let written = self.output.bytes();
        tell(&if json {
            serde_json::json!({
                "topic": self.topic,
                "records": self.records,
                "bytes_written": written,
                "seconds": time.as_secs_f64(),
            })
            .to_string()
        } else {
            format!(
                "{} {} from {} in {:.2} s: {} written, {} records/s",
                count(self.records),
                plural(self.records, "record", "records"),
                self.topic,
                time.as_secs_f64(),
                bytes(written as f64),
                count(rate(self.records, time) as u64),
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ringway_client::LeaderEpoch;

    use super::*;
    use crate::args::{Cli, Command};

    fn planned(line: &str, start: u64, end: u64, found: u64) -> Result<Option<Planned>, Failure> {
        let line = format!("ringway consume t {line}");
        let Command::Consume(args) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("not consume: {line}");
        };
        let offsets = PartitionOffsets {
            offset: Offset(found),
            log_start: Offset(start),
            high_watermark: Offset(end),
            log_bytes: 0,
            leader_epoch: LeaderEpoch(1),
        };
        plan_one(&args, PartitionIndex(2), &offsets)
    }

    fn start(line: &str) -> Option<StartAt> {
        planned(line, 10, 20, 12).unwrap().map(|plan| plan.start)
    }

    #[test]
    fn an_end_is_read_once_and_empty_partitions_are_left_out() {
        let plan = planned("--until-end", 10, 20, 10).unwrap().unwrap();
        assert_eq!((plan.start, plan.end), (StartAt::Start, Some(Offset(20))));
        assert_eq!(planned("--until-end", 0, 0, 0).unwrap(), None);
        assert_eq!(planned("--until-end", 20, 20, 20).unwrap(), None);
        assert_eq!(planned("--until-end --from end", 10, 20, 20).unwrap(), None);
        assert_eq!(planned("--until-end --from 20", 10, 20, 10).unwrap(), None);
        assert_eq!(planned("--from 20", 10, 20, 10).unwrap().unwrap().end, None);
    }

    #[test]
    fn damage_is_told_with_the_options_that_go_on_behind_it() {
        let failure = stopped(&ConsumeError::Damaged {
            topic: "t".into(),
            partition: PartitionIndex(3),
            offset: Offset(5),
            safe_offset: Offset(17),
            message: "wrong CRC".to_owned(),
        });
        assert!(
            failure.to_string().ends_with("--partition 3 --from 17"),
            "{failure}"
        );
    }

    #[test]
    fn a_time_starts_where_it_was_found() {
        assert_eq!(start("--until-end --from @5"), Some(StartAt::Offset(12)));
    }

    #[test]
    fn an_offset_outside_is_moved_or_with_one_partition_refused() {
        assert_eq!(start("--from 3"), Some(StartAt::Offset(10)));
        assert_eq!(start("--from 15"), Some(StartAt::Offset(15)));
        assert_eq!(start("--from 99"), Some(StartAt::Offset(20)));
        assert_eq!(start("--partition 2 --from 15"), Some(StartAt::Offset(15)));
        for wrong in ["--partition 2 --from 9", "--partition 2 --from 21"] {
            let failure = planned(wrong, 10, 20, 10).unwrap_err();
            assert!(
                matches!(
                    failure,
                    Failure::Told {
                        exit: Exit::Refused,
                        ..
                    }
                ),
                "{wrong}"
            );
        }
    }
}
