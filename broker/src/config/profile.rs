//! Profiles: names for a few knobs turned together. A knob that is set by itself wins.

/// What a broker is tuned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The slowest of a thousand messages counts; cores and memory are there for it.
    Latency,
    /// Every knob at its default.
    #[default]
    Balanced,
    /// Bytes per second count.
    Throughput,
}

/// Every profile with its name.
pub(super) const PROFILES: [(&str, Profile); 3] = [
    ("latency", Profile::Latency),
    ("balanced", Profile::Balanced),
    ("throughput", Profile::Throughput),
];

impl Profile {
    /// The knobs that the profile turns, with their values; the others stay at their defaults.
    #[must_use]
    pub const fn values(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Latency => &[
                ("idle", "busy-poll"),
                ("cache_bytes", "512 MiB"),
                ("unsynced_bytes_max", "4 MiB"),
                ("unsynced_ms_max", "50"),
                ("cold_read_in_flight_bytes", "4 MiB"),
                ("cold_read_bytes_per_second", "256 MiB"),
            ],
            Self::Balanced => &[],
            Self::Throughput => &[
                ("cache_bytes", "1 GiB"),
                ("produce_bytes_max", "512 MiB"),
                ("unsynced_bytes_max", "64 MiB"),
                ("unsynced_ms_max", "1000"),
                ("cold_read_in_flight_bytes", "64 MiB"),
            ],
        }
    }
}
