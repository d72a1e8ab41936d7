//! The broker as a child process, played by a stand-in: the ready line, refusals, stopping, and
//! killing.

use std::time::Duration;

use ringway_testing::{BrokerOptions, Scratch};

const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-in-broker.sh");
const LONG: Duration = Duration::from_secs(30);
const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

fn options(name: &str, behaviour: &str) -> BrokerOptions {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap();
    BrokerOptions::new(STAND_IN, &scratch)
        .variable("STAND_IN", behaviour)
        .ready_within(LONG)
}

#[test]
fn the_ready_line_is_understood_and_the_arguments_are_as_agreed() {
    let options = options("ready", "good")
        .data_dir("/data dir")
        .shards(3)
        .argument("--more");
    let mut broker = options.start().unwrap();
    assert_eq!(broker.listen().port(), 7);
    assert_eq!(
        broker
            .shards()
            .iter()
            .map(|shard| shard.port())
            .collect::<Vec<_>>(),
        [8, 9]
    );
    assert_eq!(broker.admin().port(), 10);
    let expected = "started with: start --data-dir /data dir --listen 127.0.0.1:0 \
                    --admin-listen 127.0.0.1:0 --shards 3 --more\n";
    assert_eq!(broker.log(), expected);
    assert!(broker.stop(LONG).unwrap().success());
    assert!(broker.log().ends_with("draining\n"));
    // The same options start another one.
    let mut again = options
        .listen(broker.listen(), broker.admin())
        .start()
        .unwrap();
    assert!(
        again
            .log()
            .contains("--listen 127.0.0.1:7 --admin-listen 127.0.0.1:10")
    );
    assert!(!again.kill().unwrap().success());
    assert!(again.signal(SIGCONT).is_err(), "it has ended");
}

#[test]
fn a_refusal_is_an_error_with_the_status_and_the_log() {
    let error = options("refusal", "refuse").start().unwrap_err();
    assert_eq!(error.status.unwrap().code(), Some(3));
    assert!(error.log.contains("the data directory is locked"));
    assert!(
        error.to_string().contains("ended before it was ready"),
        "{error}"
    );
}

#[test]
fn nonsense_and_silence_are_errors_and_leave_no_process() {
    let garbage = options("garbage", "garbage").start().unwrap_err();
    assert!(garbage.to_string().contains("\"hello\""), "{garbage}");
    let silent = options("silent", "silent").ready_within(Duration::from_millis(200));
    let error = silent.start().unwrap_err();
    assert!(error.to_string().contains("wasn't ready within"), "{error}");
    assert!(error.status.is_some(), "it was killed");
    let missing = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "missing").unwrap();
    let error = BrokerOptions::new("/no/such/broker", &missing)
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/broker"), "{error}");
}

#[test]
fn one_that_does_not_stop_is_reported_and_can_be_killed() {
    let mut broker = options("stubborn", "stubborn").start().unwrap();
    let error = broker.stop(Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    broker.signal(SIGSTOP).unwrap();
    broker.kill().unwrap();
    assert!(broker.wait(LONG).unwrap().is_some());
}

#[test]
fn dropping_one_kills_it() {
    let broker = options("drop", "stubborn").start().unwrap();
    let process = format!("/proc/{}", broker.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(broker);
    assert!(!std::path::Path::new(&process).exists());
}
