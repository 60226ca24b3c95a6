//! Mounts, with the kernel's own words where it has some.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use linux_raw_sys::general::{AT_EMPTY_PATH, AT_RECURSIVE, MS_PRIVATE, mount_attr};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, mount_move, move_mount, open_tree, unmount,
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
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(&context, *key, *value)?,
                None => fsconfig_set_flag(&context, *key)?,
            }
        }
        fsconfig_create(&context)?;
        let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach().map_err(|errno| match kernels_words(&context) {
        Some(words) => Error::new(doing(), Cause::Refused(words)),
        None => Error::new(doing(), errno),
    })
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
/// it, and it ends with the descriptor.
pub fn detached(fstype: &str) -> Result<OwnedFd> {
    let mount = || {
        let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, inert())
    };
    mount().while_doing(|| format!("opening a {fstype} of our own"))
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
    change(&tree, AT_EMPTY_PATH, mount_attr { attr_clr: noexec, ..NOTHING }).while_doing(doing)
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
