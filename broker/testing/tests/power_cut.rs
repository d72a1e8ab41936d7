//! The power-cut disk against real file systems: what a sync covers survives, what none covers
//! may not, and injected faults arrive where a broker would see them.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use ringway_testing::{
    DiskError, DiskOptions, Faults, FileSystem, Need, PowerCutDisk, Scratch, require, sys,
};

const O_DIRECT: i32 = 0o40000;
const CHUNK_BYTES: usize = 64 << 10;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Aligned for direct I/O on any device.
#[repr(align(4096))]
struct Chunk([u8; CHUNK_BYTES]);

impl Chunk {
    fn filled(byte: u8) -> Box<Self> {
        Box::new(Self([byte; CHUNK_BYTES]))
    }
}

fn disk(file_system: FileSystem, name: &str) -> Option<(Scratch, PowerCutDisk)> {
    disk_with(DiskOptions::new(file_system), name)
}

fn disk_with(options: DiskOptions, name: &str) -> Option<(Scratch, PowerCutDisk)> {
    let mkfs = match options.file_system {
        FileSystem::Xfs => Need::MkfsXfs,
        _ => Need::MkfsExt4,
    };
    if !require(&[Need::Mounts, Need::Fuse, Need::Loop, mkfs]) {
        return None;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap();
    let disk = PowerCutDisk::new(&scratch, options).unwrap();
    Some((scratch, disk))
}

/// A file as a segment is: allocated, filled with zeros, and durable with its name and size.
fn zeroed_file(directory: &Path, name: &str, chunks: usize) -> File {
    let path = directory.join(name);
    let mut file = File::create_new(&path).unwrap();
    sys::allocate(&file, (chunks * CHUNK_BYTES) as u64).unwrap();
    (0..chunks).for_each(|_| file.write_all(&Chunk::filled(0).0).unwrap());
    file.sync_all().unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(path)
        .unwrap()
}

fn read_chunk(path: &Path, chunk: usize) -> Box<Chunk> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(path)
        .unwrap();
    let mut read = Chunk::filled(0xee);
    file.read_exact_at(&mut read.0, (chunk * CHUNK_BYTES) as u64)
        .unwrap();
    read
}

fn is_filled(path: &Path, chunk: usize, byte: u8) -> bool {
    read_chunk(path, chunk).0.iter().all(|read| *read == byte)
}

/// Runs a body on journalled ext4 and on XFS.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod ext4 {
            $(#[test]
            fn $name() {
                super::$name(super::FileSystem::Ext4);
            })*
        }
        mod xfs {
            $(#[test]
            fn $name() {
                super::$name(super::FileSystem::Xfs);
            })*
        }
    };
}

on_both! {
    a_synced_file_survives
    unsynced_direct_writes_are_lost_and_torn
    a_dsync_write_survives
    one_sync_covers_every_completed_write
    a_sync_does_not_cover_a_write_under_way
    the_same_seed_drops_the_same
    injected_errors_arrive_and_heal
    a_failed_sync_loses_its_writes_for_good
    a_flipped_bit_reads_wrong_until_overwritten
    without_power_nothing_is_acknowledged
    a_full_cache_makes_the_oldest_durable
    blocks_of_4096_bytes_are_not_torn
}

fn a_synced_file_survives(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "synced") else {
        return;
    };
    for seed in 0..4_u8 {
        let path = disk.path().join(format!("file-{seed}"));
        let mut file = File::create_new(&path).unwrap();
        file.write_all(&[seed + 1; 100_000]).unwrap();
        file.sync_all().unwrap();
        File::open(disk.path()).unwrap().sync_all().unwrap();
        drop(file);
        disk.cut(u64::from(seed)).unwrap();
        for earlier in 0..=seed {
            let read = std::fs::read(disk.path().join(format!("file-{earlier}"))).unwrap();
            assert!(
                read == [earlier + 1; 100_000],
                "file {earlier} after cut {seed}"
            );
        }
    }
    assert_eq!(disk.counters().cuts, 4);
}

