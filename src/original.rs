//! Stepping aside: in an initramfs that was made for another init, a boot that is not ours goes to
//! that init as if we had never been there.
//!
//! Looks at the command line and at nothing else, through a `/proc` that is mounted nowhere, and
//! changes nothing.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

use crate::cmdline::{NotOurs, claim, of_this_boot, words};
use crate::error::{Error, Result, WhileDoing};
use crate::sys;

/// Where the hooks keep the init that was `/init` before us.
const KEPT: &str = "/init.original";

/// Becomes the image's other init, if there is one and the command line is not for us.
///
/// Returns `Ok` when the boot is ours.
///
/// # Errors
/// There is such an init, and it cannot be executed.
pub fn step_aside() -> Result<()> {
    let proc = match sys::mount::detached("proc") {
        Ok(proc) => proc,
        // The boot will say it better.
        Err(_) => return Ok(()),
    };
    let Some(original) = other_init(Path::new("/"), &proc) else { return Ok(()) };
    let doing = || "reading the kernel command line";
    let cmdline = openat(&proc, "cmdline", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut cmdline = File::from(cmdline.while_doing(doing)?);
    let line = of_this_boot(Path::new("/"), &mut cmdline).while_doing(doing)?.text;
    match claim(&line) {
        Ok(()) => Ok(()),
        Err(why) => {
            drop((cmdline, proc));
            announce(&line, &why, &original);
            become_it(&original).map(|never| match never {})
        }
    }
}

/// The init that was there before us: [`KEPT`], or `/init` where the kernel was told to start us
/// with `rdinit=`.
fn other_init(root: &Path, proc: &OwnedFd) -> Option<PathBuf> {
    let ours = statat(proc, "self/exe", AtFlags::empty()).ok()?;
    let candidates = [KEPT, "/init"];
    candidates.iter().map(|path| root.join(path.trim_start_matches('/'))).find(|path| {
        fs::metadata(path).is_ok_and(|file| {
            let ourselves = (file.dev(), file.ino()) == (ours.st_dev, ours.st_ino);
            file.is_file() && file.permissions().mode() & 0o111 != 0 && !ourselves
        })
    })
}

/// One line, where the kernel has opened its console for us.
fn announce(line: &str, why: &NotOurs, original: &Path) {
    if words(line).iter().any(|word| word.key == "quiet") {
        return;
    }
    let text = format!("landfall: {why}: {} goes on\r\n", original.display());
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// With the arguments and the environment that the kernel gave us, and under the name that the
/// kernel calls it by, whatever `rdinit=` says: a busybox knows by it that it is to be init.
fn become_it(original: &Path) -> Result<Infallible> {
    let arguments = std::env::args_os().skip(1);
    let error = Command::new(original).arg0("/init").args(arguments).exec();
    let error = Error::new(format!("executing {}", original.display()), error);
    Err(error.with_hint("the image's own init was moved there when Landfall was installed"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(root: &Path, name: &str, mode: u32) {
        fs::write(root.join(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_other_init_is_one_that_can_be_executed_and_is_not_ourselves() {
        let root = tempfile::tempdir().unwrap();
        let proc = OwnedFd::from(File::open("/proc").unwrap());
        let found = || {
            let path = other_init(root.path(), &proc)?;
            path.file_name().map(|name| name.to_str().unwrap().to_owned())
        };
        assert_eq!(found(), None, "an empty image");
        symlink(std::env::current_exe().unwrap(), root.path().join("init")).unwrap();
        assert_eq!(found(), None, "our own image");
        file(root.path(), "init.original", 0o644);
        assert_eq!(found(), None, "nothing that could be started");
        file(root.path(), "init.original", 0o755);
        assert_eq!(found().as_deref(), Some("init.original"), "where the hooks keep it");
        fs::remove_file(root.path().join("init")).unwrap();
        fs::remove_file(root.path().join("init.original")).unwrap();
        file(root.path(), "init", 0o755);
        assert_eq!(found().as_deref(), Some("init"), "started by rdinit=");
    }
}
