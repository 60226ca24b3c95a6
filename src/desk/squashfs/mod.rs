//! Reads a squashfs without mounting it, so that `landfall plan` can look into the image that a
//! node will boot, as anybody, on any machine.
//!
//! Format 4.0, as in the kernel's `fs/squashfs/squashfs_fs.h`: folders, files and links, packed with
//! gzip, xz or zstd. Nothing is read that is not asked for. Every number of an image is checked
//! before it is used: an image is what somebody put onto a server.
//!
//! Deliberately absent: extended attributes, the export table, the index of large folders (they are
//! searched from their beginning), lzo, lz4 and lzma.

mod inode;
mod metadata;
mod unpack;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use rustix::io::Errno;

use crate::directives::{Kind, View};
use crate::error::{Cause, Error, Result, WhileDoing};
use inode::{Entry, Inode, Node};
use metadata::{Blocks, Superblock};

/// As of the folder of an image: no configuration file is larger.
const LARGEST: u64 = 16 << 20;

/// As the kernel's own bound (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// An image that can be looked at.
#[derive(Debug)]
pub struct Squashfs {
    blocks: Blocks,
    size_bytes: u64,
    /// The fragment that was read last: small files are packed together.
    fragment: RefCell<Option<(u64, Rc<Vec<u8>>)>>,
}

/// What is damaged or missing in an image.
type Damage = Cause;

/// A damage, in words.
fn damaged(what: &str) -> Damage {
    Cause::Invalid(format!("the image is damaged: {what}"))
}

impl Squashfs {
    /// # Errors
    /// The file cannot be read, is no squashfs of version 4.0, or is packed in a way that is not
    /// supported.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening {}", path.display());
        let file = File::open(path).while_doing(doing)?;
        Self::of(file).while_doing(doing)
    }

    fn of(file: File) -> Result<Self, Damage> {
        let size_bytes = file.metadata().map_err(Cause::Os)?.len();
        let superblock = Superblock::read(&file, size_bytes)?;
        let blocks = Blocks::new(file, superblock);
        // An image whose root cannot be read has nothing in it at all.
        let image = Self { blocks, size_bytes, fragment: RefCell::new(None) };
        match image.root()?.node {
            Node::Directory { .. } => Ok(image),
            _ => Err(damaged("its root is not a folder")),
        }
    }

    /// Of the file; what a copy to memory takes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// `squashfs 4.0 (zstd)`.
    pub fn description(&self) -> String {
        format!("squashfs 4.0 ({})", self.blocks.superblock.packing.name())
    }

    fn root(&self) -> Result<Inode, Damage> {
        Inode::read(&self.blocks, self.blocks.superblock.root)
    }

    /// What is at `path`; `None` if there is nothing. A last link is followed if `follow`.
    fn walk(&self, path: &str, follow: bool) -> Result<Option<Inode>, Damage> {
        let mut links: u32 = 0;
        let mut ahead: VecDeque<Vec<u8>> = components(path.as_bytes()).collect();
        let root = self.root()?;
        let mut above: Vec<Inode> = Vec::new();
        let mut here = root.clone();
        while let Some(name) = ahead.pop_front() {
            let Node::Directory { .. } = here.node else { return Ok(None) };
            if name == b".." {
                here = above.pop().unwrap_or_else(|| root.clone());
                continue;
            }
            let Some(next) = here.find(&self.blocks, &name)? else { return Ok(None) };
            match &next.node {
                Node::Link(target) if follow || !ahead.is_empty() => {
                    links = links.saturating_add(1);
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.first() == Some(&b'/') {
                        above.clear();
                        here = root.clone();
                    }
                    for name in components(target).collect::<Vec<_>>().into_iter().rev() {
                        ahead.push_front(name);
                    }
                }
                _ => above.push(std::mem::replace(&mut here, next)),
            }
        }
        Ok(Some(here))
    }

    fn contents(&self, inode: &Inode) -> Result<Option<Vec<u8>>, Damage> {
        let Node::File { start, size, fragment, sizes } = &inode.node else { return Ok(None) };
        let block_size = self.blocks.superblock.block_size;
        let wanted = (*size).min(LARGEST);
        let mut contents = Vec::new();
        let (mut at, mut sizes) = (*start, sizes.clone());
        let left = |contents: &Vec<u8>| wanted.saturating_sub(contents.len() as u64);
        // What does not fill a block is in a fragment, if the file has one.
        let in_blocks = match fragment {
            Some(_) => size.checked_div(block_size).unwrap_or(0).saturating_mul(block_size),
            None => *size,
        };
        while left(&contents) > 0 && (contents.len() as u64) < in_blocks {
            let whole = in_blocks.saturating_sub(contents.len() as u64).min(block_size);
            let word = sizes.u32(&self.blocks)?;
            let (block, next) = self.blocks.data(at, word, whole)?;
            contents.extend_from_slice(&block);
            at = next;
        }
        if let (Some((index, offset)), true) = (fragment, left(&contents) > 0) {
            let rest = size.saturating_sub(contents.len() as u64);
            let packed = self.fragment(*index)?;
            let from = usize::try_from(*offset).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(rest).unwrap_or(usize::MAX));
            let tail = packed.get(from..to).ok_or_else(|| damaged("a file ends too early"))?;
            contents.extend_from_slice(tail);
        }
        contents.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        Ok(Some(contents))
    }

    fn fragment(&self, index: u32) -> Result<Rc<Vec<u8>>, Damage> {
        let (start, word) = self.blocks.fragment(index)?;
        if let Some((of, packed)) = &*self.fragment.borrow()
            && *of == start
        {
            return Ok(Rc::clone(packed));
        }
        let packed = Rc::new(self.blocks.fragment_data(start, word)?);
        *self.fragment.borrow_mut() = Some((start, Rc::clone(&packed)));
        Ok(packed)
    }
}

