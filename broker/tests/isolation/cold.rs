//! A consumer that reads what the broker has long forgotten, as fast as it is let, beside a client
//! that produces and consumes at the tail.

use std::time::{Duration, Instant};

use ringway_testing::{BrokerOptions, Scratch, metric, variable};

use crate::bulk::{Bulk, Reader, VALUE_BYTES};
use crate::figures::Phase;
use crate::paced::Paced;
use crate::resident::{Watch, resident};

/// The broker's memory may grow by so much for whoever reads old records: what it reads ahead of
/// sending, and what it has sent and the client hasn't taken.
const GROWTH_BYTES_MAX: u64 = 128 << 20;
/// A record of the well-behaved client.
const EVERY: Duration = Duration::from_millis(2);
/// Its partitions. With one, each round of it is a single durable write, alone as beside others:
/// with more, waiting would gather partitions, and make another, dearer kind of round of it.
const PARTITIONS: u32 = 1;
const CACHE_BYTES: u64 = 32 << 20;

/// `RINGWAY_COLD_BYTES` is how much is read, `RINGWAY_COLD_RATE` how much of it in a second at
/// most, `RINGWAY_COLD_PHASE_MS` the length of a phase.
#[test]
fn a_reader_of_old_records_keeps_to_its_budget() {
    let bytes = variable("RINGWAY_COLD_BYTES", 96 << 20);
    let rate = variable("RINGWAY_COLD_RATE", 64 << 20);
    let phase = Duration::from_millis(variable("RINGWAY_COLD_PHASE_MS", 500));
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "cold").unwrap();
    let options = BrokerOptions::new(crate::binary(), &scratch)
        .argument(format!("--cache-bytes={CACHE_BYTES}"))
        .argument(format!("--cold-read-bytes-per-second={rate}"));
    let mut broker = options.start().unwrap();
    let bulk = Bulk::fill(&broker.listen().to_string(), bytes);
    let paced = Paced::start(&broker.listen().to_string(), EVERY, PARTITIONS);
    std::thread::sleep(Duration::from_millis(500));
    let before = resident(broker.pid());
    let watch = Watch::start(broker.pid());

    let mut reader = Reader::new(&bulk);
    let mut reading = Duration::ZERO;
    let mut read = 0;
    while read < bulk.records {
        paced.enter(Phase::Alone);
        std::thread::sleep(phase);
        paced.enter(Phase::Beside);
        let begin = Instant::now();
        reader.go_on();
        read = reader.pause_after(phase);
        reading += begin.elapsed();
        paced.enter(Phase::Between);
    }
    let report = paced.finish();
    let grown = watch.most().saturating_sub(before);
    let from_disk = metric(broker.admin(), "fetched_disk_bytes_total");
    println!(
        "{} bytes of old records read in {reading:?}, {:.1} MB/s, at most {:.1} MB/s\n\
         {} records of a client at the tail, all there\n\n{}\n{}\n\
         resident memory: {} MiB alone, + {} MiB at most beside",
        bulk.records * VALUE_BYTES as u64,
        (bulk.records * VALUE_BYTES as u64) as f64 / reading.as_secs_f64() / 1e6,
        rate as f64 / 1e6,
        report.records,
        report.acknowledged.table("from due to acknowledged"),
        report.delivered.table("from due to delivered"),
        before >> 20,
        grown >> 20,
    );
    assert!(report.acknowledged.beside.count() > 0);
    let cold = bytes.saturating_sub(CACHE_BYTES);
    assert!(
        from_disk >= cold / 2,
        "{from_disk} of {bytes} from the disk"
    );
    // Slowness only makes this easier. What a second begins with comes on top.
    let most = rate as f64 * (reading.as_secs_f64() + 1.0);
    assert!(
        from_disk as f64 <= most,
        "{from_disk} bytes, {most} at most"
    );
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    let status = broker.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", broker.log());
}
