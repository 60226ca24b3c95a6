//! Files of the new root, reached so that no link in it can lead out of it.
//!
//! `/etc/resolv.conf` of an image is as a rule a link to `/run/…`: followed by the plain calls it
//! would lead into the initramfs. Every path here is resolved by the kernel as if the new root were
//! `/` already (`RESOLVE_IN_ROOT`, openat2(2), Linux 5.6).

mod copy;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat,
    mkdirat, openat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

pub use copy::{DEEPEST, INTO_ITSELF, MOST_ENTRIES};

use crate::error::{Error, Result, WhileDoing};

/// User and group, by number.
pub type Owner = (u32, u32);

/// The root below which everything happens. Paths are absolute, as the new system will see them.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// For errors and for chroot.
    path: PathBuf,
}

/// What is at a path, without following a last link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { executable: bool },
    Link(String),
    Directory,
    Other,
}

/// The kernel's bounds of a path (`PATH_MAX` without its NUL) and of one name in it (`NAME_MAX`).
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 255;

/// Whether no file can have this path. To be asked before a path of a configuration is followed,
/// which costs time and stack for each of its names.
pub fn is_too_long(path: &str) -> bool {
    path.len() > LONGEST_PATH || path.split('/').any(|name| name.len() > LONGEST_NAME)
}

