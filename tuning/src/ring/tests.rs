//! Who stands between a process and its ring, on a staged machine.

use super::*;
use crate::staged::StagedHost;

fn need() -> Requirements {
    Requirements {
        shards: 2,
        rings: 5,
        memlock_bytes: 4 << 20,
        nofile: 1024,
        nofile_advised: 1024,
        data_dir: "/data".into(),
        block_bytes: 4096,
        sync_scope: None,
    }
}

fn failing(step: RingStep, errno: i32) -> StagedHost {
    StagedHost {
        ring: Err(RingFailure { step, errno }),
        ..StagedHost::default()
    }
}

/// The one finding about a ring that can't be had.
fn only(host: &StagedHost) -> Finding {
    let mut findings = checks(&need(), host);
    assert_eq!(findings.len(), 1);
    let finding = findings.remove(0);
    assert_eq!(finding.severity, Severity::Fatal);
    assert!(!finding.remedy.is_empty());
    finding
}

const FILTERED: &str = "CapEff:\t0\nSeccomp:\t2\n";

#[test]
fn a_sound_kernel_passes() {
    let findings = checks(&need(), &StagedHost::default());
    assert_eq!(findings.len(), 2);
    assert!(
        findings.iter().all(|f| f.severity == Severity::Ok),
        "{findings:?}"
    );
}

#[test]
fn the_sysctl_is_named_with_its_value() {
    let mut host = failing(RingStep::Setup, libc::EPERM);
    host.write("/proc/sys/kernel/io_uring_disabled", "2\n");
    // A filter may be there as well; the sysctl alone suffices to refuse.
    host.write("/proc/thread-self/status", FILTERED);
    let finding = only(&host);
    assert!(
        finding.current.contains("kernel.io_uring_disabled is 2"),
        "{finding}"
    );
    assert!(
        finding.remedy.contains("kernel.io_uring_disabled=0"),
        "{finding}"
    );
    host.write("/proc/sys/kernel/io_uring_disabled", "1\n");
    host.write("/proc/sys/kernel/io_uring_group", "998\n");
    let finding = only(&host);
    assert!(
        finding.current.contains("kernel.io_uring_group (998)"),
        "{finding}"
    );
    assert!(
        finding.remedy.contains("kernel.io_uring_group=GID"),
        "{finding}"
    );
}

#[test]
fn a_sysctl_that_spares_the_privileged_is_not_blamed_for_them() {
    let mut host = failing(RingStep::Setup, libc::EPERM);
    host.write("/proc/sys/kernel/io_uring_disabled", "1\n");
    host.write(
        "/proc/thread-self/status",
        "CapEff:\t0000000000200000\nSeccomp:\t2\n",
    );
    assert!(only(&host).current.contains("seccomp"), "{}", only(&host));
}

#[test]
fn a_filter_is_named_whatever_it_answers_and_wherever() {
    for (step, errno) in [
        (RingStep::Setup, libc::EPERM),
        (RingStep::Setup, libc::EACCES),
        (RingStep::Setup, libc::ENOSYS),
        (RingStep::Register, libc::EPERM),
        (RingStep::Enter, libc::EPERM),
    ] {
        let mut host = failing(step, errno);
        host.write("/proc/thread-self/status", FILTERED);
        let finding = only(&host);
        assert!(finding.current.contains(step.system_call()), "{finding}");
        assert!(
            finding.current.contains("a seccomp filter is in force"),
            "{finding}"
        );
        assert!(
            finding.remedy.contains("--security-opt seccomp="),
            "{finding}"
        );
    }
}

#[test]
fn a_security_module_is_suspected_when_nothing_else_forbids() {
    assert!(
        only(&failing(RingStep::Setup, libc::EPERM))
            .current
            .contains("security module")
    );
    assert!(
        only(&failing(RingStep::Setup, libc::EACCES))
            .current
            .contains("security module")
    );
}

#[test]
fn a_kernel_without_io_uring_is_told_from_one_that_hides_it() {
    let mut host = failing(RingStep::Setup, libc::ENOSYS);
    assert!(
        only(&host).current.contains("compiled out"),
        "{}",
        only(&host)
    );
    host.write("/proc/sys/kernel/osrelease", "4.18.0-553.el8\n");
    let finding = only(&host);
    assert!(
        finding.current.contains("Linux 4.18.0-553.el8 is older"),
        "{finding}"
    );
    assert_eq!(finding.remedy, "boot a kernel of 6.1 or later");
}

#[test]
fn an_old_kernel_is_told_what_it_lacks() {
    let mut host = StagedHost::default();
    host.write("/proc/sys/kernel/osrelease", "5.15.0-91-generic\n");
    let features = host.ring.as_mut().unwrap();
    features.defer_taskrun = false;
    features.receive_multishot = false;
    features.no_iowait = false;
    features.missing_operations = vec!["SENDMSG"];
    let findings = checks(&need(), &host);
    assert_eq!(findings[0].severity, Severity::Fatal);
    assert_eq!(
        findings[0].current,
        "Linux 5.15.0-91-generic without IORING_SETUP_DEFER_TASKRUN, multishot receive, SENDMSG"
    );
    assert_eq!(findings[0].remedy, "boot a kernel of 6.1 or later");
    assert_eq!(findings[1].severity, Severity::Info);
    assert!(findings[1].current.contains("needs Linux 6.15"));
}

#[test]
fn a_new_kernel_that_lacks_something_is_a_sandbox() {
    let mut host = StagedHost::default();
    host.ring.as_mut().unwrap().buffer_ring = false;
    assert!(checks(&need(), &host)[0].remedy.contains("sandbox"));
}

#[test]
fn want_of_memory_blames_the_limit_where_there_is_one() {
    let mut host = failing(RingStep::Setup, libc::ENOMEM);
    let finding = only(&host);
    assert_eq!(finding.check, "memlock");
    assert!(finding.current.contains("a limit of 8 MiB"), "{finding}");
    assert_eq!(finding.wanted, "4 MiB for 5 rings");
    // The limit was large enough for this process alone: others of this user take of it.
    assert!(
        finding.remedy.contains("LimitMEMLOCK=12582912"),
        "{finding}"
    );
    host.write("/proc/thread-self/status", "CapEff:\t0000000000004000\n");
    assert!(
        only(&host).remedy.starts_with("free memory"),
        "{}",
        only(&host)
    );
}

#[test]
fn a_failure_of_a_real_ring_is_explained_like_that_of_the_small_one() {
    let error = io::Error::from_raw_os_error(libc::ENOMEM);
    let host = StagedHost::default();
    let finding = explain_ring_failure(RingStep::Register, &error, &need(), &host);
    assert_eq!(finding.check, "memlock");
    assert!(
        finding.current.starts_with("io_uring_register fails"),
        "{finding}"
    );
}

#[test]
fn releases_are_parsed_up_to_their_second_number() {
    assert_eq!(kernel("6.1.0-18-amd64"), Some((6, 1)));
    assert_eq!(kernel("6.18"), Some((6, 18)));
    assert_eq!(kernel("5.10-rc3"), Some((5, 10)));
    assert_eq!(kernel("of unknown version"), None);
}
