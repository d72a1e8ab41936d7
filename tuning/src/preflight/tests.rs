//! The list as a whole, and the verdicts about the data directory, on a staged machine.

use super::*;
use crate::host::{DirectProbe, RingFailure, RingStep};
use crate::staged::StagedHost;

fn need() -> Requirements {
    Requirements {
        shards: 2,
        rings: 4,
        memlock_bytes: 4 << 20,
        nofile: 1024,
        nofile_advised: 4096,
        data_dir: "/data".into(),
        block_bytes: 4096,
        sync_scope: None,
    }
}

fn judged(host: &StagedHost, check: &str) -> Finding {
    preflight(&need(), host)
        .check(check)
        .cloned()
        .unwrap_or_else(|| panic!("no {check}"))
}

#[test]
fn a_sound_machine_has_nothing_to_remedy() {
    let report = preflight(&need(), &StagedHost::default());
    assert_eq!(report.worst(), Severity::Info, "{report:?}");
    assert!(
        report.findings.iter().all(|f| f.remedy.is_empty()),
        "{report:?}"
    );
    let names: Vec<_> = report.findings.iter().map(|f| f.check).collect();
    assert_eq!(
        names,
        [
            "io_uring",
            "io_uring_features",
            "memlock",
            "nofile",
            "cpus",
            "direct_io",
            "journal",
            "sync_scope"
        ]
    );
    let scope = report.check("sync_scope").unwrap();
    assert_eq!(scope.current, "auto picks device");
    assert!(scope.why.contains("journalled ext4"), "{scope}");
}

#[test]
fn every_fault_is_reported_at_once() {
    let mut host = StagedHost {
        ring: Err(RingFailure {
            step: RingStep::Setup,
            errno: libc::ENOSYS,
        }),
        directory: Err(libc::EACCES),
        cpus: 1,
        ..StagedHost::default()
    };
    host.memlock.soft = 0;
    host.nofile.soft = 64;
    let report = preflight(&need(), &host);
    let fatal: Vec<_> = report.at_least(Severity::Fatal).map(|f| f.check).collect();
    assert_eq!(fatal, ["io_uring", "memlock", "nofile", "data_dir"]);
    assert!(report.storage.is_none());
    for finding in report.at_least(Severity::Warning) {
        assert!(!finding.remedy.is_empty(), "{finding}");
        assert_ne!(finding.current, finding.wanted, "{finding}");
    }
}

#[test]
fn a_ring_refused_for_its_memory_names_the_limit_once() {
    let host = StagedHost {
        ring: Err(RingFailure {
            step: RingStep::Setup,
            errno: libc::ENOMEM,
        }),
        ..StagedHost::default()
    };
    let report = preflight(&need(), &host);
    assert_eq!(
        report
            .findings
            .iter()
            .filter(|f| f.check == "memlock")
            .count(),
        1
    );
    assert_eq!(report.worst(), Severity::Fatal);
}

#[test]
fn a_directory_is_refused_with_the_remedy_that_fits_the_cause() {
    for (errno, remedy) in [
        (libc::ENOENT, "`mkdir -p /data`"),
        (libc::EACCES, "chown"),
        (libc::EROFS, "mount"),
        (libc::ENOSPC, "inodes"),
        (libc::EIO, "dmesg"),
    ] {
        let host = StagedHost {
            directory: Err(errno),
            ..StagedHost::default()
        };
        let finding = judged(&host, "data_dir");
        assert_eq!(finding.severity, Severity::Fatal);
        assert!(finding.remedy.contains(remedy), "{finding}");
    }
}

