//! From the initramfs to the real system: moves the API mounts, makes the new root the root,
//! frees the initramfs and becomes the real init.
//!
//! The kernel refuses `pivot_root(2)` on the initial rootfs, so the new root is moved over `/`
//! (Documentation/filesystems/ramfs-rootfs-initramfs.rst). Memory of the initramfs is freed only
//! by removing its files, which is why that is done here, and why it is guarded: it must never
//! happen on anything but a RAM file system.

mod last_program;
mod timestamps;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::SigSet;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use crate::cmdline::KEYS;
use crate::console;
use crate::directives::{Tree, View};
use crate::error::{Cause, Error, Result, WhileDoing};
use crate::keeper::network::orders::{Heal, NetworkOrders};
use crate::keeper::orders::Backing;
use crate::machine::Machine;
use crate::net::Network;
use crate::overlay::NewRoot;
use crate::plan::Plan;
use crate::report::Report;
use crate::sys;
pub use last_program::until;
pub use timestamps::Timestamps;

/// Mounted in the initramfs, and taken along.
const API_MOUNTS: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// Tried in this order when `init=` says nothing, as initramfs-tools does.
pub const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// A boot with everything in place but the new root.
pub struct Handover<'a> {
    root: NewRoot,
    network: Network,
    machine: Machine,
    plan: &'a Plan,
}

/// Nothing is left to decide.
pub struct Ready {
    root: NewRoot,
    init: PathBuf,
    /// `init=`
    asked: Option<String>,
    arguments: Vec<OsString>,
    /// For the keeper; none for who has asked in vain what is to be kept.
    pub network: Option<NetworkOrders>,
}

/// Makes `/dev`, `/proc`, `/sys` and `/run` visible in the new root as well, for the commands that
/// run in it before it is the root.
///
/// Bound and not moved, because the agent itself still needs them.
pub fn bind_api_mounts(root: &NewRoot) -> Result<()> {
    for api in API_MOUNTS {
        let target = inside(root.path(), api);
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::refused(
                    format!("preparing {api} of the root image"),
                    "it is not a directory",
                ));
            }
            Err(_) => {
                fs::create_dir(&target)
                    .while_doing(|| format!("creating {api} in the new root"))?;
            }
        }
        sys::mount::bind_tree(Path::new(api), &target)?;
    }
    Ok(())
}

/// Takes [`bind_api_mounts`] back. What still runs in the root keeps what it has open.
fn unbind_api_mounts(root: &NewRoot) {
    for api in API_MOUNTS {
        if let Err(error) = sys::mount::detach(&inside(root.path(), api)) {
            log::warn!(target: "handover", "{error}");
        }
    }
}

impl<'a> Handover<'a> {
    pub fn new(root: NewRoot, network: Network, machine: Machine, plan: &'a Plan) -> Self {
        Self { root, network, machine, plan }
    }

    /// Finds the real init, and lets go of the drivers and of the network.
    ///
    /// # Errors
    /// There is no init in the image that could be started.
    pub fn prepare(self, report: &mut Report) -> Result<Ready> {
        let waiting = self.root.waiting();
        let tree = Tree::open(self.root.path())?;
        let init = choose_init(&tree, self.plan.init.as_deref())?;
        drop(waiting);
        report.add_choice("init", init.to_string_lossy());
        // Before its modules are removed with the initramfs.
        self.machine.drivers.stop_following();
        // Who renews the lease sets its time again; where nobody does, the root must not end with it.
        if let Err(error) = self.network.make_permanent() {
            log::warn!(target: "network", "{error}; the root may be lost when the lease ends");
        }
        let network = self.network_orders();
        self.network.stop();
        last_program::leave();
        let arguments = kept_arguments(std::env::args_os().skip(1));
        Ok(Ready { root: self.root, init, asked: self.plan.init.clone(), arguments, network })
    }

