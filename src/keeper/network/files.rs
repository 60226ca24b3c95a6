//! Files by descriptors: the paths of the running system are those of its root, which may be away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat, renameat};

use crate::error::{Result, WhileDoing};

/// More than the tables of sockets of a busy machine.
const LARGEST: u64 = 4 << 20;

pub fn read_at(folder: BorrowedFd<'_>, path: &str) -> Result<String> {
    let doing = || format!("reading {path}");
    let file = openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut bytes = Vec::new();
    File::from(file.while_doing(doing)?)
        .take(LARGEST)
        .read_to_end(&mut bytes)
        .while_doing(doing)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// In place of the file that was there, of which a reader never sees a part.
pub fn replace_at(folder: BorrowedFd<'_>, path: &str, text: &str) -> Result<()> {
    let doing = || format!("writing {path}");
    let fresh = format!("{path}.new");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file =
        openat(folder, fresh.as_str(), flags, Mode::from_raw_mode(0o644)).while_doing(doing)?;
    File::from(file).write_all(text.as_bytes()).while_doing(doing)?;
    renameat(folder, fresh.as_str(), folder, path).while_doing(doing)
}
