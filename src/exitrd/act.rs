//! Looks at what is there, and lets go of it, with a line for everything that was.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::WaitOptions;

use super::TARGET;
use super::deadline::within;
use super::plan::{Devices, OLD_ROOT, Process, Step, Unmount, Way};
use crate::error::{Cause, Result};
use crate::root::nbd::device;
use crate::sys::mount::{Mount, listed};
use crate::sys::watchdog::Watchdog;
use crate::sys::{self, dm};

/// For one step, and for one mount that has something to write.
const PATIENCE: Duration = Duration::from_secs(3);

/// For what waits for somebody else: a killed process to end, a device to be free.
const A_MOMENT: Duration = Duration::from_secs(1);

/// How often that somebody is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Long enough for a restart with all of a server's firmware: some watchdogs run on through it.
/// What systemd gives a restart is longer still.
const WATCHDOG: Duration = Duration::from_secs(180);

pub fn mounts() -> Vec<Mount> {
    let read = || fs::read("/proc/self/mountinfo");
    let text = heard("reading the list of mounts", within(PATIENCE, read));
    text.map(|text| listed(&String::from_utf8_lossy(&text))).unwrap_or_default()
}

/// Everybody but ourselves and the kernel's threads.
pub fn processes() -> Vec<Process> {
    // A process that waits for a dead server while it is given memory may hold up who reads its
    // name.
    match heard("listing processes", within(A_MOMENT, list_processes)) {
        Some(processes) => processes,
        None => {
            log::warn!(target: TARGET, "killing all processes");
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            Vec::new()
        }
    }
}

fn list_processes() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // Empty for a thread of the kernel, and for who has ended.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if let Some(pid) = pid.filter(|pid| *pid != 1 && !words.is_empty()) {
            let name = words.split(|byte| *byte == 0).next().unwrap_or_default();
            processes.push(Process { pid, name: String::from_utf8_lossy(name).into_owned() });
        }
    }
    Ok(processes)
}

pub fn devices() -> Devices {
    let look = || Ok(devices_in(Path::new("/sys/block")));
    heard("looking for block devices", within(A_MOMENT, look)).unwrap_or_default()
}

/// Of a folder like `/sys/block`.
fn devices_in(blocks: &Path) -> Devices {
    let mut found = Devices::default();
    let mut mappings = Vec::new();
    for entry in fs::read_dir(blocks).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = |kind: &str| name.strip_prefix(kind)?.parse::<u32>().ok();
        if let Some(number) = number("dm-") {
            let its_name = fs::read_to_string(entry.path().join("dm/name")).unwrap_or_default();
            mappings.push((number, its_name.trim().to_owned()));
        } else if let Some(number) = number("loop")
            && entry.path().join("loop/backing_file").exists()
        {
            found.loops.push(number);
        } else if let Some(number) = number("nbd")
            && entry.path().join("pid").exists()
        {
            found.nbds.push(number);
        }
    }
    // Who lies on another was made after it.
    mappings.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let names = mappings.into_iter().map(|(_, name)| name);
    found.mappings = names.filter(|name| name.starts_with("landfall-")).collect();
    found.loops.sort_unstable();
    found.nbds.sort_unstable();
    found
}