    /// What a keeper needs in order to keep the network.
    fn network_orders(&self) -> Option<NetworkOrders> {
        let root = self.root.image().orders();
        let servers = root.sources.iter().map(|source| source.peer.address.ip()).collect();
        let heal = match self.machine.request.heal {
            Some(true) => Heal::Always,
            None if root.backing != Backing::Memory => Heal::WhileStreamed,
            Some(false) | None => Heal::Never,
        };
        let orders = self.network.orders(servers, heal);
        orders
            .inspect_err(|error| log::warn!(target: "network", "{error}; the network is not kept"))
            .ok()
    }
}

impl Ready {
    /// Leaves the new root as the init of another initramfs expects it: nothing of ours mounted in
    /// it but the layers of the root, and an init where the command line says that one is.
    pub fn withdraw(self) -> Result<Self> {
        unbind_api_mounts(&self.root);
        if let Some(asked) = self.asked.as_deref().filter(|asked| Path::new(asked) != self.init) {
            let tree = Tree::open(self.root.path())?;
            let init = self.init.to_string_lossy();
            match tree.link(asked, &init) {
                Ok(()) => {
                    log::info!(target: "handover", "init={asked} is a link to {init} in the new root");
                }
                Err(error) => {
                    log::warn!(target: "handover", "{error}; init={asked} may be insisted on")
                }
            }
        }
        Ok(self)
    }

    /// Writes down what the host's init may want to know, gives the console back, and gives the
    /// path of the init to start.
    pub fn hand_back(self, report: &Report) -> PathBuf {
        write_report(report);
        let written = fs::write("/run/landfall/init", format!("{}\n", self.init.display()));
        if let Err(error) = written.while_doing(|| "writing /run/landfall/init") {
            log::warn!(target: "handover", "{error}");
        }
        console::repeat_warnings();
        log::info!(
            target: "handover",
            "{} is mounted after {:.2} s ({}); its init is {}",
            self.root.path().display(),
            report.seconds,
            report.one_line(),
            self.init.display()
        );
        console::leave();
        self.init
    }

    /// Never returns, unless it fails; after the initramfs is gone there is no way back.
    ///
    /// An init that understands `timestamps` gets them.
    pub fn exec(self, report: &Report, timestamps: Option<Timestamps>) -> Result<Infallible> {
        write_report(report);
        console::repeat_warnings();
        log::info!(
            target: "handover",
            "{} after {:.2} s ({})",
            self.init.display(),
            report.seconds,
            report.one_line()
        );
        let initramfs = open_initramfs()?;
        console::leave();
        switch_root(self.root.path())?;
        if let Some(initramfs) = initramfs {
            free(&initramfs);
        }
        SigSet::empty().thread_set_mask().while_doing(|| "unblocking signals for the real init")?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // The descriptors we have were opened on the initramfs' own node.
        let console = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY)
                .open("/dev/console")
        };
        let become_it = |more: &[String]| {
            let mut command = Command::new(&self.init);
            let more = more.iter().map(OsStr::new);
            command.args(more.chain(self.arguments.iter().map(OsString::as_os_str)));
            command.current_dir("/").env_clear().envs(environment());
            if let (Ok(stdin), Ok(stdout), Ok(stderr)) = (console(), console(), console()) {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            // Also puts SIGPIPE back, which Rust's runtime ignores.
            command.exec()
        };
        if let Some(timestamps) = timestamps.filter(|_| timestamps::are_understood_by(&self.init)) {
            become_it(&timestamps.arguments());
        }
        Err(Error::new(format!("executing {}", self.init.display()), become_it(&[])))
    }
}

/// The init to execute: `init=` if it can be, else the first candidate that can.
///
/// # Errors
/// None of them is there and can be executed here; says what is wrong with each.
pub fn choose_init(root: &dyn View, asked: Option<&str>) -> Result<PathBuf> {
    // The init of LTSP does once more what the agent has just done.
    let asked = asked.filter(|path| {
        let ltsp = path.ends_with("/init-ltsp");
        if ltsp {
            log::info!(target: "handover", "init={path} is what Landfall replaces; taking the usual init");
        }
        !ltsp
    });
    let mut tried = Vec::new();
    for path in asked.into_iter().chain(INITS) {
        match can_be_executed(root, path) {
            Ok(()) => {
                if let (Some(asked), true) = (asked, !tried.is_empty()) {
                    log::warn!(target: "handover", "init={asked} cannot be started; taking {path}");
                }
                return Ok(PathBuf::from(path));
            }
            Err(why) => tried.push(format!("{path}: {why}")),
        }
    }
    Err(Error::refused("looking for an init in the root image", tried.join("; "))
        .with_hint("is this export the image of a system? init=PATH names another init"))
}

