//! Whether some clients of a broker can spoil it for others: those that mean no good, and those
//! that read a great deal of old data. A well-behaved client runs beside them, measured in phases
//! that alternate: alone, and with the others.
//!
//! In the suite these are small, and assert what must hold on any machine: every record arrives
//! once and in order, and memory stays bounded. At full size they print how much slower the
//! well-behaved client became; that needs a release build and a machine with nothing else to do:
//!
//! ```sh
//! RINGWAY_HOSTILE_SECONDS=600 RINGWAY_HOSTILE_SLOW=5000 RINGWAY_HOSTILE_DEAF=100 \
//!   RINGWAY_HOSTILE_IDLE=1 \
//!   cargo test --release -p ringway-broker --test isolation hostile -- --nocapture
//! RINGWAY_COLD_BYTES=20000000000 \
//!   cargo test --release -p ringway-broker --test isolation cold -- --nocapture
//! ```

mod attack;
mod bulk;
mod cold;
mod figures;
mod hostile;
mod paced;
mod resident;

/// The broker under test. `RINGWAY_ISOLATION_BROKER` puts another build of it in its place, to
/// compare the two.
fn binary() -> std::path::PathBuf {
    let other = std::env::var_os("RINGWAY_ISOLATION_BROKER");
    other.map_or_else(|| env!("CARGO_BIN_EXE_ringway-broker").into(), Into::into)
}