/// Does one thing, and is back before `ends`, or soon after if it is one that
/// [may be late](Step::may_be_late).
pub fn carry_out(step: Step, ends: Instant) {
    match step {
        Step::WindUpWatchdog => wind_up_watchdog(ends),
        Step::Kill(pids) => end_processes(&pids, ends),
        Step::Tell(pids) => {
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            }
        }
        Step::Unmount(unmounts) => unmount_all(unmounts, ends),
        Step::Fail(name) => {
            // A mapping that holds nothing back does not know the word.
            let fail = move || fail_waiting(&name);
            if let Some(Err(error)) = within(left(ends, A_MOMENT), fail) {
                log::debug!(target: TARGET, "{error}");
            }
        }
        Step::Disconnect(index) => {
            let disconnect = move || device::disconnect(index).map_err(io::Error::other);
            let doing = format!("disconnecting /dev/nbd{index}");
            if heard(&doing, within(left(ends, PATIENCE), disconnect)).is_some() {
                log::info!(target: TARGET, "/dev/nbd{index} disconnected");
            }
        }
        Step::Remove(name) => {
            let doing = format!("removing device {name}");
            let remove = {
                let name = name.clone();
                move || remove_mapping(&name)
            };
            if heard(&doing, within(left(ends, PATIENCE), remove)).is_some() {
                log::info!(target: TARGET, "device {name} removed");
            }
        }
        Step::Detach(number) => {
            let detach = move || when_free(|| detach_loop(number));
            let doing = format!("detaching /dev/loop{number}");
            if heard(&doing, within(left(ends, PATIENCE), detach)).is_some() {
                log::info!(target: TARGET, "/dev/loop{number} detached");
            }
        }
        // The caller's.
        Step::End(_) => {}
    }
}

/// `most`, or what is left until `ends`; never nothing, for most steps take no time at all.
fn left(ends: Instant, most: Duration) -> Duration {
    ends.saturating_duration_since(Instant::now()).clamp(GLANCE * 5, most)
}

/// What came of a step; a warning if that is nothing.
fn heard<T>(doing: &str, outcome: Option<io::Result<T>>) -> Option<T> {
    match outcome {
        Some(Ok(value)) => return Some(value),
        Some(Err(error)) => log::warn!(target: TARGET, "{doing}: {error}"),
        None => log::warn!(target: TARGET, "{doing} takes too long; going on"),
    }
    None
}

fn wind_up_watchdog(ends: Instant) {
    let start = || {
        let dev = File::open("/dev").map_err(io::Error::other)?;
        Watchdog::start_in(dev.as_fd(), WATCHDOG).map_err(io::Error::other)
    };
    match within(left(ends, A_MOMENT), start) {
        Some(Ok(Some(watchdog))) => {
            let when = match watchdog.leave_running().as_secs() {
                0 => String::new(),
                seconds => format!(" in {seconds} s"),
            };
            log::info!(target: TARGET, "the hardware watchdog restarts the machine{when} if nothing else does");
        }
        Some(Ok(None)) | None => {}
        // Whoever has it has it for the same reason.
        Some(Err(error)) => log::debug!(target: TARGET, "{error}"),
    }
}

/// Kills them, and gives them a moment to end.
fn end_processes(pids: &[i32], ends: Instant) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let deadline = Instant::now() + left(ends, A_MOMENT);
    let alive = || {
        // They are our children by now, and stay in the list until they are asked about.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        pids.iter().filter(|pid| kill(Pid::from_raw(**pid), None).is_ok()).count()
    };
    let mut stuck = alive();
    while stuck > 0 && Instant::now() < deadline {
        thread::sleep(GLANCE);
        stuck = alive();
    }
    let all = processes_in_words(pids.len());
    match stuck {
        0 => log::info!(target: TARGET, "{all} ended"),
        stuck => log::info!(target: TARGET, "{all} killed; {stuck} of them wait for the root"),
    }
}

fn processes_in_words(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

fn unmount_all(unmounts: Vec<Unmount>, ends: Instant) {
    let outcome = Unmounting::of(unmounts, ends, |target, lazily| take_off(target, lazily, ends));
    let Unmounting { count, in_use, late, untried } = outcome;
    let names = |targets: &[PathBuf]| {
        targets.iter().map(|target| in_the_root(target)).collect::<Vec<_>>().join(", ")
    };
    let mut line = format!("{count} file systems unmounted");
    if !in_use.is_empty() {
        line += &format!("; in use, and detached: {}", names(&in_use));
    }
    if untried > 0 {
        line += &format!("; no time for {untried} more");
    }
    log::info!(target: TARGET, "{line}");
    if !late.is_empty() {
        log::warn!(target: TARGET, "unmounting {} takes too long; going on", names(&late));
    }
}

/// What came of unmounting.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unmounting {
    count: usize,
    in_use: Vec<PathBuf>,
    /// The kernel has not come back from them.
    late: Vec<PathBuf>,
    /// Left as they were, because time was up.
    untried: usize,
}

