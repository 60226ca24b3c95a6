//! The root that the running system sees: the image below, a memory file system above.
//!
//! Takes a [`RootImage`], gives a [`NewRoot`] that is ready to be moved to `/`. In it the pristine
//! image is visible at `/rofs` and all changes at `/cow/up`, which configurations rely on
//! (`cp /rofs/etc/ssh/*_config /etc/ssh`); LTSP's own names. Nothing is ever written to the image.
//!
//! Options of the overlay, and those left out on purpose:
//!
//! - `xino=off`: with it every inode number has its highest bits set, and programs of 32 bits get
//!   EOVERFLOW from stat(2). In return, files from the image and files from memory differ in
//!   `st_dev`, which only `tar --one-file-system` minds; directories do not.
//! - `index=off`: hard links of the image break on the first write, and in return no copy needs an
//!   entry in an index; nothing exports this root by NFS.
//! - `metacopy=off`: a `chown` copies the file, and `/cow/up` has whole files only.
//! - no `volatile`: it saves syncs, which cost nothing in memory, and makes every later sync fail
//!   once one has failed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use crate::console;
use crate::error::{Error, Result, WhileDoing};
use crate::root::{Load, RootImage};
use crate::sys::mount;

/// How the changes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayPlan {
    /// Most that the changes may take, as tmpfs understands it (`50%`, `2G`); `None` for half of
    /// the memory.
    pub size: Option<String>,
}

/// A complete root, mounted. Only [`mount`] makes one.
#[derive(Debug)]
pub struct NewRoot {
    path: PathBuf,
    image: RootImage,
}

impl NewRoot {
    /// Where it is mounted now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn image(&self) -> &RootImage {
        &self.image
    }

    /// To be held while files of the root are read: a streamed root whose server has died answers
    /// to nobody, and the operator should know whom everything waits for.
    pub fn waiting(&self) -> Option<console::Waiting> {
        let server = self.image.server();
        let streamed = !self.image.is_in_ram();
        streamed.then(|| console::waiting("root", format!("the root, served by {server}")))
    }
}

/// Where the layers are mounted until the root exists. Below `/run`, which is writable and a memory
/// file system in everybody's initramfs. /proc/mounts goes on to show these paths as the overlay's
/// `lowerdir` and `upperdir`; in the running system the layers are at `/rofs` and `/cow`.
pub const LAYERS: &str = "/run/landfall/layers";

/// Mounts `image` and a layer for changes, one over the other, at `sysroot`.
///
/// On `Err` nothing is left mounted.
pub fn mount(
    image: RootImage,
    plan: &OverlayPlan,
    sysroot: &Path,
    load: Load<'_>,
) -> Result<NewRoot> {
    load("overlay", &[])?;
    // Beside the root first, and into it when it exists.
    let layers = Path::new(LAYERS);
    for folder in [layers, sysroot] {
        fs::create_dir_all(folder).while_doing(|| format!("creating {}", folder.display()))?;
    }
    let rofs = Layer::mount_image(&image, &layers.join("rofs"))?;
    let cow = Layer::mount_changes(plan, &layers.join("cow"))?;
    let upper = cow.path.join("up");
    let work = cow.path.join("work");
    make_like(&rofs.path, &upper)?;
    fs::create_dir(&work).while_doing(|| format!("creating {}", work.display()))?;

    let options = [
        ("source", "overlay"),
        ("lowerdir", utf8(&rofs.path)?),
        ("upperdir", utf8(&upper)?),
        ("workdir", utf8(&work)?),
        ("xino", "off"),
        ("index", "off"),
        ("metacopy", "off"),
    ];
    let options = options.map(|(key, value)| (key, Some(value)));
    mount::mount("overlay", &options, MountAttrFlags::empty(), sysroot)?;
    let root = Layer { path: sysroot.to_owned(), keep: false };
    // The overlay holds its layers itself; what moves is only where they can be looked at.
    rofs.move_into(sysroot)?;
    cow.move_into(sysroot)?;
    root.keep();
    remove_mount_point(layers);
    Ok(NewRoot { path: sysroot.to_owned(), image })
}

/// A mount that is undone unless it is kept.
struct Layer {
    path: PathBuf,
    keep: bool,
}

