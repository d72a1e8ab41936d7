//! One connection: frames in, the hook's verdict, answers out in any order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ringway_wire::frame::FrameDecoder;
use ringway_wire::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, PROTOCOL_VERSION_MAX};
use ringway_wire::request::{
    Acks, AddPartitionsReply, CreateTopicReply, DescribeTopicReply, FetchReply, FetchRequest,
    HelloReply, HelloRequest, InitProducerReply, ListOffsetsReply, MetadataReply, ProduceReply,
    Reply, Request, RequestKind, TopicReply, TrimReply,
};
use ringway_wire::{CorrelationId, ErrorCode, Fault, NodeId};

use super::{Fate, Shared, lock};

/// An answer: the reply and the batches behind it.
type Answer = (Reply, Vec<u8>);

/// The writing half, shared by whoever answers.
type Out = Arc<Mutex<TcpStream>>;

/// Serves a connection until it ends.
pub(super) fn serve(mut stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(out) = stream.try_clone() else { return };
    let port = stream.local_addr().map_or(0, |address| address.port());
    let out = Arc::new(Mutex::new(out));
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut greeted = false;
    loop {
        match stream.read(decoder.spare(64 << 10)) {
            Ok(bytes) if bytes > 0 => decoder.filled(bytes),
            _ => break,
        }
        loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return hang_up(&out),
            };
            let kind = RequestKind::from_number(frame.header.kind);
            let request = kind.and_then(|kind| Request::from_head(kind, frame.head).ok());
            let Some(request) = request.filter(|request| greeted != is_hello(request)) else {
                return hang_up(&out);
            };
            greeted = true;
            lock(&shared.came_to).push((port, request.kind()));
            let data = frame.data.to_vec();
            take(shared, &out, frame.header.correlation, request, data);
        }
    }
    hang_up(&out);
}

fn is_hello(request: &Request) -> bool {
    matches!(request, Request::Hello(_))
}

fn hang_up(out: &Out) {
    let _ = lock(out).shutdown(Shutdown::Both);
}

/// Has the hook decide, and does so.
fn take(shared: &Arc<Shared>, out: &Out, id: CorrelationId, request: Request, data: Vec<u8>) {
    lock(&shared.seen).push(request.clone());
    let fate = match &request {
        Request::Hello(_) => Fate::Answer,
        request => (lock(&shared.hook))(request),
    };
    let silent = matches!(&request, Request::Produce(produce) if produce.acks == Acks::None);
    match fate {
        Fate::Answer => match &request {
            Request::Fetch(fetch) if fetch.wait_ms > 0 => {
                let (shared, out, fetch) = (Arc::clone(shared), Arc::clone(out), *fetch);
                thread::spawn(move || send(&out, id, fetch_waiting(&shared, &fetch)));
            }
            _ => {
                let answer = answer(shared, &request, &data);
                if !silent {
                    send(out, id, answer);
                }
            }
        },
        Fate::Late(time) => {
            let (shared, out) = (Arc::clone(shared), Arc::clone(out));
            thread::spawn(move || {
                thread::sleep(time);
                let answer = answer(&shared, &request, &data);
                if !silent {
                    send(&out, id, answer);
                }
            });
        }
        Fate::Refuse(fault) if !silent => send(out, id, refusal(&request, fault)),
        Fate::Refuse(_) | Fate::Ignore => {}
        Fate::HangUp => hang_up(out),
        Fate::LoseAnswer => {
            answer(shared, &request, &data);
            hang_up(out);
        }
        Fate::KeepAnswer => {
            answer(shared, &request, &data);
        }
        Fate::With(reply) => send(out, id, (reply, Vec::new())),
        Fate::Garbage => {
            let _ = lock(out).write_all(&[0xff; 64]);
        }
        Fate::AnswerTwice => {
            let answer = answer(shared, &request, &data);
            send(out, id, answer.clone());
            send(out, id, answer);
        }
        Fate::CutAnswer(bytes) => {
            let (reply, data) = answer(shared, &request, &data);
            let frame = [reply.to_frame(id, data.len()), data].concat();
            let _ = lock(out).write_all(&frame[..bytes.min(frame.len() - 1)]);
            hang_up(out);
        }
        Fate::Corrupt(from_end) => {
            let (reply, mut data) = answer(shared, &request, &data);
            if let Some(place) = data.len().checked_sub(from_end) {
                data[place] ^= 1;
            }
            send(out, id, (reply, data));
        }
    }
}

fn send(out: &Out, id: CorrelationId, (reply, data): Answer) {
    let frame = reply.to_frame(id, data.len());
    let mut out = lock(out);
    let _ = out.write_all(&frame).and_then(|()| out.write_all(&data));
}

