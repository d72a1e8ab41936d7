//! Who answers a request: this shard, another, the controller, or nobody because it can't be
//! answered.

use ringway_wire::request::{
    FetchReply, FetchRequest, ListOffsetsReply, ListOffsetsRequest, ProduceReply, ProduceRequest,
    Reply, Request, TrimReply, TrimRequest,
};
use ringway_wire::{Fault, MetadataEpoch, ShardId, TopicId, TopicPartition};

use crate::meta::image::Image;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The shard that has it answers: from its image, or because it owns the partition.
    Here,
    /// Another shard of this broker owns the partition.
    Shard(ShardId),
    /// It changes the metadata.
    Controller,
    /// It can't be done, and this is the answer (which `acks=none` doesn't get).
    Answer(Box<Reply>),
}

/// The shard of a broker with `shards` shards that owns a partition: neighbours in a topic go to
/// neighbouring shards, and topics start at different ones. The broker's own matter: it may change
/// with the number of shards from start to start.
///
/// # Panics
/// Without shards.
#[must_use]
pub const fn shard_of(at: TopicPartition, shards: u16) -> ShardId {
    let shards = shards as u64;
    let folded = (at.topic.0 as u64) ^ ((at.topic.0 >> 64) as u64).rotate_left(32);
    // The finalizer of SplitMix64: ids need not be random for their topics to spread.
    let mut z = folded.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ShardId(((z % shards + at.partition.0 as u64) % shards) as u16)
}

/// Decides who answers `request`, which came to shard `here`. Hello, metadata and describe-topic
/// are answered by any shard from its image; changes go to the controller; the rest to the shard
/// that owns the partition.
#[must_use]
pub fn route(image: &Image, here: ShardId, request: &Request) -> Route {
    let at = match request {
        Request::Hello(_) | Request::Metadata(_) | Request::DescribeTopic(_) => return Route::Here,
        Request::CreateTopic(_)
        | Request::AlterTopic(_)
        | Request::AddPartitions(_)
        | Request::DeleteTopic(_)
        | Request::InitProducer(_) => return Route::Controller,
        Request::Produce(ProduceRequest {
            topic, partition, ..
        })
        | Request::Fetch(FetchRequest {
            topic, partition, ..
        })
        | Request::ListOffsets(ListOffsetsRequest {
            topic, partition, ..
        })
        | Request::Trim(TrimRequest {
            topic, partition, ..
        }) => TopicPartition {
            topic: *topic,
            partition: *partition,
        },
    };
    match image.owner(at) {
        Some(owner) if owner == here => Route::Here,
        Some(owner) => Route::Shard(owner),
        None => {
            let fault = image.refusal(at.topic, at.partition);
            let epoch = epoch_of(image, at.topic);
            Route::Answer(Box::new(refused(request, fault, epoch)))
        }
    }
}

fn epoch_of(image: &Image, topic: TopicId) -> MetadataEpoch {
    image
        .topic(topic)
        .map_or_else(MetadataEpoch::default, |topic| topic.epoch)
}

fn refused(request: &Request, fault: Option<Fault>, topic_epoch: MetadataEpoch) -> Reply {
    match request {
        Request::Produce(_) => Reply::Produce(ProduceReply {
            fault,
            topic_epoch,
            ..ProduceReply::default()
        }),
        Request::Fetch(_) => Reply::Fetch(FetchReply {
            fault,
            topic_epoch,
            ..FetchReply::default()
        }),
        Request::Trim(_) => Reply::Trim(TrimReply {
            fault,
            topic_epoch,
            ..TrimReply::default()
        }),
        _ => Reply::ListOffsets(ListOffsetsReply {
            fault,
            topic_epoch,
            ..ListOffsetsReply::default()
        }),
    }
}

#[cfg(test)]
mod tests;
