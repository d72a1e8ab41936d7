//! A topic's configuration: eight keys, each with a default that is right for most, a unit and a
//! range. What is accepted here is part of the metadata log's meaning: a rule may become wider in
//! a later version, never narrower, or old logs would replay to another state.

use std::time::Duration;

use ringway_wire::batch::Codec;
use ringway_wire::limits::BATCH_BYTES_MAX;
use ringway_wire::request::{ConfigEntry, Durability, TimestampSource};

use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::meta::units;

/// A topic's configuration with every value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Where a record is when its acknowledgement comes.
    pub durability: Durability,
    /// How long records stay at least; `None` is for ever. Default: 7 days.
    pub retention: Option<Duration>,
    /// Bytes of a partition above which its oldest segments go; `None` (the default) is no limit.
    pub retention_bytes: Option<u64>,
    /// Largest segment, in bytes. Default: 256 MiB.
    pub segment_bytes: u64,
    /// Largest record, in bytes of key, value, headers and tag. Default: 4 MiB.
    pub record_bytes_max: u32,
    /// Replicas that must be in sync for `acks=all`; `None` is half the replicas plus one.
    pub min_in_sync: Option<u16>,
    /// What producers compress with unless they were told otherwise.
    pub codec: Codec,
    /// Which time a record's timestamp is.
    pub timestamp: TimestampSource,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            retention: Some(Duration::from_secs(7 * 86_400)),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            record_bytes_max: 4 << 20,
            min_in_sync: None,
            codec: Codec::None,
            timestamp: TimestampSource::Producer,
        }
    }
}

/// Largest record that a topic may allow, in bytes: with its table entry and a batch header it
/// still fits the largest batch.
const RECORD_BYTES_LIMIT: u64 = BATCH_BYTES_MAX as u64 - (64 << 10);
/// Longest retention, beyond which `unlimited` says it better.
const RETENTION_MS_MAX: u64 = 1_000 * 365 * 86_400_000;
/// The word for no limit.
const UNLIMITED: &str = "unlimited";

/// Why a key can't have a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The key is not known.
    #[error("unknown key {key:?}{}; known are {}", hint(key), TopicConfig::KEYS.join(", "))]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The key stands there twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// The value is not of the key's kind.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// The value is out of the key's range.
    #[error("{key} can't be {value}: it has to be from {min} to {max}{}", unlimited(*or_unlimited))]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        value: u64,
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
        /// Whether `unlimited` is a value too.
        or_unlimited: bool,
    },
}

fn hint(key: &str) -> String {
    units::nearest(key, TopicConfig::KEYS)
        .map(|near| format!(" (did you mean {near}?)"))
        .unwrap_or_default()
}

const fn unlimited(too: bool) -> &'static str {
    if too { ", or unlimited" } else { "" }
}

fn value_error(key: &'static str, problem: impl ToString) -> ConfigError {
    ConfigError::Value {
        key,
        problem: problem.to_string(),
    }
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
    let or_unlimited = matches!(key, "retention_ms" | "retention_bytes");
    match value {
        value if (min..=max).contains(&value) => Ok(value),
        value => Err(ConfigError::Range {
            key,
            value,
            min,
            max,
            or_unlimited,
        }),
    }
}

fn bytes_in(key: &'static str, text: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    let bytes = units::bytes(text).map_err(|error| value_error(key, error))?;
    in_range(key, bytes, min, max)
}

fn one_of(key: &'static str, text: &str, allowed: &str) -> ConfigError {
    let text: String = text.chars().take(40).collect();
    value_error(key, format!("{text:?} is not a value; it can be {allowed}"))
}

impl TopicConfig {
    /// Every key, in the order in which they are shown.
    pub const KEYS: [&str; 8] = [
        "durability",
        "retention_ms",
        "retention_bytes",
        "segment_bytes",
        "record_bytes_max",
        "min_in_sync",
        "codec",
        "timestamp",
    ];

    /// The defaults with some keys set.
    ///
    /// # Errors
    /// [`ConfigError`] about the first entry that can't be.
    pub fn from_entries(entries: &[ConfigEntry]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply(entries)?;
        Ok(config)
    }

    /// Sets some keys; an empty value goes back to the default. After an error some may be set.
    ///
    /// # Errors
    /// [`ConfigError`] about the first entry that can't be.
    pub fn apply(&mut self, entries: &[ConfigEntry]) -> Result<(), ConfigError> {
        let mut seen = [false; Self::KEYS.len()];
        for entry in entries {
            let place = Self::KEYS.iter().position(|key| *key == entry.key);
            let place = place.ok_or_else(|| ConfigError::UnknownKey {
                key: entry.key.chars().take(60).collect(),
            })?;
            if std::mem::replace(&mut seen[place], true) {
                return Err(ConfigError::Twice(Self::KEYS[place]));
            }
            self.set(Self::KEYS[place], entry.value.trim())?;
        }
        Ok(())
    }

