//! Every way in which a file system does or does not bear a shared flush, on a staged machine.

use super::*;
use crate::staged::StagedHost;

fn examine(host: &StagedHost) -> Storage {
    storage(Path::new("/data"), host).unwrap()
}

/// The data directory's mount, with another file system or other options.
fn mounted(kind: &str, options: &str) -> StagedHost {
    let mut host = StagedHost::default();
    let line = format!("27 1 259:1 / / rw,relatime - {kind} /dev/nvme0n1p1 {options}\n");
    host.write("/proc/self/mountinfo", &line);
    host
}

fn direct(host: &mut StagedHost, direct: DirectProbe) {
    host.directory.as_mut().unwrap().direct = direct;
}

#[test]
fn journalled_ext4_and_plain_xfs_share_a_flush() {
    let ext4 = examine(&StagedHost::default());
    assert_eq!(
        ext4.file_system,
        FileSystem::Ext4 {
            journal: Journal::Ordered
        }
    );
    assert_eq!(
        ext4.device,
        Device {
            major: 259,
            minor: 1
        }
    );
    assert_eq!(ext4.sync_scope, SyncScope::Device, "{}", ext4.reason);
    let xfs = examine(&mounted("xfs", "rw,inode64,logbufs=8,logbsize=32k,noquota"));
    assert_eq!(
        xfs.file_system,
        FileSystem::Xfs {
            external_log: false,
            realtime: false
        }
    );
    assert_eq!(xfs.sync_scope, SyncScope::Device, "{}", xfs.reason);
}

#[test]
fn the_journal_is_recognised_in_every_mode() {
    let options = "/proc/fs/ext4/nvme0n1p1/options";
    for (text, journal, scope) in [
        ("rw\ndata=ordered\n", Journal::Ordered, SyncScope::Device),
        (
            "rw\ndata=writeback\n",
            Journal::Writeback,
            SyncScope::Device,
        ),
        ("rw\ndata=journal\n", Journal::Data, SyncScope::File),
        (
            "rw\ndata=of a later kernel\n",
            Journal::Unknown,
            SyncScope::File,
        ),
        ("rw\nbarrier\n", Journal::None, SyncScope::File),
    ] {
        let mut host = StagedHost::default();
        host.write(options, text);
        let found = examine(&host);
        assert_eq!(found.file_system, FileSystem::Ext4 { journal }, "{text:?}");
        assert_eq!(found.sync_scope, scope, "{text:?}: {}", found.reason);
    }
}

#[test]
fn an_ext4_without_a_journal_is_known_by_its_missing_task() {
    let mut host = StagedHost::default();
    host.write("/sys/fs/ext4/nvme0n1p1/journal_task", "<none>\n");
    let found = examine(&host);
    assert_eq!(
        found.file_system,
        FileSystem::Ext4 {
            journal: Journal::None
        }
    );
    assert_eq!(found.sync_scope, SyncScope::File);
}

#[test]
fn a_journal_on_another_device_is_not_trusted() {
    let mut host = StagedHost::default();
    host.remove("/proc/fs/jbd2");
    for name in ["sdb1", "nvme0n1p12-8", "nvme0n1p1-x", "nvme0n1p1-"] {
        host.write(&format!("/proc/fs/jbd2/{name}/info"), "");
    }
    assert_eq!(
        examine(&host).file_system,
        FileSystem::Ext4 {
            journal: Journal::External
        }
    );
    assert_eq!(examine(&host).sync_scope, SyncScope::File);
}

#[test]
fn what_cannot_be_read_is_not_trusted() {
    for hidden in [
        "/sys/dev/block/259:1/uevent",
        "/proc/fs/ext4",
        "/proc/fs/jbd2",
        "/proc/self/mountinfo",
    ] {
        let mut host = StagedHost::default();
        host.remove(hidden);
        let found = examine(&host);
        assert_eq!(
            found.sync_scope,
            SyncScope::File,
            "without {hidden}: {}",
            found.reason
        );
    }
}