pub fn check_length(path: &str) -> rustix::io::Result<()> {
    if path.len() > LONGEST_PATH { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

pub fn check_name(name: &str) -> rustix::io::Result<()> {
    if name.len() > LONGEST_NAME { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

/// Why [`is_too_long`] refuses a path, for people.
pub const TOO_LONG: &str = "it is longer than the kernel takes: 4095 bytes, 255 in each name";

/// No configuration file is larger.
const LARGEST: u64 = 16 << 20;

impl Tree {
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .while_doing(|| format!("opening {}", path.display()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The contents of a regular file; `None` if there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let doing = || format!("reading {path} of the new root");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.at(path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::new(doing(), errno)),
        };
        if !is_regular(&fd).while_doing(doing)? {
            return Err(Error::refused(doing(), "it is not a file"));
        }
        let mut bytes = Vec::new();
        let most = LARGEST.saturating_add(1);
        File::from(fd).take(most).read_to_end(&mut bytes).while_doing(doing)?;
        // Whoever reads half of a file and writes it back has lost the other half.
        if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
            return Err(Error::refused(doing(), format!("it has more than {LARGEST} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Like [`Tree::read`], for files that are text by nature.
    pub fn read_text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes a file, through links to a file that is there, else in place of whatever is there.
    /// Missing directories are made; `mode` is for a file that is new.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let doing = || format!("writing {path} of the new root");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.at(path, flags) {
            Ok(fd) if is_regular(&fd).while_doing(doing)? => {
                rustix::fs::ftruncate(&fd, 0).while_doing(doing)?;
                File::from(fd).write_all(contents.as_ref()).while_doing(doing)
            }
            Ok(_) | Err(Errno::NOENT | Errno::NXIO) => self.replace(path, contents, mode, None),
            Err(errno) => Err(Error::new(doing(), errno)),
        }
    }

    /// Puts a new file in place of what is there; a link is replaced, not followed. It is the
    /// agent's own, root's, unless an `owner` is named.
    pub fn replace(
        &self,
        path: &str,
        contents: impl AsRef<[u8]>,
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<()> {
        let doing = || format!("writing {path} of the new root");
        let (parent, name) = self.parent(path, Missing::Make).while_doing(doing)?;
        unlink(&parent, name).while_doing(doing)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent, name, flags, Mode::from_raw_mode(mode)).while_doing(doing)?;
        belong(&fd, mode, owner).while_doing(doing)?;
        File::from(fd).write_all(contents.as_ref()).while_doing(doing)
    }

    /// Makes a directory and those above it; one that is there gets mode and owner.
    pub fn make_directory(&self, path: &str, mode: u32, owner: Option<Owner>) -> Result<()> {
        let doing = || format!("making the directory {path} of the new root");
        let (parent, name) = self.parent(path, Missing::Make).while_doing(doing)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::new(doing(), errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = self.at(path, flags).while_doing(doing)?;
        belong(&directory, mode, owner).while_doing(doing)
    }

    /// Puts a link in place of what is there.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        let doing = || format!("linking {path} of the new root to {target}");
        let (parent, name) = self.parent(path, Missing::Make).while_doing(doing)?;
        unlink(&parent, name).while_doing(doing)?;
        symlinkat(target, &parent, name).while_doing(doing)
    }

    /// Removes a file or a link, not what it leads to; says whether there was one. Directories
    /// stay.
    pub fn remove(&self, path: &str) -> Result<bool> {
        let removed = match self.parent(path, Missing::Leave) {
            Ok((parent, name)) => unlink(&parent, name),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(errno) => Err(errno),
        };
        removed.while_doing(|| format!("removing {path} of the new root"))
    }

    pub fn kind(&self, path: &str) -> Result<Option<Kind>> {
        let kind = || {
            if path == "/" {
                return Ok(Kind::Directory);
            }
            let (parent, name) = self.parent(path, Missing::Leave)?;
            let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File { executable: stat.st_mode & 0o111 != 0 },
                FileType::Directory => Kind::Directory,
                FileType::Symlink => {
                    let target = readlinkat(&parent, name, Vec::new())?.into_bytes();
                    Kind::Link(String::from_utf8_lossy(&target).into_owned())
                }
                _ => Kind::Other,
            })
        };
        match kind() {
            Ok(kind) => Ok(Some(kind)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::new(format!("looking at {path} of the new root"), errno)),
        }
    }

    /// The bytes of a regular file, without following a last link; 0 for anything else.
    pub fn length(&self, path: &str) -> Result<u64> {
        let stat = || {
            let (parent, name) = self.parent(path, Missing::Leave)?;
            statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
        };
        match stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                Ok(u64::try_from(stat.st_size).unwrap_or_default())
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(0),
            Err(errno) => Err(Error::new(format!("looking at {path} of the new root"), errno)),
        }
    }

    /// Whether something is at `path`, links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.at(path, OFlags::PATH).is_ok()
    }

    /// Whether `path`, links followed, is a file that may be executed.
    pub fn is_executable(&self, path: &str) -> bool {
        self.at(path, OFlags::PATH).and_then(|fd| fstat(&fd)).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_mode & 0o111 != 0
        })
    }

    /// The names in a directory, in no order; none if there is no such directory.
    pub fn names(&self, path: &str) -> Result<Vec<String>> {
        let names = || {
            let directory = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let entries = Dir::new(directory)?.collect::<rustix::io::Result<Vec<_>>>()?;
            let names = entries.into_iter().map(|entry| {
                let name = entry.file_name().to_bytes().to_vec();
                std::ffi::OsString::from_vec(name).to_string_lossy().into_owned()
            });
            Ok(names.filter(|name| name != "." && name != "..").collect())
        };
        match names() {
            Ok(names) => Ok(names),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
            Err(errno) => Err(Error::new(format!("listing {path} of the new root"), errno)),
        }
    }

    /// Opens what is there; creates nothing.
    fn at(&self, path: impl Arg + Copy, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                // EAGAIN: a rename somewhere in the system raced with "..".
                Err(Errno::INTR | Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// The directory of `path`, and the last name in it.
    fn parent<'p>(
        &self,
        path: &'p str,
        missing: Missing,
    ) -> rustix::io::Result<(OwnedFd, &'p str)> {
        check_length(path)?;
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let (mut at, name) = split(path)?;
        // Innermost first.
        let mut missing_ones = Vec::new();
        let mut fd = loop {
            match self.at(at, directory) {
                Err(Errno::NOENT) if matches!(missing, Missing::Make) && at != "/" => {
                    let (above, last) = split(at)?;
                    missing_ones.push((at, last));
                    at = above;
                }
                result => break result?,
            }
        };
        for (path, last) in missing_ones.into_iter().rev() {
            match mkdirat(&fd, last, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => fd = self.at(path, directory)?,
                Err(errno) => return Err(errno),
            }
        }
        Ok((fd, name))
    }
}

/// A path's directory and last name, which must be one.
pub fn split(path: &str) -> rustix::io::Result<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "" | "." | "..") {
        return Err(Errno::INVAL);
    }
    Ok((if parent.is_empty() { "/" } else { parent }, name))
}

