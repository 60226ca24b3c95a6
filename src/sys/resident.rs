//! What makes a process outlive the root that it serves.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;
use rustix::thread::UnshareFlags;

use super::mount;
use crate::error::{Error, Result, WhileDoing};

/// Nothing of this process is ever read from a disk again, neither what it has nor what it gets.
///
/// What is there now, the program above all, is read now; what comes later is locked when it is first
/// touched (MCL_ONFAULT, Linux 4.4), or stacks of threads and large buffers would be filled at once.
/// See mlockall(2).
pub fn stay_in_memory() -> Result<()> {
    let doing = || "locking the keeper in memory";
    mlockall(MlockAllFlags::CURRENT).while_doing(doing)?;
    mlockall(MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).while_doing(doing)
}

/// Memory for this process is never freed by writing to, or waiting for, the very devices that it
/// serves (PR_SET_IO_FLUSHER, Linux 5.6, prctl(2)). Threads and children inherit it.
pub fn never_wait_for_storage() -> Result<()> {
    configure_io_flusher_behavior(true).while_doing(|| "becoming an IO flusher")
}

/// The last process that the kernel ends when memory runs out: never (proc(5), oom_score_adj).
pub fn be_spared_by_oom_killer() -> Result<()> {
    fs::write("/proc/self/oom_score_adj", "-1000")
        .while_doing(|| "sparing the keeper from the OOM killer")
}

/// Mounts of its own: a root of the size of its folders, and in it the kernel's file systems and
/// `/run`, which stay the same ones that everybody else has.
///
/// What others mount, move and remove from here on, the initramfs itself for one, is nothing to
/// this process. The new root lies over the old one's `/`, because a mount on any other folder goes
/// when its folder is removed. To be called before there is a second thread.
pub fn take_own_mounts(kept: &[&str]) -> Result<()> {
    /// On the way only: whatever is there is hidden for a moment, in our own view of it.
    const HERE: &str = "/run";
    // SAFETY: there is one thread, so nobody else's idea of the file system changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .while_doing(|| "taking mounts of our own")?;
    mount::make_all_private()?;
    let trees = kept.iter().map(|folder| Ok((*folder, mount::copy_of_tree(Path::new(folder))?)));
    let trees = trees.collect::<Result<Vec<_>>>()?;
    leave_all_mounts();
    let home = mount::detached_with("tmpfs", &[("size", Some("64k")), ("mode", Some("0755"))])?;
    mount::attach_detached(&home, Path::new(HERE))?;
    for (folder, tree) in trees {
        let at = Path::new(HERE).join(folder.trim_start_matches('/'));
        fs::create_dir(&at).while_doing(|| format!("making room for {folder}"))?;
        mount::attach_detached(&tree, &at)?;
    }
    std::env::set_current_dir(HERE).while_doing(|| "entering a root of our own")?;
    mount::move_to(Path::new("."), Path::new("/"))?;
    rustix::process::chroot(".").while_doing(|| "entering a root of our own")?;
    std::env::set_current_dir("/").while_doing(|| "entering a root of our own")
}

/// Detaches everything but the root, in this process's view: what is only hidden would stay in use
/// after everybody else has unmounted it.
fn leave_all_mounts() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mount::listed(&table);
    // Those on top of others come later.
    for mount in mounts.iter().rev().filter(|mount| mount.target != Path::new("/")) {
        // One that is left hidden is what it would have been without this.
        let _ = mount::detach(&mount.target);
    }
}

/// Leaves the control groups that end with the unit which they belong to, in each hierarchy that
/// systemd puts units in. One that cannot be left is the only one there is.
pub fn leave_control_group() -> Result<()> {
    leave_control_groups_in(Path::new("/sys/fs/cgroup"))
}

/// Of a folder like `/sys/fs/cgroup`: the only hierarchy's root, or with cgroup v1 the folder in
/// which they all are, and with both (systemd's hybrid layout, Debian 10) that too.
///
/// Hierarchies of v1 that only limit something are left alone: no unit is ended by them.
fn leave_control_groups_in(folder: &Path) -> Result<()> {
    const HIERARCHIES: [&str; 3] = ["", "unified", "systemd"];
    let mut outcome = Ok(());
    for hierarchy in HIERARCHIES {
        let procs = folder.join(hierarchy).join("cgroup.procs");
        if procs.exists() {
            let left = fs::write(&procs, "0").while_doing(|| {
                format!("leaving the control group of who started us at {}", procs.display())
            });
            outcome = outcome.and(left);
        }
    }
    outcome
}

/// Closes what came with the start of this program but its standard descriptors (close_range(2),
/// Linux 5.9): a lock of the host's, or a pipe whose reader waits for its end, would be held for as
/// long as the machine runs.
///
/// To be called before anything of this process is open.
pub fn close_inherited() -> Result<()> {
    const FIRST: libc::c_uint = 3;
    const LAST: libc::c_uint = libc::c_uint::MAX;
    const PLAINLY: libc::c_int = 0;
    // SAFETY: numbers only; nobody in this process owns one of these descriptors yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST, LAST, PLAINLY) };
    if closed == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error()).while_doing(|| "closing what others have opened")
}

/// A session of its own: no terminal, and nobody's job.
pub fn leave_session() -> Result<()> {
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        // Its leader already.
        Err(rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(Error::new("leaving the session of who started us", errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::IntoRawFd;
    use std::thread;

    use super::*;

    #[test]
    fn control_groups_are_left_in_each_hierarchy_that_has_units() {
        /// Hierarchies that are there, and those that are left.
        type Case = (&'static str, &'static [&'static str], &'static [&'static str]);
        #[rustfmt::skip]
        let cases: [Case; 4] = [
            ("unified", &["."],                              &["."]),
            ("hybrid",  &["unified", "systemd", "memory"],   &["unified", "systemd"]),
            ("legacy",  &["systemd", "memory", "cpu,cpuacct"], &["systemd"]),
            ("none",    &[],                                 &[]),
        ];
        for (layout, there, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let procs = |hierarchy: &str| folder.path().join(hierarchy).join("cgroup.procs");
            for hierarchy in there {
                fs::create_dir_all(folder.path().join(hierarchy)).unwrap();
                fs::write(procs(hierarchy), "").unwrap();
            }
            leave_control_groups_in(folder.path()).unwrap();
            let left = |hierarchy: &&str| fs::read_to_string(procs(hierarchy)).unwrap() == "0";
            let left: Vec<_> = there.iter().copied().filter(left).collect();
            assert_eq!(left, expected, "{layout}");
        }
    }

    /// A pipe of a shell's `$( )` that stays open keeps that shell waiting for ever.
    #[test]
    fn nothing_inherited_stays_open_but_standard_descriptors() {
        let open = || -> Vec<i32> {
            let entries = fs::read_dir("/proc/thread-self/fd").unwrap().flatten();
            let mut open: Vec<i32> =
                entries.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
            open.sort_unstable();
            open
        };
        let work = move || {
            // SAFETY: descriptors of this thread alone from here on, and it owns none of them.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }.unwrap();
            let inherited = [(); 2].map(|()| File::open("/dev/null").unwrap().into_raw_fd());
            assert!(inherited.iter().all(|fd| open().contains(fd)));
            close_inherited().unwrap();
            // The one by which the list is read is in it.
            open().into_iter().filter(|fd| *fd > 2).count()
        };
        assert_eq!(thread::spawn(work).join().unwrap(), 1);
    }
}
