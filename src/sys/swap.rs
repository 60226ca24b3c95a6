//! Swap areas.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Result, WhileDoing};

/// Begins to swap to `device`, which has a swap area's header, after all others (swapon(2)).
///
/// The path is the one that /proc/swaps shows for good, so it should be reached through a mount
/// that the running system keeps.
pub fn switch_on(device: &Path) -> Result<()> {
    let doing = || format!("swapping to {}", device.display());
    let path =
        CString::new(device.as_os_str().as_bytes()).map_err(io::Error::from).while_doing(doing)?;
    // SAFETY: the path ends with a zero and lives until the call returns; the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).while_doing(doing),
    }
}