impl Layer {
    fn mount_image(image: &RootImage, at: &Path) -> Result<Self> {
        create_mount_point(at)?;
        let device = utf8(image.device())?;
        let mut options = vec![("source", Some(device)), ("ro", None)];
        // Replaying the journal would write to the image, even when mounting it read-only.
        if ["ext3", "ext4"].contains(&image.fstype()) {
            options.push(("noload", None));
        }
        options.extend(flags(image.flags()));
        let attributes = second_view() | MountAttrFlags::MOUNT_ATTR_RDONLY;
        // The kernel reads from the server here, and waits for one that dies just now.
        let _waiting = console::waiting("root", format!("{} to be read", image.device().display()));
        mount::mount(image.fstype(), &options, attributes, at).map_err(|error| {
            let doing = format!("mounting the image ({})", image.description());
            // Most file systems explain themselves there only.
            Error::new(doing, error).with_hint("the kernel log may say more")
        })?;
        Ok(Self { path: at.to_owned(), keep: false })
    }

    fn mount_changes(plan: &OverlayPlan, at: &Path) -> Result<Self> {
        create_mount_point(at)?;
        let size = plan.size.as_deref().unwrap_or("50%");
        let options = [("source", Some("cow")), ("mode", Some("0755")), ("size", Some(size))];
        mount::mount("tmpfs", &options, second_view(), at)
            .while_doing(|| format!("making a layer of {size} for changes"))?;
        Ok(Self { path: at.to_owned(), keep: false })
    }

    /// Moves the mount to the same name in `root`, and removes the mount point left behind.
    fn move_into(mut self, root: &Path) -> Result<()> {
        let target = root.join(self.path.file_name().unwrap_or_default());
        create_mount_point(&target)?;
        mount::relocate(&self.path, &target)?;
        let left = std::mem::replace(&mut self.path, target);
        remove_mount_point(&left);
        self.keep = true;
        Ok(())
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = mount::detach(&self.path)
        {
            log::debug!(target: "root", "{error}");
        }
    }
}

fn remove_mount_point(path: &Path) {
    if let Err(error) = fs::remove_dir(path) {
        log::debug!(target: "root", "removing {}: {error}", path.display());
    }
}

/// `/rofs` and `/cow` show files that have a place in `/` already: no programs with more rights
/// and no devices are needed there a second time. Programs stay: people chroot into `/rofs`.
fn second_view() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

/// The overlay shows the owner and mode of its upper directory as those of `/`.
fn make_like(model: &Path, directory: &Path) -> Result<()> {
    let doing = || format!("making {} like the root of the image", directory.display());
    let wanted = fs::metadata(model).while_doing(doing)?;
    fs::create_dir(directory).while_doing(doing)?;
    chown(directory, Some(wanted.uid()), Some(wanted.gid())).while_doing(doing)?;
    let mode = fs::Permissions::from_mode(wanted.mode() & 0o7777);
    fs::set_permissions(directory, mode).while_doing(doing)
}

/// An image may have something else of that name, such as a link that another overlay script
/// left; a mount would follow it out of the new root. It makes way, in the layer of changes.
fn create_mount_point(path: &Path) -> Result<()> {
    let doing = || format!("creating {}", path.display());
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(path).while_doing(doing)?,
        Err(_) => {}
    }
    fs::create_dir(path).while_doing(doing)
}

/// Mount options as after `mount -o`. What belongs to the mount, and not to the file system, has
/// no place in a root that is read-only anyway.
fn flags(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    const GENERIC: [&str; 7] = ["", "defaults", "ro", "rw", "auto", "noatime", "relatime"];
    text.split(',').map(str::trim).filter(|flag| !GENERIC.contains(flag)).map(|flag| {
        match flag.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (flag, None),
        }
    })
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::invalid(format!("mounting {}", path.display()), "a path in no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn rootflags_are_those_of_the_file_system() {
        let cases = [
            ("",                         vec![]),
            ("ro,defaults",              vec![]),
            ("errors=panic, threads=2,", vec![("errors", Some("panic")), ("threads", Some("2"))]),
            ("rw,norecovery,a=b=c",      vec![("norecovery", None), ("a", Some("b=c"))]),
        ];
        for (text, expected) in cases {
            assert_eq!(flags(text).collect::<Vec<_>>(), expected, "rootflags={text}");
        }
    }
}
