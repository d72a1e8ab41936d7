//! Clients that do what they shouldn't: each gets a clear error or a closed connection, and the
//! others notice nothing.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use ringway_wire::frame::encode_head;
use ringway_wire::request::{Acks, HelloRequest, Reply, Request, RequestKind};
use ringway_wire::{CorrelationId, ErrorCode};

use super::rig::{Client, Options, Rig, batch, fetch, produce, wait_until};
use crate::shard::NetworkLimits;
use crate::testing::scratch;

fn fault(reply: &Reply) -> ErrorCode {
    let fault = match reply {
        Reply::Hello(reply) => &reply.fault,
        Reply::Produce(reply) => &reply.fault,
        Reply::Fetch(reply) => &reply.fault,
        Reply::Metadata(reply) => &reply.fault,
        other => panic!("{other:?}"),
    };
    fault.as_ref().expect("a fault").code
}

fn limits(change: impl FnOnce(&mut NetworkLimits)) -> Options {
    let mut limits = NetworkLimits::default();
    change(&mut limits);
    Options {
        limits,
        ..Options::default()
    }
}

#[test]
fn malformed_streams_get_an_answer_and_an_end() {
    let scratch = scratch("malformed");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut good = Client::hello(rig.ports[0]);
    let hello = RequestKind::Hello.number();
    let mut reserved = encode_head(hello, CorrelationId(9), b"", 0);
    reserved[6] = 1;
    let mut oversized = encode_head(RequestKind::Produce.number(), CorrelationId(9), b"", 0);
    oversized[..4].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let truncated_head = encode_head(hello, CorrelationId(9), &[1], 0);
    for (bytes, code) in [
        (reserved, ErrorCode::MalformedRequest),
        (oversized, ErrorCode::MalformedRequest),
        (truncated_head, ErrorCode::MalformedRequest),
    ] {
        let mut client = Client::connect(rig.ports[0]);
        client.stream.write_all(&bytes).unwrap();
        let (correlation, reply, _) = client.next_reply().expect("an answer");
        assert_eq!((correlation, fault(&reply)), (9, code));
        assert!(client.next_reply().is_none(), "then the connection ends");
    }
    assert_eq!(good.produce(0, &[b"fine"]).fault, None);
    rig.stop();
}

#[test]
fn garbage_ends_the_connection_and_hurts_nobody() {
    let scratch = scratch("garbage");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut good = Client::hello(rig.ports[0]);
    let mut seed = 1_u64;
    for round in 0..200 {
        let mut client = if round % 2 == 0 {
            Client::connect(rig.ports[0])
        } else {
            Client::hello(rig.ports[0])
        };
        let garbage: Vec<u8> = (0..200 + round * 13)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        let _ = client.stream.write_all(&garbage);
        let _ = client.stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.len() < 10_000);
    }
    let mut client = Client::connect(rig.ports[0]);
    client
        .stream
        .write_all(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    client.stream.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("not a Ringway stream"));
    assert_eq!(good.produce(0, &[b"fine"]).fault, None);
    drop(client);
    wait_until("all are gone", || rig.metrics[0].connections.get() == 1);
    rig.stop();
}

#[test]
fn requests_out_of_place_are_refused() {
    let scratch = scratch("place");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::connect(rig.ports[0]);
    let (_, reply, _) = client.ask(&fetch(0, 0, 0), &[]);
    assert_eq!(fault(&reply), ErrorCode::UnexpectedRequest);
    assert!(client.next_reply().is_none());

    let mut client = Client::connect(rig.ports[0]);
    let newer = HelloRequest {
        version_min: 900,
        version_max: 900,
        ..HelloRequest::default()
    };
    let (_, reply, _) = client.ask(&newer.into(), &[]);
    assert_eq!(fault(&reply), ErrorCode::UnsupportedVersion);
    assert!(client.next_reply().is_none());

    let mut client = Client::hello(rig.ports[0]);
    let (_, reply, _) = client.ask(&HelloRequest::default().into(), &[]);
    assert_eq!(fault(&reply), ErrorCode::UnexpectedRequest);

    let mut client = Client::hello(rig.ports[0]);
    let (_, reply, _) = client.ask(&fetch(0, 0, 0), &[0; 32]);
    assert_eq!(fault(&reply), ErrorCode::MalformedRequest);

    // Pipelined behind hello is fine, and what came before the bad one is still answered.
    let mut client = Client::connect(rig.ports[0]);
    client.send(&HelloRequest::default().into(), &[]);
    client.send(&Request::Metadata(Default::default()), &[]);
    client.send(&HelloRequest::default().into(), &[]);
    let kinds: Vec<bool> = std::iter::from_fn(|| client.next_reply())
        .map(|(_, reply, _)| matches!(reply, Reply::Hello(hello) if hello.fault.is_some()))
        .collect();
    assert_eq!(kinds, [false, false, true]);
    rig.stop();
}

