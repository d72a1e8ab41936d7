//! The table: each knob once, with its default, how it is read and written, what it is for and
//! when to turn it. File keys, flags, help and `config print` all come from here.

use ringway_engine::meta::{bytes, nearest};
use ringway_tuning::SyncScope;
use ringway_wire::limits::BATCH_BYTES_MAX;

use super::profile::PROFILES;
use super::{Config, HostPort, Idle, LogFormat, Profile};

/// One setting.
#[derive(Debug)]
pub struct Knob {
    /// Its key in the file; the flag has dashes for underscores.
    pub key: &'static str,
    /// What kind of value it takes, for the help.
    pub value: &'static str,
    /// The value in force without file and flags, as text.
    pub default: &'static str,
    /// What it is.
    pub help: &'static str,
    /// When to change it: continues "Change it …".
    pub change: &'static str,
    /// Reads a value, or says what is wrong with it.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value in force, as it reads back.
    pub(super) get: fn(&Config) -> String,
}

/// The most shards: ports and memory are counted per shard, and no machine has more cores.
const SHARDS_MAX: u16 = 1_024;

/// Every knob, in the order in which they are shown.
pub static KNOBS: [Knob; 20] = [
    Knob {
        key: "profile",
        value: "latency|balanced|throughput",
        default: "balanced",
        help: "What the broker is tuned for: a name for some knobs turned together, which \
               `config print --profile` shows. A knob that is set by itself wins.",
        change: "to latency on cores of the broker's own, to throughput for bulk loads",
        set: |config, text| put(&mut config.profile, one_of(text, &PROFILES)),
        get: |config| name_of(config.profile, &PROFILES),
    },
    Knob {
        key: "data_dir",
        value: "DIR",
        default: "./ringway-data",
        help: "Directory of everything that is stored; made when it isn't there.",
        change: "to put the data on its own disk, with XFS or journalled ext4",
        set: |config, text| {
            config.data_dir = non_empty(text)?.into();
            Ok(())
        },
        get: |config| config.data_dir.display().to_string(),
    },
    Knob {
        key: "listen",
        value: "HOST:PORT",
        default: "127.0.0.1:7420",
        help: "The shared port; shard i listens on PORT + 1 + i. Port 0: the kernel chooses all.",
        change: "to be reached from other machines, together with advertise",
        set: |config, text| put(&mut config.listen, text.parse()),
        get: |config| config.listen.to_string(),
    },
    Knob {
        key: "advertise",
        value: "HOST[:PORT]",
        default: "",
        help: "The address that clients are told instead of listen.",
        change: "when listen is 0.0.0.0 or [::], or when clients reach this machine by another \
                 address",
        set: |config, text| put(&mut config.advertise, optional(text, |text| text.parse())),
        get: |config| shown(config.advertise.as_ref()),
    },
    Knob {
        key: "admin_listen",
        value: "HOST:PORT",
        default: "127.0.0.1:7400",
        help: "HTTP for /metrics, /healthz and /status. Port 0: the kernel chooses.",
        change: "to let a monitoring system on another machine read it",
        set: |config, text| put(&mut config.admin_listen, text.parse()),
        get: |config| config.admin_listen.to_string(),
    },
    Knob {
        key: "shards",
        value: "COUNT",
        default: "auto",
        help: "Data shards, a pinned thread each; auto is one per core but for one core, which is \
               left to the controller, the housekeeper and the kernel's own work.",
        change: "when other programs need cores of this machine; it may differ from start to start",
        set: |config, text| {
            config.shards = match text {
                "auto" => default_shards(cores()),
                text => number(text, 1, SHARDS_MAX.into())? as u16,
            };
            Ok(())
        },
        get: |config| config.shards.to_string(),
    },
    Knob {
        key: "pin",
        value: "auto|on|off",
        default: "auto",
        help: "Whether each shard is bound to a core; auto binds when there is one shard per core but \
               for one, on three cores or more: then the machine looks like the broker's own.",
        change: "to on when shards is set by hand on a machine of the broker's own",
        set: |config, text| put(&mut config.pin, one_of(text, &PINS)),
        get: |config| name_of(config.pin, &PINS),
    },
    Knob {
        key: "idle",
        value: "park|busy-poll",
        default: "park",
        help: "What a shard does without work: sleep, or keep looking.",
        change: "to busy-poll on isolated cores where some µs of latency are worth a core each",
        set: |config, text| put(&mut config.idle, one_of(text, &IDLES)),
        get: |config| name_of(config.idle, &IDLES),
    },
    Knob {
        key: "ready_file",
        value: "FILE",
        default: "",
        help: "File that gets the ready line once the broker serves; it is whole or not there.",
        change: "when a script or supervisor waits for the broker and can't read its output",
        set: |config, text| {
            put(
                &mut config.ready_file,
                optional(text, |text| Ok(text.into())),
            )
        },
        get: |config| shown(config.ready_file.as_ref().map(|path| path.display())),
    },
    Knob {
        key: "log_level",
        value: "error|warn|info|debug|trace",
        default: "info",
        help: "The least severe lines that are logged.",
        change: "to debug while looking for a fault; trace writes a line for each request",
        set: |config, text| put(&mut config.log_level, one_of(text, &LEVELS)),
        get: |config| name_of(config.log_level, &LEVELS),
    },
    Knob {
        key: "log_format",
        value: "text|json",
        default: "text",
        help: "How log lines look; they go to standard error.",
        change: "to json when a program reads them",
        set: |config, text| put(&mut config.log_format, one_of(text, &FORMATS)),
        get: |config| name_of(config.log_format, &FORMATS),
    },
    Knob {
        key: "sync_scope",
        value: "auto|device|file",
        default: "auto",
        help: "What one sync makes durable: all files of the device, or one.",
        change: "to file when the pre-flight's judgement of the file system is in doubt",
        set: |config, text| put(&mut config.sync_scope, one_of(text, &SCOPES)),
        get: |config| name_of(config.sync_scope, &SCOPES),
    },
    Knob {
        key: "cache_bytes",
        value: "BYTES",
        default: "256 MiB",
        help: "Memory of each shard for the newest batches, from which consumers at the tail are \
               served without a read.",
        change: "when consumers fall back to disk reads (ringway_fetched_disk_bytes_total) and \
                 memory is there",
        set: |config, text| put(&mut config.cache_bytes, amount(text, 4 << 20, 1 << 40)),
        get: |config| config.cache_bytes.to_string(),
    },
    Knob {
        key: "produce_bytes_max",
        value: "BYTES",
        default: "128 MiB",
        help: "Memory of each shard for produce requests that are not durable yet; beyond it \
               connections are not read.",
        change: "when many producers with large batches are held up on a slow disk",
        set: |config, text| {
            put(
                &mut config.produce_bytes_max,
                amount(text, 1 << 20, 1 << 40),
            )
        },
        get: |config| config.produce_bytes_max.to_string(),
    },
    Knob {
        key: "unsynced_bytes_max",
        value: "BYTES",
        default: "16 MiB",
        help: "Bytes of topics with durability memory that each shard acknowledges before they are \
               on the disk: what a crash may take. Above it acknowledgements wait for the disk.",
        change: "when such a topic is written faster than the disk takes it in bursts, or when less \
                 may be lost",
        set: |config, text| {
            put(
                &mut config.unsynced_bytes_max,
                amount(text, 64 << 10, 1 << 40),
            )
        },
        get: |config| config.unsynced_bytes_max.to_string(),
    },
    Knob {
        key: "unsynced_ms_max",
        value: "MS",
        default: "200",
        help: "How long records of such topics may have been acknowledged and not be on the disk. \
               They are written after half of it; a disk that takes longer makes \
               acknowledgements wait.",
        change: "to lose less in a crash, or to write less often",
        set: |config, text| put(&mut config.unsynced_ms_max, number(text, 1, 3_600_000)),
        get: |config| config.unsynced_ms_max.to_string(),
    },
    Knob {
        key: "connections_max",
        value: "COUNT",
        default: "10000",
        help: "Connections of each shard; more are refused.",
        change: "when ringway_connections_refused_total rises; the limit of descriptors has to \
                 allow for it",
        set: |config, text| {
            config.connections_max = number(text, 1, 1 << 20)? as u32;
            Ok(())
        },
        get: |config| config.connections_max.to_string(),
    },
    Knob {
        key: "batch_bytes_max",
        value: "BYTES",
        default: "16 MiB",
        help: "Largest batch that is accepted, header included.",
        change: "when single records are larger than that",
        set: |config, text| {
            config.batch_bytes_max = amount(text, 64 << 10, BATCH_BYTES_MAX as u64)? as u32;
            Ok(())
        },
        get: |config| config.batch_bytes_max.to_string(),
    },
    Knob {
        key: "cold_read_in_flight_bytes",
        value: "BYTES",
        default: "16 MiB",
        help: "Memory of each shard for what it reads from disk for consumers, until it is sent. Beside \
               writes, a quarter of it is read at the same time.",
        change: "on arrays of fast devices, when reading old records is too slow",
        set: |config, text| {
            put(
                &mut config.cold_read_in_flight_bytes,
                amount(text, 1 << 20, 1 << 34),
            )
        },
        get: |config| config.cold_read_in_flight_bytes.to_string(),
    },
    Knob {
        key: "cold_read_bytes_per_second",
        value: "BYTES|unlimited",
        default: "unlimited",
        help: "Bytes that each shard reads from disk for consumers in a second.",
        change: "when consumers that catch up slow down producers",
        set: |config, text| {
            config.cold_read_bytes_per_second = match text {
                "unlimited" => None,
                text => Some(amount(text, 1 << 20, 1 << 40)?),
            };
            Ok(())
        },
        get: |config| {
            let unlimited = || "unlimited".to_owned();
            config
                .cold_read_bytes_per_second
                .map_or_else(unlimited, |bytes| bytes.to_string())
        },
    },
];