impl Unmounting {
    /// Begins with none of them after `ends`. `take_off` is [`take_off`].
    fn of(
        unmounts: Vec<Unmount>,
        ends: Instant,
        take_off: impl Fn(&Path, bool) -> Option<rustix::io::Result<()>>,
    ) -> Self {
        let mut outcome = Self::default();
        let mut busy = Vec::new();
        for Unmount { target, way } in unmounts {
            if Instant::now() >= ends {
                outcome.untried = outcome.untried.saturating_add(1);
                continue;
            }
            match take_off(&target, way == Way::Lazy) {
                Some(Ok(())) => outcome.count = outcome.count.saturating_add(1),
                // Gone with what it was mounted on.
                Some(Err(Errno::INVAL | Errno::NOENT)) => {}
                Some(Err(_)) => busy.push((target, way)),
                None => outcome.late.push(target),
            }
        }
        // Whoever looked after the root has been told to let go of it.
        let deadline = ends.min(Instant::now() + A_MOMENT);
        while !busy.is_empty() && Instant::now() < deadline {
            thread::sleep(GLANCE);
            busy.retain(|(target, _)| {
                if Instant::now() >= deadline {
                    return true;
                }
                match take_off(target, false) {
                    Some(Ok(())) => outcome.count = outcome.count.saturating_add(1),
                    Some(Err(_)) => return true,
                    None => outcome.late.push(target.clone()),
                }
                false
            });
        }
        for (target, way) in busy {
            if Instant::now() >= ends {
                outcome.untried = outcome.untried.saturating_add(1);
                continue;
            }
            if way == Way::Written {
                let place = target.clone();
                let flush = move || rustix::fs::syncfs(File::open(place)?).map_err(io::Error::from);
                let doing = format!("writing what {} has not written", in_the_root(&target));
                heard(&doing, within(left(ends, PATIENCE), flush));
            }
            match take_off(&target, true) {
                Some(_) => outcome.in_use.push(target),
                None => outcome.late.push(target),
            }
        }
        outcome
    }
}

/// None if the kernel does not come back.
fn take_off(target: &Path, lazily: bool, ends: Instant) -> Option<rustix::io::Result<()>> {
    let target = target.to_owned();
    let lazy = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    within(left(ends, PATIENCE), move || unmount(target, lazy | UnmountFlags::NOFOLLOW))
}

/// The path that it had while its root was the root.
fn in_the_root(target: &Path) -> String {
    let path = target.strip_prefix(OLD_ROOT).unwrap_or(target);
    Path::new("/").join(path).display().to_string()
}

/// Again for a moment while somebody holds it.
fn when_free(act: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + A_MOMENT;
    loop {
        match act() {
            Err(Errno::BUSY) if Instant::now() < deadline => thread::sleep(GLANCE),
            // Gone by itself with its last user.
            Err(Errno::NXIO) => return Ok(()),
            outcome => return Ok(outcome?),
        }
    }
}

/// Every request that device-mapper keeps until there is a server again.
fn fail_waiting(name: &str) -> Result<()> {
    dm::Control::open()?.message(name, "fail_if_no_path")
}

