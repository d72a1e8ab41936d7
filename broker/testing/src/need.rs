//! What a test asks of the machine, and how it says that it was skipped: aloud, and as a failure
//! where the whole suite is demanded.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Something that not every machine or user has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// The right to mount file systems (in practice root, outside a user namespace).
    Mounts,
    /// `/dev/fuse`, for [`PowerCutDisk`](crate::PowerCutDisk).
    Fuse,
    /// Loop devices.
    Loop,
    /// `mkfs.ext4`, from e2fsprogs.
    MkfsExt4,
    /// `mkfs.xfs`, from xfsprogs.
    MkfsXfs,
    /// Network and mount namespaces, by `unshare`.
    Namespaces,
    /// `systemd-analyze`, from systemd.
    SystemdAnalyze,
    /// `python3`, from Python 3.9 on.
    Python3,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Mounts => may_mount(),
            Self::Fuse => opens("/dev/fuse"),
            Self::Loop => opens("/dev/loop-control"),
            Self::MkfsExt4 => find_tool("mkfs.ext4").is_some(),
            Self::MkfsXfs => find_tool("mkfs.xfs").is_some(),
            Self::Namespaces => may_unshare(),
            Self::SystemdAnalyze => find_tool("systemd-analyze").is_some(),
            Self::Python3 => find_tool("python3").is_some(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounts => "the right to mount (root)",
            Self::Fuse => "/dev/fuse",
            Self::Loop => "loop devices",
            Self::MkfsExt4 => "mkfs.ext4",
            Self::MkfsXfs => "mkfs.xfs",
            Self::Namespaces => "network and mount namespaces (root, unshare)",
            Self::SystemdAnalyze => "systemd-analyze",
            Self::Python3 => "python3",
        })
    }
}

/// Whether this machine has everything in `needs`. If not, says `skipped: needs …` on standard
/// error, past the test harness's capture, and the test returns:
///
/// ```
/// # use ringway_testing::{Need, require};
/// if !require(&[Need::Mounts, Need::Loop]) {
///     return;
/// }
/// ```
///
/// # Panics
/// When something is missing and `RINGWAY_TEST_REQUIRE=all` is set: there a skip is a failure.
#[must_use = "the test must return when this is false"]
pub fn require(needs: &[Need]) -> bool {
    let unmet: Vec<String> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(Need::to_string)
        .collect();
    if unmet.is_empty() {
        return true;
    }
    let thread = std::thread::current();
    let line = format!(
        "skipped: needs {} ({})",
        unmet.join(", "),
        thread.name().unwrap_or("?")
    );
    let demanded = std::env::var_os("RINGWAY_TEST_REQUIRE").is_some_and(|value| value == "all");
    assert!(
        !demanded,
        "{line}, and RINGWAY_TEST_REQUIRE=all allows no skips"
    );
    // Nothing to do about a closed standard error; the skip itself still holds.
    let _ = writeln!(std::io::stderr(), "{line}");
    false
}

/// Where a system tool is; an ordinary user's PATH lacks the directories of most of them.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|tool| tool.is_file())
}

fn opens(device: &str) -> bool {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(device))
        .is_ok()
}

/// CAP_SYS_ADMIN in the first user namespace: elsewhere the kernel refuses to mount block devices
/// whatever the capabilities say.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    capabilities.is_some_and(|bits| bits & CAP_SYS_ADMIN != 0) && ids == ["0", "0", "4294967295"]
}

fn may_unshare() -> bool {
    let Some(unshare) = find_tool("unshare") else {
        return false;
    };
    let mut command = Command::new(unshare);
    command.args(["--net", "--mount", "true"]);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