fn unsynced_direct_writes_are_lost_and_torn(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "unsynced") else {
        return;
    };
    let path = disk.path().join("file");
    drop(zeroed_file(disk.path(), "file", 1));
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..16_u64 {
        let fill = seed as u8 + 1;
        let before = read_chunk(&path, 0);
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(O_DIRECT)
            .open(&path)
            .unwrap();
        file.write_all_at(&Chunk::filled(fill).0, 0).unwrap();
        drop(file);
        disk.cut(seed).unwrap();
        let after = read_chunk(&path, 0);
        let new = after
            .0
            .chunks(512)
            .filter(|sector| sector.iter().all(|byte| *byte == fill));
        match new.count() {
            0 => lost += 1,
            128 => kept += 1,
            _ => torn += 1,
        }
        let sectors = after.0.chunks(512).zip(before.0.chunks(512));
        for (after, before) in sectors {
            let whole = after.iter().all(|byte| *byte == fill) || after == before;
            assert!(
                whole,
                "a sector is neither the old nor the new one, seed {seed}"
            );
        }
    }
    assert!(
        lost > 0 && kept > 0 && torn > 0,
        "lost {lost}, kept {kept}, torn {torn}"
    );
    let counters = disk.counters();
    assert!(
        counters.dropped_sectors > 0 && counters.torn_writes > 0,
        "{counters:?}"
    );
}

fn a_dsync_write_survives(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "dsync") else {
        return;
    };
    drop(zeroed_file(disk.path(), "file", 1));
    let path = disk.path().join("file");
    for seed in 0..6_u8 {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(O_DIRECT)
            .open(&path)
            .unwrap();
        let chunk = Chunk::filled(seed + 1);
        assert_eq!(
            sys::write_durably_at(&file, &chunk.0, 0).unwrap(),
            CHUNK_BYTES
        );
        drop(file);
        disk.cut(u64::from(seed)).unwrap();
        assert!(is_filled(&path, 0, seed + 1), "cut {seed}");
    }
}

/// The shared flush: one fdatasync of a file that nobody writes to makes durable what was written
/// to others.
fn one_sync_covers_every_completed_write(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "shared-flush") else {
        return;
    };
    let (path_a, path_b) = (disk.path().join("a"), disk.path().join("b"));
    drop((
        zeroed_file(disk.path(), "a", 4),
        zeroed_file(disk.path(), "b", 4),
    ));
    drop(zeroed_file(disk.path(), "anchor", 1));
    for seed in 0..8_u8 {
        let open = |path| {
            OpenOptions::new()
                .write(true)
                .custom_flags(O_DIRECT)
                .open(path)
                .unwrap()
        };
        let (a, b) = (open(&path_a), open(&path_b));
        let anchor = File::open(disk.path().join("anchor")).unwrap();
        for chunk in 0..4 {
            a.write_all_at(&Chunk::filled(seed + 1).0, chunk * CHUNK_BYTES as u64)
                .unwrap();
            b.write_all_at(&Chunk::filled(seed + 101).0, chunk * CHUNK_BYTES as u64)
                .unwrap();
        }
        let before = disk.counters().syncs;
        anchor.sync_data().unwrap();
        assert!(
            disk.counters().syncs > before,
            "the sync of the anchor didn't reach the disk"
        );
        drop((a, b, anchor));
        disk.cut(u64::from(seed)).unwrap();
        for chunk in 0..4 {
            assert!(is_filled(&path_a, chunk, seed + 1), "a, cut {seed}");
            assert!(is_filled(&path_b, chunk, seed + 101), "b, cut {seed}");
        }
    }
}

/// A broker that syncs before its write has completed must be found out.
fn a_sync_does_not_cover_a_write_under_way(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "under-way") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 1);
    drop(zeroed_file(disk.path(), "anchor", 1));
    let anchor = File::open(disk.path().join("anchor")).unwrap();
    let slow = Duration::from_millis(400)..Duration::from_millis(401);
    disk.inject(Faults {
        write_delay: slow,
        ..Faults::default()
    });
    std::thread::scope(|scope| {
        let delayed = disk.counters().delayed;
        let writer = scope.spawn(|| file.write_all_at(&Chunk::filled(7).0, 0));
        while disk.counters().delayed == delayed {
            std::thread::yield_now();
        }
        let writes = disk.counters().writes;
        anchor.sync_data().unwrap();
        // The sync is over and the write isn't: it has overtaken it.
        assert_eq!(disk.counters().writes, writes);
        let seed = (0..100)
            .find(|seed| disk.foresee(*seed).kept_sectors == 0)
            .unwrap();
        disk.power_off(seed);
        assert!(
            writer.join().unwrap().is_err(),
            "a write was acknowledged without power"
        );
    });
    drop((file, anchor));
    disk.power_on().unwrap();
    assert!(is_filled(&path, 0, 0));
}

