//! What the data stands on, in words and figures: the device, its file system, what makes a write
//! durable there, and how long the device itself takes for one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringway_tuning::{Device, SyncScope};
use serde::Serialize;

use super::latency::{Percentiles, histogram};
use super::place::Place;

/// Bytes of a probing write: the smallest that any device with direct I/O takes.
const BLOCK_BYTES: usize = 4096;
/// Blocks written in turn, before anything is measured and then again and again.
const BLOCKS: usize = 64;
/// Most probing writes.
const WRITES_MAX: usize = 500;
/// Most time for them: a disk that turns takes ten milliseconds for each.
const PROBE_MAX: Duration = Duration::from_millis(300);

/// The place of the data.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Disk {
    /// The directory.
    pub(super) directory: String,
    /// Whether it stays after the demo.
    pub(super) kept: bool,
    /// The block device's name, or its numbers.
    pub(super) device: String,
    /// The file system's name.
    pub(super) file_system: String,
    /// Whether the device says that it has a volatile cache; `None` if it doesn't say.
    pub(super) volatile_cache: Option<bool>,
    /// Whether a sync reaches beyond that cache.
    pub(super) barriers: bool,
    /// What one sync makes durable.
    pub(super) sync_scope: SyncScope,
    /// Why that.
    pub(super) sync_scope_reason: String,
    /// A lone 4 KiB write made durable, without any broker, in microseconds.
    pub(super) durable_write_us: Percentiles,
    /// How many such writes were measured.
    pub(super) durable_writes: u64,
}

impl Disk {
    /// Looks at the place and measures it, in less than half a second on most.
    ///
    /// # Errors
    /// When a file in it can't be written.
    pub(super) fn examine(place: &Place) -> io::Result<Self> {
        let storage = place.storage();
        let times = probe(place.path())?;
        Ok(Self {
            directory: place.path().display().to_string(),
            kept: place.kept(),
            device: device_name(storage.device),
            file_system: storage.file_system.to_string(),
            volatile_cache: volatile_cache(storage.device),
            barriers: storage.barriers,
            sync_scope: storage.sync_scope,
            sync_scope_reason: storage.reason.clone(),
            durable_write_us: Percentiles::of(&times),
            durable_writes: times.len(),
        })
    }
}

fn device_directory(device: Device) -> String {
    format!("/sys/dev/block/{device}")
}

fn device_name(device: Device) -> String {
    let uevent = std::fs::read_to_string(format!("{}/uevent", device_directory(device)));
    let uevent = uevent.unwrap_or_default();
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("device {device}"), str::to_owned)
}

/// What the kernel knows about the device's cache; a partition's is its whole device's.
fn volatile_cache(device: Device) -> Option<bool> {
    let directory = device_directory(device);
    let read = |way| std::fs::read_to_string(format!("{directory}/{way}/write_cache"));
    let mode = read("queue").or_else(|_| read("../queue")).ok()?;
    Some(mode.trim() == "write back")
}

/// Direct I/O wants memory at a block's boundary.
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// Times, in nanoseconds, of single direct writes into space that was written before, each durable
/// when it returns.
fn probe(directory: &Path) -> io::Result<Histogram<u64>> {
    let path = directory.join("probe");
    let times = write_blocks(&path);
    std::fs::remove_file(&path)?;
    times
}

fn write_blocks(path: &Path) -> io::Result<Histogram<u64>> {
    let mut file = File::create(path)?;
    file.write_all(&[0; BLOCK_BYTES * BLOCKS])?;
    file.sync_all()?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path)?;
    let block = Box::new(Block([0x5a; BLOCK_BYTES]));
    let mut times = histogram();
    let began = Instant::now();
    for write in 0..WRITES_MAX {
        let position = (write % BLOCKS * BLOCK_BYTES) as u64;
        let start = Instant::now();
        file.write_all_at(&block.0, position)?;
        times.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if began.elapsed() > PROBE_MAX {
            break;
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_described_and_left_empty() {
        let place = Place::choose(None, false).unwrap();
        let disk = Disk::examine(&place).unwrap();
        assert!(!disk.device.is_empty() && !disk.file_system.is_empty());
        assert!(disk.durable_writes > 0 && disk.durable_write_us.p50 > 0.0);
        assert!(std::fs::read_dir(place.path()).unwrap().next().is_none());
    }
}
