//! Files that exist in memory only, and stay there.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};

use super::mount;
use crate::error::{Result, WhileDoing};

/// Where a file's bytes are. Either way its pages are unevictable: they are never swapped out, and
/// no process has to lock them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// With `noswap`, which Linux 6.4 brought. A hole stays one when it is read.
    Tmpfs,
    /// Whatever is read is kept, zeroes of holes included: a file may become as large as it says.
    Ramfs,
}

/// A file in a file system of its own that is mounted nowhere, so nothing that happens to mounts
/// can touch it. It lives as long as somebody has it open.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
    /// By which it is opened again; a tree that is closed is taken apart.
    tree: OwnedFd,
}

const NAME: &str = "image";

impl MemoryFile {
    /// `length` zeroes that take no memory until they are written to.
    pub fn create(length: u64) -> Result<Self> {
        let doing = || "making room in memory for the image";
        let (tree, _) = file_system()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(openat(&tree, NAME, flags, Mode::RUSR).while_doing(doing)?);
        file.set_len(length).while_doing(doing)?;
        Ok(Self { file, tree })
    }

    /// For writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same file for whoever must not write to it. When the writable one is closed, nobody can
    /// open another: there is no path to it.
    pub fn read_only(&self) -> Result<File> {
        openat(&self.tree, NAME, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .while_doing(|| "keeping the image in memory")
    }
}

impl Medium {
    /// What this kernel has.
    pub fn here() -> Result<Self> {
        file_system().map(|(_, medium)| medium)
    }
}

fn file_system() -> Result<(OwnedFd, Medium)> {
    /// Half of the memory is tmpfs's own limit; ours is decided before, and with more knowledge.
    const OPTIONS: [(&str, Option<&str>); 2] = [("noswap", None), ("size", Some("0"))];
    match mount::detached_with("tmpfs", &OPTIONS) {
        Ok(tree) => Ok((tree, Medium::Tmpfs)),
        // A kernel of before 6.4, or one without tmpfs.
        Err(_) => Ok((mount::detached("ramfs")?, Medium::Ramfs)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn unevictable() -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Unevictable:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Swapping it out would need swap on the server that may be gone.
    #[test]
    #[ignore = "needs to be root"]
    fn what_is_in_it_is_unevictable_and_what_is_not_takes_nothing() {
        const MIB: u64 = 1 << 20;
        let memory = MemoryFile::create(64 * MIB).unwrap();
        let before = unevictable();
        for at in 0..32 {
            memory.file().write_all_at(&vec![1; MIB as usize], at * MIB).unwrap();
        }
        let mut read_only = memory.read_only().unwrap();
        assert!(read_only.write_all_at(b"x", 0).is_err());
        assert_eq!(read_only.metadata().unwrap().blocks() * 512, 32 * MIB);
        drop(memory);
        let mut bytes = Vec::new();
        read_only.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, 64 * MIB);
        // Other tests take and give meanwhile, and pages come to the list in batches.
        let grown = unevictable().saturating_sub(before) / 1024;
        assert!((28..40).contains(&grown), "{grown} MiB more are unevictable");
    }
}