/// Names on the way, without what means "here".
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

impl View for Squashfs {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let doing = || format!("reading {path} of the image");
        let Some(inode) = self.walk(path, true).while_doing(doing)? else { return Ok(None) };
        match self.contents(&inode).while_doing(doing)? {
            Some(contents) => Ok(Some(contents)),
            None => Err(Error::refused(doing(), "it is not a file")),
        }
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>> {
        let inode =
            self.walk(path, false).while_doing(|| format!("looking at {path} of the image"))?;
        Ok(inode.map(|inode| match inode.node {
            Node::File { .. } => Kind::File { executable: inode.mode & 0o111 != 0 },
            Node::Link(target) => Kind::Link(String::from_utf8_lossy(&target).into_owned()),
            Node::Directory { .. } => Kind::Directory,
            Node::Other => Kind::Other,
        }))
    }

    fn exists(&self, path: &str) -> bool {
        self.walk(path, true).is_ok_and(|inode| inode.is_some())
    }

    fn is_executable(&self, path: &str) -> bool {
        self.walk(path, true)
            .ok()
            .flatten()
            .is_some_and(|inode| matches!(inode.node, Node::File { .. }) && inode.mode & 0o111 != 0)
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let doing = || format!("listing {path} of the image");
        let Some(inode) = self.walk(path, true).while_doing(doing)? else { return Ok(Vec::new()) };
        let Node::Directory { .. } = inode.node else { return Ok(Vec::new()) };
        let entries = inode.entries(&self.blocks).while_doing(doing)?;
        let name = |entry: Entry| String::from_utf8_lossy(&entry.name).into_owned();
        Ok(entries.into_iter().map(name).collect())
    }