#[test]
fn damaged_batches_are_refused_and_the_connection_goes_on() {
    let scratch = scratch("damaged");
    let rig = Rig::new(scratch.path(), Options::default());
    let mut client = Client::hello(rig.ports[0]);
    let whole = batch(&[b"some value"]);
    for place in [0, 20, 60, 100, 130, whole.len() - 17] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x40;
        let (_, reply, _) = client.ask(&produce(0, Acks::All), &damaged);
        assert!(matches!(reply, Reply::Produce(_)));
    }
    let (_, reply, _) = client.ask(&produce(0, Acks::All), &whole[..whole.len() - 16]);
    assert_eq!(fault(&reply), ErrorCode::CorruptBatch);
    assert_eq!(client.produce(0, &[b"whole"]).fault, None);
    rig.stop();
}

#[test]
fn silent_and_stalled_clients_are_closed_in_time() {
    let scratch = scratch("silent");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| {
            limits.hello_max = Duration::from_millis(100);
            limits.frame_pause_max = Duration::from_millis(100);
        }),
    );
    let mut good = Client::hello(rig.ports[0]);
    let mut silent = Client::connect(rig.ports[0]);
    assert!(silent.next_reply().is_none(), "no hello, no connection");
    let mut stalled = Client::hello(rig.ports[0]);
    let frame = produce(0, Acks::All).to_frame(CorrelationId(5), 4_096);
    stalled.stream.write_all(&frame).unwrap();
    assert!(
        stalled.next_reply().is_none(),
        "half a frame for ever is none"
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(good.produce(0, &[b"idle is fine"]).fault, None);
    rig.stop();
}

#[test]
fn a_client_that_never_reads_is_bounded_and_closed() {
    let scratch = scratch("never-reads");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| {
            limits.unsent_bytes_pause = 2 << 20;
            limits.unsent_bytes_max = 8 << 20;
            limits.send_max = Duration::from_millis(1_500);
        }),
    );
    let mut good = Client::hello(rig.ports[0]);
    let value = vec![5_u8; 900_000];
    for _ in 0..4 {
        assert_eq!(good.produce(0, &[&value]).fault, None);
    }
    let mut greedy = Client::hello(rig.ports[0]);
    for number in 0..3_000 {
        let head = fetch(0, number % 4, 0).to_frame(CorrelationId(number as u32 + 10), 0);
        if greedy.stream.write_all(&head).is_err() {
            break;
        }
    }
    let mut most = 0;
    wait_until("it is closed", || {
        most = most.max(rig.metrics[0].send_bytes.get());
        rig.metrics[0].connections.get() == 1
    });
    assert!(most > 1 << 20, "it had replies to read: {most}");
    assert!(most < 16 << 20, "they were bounded: {most}");
    assert_eq!(good.produce(0, &[b"fine"]).fault, None);
    rig.stop();
}

#[test]
fn a_slow_reader_gets_everything() {
    let scratch = scratch("slow");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| limits.unsent_bytes_pause = 1 << 20),
    );
    let mut client = Client::hello(rig.ports[0]);
    let value: Vec<u8> = (0..800_000_u32).map(|n| n as u8).collect();
    for _ in 0..3 {
        assert_eq!(client.produce(0, &[&value]).fault, None);
    }
    let count = 60;
    for number in 0..count {
        client.send(&fetch(0, number % 3, 0), &[]);
    }
    for number in 0..count {
        if number % 10 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (_, reply, data) = client.next_reply().unwrap();
        assert!(matches!(reply, Reply::Fetch(reply) if reply.fault.is_none()));
        assert!(data.len() > 800_000);
    }
    rig.stop();
}

