//! Replies that say no, for requests that never reached the engine.

use ringway_wire::frame::{REPLY, encode_head};
use ringway_wire::request::{
    AddPartitionsReply, CreateTopicReply, DescribeTopicReply, FetchReply, Head as _, HelloReply,
    InitProducerReply, ListOffsetsReply, MetadataReply, ProduceReply, Reply, RequestKind,
    TopicReply, TrimReply,
};
use ringway_wire::{CorrelationId, Fault};

/// The reply to a request of a kind that carries nothing but a fault.
pub(crate) fn refused(kind: RequestKind, fault: Fault) -> Reply {
    let fault = Some(fault);
    macro_rules! reply {
        ($kind:ident, $reply:ident) => {
            Reply::$kind($reply {
                fault,
                ..$reply::default()
            })
        };
    }
    match kind {
        RequestKind::Hello => reply!(Hello, HelloReply),
        RequestKind::Metadata => reply!(Metadata, MetadataReply),
        RequestKind::Produce => reply!(Produce, ProduceReply),
        RequestKind::Fetch => reply!(Fetch, FetchReply),
        RequestKind::ListOffsets => reply!(ListOffsets, ListOffsetsReply),
        RequestKind::CreateTopic => reply!(CreateTopic, CreateTopicReply),
        RequestKind::AlterTopic => Reply::AlterTopic(TopicReply { fault }),
        RequestKind::DeleteTopic => Reply::DeleteTopic(TopicReply { fault }),
        RequestKind::DescribeTopic => reply!(DescribeTopic, DescribeTopicReply),
        RequestKind::InitProducer => reply!(InitProducer, InitProducerReply),
        RequestKind::AddPartitions => reply!(AddPartitions, AddPartitionsReply),
        RequestKind::Trim => reply!(Trim, TrimReply),
    }
}

/// What a reply says went wrong.
pub(super) const fn fault_of(reply: &Reply) -> Option<&Fault> {
    let fault = match reply {
        Reply::Hello(reply) => &reply.fault,
        Reply::Metadata(reply) => &reply.fault,
        Reply::Produce(reply) => &reply.fault,
        Reply::Fetch(reply) => &reply.fault,
        Reply::ListOffsets(reply) => &reply.fault,
        Reply::CreateTopic(reply) => &reply.fault,
        Reply::AlterTopic(reply) | Reply::DeleteTopic(reply) => &reply.fault,
        Reply::DescribeTopic(reply) => &reply.fault,
        Reply::InitProducer(reply) => &reply.fault,
        Reply::AddPartitions(reply) => &reply.fault,
        Reply::Trim(reply) => &reply.fault,
    };
    fault.as_ref()
}

/// The same as a frame, for any number that stood where a request's kind stands. A kind that this
/// broker doesn't know is answered with the fault alone, which every reply begins with.
pub(super) fn refused_frame(number: u16, correlation: CorrelationId, fault: Fault) -> Vec<u8> {
    match RequestKind::from_number(number) {
        Some(kind) => refused(kind, fault).to_frame(correlation, 0),
        None => {
            let head = TopicReply { fault: Some(fault) }.to_head();
            encode_head(number | REPLY, correlation, &head, 0)
        }
    }
}
