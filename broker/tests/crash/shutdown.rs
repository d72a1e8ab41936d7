//! A broker that is asked to stop, under load: it finishes what it has accepted, ends with 0 within
//! seconds, and its next start has nothing to search for.

use std::time::Duration;

use crate::load::{Load, LoadOptions, Mood};
use crate::plain::{page, proc_number, wait_until};
use crate::site::{Site, alone, scratch};

/// "Seconds", on a machine that does other things too.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
const STOPS: usize = 3;

#[test]
fn a_broker_told_to_stop_under_load_finishes_and_starts_without_a_scan() {
    let _alone = alone();
    let scratch = scratch("stop");
    let mut site = Site::new(&scratch, &scratch.path().join("data"));
    site.start(2);
    let options = LoadOptions {
        seed: 400,
        producers: 3,
        segment_bytes: 4 << 20,
        retention_bytes: None,
    };
    let load = Load::start(&site.address(), options);
    for stop in 1..=STOPS {
        load.set(Mood::Wide);
        load.wait_for(2_000);
        let log = site.stop(STOPS_WITHIN);
        assert!(log.contains("stopped in order"), "{log}");
        load.set(Mood::Quiet);
        site.start(2);
        let (pid, admin) = (site.broker().pid(), site.broker().admin());
        wait_until("it serves", || page(admin, "/healthz") == "serving\n");
        let read = proc_number(pid, "io", "read_bytes");
        let written = written_bytes(&scratch.path().join("data"));
        // A block of each partition and the side files; a scan would read all that was written
        // since the last checkpoint.
        println!("stop {stop}: {read} bytes read of {written}");
        assert!(read < written / 4, "{read} bytes read of {written}");
        load.verify(&format!("after stop {stop}"));
    }
    load.finish();
    site.stop(STOPS_WITHIN);
}

/// Bytes of all segments.
fn written_bytes(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => written_bytes(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}
