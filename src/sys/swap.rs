//! Swap areas.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Result, WhileDoing};

/// Ends swapping to `device` (swapoff(2)); what is not in use is no error.
///
/// # Errors
/// There is not enough memory for what has been swapped out.
pub fn switch_off(device: &Path) -> Result<()> {
    let doing = || format!("ending swapping to {}", device.display());
    let path = terminated(device).while_doing(doing)?;
    // SAFETY: as for swapon.
    match unsafe { libc::swapoff(path.as_ptr()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
            error => Err(error).while_doing(doing),
        },
    }
}

/// Begins to swap to `device`, which has a swap area's header, after all others (swapon(2)).
///
/// The path is the one that /proc/swaps shows for good, so it should be reached through a mount
/// that the running system keeps.
pub fn switch_on(device: &Path) -> Result<()> {
    let doing = || format!("swapping to {}", device.display());
    let path = terminated(device).while_doing(doing)?;
    // SAFETY: the path ends with a zero and lives until the call returns; the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).while_doing(doing),
    }
}

fn terminated(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
