//! A shutdown must end, whatever has become of the root.
//!
//! PID 1 stops units, becomes systemd-shutdown, and that becomes our last program
//! ([`crate::exitrd`]). All of it but the last stands on the root. So as long as the root depends on
//! a server, what it needs is kept in memory ([`pins`]); and should it stop moving all the same,
//! the keeper ends the machine itself, in the way that was asked for ([`watch`]).
//!
//! What systemd is about shows in its name once it is systemd-shutdown. Before that it stops a unit
//! of ours, first of all and all by itself, and a file is gone ([`handover::until`]): it may hang a
//! moment later, for good. Another init has no such unit; there, and where PID 1 hangs before it
//! hears what is asked of it, `landfall.lost=` is what ends the machine, or does not.
//!
//! A restart of systemd (`daemon-reexec`) or of all programs (`soft-reboot`) is neither, and nothing
//! is done about it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::status::RootState;
use super::{Shared, spawn};
use crate::error::{Result, WhileDoing};
use crate::exitrd;
use crate::exitrd::deadline::within;
use crate::handover;
use crate::sys::clock;
use crate::sys::pinned::Pinned;
use crate::sys::reboot::{self, Verb};
use crate::sys::watchdog::Watchdog;
use watch::{Enough, Init, Sight, Watch};

mod pins;
mod watch;

/// What every line is about.
const TARGET: &str = "shutdown";

/// How often PID 1 is looked at.
const TICK: Duration = Duration::from_secs(1);

/// After the real init was started: soon, because a server may be lost soon; and again when PID 1 has
/// loaded more, and those are there who take part.
const PINNED_AFTER: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

const FOR_THE_WATCHDOG: Duration = Duration::from_secs(1);

/// For what local disks have not been given yet.
const FOR_DISKS: Duration = Duration::from_secs(5);

/// Begins to look after the machine's end.
pub fn begin(shared: &Shared) -> Result<()> {
    let (watching, pinning) = (shared.clone(), shared.clone());
    // Apart, because one of them reads the root, and waits where the other must not.
    spawn("pins", move || keep_pinned(&pinning))?;
    spawn("shutdown", move || watch_over(&watching))
}

/// Makes the watcher look at once: somebody sends signals to everybody, as at a machine's end.
pub fn look() {
    *lock(&LOOK.0) = true;
    LOOK.1.notify_all();
}

static LOOK: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files of the root that are kept in memory.
struct Kept {
    pins: Vec<Pinned>,
    /// Nobody needs them any more, for good.
    is_over: bool,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { pins: Vec::new(), is_over: false });

/// Pins when it is time; the watcher lets go.
fn keep_pinned(shared: &Shared) {
    let mut waited = Duration::ZERO;
    let mut due = PINNED_AFTER.into_iter();
    let mut next = due.next();
    while let Some(time) = next {
        thread::sleep(TICK);
        let (handed_over, state) = {
            let status = shared.status();
            (status.handed_over, status.root.state)
        };
        if handed_over {
            waited = waited.saturating_add(TICK);
        }
        if lock(&KEPT).is_over {
            return;
        }
        // Not while it is lost: reading would be waiting.
        if waited < time || state != RootState::Streamed {
            continue;
        }
        next = due.next();
        match pins::take() {
            Ok(pins) => hold(pins, shared),
            Err(error) => log::warn!(target: TARGET, "{error}"),
        }
    }
}

fn hold(pins: Vec<Pinned>, shared: &Shared) {
    let bytes: usize = pins.iter().map(Pinned::bytes).sum();
    let files = pins.len();
    // Those of before go only now.
    let before = {
        let mut kept = lock(&KEPT);
        if kept.is_over {
            return;
        }
        std::mem::replace(&mut kept.pins, pins)
    };
    drop(before);
    shared.status().pinned_bytes = bytes as u64;
    log::debug!(target: TARGET, "{files} files with {bytes} bytes are kept in memory for a shutdown without a server");
}

fn let_go(shared: &Shared) {
    let pins = {
        let mut kept = lock(&KEPT);
        kept.is_over = true;
        std::mem::take(&mut kept.pins)
    };
    if !pins.is_empty() {
        drop(pins);
        shared.status().pinned_bytes = 0;
    }
}

