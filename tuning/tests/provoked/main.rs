//! The pre-flight on this very machine, each fault provoked for real: filters and limits in a
//! child process, file systems on loop devices.
//! What this machine can't do is skipped by name.

mod child;
mod volume;

use std::path::Path;

use child::{HELD_ENTRIES, need, report_under};
use ringway_testing::{Need, require};
use ringway_tuning::{
    FileSystem, Journal, LinuxHost, Report, Severity, SyncScope, preflight, raise_limits,
    ring_memlock_bytes, storage,
};
use serde_json::Value;
use volume::{Volume, scratch};

/// What [`Volume`] needs.
const VOLUMES: [Need; 4] = [Need::Mounts, Need::Loop, Need::MkfsExt4, Need::MkfsXfs];

/// The finding of that check in a child's report.
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|f| f["check"] == check)
        .unwrap_or_else(|| panic!("no finding {check} in {report:#}"))
}

#[track_caller]
fn assert_says(finding: &Value, severity: &str, current: &str, remedy: &str) {
    assert_eq!(finding["severity"], severity, "{finding:#}");
    assert!(
        finding["current"].as_str().unwrap().contains(current),
        "{finding:#}"
    );
    assert!(
        finding["remedy"].as_str().unwrap().contains(remedy),
        "{finding:#}"
    );
}

/// The report on a directory of this machine, seen by this process.
fn report(data_dir: &Path) -> Report {
    raise_limits().unwrap();
    preflight(&need(data_dir), &LinuxHost)
}

#[test]
fn this_machine_has_the_rings_that_a_broker_needs() {
    let scratch = scratch();
    let data_dir = scratch.create_dir("data").unwrap();
    let report = report(&data_dir);
    let ring = report.check("io_uring").unwrap();
    assert_eq!(ring.severity, Severity::Ok, "{ring}");
    assert!(report.storage.is_some(), "{report:?}");
    let left = std::fs::read_dir(&data_dir).unwrap().count();
    assert_eq!(left, 0, "the probe leaves nothing behind");
}

#[test]
fn a_filter_that_refuses_rings_is_named() {
    let scratch = scratch();
    for answer in ["EPERM", "ENOSYS"] {
        let report = report_under(&format!("setup-answers={answer}"), scratch.path());
        let ring = finding(&report, "io_uring");
        assert_says(
            ring,
            "fatal",
            "io_uring_setup fails",
            "--security-opt seccomp=",
        );
        assert_says(
            ring,
            "fatal",
            "a seccomp filter is in force",
            "SystemCallFilter=@aio",
        );
    }
}

#[test]
fn a_filter_that_lets_rings_be_made_but_not_used_is_named() {
    let scratch = scratch();
    for call in ["register", "enter"] {
        let report = report_under(&format!("{call}-answers=EPERM"), scratch.path());
        let current = format!("io_uring_{call} fails");
        assert_says(
            finding(&report, "io_uring"),
            "fatal",
            &current,
            "io_uring_register",
        );
    }
}

#[test]
fn a_ring_that_finds_no_memory_blames_the_limit_of_an_ordinary_user() {
    let scratch = scratch();
    let words = "memlock=8388608 ordinary-user setup-answers=ENOMEM";
    let report = report_under(words, scratch.path());
    assert_says(
        finding(&report, "memlock"),
        "fatal",
        "a limit of 8 MiB",
        "memlock",
    );
}

#[test]
fn little_locked_memory_is_fatal_for_an_ordinary_user() {
    let scratch = scratch();
    let report = report_under("memlock=65536 ordinary-user", scratch.path());
    assert_says(
        finding(&report, "memlock"),
        "fatal",
        "64 KiB",
        "LimitMEMLOCK=8388608",
    );
}

#[test]
fn eight_mebibytes_of_locked_memory_are_enough_for_an_ordinary_user() {
    let scratch = scratch();
    let report = report_under("memlock=8388608 ordinary-user", scratch.path());
    assert_says(finding(&report, "memlock"), "ok", "8 MiB", "");
    assert_says(finding(&report, "io_uring"), "ok", "works", "");
}

