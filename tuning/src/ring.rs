//! Checks of io_uring: whether a ring can be had at all, who stands in the way if not, and
//! whether this kernel has what the shards rely on.

use std::io;
use std::path::Path;

use crate::finding::{Finding, Severity, bytes_text};
use crate::host::{Host, LimitKind, RingFailure, RingFeatures, RingStep};
use crate::preflight::Requirements;
use crate::process::Rights;

/// The oldest kernel with everything that the shards rely on (`IORING_SETUP_DEFER_TASKRUN`).
const KERNEL_NEEDED: (u32, u32) = (6, 1);
/// The first kernel with io_uring at all.
const KERNEL_FIRST: (u32, u32) = (5, 1);

const WHY: &str = "shards do all their network and disk work through io_uring";

/// The memory that one ring locks, in bytes, for `submissions` and `completions` entries (powers
/// of two, as the kernel rounds them; it makes twice as many completions unless told otherwise).
/// Rings count as locked since Linux 6.14, as they did before 5.12. Registered buffers and buffer
/// rings come on top, with their own sizes in whole pages.
pub fn ring_memlock_bytes(submissions: u32, completions: u32) -> u64 {
    /// Heads, tails and flags before the entries: 64 to 320 bytes, by kernel.
    const HEADER_BYTES: u64 = 320;
    const COMPLETION_BYTES: u64 = 16;
    const SUBMISSION_BYTES: u64 = 64;
    /// The entry of a submission in the index array.
    const INDEX_BYTES: u64 = 4;
    let (submissions, completions) = (u64::from(submissions), u64::from(completions));
    let rings = HEADER_BYTES + completions * COMPLETION_BYTES + submissions * INDEX_BYTES;
    let page = crate::sys::page_bytes();
    rings.next_multiple_of(page) + (submissions * SUBMISSION_BYTES).next_multiple_of(page)
}

/// The checks of io_uring: one finding for the ring, and where there is one, one more for what
/// is optional.
pub(crate) fn checks(need: &Requirements, host: &dyn Host) -> Vec<Finding> {
    match host.probe_ring() {
        Ok(features) => vec![required(&features, host), optional(&features)],
        Err(failure) => vec![explain(failure, need, host)],
    }
}

/// Explains why a real ring could not be had although the pre-flight's small one could: same
/// diagnosis, for the error that building a shard's ring or registering its buffers returned.
pub fn explain_ring_failure(
    step: RingStep,
    error: &io::Error,
    need: &Requirements,
    host: &dyn Host,
) -> Finding {
    explain(RingFailure::new(step, error), need, host)
}

fn required(features: &RingFeatures, host: &dyn Host) -> Finding {
    let mut missing = Vec::new();
    for (present, name) in [
        (features.defer_taskrun, "IORING_SETUP_DEFER_TASKRUN"),
        (features.buffer_ring, "provided buffer rings"),
        (features.receive_multishot, "multishot receive"),
        (features.msg_ring, "MSG_RING"),
    ] {
        if !present {
            missing.push(name);
        }
    }
    missing.extend(&features.missing_operations);
    let release = release(host);
    if missing.is_empty() {
        return Finding::fine("io_uring", format!("works (Linux {release})"), "");
    }
    let remedy = match kernel(&release) {
        Some(version) if version >= KERNEL_NEEDED => {
            "run outside the sandbox that emulates or restricts io_uring".to_owned()
        }
        _ => upgrade_remedy(),
    };
    Finding {
        check: "io_uring",
        severity: Severity::Fatal,
        current: format!("Linux {release} without {}", missing.join(", ")),
        wanted: needed_text(),
        why: WHY.to_owned(),
        remedy,
    }
}

fn optional(features: &RingFeatures) -> Finding {
    let mut losses = Vec::new();
    if !features.no_iowait {
        losses.push("an idle shard is accounted as waiting for a disk (needs Linux 6.15)");
    }
    if !features.send_zero_copy {
        losses.push("large replies are copied (zero-copy send needs Linux 6.0)");
    }
    if losses.is_empty() {
        return Finding::fine("io_uring_features", "all", "");
    }
    Finding {
        check: "io_uring_features",
        severity: Severity::Info,
        current: losses.join("; "),
        wanted: "all features".to_owned(),
        why: "the broker runs without them".to_owned(),
        remedy: "a newer kernel, at the next occasion".to_owned(),
    }
}

/// Names who refused, from the error number and what the kernel tells about this process.
fn explain(failure: RingFailure, need: &Requirements, host: &dyn Host) -> Finding {
    let rights = Rights::of(host);
    let call = failure.step.system_call();
    let text = io::Error::from_raw_os_error(failure.errno);
    let (cause, remedy) = match failure.errno {
        libc::EPERM if failure.step == RingStep::Setup => refused(rights, host),
        libc::EPERM | libc::EACCES => filter_or_module(rights),
        libc::ENOSYS => absent(rights, host),
        libc::ENOMEM => return too_little_memory(call, need, rights, host),
        libc::EMFILE => (
            "no descriptor is left".to_owned(),
            "raise the limit of open files (`ulimit -n`, LimitNOFILE=)".to_owned(),
        ),
        _ => (
            "an unexpected answer".to_owned(),
            "see dmesg; try a newer kernel".to_owned(),
        ),
    };
    Finding {
        check: "io_uring",
        severity: Severity::Fatal,
        current: format!("{call} fails with \"{text}\": {cause}"),
        wanted: needed_text(),
        why: WHY.to_owned(),
        remedy,
    }
}

