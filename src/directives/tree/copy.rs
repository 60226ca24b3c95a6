//! A folder of the root laid over the root itself: OVERLAY_DIR.
//!
//! Like `cp -a FOLDER/. TO`, save for two things. A link of the destination that leads to
//! a directory is followed, within the root: `lib/…` of the folder belongs below `usr/lib` of a root
//! where `/lib` leads there (LTSP's tar put a directory in place of the link, and the machine was
//! without libraries). And nothing but directories, files and links is copied.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fstat,
    futimens, mkdirat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use super::{Tree, belong, unlink};
use crate::error::{Error, Result, WhileDoing};

/// What lies in the folder, all told.
pub const MOST_ENTRIES: usize = 65_536;
/// Folders below each other.
pub const DEEPEST: usize = 64;
/// The copy is in memory, like everything that is written to the new root.
const MOST_BYTES: u64 = 1 << 30;
/// Why a folder in which the copy itself lies is not copied.
pub const INTO_ITSELF: &str = "it would be copied into itself";

impl Tree {
    /// Copies everything below `from` to `to`: files, directories and links with their owners,
    /// modes and times. Files and links replace what is there, which a directory never is: that is
    /// an error, and the rest goes on. The folder's own mode and owner stay behind.
    ///
    /// # Errors
    /// Names the first thing that was not copied, and how many more there are.
    pub fn copy_tree(&self, from: &str, to: &str) -> Result<()> {
        let doing = || format!("copying {from} of the new root to {to}");
        let folder = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = self.at(from, folder).while_doing(doing)?;
        let target = match self.at(to, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                self.make_directory(to, 0o755, None)?;
                self.at(to, OFlags::PATH | OFlags::DIRECTORY).while_doing(doing)?
            }
            result => result.while_doing(doing)?,
        };
        let mut copying = Copying {
            tree: self,
            target: identity(&target).while_doing(doing)?,
            entries: 0,
            bytes: 0,
            full: false,
            first: None,
            failures: 0,
        };
        copying.folder(&source, &target, Path::new(from), Path::new(to), 1);
        match (copying.first, copying.failures.saturating_sub(1)) {
            (None, _) => Ok(()),
            (Some(error), 0) => Err(error),
            (Some(error), more) => Err(Error::new(format!("{} and {more} more", doing()), error)),
        }
    }
}

struct Copying<'t> {
    tree: &'t Tree,
    /// Device and number of the directory to which everything goes.
    target: (u64, u64),
    entries: usize,
    bytes: u64,
    /// A bound was reached.
    full: bool,
    first: Option<Error>,
    failures: usize,
}