#[test]
fn the_executor_insists_on_a_limit_even_for_root() {
    if !require(&[Need::Mounts]) {
        return;
    }
    let scratch = scratch();
    let report = report_under("memlock=65536", scratch.path());
    assert_says(finding(&report, "memlock"), "fatal", "64 KiB", "memlock");
    assert_says(finding(&report, "io_uring"), "ok", "works", "");
}

#[test]
fn rings_lock_no_more_memory_than_is_reckoned() {
    // An ordinary user's own processes would be counted in.
    if !require(&[Need::Mounts]) {
        return;
    }
    let scratch = scratch();
    let rings = 16;
    let bytes = rings * ring_memlock_bytes(HELD_ENTRIES, 2 * HELD_ENTRIES);
    let words = format!("memlock={bytes} ordinary-user hold-rings={rings}");
    // The child panics if they don't fit. Where rings count at all, every page is taken by then,
    // and what fails is the pre-flight's own small ring.
    let report = report_under(&words, scratch.path());
    let full = report["findings"][0]["current"].as_str().unwrap();
    let counts = kernel_counts_rings();
    assert!(
        !counts || full.contains("fails for want of memory"),
        "{report:#}"
    );
}

/// Whether this kernel counts rings as locked memory (6.14 and later).
fn kernel_counts_rings() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>());
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next()) >= (6, 14)
}

#[test]
fn few_descriptors_are_fatal_unless_they_can_be_raised() {
    let scratch = scratch();
    let report = report_under("nofile=64 raise-limits", scratch.path());
    assert_says(
        finding(&report, "nofile"),
        "fatal",
        "64 descriptors",
        "LimitNOFILE=1024",
    );
    let report = report_under("nofile-soft=64", scratch.path());
    assert_says(
        finding(&report, "nofile"),
        "fatal",
        "64 descriptors",
        "ulimit -n 1024",
    );
    let report = report_under("nofile-soft=64 raise-limits", scratch.path());
    assert_says(finding(&report, "nofile"), "ok", "descriptors", "");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let scratch = scratch();
    let report = report(&scratch.path().join("absent"));
    let finding = report.check("data_dir").unwrap();
    assert_eq!(finding.severity, Severity::Fatal);
    assert!(finding.remedy.contains("mkdir -p"), "{finding}");
}

#[test]
fn a_directory_of_somebody_else_is_named() {
    let report = report_under("ordinary-user", Path::new("/usr"));
    assert_says(finding(&report, "data_dir"), "fatal", "/usr", "chown");
}

#[test]
fn a_file_system_in_memory_is_refused_although_it_accepts_direct_io() {
    // Where /dev/shm is something else there is nothing to learn here.
    let memory = Path::new("/dev/shm");
    let found = storage(memory, &LinuxHost).map(|storage| storage.file_system);
    if !matches!(found, Ok(FileSystem::Other { memory: true, .. })) {
        eprintln!("skipped: needs a writable tmpfs on /dev/shm, found {found:?}");
        return;
    }
    let report = report(memory);
    let finding = report.check("direct_io").unwrap();
    assert_eq!(finding.severity, Severity::Fatal, "{finding}");
    assert!(
        finding.current.contains("tmpfs has no direct I/O"),
        "{finding}"
    );
}

/// Mounts, judges, and expects that file system, that scope and that worst severity.
#[track_caller]
fn expect(volume: &Volume, file_system: FileSystem, scope: SyncScope, worst: Severity) -> Report {
    let report = report(volume.path());
    let found = report.storage.clone().unwrap();
    assert_eq!(found.file_system, file_system, "{found:?}");
    assert_eq!(found.sync_scope, scope, "{found:?}");
    let storage_checks = ["direct_io", "journal", "barriers", "sync_scope"];
    let gravest = storage_checks
        .iter()
        .filter_map(|c| report.check(c))
        .map(|f| f.severity)
        .max();
    assert_eq!(gravest, Some(worst), "{report:?}");
    report
}

