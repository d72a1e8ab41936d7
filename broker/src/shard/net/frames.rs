//! From a connection's bytes to requests: one frame at a time, and a clear refusal for whatever is
//! none.

use ringway_engine::shard::Token;
use ringway_wire::frame::Frame;
use ringway_wire::request::{Acks, Reply, Request, RequestKind};
use ringway_wire::{CorrelationId, ErrorCode, Fault};

use super::connection::{Connection, Phase};
use super::{Requests, Verdict, refusal};
use crate::flight::Event as Flown;
use crate::metrics::ShardMetrics;
use crate::shard::clock;

/// What came of a connection's next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is no whole frame.
    Nothing,
    /// A request was passed on.
    Request,
    /// The connection is refused: a last reply is on its way.
    Refused,
}

/// A frame that is no request that can be passed on.
struct Refusal {
    number: u16,
    correlation: CorrelationId,
    fault: Fault,
}

/// Takes the next frame of a connection, if there is a whole one. `unanswered_max` is how many of
/// its requests may be open.
pub(super) fn take(
    connection: &mut Connection,
    requests: &mut impl Requests,
    metrics: &ShardMetrics,
    (now_ns, unanswered_max): (u64, usize),
) -> Taken {
    let greeting = connection.phase == Phase::Greeting;
    // Of a header that is refused, kind and correlation are still what the client goes by.
    let front = connection.decoder.front().unwrap_or_default();
    let refusal = match connection.decoder.next_frame() {
        Ok(None) => return Taken::Nothing,
        Ok(Some(frame)) => match check(&frame, greeting) {
            Ok(request) => {
                metrics.requests.add(1);
                let token = Token {
                    source: connection.id.source(),
                    correlation: frame.header.correlation,
                };
                let received_ns = connection.last_byte_ns;
                let kind = request.kind();
                let verdict = match too_many(connection.unanswered.len(), unanswered_max, &request)
                {
                    Some(refused) => {
                        metrics.requests_overloaded.add(1);
                        Verdict::Now(refused)
                    }
                    None => requests.request(token, received_ns, request, frame.data),
                };
                return judged(connection, token, (kind, verdict), metrics, now_ns);
            }
            Err(refusal) => refusal,
        },
        Err(error) => Refusal {
            number: front.0,
            correlation: front.1,
            fault: Fault::new(ErrorCode::MalformedRequest, error.to_string()),
        },
    };
    metrics.requests_faulted.add(1);
    let frame = refusal::refused_frame(refusal.number, refusal.correlation, refusal.fault);
    connection.outbox.push(frame, Vec::new());
    connection.phase = Phase::Refusing { since_ns: now_ns };
    Taken::Refused
}

/// What a connection is told that has too many requests open to have one more.
fn too_many(unanswered: usize, unanswered_max: usize, request: &Request) -> Option<Reply> {
    let never = matches!(request, Request::Produce(produce) if produce.acks == Acks::None);
    if unanswered < unanswered_max || never {
        return None;
    }
    let text = "too many requests of this connection wait for their replies: wait for some";
    let fault = Fault::new(ErrorCode::Overloaded, text);
    Some(refusal::refused(request.kind(), fault))
}

/// The request in a frame, if it is one that this connection may send now.
fn check(frame: &Frame<'_>, greeting: bool) -> Result<Request, Refusal> {
    let number = frame.header.kind;
    let refusal = |code, text: String| Refusal {
        number,
        correlation: frame.header.correlation,
        fault: Fault::new(code, text),
    };
    let unexpected = |text| refusal(ErrorCode::UnexpectedRequest, text);
    let Some(kind) = RequestKind::from_number(number) else {
        return Err(unexpected(format!(
            "this broker knows no request of kind {number}"
        )));
    };
    match (greeting, kind) {
        (true, RequestKind::Hello) => {}
        (true, _) => return Err(unexpected("a connection begins with hello".to_owned())),
        (false, RequestKind::Hello) => {
            return Err(unexpected("hello was said already".to_owned()));
        }
        (false, _) => {}
    }
    if kind != RequestKind::Produce && !frame.data.is_empty() {
        let text = format!(
            "a {kind:?} request has no data, this one has {}",
            frame.data.len()
        );
        return Err(refusal(ErrorCode::MalformedRequest, text));
    }
    Request::from_head(kind, frame.head)
        .map_err(|error| refusal(ErrorCode::MalformedRequest, format!("{kind:?}: {error}")))
}

fn judged(
    connection: &mut Connection,
    token: Token,
    (kind, verdict): (RequestKind, Verdict),
    metrics: &ShardMetrics,
    now_ns: u64,
) -> Taken {
    match verdict {
        Verdict::Later => {
            let asked = (kind, connection.last_byte_ns);
            connection.unanswered.insert(token.correlation, asked);
        }
        Verdict::Never => {}
        Verdict::Now(reply) => {
            let refused = refusal::fault_of(&reply).is_some();
            metrics.requests_faulted.add(u64::from(refused));
            let frame = reply.to_frame(token.correlation, 0);
            metrics.flight.record(Flown::Answered {
                kind,
                source: token.source,
                correlation: token.correlation.0,
                received_ns: connection.last_byte_ns,
                took_ns: clock::mono_ns().saturating_sub(connection.last_byte_ns),
                bytes: frame.len() as u32,
            });
            connection.outbox.push(frame, Vec::new());
            if let Reply::Hello(hello) = &reply {
                if hello.fault.is_some() {
                    connection.phase = Phase::Refusing { since_ns: now_ns };
                    return Taken::Refused;
                }
                connection.phase = Phase::Open;
            }
        }
    }
    Taken::Request
}
