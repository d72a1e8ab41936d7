//! The one fault that can only be provoked for the whole machine: the sysctl that forbids rings.
//! A test program of its own, since cargo runs those one after the other: every other test on
//! this machine would be refused its ring for these milliseconds.

#[path = "provoked/child.rs"]
mod child;

use std::path::Path;

use child::{is_root, report_under};
use serde_json::Value;

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// Puts the sysctl back, however the test ends.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = std::fs::write(SYSCTL, &self.0);
    }
}

#[track_caller]
fn assert_ring(report: &Value, severity: &str, current: &str, remedy: &str) {
    let ring = &report["findings"][0];
    assert_eq!(ring["check"], "io_uring", "{ring:#}");
    assert_eq!(ring["severity"], severity, "{ring:#}");
    assert!(
        ring["current"].as_str().unwrap().contains(current),
        "{ring:#}"
    );
    assert!(
        ring["remedy"].as_str().unwrap().contains(remedy),
        "{ring:#}"
    );
}

#[test]
fn the_sysctl_that_forbids_rings_is_named() {
    if !std::env::var("RINGWAY_TEST_REQUIRE").is_ok_and(|value| value == "all") {
        println!("skipped: needs RINGWAY_TEST_REQUIRE=all, as it touches the whole machine");
        return;
    }
    assert!(is_root(), "RINGWAY_TEST_REQUIRE=all, and this needs root");
    let before = std::fs::read_to_string(SYSCTL)
        .unwrap_or_else(|e| panic!("RINGWAY_TEST_REQUIRE=all, and this needs Linux 6.6: {e}"));
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let _restore = Restore(before);
    std::fs::write(SYSCTL, "1").unwrap();
    let ordinary = report_under("ordinary-user", data_dir);
    let privileged = report_under("", data_dir);
    std::fs::write(SYSCTL, "2").unwrap();
    let anybody = report_under("", data_dir);
    assert_ring(
        &ordinary,
        "fatal",
        "io_uring_disabled is 1",
        "io_uring_group",
    );
    assert_ring(&privileged, "ok", "works", "");
    assert_ring(&anybody, "fatal", "io_uring_disabled is 2", "sysctl -w");
}
