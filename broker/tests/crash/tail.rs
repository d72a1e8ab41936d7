//! A consumer at the tail costs the disk nothing: what it reads comes from memory.

use std::time::Duration;

use ringway_client::{PartitionIndex, StartAt};
use tokio::time::timeout;

use crate::plain::{PATIENCE, Plain, metric, proc_number};
use crate::site::{Site, alone, scratch, variable};

/// `RINGWAY_TAIL_BYTES` sets how much passes; what is promised is promised for 1 GB too.
const TAIL_BYTES: u64 = 96 << 20;
const VALUE_BYTES: usize = 16 << 10;
/// Records sent before the consumer is waited for.
const AHEAD: usize = 256;

#[test]
fn a_consumer_at_the_tail_reads_nothing_from_the_disk() {
    let _alone = alone();
    let scratch = scratch("tail");
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start(1);
    let (pid, admin) = (site.broker().pid(), site.broker().admin());
    let plain = Plain::connect(&site.address(), PATIENCE);
    plain.create("t", 1, 64 << 20);
    plain.produce("t", 0, b"the first").unwrap();
    let mut consumer = plain.run(async { plain.client().consumer().build() });
    plain.run(consumer.assign("t", None, StartAt::End)).unwrap();
    let read_before = proc_number(pid, "io", "read_bytes");
    let own_reads = metric(admin, "device_read_bytes_total");
    let count = variable("RINGWAY_TAIL_BYTES", TAIL_BYTES) as usize / VALUE_BYTES;
    let mut next = 1;
    for first in (0..count).step_by(AHEAD) {
        let numbers = first..count.min(first + AHEAD);
        let deliveries: Vec<_> = numbers
            .clone()
            .map(|number| plain.send("t", 0, &value(number)))
            .collect();
        while next < numbers.end as u64 + 1 {
            let batch = plain.run(async { timeout(PATIENCE, consumer.next_batch()).await });
            for record in &batch.expect("records come").unwrap() {
                assert_eq!(record.offset.0, next);
                assert!(record.value == Some(&value(next as usize - 1)[..]));
                next += 1;
            }
        }
        for delivery in deliveries {
            plain.run(delivery).unwrap();
        }
    }
    let position = consumer.position("t", PartitionIndex(0)).unwrap();
    assert_eq!(position.0, count as u64 + 1);
    let bytes = (count * VALUE_BYTES) as u64;
    let read = proc_number(pid, "io", "read_bytes") - read_before;
    println!("{read} bytes read from the disk while {bytes} passed");
    assert_eq!(metric(admin, "fetched_disk_bytes_total"), 0);
    assert_eq!(metric(admin, "device_read_bytes_total"), own_reads);
    let from_memory = metric(admin, "fetched_cache_bytes_total");
    assert!(from_memory >= bytes, "{from_memory} of {bytes}");
    // The file system reads blocks of its own when files are made.
    assert!(read <= bytes / 1_000, "{read} of {bytes}");
    site.stop(Duration::from_secs(20));
}

fn value(number: usize) -> Vec<u8> {
    let mut value = vec![(number % 251) as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&(number as u64).to_le_bytes());
    value
}
