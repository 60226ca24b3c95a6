//! Files that exist in memory only.

use std::fs::File;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::{Result, WhileDoing};

/// A file of `length` zeroes that takes no memory until it is written to. It needs no mount, so
/// nothing that happens to mounts can touch it, and it lives as long as somebody has it open.
pub fn create_file(name: &str, length: u64) -> Result<File> {
    let doing = || format!("making room in memory for {name}");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags).while_doing(doing)?);
    file.set_len(length).while_doing(doing)?;
    Ok(file)
}

/// From now on nobody, root included, can change the file.
pub fn seal(file: &File) -> Result<()> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(file, all).while_doing(|| "sealing the image in memory")
}
