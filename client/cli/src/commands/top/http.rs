//! The little of HTTP that asking an admin server takes: one request a connection, which the other
//! side closes behind its answer.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An admin server that takes longer isn't one, or is in trouble.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: the status of the most partitions that there can be.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// It can't be reached, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It doesn't answer.
    #[error("no answer within {} s", ANSWER_MAX.as_secs())]
    Late,
    /// It answers, but not as an admin server.
    #[error("it answers {0:?}, as no admin server does")]
    Foreign(String),
    /// It refuses.
    #[error("it answers {0}")]
    Refused(String),
}

/// The body of the answer to `GET path`.
///
/// # Errors
/// [`HttpError`] says what came instead.
pub(super) async fn get(address: &str, path: &str) -> Result<Vec<u8>, HttpError> {
    timeout(ANSWER_MAX, exchange(address, path))
        .await
        .unwrap_or(Err(HttpError::Late))
}

async fn exchange(address: &str, path: &str) -> Result<Vec<u8>, HttpError> {
    let mut stream = TcpStream::connect(address).await?;
    // In version 1.0 the answer ends with the connection, and comes in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    body(answer)
}

fn body(mut answer: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    let foreign = |answer: &[u8]| {
        let start = &answer[..answer.len().min(40)];
        HttpError::Foreign(String::from_utf8_lossy(start).into_owned())
    };
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Err(foreign(&answer));
    };
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let line = head.lines().next().unwrap_or_default();
    let Some((version, status)) = line.split_once(' ') else {
        return Err(foreign(&answer));
    };
    match (version.starts_with("HTTP/1."), status.starts_with("200")) {
        (true, true) => Ok(body),
        (true, false) => Err(HttpError::Refused(status.to_owned())),
        _ => Err(foreign(&answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_body_of_a_good_answer_is_taken() {
        let good = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi\r\n\r\n".to_vec();
        assert_eq!(body(good).unwrap(), b"hi\r\n\r\n");
        let refused = body(b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec());
        assert!(
            matches!(&refused, Err(HttpError::Refused(text)) if text.starts_with("503")),
            "{refused:?}"
        );
        for foreign in [&b""[..], b"SSH-2.0\r\n\r\n", b"\0\0\0\x08"] {
            let refused = body(foreign.to_vec());
            assert!(matches!(refused, Err(HttpError::Foreign(_))), "{refused:?}");
        }
    }
}
