//! The ring on real sockets and files.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use ringway_engine::buffer::Pool;

use super::*;
use crate::wake::Wake;

const OWNER: Owner = Owner {
    role: Role::Receive,
    id: 1,
};

fn ring() -> Ring {
    let mut ring = Ring::new(&RingConfig::default()).unwrap();
    ring.provide_receive_buffers().unwrap();
    ring
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn next(ring: &mut Ring, completions: &mut Vec<Completion>) -> Completion {
    while completions.is_empty() {
        ring.enter(Wait::AtMost(Duration::from_secs(10))).unwrap();
        ring.reap(completions);
    }
    completions.remove(0)
}

#[test]
fn a_multishot_receive_goes_on_beyond_the_buffers_there_are() {
    let mut ring = ring();
    let (mut client, server) = pair();
    ring.receive(OWNER, server.as_raw_fd());
    let mut completions = Vec::new();
    let mut seen = 0_u32;
    for round in 0..1_000_u32 {
        client.write_all(&round.to_le_bytes()).unwrap();
        let mut completion = next(&mut ring, &mut completions);
        let received = completion.received.take().expect("bytes come in a buffer");
        assert_eq!(ring.received(&received), round.to_le_bytes());
        assert!(completion.more);
        ring.give_back(received);
        seen += 1;
    }
    assert_eq!(seen, 1_000);
    assert_eq!(ring.counters().buffers_exhausted, 0);
    drop(client);
    let end = next(&mut ring, &mut completions);
    assert!(matches!(end.result, Ok(0)) && !end.more, "{end:?}");
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_cancelled_receive_ends_once() {
    let mut ring = ring();
    let (_client, server) = pair();
    let key = ring.receive(OWNER, server.as_raw_fd());
    ring.enter(Wait::No).unwrap();
    ring.cancel(key);
    let mut completions = Vec::new();
    let mut ended = 0;
    while ring.in_flight() > 0 || !completions.is_empty() {
        let completion = next(&mut ring, &mut completions);
        if completion.owner == OWNER {
            let number = completion.result.unwrap_err().raw_os_error();
            assert_eq!(number, Some(libc::ECANCELED));
            ended += 1;
        }
    }
    assert_eq!(ended, 1);
}

#[test]
fn a_message_of_heads_and_slices_arrives_whole() {
    let mut ring = ring();
    let (mut client, server) = pair();
    let pool = Pool::new(0);
    let bytes = 3 << 20;
    let mut block = pool.take(bytes);
    for (index, byte) in block[..bytes].iter_mut().enumerate() {
        *byte = (index / 7) as u8;
    }
    let slice = block.freeze(bytes);
    let mut message = Box::new(Message::new());
    message.pieces.push_back(Piece::Head(b"xxhead".to_vec()));
    message.pieces.push_back(Piece::Data(slice.clone()));
    message.skip = 2;
    ring.send(OWNER, server.as_raw_fd(), message);
    drop(slice);
    ring.enter(Wait::No).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; bytes + 4];
        client.read_exact(&mut all).unwrap();
        all
    });
    let completion = next(&mut ring, &mut Vec::new());
    assert_eq!(completion.result.unwrap() as usize, bytes + 4);
    let Memory::Message(mut message) = completion.memory else {
        panic!("the message comes back");
    };
    assert_eq!(message.sent(bytes + 4), bytes + 6);
    assert!(
        message.pieces.is_empty() && pool.used_bytes() == 0,
        "memory is free after the send"
    );
    let all = reader.join().unwrap();
    assert_eq!(&all[..4], b"head");
    assert!(
        all[4..]
            .iter()
            .enumerate()
            .all(|(index, &byte)| byte == (index / 7) as u8)
    );
}

#[test]
fn other_threads_wake_a_sleeping_ring_every_time() {
    let mut ring = ring();
    let wake = Arc::new(Wake::new().unwrap());
    let bell = Owner {
        role: Role::Wake,
        id: 0,
    };
    ring.listen_to_bell(bell, wake.as_raw_fd());
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = {
        let wake = Arc::clone(&wake);
        std::thread::spawn(move || {
            for number in 0..20_000_u32 {
                sender.send(number).unwrap();
                wake.ring();
                if number % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        })
    };
    let mut wanted = 0;
    let mut completions = Vec::new();
    while wanted < 20_000 {
        wake.announce_sleep();
        match receiver.try_recv() {
            Ok(number) => {
                assert_eq!(number, wanted);
                wanted += 1;
            }
            Err(_) => {
                let before = Instant::now();
                ring.enter(Wait::AtMost(Duration::from_secs(30))).unwrap();
                assert!(
                    before.elapsed() < Duration::from_secs(30),
                    "a wake-up was lost"
                );
            }
        }
        wake.awake();
        ring.reap(&mut completions);
        if completions.drain(..).any(|completion| !completion.more) {
            ring.listen_to_bell(bell, wake.as_raw_fd());
        }
    }
    other.join().unwrap();
}

#[test]
fn waiting_ends_in_time_and_an_idle_turn_makes_no_system_call() {
    let mut ring = ring();
    let enters = ring.counters().enters;
    ring.enter(Wait::No).unwrap();
    assert_eq!(
        ring.counters().enters,
        enters,
        "there was nothing to enter for"
    );
    ring.enter(Wait::AtMost(Duration::from_millis(5))).unwrap();
    let mut completions = Vec::new();
    ring.reap(&mut completions);
    assert!(completions.is_empty());
}

#[test]
fn more_operations_than_the_queue_holds_are_all_done() {
    let mut ring = ring();
    let scratch = crate::testing::scratch("queue");
    let path = scratch.path().join("file");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let pool = Pool::new(0);
    let count = 3 * SUBMISSIONS_MAX as usize;
    for id in 0..count as u64 {
        let owner = Owner {
            role: Role::Disk,
            id,
        };
        ring.read(owner, file.as_raw_fd(), 0, pool.take(1), (0, 4096));
    }
    let mut completions = Vec::new();
    let mut seen = vec![false; count];
    for _ in 0..count {
        let completion = next(&mut ring, &mut completions);
        assert_eq!(completion.result.unwrap(), 4096);
        let place = &mut seen[completion.owner.id as usize];
        assert!(!std::mem::replace(place, true), "each completes once");
    }
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_dropped_ring_ends_its_operations_and_lets_the_lock_go() {
    let scratch = crate::testing::scratch("held");
    let path = scratch.path().join("lock");
    let lock = std::fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let config = RingConfig {
        lock: Some(lock.as_fd()),
        ..RingConfig::default()
    };
    let mut ring = Ring::new(&config).unwrap();
    ring.provide_receive_buffers().unwrap();
    let (_client, server) = pair();
    ring.receive(OWNER, server.as_raw_fd());
    ring.enter(Wait::No).unwrap();
    drop(lock);
    let again = std::fs::File::open(&path).unwrap();
    assert!(again.try_lock().is_err(), "the ring holds the lock");
    drop(ring);
    // The kernel frees a ring's files a little after the last reference to it is gone.
    let end = Instant::now() + Duration::from_secs(20);
    while again.try_lock().is_err() {
        assert!(Instant::now() < end, "the lock outlives the ring");
        std::thread::sleep(Duration::from_millis(2));
    }
}