fn the_same_seed_drops_the_same(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "same-seed") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 8);
    for chunk in 0..8 {
        file.write_all_at(&Chunk::filled(9).0, chunk * CHUNK_BYTES as u64)
            .unwrap();
    }
    drop(file);
    // Nothing else writes to the disk between the two questions, or both would be asked again.
    let (seed, foreseen) = loop {
        let first: Vec<_> = (0..32).map(|seed| disk.foresee(seed)).collect();
        let second: Vec<_> = (0..32).map(|seed| disk.foresee(seed)).collect();
        if first[0].unsynced_writes == second[0].unsynced_writes {
            assert_eq!(first, second);
            assert!(
                first
                    .windows(2)
                    .any(|pair| pair[0].dropped != pair[1].dropped)
            );
            let torn = first
                .into_iter()
                .find(|report| report.torn_writes > 0)
                .unwrap();
            break (torn.seed, torn);
        }
    };
    let range = |chunk: usize, extents: &[(u64, std::ops::Range<u64>)]| {
        let position = (chunk * CHUNK_BYTES) as u64;
        let extent = extents
            .iter()
            .rev()
            .find(|extent| extent.0 <= position)
            .unwrap();
        extent.1.start + (position - extent.0)
    };
    let extents = sys::extents(&File::open(&path).unwrap()).unwrap();
    let report = disk.cut(seed).unwrap();
    assert_eq!(report.dropped, foreseen.dropped);
    for chunk in 0..8 {
        let (bytes, start) = (read_chunk(&path, chunk), range(chunk, &extents));
        for (index, sector) in bytes.0.chunks(512).enumerate() {
            let at = start + index as u64 * 512;
            let dropped = report.dropped.iter().any(|range| range.contains(&at));
            let expected = if dropped { 0 } else { 9 };
            assert!(
                sector.iter().all(|byte| *byte == expected),
                "sector at {at}"
            );
        }
    }
}

fn injected_errors_arrive_and_heal(kind: FileSystem) {
    let Some((_scratch, disk)) = disk(kind, "errors") else {
        return;
    };
    let file = zeroed_file(disk.path(), "file", 1);
    let other = zeroed_file(disk.path(), "other", 1);
    let chunk = Chunk::filled(3);
    let ranges = disk.extents(&disk.path().join("file")).unwrap();
    for (error, code) in [(DiskError::Io, EIO), (DiskError::NoSpace, ENOSPC)] {
        disk.inject(Faults {
            write_error: Some(error),
            write_error_in: Some(ranges.clone()),
            ..Faults::default()
        });
        let failed = disk.counters().failed_writes;
        let result = file.write_all_at(&chunk.0, 0);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(code));
        assert!(disk.counters().failed_writes > failed);
        other.write_all_at(&chunk.0, 0).unwrap();
        disk.heal();
        file.write_all_at(&chunk.0, 0).unwrap();
    }
    disk.inject(Faults {
        read_error: Some(DiskError::Io),
        ..Faults::default()
    });
    let mut read = Chunk::filled(0);
    assert_eq!(
        file.read_exact_at(&mut read.0, 0)
            .unwrap_err()
            .raw_os_error(),
        Some(EIO)
    );
    disk.heal();
    file.read_exact_at(&mut read.0, 0).unwrap();
    assert!(read.0 == chunk.0);
    assert!(disk.counters().failed_reads > 0);
}

