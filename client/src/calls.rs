//! Questions that want one reply, and how it is read: the same for every face.

use std::time::{Duration, Instant};

use ringway_wire::limits::FRAME_HEAD_BYTES_MAX;
use ringway_wire::request::{InitProducerRequest, MetadataReply, MetadataRequest, Reply, Request};
use ringway_wire::{ErrorCode, Fault};

use crate::core::backoff::Backoff;
use crate::core::faults::passes;
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

/// Whether a topic that was asked for is in the reply and can be used.
pub(crate) fn usable(reply: &MetadataReply, name: &str) -> Result<(), RequestError> {
    let what = || format!("metadata of {name}");
    match reply.topics.iter().find(|topic| topic.name == name) {
        Some(topic) => refused(what, topic.fault.as_ref(), Some(name)),
        None => Err(unmentioned(name)),
    }
}

/// The error for a reply that doesn't say what is to be known of a topic.
pub(crate) fn unmentioned(name: &str) -> RequestError {
    RequestError::Malformed {
        what: format!("metadata of {name}"),
        why: "the topic is not in it".to_owned(),
    }
}

/// A question to the leader of a partition: asked again, with pauses, while leaders change.
#[derive(Debug)]
pub(crate) struct LeaderInquiry {
    within: Duration,
    deadline: Instant,
    backoff: Backoff,
}

/// What an answer of a leader, or of who was taken for it, comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The reply; it may say why not.
    Done(Reply),
    /// Refresh the metadata and ask again then.
    Again(Instant),
}

impl LeaderInquiry {
    /// A question that is asked for so long.
    pub(crate) fn new(now: Instant, within: Duration) -> Self {
        Self {
            within,
            deadline: now + within,
            backoff: Backoff::default(),
        }
    }

    /// What an answer comes to.
    pub(crate) fn judge(
        &mut self,
        what: impl Fn() -> String,
        answer: Result<Reply, ConnectionLost>,
        now: Instant,
        random: u64,
    ) -> Result<Verdict, RequestError> {
        let again = now + self.backoff.next(random);
        let late = again >= self.deadline;
        match answer {
            Ok(reply) => match fault_of(&reply) {
                Some(fault) if !late && passes(fault.code) => Ok(Verdict::Again(again)),
                _ => Ok(Verdict::Done(reply)),
            },
            Err(lost) if late || lost.refused.is_some() => Err(RequestError::Unreachable {
                what: what(),
                within: self.within,
                lost,
            }),
            Err(_) => Ok(Verdict::Again(again)),
        }
    }
}

/// What a reply was refused with.
fn fault_of(reply: &Reply) -> Option<&Fault> {
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

/// Whether a broker has done nothing because it is at a limit, which passes.
pub(crate) fn is_put_off(reply: &Reply) -> bool {
    fault_of(reply).is_some_and(|fault| fault.code == ErrorCode::Overloaded)
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
