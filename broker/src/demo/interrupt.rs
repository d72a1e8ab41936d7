//! Ctrl-C and SIGTERM: the first ends the publishing, and everything after it goes its way; the
//! second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a program that Ctrl-C ended.
const KILLED: i32 = 130;

/// Signals that no longer end the process by themselves.
#[derive(Debug)]
pub(super) struct Interrupt {
    interrupts: Signal,
    terminations: Signal,
}

impl Interrupt {
    /// Listens from now on; to be called within a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt())?,
            terminations: signal(SignalKind::terminate())?,
        })
    }

    /// Has the first signal set `stop` and the flag that it gives, also one that came before.
    pub(super) fn stops(mut self, stop: Arc<AtomicBool>) -> Arc<AtomicBool> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&interrupted);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = self.interrupts.recv() => {}
                    _ = self.terminations.recv() => {}
                }
                stop.store(true, Ordering::Relaxed);
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(KILLED);
                }
            }
        });
        interrupted
    }
}