fn a_failed_sync_loses_its_writes_for_good(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "failed-sync") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 1);
    file.write_all_at(&Chunk::filled(5).0, 0).unwrap();
    disk.inject(Faults {
        sync_error: Some(DiskError::Io),
        ..Faults::default()
    });
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert!(disk.counters().failed_syncs > 0);
    disk.heal();
    // The bytes read back and a second attempt may say that all is well; it isn't.
    assert!(is_filled(&path, 0, 5));
    let _ = file.sync_data();
    drop(file);
    disk.cut(1).unwrap();
    assert!(is_filled(&path, 0, 0));
}

fn a_flipped_bit_reads_wrong_until_overwritten(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "flip") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 2);
    let position = CHUNK_BYTES + 5000;
    disk.flip_in_file(&path, position as u64, 0b100).unwrap();
    assert!(is_filled(&path, 0, 0));
    assert_eq!(read_chunk(&path, 1).0[5000], 0b100);
    drop(file);
    disk.cut(3).unwrap();
    assert_eq!(read_chunk(&path, 1).0[5000], 0b100);
    assert!(disk.counters().flipped_reads >= 2);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .unwrap();
    file.write_all_at(&Chunk::filled(0).0, CHUNK_BYTES as u64)
        .unwrap();
    assert!(is_filled(&path, 1, 0));
    assert!(disk.flip_in_file(&path, 1 << 40, 1).is_err());
}

fn without_power_nothing_is_acknowledged(kind: FileSystem) {
    let Some((_scratch, mut disk)) = disk(kind, "no-power") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 1);
    file.write_all_at(&Chunk::filled(1).0, 0).unwrap();
    file.sync_data().unwrap();
    disk.power_off(1);
    assert!(file.write_all_at(&Chunk::filled(2).0, 0).is_err());
    assert!(file.sync_data().is_err());
    assert!(disk.counters().without_power > 0);
    drop(file);
    disk.power_on().unwrap();
    assert!(is_filled(&path, 0, 1));
    let names: Vec<_> = std::fs::read_dir(disk.path()).unwrap().flatten().collect();
    assert!(
        names.iter().any(|entry| entry.file_name() == "file"),
        "{names:?}"
    );
}

fn a_full_cache_makes_the_oldest_durable(kind: FileSystem) {
    let options = DiskOptions {
        cache_bytes: 4 * CHUNK_BYTES,
        ..DiskOptions::new(kind)
    };
    let Some((_scratch, mut disk)) = disk_with(options, "full-cache") else {
        return;
    };
    let path = disk.path().join("file");
    let file = zeroed_file(disk.path(), "file", 64);
    for chunk in 0..64 {
        file.write_all_at(&Chunk::filled(4).0, chunk * CHUNK_BYTES as u64)
            .unwrap();
    }
    drop(file);
    assert!(disk.counters().destaged > 0);
    let nothing_kept = (0..100)
        .find(|seed| disk.foresee(*seed).kept_sectors == 0)
        .unwrap();
    disk.cut(nothing_kept).unwrap();
    assert!(
        is_filled(&path, 0, 4),
        "the oldest write had left the cache"
    );
    assert!(!is_filled(&path, 63, 4), "the newest write had not");
}

fn blocks_of_4096_bytes_are_not_torn(kind: FileSystem) {
    let options = DiskOptions {
        block_bytes: 4096,
        ..DiskOptions::new(kind)
    };
    let Some((_scratch, mut disk)) = disk_with(options, "big-blocks") else {
        return;
    };
    let path = disk.path().join("file");
    drop(zeroed_file(disk.path(), "file", 1));
    let mut torn = 0;
    for seed in 0..8_u64 {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(O_DIRECT)
            .open(&path)
            .unwrap();
        assert!(
            file.write_all_at(&Chunk::filled(1).0[..512], 0).is_err(),
            "too small a block"
        );
        file.write_all_at(&Chunk::filled(seed as u8 + 1).0, 0)
            .unwrap();
        drop(file);
        torn += disk.cut(seed).unwrap().torn_writes;
        for block in read_chunk(&path, 0).0.chunks(4096) {
            assert!(
                block.iter().all(|byte| *byte == block[0]),
                "a block was torn, seed {seed}"
            );
        }
    }
    assert!(torn > 0);
}
