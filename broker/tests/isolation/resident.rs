//! The resident memory of a broker, watched all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_testing::proc_number;

const EVERY: Duration = Duration::from_millis(50);

/// The resident bytes of a process now.
pub(crate) fn resident(pid: u32) -> u64 {
    proc_number(pid, "status", "VmRSS") << 10
}

/// Watches a process from its making to [`Watch::most`].
pub(crate) struct Watch {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Self {
        let most = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, until) = (Arc::clone(&most), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        });
        Self { most, over, thread }
    }

    /// The most bytes seen; the watch is over.
    pub(crate) fn most(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the process was there");
        self.most.load(Ordering::Relaxed)
    }
}
