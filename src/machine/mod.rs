//! The first minute: the API file systems, the console, the command line, who this machine is,
//! and its drivers.
//!
//! Takes nothing, gives a [`Machine`]; after it there is a console to fail on. Drivers load in
//! the background from here on, beside everything that only needs some of them.

mod identity;
pub mod modules;

use std::fs;
use std::path::Path;
use std::thread;

use caps::{CapSet, Capability};
use rustix::mount::MountAttrFlags;

pub use identity::Identity;

use crate::cmdline::{Line, Request, of_this_boot};
use crate::console::{self, Loudness};
use crate::error::{Error, Result, WhileDoing};
use crate::machine::identity::memory_kib;
use crate::machine::modules::Drivers;
use crate::sys;

/// What we are to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// PID 1 of the initramfs: everything is ours, to the exec of the real init.
    Init,
    /// A program that another init has started to mount the root, and which hands back to it.
    RootHandler,
}

/// What the machine is, once the kernel's own file systems are there to tell.
pub struct Machine {
    /// What the kernel command line asks for.
    pub request: Request,
    pub identity: Identity,
    pub drivers: Drivers,
    /// `MemTotal`.
    pub memory_kib: u64,
}

/// Mounts `/proc`, `/sys`, `/dev` and `/run` where another init has not, takes the consoles, and
/// starts loading drivers for everything that is there or appears, as far as nobody else does.
///
/// # Errors
/// A kernel without one of these file systems, or rights that do not suffice for a boot.
pub fn start(role: Role) -> Result<Machine> {
    mount_api_filesystems()?;
    check_capabilities()?;
    let line = line()?;
    let mut request = Request::read(&line.text);
    line.locate(&mut request.problems);
    let command_line = line.text;
    console::attach(loudness(&request), request.kernel_is_loud);
    log::info!(
        target: "landfall",
        "version {} on Linux {} ({})",
        env!("CARGO_PKG_VERSION"),
        rustix::system::uname().release().to_string_lossy(),
        std::env::consts::ARCH,
    );
    log::debug!(target: "landfall", "command line: {command_line}");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let drivers = Drivers::new(Path::new("/"), &release, &command_line);
    load_in_background(&drivers, role == Role::RootHandler && udev_is_at_work());
    Ok(Machine {
        request,
        identity: Identity::read(Path::new("/sys")),
        drivers,
        memory_kib: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| memory_kib(&text))
            .unwrap_or_default(),
    })
}

/// The command line, with what the image adds to it.
pub fn command_line() -> Result<String> {
    line().map(|line| line.text)
}

fn line() -> Result<Line> {
    let read = || of_this_boot(Path::new("/"), &mut fs::File::open("/proc/cmdline")?);
    read().while_doing(|| "reading the kernel command line from /proc/cmdline")
}

/// The host's udev loads what the devices ask for, by rules and blacklists of its own.
fn udev_is_at_work() -> bool {
    Path::new("/run/udev/control").exists()
}

/// Everything present first, then what every boot of ours needs later, so that its load time
/// falls into the wait for the network. Beside udev only network devices that it has left without
/// a driver.
fn load_in_background(drivers: &Drivers, beside_udev: bool) {
    if !beside_udev && let Err(error) = drivers.follow() {
        log::warn!(target: "drivers", "{error}; devices that appear later get no driver");
    }
    let drivers = drivers.clone();
    let spawned = thread::Builder::new().name("drivers".into()).spawn(move || {
        if beside_udev {
            drivers.settle_network();
        } else {
            drivers.settle_present();
        }
        log::info!(target: "drivers", "{}", drivers.loaded_summary());
        for (module, options) in crate::root::MODULES_OF_EVERY_BOOT {
            // Whoever needs it asks again, and reports a failure where it matters.
            if let Err(error) = drivers.require_with(module, options) {
                log::debug!(target: "drivers", "{error}");
            }
        }
    });
    if let Err(error) = spawned {
        let error = Error::new("starting the thread that loads drivers", error);
        log::warn!(target: "drivers", "{error}; drivers are loaded only when something asks for them");
    }
}

/// PID 1 of a container looks like PID 1 of a machine until its first mount fails with EPERM.
fn check_capabilities() -> Result<()> {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_MODULE];
    let doing = "checking the capabilities of PID 1";
    for capability in needed {
        let has = caps::has_cap(None, CapSet::Effective, capability)
            .map_err(|error| Error::refused(doing, error.to_string()))?;
        if !has {
            return Err(Error::refused(doing, format!("{capability} is missing"))
                .with_hint("the agent boots machines; it cannot run in a container"));
        }
    }
    Ok(())
}

fn mount_api_filesystems() -> Result<()> {
    let devices = MountAttrFlags::MOUNT_ATTR_NOSUID;
    // With exec, unlike initramfs-tools' /run: systemd keeps our mount, and wants it so.
    let run = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    mount_if_missing("proc", &[], sys::mount::inert(), "/proc")?;
    mount_if_missing("sysfs", &[], sys::mount::inert(), "/sys")?;
    mount_if_missing("devtmpfs", &[("mode", Some("0755"))], devices, "/dev")?;
    mount_if_missing("tmpfs", &[("mode", Some("0755")), ("size", Some("20%"))], run, "/run")
}

/// A host initramfs (or `CONFIG_DEVTMPFS_MOUNT`) may have been here before.
fn mount_if_missing(
    fstype: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
    target: &str,
) -> Result<()> {
    let path = Path::new(target);
    fs::create_dir_all(path).while_doing(|| format!("creating {target}"))?;
    if is_mount_point(path)? {
        // initramfs-tools' /run is noexec, and the running system keeps it.
        if target == "/run"
            && is_noexec(path)
            && let Err(error) = sys::mount::allow_programs(path)
        {
            log::warn!(target: "landfall", "{error}");
        }
        return Ok(());
    }
    // A mount without a source is shown as "none".
    let source = [("source", Some(fstype))];
    let options: Vec<_> = source.iter().chain(options).copied().collect();
    sys::mount::mount(fstype, &options, attributes, path)
}

fn is_noexec(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

fn is_mount_point(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| {
        fs::metadata(path).map(|m| m.dev()).while_doing(|| format!("looking at {}", path.display()))
    };
    Ok(device(path)? != device(Path::new("/"))?)
}

fn loudness(request: &Request) -> Loudness {
    match (request.debug, request.quiet) {
        (true, _) => Loudness::Debug,
        (false, true) => Loudness::Quiet,
        (false, false) => Loudness::Normal,
    }
}
