//! Questions that want one reply, and how it is read: the same for every face.

use ringway_wire::limits::FRAME_HEAD_BYTES_MAX;
use ringway_wire::request::{InitProducerRequest, MetadataReply, MetadataRequest, Reply, Request};
use ringway_wire::{ErrorCode, Fault};

use crate::core::inquiry::Repeat;
use crate::core::producer::Identity;
use crate::error::{ConnectionLost, RequestError};

/// A question to any broker.
pub(crate) trait Call {
    /// What the reply says.
    type Output;
    /// Whether asking again can do harm.
    const REPEAT: Repeat;
    /// What it is about, for errors.
    fn what(&self) -> String;
    /// The request.
    fn request(&self) -> Request;
    /// Reads the reply, which is of the request's kind.
    fn read(&self, reply: Reply) -> Result<Self::Output, RequestError>;
}

/// Gets a producer id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetIdentity;

impl Call for GetIdentity {
    type Output = Identity;
    const REPEAT: Repeat = Repeat::Harmless;

    fn what(&self) -> String {
        "a producer id".to_owned()
    }

    fn request(&self) -> Request {
        InitProducerRequest.into()
    }

    fn read(&self, reply: Reply) -> Result<Identity, RequestError> {
        let Reply::InitProducer(reply) = reply else {
            unreachable!("replies are of their kind")
        };
        refused(|| self.what(), reply.fault.as_ref(), None)?;
        Ok(Identity {
            id: reply.producer_id,
            epoch: reply.producer_epoch,
        })
    }
}

/// Gets the metadata of some topics: of all that are in doubt, or of a new one.
#[derive(Clone, Debug)]
pub(crate) struct GetMetadata {
    pub(crate) topics: Vec<String>,
}

impl Call for GetMetadata {
    type Output = MetadataReply;
    const REPEAT: Repeat = Repeat::Harmless;

    fn what(&self) -> String {
        match self.topics.as_slice() {
            [topic] => format!("metadata of {topic}"),
            _ => "metadata".to_owned(),
        }
    }

    fn request(&self) -> Request {
        let topics = Some(self.topics.clone());
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

/// The error for a fault; with `topic`, an unknown topic is named.
pub(crate) fn refused(
    what: impl Fn() -> String,
    fault: Option<&Fault>,
    topic: Option<&str>,
) -> Result<(), RequestError> {
    match (fault, topic) {
        (None, _) => Ok(()),
        (Some(fault), Some(topic)) if fault.code == ErrorCode::UnknownTopic => {
            Err(RequestError::UnknownTopic {
                topic: topic.to_owned(),
            })
        }
        (Some(fault), _) => Err(RequestError::Refused {
            what: what(),
            fault: fault.clone(),
        }),
    }
}

/// What a reply about one partition, asked of its leader, was refused with.
pub(crate) fn fault_of(reply: &Reply) -> Option<&Fault> {
    match reply {
        Reply::ListOffsets(reply) => reply.fault.as_ref(),
        Reply::Trim(reply) => reply.fault.as_ref(),
        _ => None,
    }
}

/// Refuses a request whose head no frame takes.
pub(crate) fn within_limits(
    what: impl Fn() -> String,
    request: &Request,
) -> Result<(), RequestError> {
    let bytes = request.to_head().len();
    if bytes <= FRAME_HEAD_BYTES_MAX {
        return Ok(());
    }
    let message = format!("{bytes} bytes are above the limit of {FRAME_HEAD_BYTES_MAX}");
    let fault = Fault::new(ErrorCode::MalformedRequest, message);
    Err(RequestError::Refused {
        what: what(),
        fault,
    })
}

/// What stands for an answer where nobody is known to lead a partition.
pub(crate) fn no_leader(what: &str) -> ConnectionLost {
    let why = "no broker is known to lead the partition".into();
    ConnectionLost {
        address: what.into(),
        why,
        sent: false,
        refused: None,
    }
}
