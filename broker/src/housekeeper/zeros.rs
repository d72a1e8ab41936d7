//! Zeros into a file, past the page cache, in steps that leave the disk to others in between.
//!
//! On the executor's blocking threads, and not with its own direct-I/O files: glommio 0.9 puts those
//! on a ring that it polls, and filling ahead of a busy writer took four times the CPU of the shard.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use ringway_engine::limits::BLOCK_BYTES;
use rkyv::util::AlignedVec;

use super::{Tally, blocking};

/// Bytes of one write: less than a millisecond on the disks that matter.
const STEP_BYTES: u64 = 1 << 20;

/// Zeros at an address that direct I/O takes.
type Zeros = AlignedVec<BLOCK_BYTES>;

/// Writes zeros from `start` to `end` of a file that is already that long, durably, and counts
/// them. Both are multiples of the block.
pub(super) async fn write(
    path: &Path,
    start: u64,
    end: u64,
    tally: &Cell<Tally>,
) -> io::Result<()> {
    assert!(
        [start, end]
            .iter()
            .all(|at| at.is_multiple_of(BLOCK_BYTES as u64)),
        "zeros are whole blocks"
    );
    if start >= end {
        return Ok(());
    }
    let path = path.to_owned();
    let file = blocking(move || open(&path)).await?;
    let file = Arc::new(file);
    let mut zeros = Zeros::new();
    zeros.resize(STEP_BYTES.min(end - start) as usize, 0);
    let zeros = Arc::new(zeros);
    let mut position = start;
    while position < end {
        let step = STEP_BYTES.min(end - position);
        let (file, zeros) = (Arc::clone(&file), Arc::clone(&zeros));
        blocking(move || file.write_all_at(&zeros[..step as usize], position)).await?;
        position += step;
        tally.update(|tally| Tally {
            zeroed_bytes: tally.zeroed_bytes + step,
            ..tally
        });
        glommio::executor().yield_task_queue_now().await;
    }
    blocking(move || file.sync_data()).await
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
}