fn watch_over(shared: &Shared) {
    let mut watch = Watch::default();
    let mut asked = Asked::default();
    loop {
        let (handed_over, state, lost_since) = {
            let status = shared.status();
            (status.handed_over, status.root.state, status.root.lost_since)
        };
        let now = clock::since_boot();
        let lost_for = lost_since
            .and_then(|since| Duration::try_from_secs_f64(since).ok())
            .map(|since| now.saturating_sub(since));
        if handed_over {
            let process = Pid1::look();
            if state == RootState::InMemory || process.is_our_last {
                let_go(shared);
            }
            let verb = asked.look(|verb| handover::until(verb).exists());
            let init = process.init(asked.unless_called_off(verb, now, lost_for.is_some()));
            shared.status().ending = init.verb().map(|verb| verb.name().to_owned());
            let look = || Sight { processes: processes(), unwritten_kib: unwritten_kib() };
            if let Some(enough) = watch.step(now, init, lost_for, look) {
                give_up(&enough);
            }
        }
        let looking = lock(&LOOK.0);
        let waited = LOOK.1.wait_timeout_while(looking, TICK, |look| !*look);
        let (mut looking, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *looking = false;
    }
}

/// What PID 1 is, by its name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pid1 {
    last: Option<Verb>,
    /// Our own, which wants the root to be let go of.
    is_our_last: bool,
    /// How long systemd-shutdown waits for processes.
    patience: Option<Duration>,
}

impl Pid1 {
    fn look() -> Self {
        let name = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        let words = fs::read("/proc/1/cmdline").unwrap_or_default();
        Self::read(name.trim(), &words)
    }

    fn read(name: &str, words: &[u8]) -> Self {
        /// As much of `systemd-shutdown` as the kernel keeps of a name.
        const SYSTEMD: &str = "systemd-shutdow";
        const OURS: &str = "shutdown";
        let mut words = words.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let is_our_last = name == OURS && program == b"/shutdown";
        if name != SYSTEMD && !is_our_last {
            return Self::default();
        }
        let mut words = words.filter_map(|word| std::str::from_utf8(word).ok());
        let verb = words.next().and_then(Verb::named).unwrap_or(Verb::Reboot);
        let patience = words.skip_while(|word| *word != "--timeout").nth(1).and_then(patience);
        Self { last: Some(verb), is_our_last, patience }
    }

    fn init(&self, asked: Option<Verb>) -> Init {
        match (self.last, asked) {
            (Some(verb), _) if self.is_our_last => Init::OurLast(verb),
            (Some(verb), _) => Init::Last(verb, self.patience.unwrap_or(watch::USUAL)),
            (None, Some(verb)) => Init::Stopping(verb),
            (None, None) => Init::Running,
        }
    }
}

/// Of `--timeout`, as systemd gives it to systemd-shutdown: microseconds.
fn patience(word: &str) -> Option<Duration> {
    match word.strip_suffix("us") {
        Some(number) => number.parse().ok().map(Duration::from_micros),
        None => (word == "infinity").then_some(Duration::MAX),
    }
}

/// What has been seen of the files that are gone when a shutdown begins.
#[derive(Debug, Default)]
struct Asked {
    /// Those that were there: systemd has its units.
    there: Vec<Verb>,
    /// Those of them that are gone, in the order in which they went.
    gone: Vec<Verb>,
    /// When the last of them went, or when the root was dead for the last time since then.
    since: Option<Duration>,
}

impl Asked {
    /// The last one that went: who has waited for one end in vain asks for another. Who takes all of
    /// them has tidied up `/run`.
    fn look(&mut self, is_there: impl Fn(Verb) -> bool) -> Option<Verb> {
        for verb in Verb::ALL {
            match (is_there(verb), self.there.contains(&verb)) {
                (true, false) => self.there.push(verb),
                (true, true) => self.gone.retain(|other| *other != verb),
                (false, true) if !self.gone.contains(&verb) => {
                    self.gone.push(verb);
                    self.since = None;
                }
                _ => {}
            }
        }
        self.gone.last().copied().filter(|_| self.gone.len() < Verb::ALL.len())
    }

