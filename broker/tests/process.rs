//! The broker as a process: its ready line, its exit statuses, its signals.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ringway_testing::{BrokerOptions, Scratch};

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");
/// No test is about how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

fn scratch(name: &str) -> Scratch {
    Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap()
}

/// Runs the program to its end, in a directory of the test's own.
fn run(scratch: &Scratch, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(scratch.path())
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn code_and_error(output: &Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_says_when_it_is_ready_and_stops_in_order_on_either_signal() {
    let scratch = scratch("signals");
    for (signal, format) in [(libc::SIGTERM, "text"), (libc::SIGINT, "json")] {
        let ready_file = scratch.path().join("ready.json");
        let mut broker = BrokerOptions::new(BINARY, &scratch)
            .shards(2)
            .argument("--ready-file")
            .argument(&ready_file)
            .argument("--log-format")
            .argument(format)
            .start()
            .unwrap();
        assert_eq!(broker.shards().len(), 2);
        let line = fs::read_to_string(&ready_file).unwrap();
        assert!(line.contains(&broker.listen().to_string()), "{line}");
        assert_eq!(get(&broker.admin().to_string(), "/healthz"), "serving\n");
        for port in [broker.listen(), broker.shards()[0], broker.shards()[1]] {
            TcpStream::connect(port).unwrap();
        }
        broker.signal(signal).unwrap();
        let status = broker.wait(PATIENCE).unwrap().expect("it stops");
        assert_eq!(status.code(), Some(0), "{}", broker.log());
        assert!(!ready_file.exists(), "a broker that is gone is not ready");
        let log = broker.log();
        let said = log.lines().find(|line| line.contains("stopped in order"));
        let json = said.expect("it says so").starts_with('{');
        assert_eq!(json, format == "json", "{log}");
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_second_broker_is_refused_by_its_ports_and_by_its_data() {
    let scratch = scratch("second");
    let first = BrokerOptions::new(BINARY, &scratch).start().unwrap();
    let (listen, admin) = (first.listen(), first.admin());
    let elsewhere = scratch.path().join("elsewhere");
    let ports = BrokerOptions::new(BINARY, &scratch)
        .data_dir(&elsewhere)
        .listen(listen, admin);
    let error = ports.start().unwrap_err();
    assert_eq!(
        error.status.and_then(|status| status.code()),
        Some(3),
        "{error}"
    );
    assert!(
        error.log.contains("another broker or program has it"),
        "{error}"
    );
    assert!(!elsewhere.exists(), "the ports come first");

    let error = BrokerOptions::new(BINARY, &scratch).start().unwrap_err();
    assert_eq!(
        error.status.and_then(|status| status.code()),
        Some(3),
        "{error}"
    );
    assert!(error.log.contains("in use by another broker"), "{error}");
}

#[test]
fn wrong_usage_is_2_and_says_what_would_be_right() {
    let scratch = scratch("usage");
    let file = scratch.path().join("broker.toml");
    fs::write(&file, "shard = 2\n").unwrap();
    let path = file.to_str().unwrap();
    for (arguments, part) in [
        (&["--shard", "2"][..], "--shards"),
        (&["--config", path], "did you mean \"shards\"?"),
        (&["start", "--listen", "0.0.0.0:7420"], "set advertise"),
        (
            &["config", "check", "--config", path],
            "did you mean \"shards\"?",
        ),
        (&["config"], "print"),
    ] {
        let (code, error) = code_and_error(&run(&scratch, arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    assert!(
        !scratch.path().join("ringway-data").exists(),
        "nothing was made"
    );
}

#[test]
fn a_machine_that_lacks_something_is_3_with_the_remedy() {
    let scratch = scratch("lacking");
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    // A file where the directory should be.
    fs::write(scratch.path().join("file"), "").unwrap();
    let arguments = [&ports[..], &["--data-dir", "file/data"]].concat();
    let (code, error) = code_and_error(&run(&scratch, &arguments));
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("data directory"), "{error}");
    // In memory there is no direct I/O, and nothing would be durable.
    let memory = Scratch::new("/dev/shm", "lacking").unwrap();
    let data = memory.path().join("data");
    let arguments = [&ports[..], &["--data-dir", data.to_str().unwrap()]].concat();
    let (code, error) = code_and_error(&run(&scratch, &arguments));
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("remedy:"), "{error}");
}

#[test]
fn the_configuration_can_be_printed_and_checked() {
    let scratch = scratch("config");
    let output = run(
        &scratch,
        &["config", "print", "--shards", "2", "--cache-bytes", "64MiB"],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(
        text.contains("\nshards = 2\n") && text.contains("\ncache_bytes = 67108864\n"),
        "{text}"
    );
    fs::write(scratch.path().join("printed.toml"), &text).unwrap();
    let again = run(&scratch, &["config", "print", "--config", "printed.toml"]);
    assert_eq!(stdout(&again), text);
    let check = [
        "config",
        "check",
        "--config",
        "printed.toml",
        "--listen",
        "10.0.0.1:7420",
    ];
    let check = run(&scratch, &check);
    assert_eq!(check.status.code(), Some(0));
    let (_, warned) = code_and_error(&check);
    assert!(
        warned.contains("neither encryption nor authentication"),
        "{warned}"
    );
}

#[test]
fn help_and_version_are_not_errors() {
    let scratch = scratch("help");
    for (argument, part) in [
        ("--help", "--data-dir"),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(&scratch, &[argument]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(part));
    }
}