const IDLES: [(&str, Idle); 2] = [("park", Idle::Park), ("busy-poll", Idle::BusyPoll)];
const PINS: [(&str, Option<bool>); 3] = [("auto", None), ("on", Some(true)), ("off", Some(false))];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const SCOPES: [(&str, Option<SyncScope>); 3] = [
    ("auto", None),
    ("device", Some(SyncScope::Device)),
    ("file", Some(SyncScope::File)),
];
const LEVELS: [(&str, tracing::Level); 5] = [
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];

/// A configuration to be filled from the table.
pub(super) fn blank() -> Config {
    Config {
        profile: Profile::Balanced,
        data_dir: std::path::PathBuf::new(),
        listen: HostPort::default(),
        advertise: None,
        admin_listen: HostPort::default(),
        shards: 1,
        pin: None,
        idle: Idle::Park,
        ready_file: None,
        log_level: tracing::Level::INFO,
        log_format: LogFormat::Text,
        sync_scope: None,
        cache_bytes: 0,
        produce_bytes_max: 0,
        unsynced_bytes_max: 0,
        unsynced_ms_max: 0,
        connections_max: 0,
        batch_bytes_max: 0,
        cold_read_in_flight_bytes: 0,
        cold_read_bytes_per_second: None,
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One shard per core, but for one core: the controller, the housekeeper, the ring's worker
/// threads and the network's interrupts need somewhere to run that isn't in a shard's way. With
/// two cores that means one shard, beside which a client on the same machine has room too.
pub(super) fn default_shards(cores: usize) -> u16 {
    u16::try_from(cores.saturating_sub(1))
        .unwrap_or(SHARDS_MAX)
        .clamp(1, SHARDS_MAX)
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        Err("it is empty".to_owned())
    } else {
        Ok(text)
    }
}

fn optional<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        read(text).map(Some)
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let range = || format!("it is a whole number from {min} to {max}");
    let value = text.parse().map_err(|_| range())?;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(range())
    }
}

fn amount(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = bytes(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(format!("it is from {min} to {max} bytes"))
}

fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = values.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    let near = nearest(text, names.iter().copied());
    let near = near
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Err(format!("it is {}{near}", names.join(" or ")))
}

fn name_of<T: Copy + PartialEq>(value: T, values: &[(&str, T)]) -> String {
    let named = values.iter().find(|(_, known)| *known == value);
    named.expect("every value has a name").0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_left_to_everything_else() {
        let shards = [1, 2, 3, 4, 64, 100_000].map(default_shards);
        assert_eq!(shards, [1, 1, 2, 3, 63, SHARDS_MAX]);
    }

    #[test]
    fn every_knob_reads_back_what_it_writes() {
        let mut config = Config::default();
        for knob in &KNOBS {
            let value = (knob.get)(&config);
            assert_eq!((knob.set)(&mut config, &value), Ok(()), "{}", knob.key);
            assert_eq!((knob.get)(&config), value, "{}", knob.key);
        }
        assert_eq!(config, Config::default());
    }
}
