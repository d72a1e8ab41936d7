//! The process's configuration: one table of few knobs, read from a TOML file and from flags of
//! the same names. Cluster-wide settings are not here; they are in the metadata.

mod knobs;
mod listen;
mod profile;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ringway_engine::meta::nearest;
use ringway_tuning::SyncScope;
use ringway_wire::limits::{FRAME_HEAD_BYTES_MAX, FRAME_HEADER_BYTES};

pub use knobs::{KNOBS, Knob};
pub use listen::{Advertise, HostPort};
pub use profile::Profile;

/// What a shard does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// It sleeps until something comes.
    #[default]
    Park,
    /// It keeps looking, which takes its whole core.
    BusyPoll,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The configuration with every value in force. [`Config::default`] is what an empty file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the broker is tuned for.
    pub profile: Profile,
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// The shared port; shard `i` listens on the port `1 + i` above.
    pub listen: HostPort,
    /// What metadata names instead of `listen`.
    pub advertise: Option<Advertise>,
    /// Metrics, health and status over HTTP.
    pub admin_listen: HostPort,
    /// Data shards, one thread each.
    pub shards: u16,
    /// Whether each shard is bound to a core; `None` decides by the machine.
    pub pin: Option<bool>,
    /// What a shard does when there is nothing to do.
    pub idle: Idle,
    /// A file that gets the ready line.
    pub ready_file: Option<PathBuf>,
    /// The least severe lines that are logged.
    pub log_level: tracing::Level,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What one sync makes durable; `None` leaves it to the pre-flight.
    pub sync_scope: Option<SyncScope>,
    /// Bytes of each shard's tail cache.
    pub cache_bytes: u64,
    /// Bytes of produce requests that each shard holds at most before they are durable.
    pub produce_bytes_max: u64,
    /// Bytes of topics with durability `memory` that each shard acknowledges before they are
    /// durable.
    pub unsynced_bytes_max: u64,
    /// How long such bytes may have been acknowledged for, in milliseconds.
    pub unsynced_ms_max: u64,
    /// Connections of each shard.
    pub connections_max: u32,
    /// Largest batch, in bytes.
    pub batch_bytes_max: u32,
    /// Bytes of cold reads that each shard has in flight at most.
    pub cold_read_in_flight_bytes: u64,
    /// Bytes of cold reads that each shard starts in a second; `None` is no limit.
    pub cold_read_bytes_per_second: Option<u64>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {message}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// The key is none of the knobs.
    #[error("{origin}: unknown key {key:?}{}", hint(.key))]
    UnknownKey {
        /// The file.
        origin: String,
        /// The key.
        key: String,
    },
    /// The value is not one that the key can have.
    #[error("{origin}: {key} can't be {value:?}: {problem}")]
    Value {
        /// The file, or the flags.
        origin: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Values that don't go together.
    #[error("{0}")]
    Together(String),
}

fn hint(key: &str) -> String {
    match nearest(key, KNOBS.iter().map(|knob| knob.key)) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => "; `ringway-broker config print` shows every key".to_owned(),
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = knobs::blank();
        for knob in &KNOBS {
            (knob.set)(&mut config, knob.default).expect("a default is a legal value");
        }
        config
    }
}

