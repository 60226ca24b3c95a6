//! Mounts, with the kernel's own words where it has some.

use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind_recursive,
    mount_change, mount_move, move_mount, unmount,
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

/// Makes the tree below `source` visible at `target` as well, with everything mounted in it.
pub fn bind_tree(source: &Path, target: &Path) -> Result<()> {
    mount_bind_recursive(source, target)
        .while_doing(|| format!("binding {} to {}", source.display(), target.display()))
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