/// Follows symbolic links as the new root will see them.
fn can_be_executed(root: &dyn View, path: &str) -> Result<(), String> {
    // The exec itself comes after the initramfs is gone, with its rescue shell: hence a look at
    // what the kernel will look at.
    let program = match root.read(path) {
        Ok(Some(program)) => program,
        Ok(None) => return Err("not there".to_owned()),
        Err(error) => match error.cause() {
            Cause::Refused(_) => return Err("not a file".to_owned()),
            cause => return Err(cause.to_string()),
        },
    };
    if !root.is_executable(path) {
        return Err("not executable".to_owned());
    }
    match program_of(program.get(..256).unwrap_or(&program))? {
        Some(interpreter) if !root.exists(interpreter) => {
            Err(format!("its interpreter {interpreter} is not there"))
        }
        _ => Ok(()),
    }
}

/// What the first bytes say: the interpreter of a script, or a program of this machine.
fn program_of(head: &[u8]) -> Result<Option<&str>, String> {
    /// EM_AARCH64 and EM_ARM, EM_X86_64 and EM_386 (elf(5)): a 64-bit kernel runs both.
    const OURS: [u16; 2] = if cfg!(target_arch = "aarch64") { [183, 40] } else { [62, 3] };
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = std::str::from_utf8(line).map_err(|_| "a script without interpreter")?;
        return Ok(line.split_ascii_whitespace().next());
    }
    match (head.strip_prefix(b"\x7fELF"), head.get(18..20)) {
        (Some(_), Some(&[low, high])) if OURS.contains(&u16::from_le_bytes([low, high])) => {
            Ok(None)
        }
        (Some(_), _) => Err(format!("not a program for {}", std::env::consts::ARCH)),
        (None, _) => Err("neither a program nor a script".to_owned()),
    }
}

/// What the kernel handed us for the real init, without the bare words that are keys of ours.
fn kept_arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments
        .filter(|argument| {
            !KEYS.iter().any(|key| key.value.is_empty() && argument == key.name)
                && argument != "break"
        })
        .collect()
}

/// The kernel puts every `NAME=value` it does not know into our environment; none of that is the
/// real init's, which reads `/proc/cmdline` itself.
fn environment() -> [(&'static str, String); 3] {
    [
        ("HOME", "/".to_owned()),
        ("TERM", std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned())),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
    ]
}

/// The report is a convenience; a `/run` that cannot take it does not stop a boot.
fn write_report(report: &Report) {
    let directory = Path::new("/run/landfall");
    let written = serde_json::to_vec_pretty(report)
        .map_err(std::io::Error::other)
        .and_then(|json| {
            fs::create_dir_all(directory)?;
            fs::write(directory.join("report.json"), json)
        })
        .while_doing(|| "writing /run/landfall/report.json");
    if let Err(error) = written {
        log::warn!(target: "handover", "{error}");
    }
}

fn switch_root(root: &Path) -> Result<()> {
    sys::mount::make_all_private()?;
    for api in API_MOUNTS {
        sys::mount::detach(Path::new(api))?;
    }
    std::env::set_current_dir(root).while_doing(|| format!("entering {}", root.display()))?;
    sys::mount::move_to(Path::new("."), Path::new("/"))?;
    rustix::process::chroot(".").while_doing(|| "making the new root the root")?;
    std::env::set_current_dir("/").while_doing(|| "entering the new root")
}

/// The root of the initramfs, if it is one: `None` on a disk, where nothing must be removed.
fn open_initramfs() -> Result<Option<OwnedFd>> {
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let statistics = rustix::fs::statfs("/").while_doing(|| "looking at the initramfs")?;
    let magic = u64::try_from(statistics.f_type).unwrap_or_default();
    if !Path::new("/init").exists() || ![RAMFS_MAGIC, TMPFS_MAGIC].contains(&magic) {
        log::debug!(target: "handover", "/ is not an initramfs; its files stay");
        return Ok(None);
    }
    open_directory(Path::new("/")).map(Some)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .while_doing(|| format!("opening {}", path.display()))
}

