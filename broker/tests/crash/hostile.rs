//! Clients that mean no good, many at once, against a whole broker: those who behave notice
//! nothing, and the broker's memory stays bounded. What each kind is answered is tested nearer to
//! the code.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ringway_client::Acks;
use ringway_testing::Random;
use ringway_wire::CorrelationId;
use ringway_wire::frame::encode_head;
use ringway_wire::request::{HelloRequest, MetadataRequest, ProduceRequest, Request};

use crate::load::{Load, LoadOptions, Mood};
use crate::plain::{metric, proc_number, wait_until};
use crate::site::{Site, alone, scratch};

const IDLE_CONNECTIONS: usize = 200;
/// More than a broker needs for the load and all of these clients; each of the things that could
/// grow would grow beyond it.
const GROWTH_BYTES_MAX: u64 = 256 << 20;
const ROUNDS: usize = 60;

#[test]
fn hostile_clients_disturb_nobody() {
    let _alone = alone();
    let scratch = scratch("hostile");
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start(2);
    let (pid, admin) = (site.broker().pid(), site.broker().admin());
    let ports: Vec<SocketAddr> = std::iter::once(site.broker().listen())
        .chain(site.broker().shards().iter().copied())
        .collect();
    let options = LoadOptions {
        seed: 300,
        producers: 2,
        segment_bytes: 4 << 20,
        retention_bytes: None,
    };
    let load = Load::start(&site.address(), options);
    load.set(Mood::Wide);
    load.wait_for(500);
    let before = resident(pid);
    let mut held = Vec::new();
    for number in 0..IDLE_CONNECTIONS {
        held.push(TcpStream::connect(ports[number % ports.len()]).unwrap());
    }
    for number in 0..20 {
        held.push(half_a_frame(ports[number % ports.len()], number));
        held.push(asks_and_never_reads(ports[number % ports.len()]));
    }
    let mut random = Random::new(300);
    for round in 0..ROUNDS {
        let port = ports[round % ports.len()];
        garbage(port, &mut random);
        lies_about_lengths(port, &mut random);
        truncated_produce(port, &mut random);
        let grown = resident(pid).saturating_sub(before);
        assert!(
            grown < GROWTH_BYTES_MAX,
            "{grown} bytes more in round {round}, {} of them of the cache and {} of replies",
            metric(admin, "cache_bytes"),
            metric(admin, "send_bytes")
        );
    }
    load.wait_for(500);
    load.verify("with hostile clients around");
    drop(held);
    load.finish();
    wait_until("all are gone", || metric(admin, "connections") < 10);
    let grown = resident(pid).saturating_sub(before);
    println!("the broker's memory grew by {grown} bytes");
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more in the end");
    site.stop(Duration::from_secs(20));
}

fn resident(pid: u32) -> u64 {
    proc_number(pid, "status", "VmRSS") << 10
}

fn connect(port: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(port).unwrap();
    let limit = Some(Duration::from_secs(10));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

fn frame(request: &Request, correlation: u32) -> Vec<u8> {
    request.to_frame(CorrelationId(correlation), 0)
}

/// Hello, and then the beginning of a request that never goes on.
fn half_a_frame(port: SocketAddr, bytes: usize) -> TcpStream {
    let mut stream = connect(port);
    let hello = frame(&HelloRequest::default().into(), 1);
    stream.write_all(&hello).unwrap();
    let whole = frame(&MetadataRequest { topics: None }.into(), 2);
    let part = bytes % (whole.len() - 1) + 1;
    stream.write_all(&whole[..part]).unwrap();
    stream
}

/// Asks for metadata until nobody listens any more, and reads none of the answers.
fn asks_and_never_reads(port: SocketAddr) -> TcpStream {
    let mut stream = connect(port);
    let hello = frame(&HelloRequest::default().into(), 1);
    stream.write_all(&hello).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let question = frame(&MetadataRequest { topics: None }.into(), 2).repeat(1_000);
    for _ in 0..200 {
        if stream.write_all(&question).is_err() {
            break;
        }
    }
    stream
}

fn garbage(port: SocketAddr, random: &mut Random) {
    let mut stream = connect(port);
    if random.chance(500) {
        let hello = frame(&HelloRequest::default().into(), 1);
        let _ = stream.write_all(&hello);
    }
    let bytes: Vec<u8> = (0..random.below(20_000))
        .map(|_| random.next_u64() as u8)
        .collect();
    let _ = stream.write_all(&bytes);
    ends(stream);
}

/// The head of a frame that says that it is larger than any may be, or as large as one may be
/// with next to nothing behind it.
fn lies_about_lengths(port: SocketAddr, random: &mut Random) {
    let mut stream = connect(port);
    let hello = frame(&HelloRequest::default().into(), 1);
    let _ = stream.write_all(&hello);
    let request: Request = ProduceRequest::default().into();
    let mut head = encode_head(request.kind().number(), CorrelationId(3), b"", 0);
    let length = match random.chance(500) {
        true => u32::MAX - random.below(1 << 16) as u32,
        false => (random.below(60) << 20) as u32,
    };
    head[..4].copy_from_slice(&length.to_le_bytes());
    let _ = stream.write_all(&head);
    let _ = stream.write_all(&[0; 100]);
    ends(stream);
}

/// A produce request whose batch is noise, cut off somewhere.
fn truncated_produce(port: SocketAddr, random: &mut Random) {
    let mut stream = connect(port);
    let hello = frame(&HelloRequest::default().into(), 1);
    let _ = stream.write_all(&hello);
    let bytes = 1 + random.below(200_000) as usize;
    let request: Request = ProduceRequest {
        acks: Acks::All,
        timeout_ms: 1_000,
        ..ProduceRequest::default()
    }
    .into();
    let head = request.to_frame(CorrelationId(4), bytes);
    let _ = stream.write_all(&head);
    let sent = random.below(bytes as u64) as usize;
    let _ = stream.write_all(&vec![0xa5; sent]);
    ends(stream);
}

/// Whatever the broker answers, it ends the connection once the client has ended its half.
fn ends(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => assert!(answer.len() < 100_000, "{} bytes", answer.len()),
        Err(error) => assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "the connection neither ended nor was it reset: {error}"
        ),
    }
}
