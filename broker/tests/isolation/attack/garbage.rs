//! One connection after the other that sends what is no request: noise, lengths that lie, batches
//! that are none.

use std::time::{Duration, Instant};

use ringway_testing::Random;
use ringway_wire::frame::encode_head;
use ringway_wire::request::{Acks, ProduceRequest, Request};
use ringway_wire::{CorrelationId, PartitionIndex};

use super::Field;
use super::connection::{Connection, frame, hello};

/// How long an answer is waited for, at most.
const PATIENCE: Duration = Duration::from_millis(100);

pub(super) fn attack(field: &Field, thread: u64) {
    let mut random = Random::new(thread + 1_000);
    while field.on() {
        let Some(mut connection) = Connection::open(field, random.next_u64()) else {
            continue;
        };
        let bytes = nonsense(field, &mut random);
        let mut left = &bytes[..];
        let begin = Instant::now();
        while field.on() && begin.elapsed() < PATIENCE {
            let written = connection.write(field, left);
            let read = connection.read(field, &mut [0; 4096]);
            let (Ok(written), Ok(_)) = (written, read) else {
                break;
            };
            left = &left[written..];
            if left.is_empty() && random.chance(200) {
                // Some leave without waiting for the answer.
                break;
            }
            super::rest();
        }
    }
}

fn nonsense(field: &Field, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.chance(800) {
        bytes.extend(hello());
    }
    match random.below(5) {
        0 => noise(random.below(20_000), random, &mut bytes),
        1 => lie(random, &mut bytes),
        2 => torn_head(random, &mut bytes),
        _ => batch(field, random, &mut bytes),
    }
    bytes
}

fn noise(count: u64, random: &mut Random, bytes: &mut Vec<u8>) {
    bytes.extend((0..count).map(|_| random.next_u64() as u8));
}

/// A frame that is said to be larger than any may be, or as large as one may be with next to
/// nothing behind it.
fn lie(random: &mut Random, bytes: &mut Vec<u8>) {
    let request = Request::from(ProduceRequest::default());
    let mut head = encode_head(request.kind().number(), CorrelationId(3), b"", 0);
    let length = match random.chance(500) {
        true => u32::MAX - random.below(1 << 16) as u32,
        false => (random.below(60) << 20) as u32,
    };
    head[..4].copy_from_slice(&length.to_le_bytes());
    bytes.extend(head);
    noise(random.below(2_000), random, bytes);
}

/// A request of any kind whose head is noise of the length that is announced.
fn torn_head(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut head = Vec::new();
    noise(random.below(300), random, &mut head);
    let kind = random.below(14) as u16;
    bytes.extend(encode_head(kind, CorrelationId(4), &head, 0));
}

/// Produce requests for a partition that is there, whole, but with noise for batches.
fn batch(field: &Field, random: &mut Random, bytes: &mut Vec<u8>) {
    let request = Request::from(ProduceRequest {
        topic: field.plan.topic,
        partition: PartitionIndex(0),
        acks: Acks::All,
        timeout_ms: 1_000,
        ..ProduceRequest::default()
    });
    for _ in 0..random.below(20) {
        let count = random.below(4_000) & !15;
        bytes.extend(request.to_frame(CorrelationId(5), count as usize));
        noise(count, random, bytes);
    }
    // And one after them that is right, so that the broker has to have kept its place.
    bytes.extend(frame(ringway_wire::request::MetadataRequest {
        topics: Some(Vec::new()),
    }));
}
