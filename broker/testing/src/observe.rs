//! What a running broker says of itself over HTTP, and the kernel of it in /proc.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// The body of a page of the admin server.
///
/// # Panics
/// When nobody answers.
pub fn page(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("the admin server accepts");
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer has a body");
    body.to_owned()
}

/// A number of /metrics, named without its prefix, all shards together.
///
/// # Panics
/// When there is none of that name.
pub fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = page(admin, "/metrics");
    let start = format!("ringway_{name}{{");
    let lines = text.lines().filter(|line| line.starts_with(&start));
    let values: Vec<u64> = lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    assert!(!values.is_empty(), "no metric ringway_{name}");
    values.iter().sum()
}

/// The states of a topic's partitions, as /status has them.
///
/// # Panics
/// When the topic isn't there.
pub fn states(admin: SocketAddr, topic: &str) -> Vec<String> {
    let status: serde_json::Value =
        serde_json::from_str(&page(admin, "/status")).expect("the status is JSON");
    let topics = status["topics"].as_array().expect("it lists topics");
    let found = topics.iter().find(|each| each["name"] == topic);
    let partitions = found.expect("the topic is there")["partitions"].as_array();
    let state = |partition: &serde_json::Value| partition["state"].as_str().map(str::to_owned);
    let states = partitions.into_iter().flatten().filter_map(state);
    states.collect()
}

/// A number of a file of /proc/PID whose lines are `name: number`.
///
/// # Panics
/// When the process or the line isn't there.
pub fn proc_number(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number {name} in /proc/{pid}/{file}"))
}

/// A number from the environment: what makes a test larger than the suite needs.
///
/// # Panics
/// When it is set to something else.
pub fn variable(name: &str, otherwise: u64) -> u64 {
    let Some(value) = std::env::var_os(name) else {
        return otherwise;
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("{name} has to be a number, not {value:?}"))
}
