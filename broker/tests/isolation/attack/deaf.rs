//! Connections that ask and ask and never read an answer: small ones, large ones, batches, and
//! waits for what never comes.

use ringway_wire::Offset;
use ringway_wire::limits::METADATA_TOPICS_MAX;
use ringway_wire::request::{FetchRequest, MetadataRequest};

use super::Field;
use super::connection::{Connection, Endless, frame, hello};
use super::flood::unknown_topics;

/// What a connection of this number asks.
fn questions(field: &Field, number: usize) -> Vec<u8> {
    let fetch = |offset, wait_ms| {
        frame(FetchRequest {
            topic: field.plan.topic,
            offset: Offset(offset),
            bytes_max: u32::MAX,
            wait_ms,
            ..FetchRequest::default()
        })
    };
    match number % 5 {
        0 => unknown_topics(1_000, 1, number as u64),
        1 => unknown_topics(8, METADATA_TOPICS_MAX, number as u64),
        2 => frame(MetadataRequest { topics: None }).repeat(1_000),
        // Spread over what is there, so that most of it isn't in memory.
        3 => (0..100)
            .flat_map(|part| fetch(field.plan.records * part / 100, 0))
            .collect(),
        // At the end of a log that nobody writes to.
        _ => fetch(field.plan.records, 3_600_000).repeat(1_000),
    }
}

pub(super) fn attack(field: &Field, _: u64) {
    let mut deaf: Vec<(Option<Connection>, Endless)> = (0..field.plan.deaf)
        .map(|number| (None, Endless::new(questions(field, number))))
        .collect();
    while field.on() {
        let mut moved = 0;
        for (number, (connection, endless)) in deaf.iter_mut().enumerate() {
            let Some(open) = connection else {
                *connection = Connection::open(field, number as u64);
                if let Some(open) = connection {
                    let _ = open.write(field, &hello());
                }
                continue;
            };
            match endless.write(open, field) {
                Ok(written) => moved += written,
                Err(_) => *connection = None,
            }
        }
        if moved == 0 {
            super::rest();
        }
    }
}
