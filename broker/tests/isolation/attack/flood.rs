//! Connections that ask for topics that aren't there as fast as they are answered: one at a time
//! in long pipelines, and thousands in one request.

use ringway_testing::Random;
use ringway_wire::limits::METADATA_TOPICS_MAX;
use ringway_wire::request::MetadataRequest;

use super::Field;
use super::connection::{Connection, Ended, Endless, frame, hello};

const PIPELINE: usize = 4_096;
const NAMES: usize = METADATA_TOPICS_MAX;

/// Some requests for topics that nobody has made.
pub(super) fn unknown_topics(requests: usize, names: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut name = || format!("no-{:016x}", random.next_u64());
    let mut bytes = Vec::new();
    for _ in 0..requests {
        let topics = Some((0..names).map(|_| name()).collect());
        bytes.extend(frame(MetadataRequest { topics }));
    }
    bytes
}

struct Flood {
    connection: Option<Connection>,
    requests: Endless,
}

pub(super) fn attack(field: &Field, _: u64) {
    let mut floods: Vec<Flood> = (0..field.plan.floods as u64)
        .map(|number| {
            let (requests, names) = match number % 4 {
                0 => (8, NAMES),
                1 => (64, 64),
                _ => (PIPELINE, 1),
            };
            Flood {
                connection: None,
                requests: Endless::new(unknown_topics(requests, names, number)),
            }
        })
        .collect();
    let mut buffer = vec![0; 256 << 10];
    while field.on() {
        let mut moved = 0;
        for (number, flood) in floods.iter_mut().enumerate() {
            moved += flood.go_on(field, number as u64, &mut buffer);
        }
        if moved == 0 {
            super::rest();
        }
    }
}

impl Flood {
    fn go_on(&mut self, field: &Field, number: u64, buffer: &mut [u8]) -> usize {
        let Some(connection) = &mut self.connection else {
            self.connection = Connection::open(field, number);
            if let Some(connection) = &mut self.connection {
                let _ = connection.write(field, &hello());
            }
            return 0;
        };
        let mut exchange = || -> Result<usize, Ended> {
            let read = connection.read(field, buffer)?;
            Ok(read + self.requests.write(connection, field)?)
        };
        exchange().unwrap_or_else(|Ended| {
            self.connection = None;
            0
        })
    }
}
