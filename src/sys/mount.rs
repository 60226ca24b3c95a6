//! Mounts, with the kernel's own words where it has some.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use linux_raw_sys::general::{AT_EMPTY_PATH, AT_RECURSIVE, MS_PRIVATE, mount_attr};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, mount_move, mount_remount, move_mount, open_tree, unmount,
};

use crate::error::{Cause, Error, Result, WhileDoing};

/// Mounts a file system of type `fstype` on `target`, which must exist; on `Err` nothing is left
/// mounted.
///
/// `options` are `key=value` pairs or bare flags, as after `mount -o`. Goes through `fsopen(2)`
/// because its descriptor carries the kernel's reason for a refusal ("overlay: upper fs does not
/// support xattr"), where `mount(2)` only has `EINVAL`.
pub fn mount(
    fstype: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
    target: &Path,
) -> Result<()> {
    let doing = || format!("mounting {fstype} on {}", target.display());
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let error = Error::new(doing(), errno);
        if errno == Errno::NODEV {
            error.with_hint(format!("the kernel has no {fstype}: its module is not in the image"))
        } else {
            error
        }
    })?;
    let attach = || {
        set(&context, options)?;
        fsconfig_create(&context)?;
        let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach().map_err(|errno| match kernels_words(&context) {
        Some(words) => Error::new(doing(), Cause::Refused(words)),
        None => Error::new(doing(), errno),
    })
}

fn set(context: &OwnedFd, options: &[(&str, Option<&str>)]) -> rustix::io::Result<()> {
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context, *key, *value)?,
            None => fsconfig_set_flag(context, *key)?,
        }
    }
    Ok(())
}

/// The last line the kernel left on a mount context, without its severity letter.
fn kernels_words(context: &impl std::os::fd::AsFd) -> Option<String> {
    let mut last = None;
    let mut buffer = [0; 256];
    // Each read is one message; ENODATA ends them.
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(buffer.get(..length)?).trim().to_owned();
        if line.starts_with("e ") || last.is_none() {
            last = Some(line.get(2..).unwrap_or_default().to_owned());
        }
    }
    last.filter(|line| !line.is_empty())
}

/// A new file system of type `fstype` that is mounted nowhere: only who has the descriptor sees
/// it, and it ends with the descriptor and what was opened through it.
pub fn detached(fstype: &str) -> Result<OwnedFd> {
    detached_with(fstype, &[])
}

/// [`detached`] with options of its type, as after `mount -o`.
pub fn detached_with(fstype: &str, options: &[(&str, Option<&str>)]) -> Result<OwnedFd> {
    let mount = || {
        let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
        set(&context, options)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, inert())
    };
    mount().while_doing(|| format!("opening a {fstype} of our own"))
}

/// Mounts what [`detached`] or [`copy_of_tree`] gave.
pub fn attach_detached(tree: &OwnedFd, target: &Path) -> Result<()> {
    attach(tree, target).while_doing(|| format!("mounting on {}", target.display()))
}

/// Makes the tree below `source` visible at `target` as well, with everything mounted in it.
///
/// The two have nothing to do with each other afterwards: were they peers, as a bind below a
/// shared mount is, unmounting the copy would unmount what is in the original too.
pub fn bind_tree(source: &Path, target: &Path) -> Result<()> {
    let bind = || -> io::Result<()> {
        let tree = clone_of(source, OpenTreeFlags::AT_RECURSIVE)?;
        let private = mount_attr { propagation: MS_PRIVATE.into(), ..NOTHING };
        match change(&tree, AT_EMPTY_PATH | AT_RECURSIVE, private) {
            Ok(()) => Ok(attach(&tree, target)?),
            // Before Linux 5.12 it can only be had afterwards.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                attach(&tree, target)?;
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                Ok(mount_change(target, private)?)
            }
            Err(error) => Err(error),
        }
    };
    bind().while_doing(|| format!("binding {} to {}", source.display(), target.display()))
}

/// Moves what is mounted at `source` to `target`, be the mounts around them shared or not: the
/// kernel refuses to move a mount out of a shared one, so it is a copy that moves. What else is
/// mounted in it stays behind.
pub fn relocate(source: &Path, target: &Path) -> Result<()> {
    let copy = clone_of(source, OpenTreeFlags::empty()).and_then(|tree| attach(&tree, target));
    copy.while_doing(|| format!("moving the mount {} to {}", source.display(), target.display()))?;
    detach(source)
}

/// What is mounted at `source` and below, mounted nowhere yet; as private as the original.
pub fn copy_of_tree(source: &Path) -> Result<OwnedFd> {
    clone_of(source, OpenTreeFlags::AT_RECURSIVE)
        .while_doing(|| format!("copying the mounts of {}", source.display()))
}

fn clone_of(source: &Path, how: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | how;
    open_tree(CWD, source, flags)
}

fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Whether `path` is where something is mounted (statx(2), Linux 5.8). Not where it is not there.
pub fn is_mounted(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Lets programs on the mount at `target` be executed. initramfs-tools mounts `/run` without.
pub fn allow_programs(target: &Path) -> Result<()> {
    let doing = || format!("allowing programs on {}", target.display());
    let tree = rustix::fs::open(
        target,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .while_doing(doing)?;
    let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits().into();
    let changed = change(&tree, AT_EMPTY_PATH, mount_attr { attr_clr: noexec, ..NOTHING });
    match changed {
        // Before Linux 5.12, Debian 11's for one.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            allow_programs_by_remount(target).while_doing(doing)
        }
        outcome => outcome.while_doing(doing),
    }
}

/// A remount sets all flags of the mount, so those that are to stay have to be said.
fn allow_programs_by_remount(target: &Path) -> rustix::io::Result<()> {
    let has = statvfs(target)?.f_flag;
    mount_remount(target, MountFlags::BIND | flags_with_programs(has), c"")
}

/// For mount(2), from what statvfs(3) says: the same flags but `noexec`, where they are flags of the
/// mount and not of its file system. Which times of access are kept stays as it is if nothing is
/// said of them (`path_mount` in the kernel's `fs/namespace.c`).
fn flags_with_programs(has: StatVfsMountFlags) -> MountFlags {
    /// `ST_NOSYMFOLLOW`, Linux 5.10, which rustix does not name.
    const NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let kept = pairs.into_iter().filter(|(seen, _)| has.contains(*seen));
    kept.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

const NOTHING: mount_attr = mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// mount_setattr(2), Linux 5.12, which rustix does not have.
fn change(mount: &OwnedFd, flags: u32, change: mount_attr) -> io::Result<()> {
    const HERE: &CStr = c"";
    // SAFETY: the path ends with a zero and `change` is a `mount_attr` of the size that is passed;
    // both live until the call returns, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            HERE.as_ptr(),
            flags,
            std::ptr::from_ref(&change),
            size_of::<mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub fn move_to(source: &Path, target: &Path) -> Result<()> {
    mount_move(source, target)
        .while_doing(|| format!("moving the mount {} to {}", source.display(), target.display()))
}

/// Detaches `target` at once; the kernel lets go of it when its last user has.
pub fn detach(target: &Path) -> Result<()> {
    unmount(target, UnmountFlags::DETACH).while_doing(|| format!("unmounting {}", target.display()))
}

/// Moving a mount below a shared one is refused with EINVAL, so nothing may be shared.
pub fn make_all_private() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .while_doing(|| "making all mounts private")
}

/// Flags of the API file systems: no programs, no devices, no set-user-id.
pub fn inert() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub target: PathBuf,
    pub fstype: String,
}

/// What `/proc/self/mountinfo` lists (proc_pid_mountinfo(5)); a line that is none is skipped.
pub fn listed(mountinfo: &str) -> Vec<Mount> {
    let read = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let target = unescaped(head.split(' ').nth(4)?);
        Some(Mount { target, fstype: tail.split(' ').next()?.to_owned() })
    };
    mountinfo.lines().filter_map(read).collect()
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after
            .first_chunk::<3>()
            .filter(|_| *byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*byte));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    Path::new(OsStr::from_bytes(&bytes)).to_owned()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::UnshareFlags;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn programs_are_all_that_a_remount_changes() {
        use MountFlags as Mount;
        use StatVfsMountFlags as Seen;
        let cases = [
            (Seen::NOEXEC,                                              Mount::empty()),
            (Seen::NOSUID | Seen::NODEV | Seen::NOEXEC | Seen::RELATIME, Mount::NOSUID | Mount::NODEV), // initramfs-tools' /run
            (Seen::RDONLY | Seen::SYNCHRONOUS | Seen::MANDLOCK,         Mount::RDONLY), // the others are the file system's
            (Seen::NOATIME | Seen::NODIRATIME,                          Mount::empty()), // stay, unsaid
            (Seen::from_bits_retain(0x2020),                            Mount::NOSYMFOLLOW), // and ST_VALID
        ];
        for (seen, expected) in cases {
            assert_eq!(flags_with_programs(seen), expected, "{seen:?}");
        }
    }

    /// Without it there is no last program at a shutdown, and no `landfall status`.
    #[test]
    #[ignore = "needs to be root"]
    fn programs_can_be_allowed_on_every_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_owned();
        let work = move || {
            // SAFETY: this thread alone gets mounts of its own.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
            make_all_private().unwrap();
            let attributes = inert() | MountAttrFlags::MOUNT_ATTR_NOATIME;
            mount("tmpfs", &[], attributes, &here).unwrap();
            let expected =
                StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV | StatVfsMountFlags::NOATIME;
            let known = expected | StatVfsMountFlags::NOEXEC | StatVfsMountFlags::RELATIME;
            let flags = || statvfs(&here).unwrap().f_flag & known;
            assert_eq!(flags(), expected | StatVfsMountFlags::NOEXEC);
            allow_programs_by_remount(&here).unwrap();
            assert_eq!(flags(), expected, "by mount(2)");

            let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits().into();
            let tree = copy_of_tree(&here).unwrap();
            change(&tree, AT_EMPTY_PATH, mount_attr { attr_set: noexec, ..NOTHING }).unwrap();
            attach_detached(&tree, &here).unwrap();
            assert_eq!(flags(), expected | StatVfsMountFlags::NOEXEC);
            allow_programs(&here).unwrap();
            assert_eq!(flags(), expected, "by mount_setattr(2)");
        };
        thread::spawn(work).join().unwrap();
    }

    #[test]
    #[rustfmt::skip]
    fn paths_are_unescaped() {
        let cases = [
            (r"/plain",        "/plain"),
            (r"/a\040b\011c",  "/a b\tc"),
            (r"/a\134040",     r"/a\040"),   // the backslash itself
            (r"/end\04",       r"/end\04"),  // the kernel writes no such thing
            (r"/no\999",       r"/no\999"),
        ];
        for (field, expected) in cases {
            assert_eq!(unescaped(field), Path::new(expected), "{field}");
        }
    }
}
