//! What happened in a run, as one number to compare and, where asked for, as lines to read.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// A running hash (FNV-1a) of everything that was recorded. A clone is the same trace.
#[derive(Clone, Debug)]
pub struct Trace {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    count: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; with `lines`, what is recorded can also be read.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        let hash = 0xcbf2_9ce4_8422_2325;
        let inner = Inner {
            hash,
            count: 0,
            lines: lines.then(Vec::new),
        };
        Self {
            inner: Rc::new(RefCell::new(inner)),
        }
    }

    /// Adds what happened, as numbers that decide the hash and as words for people.
    pub fn record(&self, numbers: &[u64], words: impl FnOnce() -> String) {
        let inner = &mut *self.inner.borrow_mut();
        for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.count += 1;
        if let Some(lines) = &mut inner.lines {
            lines.push(words());
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.borrow().hash
    }

    /// Things recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.borrow().count
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.borrow();
        for line in inner.lines.iter().flatten() {
            writeln!(f, "{line}")?;
        }
        write!(f, "{} events, hash {:016x}", inner.count, inner.hash)
    }
}
