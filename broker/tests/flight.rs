//! The flight recorder's three ways out: a signal, HTTP, and a shard that stalls.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway_client::{Client, NewTopic, Record};
use ringway_testing::{BrokerOptions, BrokerProcess, Scratch};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-broker");
/// No test is about how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

fn get(address: SocketAddr, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let body = bytes.split_off(end.unwrap() + 4);
    (String::from_utf8(bytes).unwrap(), body)
}

fn files(scratch: &Scratch) -> Vec<PathBuf> {
    let directory = scratch.path().join("data").join("flight");
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension() == Some("json".as_ref()))
        .collect()
}

fn wait_for_file(scratch: &Scratch, ending: &str, mut meanwhile: impl FnMut()) -> PathBuf {
    let start = Instant::now();
    loop {
        let ends = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
        if let Some(path) = files(scratch).into_iter().find(ends) {
            return path;
        }
        assert!(start.elapsed() < PATIENCE, "no file: {:?}", files(scratch));
        meanwhile();
    }
}

fn produce(broker: &BrokerProcess, records: usize) {
    let address = broker.listen().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&address).await.unwrap();
        client
            .admin()
            .create_topic(NewTopic::new("t"))
            .await
            .unwrap();
        let producer = client.producer().build().await.unwrap();
        for _ in 0..records {
            let delivery = producer.send("t", Record::value("value")).await.unwrap();
            delivery.await.unwrap();
        }
    });
}

fn events(bytes: &[u8]) -> Vec<Value> {
    let mut document: Value = serde_json::from_slice(bytes).unwrap();
    let Value::Array(events) = document["traceEvents"].take() else {
        panic!("no events");
    };
    events
}

fn count(events: &[Value], name: &str, phase: &str) -> usize {
    let wanted = |event: &&Value| event["name"] == name && event["ph"] == phase;
    events.iter().filter(wanted).count()
}

fn check(bytes: &[u8]) {
    let events = events(bytes);
    assert_eq!(count(&events, "produce", "e"), 20);
    assert!(count(&events, "round", "X") >= 20);
    assert!(count(&events, "durable write", "e") + count(&events, "write", "e") >= 20);
    assert!(count(&events, "prepare a segment", "e") >= 1);
    assert!(count(&events, "hello", "e") >= 1);
    let staged = events
        .iter()
        .filter(|event| event["args"]["written_us"].is_number());
    assert_eq!(staged.count(), 20, "each produce request has its stages");
}

#[test]
fn a_signal_and_a_request_get_what_the_shards_did() {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "flight-asked").unwrap();
    let mut broker = BrokerOptions::new(BINARY, &scratch)
        .shards(2)
        .start()
        .unwrap();
    produce(&broker, 20);
    let (head, body) = get(broker.admin(), "/debug/trace");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/json"), "{head}");
    check(&body);
    let (head, body) = get(broker.admin(), "/debug/trace?ms=600000");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    check(&body);
    let (head, _) = get(broker.admin(), "/debug/trace?minutes=1");
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");

    broker.signal(libc::SIGUSR1).unwrap();
    let pause = || std::thread::sleep(Duration::from_millis(5));
    let file = wait_for_file(&scratch, "-asked.json", pause);
    check(&fs::read(&file).unwrap());
    // It goes on, and the file is told of.
    assert!(
        broker
            .log()
            .contains(file.file_name().unwrap().to_str().unwrap())
    );
    broker.signal(libc::SIGTERM).unwrap();
    assert!(broker.wait(PATIENCE).unwrap().unwrap().success());
    // Files of the recorder don't keep a broker from starting.
    BrokerOptions::new(BINARY, &scratch).start().unwrap();
}

/// The thread of a process that has a name.
fn thread(pid: u32, name: &str) -> bool {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    fs::read_dir(tasks).unwrap().any(|task| {
        let comm = task.unwrap().path().join("comm");
        fs::read_to_string(comm).is_ok_and(|comm| comm.trim() == name)
    })
}

#[test]
fn a_shard_that_stalls_leaves_its_trace() {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "flight-stall").unwrap();
    // A shard that polls busily is in the middle of a turn most of the time.
    let mut broker = BrokerOptions::new(BINARY, &scratch)
        .argument("--idle")
        .argument("busy-poll")
        .start()
        .unwrap();
    assert!(thread(broker.pid(), "flight"));
    let file = wait_for_file(&scratch, "-stall.json", || {
        broker.signal(libc::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        broker.signal(libc::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    });
    let bytes = fs::read(file).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let reason = document["otherData"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("shard 0 took "), "{reason}");
    let long = |event: &&Value| event["name"] == "turn" && event["dur"].as_f64() > Some(5_000.0);
    assert!(
        events(&bytes).iter().any(|event| long(&event)),
        "the turn is in it"
    );
}
