//! Profiles: names for settings that are turned together, and the exact values that they stand for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{
    BATCH_BYTES_DEFAULT, BATCH_RECORDS_DEFAULT, BUFFER_BYTES_DEFAULT, FETCH_BYTES_DEFAULT,
    PREFETCH_BYTES_DEFAULT,
};

/// What a producer or consumer is tuned for.
///
/// | setting | latency | balanced | throughput |
/// |---|---|---|---|
/// | `linger` | 0 | 0 | 5 ms |
/// | `batch_bytes` | 64 KiB | 1 MiB | 4 MiB |
/// | `batch_records` | 1,000 | 10,000 | 100,000 |
/// | `buffer_bytes` | 16 MiB | 64 MiB | 256 MiB |
/// | `fetch_bytes` | 256 KiB | 1 MiB | 8 MiB |
/// | `prefetch_bytes` | 4 MiB | 16 MiB | 64 MiB |
///
/// Small batches leave sooner and hold up less what comes behind them; large ones cost less each
/// record. Everything else stays as it is: what is acknowledged is as safe with each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Records arrive as soon as they can, at the price of more work for each.
    Latency,
    /// The defaults.
    #[default]
    Balanced,
    /// As many records as can be, at the price of some milliseconds and of memory.
    Throughput,
}

/// The settings of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) fetch_bytes: usize,
    pub(crate) prefetch_bytes: usize,
}

const LATENCY: Values = Values {
    linger: Duration::ZERO,
    batch_bytes: 64 << 10,
    batch_records: 1_000,
    buffer_bytes: 16 << 20,
    fetch_bytes: 256 << 10,
    prefetch_bytes: 4 << 20,
};

const BALANCED: Values = Values {
    linger: Duration::ZERO,
    batch_bytes: BATCH_BYTES_DEFAULT,
    batch_records: BATCH_RECORDS_DEFAULT,
    buffer_bytes: BUFFER_BYTES_DEFAULT,
    fetch_bytes: FETCH_BYTES_DEFAULT,
    prefetch_bytes: PREFETCH_BYTES_DEFAULT,
};

const THROUGHPUT: Values = Values {
    linger: Duration::from_millis(5),
    batch_bytes: 4 << 20,
    batch_records: 100_000,
    buffer_bytes: 256 << 20,
    fetch_bytes: 8 << 20,
    prefetch_bytes: 64 << 20,
};

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Latency, Self::Balanced, Self::Throughput];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Balanced => "balanced",
            Self::Throughput => "throughput",
        }
    }

    pub(crate) const fn values(self) -> Values {
        match self {
            Self::Latency => LATENCY,
            Self::Balanced => BALANCED,
            Self::Throughput => THROUGHPUT,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no profile has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no profile: latency, balanced and throughput are")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| UnknownProfile(name.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{ConsumerBuilder, ProducerBuilder};

    #[test]
    fn names_read_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        let refused = "fast".parse::<Profile>().unwrap_err().to_string();
        assert!(refused.contains("latency, balanced"), "{refused}");
    }

    /// What builders that follow a profile make of it.
    fn built(profile: Profile) -> Values {
        let producer = ProducerBuilder::new(()).profile(profile);
        let producer = producer.settings().unwrap();
        let consumer = ConsumerBuilder::new(()).profile(profile).settings();
        Values {
            linger: producer.linger,
            batch_bytes: producer.limits.bytes_max,
            batch_records: producer.limits.records_max,
            buffer_bytes: producer.buffer_bytes,
            fetch_bytes: consumer.fetch_bytes,
            prefetch_bytes: consumer.prefetch_bytes,
        }
    }

    #[test]
    fn a_profile_sets_its_values_and_what_is_set_after_it_wins() {
        for profile in Profile::ALL {
            assert_eq!(built(profile), profile.values());
        }
        let plain = ProducerBuilder::new(()).settings().unwrap();
        assert_eq!(plain.limits.bytes_max, BALANCED.batch_bytes);
        let builder = ProducerBuilder::new(()).profile(Profile::Latency);
        let after = builder.batch_records(7).settings().unwrap();
        assert_eq!(
            (after.limits.records_max, after.limits.bytes_max),
            (7, 64 << 10)
        );
    }

    /// Bytes or a number as tables say them.
    fn said(value: usize) -> String {
        match value {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
                format!("{} MiB", bytes >> 20)
            }
            bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
            number => format!("{},{:03}", number / 1_000, number % 1_000),
        }
    }

    #[test]
    fn the_documents_say_the_values_in_force() {
        let [latency, balanced, throughput] = Profile::ALL.map(Profile::values);
        let row = |name: &str, value: fn(&Values) -> String| {
            let cells = [&latency, &balanced, &throughput].map(value);
            format!("| `{name}` | {} |", cells.join(" | "))
        };
        let linger = |values: &Values| match values.linger.as_millis() {
            0 => "0".to_owned(),
            ms => format!("{ms} ms"),
        };
        let rows = [
            row("linger", linger),
            row("batch_bytes", |values| said(values.batch_bytes)),
            row("batch_records", |values| said(values.batch_records)),
            row("buffer_bytes", |values| said(values.buffer_bytes)),
            row("fetch_bytes", |values| said(values.fetch_bytes)),
            row("prefetch_bytes", |values| said(values.prefetch_bytes)),
        ];
        let cli = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
        let cli = std::fs::read_to_string(cli).unwrap();
        for row in rows {
            assert!(
                include_str!("profile.rs").contains(&format!("/// {row}")),
                "{row}"
            );
            assert!(cli.contains(&row), "docs/cli.md: {row}");
        }
    }
}
