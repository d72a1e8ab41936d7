//! A second run of this test program under a hostile circumstance, with the pre-flight's report
//! as its answer: filters, limits and users can be put on a process but not taken off it.
//! The one file of these tests with `unsafe` code.

use std::path::Path;
use std::process::{Command, Stdio};

use ringway_tuning::{LinuxHost, Requirements, preflight, raise_limits};

/// Names the circumstance to the second run.
const CIRCUMSTANCE: &str = "RINGWAY_TUNING_CHILD";
const DATA_DIR: &str = "RINGWAY_TUNING_CHILD_DATA_DIR";
/// Stands before the report in the second run's output.
const MARK: &str = "\nREPORT ";

/// The pre-flight's report, as JSON, from a process in that circumstance: words separated by
/// spaces, applied in order (see [`apply`]).
pub(crate) fn report_under(circumstance: &str, data_dir: &Path) -> serde_json::Value {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::child_process", "--nocapture"])
        .env(CIRCUMSTANCE, circumstance)
        .env(DATA_DIR, data_dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let (_, report) = text
        .split_once(MARK)
        .unwrap_or_else(|| panic!("no report under {circumstance:?}: {text}\n{errors}"));
    serde_json::from_str(report.lines().next().unwrap()).unwrap()
}

/// The second run's whole life; in the first run there is nothing to do.
#[test]
fn child_process() {
    let Ok(circumstance) = std::env::var(CIRCUMSTANCE) else {
        return;
    };
    let data_dir = std::env::var_os(DATA_DIR).unwrap();
    for word in circumstance.split_whitespace() {
        apply(word);
    }
    let report = preflight(&need(Path::new(&data_dir)), &LinuxHost);
    println!("{MARK}{}", report.to_json());
}

/// What a broker of one shard may ask for; 8 MiB of locked memory must be enough.
pub(crate) fn need(data_dir: &Path) -> Requirements {
    Requirements {
        shards: 1,
        rings: 4,
        memlock_bytes: 8 << 20,
        nofile: 1024,
        nofile_advised: 1024,
        data_dir: data_dir.to_owned(),
        block_bytes: 4096,
        sync_scope: None,
    }
}

/// `KEY=VALUE` or a lone key.
fn apply(word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse::<u64>().unwrap();
    match key {
        "setup-answers" => filter(libc::SYS_io_uring_setup, errno(value)),
        "register-answers" => filter(libc::SYS_io_uring_register, errno(value)),
        "enter-answers" => filter(libc::SYS_io_uring_enter, errno(value)),
        "memlock" => set_limit(libc::RLIMIT_MEMLOCK, number(), number()),
        "nofile" => set_limit(libc::RLIMIT_NOFILE, number(), number()),
        "nofile-soft" => set_limit(libc::RLIMIT_NOFILE, number(), hard_nofile()),
        "raise-limits" => raise_limits().unwrap(),
        "ordinary-user" => become_ordinary(),
        "hold-rings" => hold_rings(number()),
        _ => panic!("unknown circumstance {word:?}"),
    }
}

fn errno(name: &str) -> i32 {
    match name {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        "ENOMEM" => libc::ENOMEM,
        _ => panic!("unknown error {name:?}"),
    }
}

/// Lets a seccomp filter answer `errno` to one system call of this thread, as container runtimes
/// do. It looks at the number alone, which suffices for a program of one architecture.
fn filter(system_call: libc::c_long, errno: i32) {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let number_at = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number_at),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            system_call as u32,
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: prctl with these numbers touches no memory; all five arguments are given.
    let code = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `program` and the instructions that it points at live across the call, which copies.
    let code = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is live and only read.
    let code = unsafe { libc::setrlimit(resource, &limit) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

fn hard_nofile() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is live and writable.
    let code = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    limit.rlim_max
}

/// Entries of the rings that [`hold_rings`] builds.
pub(crate) const HELD_ENTRIES: u32 = 256;

/// Builds rings as large as a shard's and keeps them to the end of the process.
fn hold_rings(count: u64) {
    for ordinal in 0..count {
        let ring = io_uring::IoUring::new(HELD_ENTRIES)
            .unwrap_or_else(|error| panic!("ring {ordinal} of {count}: {error}"));
        std::mem::forget(ring);
    }
}

pub(crate) fn is_root() -> bool {
    // SAFETY: takes and touches nothing.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up root for a user that nobody else is, since locked memory counts per user; an ordinary
/// user stays who it is.
fn become_ordinary() {
    if !is_root() {
        return;
    }
    // Between the numbers given to people and services and those that a container may lack.
    let user = 20_000 + std::process::id() % 40_000;
    // SAFETY: no memory is passed; libc changes all threads of the process together.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(user) == 0
            && libc::setuid(user) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}
