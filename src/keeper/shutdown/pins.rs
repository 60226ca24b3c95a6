//! What a shutdown needs of the root, kept in memory while the root depends on a server: PID 1 and
//! its libraries, systemd-shutdown, which it becomes, and the commands and units that lead there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::error::{Result, WhileDoing};
use crate::sys::pinned::Pinned;

/// For all of it; Debian 13 needs less than half.
pub const MOST_BYTES: u64 = 48 << 20;

/// Beside PID 1's program.
const BESIDE: [&str; 2] = ["systemd-shutdown", "systemd-executor"];

/// What is executed or read to ask for a shutdown; those that are not there are not missed.
const ASKED_WITH: &[&str] = &[
    "/usr/bin/systemctl",
    "/sbin/reboot",
    "/sbin/poweroff",
    "/sbin/halt",
    "/sbin/shutdown",
    "/sbin/telinit",
    "/bin/sh",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/usr/lib/os-release",
];

/// Units that systemd loads only when somebody asks for them.
const UNITS: &[&str] = &[
    "reboot.target",
    "poweroff.target",
    "halt.target",
    "kexec.target",
    "exit.target",
    "soft-reboot.target",
    "final.target",
    "umount.target",
    "shutdown.target",
    "systemd-reboot.service",
    "systemd-poweroff.service",
    "systemd-halt.service",
    "systemd-kexec.service",
    "systemd-soft-reboot.service",
];

/// Where units may be, those of the administrator and of the vendor.
const UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Programs that take part in the asking, as the kernel names them.
const HELPERS: [&str; 4] = ["systemd-logind", "dbus-daemon", "dbus-broker", "systemd-journal"];

/// Takes all of it, as far as it is there and has room. Reads the root, and waits for it.
pub fn take() -> Result<Vec<Pinned>> {
    let doing = || "keeping what a shutdown needs in memory";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/proc/1/root", flags, Mode::empty()).while_doing(doing)?;
    let mut seen = HashSet::new();
    let mut left = MOST_BYTES;
    let mut pins = Vec::new();
    for path in wanted() {
        let Some(file) = open(&root, &path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        let length = metadata.len();
        // A file has several names: links, and the one that PID 1 was started by.
        if !metadata.is_file() || length == 0 || !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if length > left {
            log::debug!(target: "shutdown", "{} is too large to be kept in memory", path.display());
            continue;
        }
        match Pinned::new(&file, bytes) {
            Ok(pinned) => {
                left = left.saturating_sub(length);
                pins.push(pinned);
            }
            Err(error) => {
                log::debug!(target: "shutdown", "keeping {} in memory: {error}", path.display());
            }
        }
    }
    Ok(pins)
}

/// In the order of their importance.
fn wanted() -> Vec<PathBuf> {
    let mut wanted = mapped("1");
    if let Some(folder) = fs::read_link("/proc/1/exe").ok().as_deref().and_then(Path::parent) {
        wanted.extend(BESIDE.map(|name| folder.join(name)));
    }
    wanted.extend(ASKED_WITH.iter().map(PathBuf::from));
    for folder in UNIT_FOLDERS {
        wanted.extend(UNITS.iter().map(|unit| Path::new(folder).join(unit)));
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if HELPERS.contains(&comm.trim()) {
            wanted.extend(mapped(&entry.file_name().to_string_lossy()));
        }
    }
    wanted
}

fn mapped(pid: &str) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    files_of(&maps)
}

/// The files in `/proc/PID/maps` (proc_pid_maps(5)) that are the root's.
fn files_of(maps: &str) -> Vec<PathBuf> {
    const ELSEWHERE: [&str; 5] = ["/memfd:", "/dev/", "/run/", "/SYSV", "/anon_hugepage"];
    let mut files: Vec<PathBuf> = Vec::new();
    for line in maps.lines() {
        let Some(at) = line.find('/') else { continue };
        let path = line.get(at..).unwrap_or_default();
        let gone = path.ends_with(" (deleted)");
        if !gone && !ELSEWHERE.iter().any(|place| path.starts_with(place)) {
            files.push(PathBuf::from(path));
        }
    }
    files.dedup();
    files
}

/// Links lead where they lead for PID 1.
fn open(root: &OwnedFd, path: &Path) -> Option<File> {
    let path = path.strip_prefix("/").ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve).ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_of_a_process_are_those_of_its_root() {
        let maps = "\
55d0-55d1 r--p 00000000 00:1b 123   /usr/lib/systemd/systemd
55d1-55d2 r-xp 00001000 00:1b 123   /usr/lib/systemd/systemd
7f00-7f01 rw-p 00000000 00:00 0 \n7f01-7f02 rw-p 00000000 00:00 0    [heap]
7f02-7f03 r--p 00000000 00:1b 124   /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 rw-s 00000000 00:01 9     /memfd:data (deleted)
7f04-7f05 r--p 00000000 00:1b 125   /usr/lib/old.so (deleted)
7f05-7f06 r--s 00000000 00:1b 126   /run/x
7f06-7f07 r--p 00000000 00:1b 127   /opt/with a blank.so
";
        let expected = [
            "/usr/lib/systemd/systemd",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/opt/with a blank.so",
        ];
        assert_eq!(files_of(maps), expected.map(PathBuf::from));
    }

    #[test]
    fn a_link_stays_in_the_root_of_pid_1() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("usr")).unwrap();
        fs::write(root.path().join("usr/program"), "inside").unwrap();
        symlink("/usr/program", root.path().join("program")).unwrap();
        symlink("/etc/hostname", root.path().join("out")).unwrap();
        let opened = OwnedFd::from(File::open(root.path()).unwrap());
        let text = |path: &str| std::io::read_to_string(open(&opened, Path::new(path))?).ok();
        assert_eq!(text("/program").as_deref(), Some("inside"));
        assert_eq!(text("/out"), None);
    }
}
