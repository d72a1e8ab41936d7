//! Limits and rights of the process, on a staged machine.

use super::*;
use crate::staged::StagedHost;

fn need() -> Requirements {
    Requirements {
        shards: 4,
        rings: 9,
        memlock_bytes: 6 << 20,
        nofile: 1024,
        nofile_advised: 20_000,
        data_dir: "/data".into(),
        block_bytes: 4096,
        sync_scope: None,
    }
}

fn limited(soft: u64, hard: u64) -> Limit {
    Limit { soft, hard }
}

#[test]
fn eight_mebibytes_of_locked_memory_are_enough() {
    let finding = memlock(&need(), &StagedHost::default());
    assert_eq!(finding.severity, Severity::Ok);
    assert_eq!(finding.current, "8 MiB");
    assert_eq!(finding.wanted, "6 MiB for 9 rings");
}

#[test]
fn too_little_locked_memory_is_fatal_and_the_remedy_fits_the_hard_limit() {
    let mut host = StagedHost {
        memlock: limited(65_536, 65_536),
        ..StagedHost::default()
    };
    let finding = memlock(&need(), &host);
    assert_eq!(finding.severity, Severity::Fatal);
    assert_eq!(finding.current, "64 KiB");
    assert!(
        finding.remedy.contains("LimitMEMLOCK=8388608"),
        "{}",
        finding.remedy
    );
    host.memlock = limited(65_536, u64::MAX);
    assert!(
        memlock(&need(), &host)
            .remedy
            .starts_with("`ulimit -l 8192`")
    );
    host.memlock = limited((6 << 20) - 1, 6 << 20);
    assert_eq!(memlock(&need(), &host).severity, Severity::Fatal);
    host.memlock = limited(6 << 20, 6 << 20);
    assert_eq!(memlock(&need(), &host).severity, Severity::Ok);
}

#[test]
fn the_capability_to_lock_memory_lifts_the_limit() {
    let mut host = StagedHost {
        memlock: limited(512 << 10, 512 << 10),
        ..StagedHost::default()
    };
    host.write("/proc/thread-self/status", "CapEff:\t0000000000004000\n");
    assert_eq!(memlock(&need(), &host).severity, Severity::Ok);
    host.write("/proc/thread-self/status", "CapEff:\tffffffffffffbfff\n");
    assert_eq!(memlock(&need(), &host).severity, Severity::Fatal);
}

#[test]
fn the_executor_insists_on_a_limit_whatever_the_rights() {
    let mut host = StagedHost {
        memlock: limited(65_536, 65_536),
        ..StagedHost::default()
    };
    host.write("/proc/thread-self/status", "CapEff:\t0000000000004000\n");
    let finding = memlock(&need(), &host);
    assert_eq!(
        (finding.severity, finding.wanted.as_str()),
        (Severity::Fatal, "512 KiB")
    );
    let modest = Requirements {
        memlock_bytes: 4096,
        ..need()
    };
    host.write("/proc/thread-self/status", "CapEff:\t0\n");
    assert_eq!(memlock(&modest, &host).severity, Severity::Fatal);
}

#[test]
fn descriptors_are_wanted_and_some_are_indispensable() {
    let mut host = StagedHost::default();
    for (soft, severity) in [
        (1023, Severity::Fatal),
        (1024, Severity::Warning),
        (19_999, Severity::Warning),
        (20_000, Severity::Ok),
        (u64::MAX, Severity::Ok),
    ] {
        host.nofile = limited(soft, soft);
        let finding = nofile(&need(), &host);
        assert_eq!(finding.severity, severity, "{soft}");
        assert_eq!(
            finding.remedy.is_empty(),
            severity == Severity::Ok,
            "{soft}"
        );
    }
    host.nofile = limited(256, 256);
    assert!(nofile(&need(), &host).remedy.contains("LimitNOFILE=20000"));
    host.nofile = limited(256, 1 << 20);
    assert!(nofile(&need(), &host).remedy.contains("`ulimit -n 20000`"));
}

#[test]
fn more_shards_than_cpus_are_worth_a_warning() {
    let mut host = StagedHost::default();
    assert_eq!(cpus(&need(), &host).severity, Severity::Ok);
    host.cpus = 3;
    let finding = cpus(&need(), &host);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.remedy.contains("--shards 3"));
}

#[test]
fn rights_are_read_from_the_threads_status() {
    let mut host = StagedHost::default();
    let plain = Rights::of(&host);
    assert!(!plain.filtered && !plain.administers() && !plain.may_lock_memory());
    host.write(
        "/proc/thread-self/status",
        "CapPrm:\t0\nCapEff:\t0000000000200000\nSeccomp:\t2\nSeccomp_filters:\t1\n",
    );
    let rights = Rights::of(&host);
    assert!(rights.filtered && rights.administers() && !rights.may_lock_memory());
}