/// Removes everything on the file system of `directory`; what cannot be removed costs memory and
/// nothing else.
fn free(directory: &OwnedFd) {
    if let Ok(stat) = rustix::fs::fstat(directory) {
        remove_contents(directory, &stat, 0);
    }
}

fn remove_contents(directory: &OwnedFd, filesystem: &Stat, depth: u8) {
    // No initramfs nests so deep; a stack of PID 1 ends somewhere.
    if depth > 64 {
        return;
    }
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        // Never across a mount: the layers of the root are still mounted here.
        if stat.st_dev != filesystem.st_dev {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            continue;
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if let Ok(child) = rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()) {
            remove_contents(&child, filesystem, depth + 1);
        }
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR);
    }
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn executable(root: &Path, path: &str, mode: u32) {
        let path = inside(root, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/lib/systemd/systemd\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_init_is_found_through_absolute_links_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        executable(root.path(), "/lib/systemd/systemd", 0o755);
        fs::create_dir(root.path().join("sbin")).unwrap();
        symlink("/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        let init = |asked| choose_init(&tree, asked).unwrap();
        assert_eq!(init(None), Path::new("/sbin/init"));
        assert_eq!(init(Some("/lib/systemd/systemd")), Path::new("/lib/systemd/systemd"));
        assert_eq!(init(Some("/sbin/init-ltsp")), Path::new("/sbin/init")); // the seed's
        assert_eq!(init(Some("/nowhere")), Path::new("/sbin/init"));
    }

    #[test]
    fn an_image_without_an_init_is_told_what_was_tried() {
        let root = tempfile::tempdir().unwrap();
        executable(root.path(), "/sbin/init", 0o644);
        fs::create_dir_all(root.path().join("bin/sh")).unwrap();
        let error = choose_init(&Tree::open(root.path()).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("/sbin/init: not executable"), "{error}");
        assert!(error.contains("/etc/init: not there"), "{error}");
        assert!(error.contains("/bin/sh: not a file"), "{error}");
    }

    #[test]
    #[rustfmt::skip]
    fn what_the_kernel_would_not_execute_is_known_before_the_initramfs_is_gone() {
        let elf = |machine: u8| [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], &[3, 0, machine, 0]].concat();
        let ours = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        let cases = [
            (elf(ours),                         Ok(None)),
            (elf(243),                          Err("not a program for")), // RISC-V
            (b"#!/bin/sh -e\nexit".to_vec(),    Ok(Some("/bin/sh"))),
            (b"#! /usr/bin/env sh\n".to_vec(),  Ok(Some("/usr/bin/env"))),
            (b"#!\xff\n".to_vec(),              Err("without interpreter")),
            (b"".to_vec(),                      Err("neither")),
        ];
        for (head, expected) in cases {
            match (program_of(&head), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (got, expected) => panic!("{got:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn the_words_of_the_agent_do_not_reach_the_real_init() {
        let given = ["single", "toram", "break", "quiet", "--unit=rescue.target"];
        let kept = kept_arguments(given.iter().map(OsString::from));
        assert_eq!(kept, ["single", "--unit=rescue.target"]);
    }

    #[test]
    fn freeing_removes_links_and_not_what_they_point_to() {
        let keep = tempfile::tempdir().unwrap();
        fs::write(keep.path().join("precious"), "x").unwrap();
        let initramfs = tempfile::tempdir().unwrap();
        fs::create_dir_all(initramfs.path().join("lib/modules/6.1")).unwrap();
        fs::write(initramfs.path().join("lib/modules/6.1/nbd.ko"), "x").unwrap();
        symlink(keep.path(), initramfs.path().join("link")).unwrap();
        free(&open_directory(initramfs.path()).unwrap());
        assert_eq!(fs::read_dir(initramfs.path()).unwrap().count(), 0);
        assert!(keep.path().join("precious").exists());
    }
}