#[test]
fn a_device_below_a_directory_keeps_its_name() {
    let mut host = StagedHost::default();
    host.remove("/sys");
    host.remove("/proc/fs");
    host.write("/sys/dev/block/259:1/uevent", "DEVNAME=cciss/c0d0p1\n");
    host.write("/sys/fs/ext4/cciss!c0d0p1/journal_task", "5\n");
    host.write("/proc/fs/ext4/cciss!c0d0p1/options", "data=ordered\n");
    host.write("/proc/fs/jbd2/cciss!c0d0p1-8/info", "");
    assert_eq!(
        examine(&host).file_system,
        FileSystem::Ext4 {
            journal: Journal::Ordered
        }
    );
}

#[test]
fn an_xfs_that_is_spread_over_devices_syncs_each_file() {
    for (option, external_log, realtime) in [
        ("logdev=/dev/sdb1", true, false),
        ("rtdev=/dev/sdc", false, true),
    ] {
        let found = examine(&mounted("xfs", &format!("rw,{option},noquota")));
        assert_eq!(
            found.file_system,
            FileSystem::Xfs {
                external_log,
                realtime
            }
        );
        assert_eq!(found.sync_scope, SyncScope::File, "{option}");
    }
}

#[test]
fn without_barriers_nothing_is_shared() {
    for (kind, option) in [
        ("ext4", "nobarrier"),
        ("ext4", "barrier=0"),
        ("xfs", "nobarrier"),
    ] {
        let found = examine(&mounted(kind, &format!("rw,{option}")));
        assert!(!found.barriers, "{kind} {option}");
        assert_eq!(found.sync_scope, SyncScope::File, "{kind} {option}");
    }
    assert!(examine(&mounted("ext4", "rw,barrier=1")).barriers);
}

#[test]
fn direct_io_that_the_kernel_does_not_state_is_taken_but_not_trusted() {
    let mut host = StagedHost::default();
    direct(&mut host, DirectProbe::Unstated { opens: true });
    let found = examine(&host);
    let assumed = DirectIo {
        memory_align: 4096,
        offset_align: 4096,
        stated: false,
    };
    assert_eq!(found.direct_io, Some(assumed));
    assert_eq!(found.sync_scope, SyncScope::File);
}

#[test]
fn direct_io_that_is_refused_is_none() {
    for refused in [
        DirectProbe::Stated {
            memory: 0,
            offset: 0,
        },
        DirectProbe::Unstated { opens: false },
    ] {
        let mut host = StagedHost::default();
        direct(&mut host, refused);
        assert_eq!(examine(&host).direct_io, None);
        assert_eq!(examine(&host).sync_scope, SyncScope::File);
    }
}

#[test]
fn a_file_system_in_memory_ignores_the_flag_that_it_accepts() {
    let mut host = mounted("tmpfs", "rw");
    direct(&mut host, DirectProbe::Unstated { opens: true });
    let found = examine(&host);
    assert_eq!(
        found.file_system,
        FileSystem::Other {
            kind: "tmpfs".into(),
            memory: true
        }
    );
    assert_eq!(found.direct_io, None);
}

#[test]
fn a_file_system_without_a_mount_line_is_named_by_its_magic() {
    let mut host = StagedHost::default();
    for (magic, name) in [(0x9123_683E, "btrfs"), (0xABCD, "file system 0xabcd")] {
        let probe = host.directory.as_mut().unwrap();
        (probe.device, probe.magic) = ((0, 44), magic);
        let found = examine(&host);
        assert_eq!(found.file_system.to_string(), name);
        assert_eq!(found.sync_scope, SyncScope::File);
    }
}

#[test]
fn a_directory_that_takes_no_file_is_named() {
    let host = StagedHost {
        directory: Err(libc::ENOENT),
        ..StagedHost::default()
    };
    let error = storage(Path::new("/nowhere"), &host).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot create a file in /nowhere: No such file")
    );
}
