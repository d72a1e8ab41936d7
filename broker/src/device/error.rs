//! What the operating system said, in the engine's words.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ringway_engine::device::DeviceError;

/// An error of an action on a path: no space, which may heal, or anything else.
pub(crate) fn device_error(action: &str, path: &Path, error: &io::Error) -> DeviceError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => DeviceError::Full,
        _ => DeviceError::Failed(format!("{action} {}: {error}", path.display())),
    }
}

/// A path as the kernel takes it.
///
/// # Panics
/// With a zero byte, which no path that was opened before has.
pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no zero byte")
}
