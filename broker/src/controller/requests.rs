//! The requests that change metadata: each becomes a command, and what came of it the reply.

use std::cell::Cell;
use std::rc::Rc;

use ringway_engine::limits::PRODUCER_IDS_BLOCK;
use ringway_engine::meta::{Command, Delta};
use ringway_wire::request::{
    AddPartitionsReply, AddPartitionsRequest, CreateTopicReply, CreateTopicRequest,
    InitProducerReply, Reply, Request, TopicReply,
};
use ringway_wire::{ErrorCode, Fault, ProducerEpoch, ProducerId, TopicId};

use super::meta_log::MetaLog;
use super::outside;

/// Answers requests by way of the log. Clones share their producer ids.
#[derive(Clone, Debug)]
pub(super) struct Requests<L> {
    log: L,
    /// Producer ids that are reserved and not given away: the next one, and the end.
    ids: Rc<Cell<(u64, u64)>>,
}

impl<L: MetaLog> Requests<L> {
    pub(super) fn new(log: L) -> Self {
        Self {
            log,
            ids: Rc::default(),
        }
    }

    pub(super) const fn log(&self) -> &L {
        &self.log
    }

    /// The reply to a request that a shard passed on.
    pub(super) async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::CreateTopic(request) => Reply::CreateTopic(self.create(request).await),
            Request::AlterTopic(request) => {
                let name = request.name;
                let config = request.config;
                Reply::AlterTopic(self.change(Command::AlterTopic { name, config }).await)
            }
            Request::AddPartitions(request) => {
                Reply::AddPartitions(self.add_partitions(request).await)
            }
            Request::DeleteTopic(request) => {
                let name = request.name;
                Reply::DeleteTopic(self.change(Command::DeleteTopic { name }).await)
            }
            Request::InitProducer(_) => Reply::InitProducer(self.init_producer().await),
            other => refusal(
                &other,
                Fault::new(
                    ErrorCode::Internal,
                    "a shard passed on what it has to answer itself",
                ),
            ),
        }
    }

    async fn create(&self, request: CreateTopicRequest) -> CreateTopicReply {
        let command = Command::CreateTopic {
            id: TopicId(outside::random()),
            name: request.name,
            partitions: request.partitions,
            replication_factor: request.replication_factor,
            config: request.config,
            created_us: outside::unix_us(),
        };
        match self.log.propose(command).await.as_deref() {
            Ok([Delta::TopicCreated(topic)]) => {
                tracing::info!(
                    topic = topic.name,
                    id = %topic.id,
                    partitions = topic.partitions.len(),
                    "topic created"
                );
                CreateTopicReply {
                    fault: None,
                    topic: topic.id,
                    epoch: topic.epoch,
                }
            }
            Ok(_) => unreachable!("a topic was created, and nothing else"),
            Err(fault) => CreateTopicReply {
                fault: Some(fault.clone()),
                ..CreateTopicReply::default()
            },
        }
    }

    async fn change(&self, command: Command) -> TopicReply {
        let what = match &command {
            Command::DeleteTopic { name } => format!("topic {name:?} deleted"),
            Command::AlterTopic { name, .. } => format!("topic {name:?} altered"),
            other => format!("{other:?}"),
        };
        let fault = self.log.propose(command).await.err();
        if fault.is_none() {
            tracing::info!("{what}");
        }
        TopicReply { fault }
    }

    async fn add_partitions(&self, request: AddPartitionsRequest) -> AddPartitionsReply {
        let AddPartitionsRequest { name, partitions } = request;
        let command = Command::AddPartitions {
            name: name.clone(),
            partitions,
        };
        match self.log.propose(command).await.as_deref() {
            Ok([Delta::PartitionsAdded { epoch, .. }]) => {
                tracing::info!(topic = name, partitions, "partitions added");
                AddPartitionsReply {
                    fault: None,
                    epoch: *epoch,
                }
            }
            Ok(_) => unreachable!("partitions were added, and nothing else"),
            Err(fault) => AddPartitionsReply {
                fault: Some(fault.clone()),
                ..AddPartitionsReply::default()
            },
        }
    }

    async fn init_producer(&self) -> InitProducerReply {
        match self.next_producer_id().await {
            Ok(producer_id) => InitProducerReply {
                fault: None,
                producer_id,
                producer_epoch: ProducerEpoch(0),
            },
            Err(fault) => InitProducerReply {
                fault: Some(fault),
                ..InitProducerReply::default()
            },
        }
    }

    async fn next_producer_id(&self) -> Result<ProducerId, Fault> {
        let take = || {
            let (next, end) = self.ids.get();
            self.ids.set((next + 1, end));
            ProducerId(next)
        };
        if self.ids.get().0 < self.ids.get().1 {
            return Ok(take());
        }
        let count = PRODUCER_IDS_BLOCK;
        match self
            .log
            .propose(Command::ReserveProducerIds { count })
            .await?[..]
        {
            [Delta::ProducerIdsReserved { first, count }] => {
                // Of two that came back at once the later block is used, the rest of the other
                // is never: there are enough.
                self.ids.set((first, first + u64::from(count)));
                Ok(take())
            }
            _ => unreachable!("ids were reserved, and nothing else"),
        }
    }
}

/// The reply to a request that isn't answered, with the reason.
pub(super) fn refusal(request: &Request, fault: Fault) -> Reply {
    use ringway_wire::request as wire;
    let fault = Some(fault);
    macro_rules! refuse {
        ($($kind:ident $reply:ident,)*) => {
            match request {
                $(Request::$kind(_) => Reply::$kind(wire::$reply { fault, ..Default::default() }),)*
                Request::AlterTopic(_) => Reply::AlterTopic(TopicReply { fault }),
                Request::DeleteTopic(_) => Reply::DeleteTopic(TopicReply { fault }),
            }
        };
    }
    refuse! {
        Hello HelloReply,
        Metadata MetadataReply,
        Produce ProduceReply,
        Fetch FetchReply,
        ListOffsets ListOffsetsReply,
        CreateTopic CreateTopicReply,
        DescribeTopic DescribeTopicReply,
        InitProducer InitProducerReply,
        AddPartitions AddPartitionsReply,
        Trim TrimReply,
    }
}
