//! Thousands of connections that say nothing, or a byte now and then.

use std::time::{Duration, Instant};

use ringway_wire::request::MetadataRequest;

use super::Field;
use super::connection::{Connection, Ended, frame, hello};

/// Every connection is looked at once in this time.
const SWEEP: Duration = Duration::from_secs(4);

/// A slow connection and how much of its bytes is sent.
struct Slow {
    connection: Connection,
    sent: usize,
}

/// What a connection of this number sends: all of the first part at once, then the second part
/// byte by byte, again and again.
fn script(number: usize) -> (Vec<u8>, Vec<u8>) {
    match number % 4 {
        0 => (Vec::new(), Vec::new()),
        1 => (Vec::new(), hello()),
        2 => (hello(), Vec::new()),
        _ => (hello(), frame(MetadataRequest { topics: None })),
    }
}

pub(super) fn attack(field: &Field, _: u64) {
    let count = field.plan.slow;
    let mut connections: Vec<Option<Slow>> = (0..count).map(|_| None).collect();
    let mut first = true;
    while field.on() {
        let begin = Instant::now();
        for (number, slot) in connections.iter_mut().enumerate() {
            if !field.on() {
                return;
            }
            let (at_once, dripped) = script(number);
            let ended = match slot {
                None => {
                    *slot = open(field, number, &at_once);
                    false
                }
                Some(slow) => slow.drip(field, &dripped).is_err(),
            };
            if ended {
                *slot = None;
            }
            // The first time as fast as it goes.
            let due = begin + SWEEP * number as u32 / count as u32;
            if !first && due > Instant::now() {
                std::thread::sleep(due - Instant::now());
            }
        }
        first = false;
    }
}

fn open(field: &Field, number: usize, at_once: &[u8]) -> Option<Slow> {
    let mut connection = Connection::open(field, number as u64)?;
    connection.write(field, at_once).ok()?;
    Some(Slow {
        connection,
        sent: 0,
    })
}

impl Slow {
    fn drip(&mut self, field: &Field, dripped: &[u8]) -> Result<(), Ended> {
        self.connection.read(field, &mut [0; 4096])?;
        if !dripped.is_empty() {
            let next = self.sent % dripped.len();
            self.sent += self.connection.write(field, &dripped[next..=next])?;
        }
        Ok(())
    }
}
