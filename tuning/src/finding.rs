//! What a check found: the state, the wish, the reason and the remedy, in words an operator can
//! act on without reading the source.

use std::fmt;

use serde::Serialize;

/// How much a [`Finding`] matters. Ordered: the larger, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Info,
    /// The broker runs, but slower or with a weaker promise than it could.
    Warning,
    /// The broker can't run, or can't keep what it promises.
    Fatal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        })
    }
}

/// The result of one check. The text is for people; `check` is stable and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name of the check, as in `docs/operations.md`: `io_uring`, `memlock`, …
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub current: String,
    /// What was wanted.
    pub wanted: String,
    /// What the difference costs, or why the present state is right.
    pub why: String,
    /// What to do; empty when nothing has to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding that asks for nothing.
    pub(crate) fn fine(
        check: &'static str,
        current: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        let current = current.into();
        Self {
            check,
            severity: Severity::Ok,
            wanted: current.clone(),
            current,
            why: why.into(),
            remedy: String::new(),
        }
    }

    /// This finding as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl fmt::Display for Finding {
    /// One line with the facts; where something has to be done, a second line with the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.check, self.current)?;
        if self.wanted != self.current {
            write!(f, " (wanted: {})", self.wanted)?;
        }
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n  remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A number of bytes for people: exact in the largest unit that divides it, else with one
/// fractional digit.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            return if bytes.is_multiple_of(size) {
                format!("{} {unit}", bytes / size)
            } else {
                format!("{:.1} {unit}", bytes as f64 / size as f64)
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_carries_the_facts_and_the_remedy_follows() {
        let finding = Finding {
            check: "memlock",
            severity: Severity::Fatal,
            current: "64 KiB".into(),
            wanted: "8 MiB".into(),
            why: "rings don't fit".into(),
            remedy: "raise it".into(),
        };
        assert_eq!(
            finding.to_string(),
            "fatal: memlock: 64 KiB (wanted: 8 MiB): rings don't fit\n  remedy: raise it"
        );
        assert_eq!(finding.to_json()["severity"], "fatal");
        assert_eq!(Finding::fine("cpus", "4", "").to_string(), "ok: cpus: 4");
    }

    #[test]
    fn severities_are_ordered_from_harmless_to_fatal() {
        assert!(Severity::Ok < Severity::Info);
        assert!(Severity::Info < Severity::Warning);
        assert!(Severity::Warning < Severity::Fatal);
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(bytes_text(512), "512 bytes");
        assert_eq!(bytes_text(65_536), "64 KiB");
        assert_eq!(bytes_text(8 << 20), "8 MiB");
        assert_eq!(bytes_text(1_500_000), "1.4 MiB");
    }
}
