//! Waking a parked thread: an eventfd that is written only while its reader says that it sleeps.
//!
//! The reader announces its sleep first and looks at its queues once more after that; a writer
//! fills the queue first and looks at the announcement after that. One of them sees the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One sleeper's bell. Shared by everybody who may have something for it.
#[derive(Debug)]
pub struct Wake {
    eventfd: File,
    sleeping: AtomicBool,
}

impl Wake {
    /// A bell whose eventfd doesn't block.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            eventfd: File::from(fd),
            sleeping: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper if it sleeps or is about to. Call it after filling the queue.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            // Full means that the sleeper has 2^64 - 2 reasons to wake already.
            let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
        }
    }

    /// Announces sleep. Look at every queue once more after this, and sleep only if all are empty:
    /// whoever fills one later rings.
    pub fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the sleeper is awake: no ring is needed until the next announcement.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Forgets the rings so far; for sleepers that poll the descriptor and don't read it
    /// themselves.
    pub fn drain(&self) {
        let mut count = [0; 8];
        let _ = (&self.eventfd).read(&mut count);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(wake: &Wake) -> Option<u64> {
        let mut count = [0; 8];
        (&wake.eventfd).read_exact(&mut count).ok()?;
        Some(u64::from_ne_bytes(count))
    }

    #[test]
    fn only_a_sleeper_is_rung() {
        let wake = Wake::new().unwrap();
        wake.ring();
        assert_eq!(rings(&wake), None, "nobody sleeps");
        wake.announce_sleep();
        wake.ring();
        wake.ring();
        assert_eq!(rings(&wake), Some(2));
        wake.awake();
        wake.ring();
        assert_eq!(rings(&wake), None);
    }

    #[test]
    fn drained_rings_are_forgotten() {
        let wake = Wake::new().unwrap();
        wake.announce_sleep();
        wake.ring();
        wake.drain();
        assert_eq!(rings(&wake), None);
    }
}