/// A fetch that waits for records.
fn fetch_waiting(shared: &Shared, fetch: &FetchRequest) -> Answer {
    let deadline = Instant::now() + Duration::from_millis(fetch.wait_ms.into());
    let mut store = lock(&shared.store);
    loop {
        let (reply, data) = store.fetch(fetch);
        let left = deadline.saturating_duration_since(Instant::now());
        let ending = shared.ending.load(Ordering::Relaxed);
        if reply.fault.is_some() || !data.is_empty() || left.is_zero() || ending {
            return (Reply::Fetch(reply), data);
        }
        let waited = shared.grown.wait_timeout(store, left);
        store = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}

fn answer(shared: &Shared, request: &Request, data: &[u8]) -> Answer {
    let mut store = lock(&shared.store);
    let reply = match request {
        Request::Hello(hello) => Reply::Hello(greet(hello)),
        Request::Metadata(request) => {
            let mut reply = store.metadata(request, &shared.ports);
            if let Some(ports) = &*lock(&shared.named) {
                reply.brokers[0].shard_ports.clone_from(ports);
            }
            Reply::Metadata(reply)
        }
        Request::Produce(produce) => {
            let reply = store.produce(produce, data);
            shared.grown.notify_all();
            Reply::Produce(reply)
        }
        Request::Fetch(fetch) => {
            let (reply, data) = store.fetch(fetch);
            return (Reply::Fetch(reply), data);
        }
        Request::ListOffsets(request) => Reply::ListOffsets(store.list_offsets(request)),
        Request::CreateTopic(request) => {
            let created = store.create(&request.name, request.partitions, &request.config);
            Reply::CreateTopic(match created {
                Ok((topic, epoch)) => CreateTopicReply {
                    fault: None,
                    topic,
                    epoch,
                },
                Err(fault) => CreateTopicReply {
                    fault: Some(fault),
                    ..Default::default()
                },
            })
        }
        Request::AlterTopic(request) => Reply::AlterTopic(TopicReply {
            fault: store.alter(request).err(),
        }),
        Request::DeleteTopic(request) => {
            let fault = store.delete(&request.name).err();
            shared.grown.notify_all();
            Reply::DeleteTopic(TopicReply { fault })
        }
        Request::DescribeTopic(request) => Reply::DescribeTopic(store.describe(&request.name)),
        Request::InitProducer(_) => Reply::InitProducer(store.init_producer()),
        Request::AddPartitions(request) => {
            let added = store.add_partitions(&request.name, request.partitions);
            Reply::AddPartitions(match added {
                Ok(epoch) => AddPartitionsReply { fault: None, epoch },
                Err(fault) => AddPartitionsReply {
                    fault: Some(fault),
                    ..Default::default()
                },
            })
        }
        Request::Trim(request) => Reply::Trim(store.trim(request)),
    };
    (reply, Vec::new())
}

fn greet(hello: &HelloRequest) -> HelloReply {
    let spoken = hello.version_min..=hello.version_max;
    let fault = (!spoken.contains(&PROTOCOL_VERSION_MAX)).then(|| {
        Fault::new(
            ErrorCode::UnsupportedVersion,
            format!("version {PROTOCOL_VERSION_MAX} only"),
        )
    });
    HelloReply {
        fault,
        version: PROTOCOL_VERSION_MAX,
        node: NodeId(1),
        cluster_id: 7,
        batch_bytes_max: BATCH_BYTES_MAX as u32,
    }
}

fn refusal(request: &Request, fault: Fault) -> Answer {
    let fault = Some(fault);
    let reply = match request {
        Request::Hello(_) => Reply::Hello(HelloReply {
            fault,
            ..Default::default()
        }),
        Request::Metadata(_) => Reply::Metadata(MetadataReply {
            fault,
            ..Default::default()
        }),
        Request::Produce(_) => Reply::Produce(ProduceReply {
            fault,
            ..Default::default()
        }),
        Request::Fetch(_) => Reply::Fetch(FetchReply {
            fault,
            ..Default::default()
        }),
        Request::ListOffsets(_) => Reply::ListOffsets(ListOffsetsReply {
            fault,
            ..Default::default()
        }),
        Request::CreateTopic(_) => Reply::CreateTopic(CreateTopicReply {
            fault,
            ..Default::default()
        }),
        Request::AlterTopic(_) => Reply::AlterTopic(TopicReply { fault }),
        Request::DeleteTopic(_) => Reply::DeleteTopic(TopicReply { fault }),
        Request::DescribeTopic(_) => Reply::DescribeTopic(DescribeTopicReply {
            fault,
            ..Default::default()
        }),
        Request::InitProducer(_) => Reply::InitProducer(InitProducerReply {
            fault,
            ..Default::default()
        }),
        Request::AddPartitions(_) => Reply::AddPartitions(AddPartitionsReply {
            fault,
            ..Default::default()
        }),
        Request::Trim(_) => Reply::Trim(TrimReply {
            fault,
            ..Default::default()
        }),
    };
    (reply, Vec::new())
}