impl Config {
    /// The defaults, then the profile's values, then the file if there is one, then the flags: pairs
    /// of a knob's key and its value. The profile is named by a flag or in the file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or flag, the key, the value, and what would be right.
    pub fn load<'a>(
        file: Option<&Path>,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Vec::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            let origin = path.display().to_string();
            let pairs = read_toml(path, &text)?.into_iter();
            settings.extend(pairs.map(|(key, value)| (origin.clone(), key, value)));
        }
        let of_flags = |(key, value): (&str, &str)| {
            ("command line".to_owned(), key.to_owned(), value.to_owned())
        };
        settings.extend(flags.into_iter().map(of_flags));
        let mut config = Self::default();
        // The last one that names a profile decides, and only then what it doesn't.
        for (origin, key, value) in settings.iter().filter(|(_, key, _)| key == "profile") {
            config.set(origin, key, value)?;
        }
        for (key, value) in config.profile.values() {
            config.set("the profile", key, value)?;
        }
        for (origin, key, value) in &settings {
            config.set(origin, key, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, origin: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        let origin = origin.to_owned();
        let Some(knob) = KNOBS.iter().find(|knob| knob.key == key) else {
            let key = key.to_owned();
            return Err(ConfigError::UnknownKey { origin, key });
        };
        (knob.set)(self, value).map_err(|problem| ConfigError::Value {
            origin,
            key: knob.key,
            value: value.to_owned(),
            problem,
        })
    }

    /// Whether the values go together.
    ///
    /// # Errors
    /// [`ConfigError::Together`] says which don't, and what to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |problem: String| Err(ConfigError::Together(problem));
        let listen = &self.listen;
        if listen.is_unspecified() && self.advertise.is_none() {
            return fail(format!(
                "listen = {listen} accepts from everywhere, but clients have to be told one \
                 address: set advertise to the HOST[:PORT] by which they reach this machine"
            ));
        }
        let highest = u32::from(listen.port) + u32::from(self.shards);
        if listen.port != 0 && highest > u32::from(u16::MAX) {
            return fail(format!(
                "listen = {listen} leaves no ports for {} shards: shard i takes the port 1 + i \
                 above; the highest that fits is {}",
                self.shards,
                u16::MAX - self.shards
            ));
        }
        let admin = &self.admin_listen;
        let taken = u32::from(listen.port)..=highest;
        if admin.port != 0 && taken.contains(&admin.port.into()) && listen.port != 0 {
            return fail(format!(
                "admin_listen = {admin} is one of the ports {} to {} that listen and the {} \
                 shards take: choose another",
                listen.port, highest, self.shards
            ));
        }
        if u64::from(self.batch_bytes_max) > self.produce_bytes_max {
            return fail(format!(
                "produce_bytes_max = {} is less than one batch (batch_bytes_max = {}): raise it",
                self.produce_bytes_max, self.batch_bytes_max
            ));
        }
        Ok(())
    }

    /// What is allowed but worth a warning.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let beyond = |name, address: &HostPort| {
            (!address.is_loopback()).then(|| {
                format!(
                    "{name} = {address} is reachable from other machines, and this version has \
                     neither encryption nor authentication: only on a network that you trust"
                )
            })
        };
        let places = [
            ("listen", &self.listen),
            ("admin_listen", &self.admin_listen),
        ];
        places
            .into_iter()
            .filter_map(|(name, address)| beyond(name, address))
            .collect()
    }

    /// Largest frame that a shard accepts, in bytes: the largest batch with the largest head.
    #[must_use]
    pub const fn frame_bytes_max(&self) -> usize {
        self.batch_bytes_max as usize + FRAME_HEAD_BYTES_MAX + FRAME_HEADER_BYTES
    }

    /// Whether each shard is to be bound to a core of its own. By itself only where the machine
    /// looks like this broker's own: brokers side by side (in tests, say) would otherwise all be
    /// bound to the same cores.
    #[must_use]
    pub fn pins(&self) -> bool {
        let cores = knobs::cores();
        self.pin
            .unwrap_or(cores > 2 && self.shards == knobs::default_shards(cores))
    }

    /// The configuration in force as a TOML file that explains itself and reads back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for knob in &KNOBS {
            let value = (knob.get)(self);
            let plain = value.parse::<u64>().is_ok();
            let quoted = if plain {
                value.clone()
            } else {
                toml::Value::from(value.as_str()).to_string()
            };
            let off = if value.is_empty() { "# " } else { "" };
            let _ = writeln!(text, "# {}\n# Change it {}.", knob.help, knob.change);
            let _ = writeln!(text, "{off}{} = {quoted}\n", knob.key);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

/// The keys and values of a file.
fn read_toml(path: &Path, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let path = path.to_owned();
        let message = error.to_string();
        ConfigError::Syntax { path, message }
    })?;
    let pair = |(key, value)| match value {
        toml::Value::String(text) => (key, text),
        other => (key, other.to_string()),
    };
    Ok(table.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests;