/// What to do about a missing directory.
#[derive(Clone, Copy)]
enum Missing {
    Make,
    Leave,
}

/// Sets owner and mode of what was just made. The owner first: a change of owner takes set-user-ID
/// bits away.
fn belong(fd: &OwnedFd, mode: u32, owner: Option<Owner>) -> rustix::io::Result<()> {
    if let Some((user, group)) = owner {
        fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    // Past the mask that the kernel subtracts.
    fchmod(fd, Mode::from_raw_mode(mode))
}

fn is_regular(fd: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode).is_file())
}

fn unlink(parent: &OwnedFd, name: impl Arg) -> rustix::io::Result<bool> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    /// An image's link must never make us write into the initramfs, or into this machine.
    #[test]
    fn links_stay_inside() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("file");
        fs::write(&target, "untouched").unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        symlink(&target, folder.path().join("etc/absolute")).unwrap();
        symlink(outside.path(), folder.path().join("directory")).unwrap();
        let climb = format!("../../../../../../../../..{}", target.display());
        symlink(climb, folder.path().join("etc/climbing")).unwrap();

        for path in ["/etc/absolute", "/etc/climbing", "/directory/file", "/../../file"] {
            assert_eq!(tree.read(path).unwrap(), None, "{path}");
            let _ = tree.write(path, "changed", 0o644);
            let _ = tree.remove(path);
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert!(folder.path().join("etc").is_dir());
    }

    #[test]
    fn writing_follows_links_to_files_and_replaces_dangling_ones() {
        let (folder, tree) = tree();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("etc")).unwrap();
        fs::create_dir_all(at("usr/lib")).unwrap();
        fs::write(at("usr/lib/real"), "longer than before").unwrap();
        symlink("/usr/lib/real", at("etc/link")).unwrap();
        symlink("/run/nothing/here", at("etc/dangling")).unwrap();

        tree.write("/etc/link", "new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(at("usr/lib/real")).unwrap(), "new");
        assert_eq!(tree.kind("/etc/link").unwrap(), Some(Kind::Link("/usr/lib/real".into())));

        tree.write("/etc/dangling", "new", 0o600).unwrap();
        assert_eq!(tree.kind("/etc/dangling").unwrap(), Some(Kind::File { executable: false }));
        assert!(!at("run").exists());

        tree.write("/etc/a/b/c", "deep", 0o755).unwrap();
        let mode = fs::metadata(at("etc/a/b/c")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(tree.is_executable("/etc/a/b/c"));

        tree.replace("/etc/link", "own", 0o644, None).unwrap();
        assert_eq!(fs::read_to_string(at("usr/lib/real")).unwrap(), "new");
        tree.link("/etc/link", "a").unwrap();
        assert_eq!(tree.kind("/etc/link").unwrap(), Some(Kind::Link("a".into())));
        assert!(tree.remove("/etc/link").unwrap());
        assert!(!tree.remove("/etc/link").unwrap());
        assert!(!tree.remove("/no/such/folder").unwrap());
        assert_eq!(tree.names("/etc/a").unwrap(), ["b"]);
        assert_eq!(tree.names("/nowhere").unwrap(), Vec::<String>::new());
        assert!(tree.exists("/etc/a/b") && !tree.exists("/etc/a/c"));
    }
}
