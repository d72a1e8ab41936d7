//! Loop file systems: each kind is what it says it is, a crash of the operating system loses what
//! wasn't synced, a small one fills up, and many live side by side.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ringway_testing::{FileSystem, LoopFs, LoopFsOptions, Need, Scratch, require};

fn loop_fs(file_system: FileSystem, megabytes: u64, name: &str) -> Option<(Scratch, LoopFs)> {
    let mkfs = match file_system {
        FileSystem::Xfs => Need::MkfsXfs,
        _ => Need::MkfsExt4,
    };
    if !require(&[Need::Mounts, Need::Loop, mkfs]) {
        return None;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), name).unwrap();
    let fs = LoopFs::new(&scratch, LoopFsOptions::new(file_system, megabytes << 20)).unwrap();
    Some((scratch, fs))
}

fn mount_line(path: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = format!(" {} ", path.display());
    table
        .lines()
        .find(|line| line.contains(&point))
        .map(str::to_owned)
}

#[test]
fn each_kind_is_mounted_as_what_it_is() {
    let kinds = [
        (FileSystem::Ext4, 64, " - ext4 "),
        (FileSystem::Ext4WithoutJournal, 64, " - ext4 "),
        (FileSystem::Xfs, 320, " - xfs "),
    ];
    for (kind, megabytes, shown) in kinds {
        let Some((_scratch, fs)) = loop_fs(kind, megabytes, "kinds") else {
            return;
        };
        let line = mount_line(fs.path()).unwrap();
        assert!(line.contains(shown), "{line}");
        let device = line
            .split(" /dev/")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let journalled = Path::new("/proc/fs/jbd2")
            .join(format!("{device}-8"))
            .exists();
        assert_eq!(journalled, kind == FileSystem::Ext4, "{kind}");
    }
}

#[test]
fn a_crash_loses_what_was_not_synced() {
    for (kind, megabytes) in [(FileSystem::Ext4, 64), (FileSystem::Xfs, 320)] {
        let Some((_scratch, mut fs)) = loop_fs(kind, megabytes, "os-crash") else {
            return;
        };
        let (synced, unsynced) = (fs.path().join("synced"), fs.path().join("unsynced"));
        let mut file = File::create_new(&synced).unwrap();
        file.write_all(b"kept").unwrap();
        file.sync_all().unwrap();
        File::open(fs.path()).unwrap().sync_all().unwrap();
        drop(file);
        std::fs::write(&unsynced, "lost").unwrap();
        fs.crash().unwrap();
        assert_eq!(std::fs::read(&synced).unwrap(), b"kept", "{kind}");
        assert!(
            std::fs::read(&unsynced).unwrap_or_default().is_empty(),
            "{kind}"
        );
        std::fs::write(&unsynced, "kept by a proper unmount").unwrap();
        fs.remount().unwrap();
        assert_eq!(
            std::fs::read(&unsynced).unwrap(),
            b"kept by a proper unmount",
            "{kind}"
        );
    }
}

#[test]
fn a_small_one_fills_up_and_recovers() {
    const ENOSPC: i32 = 28;
    let Some((_scratch, fs)) = loop_fs(FileSystem::Ext4, 16, "full") else {
        return;
    };
    let path = fs.path().join("filler");
    let mut file = File::create_new(&path).unwrap();
    let full = (0..1000)
        .find_map(|_| file.write_all(&[1; 64 << 10]).err())
        .unwrap();
    assert_eq!(full.raw_os_error(), Some(ENOSPC));
    drop(file);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(fs.path().join("after"), [2; 100_000]).unwrap();
}

#[test]
fn a_busy_one_says_who_uses_it() {
    if !require(&[Need::Mounts, Need::Loop, Need::MkfsExt4]) {
        return;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "busy").unwrap();
    let options = LoopFsOptions::new(FileSystem::Ext4, 16 << 20);
    let busy_max = Duration::from_millis(100);
    let mut fs = LoopFs::new(
        &scratch,
        LoopFsOptions {
            busy_max,
            ..options
        },
    )
    .unwrap();
    let file = File::create_new(fs.path().join("open")).unwrap();
    let error = fs.remount().unwrap_err().to_string();
    let pid = format!("({}:", std::process::id());
    assert!(error.contains(&pid) && error.contains("open"), "{error}");
    drop(file);
}

#[test]
fn more_live_side_by_side_than_there_are_devices_at_the_start() {
    if !require(&[Need::Mounts, Need::Loop, Need::MkfsExt4]) {
        return;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "many").unwrap();
    let options = LoopFsOptions::new(FileSystem::Ext4, 16 << 20);
    let all: Vec<LoopFs> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| LoopFs::new(&scratch, options)))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap().unwrap())
            .collect()
    });
    for (index, fs) in all.iter().enumerate() {
        std::fs::write(fs.path().join("which"), index.to_string()).unwrap();
    }
    for (index, fs) in all.iter().enumerate() {
        let which = std::fs::read_to_string(fs.path().join("which")).unwrap();
        assert_eq!(which, index.to_string());
    }
    let points: Vec<_> = all.iter().map(|fs| fs.path().to_owned()).collect();
    drop(all);
    assert!(points.iter().all(|point| mount_line(point).is_none()));
}
