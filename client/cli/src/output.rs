//! Standard output and standard error: buffered where records flow, quiet where nobody reads.

use std::fs::File;
use std::io::{self, Write};
use std::thread;

use tokio::sync::oneshot;

use crate::exit::Failure;
use crate::limits::OUTPUT_BUFFER_BYTES;

/// Standard output with a buffer of ours: the standard library's would be flushed at every line.
pub(crate) struct Output {
    file: File,
    buffer: Vec<u8>,
    bytes_written: u64,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Result<Self, Failure> {
        Ok(Self {
            file: unbuffered().map_err(|error| Failure::output(&error))?,
            buffer: Vec::with_capacity(OUTPUT_BUFFER_BYTES),
            bytes_written: 0,
        })
    }

    /// Where to append what is to be written.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes the buffer if there is much in it.
    pub(crate) fn spill(&mut self) -> Result<(), Failure> {
        if self.buffer.len() < OUTPUT_BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes the buffer.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let written = self.file.write_all(&self.buffer);
        self.bytes_written += self.buffer.len() as u64;
        self.buffer.clear();
        written.map_err(|error| Failure::output(&error))
    }

    /// Bytes that were written or wait in the buffer.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_written + self.buffer.len() as u64
    }
}

/// Standard output as a file of its own.
fn unbuffered() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned();
    owned.map(File::from)
}

/// Writes a whole result to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = Output::stdout()?;
    output.buffer().extend_from_slice(text.as_bytes());
    output.flush()
}

/// Writes a result as one line of JSON.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// Writes a line to standard error. Nothing can be done when that fails, not even tell.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Watches for the end of whoever reads standard output: a command that waits for records would
/// otherwise notice it only when it has something to write.
pub(crate) struct Reader {
    gone: oneshot::Receiver<()>,
}

impl Reader {
    /// Watches from now on, on a thread of its own that sleeps in `poll`.
    pub(crate) fn watch() -> io::Result<Self> {
        let (tell, gone) = oneshot::channel();
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                if wait_for_hang_up() {
                    let _ = tell.send(());
                }
            })?;
        Ok(Self { gone })
    }

    /// Waits until nobody reads any more; for ever where that can't be told (a file). Cancel-safe.
    pub(crate) async fn gone(&mut self) {
        if self.gone.is_terminated() || (&mut self.gone).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether the other end of standard output went away; `false` when it can't be told.
#[cfg(unix)]
fn wait_for_hang_up() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    let stdout = io::stdout();
    loop {
        // Errors and hang-ups are told unasked.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) => {
                return watched[0]
                    .revents()
                    .intersects(PollFlags::ERR | PollFlags::HUP);
            }
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Windows tells it only to whoever writes.
#[cfg(windows)]
fn wait_for_hang_up() -> bool {
    false
}