impl Copying<'_> {
    fn folder(&mut self, source: &OwnedFd, target: &OwnedFd, from: &Path, to: &Path, depth: usize) {
        let listed = identity(source).and_then(|it| Ok((it, names(source)?)));
        let names = match listed {
            Ok((it, _)) if it == self.target => {
                return self.note(Error::refused(doing(from), INTO_ITSELF));
            }
            Ok((_, names)) => names,
            Err(errno) => return self.note(Error::new(doing(from), errno)),
        };
        for name in names {
            if self.full {
                return;
            }
            self.entries = self.entries.saturating_add(1);
            if self.entries > MOST_ENTRIES || depth > DEEPEST {
                self.full = true;
                let why =
                    format!("there are more than {MOST_ENTRIES}, or {DEEPEST} levels of them");
                return self.note(Error::refused(doing(from), why));
            }
            let (from, to) = (from.join(&name), to.join(&name));
            let name = Path::new(&name);
            let copied = match statat(source, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(errno) => Err(Error::new(doing(&from), errno)),
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => self.file(source, target, name, &from),
                    FileType::Symlink => {
                        link(source, target, name, &stat).while_doing(|| doing(&from))
                    }
                    FileType::Directory => match self.enter(source, target, name, &to, &stat) {
                        Ok((source, target)) => {
                            self.folder(&source, &target, &from, &to, depth.saturating_add(1));
                            Ok(())
                        }
                        Err(errno) => Err(Error::new(doing(&from), errno)),
                    },
                    other => {
                        log::debug!(target: "directives", "{} is a {other:?}; not copied", from.display());
                        Ok(())
                    }
                },
            };
            if let Err(error) = copied {
                self.note(error);
            }
        }
    }

    /// Opens a directory of the source and its like at the target, which is made if need be.
    fn enter(
        &self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &Path,
        to: &Path,
        stat: &Stat,
    ) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY;
        let itself = folder | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(source, name, itself, Mode::empty())?;
        // By its whole path, so that links on the way are those of the root.
        let there = match self.tree.at(to, folder) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                unlink(target, name)?;
                mkdirat(target, name, Mode::RWXU)?;
                openat(target, name, itself, Mode::empty())?
            }
            result => result?,
        };
        belong(&there, stat.st_mode, Some((stat.st_uid, stat.st_gid)))?;
        Ok((source, there))
    }

    fn file(&mut self, source: &OwnedFd, target: &OwnedFd, name: &Path, from: &Path) -> Result<()> {
        let doing = || doing(from);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(source, name, flags, Mode::empty()).while_doing(doing)?;
        let stat = fstat(&source).while_doing(doing)?;
        let room = MOST_BYTES.saturating_sub(self.bytes);
        if u64::try_from(stat.st_size).is_ok_and(|size| size > room) {
            self.full = true;
            let why = format!("with it there would be more than {MOST_BYTES} bytes");
            return Err(Error::refused(doing(), why));
        }
        unlink(target, name).while_doing(doing)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = openat(target, name, flags, Mode::RUSR | Mode::WUSR).while_doing(doing)?;
        let mut copy = File::from(copy);
        let copied = io::copy(&mut File::from(source).take(room), &mut copy).while_doing(doing)?;
        self.bytes = self.bytes.saturating_add(copied);
        let copy = OwnedFd::from(copy);
        belong(&copy, stat.st_mode, Some((stat.st_uid, stat.st_gid))).while_doing(doing)?;
        let time = |seconds, nanoseconds: u64| Timespec {
            tv_sec: seconds,
            tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        futimens(&copy, &times).while_doing(doing)
    }

    fn note(&mut self, error: Error) {
        self.failures = self.failures.saturating_add(1);
        self.first.get_or_insert(error);
    }
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

fn doing(from: &Path) -> String {
    format!("copying {} of the new root", from.display())
}

fn link(source: &OwnedFd, target: &OwnedFd, name: &Path, stat: &Stat) -> rustix::io::Result<()> {
    let leads_to = readlinkat(source, name, Vec::new())?;
    unlink(target, name)?;
    symlinkat(leads_to.as_c_str(), target, name)?;
    let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(target, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}

/// In the order of their bytes, so that two copies of one folder go the same way.
fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::directives::Kind;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    #[test]
    fn a_folder_lands_on_the_root_with_modes_times_and_links() {
        let (folder, tree) = tree();
        let at = |name: &str| folder.path().join(name);
        tree.link("/lib", "usr/lib").unwrap();
        tree.write("/usr/lib/there", "", 0o644).unwrap();
        tree.write("/usr/bin/target", "untouched", 0o755).unwrap();
        tree.link("/etc/tool", "/usr/bin/target").unwrap();
        tree.write("/etc/becomes-a-folder", "", 0o644).unwrap();
        tree.link("/etc/dangling", "/no/where").unwrap();
        tree.make_directory("/etc/stays", 0o755, None).unwrap();

        let overlay = "/etc/ltsp/overlay-dir";
        for (path, mode) in [
            ("/lib/systemd/system/x.service", 0o644),
            ("/etc/tool", 0o750),
            ("/etc/becomes-a-folder/file", 0o600),
            ("/etc/dangling/file", 0o644),
            ("/etc/stays", 0o644),
            ("/usr/local/sbin/setuid", 0o4755),
        ] {
            tree.write(&format!("{overlay}{path}"), path, mode).unwrap();
        }
        tree.link(&format!("{overlay}/etc/link"), "../usr/bin/target").unwrap();
        tree.make_directory(&format!("{overlay}/var/empty"), 0o1777, None).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let inside = folder.path().join("etc/ltsp/overlay-dir/etc/tool");
        fs::File::options().write(true).open(inside).unwrap().set_modified(old).unwrap();

        let error = tree.copy_tree(overlay, "/").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/etc/ltsp/overlay-dir/etc/stays"), "{text}");
        assert!(at("etc/stays").is_dir(), "a directory is never thrown away");

        assert_eq!(tree.kind("/lib").unwrap(), Some(Kind::Link("usr/lib".into())));
        assert!(at("usr/lib/systemd/system/x.service").is_file());
        assert_eq!(fs::read_to_string(at("usr/bin/target")).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(at("etc/tool")).unwrap(), "/etc/tool");
        assert_eq!(fs::metadata(at("etc/tool")).unwrap().mtime(), 1_000_000);
        assert!(at("etc/becomes-a-folder/file").is_file());
        assert!(at("etc/dangling/file").is_file());
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("etc/tool"), 0o750);
        assert_eq!(mode("usr/local/sbin/setuid"), 0o4755);
        assert_eq!(mode("var/empty"), 0o1777);
        assert_eq!(tree.kind("/etc/link").unwrap(), Some(Kind::Link("../usr/bin/target".into())));
    }

    /// A link in the folder is copied as a link: what it leads to may be this machine's own.
    #[test]
    fn nothing_outside_of_the_root_is_read_or_written() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        tree.make_directory("/o/etc", 0o755, None).unwrap();
        symlink(outside.path(), folder.path().join("o/folder")).unwrap();
        symlink(outside.path(), folder.path().join("etc")).unwrap();
        tree.write("/o/etc/file", "text", 0o644).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("o/pipe"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        tree.copy_tree("/o", "/").unwrap();
        assert!(matches!(tree.kind("/folder").unwrap(), Some(Kind::Link(_))));
        assert_eq!(tree.kind("/pipe").unwrap(), None);
        // The link led out of the root, where nothing is.
        assert_eq!(tree.kind("/etc").unwrap(), Some(Kind::Directory));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_holds_too_much_ends_in_time() {
        let (_folder, tree) = tree();
        tree.make_directory(&format!("/o{}", "/d".repeat(DEEPEST + 2)), 0o755, None).unwrap();
        assert!(tree.copy_tree("/o", "/").unwrap_err().to_string().contains("64 levels"));
        tree.write("/a/b/file", "", 0o644).unwrap();
        let error = tree.copy_tree("/a", "/a/b").unwrap_err().to_string();
        assert_eq!(error, "copying /a/b of the new root: refused: it would be copied into itself");
        assert!(tree.copy_tree("/", "/").is_err());
        assert!(tree.copy_tree("/nowhere", "/").is_err());
    }
}
