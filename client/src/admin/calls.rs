//! The requests of administration, and how their replies are read.

use ringway_wire::request::{
    AddPartitionsRequest, AlterTopicRequest, ConfigEntry, CreateTopicRequest, DeleteTopicRequest,
    DescribeTopicRequest, ListOffsetsRequest, MetadataReply, MetadataRequest, OffsetAt, Reply,
    Request, TrimBefore, TrimRequest,
};
use ringway_wire::{MetadataEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use crate::admin::{NewTopic, PartitionOffsets, TopicDescription};
use crate::calls::{Call, refused};
use crate::core::inquiry::Repeat;
use crate::error::RequestError;

fn entries(config: &[(String, String)]) -> Vec<ConfigEntry> {
    let entry = |(key, value): &(String, String)| ConfigEntry {
        key: key.clone(),
        value: value.clone(),
    };
    config.iter().map(entry).collect()
}

/// Creates a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CreateTopic<'a>(pub(crate) &'a NewTopic);

impl Call for CreateTopic<'_> {
    type Output = TopicId;
    const REPEAT: Repeat = Repeat::IfUnsent;

    fn what(&self) -> String {
        format!("topic {}", self.0.name)
    }

    fn request(&self) -> Request {
        CreateTopicRequest {
            name: self.0.name.clone(),
            partitions: self.0.partitions,
            replication_factor: self.0.replication_factor,
            config: entries(&self.0.config),
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<TopicId, RequestError> {
        let Reply::CreateTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), None)?;
        Ok(reply.topic)
    }
}

/// Sets configuration keys of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlterTopic<'a> {
    pub(crate) name: &'a str,
    pub(crate) config: &'a [(String, String)],
}

impl Call for AlterTopic<'_> {
    type Output = ();
    const REPEAT: Repeat = Repeat::IfUnsent;

    fn what(&self) -> String {
        format!("topic {}", self.name)
    }

    fn request(&self) -> Request {
        AlterTopicRequest {
            name: self.name.to_owned(),
            config: entries(self.config),
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<(), RequestError> {
        let Reply::AlterTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.name))
    }
}

/// Adds partitions to a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddPartitions<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: u32,
}

impl Call for AddPartitions<'_> {
    type Output = MetadataEpoch;
    const REPEAT: Repeat = Repeat::IfUnsent;

    fn what(&self) -> String {
        format!("topic {}", self.name)
    }

    fn request(&self) -> Request {
        AddPartitionsRequest {
            name: self.name.to_owned(),
            partitions: self.partitions,
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<MetadataEpoch, RequestError> {
        let Reply::AddPartitions(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.name))?;
        Ok(reply.epoch)
    }
}

/// Deletes a topic with its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeleteTopic<'a>(pub(crate) &'a str);

impl Call for DeleteTopic<'_> {
    type Output = ();
    const REPEAT: Repeat = Repeat::IfUnsent;

    fn what(&self) -> String {
        format!("topic {}", self.0)
    }

    fn request(&self) -> Request {
        DeleteTopicRequest {
            name: self.0.to_owned(),
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<(), RequestError> {
        let Reply::DeleteTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.0))
    }
}

/// Asks for all about a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescribeTopic<'a>(pub(crate) &'a str);

impl Call for DescribeTopic<'_> {
    type Output = TopicDescription;
    const REPEAT: Repeat = Repeat::Harmless;

    fn what(&self) -> String {
        format!("topic {}", self.0)
    }

    fn request(&self) -> Request {
        DescribeTopicRequest {
            name: self.0.to_owned(),
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<TopicDescription, RequestError> {
        let Reply::DescribeTopic(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.0))?;
        let config = reply.config.into_iter();
        Ok(TopicDescription {
            name: self.0.to_owned(),
            topic: reply.topic,
            epoch: reply.epoch,
            created_us: reply.created_us,
            replication_factor: reply.replication_factor,
            config: config.map(|entry| (entry.key, entry.value)).collect(),
            partitions: reply.partitions,
        })
    }
}

/// Asks for the brokers, and for all topics or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetAllMetadata {
    pub(crate) topics: bool,
}

impl Call for GetAllMetadata {
    type Output = MetadataReply;
    const REPEAT: Repeat = Repeat::Harmless;

    fn what(&self) -> String {
        "metadata".to_owned()
    }

    fn request(&self) -> Request {
        let topics = (!self.topics).then(Vec::new);
        MetadataRequest { topics }.into()
    }

    fn read(&self, reply: Reply) -> Result<MetadataReply, RequestError> {
        let Reply::Metadata(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), None)?;
        Ok(reply)
    }
}

/// A question to the leader of a partition; asking again does no harm.
pub(crate) trait LeaderCall {
    /// What the reply says.
    type Output;
    /// The topic and the partition.
    fn of(&self) -> (&str, PartitionIndex);
    /// What it is about, for errors.
    fn what(&self) -> String;
    /// The request.
    fn request(&self, to: TopicPartition) -> Request;
    /// Reads the reply, which is of the request's kind.
    fn read(&self, reply: Reply) -> Result<Self::Output, RequestError>;
}

/// Looks up an offset and the ends of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListOffsets<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: PartitionIndex,
    pub(crate) at: OffsetAt,
}

impl LeaderCall for ListOffsets<'_> {
    type Output = PartitionOffsets;

    fn of(&self) -> (&str, PartitionIndex) {
        (self.topic, self.partition)
    }

    fn what(&self) -> String {
        format!("offsets of {}/{}", self.topic, self.partition)
    }

    fn request(&self, to: TopicPartition) -> Request {
        ListOffsetsRequest {
            topic: to.topic,
            partition: to.partition,
            at: self.at,
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<PartitionOffsets, RequestError> {
        let Reply::ListOffsets(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.topic))?;
        Ok(PartitionOffsets {
            offset: reply.offset,
            log_start: reply.log_start,
            high_watermark: reply.high_watermark,
            log_bytes: reply.log_bytes,
            leader_epoch: reply.leader_epoch,
        })
    }
}

/// Removes a partition's oldest records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trim<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: PartitionIndex,
    pub(crate) before: TrimBefore,
}

impl LeaderCall for Trim<'_> {
    type Output = Offset;

    fn of(&self) -> (&str, PartitionIndex) {
        (self.topic, self.partition)
    }

    fn what(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    fn request(&self, to: TopicPartition) -> Request {
        TrimRequest {
            topic: to.topic,
            partition: to.partition,
            before: self.before,
        }
        .into()
    }

    fn read(&self, reply: Reply) -> Result<Offset, RequestError> {
        let Reply::Trim(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), Some(self.topic))?;
        Ok(reply.log_start)
    }
}