    /// A shutdown that is called off leaves the files away. One that has not ended the machine in
    /// this time, with a root that is well, was called off, or does not need us.
    fn unless_called_off(
        &mut self,
        asked: Option<Verb>,
        now: Duration,
        is_lost: bool,
    ) -> Option<Verb> {
        const LONG: Duration = Duration::from_secs(15 * 60);
        let Some(verb) = asked else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        if is_lost {
            self.since = Some(now);
        } else if now.saturating_sub(since) >= LONG {
            self.there.retain(|other| !self.gone.contains(other));
            self.gone.clear();
            self.since = None;
            return None;
        }
        Some(verb)
    }
}

/// How many there are. The kernel's own threads come and go as they please.
fn processes() -> usize {
    let is_program = |entry: &fs::DirEntry| {
        // Unlike its command line, this never waits for a process that waits for the root.
        let stat = fs::read_to_string(entry.path().join("stat"));
        stat.is_ok_and(|stat| is_program(&stat))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_program).count()
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)): whether it is neither kthreadd, which is number 2, nor
/// one of its children.
fn is_program(stat: &str) -> bool {
    let pid = stat.split(' ').next();
    // A name may have anything in it, parentheses too.
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
    pid != Some("2") && parent.is_some_and(|parent| parent != "2")
}

