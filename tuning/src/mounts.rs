//! Reads `/proc/self/mountinfo`, whose format is in `proc_pid_mountinfo(5)`: which file system a
//! device number belongs to, and with which options it is mounted.

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) device: (u32, u32),
    pub(crate) file_system: String,
    /// Options of the file system itself, not of this mount point.
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// Whether `name` is set, with or without a value.
    pub(crate) fn has_option(&self, name: &str) -> bool {
        self.options
            .iter()
            .any(|o| o.split('=').next() == Some(name))
    }
}

/// The first mount of `device`; options of the file system are the same on all its mounts.
/// Lines that don't parse are skipped: the format may grow.
pub(crate) fn find_mount(mountinfo: &str, device: (u32, u32)) -> Option<Mount> {
    mountinfo
        .lines()
        .filter_map(parse_mount)
        .find(|m| m.device == device)
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`: the fields
/// after the sixth are optional up to a lone hyphen.
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let (major, minor) = left.split(' ').nth(2)?.split_once(':')?;
    let mut right = right.split(' ');
    let file_system = right.next()?.to_owned();
    let options = right.nth(1).unwrap_or_default();
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        file_system,
        options: options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard,data=journal
garbage
44 27 7:2 / /srv/with\\040space rw - xfs /dev/loop2 rw,inode64,logdev=/dev/sdb1,noquota
";

    #[test]
    fn a_device_is_found_with_its_own_options() {
        let root = find_mount(MOUNTINFO, (254, 0)).unwrap();
        assert_eq!(root.file_system, "ext4");
        assert!(root.has_option("discard") && root.has_option("data"));
        assert!(
            !root.has_option("relatime"),
            "that one belongs to the mount point"
        );
        let xfs = find_mount(MOUNTINFO, (7, 2)).unwrap();
        assert!(xfs.has_option("logdev") && !xfs.has_option("rtdev") && !xfs.has_option("log"));
    }

    #[test]
    fn an_unknown_device_or_a_broken_line_is_no_mount() {
        assert_eq!(find_mount(MOUNTINFO, (7, 3)), None);
        for line in [
            "",
            " - ",
            "1 2 3 - x",
            "1 2 a:b - ext4 d rw",
            "1 2 9:9 / / rw ext4 d rw",
        ] {
            assert_eq!(parse_mount(line), None, "{line:?}");
        }
    }
}