#[test]
fn large_frames_of_many_clients_share_bounded_memory() {
    let scratch = scratch("receive-memory");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| limits.receive_bytes_max = 4 << 20),
    );
    let value = vec![9_u8; 2_500_000];
    let one = batch(&[&value]);
    let clients: Vec<_> = (0..8)
        .map(|index| {
            let (address, data) = (rig.ports[0], one.clone());
            std::thread::spawn(move || {
                let mut client = Client::hello(address);
                for _ in 0..3 {
                    let (_, reply, _) = client.ask(&produce(index % 4, Acks::All), &data);
                    assert!(matches!(reply, Reply::Produce(reply) if reply.fault.is_none()));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    rig.stop();
}

#[test]
fn connections_above_the_limit_are_refused() {
    let scratch = scratch("limit");
    let rig = Rig::new(scratch.path(), limits(|limits| limits.connections_max = 3));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::hello(rig.ports[0])).collect();
    assert!(Client::connect(rig.ports[0]).next_reply().is_none());
    assert_eq!(rig.metrics[0].connections_refused.get(), 1);
    clients.pop();
    wait_until("there is room again", || {
        rig.metrics[0].connections.get() == 2
    });
    clients.push(Client::hello(rig.ports[0]));
    assert_eq!(clients[0].produce(0, &[b"fine"]).fault, None);
    rig.stop();
}

#[test]
fn waiting_requests_are_bounded_and_their_client_may_leave() {
    let scratch = scratch("waiting");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| {
            limits.unanswered_max = 100;
            limits.unanswered_total_max = 150;
        }),
    );
    let mut good = Client::hello(rig.ports[0]);
    let mut waiting = Client::hello(rig.ports[0]);
    let mut others = Client::hello(rig.ports[0]);
    for client in [&mut waiting, &mut others] {
        for _ in 0..101 {
            client.send(&fetch(0, 0, 3_600_000), &[]);
        }
    }
    let overloaded = |client: &mut Client| {
        let (_, reply, _) = client.next_reply().expect("one too many");
        assert_eq!(fault(&reply), ErrorCode::Overloaded);
    };
    overloaded(&mut waiting);
    overloaded(&mut others);
    wait_until("both wait", || rig.metrics[0].requests.get() >= 205);
    // The shard has too many by now, yet not from this one.
    assert_eq!(good.fetch(0, 0, 1).reply.fault, None);
    drop(waiting);
    wait_until("it is noticed", || rig.metrics[0].connections.get() == 2);
    // Answers whatever still waits.
    assert_eq!(good.produce(0, &[b"fine"]).fault, None);
    for _ in 0..64 {
        let (_, reply, _) = others.next_reply().expect("the record comes");
        assert!(matches!(reply, Reply::Fetch(_)));
    }
    rig.stop();
}

#[test]
fn whoever_takes_no_replies_goes_when_memory_for_them_is_short() {
    let scratch = scratch("stuck");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| {
            limits.send_bytes_max = 32 << 20;
            limits.unsent_bytes_pause = 16 << 20;
            limits.unsent_bytes_max = 16 << 20;
            limits.stuck_max = Duration::from_millis(200);
        }),
    );
    let mut good = Client::hello(rig.ports[0]);
    let value = vec![5_u8; 900_000];
    assert_eq!(good.produce(0, &[&value]).fault, None);
    // More than the kernel takes for them, twelve times.
    let mut deaf: Vec<Client> = (0..12).map(|_| Client::hello(rig.ports[0])).collect();
    for client in &mut deaf {
        for _ in 0..40 {
            client.send(&fetch(0, 0, 0), &[]);
        }
    }
    wait_until("some are closed", || {
        let open = rig.metrics[0].connections.get();
        open < 13 && rig.metrics[0].send_bytes.get() <= 32 << 20
    });
    assert!(rig.metrics[0].connections.get() > 1, "not more than needed");
    assert_eq!(good.fetch(0, 0, 0).reply.fault, None);
    rig.stop();
}

#[test]
fn a_refused_client_that_has_left_and_does_not_read_keeps_nobody_busy() {
    let scratch = scratch("refused-and-gone");
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| {
            limits.unsent_bytes_pause = 256 << 20;
            limits.unsent_bytes_max = 256 << 20;
        }),
    );
    let mut good = Client::hello(rig.ports[0]);
    let value = vec![5_u8; 900_000];
    assert_eq!(good.produce(0, &[&value]).fault, None);
    let mut deaf = Client::hello(rig.ports[0]);
    for _ in 0..40 {
        deaf.send(&fetch(0, 0, 0), &[]);
    }
    let unsent = || rig.metrics[0].send_bytes.get();
    wait_until("replies wait for it", || unsent() > 1 << 20);
    deaf.stream.write_all(&[0xff; 128]).unwrap();
    deaf.stream.shutdown(Shutdown::Write).unwrap();
    wait_until("it is refused", || {
        rig.metrics[0].connections_faulted.get() == 1
    });
    assert!(unsent() > 1 << 20, "the refusal waits behind them");
    let before = rig.metrics[0].turns.get();
    std::thread::sleep(Duration::from_millis(200));
    let turns = rig.metrics[0].turns.get() - before;
    assert!(turns < 2_000, "{turns} turns for nothing");
    drop(deaf);
    wait_until("it is gone", || rig.metrics[0].connections.get() == 1);
    rig.stop();
}

#[test]
fn idle_connections_give_back_the_memory_of_their_requests_when_it_is_short() {
    let scratch = scratch("idle-memory");
    let most = 2 << 20;
    let rig = Rig::new(
        scratch.path(),
        limits(|limits| limits.receive_bytes_max = most),
    );
    let one = batch(&[&vec![9_u8; 40_000]]);
    // Each alone is a small one, and together they have twice of what there is.
    let mut clients: Vec<Client> = (0..80).map(|_| Client::hello(rig.ports[0])).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let (_, reply, _) = client.ask(&produce(number as u32 % 4, Acks::All), &one);
        assert!(matches!(reply, Reply::Produce(reply) if reply.fault.is_none()));
    }
    let received = rig.metrics[0].receive_bytes.get();
    assert!(received > 0, "while there is enough it is kept");
    assert!(received <= most as u64, "{received} bytes");
    rig.stop();
}