#[test]
fn a_file_system_without_direct_io_is_fatal() {
    let mut host = StagedHost::default();
    host.directory.as_mut().unwrap().direct = DirectProbe::Stated {
        memory: 0,
        offset: 0,
    };
    assert_eq!(judged(&host, "direct_io").severity, Severity::Fatal);
    host.write(
        "/proc/self/mountinfo",
        "1 1 259:1 / / rw - tmpfs tmpfs rw\n",
    );
    host.directory.as_mut().unwrap().direct = DirectProbe::Unstated { opens: true };
    let finding = judged(&host, "direct_io");
    assert_eq!(finding.severity, Severity::Fatal);
    assert!(
        finding.current.starts_with("tmpfs has no direct I/O"),
        "{finding}"
    );
    assert!(finding.remedy.contains("in memory"), "{finding}");
}

#[test]
fn journalled_data_is_refused_with_its_own_remedy() {
    let mut host = StagedHost::default();
    host.write("/proc/fs/ext4/nvme0n1p1/options", "data=journal\n");
    host.directory.as_mut().unwrap().direct = DirectProbe::Stated {
        memory: 0,
        offset: 0,
    };
    let report = preflight(&need(), &host);
    assert!(
        report
            .check("direct_io")
            .unwrap()
            .remedy
            .contains("without data=journal")
    );
    assert!(report.check("journal").is_none());
}

#[test]
fn an_alignment_beyond_the_logs_blocks_is_fatal() {
    let mut host = StagedHost::default();
    for (memory, offset, severity) in [
        (4, 4096, Severity::Ok),
        (512, 8192, Severity::Fatal),
        (8192, 512, Severity::Fatal),
    ] {
        host.directory.as_mut().unwrap().direct = DirectProbe::Stated { memory, offset };
        assert_eq!(
            judged(&host, "direct_io").severity,
            severity,
            "{memory} {offset}"
        );
    }
}

#[test]
fn unstated_direct_io_is_worth_a_warning() {
    let mut host = StagedHost::default();
    host.directory.as_mut().unwrap().direct = DirectProbe::Unstated { opens: true };
    assert_eq!(judged(&host, "direct_io").severity, Severity::Warning);
}

#[test]
fn a_missing_journal_is_worth_a_warning() {
    let mut host = StagedHost::default();
    host.write("/sys/fs/ext4/nvme0n1p1/journal_task", "<none>\n");
    let finding = judged(&host, "journal");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.remedy.contains("has_journal"), "{finding}");
    assert_eq!(judged(&host, "sync_scope").current, "auto picks file");
}

#[test]
fn barriers_that_are_off_are_worth_a_warning() {
    let mut host = StagedHost::default();
    host.write(
        "/proc/self/mountinfo",
        "1 1 259:1 / / rw - ext4 /dev/x rw,nobarrier\n",
    );
    assert_eq!(judged(&host, "barriers").severity, Severity::Warning);
    assert_eq!(judged(&host, "sync_scope").current, "auto picks file");
}

#[test]
fn a_configured_scope_is_followed_and_judged() {
    let scope = |chosen, journal_task: &str| {
        let mut host = StagedHost::default();
        host.write("/sys/fs/ext4/nvme0n1p1/journal_task", journal_task);
        let need = Requirements {
            sync_scope: Some(chosen),
            ..need()
        };
        preflight(&need, &host)
            .check("sync_scope")
            .unwrap()
            .severity
    };
    assert_eq!(scope(SyncScope::Device, "4\n"), Severity::Info);
    assert_eq!(scope(SyncScope::File, "4\n"), Severity::Info);
    assert_eq!(scope(SyncScope::File, "<none>\n"), Severity::Info);
    assert_eq!(scope(SyncScope::Device, "<none>\n"), Severity::Warning);
}

#[test]
fn the_report_is_json_for_programs() {
    let json = preflight(&need(), &StagedHost::default()).to_json();
    assert_eq!(json["findings"][0]["check"], "io_uring");
    assert_eq!(json["storage"]["sync_scope"], "device");
    assert_eq!(json["storage"]["file_system"]["name"], "ext4");
    assert_eq!(json["storage"]["file_system"]["journal"], "ordered");
}