    fn length(&self, path: &str) -> Result<u64> {
        let inode =
            self.walk(path, false).while_doing(|| format!("looking at {path} of the image"))?;
        Ok(match inode.map(|inode| inode.node) {
            Some(Node::File { size, .. }) => size,
            _ => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;
    use crate::directives::Tree;

    /// With everything in it that a reader can stumble over.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["etc", "usr/lib/systemd", "many", "empty"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("etc/hostname"), "image\n").unwrap();
        fs::write(at("etc/nothing"), "").unwrap();
        let noise = |length: u32| -> Vec<u8> {
            let mut state = length;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            (0..length).map(|_| next()).collect()
        };
        fs::write(at("usr/lib/systemd/systemd"), noise(3 * 131_072 + 77)).unwrap();
        fs::set_permissions(at("usr/lib/systemd/systemd"), fs::Permissions::from_mode(0o755))
            .unwrap();
        fs::write(at("usr/exact"), noise(2 * 131_072)).unwrap();
        fs::write(at("usr/text"), "a line that repeats\n".repeat(40_000)).unwrap();
        let mut holes = vec![0; 5 * 131_072 + 3];
        holes[300_000] = 1;
        fs::write(at("usr/holes"), holes).unwrap();
        for number in 0..2000 {
            fs::write(at(&format!("many/file-with-a-long-name-{number:05}")), format!("{number}"))
                .unwrap();
        }
        let links = [
            ("lib", "usr/lib"),
            ("etc/absolute", "/etc/hostname"),
            ("etc/climbing", "../../../../../etc/hostname"),
            ("etc/through", "/lib/systemd/systemd"),
            ("etc/dangling", "/run/nothing"),
            ("etc/loop", "loop"),
            ("etc/folder", "../many"),
        ];
        for (path, target) in links {
            symlink(target, at(path)).unwrap();
        }
        folder
    }

    const PATHS: [&str; 28] = [
        "/",
        "/etc",
        "/etc/",
        "//etc//hostname",
        "/etc/hostname",
        "/etc/nothing",
        "/etc/absolute",
        "/etc/climbing",
        "/etc/through",
        "/etc/dangling",
        "/etc/loop",
        "/etc/loop/x",
        "/etc/folder",
        "/etc/folder/file-with-a-long-name-01999",
        "/etc/hostname/x",
        "/etc/./hostname",
        "/etc/../etc/hostname",
        "/../etc/hostname",
        "/lib/systemd/systemd",
        "/usr/exact",
        "/usr/text",
        "/usr/holes",
        "/many",
        "/many/file-with-a-long-name-00000",
        "/nowhere",
        "/nowhere/x",
        "/empty",
        "/lib",
    ];

    fn packed(folder: &Path, image: &Path, options: &[&str]) {
        let ran = Command::new("mksquashfs")
            .args([folder, image])
            .args(["-noappend", "-quiet", "-no-progress", "-all-root"])
            .args(options)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{options:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Text of everything that a view says of a path.
    fn account(view: &dyn View, path: &str) -> String {
        let mut names = view.names(path).map_err(|error| error.cause().to_string());
        if let Ok(names) = &mut names {
            names.sort();
        }
        let contents = view.read(path).map_err(|error| error.cause().to_string());
        let kind = view.kind(path).map_err(|error| error.cause().to_string());
        let (exists, executable) = (view.exists(path), view.is_executable(path));
        let length = view.length(path).map_err(|error| error.cause().to_string());
        format!("{names:?} {contents:?} {kind:?} {exists} {executable} {length:?}")
    }

    #[test]
    #[ignore = "needs mksquashfs"]
    fn an_image_says_what_the_folder_says_that_it_was_made_of() {
        let folder = folder();
        let tree = Tree::open(folder.path()).unwrap();
        let work = tempfile::tempdir().unwrap();
        let image = work.path().join("image");
        let cases: [&[&str]; 9] = [
            &["-comp", "gzip"],
            &["-comp", "xz"],
            &["-comp", "xz", "-Xbcj", "x86"],
            &["-comp", "zstd"],
            &["-comp", "gzip", "-b", "4096"],
            &["-comp", "zstd", "-b", "1M"],
            &["-comp", "gzip", "-no-fragments"],
            &["-comp", "gzip", "-always-use-fragments"],
            &["-comp", "gzip", "-noI", "-noD", "-noF"],
        ];
        for options in cases {
            packed(folder.path(), &image, options);
            let squashfs = Squashfs::open(&image).unwrap();
            for path in PATHS {
                // A last slash makes Tree look for a name of no length.
                if path.ends_with('/') {
                    assert!(squashfs.exists(path), "{options:?}: {path}");
                    continue;
                }
                let (got, expected) = (account(&squashfs, path), account(&tree, path));
                assert!(got == expected, "{options:?}: {path}: {:.300} not {:.300}", got, expected);
            }
        }
    }

    #[test]
    #[ignore = "needs mksquashfs"]
    fn what_cannot_be_read_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let work = tempfile::tempdir().unwrap();
        let image = work.path().join("image");
        for (packing, expected) in [("lz4", "packed with lz4"), ("lzo", "packed with lzo")] {
            packed(folder.path(), &image, &["-comp", packing]);
            let error = Squashfs::open(&image).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("gzip, xz and zstd"), "{error}");
        }
    }

    #[test]
    fn what_is_no_squashfs_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        for (bytes, expected) in [
            (&b""[..], "not a squashfs"),
            (b"hsqs", "not a squashfs"),
            (&[0; 4096], "not a squashfs"),
            (&[&b"hsqs"[..], &[0; 92]].concat(), "version 0.0"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = Squashfs::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// A small image, packed by mksquashfs with gzip; in it there is everything but large files.
    const SMALL: &[u8] = include_bytes!("../../../tests/fixtures/plan/image.squashfs");

    fn look_around(bytes: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, bytes).unwrap();
        let Ok(image) = Squashfs::open(&path) else { return };
        let mut folders = vec![String::new()];
        let mut looked = 0;
        while let Some(folder) = folders.pop() {
            for name in image.names(&format!("{folder}/")).unwrap_or_default() {
                let path = format!("{folder}/{name}");
                account(&image, &path);
                looked += 1;
                // A damaged folder may be its own parent.
                if looked < 200 && matches!(image.kind(&path), Ok(Some(Kind::Directory))) {
                    folders.push(path);
                }
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

        /// The numbers of an image are an attacker's.
        #[test]
        fn no_damage_makes_it_panic(
            damages in proptest::collection::vec((0..SMALL.len(), proptest::num::u8::ANY), 1..12),
            length in 0..SMALL.len() * 2,
        ) {
            let mut bytes = SMALL.to_vec();
            for (at, value) in damages {
                bytes[at] = value;
            }
            bytes.truncate(length);
            look_around(&bytes);
        }

        #[test]
        fn no_superblock_makes_it_panic(
            at in 4..96_usize,
            value in proptest::array::uniform8(proptest::num::u8::ANY),
        ) {
            let mut bytes = SMALL.to_vec();
            for (byte, value) in bytes[at..].iter_mut().zip(value) {
                *byte = value;
            }
            look_around(&bytes);
        }
    }
}