const EXT4: &str = "mkfs.ext4 -q -b 4096";
const XFS: &str = "mkfs.xfs -q";

#[test]
fn a_journalled_ext4_shares_a_flush() {
    if !require(&VOLUMES) {
        return;
    }
    for (options, journal) in [
        ("rw", Journal::Ordered),
        ("data=writeback,noatime", Journal::Writeback),
    ] {
        let volume = Volume::new(EXT4, options, "");
        let report = expect(
            &volume,
            FileSystem::Ext4 { journal },
            SyncScope::Device,
            Severity::Info,
        );
        let direct = report.storage.unwrap().direct_io.unwrap();
        assert!(
            direct.stated && direct.offset_align.is_power_of_two(),
            "{direct:?}"
        );
    }
}

#[test]
fn an_ext4_without_a_journal_is_warned_of_and_syncs_each_file() {
    if !require(&VOLUMES) {
        return;
    }
    let volume = Volume::new(&format!("{EXT4} -O ^has_journal"), "rw", "");
    let ext4 = FileSystem::Ext4 {
        journal: Journal::None,
    };
    let report = expect(&volume, ext4, SyncScope::File, Severity::Warning);
    assert!(
        report
            .check("journal")
            .unwrap()
            .remedy
            .contains("tune2fs -O has_journal")
    );
}

#[test]
fn an_ext4_with_its_journal_elsewhere_is_warned_of() {
    if !require(&VOLUMES) {
        return;
    }
    let mkfs = format!("{EXT4} -J device=SECOND");
    let volume = Volume::new(&mkfs, "rw", "mke2fs -q -b 4096 -O journal_dev");
    let ext4 = FileSystem::Ext4 {
        journal: Journal::External,
    };
    expect(&volume, ext4, SyncScope::File, Severity::Warning);
}

#[test]
fn an_ext4_that_journals_data_has_no_direct_io() {
    if !require(&VOLUMES) {
        return;
    }
    let volume = Volume::new(EXT4, "data=journal", "");
    let ext4 = FileSystem::Ext4 {
        journal: Journal::Data,
    };
    let report = expect(&volume, ext4, SyncScope::File, Severity::Fatal);
    assert!(
        report
            .check("direct_io")
            .unwrap()
            .remedy
            .contains("data=journal")
    );
}

#[test]
fn barriers_that_are_off_are_noticed() {
    if !require(&VOLUMES) {
        return;
    }
    let volume = Volume::new(EXT4, "barrier=0", "");
    let ext4 = FileSystem::Ext4 {
        journal: Journal::Ordered,
    };
    let report = expect(&volume, ext4, SyncScope::File, Severity::Warning);
    assert!(report.check("barriers").is_some());
}

#[test]
fn a_mount_for_reading_is_refused() {
    if !require(&VOLUMES) {
        return;
    }
    let volume = Volume::new(EXT4, "ro", "");
    let report = report(volume.path());
    assert!(
        report
            .check("data_dir")
            .unwrap()
            .remedy
            .contains("for writing"),
        "{report:?}"
    );
}

#[test]
fn an_xfs_shares_a_flush_unless_its_log_is_elsewhere() {
    if !require(&VOLUMES) {
        return;
    }
    let volume = Volume::new(XFS, "rw", "");
    let inside = FileSystem::Xfs {
        external_log: false,
        realtime: false,
    };
    expect(&volume, inside, SyncScope::Device, Severity::Info);
    drop(volume);
    let volume = Volume::new(
        &format!("{XFS} -l logdev=SECOND,size=64m"),
        "logdev=SECOND",
        "",
    );
    let outside = FileSystem::Xfs {
        external_log: true,
        realtime: false,
    };
    expect(&volume, outside, SyncScope::File, Severity::Info);
}