fn unwritten_kib() -> u64 {
    unwritten_in(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// Of what systemd-shutdown looks at as well to see whether a sync gets on.
fn unwritten_in(meminfo: &str) -> u64 {
    let kib = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let counts = ["Dirty", "Writeback", "NFS_Unstable"].contains(&name);
        value.trim().trim_end_matches(" kB").parse::<u64>().ok().filter(|_| counts)
    };
    meminfo.lines().filter_map(kib).fold(0, u64::saturating_add)
}

/// Ends the machine in PID 1's place.
fn give_up(enough: &Enough) -> ! {
    let Enough { verb, still_for, after, is_lost } = enough;
    let root = if *is_lost { "no server of the root answers" } else { "the root is well" };
    log::error!(
        target: TARGET,
        "{}: nothing has moved for {} s, {} s after it was begun, and {root}; ending the machine",
        verb.name(),
        still_for.as_secs(),
        after.as_secs()
    );
    end(*verb)
}

/// Ends the machine, whatever state it is in.
pub fn end(verb: Verb) -> ! {
    /// Firmware that tests its memory takes minutes, but not while the kernel still runs.
    const BACKSTOP: Duration = Duration::from_secs(60);
    // What it does is a restart, which is not what everybody has asked for.
    if verb == Verb::Reboot {
        let start = || {
            let dev = fs::File::open("/dev").while_doing(|| "opening /dev")?;
            Watchdog::start_in(dev.as_fd(), BACKSTOP)
        };
        // Some drivers wait for a part of the machine that has a program of its own.
        match within(FOR_THE_WATCHDOG, start) {
            Some(Ok(Some(watchdog))) => {
                watchdog.leave_running();
                log::info!(target: TARGET, "the hardware watchdog restarts the machine if nothing else does");
            }
            Some(Ok(None)) => {}
            Some(Err(error)) => log::info!(target: TARGET, "{error}"),
            None => {
                log::info!(target: TARGET, "the hardware watchdog does not start; going on without")
            }
        }
    }
    // Local disks only: with nobody to answer, the root has nothing to be written to it.
    if within(FOR_DISKS, rustix::fs::sync).is_none() {
        log::error!(target: TARGET, "disks are not done with writing after {} s", FOR_DISKS.as_secs());
    }
    // Emergency remount of what is still mounted: a disk is clean after it.
    let remounted = within(Duration::from_secs(1), || -> io::Result<()> {
        reboot::press(fs::File::open("/proc")?.as_fd(), 'u')?;
        // It is done by another thread of the kernel.
        thread::sleep(Duration::from_millis(500));
        Ok(())
    });
    log::debug!(target: TARGET, "disks were made read-only: {remounted:?}");
    exitrd::end(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn pid_1_shows_what_it_is_about() {
        let last = |verb, is_our_last| Pid1 { last: Some(verb), is_our_last, patience: None };
        let patient = |patience| Pid1 { patience: Some(patience), ..last(Verb::Reboot, false) };
        let cases = [
            ("systemd",         &b"/sbin/init\0"[..],                               Pid1::default()),
            ("systemd-shutdow", b"/usr/lib/systemd/systemd-shutdown\0poweroff\0--log-level\x006\0", last(Verb::PowerOff, false)),
            ("systemd-shutdow", b"systemd-shutdown\0reboot\0--log-color\0--timeout\x00300000000us\0", patient(Duration::from_secs(300))),
            ("systemd-shutdow", b"systemd-shutdown\0reboot\0--timeout\0infinity\0", patient(Duration::MAX)),
            ("systemd-shutdow", b"",                                                last(Verb::Reboot, false)),
            ("shutdown",        b"/shutdown\0halt\0",                               last(Verb::Halt, true)),
            ("shutdown",        b"/sbin/shutdown\0-r\0",                            Pid1::default()), // somebody's own init
            ("init",            b"init [2]\0",                                      Pid1::default()),
        ];
        for (name, words, expected) in cases {
            assert_eq!(Pid1::read(name, words), expected, "{name}");
        }
        assert_eq!(last(Verb::Halt, true).init(Some(Verb::Reboot)), Init::OurLast(Verb::Halt));
        assert_eq!(Pid1::default().init(Some(Verb::Reboot)), Init::Stopping(Verb::Reboot));
        assert_eq!(Pid1::default().init(None), Init::Running);
    }

    #[test]
    fn only_a_file_that_was_there_can_go() {
        let mut asked = Asked::default();
        assert_eq!(asked.look(|_| false), None, "another init, or too early");
        assert_eq!(asked.look(|_| true), None);
        assert_eq!(asked.look(|verb| verb != Verb::Halt), Some(Verb::Halt));
        assert_eq!(asked.look(|verb| verb != Verb::Halt), Some(Verb::Halt), "and goes on to be");
        assert_eq!(asked.look(|_| true), None, "somebody has started the unit again");
        assert_eq!(asked.look(|_| false), None, "somebody has tidied up");

        let mut asked = Asked::default();
        asked.look(|_| true);
        assert_eq!(asked.look(|verb| verb != Verb::PowerOff), Some(Verb::PowerOff));
        let both = |verb| verb != Verb::PowerOff && verb != Verb::Reboot;
        assert_eq!(asked.look(both), Some(Verb::Reboot), "it hangs, and another end is asked for");
        assert_eq!(asked.look(both), Some(Verb::Reboot));
    }

    #[test]
    fn a_shutdown_that_was_called_off_is_forgotten() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let mut asked = Asked::default();
        asked.look(|_| true);
        let mut after = |n: u64, is_lost| {
            let verb = asked.look(|verb| verb != Verb::Reboot);
            asked.unless_called_off(verb, minutes(n), is_lost)
        };
        assert_eq!(after(0, false), Some(Verb::Reboot));
        assert_eq!(after(14, false), Some(Verb::Reboot));
        assert_eq!(after(20, true), Some(Verb::Reboot), "the root is dead, so it may be stuck");
        assert_eq!(after(34, false), Some(Verb::Reboot));
        assert_eq!(after(35, false), None);
        assert_eq!(after(36, true), None, "weeks later");
    }

    #[test]
    #[rustfmt::skip]
    fn threads_of_the_kernel_are_no_programs() {
        let cases = [
            ("1 (systemd) S 0 1 1",         true),
            ("164 (cron) D 1 164 164",      true),
            ("9 (a) 2 (b) S 1 9 9",         true),
            ("2 (kthreadd) S 0 0 0",        false),
            ("88 (kworker/0:1) I 2 0 0",    false),
            ("cpu  1 2 3",                  false), // another file of that name
        ];
        for (stat, expected) in cases {
            assert_eq!(is_program(stat), expected, "{stat}");
        }
    }

    #[test]
    fn what_is_not_written_is_counted() {
        let meminfo = "MemTotal: 100 kB\nDirty:  12 kB\nWriteback: 30 kB\nWritebackTmp: 9 kB\n";
        assert_eq!(unwritten_in(meminfo), 42);
        assert_eq!(unwritten_in(""), 0);
    }
}