/// EPERM at setup: the sysctl refuses, or else a filter or security module.
fn refused(rights: Rights, host: &dyn Host) -> (String, String) {
    let disabled = number(host, "/proc/sys/kernel/io_uring_disabled");
    let group = number(host, "/proc/sys/kernel/io_uring_group");
    match disabled {
        Some(2) => (
            "the sysctl kernel.io_uring_disabled is 2, which forbids it to everybody".to_owned(),
            "`sysctl -w kernel.io_uring_disabled=0`, and the same line in /etc/sysctl.d/"
                .to_owned(),
        ),
        Some(1) if !rights.administers() => (
            format!(
                "the sysctl kernel.io_uring_disabled is 1, which reserves it for privileged \
                 processes and the group kernel.io_uring_group ({})",
                group
                    .filter(|id| *id >= 0)
                    .map_or("none set".to_owned(), |id| id.to_string())
            ),
            "put the broker's user into a group and `sysctl -w kernel.io_uring_group=GID`; or \
             `sysctl -w kernel.io_uring_disabled=0`; and the same line in /etc/sysctl.d/"
                .to_owned(),
        ),
        _ => filter_or_module(rights),
    }
}

/// The remedy for a seccomp filter, in the words of those who set one.
const FILTER_REMEDY: &str = "allow io_uring_setup, io_uring_enter and io_uring_register: Docker and \
    Podman `--security-opt seccomp=PROFILE.json` (or `seccomp=unconfined`), Kubernetes a Localhost \
    seccompProfile, systemd `SystemCallFilter=@aio`";

fn filter_or_module(rights: Rights) -> (String, String) {
    if rights.filtered {
        return (
            "a seccomp filter is in force here (container runtimes refuse io_uring by default)"
                .to_owned(),
            FILTER_REMEDY.to_owned(),
        );
    }
    (
        "neither sysctl nor seccomp forbids it, so a security module does".to_owned(),
        "look for the denial in the audit log (`ausearch -m avc`, dmesg) and allow io_uring to the \
         broker in SELinux or AppArmor"
            .to_owned(),
    )
}

fn absent(rights: Rights, host: &dyn Host) -> (String, String) {
    let release = release(host);
    match kernel(&release) {
        Some(version) if version < KERNEL_FIRST => (
            format!("Linux {release} is older than io_uring"),
            upgrade_remedy(),
        ),
        _ if rights.filtered => (
            "a seccomp filter is in force here and pretends that there is no io_uring".to_owned(),
            FILTER_REMEDY.to_owned(),
        ),
        _ => (
            format!("this kernel ({release}) has io_uring compiled out, or is a sandbox's own"),
            format!(
                "a kernel of {}.{} or later with CONFIG_IO_URING=y, not gVisor or the like",
                KERNEL_NEEDED.0, KERNEL_NEEDED.1
            ),
        ),
    }
}

/// ENOMEM: with a limit in force it is nearly always the limit, which counts per user.
fn too_little_memory(call: &str, need: &Requirements, rights: Rights, host: &dyn Host) -> Finding {
    let limit = host
        .limit(LimitKind::Memlock)
        .ok()
        .filter(|_| !rights.may_lock_memory());
    let (current, remedy) = match limit {
        Some(limit) if limit.soft != u64::MAX => {
            // Large enough for this process alone: others of this user take of it.
            let shared = limit.soft >= need.memlock_bytes;
            let advised = match shared {
                true => limit.soft.saturating_add(need.memlock_bytes),
                false => need.memlock_advised_bytes(),
            };
            let raise = crate::process::memlock_remedy(limit, advised);
            (
                format!(
                    "{call} fails for want of memory, with a limit of {} of locked memory for all \
                     processes of this user together",
                    bytes_text(limit.soft)
                ),
                format!("{raise}; or stop other users of io_uring under this account"),
            )
        }
        _ => (
            format!("{call} fails for want of memory"),
            "free memory, or raise the memory limit of the container or unit".to_owned(),
        ),
    };
    Finding {
        check: "memlock",
        severity: Severity::Fatal,
        current,
        wanted: format!(
            "{} for {} rings",
            bytes_text(need.memlock_bytes),
            need.rings
        ),
        why: "rings and their buffers are locked memory".to_owned(),
        remedy,
    }
}

fn needed_text() -> String {
    format!(
        "io_uring of Linux {}.{} or later",
        KERNEL_NEEDED.0, KERNEL_NEEDED.1
    )
}

fn upgrade_remedy() -> String {
    format!(
        "boot a kernel of {}.{} or later",
        KERNEL_NEEDED.0, KERNEL_NEEDED.1
    )
}

fn release(host: &dyn Host) -> String {
    let release = host.read(Path::new("/proc/sys/kernel/osrelease"));
    release.map_or_else(
        |_| "of unknown version".to_owned(),
        |text| text.trim().to_owned(),
    )
}

/// Major and minor number at the start of a release such as `6.1.0-18-amd64`.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn number(host: &dyn Host, path: &str) -> Option<i64> {
    host.read(Path::new(path)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
