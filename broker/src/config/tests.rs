//! Files, flags, and what is said when they are wrong.

use super::*;

fn load(text: &str, flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile();
    let path = directory.join("broker.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), flags.iter().copied());
    std::fs::remove_dir_all(directory).unwrap();
    config
}

/// A directory of this test's own.
fn tempfile() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = std::env::temp_dir().join(format!("ringway-config-{unique}"));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn error(text: &str, flags: &[(&str, &str)]) -> String {
    load(text, flags)
        .expect_err("it has to be refused")
        .to_string()
}

#[test]
fn defaults_are_those_that_are_documented() {
    let config = Config::load(None, []).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7420");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.data_dir, Path::new("./ringway-data"));
    assert_eq!(config.idle, Idle::Park);
    assert_eq!(config.sync_scope, None);
    assert!(config.shards >= 1);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn flags_override_the_file_and_the_file_the_defaults() {
    let text = "shards = 3\ncache_bytes = \"64 MiB\"\nidle = \"busy-poll\"\n";
    let config = load(text, &[("shards", "5"), ("log_level", "debug")]).unwrap();
    assert_eq!(config.shards, 5);
    assert_eq!(config.cache_bytes, 64 << 20);
    assert_eq!(config.idle, Idle::BusyPoll);
    assert_eq!(config.log_level, tracing::Level::DEBUG);
    assert_eq!(config.connections_max, 10_000);
}

#[test]
fn a_wrong_key_or_value_is_named_with_what_would_be_right() {
    for (text, parts) in [
        (
            "shard = 3",
            &["broker.toml", "\"shard\"", "did you mean \"shards\"?"][..],
        ),
        ("adminlisten = 'x'", &["did you mean \"admin_listen\"?"]),
        ("qqqq = 1", &["config print"]),
        ("shards = 0", &["shards can't be \"0\"", "from 1 to"]),
        ("shards = -1", &["shards can't be \"-1\""]),
        ("shards = true", &["shards can't be \"true\""]),
        (
            "idle = 'parking'",
            &["park or busy-poll", "did you mean park?"],
        ),
        ("cache_bytes = '1 KiB'", &["4194304 to"]),
        ("cache_bytes = 'lots'", &["whole number", "KiB"]),
        ("batch_bytes_max = '65 MiB'", &["67108864"]),
        ("listen = '7420'", &["listen", "port is missing"]),
        ("data_dir = ''", &["it is empty"]),
        ("advertise = '0.0.0.0'", &["stands for all"]),
        ("[log]\nlevel = 'info'", &["unknown key \"log\""]),
        ("shards = ", &["is not TOML"]),
    ] {
        let error = error(text, &[]);
        for part in parts {
            assert!(
                error.contains(part),
                "{text:?} says {error:?}, without {part:?}"
            );
        }
    }
    let flag = error("", &[("log_level", "loud")]);
    assert!(
        flag.contains("command line: log_level can't be \"loud\""),
        "{flag}"
    );
    let missing = Config::load(Some(Path::new("/nonexistent/b.toml")), []).unwrap_err();
    assert!(
        missing.to_string().contains("/nonexistent/b.toml"),
        "{missing}"
    );
}

#[test]
fn values_have_to_go_together() {
    let everywhere = error("listen = '0.0.0.0:7420'", &[]);
    assert!(everywhere.contains("set advertise"), "{everywhere}");
    assert!(error("listen = '[::]:7420'", &[]).contains("set advertise"));
    assert!(error("listen = '127.0.0.1:65530'\nshards = 8", &[]).contains("65527"));
    let taken = error("admin_listen = '127.0.0.1:7421'\nshards = 1", &[]);
    assert!(taken.contains("7420 to 7421"), "{taken}");
    let memory = "batch_bytes_max = '64 MiB'\nproduce_bytes_max = '32 MiB'";
    assert!(error(memory, &[]).contains("produce_bytes_max"));

    let advertised = load("listen = '0.0.0.0:7420'\nadvertise = 'b1.example.org'", &[]).unwrap();
    let warnings = advertised.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("neither encryption nor authentication"),
        "{warnings:?}"
    );
    assert!(load("listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'", &[]).is_ok());
}

#[test]
fn what_is_printed_reads_back() {
    let text = "shards = 3\nadvertise = 'b1'\ncold_read_bytes_per_second = '100 MB'";
    let config = load(text, &[]).unwrap();
    let printed = config.to_toml();
    assert_eq!(load(&printed, &[]).unwrap(), config, "{printed}");
    assert!(printed.contains("\nshards = 3\n"), "{printed}");
    assert!(printed.contains("\n# ready_file = \"\"\n"), "{printed}");
    assert!(printed.contains("Change it when"), "{printed}");
}

#[test]
fn a_profile_turns_its_knobs_and_those_that_are_set_win() {
    let plain = load("profile = \"latency\"\n", &[]).unwrap();
    assert_eq!(plain.idle, Idle::BusyPoll);
    assert_eq!(plain.unsynced_ms_max, 50);
    assert_eq!(plain.cold_read_bytes_per_second, Some(256 << 20));
    let text = "idle = \"park\"\nprofile = \"latency\"\n";
    let set = load(text, &[("unsynced_ms_max", "70")]).unwrap();
    assert_eq!((set.idle, set.unsynced_ms_max), (Idle::Park, 70));
    assert_eq!(set.cold_read_in_flight_bytes, 4 << 20);
    let other = load(text, &[("profile", "throughput")]).unwrap();
    assert_eq!((other.idle, other.unsynced_ms_max), (Idle::Park, 1_000));
    assert_eq!(other.cold_read_bytes_per_second, None);
    let error = error("profile = \"fast\"\n", &[]);
    assert!(
        error.contains("latency or balanced or throughput"),
        "{error}"
    );
    assert_eq!(
        Config::load(None, [("profile", "balanced")]).unwrap(),
        Config::default()
    );
}

#[test]
fn what_profile_prints_reads_back_as_itself() {
    for (name, _) in profile::PROFILES {
        let config = Config::load(None, [("profile", name)]).unwrap();
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    }
}

/// The page that operators read has every value of every profile.
#[test]
fn profiles_are_documented_as_the_values_that_they_set() {
    let page = include_str!("../../../docs/operations.md");
    for (name, profile) in profile::PROFILES {
        for (key, value) in profile.values() {
            let column = match profile {
                Profile::Latency => 1,
                _ => 3,
            };
            let row = format!("| `{key}` |");
            let line = page.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("no line begins with {row}"));
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells[column + 1], *value, "{name}: {key}");
        }
    }
}