    fn set(&mut self, key: &'static str, text: &str) -> Result<(), ConfigError> {
        let default = Self::default();
        match (key, text) {
            ("durability", "" | "fsync") => self.durability = Durability::Fsync,
            ("durability", "memory") => self.durability = Durability::Memory,
            ("durability", _) => return Err(one_of(key, text, "fsync or memory")),
            ("retention_ms", "") => self.retention = default.retention,
            ("retention_ms", UNLIMITED) => self.retention = None,
            ("retention_ms", _) => {
                let time = units::duration(text).map_err(|error| value_error(key, error))?;
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let ms = in_range(key, ms, 1, RETENTION_MS_MAX)?;
                self.retention = Some(Duration::from_millis(ms));
            }
            ("retention_bytes", "" | UNLIMITED) => self.retention_bytes = None,
            ("retention_bytes", _) => {
                self.retention_bytes = Some(bytes_in(key, text, 1, i64::MAX as u64)?);
            }
            ("segment_bytes", "") => self.segment_bytes = default.segment_bytes,
            ("segment_bytes", _) => {
                let bytes = bytes_in(key, text, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
                if !bytes.is_multiple_of(BLOCK_BYTES as u64) {
                    let problem = format!("{bytes} is not a multiple of {BLOCK_BYTES}");
                    return Err(value_error(key, problem));
                }
                self.segment_bytes = bytes;
            }
            ("record_bytes_max", "") => self.record_bytes_max = default.record_bytes_max,
            ("record_bytes_max", _) => {
                let bytes = bytes_in(key, text, 1, RECORD_BYTES_LIMIT)?;
                self.record_bytes_max = u32::try_from(bytes).expect("the limit has 32 bits");
            }
            ("min_in_sync", "") => self.min_in_sync = None,
            ("min_in_sync", _) => {
                let count = text
                    .parse()
                    .map_err(|_| value_error(key, "it is a whole number of replicas"))?;
                let count = in_range(key, count, 1, u16::MAX.into())?;
                self.min_in_sync = u16::try_from(count).ok();
            }
            ("codec", "" | "none") => self.codec = Codec::None,
            ("codec", "lz4") => self.codec = Codec::Lz4,
            ("codec", "zstd") => self.codec = Codec::Zstd,
            ("codec", _) => return Err(one_of(key, text, "none, lz4 or zstd")),
            ("timestamp", "" | "producer") => self.timestamp = TimestampSource::Producer,
            ("timestamp", "append") => self.timestamp = TimestampSource::Append,
            ("timestamp", _) => return Err(one_of(key, text, "producer or append")),
            _ => unreachable!("{key} is one of KEYS"),
        }
        Ok(())
    }

    /// Whether the values fit a topic with so many replicas.
    ///
    /// # Errors
    /// [`ConfigError::Range`] when more replicas have to be in sync than there are.
    pub fn fits(&self, replication_factor: u16) -> Result<(), ConfigError> {
        match self.min_in_sync {
            None => Ok(()),
            Some(min) => {
                let max = replication_factor.into();
                in_range("min_in_sync", min.into(), 1, max).map(|_| ())
            }
        }
    }

    /// Replicas that must be in sync in a topic with so many.
    #[must_use]
    pub fn min_in_sync(&self, replication_factor: u16) -> u16 {
        self.min_in_sync.unwrap_or(replication_factor / 2 + 1)
    }

    /// Every key with the value in force in a topic with so many replicas.
    #[must_use]
    pub fn entries(&self, replication_factor: u16) -> Vec<ConfigEntry> {
        let mut entries = self.stored();
        for entry in &mut entries {
            if entry.key == "min_in_sync" {
                entry.value = self.min_in_sync(replication_factor).to_string();
            }
        }
        entries
    }

    /// Every key as [`Self::apply`] reads it back, whatever the defaults are by then; empty where
    /// the value follows from something else.
    pub(crate) fn stored(&self) -> Vec<ConfigEntry> {
        let limit = |value: Option<String>| value.unwrap_or_else(|| UNLIMITED.to_owned());
        Self::KEYS
            .iter()
            .map(|&key| ConfigEntry {
                key: key.to_owned(),
                value: match key {
                    "durability" => match self.durability {
                        Durability::Fsync => "fsync".to_owned(),
                        Durability::Memory => "memory".to_owned(),
                    },
                    "retention_ms" => {
                        limit(self.retention.map(|time| time.as_millis().to_string()))
                    }
                    "retention_bytes" => limit(self.retention_bytes.map(|bytes| bytes.to_string())),
                    "segment_bytes" => self.segment_bytes.to_string(),
                    "record_bytes_max" => self.record_bytes_max.to_string(),
                    "min_in_sync" => self.min_in_sync.map_or(String::new(), |n| n.to_string()),
                    "codec" => self.codec.name().to_owned(),
                    "timestamp" => match self.timestamp {
                        TimestampSource::Producer => "producer".to_owned(),
                        TimestampSource::Append => "append".to_owned(),
                    },
                    _ => unreachable!("{key} is one of KEYS"),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> ConfigEntry {
        ConfigEntry {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    fn error(key: &str, value: &str) -> String {
        TopicConfig::from_entries(&[entry(key, value)])
            .expect_err("it has to be refused")
            .to_string()
    }

    #[test]
    fn values_have_units_and_an_empty_one_goes_back_to_the_default() {
        let mut config = TopicConfig::from_entries(&[
            entry("retention_ms", "12h"),
            entry("retention_bytes", "10 GiB"),
            entry("segment_bytes", "1MiB"),
            entry("timestamp", "append"),
        ])
        .unwrap();
        assert_eq!(config.retention, Some(Duration::from_secs(12 * 3_600)));
        assert_eq!(config.retention_bytes, Some(10 << 30));
        assert_eq!(config.segment_bytes, 1 << 20);
        assert_eq!(config.timestamp, TimestampSource::Append);
        config
            .apply(&[
                entry("retention_ms", "unlimited"),
                entry("segment_bytes", ""),
            ])
            .unwrap();
        assert_eq!(config.retention, None);
        assert_eq!(config.segment_bytes, 256 << 20);
    }

    #[test]
    fn every_key_can_be_left_to_its_default_and_reads_back_as_stored() {
        let blank: Vec<_> = TopicConfig::KEYS.iter().map(|key| entry(key, "")).collect();
        assert_eq!(
            TopicConfig::from_entries(&blank),
            Ok(TopicConfig::default())
        );
        let odd = TopicConfig {
            retention: None,
            retention_bytes: Some(77),
            segment_bytes: SEGMENT_BYTES_MIN,
            record_bytes_max: 1,
            min_in_sync: Some(2),
            codec: Codec::Zstd,
            timestamp: TimestampSource::Append,
            durability: Durability::Memory,
        };
        for config in [odd, TopicConfig::default()] {
            assert_eq!(
                TopicConfig::from_entries(&config.stored()),
                Ok(config.clone())
            );
        }
    }

    #[test]
    fn a_refusal_names_what_was_wrong_and_what_would_be_right() {
        let unknown = error("retention.ms", "1");
        assert!(unknown.contains("did you mean retention_ms?"), "{unknown}");
        assert!(error("durability", "disk").contains("fsync or memory"));
        assert!(error("codec", "rar").contains("none, lz4 or zstd"));
        assert!(error("segment_bytes", "1").contains("65536 to"));
        assert!(error("segment_bytes", "65537").contains("multiple of 4096"));
        assert!(error("retention_ms", "0").contains("or unlimited"));
        assert!(error("retention_ms", "soon").contains("whole number"));
        assert!(error("record_bytes_max", "64MiB").contains("record_bytes_max"));
        assert!(error("min_in_sync", "0").contains("from 1"));
        assert!(error("timestamp", "now").contains("producer or append"));
        let twice = [entry("codec", "none"), entry("codec", "none")];
        assert_eq!(
            TopicConfig::from_entries(&twice),
            Err(ConfigError::Twice("codec"))
        );
    }

    #[test]
    fn no_more_replicas_can_be_asked_in_sync_than_there_are() {
        let config = TopicConfig::from_entries(&[entry("min_in_sync", "2")]).unwrap();
        assert!(config.fits(2).is_ok());
        assert!(config.fits(1).is_err());
        assert_eq!(TopicConfig::default().min_in_sync(3), 2);
        assert_eq!(TopicConfig::default().min_in_sync(1), 1);
    }

    #[test]
    fn the_document_has_every_key_with_its_default() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, table) = document.split_once("\n| key | default |").unwrap();
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let cell = |line: &str, place| {
            let cell = line.split('|').nth(place);
            cell.unwrap().trim().trim_matches('`').to_owned()
        };
        let written: Vec<_> = rows.map(|line| (cell(line, 1), cell(line, 2))).collect();
        let stored = TopicConfig::default().stored().into_iter();
        let expected: Vec<_> = stored
            .map(|entry| match entry.value.as_str() {
                "" => (entry.key, "half the replicas, plus one".to_owned()),
                value => (entry.key, value.to_owned()),
            })
            .collect();
        assert_eq!(written, expected);
    }
}