fn remove_mapping(name: &str) -> io::Result<()> {
    let control = dm::Control::open().map_err(io::Error::other)?;
    when_free(|| match control.remove(name) {
        Ok(()) => Ok(()),
        Err(error) => match error.cause() {
            Cause::Os(error) => {
                Err(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
            }
            _ => Err(Errno::IO),
        },
    })
}

fn detach_loop(number: u32) -> rustix::io::Result<()> {
    sys::loop_device::clear(&PathBuf::from(format!("/dev/loop{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn devices_that_hold_something_are_found() {
        let blocks = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("dm-0/dm/name", "landfall-root\n"),
            ("dm-1/dm/name", "vg-swap\n"),
            ("dm-10/dm/name", "landfall-verity\n"),
            ("loop0/loop/backing_file", "/image\n"),
            ("loop1/size", "0\n"),
            ("nbd0/pid", "1\n"),
            ("nbd2/size", "0\n"),
            ("nbd11/pid", "1\n"),
            ("vda/size", "9\n"),
        ] {
            file(blocks.path(), path, text);
        }
        let expected = Devices {
            mappings: vec!["landfall-verity".into(), "landfall-root".into()],
            loops: vec![0],
            nbds: vec![0, 11],
        };
        assert_eq!(devices_in(blocks.path()), expected);
        assert_eq!(devices_in(Path::new("/nowhere")), Devices::default());
    }

    #[test]
    fn every_process_of_this_machine_has_a_name() {
        let processes = list_processes().unwrap();
        let ours = std::process::id() as i32;
        assert!(processes.iter().any(|process| process.pid == ours && !process.name.is_empty()));
        assert!(processes.iter().all(|process| process.pid != 1));
    }

    #[test]
    fn paths_are_said_as_the_running_system_knew_them() {
        for (target, expected) in
            [("/oldroot", "/"), ("/oldroot/var/lib", "/var/lib"), ("/x", "/x")]
        {
            assert_eq!(in_the_root(Path::new(target)), expected);
        }
    }

    #[test]
    fn time_that_is_up_leaves_a_glance() {
        let now = Instant::now();
        assert_eq!(left(now, PATIENCE), GLANCE * 5);
        assert_eq!(left(now + Duration::from_secs(60), A_MOMENT), A_MOMENT);
    }

    /// A node with containers, all of them on the root whose server is gone.
    #[test]
    fn mounts_that_all_hang_take_no_more_than_the_time_there_is() {
        let hundred_and_fifty = |way| {
            let mount = |number| Unmount { target: format!("/nowhere/{number}").into(), way };
            (0..150).map(mount).collect::<Vec<_>>()
        };
        let cases = [
            ("hang", None, Way::Clean),
            ("hang", None, Way::Lazy),
            ("are in use", Some(Err(Errno::BUSY)), Way::Clean),
            ("are in use", Some(Err(Errno::BUSY)), Way::Written),
        ];
        for (they, outcome, way) in cases {
            let began = Instant::now();
            let got = Unmounting::of(hundred_and_fifty(way), began + GLANCE * 10, |_, _| {
                thread::sleep(GLANCE);
                outcome
            });
            assert!(began.elapsed() < GLANCE * 50, "they {they}: {:?}", began.elapsed());
            assert!(got.untried > 100 && got.count == 0, "they {they}: {got:?}");
            let all = got.untried + got.late.len() + got.in_use.len();
            assert_eq!(all, 150, "they {they}: {got:?}");
        }
    }

    /// A disk beside the root loses nothing because somebody looked at it first.
    #[test]
    fn who_lets_go_of_a_mount_in_time_is_waited_for() {
        let tries = std::cell::Cell::new(0);
        let unmount = Unmount { target: "/data".into(), way: Way::Written };
        let ends = Instant::now() + Duration::from_secs(60);
        let got = Unmounting::of(vec![unmount], ends, |_, lazily| {
            assert!(!lazily);
            tries.set(tries.get() + 1);
            Some(if tries.get() < 3 { Err(Errno::BUSY) } else { Ok(()) })
        });
        assert_eq!(got, Unmounting { count: 1, ..Unmounting::default() });
    }

    #[test]
    fn who_holds_a_device_is_waited_for_and_a_device_that_is_gone_is_let_go() {
        let tries = std::cell::Cell::new(0);
        let act = || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(Errno::BUSY) } else { Ok(()) }
        };
        when_free(act).unwrap();
        when_free(|| Err(Errno::NXIO)).unwrap();
        assert!(when_free(|| Err(Errno::PERM)).is_err());
    }
}
