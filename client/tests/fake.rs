//! The fake broker, spoken to by hand: what the other tests stand on must itself answer as the
//! protocol says.

mod fake_broker;

use std::io::{Read, Write};
use std::net::TcpStream;

use fake_broker::{FakeBroker, Fate};
use ringway_wire::batch::{BatchBuilder, BatchLimits, CheckedBatch, ProducerStamp, RecordRef};
use ringway_wire::frame::FrameDecoder;
use ringway_wire::limits::FRAME_BYTES_MAX;
use ringway_wire::request::{
    FetchRequest, HelloRequest, ListOffsetsRequest, MetadataRequest, OffsetAt, ProduceRequest,
    Reply, Request, RequestKind,
};
use ringway_wire::{
    CorrelationId, ErrorCode, Offset, PartitionIndex, ProducerId, Sequence, TopicId,
};

struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
}

impl Connection {
    fn open(broker: &FakeBroker) -> Self {
        let stream = TcpStream::connect(broker.address()).unwrap();
        let mut connection = Self {
            stream,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
        };
        connection.ask(HelloRequest::default(), &[]);
        connection
    }

    fn ask(&mut self, request: impl Into<Request>, data: &[u8]) -> (Reply, Vec<u8>) {
        let request = request.into();
        self.stream
            .write_all(&request.to_frame(CorrelationId(1), data.len()))
            .unwrap();
        self.stream.write_all(data).unwrap();
        self.answer(request.kind()).expect("the broker answers")
    }

    /// `None` when the connection was closed.
    fn answer(&mut self, kind: RequestKind) -> Option<(Reply, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                let reply = Reply::from_head(kind, frame.head).unwrap();
                return Some((reply, frame.data.to_vec()));
            }
            match self.stream.read(self.decoder.spare(4096)) {
                Ok(bytes) if bytes > 0 => self.decoder.filled(bytes),
                _ => return None,
            }
        }
    }

    fn topic(&mut self, name: &str) -> TopicId {
        let request = MetadataRequest {
            topics: Some(vec![name.to_owned()]),
        };
        let (Reply::Metadata(reply), _) = self.ask(request, &[]) else {
            panic!()
        };
        reply.topics[0].topic
    }

    /// The base offset, or why the batch was refused.
    fn produce(&mut self, topic: TopicId, sequence: u32) -> Result<u64, ErrorCode> {
        let mut builder = BatchBuilder::new(BatchLimits::default());
        for value in [b"a", b"b"] {
            builder
                .push(&RecordRef {
                    value: Some(value),
                    ..RecordRef::default()
                })
                .unwrap();
        }
        let producer = ProducerStamp {
            id: ProducerId(1),
            first_sequence: Sequence(sequence),
            ..ProducerStamp::default()
        };
        let batch = builder.seal(producer).unwrap().bytes;
        let request = ProduceRequest {
            topic,
            ..ProduceRequest::default()
        };
        let (Reply::Produce(reply), _) = self.ask(request, &batch) else {
            panic!()
        };
        reply
            .fault
            .map_or(Ok(reply.base_offset.0), |fault| Err(fault.code))
    }
}

#[test]
fn batches_get_offsets_and_come_back_whole() {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let mut connection = Connection::open(&broker);
    let topic = connection.topic("t");
    assert_eq!(connection.produce(topic, 0), Ok(0));
    assert_eq!(connection.produce(topic, 2), Ok(2));
    assert_eq!(connection.produce(topic, 0), Ok(0), "a repeat");
    assert_eq!(
        connection.produce(topic, 9),
        Err(ErrorCode::OutOfOrderSequence)
    );

    let fetch = FetchRequest {
        topic,
        bytes_max: 1,
        offset: Offset(3),
        ..FetchRequest::default()
    };
    let (Reply::Fetch(reply), data) = connection.ask(fetch, &[]) else {
        panic!()
    };
    assert_eq!((reply.fault, reply.high_watermark), (None, Offset(4)));
    let mut bytes = ringway_wire::batch::BatchBytes::new();
    bytes.extend_from_slice(&data);
    assert_eq!(
        CheckedBatch::check(&bytes).unwrap().header().base_offset,
        Offset(2)
    );

    broker.cut("t", 0, 2);
    let ends = ListOffsetsRequest {
        topic,
        partition: PartitionIndex(0),
        at: OffsetAt::Start,
    };
    let (Reply::ListOffsets(reply), _) = connection.ask(ends, &[]) else {
        panic!()
    };
    assert_eq!((reply.offset, reply.high_watermark), (Offset(2), Offset(4)));
    assert_eq!(broker.records("t", 0).len(), 2);
}

#[test]
fn a_waiting_fetch_is_woken_by_an_append() {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let mut reader = Connection::open(&broker);
    let mut writer = Connection::open(&broker);
    let topic = writer.topic("t");
    let waiting = std::thread::spawn(move || {
        let fetch = FetchRequest {
            topic,
            wait_ms: 600_000,
            ..FetchRequest::default()
        };
        reader.ask(fetch, &[]).1.len()
    });
    assert_eq!(writer.produce(topic, 0), Ok(0));
    assert!(waiting.join().unwrap() > 0);
}

#[test]
fn the_hook_decides() {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let mut connection = Connection::open(&broker);
    let topic = connection.topic("t");
    broker.hook(|request| match request {
        Request::Produce(_) => Fate::refuse(ErrorCode::StorageFull),
        _ => Fate::HangUp,
    });
    assert_eq!(connection.produce(topic, 0), Err(ErrorCode::StorageFull));
    let request = Request::from(MetadataRequest::default());
    connection
        .stream
        .write_all(&request.to_frame(CorrelationId(2), 0))
        .unwrap();
    assert!(connection.answer(RequestKind::Metadata).is_none());
    assert_eq!(broker.seen().len(), 4);
}
