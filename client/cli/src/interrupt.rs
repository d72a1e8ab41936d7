//! Ctrl-C and SIGTERM (on Windows Ctrl-Break): the first asks for an orderly end with a summary,
//! the second ends at once.

use std::io;

use tokio::sync::watch;

/// What a shell reports for a program that Ctrl-C ended.
const KILLED: i32 = 130;

/// Notices the wish to end.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<bool>,
}

impl Interrupt {
    /// Watches from now on; to be called within the runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        let (mut interrupts, mut terminations) = signals()?;
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
                if ask.send_replace(true) {
                    std::process::exit(KILLED);
                }
            }
        });
        Ok(Self { asked })
    }

    /// Whether an end was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until an end is asked for. Cancel-safe.
    pub(crate) async fn asked(&mut self) {
        if self.asked.wait_for(|&asked| asked).await.is_err() {
            // The runtime is ending, which nobody has to be told.
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
fn signals() -> io::Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok((
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ))
}

#[cfg(windows)]
fn signals() -> io::Result<(
    tokio::signal::windows::CtrlC,
    tokio::signal::windows::CtrlBreak,
)> {
    use tokio::signal::windows::{ctrl_break, ctrl_c};
    Ok((ctrl_c()?, ctrl_break()?))
}
