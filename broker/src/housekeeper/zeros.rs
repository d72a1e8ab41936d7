//! Zeros into a file, past the page cache, in steps that leave the disk to others in between.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions};
use ringway_engine::limits::BLOCK_BYTES;

use super::io_error;

/// Bytes of one write: a fraction of a millisecond on the disks that matter.
const STEP_BYTES: u64 = 256 << 10;

/// Writes zeros from `start` to `end` of a file that is already that long, durably. Both are
/// multiples of the block.
pub(super) async fn write(path: &Path, start: u64, end: u64) -> io::Result<()> {
    assert!(
        [start, end]
            .iter()
            .all(|at| at.is_multiple_of(BLOCK_BYTES as u64)),
        "zeros are whole blocks"
    );
    if start >= end {
        return Ok(());
    }
    let found = path.to_owned();
    let found = glommio::executor()
        .spawn_blocking(move || File::open(found))
        .await?;
    // By its descriptor: glommio 0.9 looks at the path once more after it has opened it, and panics
    // where a renaming came in between.
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).dma_open(path).await;
    let file = opened.map_err(io_error)?;
    let written = write_steps(&file, start, end).await;
    let synced = match written {
        Ok(()) => file.fdatasync().await.map_err(io_error),
        error => error,
    };
    file.close().await.map_err(io_error)?;
    synced
}

async fn write_steps(file: &DmaFile, start: u64, end: u64) -> io::Result<()> {
    let mut position = start;
    let mut zeros = zeros_of(file, STEP_BYTES.min(end - start));
    while position < end {
        let step = STEP_BYTES.min(end - position);
        if zeros.len() as u64 != step {
            zeros = zeros_of(file, step);
        }
        let written = file
            .write_rc_at(Rc::clone(&zeros), position)
            .await
            .map_err(io_error)?;
        if written == 0 || !written.is_multiple_of(BLOCK_BYTES) {
            let text = format!("only {written} of {step} bytes were written");
            return Err(io::Error::new(io::ErrorKind::WriteZero, text));
        }
        position += written as u64;
        glommio::executor().yield_task_queue_now().await;
    }
    Ok(())
}

fn zeros_of(file: &DmaFile, bytes: u64) -> Rc<glommio::io::DmaBuffer> {
    let mut zeros = file.alloc_dma_buffer(bytes as usize);
    zeros.as_bytes_mut().fill(0);
    Rc::new(zeros)
}
