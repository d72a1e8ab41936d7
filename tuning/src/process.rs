//! Checks of the process and its limits: locked memory, descriptors, CPUs.

use std::path::Path;

use crate::finding::{Finding, Severity, bytes_text};
use crate::host::{Host, Limit, LimitKind};
use crate::preflight::Requirements;

/// Bit numbers in the capability masks, from `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;

/// What `/proc/thread-self/status` says about the calling thread's rights. Per thread, because
/// capabilities and seccomp filters are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rights {
    capabilities: u64,
    /// A seccomp filter is in force.
    pub(crate) filtered: bool,
}

impl Rights {
    pub(crate) fn of(host: &dyn Host) -> Self {
        let status = host
            .read(Path::new("/proc/thread-self/status"))
            .unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        Self {
            capabilities: field("CapEff")
                .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
                .unwrap_or(0),
            filtered: field("Seccomp").is_some_and(|mode| mode.trim() == "2"),
        }
    }

    pub(crate) fn may_lock_memory(self) -> bool {
        self.capabilities & (1 << CAP_IPC_LOCK) != 0
    }

    pub(crate) fn administers(self) -> bool {
        self.capabilities & (1 << CAP_SYS_ADMIN) != 0
    }
}

/// The limit below which the housekeeper's executor refuses to start, in bytes: glommio 0.9 looks
/// at the limit alone, not at the right to exceed it.
const EXECUTOR_MEMLOCK_BYTES: u64 = 512 << 10;

pub(crate) fn memlock(need: &Requirements, host: &dyn Host) -> Finding {
    let check = "memlock";
    let why = "rings and their buffers are locked memory, counted over all processes of this user";
    let limit = match host.limit(LimitKind::Memlock) {
        Ok(limit) => limit,
        Err(error) => return unreadable(check, &error),
    };
    let advised = need.memlock_advised_bytes();
    if Rights::of(host).may_lock_memory() {
        if limit.soft >= EXECUTOR_MEMLOCK_BYTES {
            return Finding::fine(check, "no limit (CAP_IPC_LOCK)", why);
        }
        return Finding {
            check,
            severity: Severity::Fatal,
            current: limit_text(limit.soft, bytes_text),
            wanted: bytes_text(EXECUTOR_MEMLOCK_BYTES),
            why: "the housekeeper's executor insists on it, even with CAP_IPC_LOCK".to_owned(),
            remedy: memlock_remedy(limit, advised),
        };
    }
    let wanted_bytes = need.memlock_bytes.max(EXECUTOR_MEMLOCK_BYTES);
    let sufficient = limit.soft >= wanted_bytes;
    Finding {
        check,
        severity: if sufficient {
            Severity::Ok
        } else {
            Severity::Fatal
        },
        current: limit_text(limit.soft, bytes_text),
        wanted: format!("{} for {} rings", bytes_text(wanted_bytes), need.rings),
        why: why.to_owned(),
        remedy: if sufficient {
            String::new()
        } else {
            memlock_remedy(limit, advised)
        },
    }
}

/// How to get `advised` bytes of locked memory.
pub(crate) fn memlock_remedy(limit: Limit, advised: u64) -> String {
    let kib = advised.div_ceil(1 << 10);
    if limit.hard >= advised {
        return format!("`ulimit -l {kib}` in the shell that starts the broker");
    }
    format!(
        "LimitMEMLOCK={advised} in the systemd unit; or `--ulimit memlock={advised}:{advised}` for \
         a container; or `* - memlock {kib}` in /etc/security/limits.conf and a new login; or \
         fewer shards"
    )
}

pub(crate) fn nofile(need: &Requirements, host: &dyn Host) -> Finding {
    let check = "nofile";
    let limit = match host.limit(LimitKind::Nofile) {
        Ok(limit) => limit,
        Err(error) => return unreadable(check, &error),
    };
    let severity = match limit.soft {
        soft if soft < need.nofile => Severity::Fatal,
        soft if soft < need.nofile_advised => Severity::Warning,
        _ => Severity::Ok,
    };
    let wanted = need.nofile.max(need.nofile_advised);
    let text = |count: u64| format!("{count} descriptors");
    Finding {
        check,
        severity,
        current: limit_text(limit.soft, text),
        wanted: match severity {
            Severity::Fatal => format!("at least {}, better {wanted}", need.nofile),
            _ => text(wanted),
        },
        why: "every connection and every open segment takes a descriptor".to_owned(),
        remedy: match severity {
            Severity::Ok => String::new(),
            _ if limit.hard >= wanted => {
                format!("`ulimit -n {wanted}` in the shell that starts the broker")
            }
            _ => format!(
                "LimitNOFILE={wanted} in the systemd unit; or `--ulimit nofile={wanted}:{wanted}` \
                 for a container; or `* - nofile {wanted}` in /etc/security/limits.conf and a new \
                 login"
            ),
        },
    }
}

pub(crate) fn cpus(need: &Requirements, host: &dyn Host) -> Finding {
    let check = "cpus";
    let cpus = host.cpus();
    let current = format!("{} shards on {cpus} CPUs", need.shards);
    if need.shards as usize <= cpus {
        return Finding::fine(check, current, "");
    }
    Finding {
        check,
        severity: Severity::Warning,
        current,
        wanted: format!("at most {cpus} shards"),
        why: "shards that share a CPU wait for each other, and latency shows it".to_owned(),
        remedy: format!("start with `--shards {cpus}`, or allow the process more CPUs"),
    }
}

fn limit_text(value: u64, text: impl Fn(u64) -> String) -> String {
    if value == u64::MAX {
        "unlimited".to_owned()
    } else {
        text(value)
    }
}

/// A limit that the kernel doesn't tell is no reason not to start: what needs it fails by name.
fn unreadable(check: &'static str, error: &std::io::Error) -> Finding {
    Finding {
        check,
        severity: Severity::Warning,
        current: format!("unknown ({error})"),
        wanted: "a limit that can be read".to_owned(),
        why: "a security module or a seccomp filter refuses getrlimit".to_owned(),
        remedy: "allow getrlimit and prlimit64 to the broker".to_owned(),
    }
}

#[cfg(test)]
mod tests;
