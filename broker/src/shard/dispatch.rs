//! Who answers a request, and the ways there: the engine, the metadata image, another shard, the
//! controller.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_engine::meta::{Addresses, Image, Route, route};
use ringway_engine::shard::{Event, Shard as Machine, Token};
use ringway_engine::time::Now;
use ringway_wire::batch::BatchHeader;
use ringway_wire::request::{Acks, Reply, Request};
use ringway_wire::{ErrorCode, Fault, ShardId};

use super::clock;
use super::mesh::{Mesh, Message};
use super::net::{ConnectionId, Requests, Verdict, refused};
use crate::flight::Event as Flown;
use crate::metrics::ShardMetrics;
use crate::shard_proxy::{ControllerSender, ToController};

/// See the module.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) here: ShardId,
    pub(super) machine: Machine,
    /// Comes before the first connection does.
    pub(super) image: Option<Image>,
    pub(super) mesh: Mesh,
    pub(super) controller: ControllerSender,
    pub(super) addresses: Addresses,
    pub(super) batch_bytes_max: u32,
    pub(super) metrics: Arc<ShardMetrics>,
    /// Connections of this shard with requests at others.
    pub(super) forwarded: HashSet<u64>,
    /// Requests at other shards that will be answered.
    pub(super) unanswered: usize,
    pub(super) now: Now,
}

impl Dispatch {
    /// A request for this shard, from its own connections or from another shard.
    pub(super) fn here(
        &mut self,
        token: Token,
        received_ns: u64,
        request: &Request,
        data: &[u8],
    ) -> Verdict {
        let Some(image) = &self.image else {
            return self.too_early(request);
        };
        if let Some(fault) = self.too_large(request, data) {
            return match answered_later(request) {
                Verdict::Never => Verdict::Never,
                _ => Verdict::Now(refused(request.kind(), fault)),
            };
        }
        match request {
            Request::Hello(hello) => {
                Verdict::Now(Reply::Hello(image.hello_reply(hello, self.batch_bytes_max)))
            }
            Request::Metadata(metadata) => Verdict::Now(Reply::Metadata(
                image.metadata_reply(metadata, &self.addresses),
            )),
            Request::DescribeTopic(topic) => {
                Verdict::Now(Reply::DescribeTopic(image.describe_topic(topic)))
            }
            _ => {
                // Its own reading of the clock: requests of one turn wait for each other's checks.
                let now = clock::now();
                let verdict = answered_later(request);
                self.accepted(token, request, data.len(), (received_ns, now.mono_ns));
                let event = Event::Request {
                    token,
                    received_ns,
                    request,
                    data,
                };
                self.machine.apply(event, now);
                verdict
            }
        }
    }

    /// Refuses a batch that is above this broker's limit, uncompressed: its consumers need that
    /// much memory for it. One whose header can't be read is the engine's affair.
    fn too_large(&self, request: &Request, data: &[u8]) -> Option<Fault> {
        if !matches!(request, Request::Produce(_)) {
            return None;
        }
        let bytes = BatchHeader::decode(data).ok()?.inflated_bytes();
        let limit = self.batch_bytes_max;
        (bytes > limit as usize).then(|| {
            let message = format!(
                "the batch takes {bytes} bytes uncompressed, this broker accepts {limit}: send \
                 smaller ones, or raise its batch_bytes_max"
            );
            Fault::new(ErrorCode::BatchTooLarge, message)
        })
    }

    /// Notes how long a request has waited to be taken.
    fn accepted(&self, token: Token, request: &Request, data: usize, times_ns: (u64, u64)) {
        let (received_ns, now_ns) = times_ns;
        let took_ns = now_ns.saturating_sub(received_ns);
        if matches!(request, Request::Produce(_)) {
            self.metrics.produce_received.observe(took_ns);
        }
        self.metrics.flight.record(Flown::Accepted {
            kind: request.kind(),
            source: token.source,
            correlation: token.correlation.0,
            received_ns,
            took_ns,
            bytes: data as u32,
            answered: matches!(answered_later(request), Verdict::Later),
        });
    }

    fn too_early(&self, request: &Request) -> Verdict {
        let text = "the broker is still starting: try again";
        Verdict::Now(refused(
            request.kind(),
            Fault::new(ErrorCode::Overloaded, text),
        ))
    }

    fn ask_controller(&mut self, token: Token, request: Request) -> Verdict {
        let kind = request.kind();
        let message = ToController::Request {
            shard: self.here,
            token,
            request,
        };
        match self.controller.send(message) {
            Ok(()) => Verdict::Later,
            Err(_) => {
                self.metrics.requests_overloaded.add(1);
                let text = "too many metadata changes at once: try again";
                Verdict::Now(refused(kind, Fault::new(ErrorCode::Overloaded, text)))
            }
        }
    }

    fn forward(
        &mut self,
        to: ShardId,
        token: Token,
        received_ns: u64,
        request: Request,
        data: &[u8],
    ) -> Verdict {
        let verdict = answered_later(&request);
        self.metrics.requests_forwarded.add(1);
        self.forwarded.insert(token.source);
        self.unanswered += usize::from(matches!(verdict, Verdict::Later));
        let message = Message::Request {
            token,
            received_ns,
            request,
            data: data.to_vec(),
        };
        self.mesh.send(to, message);
        verdict
    }

    /// Sends a reply to a request of another shard's connection.
    pub(super) fn reply_elsewhere(&mut self, token: Token, frame: Vec<u8>) {
        let to = ConnectionId::from_source(token.source).shard;
        self.mesh.send(to, Message::Reply { token, frame });
    }
}

fn answered_later(request: &Request) -> Verdict {
    match request {
        Request::Produce(produce) if produce.acks == Acks::None => Verdict::Never,
        _ => Verdict::Later,
    }
}

impl Requests for Dispatch {
    fn request(
        &mut self,
        token: Token,
        received_ns: u64,
        request: Request,
        data: &[u8],
    ) -> Verdict {
        let Some(image) = &self.image else {
            return self.too_early(&request);
        };
        match route(image, self.here, &request) {
            Route::Here => self.here(token, received_ns, &request, data),
            Route::Shard(to) => self.forward(to, token, received_ns, request, data),
            Route::Controller => self.ask_controller(token, request),
            Route::Answer(reply) => match answered_later(&request) {
                Verdict::Never => Verdict::Never,
                _ => Verdict::Now(*reply),
            },
        }
    }

    fn is_congested(&self) -> bool {
        self.mesh.is_congested()
    }

    fn gone(&mut self, source: u64) {
        self.machine.apply(Event::Gone { source }, self.now);
        if self.forwarded.remove(&source) {
            self.mesh.broadcast(|| Message::Gone { source });
        }
    }

    fn deal(&mut self, socket: OwnedFd) -> Option<OwnedFd> {
        let to = self.mesh.deal();
        if to == self.here {
            return Some(socket);
        }
        self.mesh.send(to, Message::Connection(socket));
        None
    }
}
