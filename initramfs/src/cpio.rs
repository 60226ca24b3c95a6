//! Writes the archive that the kernel unpacks as its first root: cpio in the "newc" form
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel).
//!
//! The same entries give the same bytes, in whatever order they were added: entries are sorted,
//! inode numbers are counted, everything belongs to root and has one time. Device nodes are only
//! records here, so that no right to make them is needed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// What the kernel reads of a name, with its final zero byte (`PATH_MAX`).
const NAME_LIMIT: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// By path without a leading slash; a directory sorts before what is in it.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Type and permissions.
    mode: u32,
    /// Of a device node: major, minor.
    device: (u32, u32),
    /// A link's is its target.
    content: Vec<u8>,
}

impl Archive {
    /// Adds a directory, and those above it; permissions of one that exists are changed.
    pub fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.insert(path, S_IFDIR | permissions, (0, 0), Vec::new())
    }

    /// Adds or replaces a file, and adds the directories above it.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) -> Result<()> {
        self.insert(path, S_IFREG | permissions, (0, 0), content)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.insert(path, S_IFLNK | 0o777, (0, 0), target.as_bytes().to_vec())
    }

    pub fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        device: (u32, u32),
    ) -> Result<()> {
        self.insert(path, S_IFCHR | permissions, device, Vec::new())
    }

    fn insert(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    ) -> Result<()> {
        let path = path.trim_matches('/');
        let strange = |part: &str| part.is_empty() || part == "." || part == "..";
        if path.split('/').any(strange) || path.len() >= NAME_LIMIT || path.contains('\0') {
            bail!("\"{path}\" is not a path that an image can have");
        }
        if u32::try_from(content.len()).is_err() {
            bail!("{path} has more than the 4 GiB that the archive's form allows");
        }
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            let entry = self.entries.entry(parent.to_owned()).or_insert(Entry {
                mode: S_IFDIR | 0o755,
                device: (0, 0),
                content: Vec::new(),
            });
            if entry.mode & S_IFDIR == 0 {
                bail!("{path} cannot be added: {parent} is not a directory");
            }
        }
        let entry = Entry { mode, device, content };
        if let Some(old) = self.entries.insert(path.to_owned(), entry)
            && (old.mode ^ mode) & S_IFDIR != 0
        {
            bail!("{path} cannot be both a directory and something else");
        }
        Ok(())
    }

    /// Bytes of content, without the archive's own.
    pub fn content_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.content.len() as u64).sum()
    }

    /// `epoch` is the modification time of everything, seconds since 1970.
    pub fn write(&self, mut to: impl Write, epoch: u32) -> Result<()> {
        let mut inode = 0;
        for (path, entry) in &self.entries {
            inode += 1;
            record(&mut to, inode, path, entry, epoch)
                .with_context(|| format!("writing {path} into the image"))?;
        }
        let end = Entry { mode: 0, device: (0, 0), content: Vec::new() };
        record(&mut to, 0, "TRAILER!!!", &end, 0).context("writing the end of the image")
    }
}

fn record(
    to: &mut impl Write,
    inode: u32,
    path: &str,
    entry: &Entry,
    epoch: u32,
) -> io::Result<()> {
    let links = if entry.mode & S_IFDIR == 0 { 1 } else { 2 };
    let (major, minor) = entry.device;
    let fields = [
        inode,
        entry.mode,
        0, // owner
        0, // group
        links,
        epoch,
        entry.content.len() as u32, // checked when it was inserted
        0,                          // the device the archive was made from,
        0,                          // major and minor
        major,
        minor,
        path.len() as u32 + 1,
        0, // checksum, of the "crc" form only
    ];
    let mut head = String::from("070701");
    for field in fields {
        head.push_str(&format!("{field:08x}"));
    }
    head.push_str(path);
    head.push('\0');
    // Names and contents are padded so that the next one starts at a multiple of four.
    to.write_all(head.as_bytes())?;
    to.write_all(padding(head.len()))?;
    to.write_all(&entry.content)?;
    to.write_all(padding(entry.content.len()))
}

fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..length.wrapping_neg() % 4]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    type Item = (&'static str, u32, (u32, u32), &'static [u8]);

    const ITEMS: [Item; 6] = [
        ("init", S_IFREG | 0o755, (0, 0), b"agent"),
        ("dev/console", S_IFCHR | 0o600, (5, 1), b""),
        ("bin/sh", S_IFLNK | 0o777, (0, 0), b"busybox"),
        ("tmp", S_IFDIR | 0o1777, (0, 0), b""),
        ("lib/modules/6.1/modules.dep", S_IFREG | 0o644, (0, 0), b"x\n"),
        ("lib-x", S_IFREG | 0o644, (0, 0), b""), // sorts between "lib" and what is in it
    ];

    fn archive(items: impl Iterator<Item = Item>) -> Vec<u8> {
        let mut archive = Archive::default();
        for (path, mode, device, content) in items {
            archive.insert(path, mode, device, content.to_vec()).unwrap();
        }
        let mut bytes = Vec::new();
        archive.write(&mut bytes, 1_700_000_000).unwrap();
        bytes
    }

    #[test]
    fn order_of_adding_does_not_show() {
        assert_eq!(archive(ITEMS.into_iter()), archive(ITEMS.into_iter().rev()));
    }

    /// The oracle is somebody else's reader.
    #[test]
    fn another_reader_finds_every_entry_after_its_directory() {
        let bytes = archive(ITEMS.into_iter());
        let mut rest = &*bytes;
        let mut seen: Vec<String> = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            let name = entry.name().to_owned();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 1_700_000_000), "{name}");
            assert_eq!(entry.ino() as usize, seen.len() + 1, "{name}");
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(seen.iter().any(|path| path == parent), "{name} before {parent}");
            }
            let item = ITEMS.iter().find(|item| item.0 == name);
            let (mode, device) = (entry.mode(), (entry.rdev_major(), entry.rdev_minor()));
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            match item {
                Some(item) => {
                    assert_eq!((mode, device, &*content), (item.1, item.2, item.3), "{name}")
                }
                None => assert_eq!(mode, S_IFDIR | 0o755, "{name}"),
            }
            seen.push(name);
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            seen,
            [
                "bin",
                "bin/sh",
                "dev",
                "dev/console",
                "init",
                "lib",
                "lib-x",
                "lib/modules",
                "lib/modules/6.1",
                "lib/modules/6.1/modules.dep",
                "tmp"
            ]
        );
    }

    #[test]
    fn paths_that_the_kernel_would_not_unpack_are_refused() {
        for path in ["", "/", "a//b", "../etc/passwd", "a/./b", "a/../b", "a\0b"] {
            assert!(Archive::default().file(path, 0o644, Vec::new()).is_err(), "{path:?}");
        }
        let mut archive = Archive::default();
        archive.file("/etc/lts.conf", 0o600, Vec::new()).unwrap();
        assert!(archive.file("etc/lts.conf/x", 0o600, Vec::new()).is_err());
        assert!(archive.file("etc", 0o600, Vec::new()).is_err());
    }
}
