//! The machine's last program: what systemd-shutdown becomes once it has stopped everything that it
//! can stop while it stands on the root (systemd's exitrd, `docs/INITRD_INTERFACE.md`).
//!
//! It is this very binary in `/run/initramfs`, hence in memory, and PID 1 again: nothing it needs
//! comes from the root any more, so it can take the root down, and the network's block devices with
//! it, whoever of the servers is still alive. It ends the machine in less than [`LONGEST`],
//! whatever the kernel makes it wait for: each step has its time ([`deadline`]), all of them have
//! one together, a thread of its own ends the machine should that not hold, and behind it are the
//! kernel's emergency keys and the hardware watchdog.
//!
//! It syncs no file system but those of disks that it finds in use; systemd-shutdown has done that,
//! with more patience.

mod act;
pub(crate) mod deadline;
pub mod plan;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cmdline::Request;
use crate::console::{self, Loudness};
use crate::sys;
use crate::sys::reboot::Verb;
use plan::{OLD_ROOT, Situation, Step};

/// From the first line to the machine's end.
pub const LONGEST: Duration = Duration::from_secs(15);

/// For letting go of things; after it there is only what takes next to no time.
const LETTING_GO: Duration = Duration::from_secs(10);

/// When the machine ends at the latest, whatever is still being let go of.
const NO_LATER: Duration = Duration::from_millis(11_500);

/// For what the firmware is to be told of a restart: a file in memory, which may have been swapped
/// out to a server.
const FOR_THE_PARAMETER: Duration = Duration::from_millis(300);

/// For the kernel's own way of ending a machine, which tells all drivers: disks write what they have
/// in their caches, and stop turning. It gets more where letting go has taken less.
const FOR_THE_KERNEL: Duration = Duration::from_secs(3);
const MOST_FOR_THE_KERNEL: Duration = Duration::from_secs(14);

/// For the rougher way, which another thread of the kernel takes.
const FOR_FORCE: Duration = Duration::from_secs(30);

/// Whether the steps have come to their end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// What every line is about.
const TARGET: &str = "shutdown";

/// The verb, if PID 1 has been entered as the last program and not as the agent.
///
/// By the name under which systemd-shutdown executes it, by the word that it gives, and by what it
/// has left behind: a boot has neither the one nor the other.
pub fn entered() -> Option<Verb> {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    verb(name.as_deref(), arguments.next(), Path::new(OLD_ROOT).is_dir())
}

fn verb(name: Option<&OsStr>, word: Option<OsString>, has_old_root: bool) -> Option<Verb> {
    let called = Path::new(name?).file_name() == Some(OsStr::new("shutdown"));
    if !called || !has_old_root {
        return None;
    }
    // A word of a later systemd: the machine is to end, and whoever sees it again can ask.
    Some(Verb::named(word?.to_str()?).unwrap_or(Verb::Reboot))
}

/// Takes the machine to its end.
pub fn run(verb: Verb) -> ! {
    let began = Instant::now();
    let ends = began + LETTING_GO;
    panic::set_hook(Box::new(move |info| {
        sys::reboot::last_words(&format!("landfall: internal error: {info}"));
        finish(verb, Instant::now());
    }));
    end_anyway(verb, began);
    // Pages that were swapped out over the network could not be had back later.
    sys::pinned::lock_program();
    console::start();
    let request = fs::read_to_string("/proc/cmdline").map(|line| Request::read(&line));
    let (quiet, loud) = request.map_or((false, false), |it| (it.quiet, it.kernel_is_loud));
    console::attach(if quiet { Loudness::Quiet } else { Loudness::Normal }, loud);
    log::info!(target: TARGET, "{}: letting go of the root", verb.name());

    let situation =
        Situation { mounts: act::mounts(), processes: act::processes(), devices: act::devices() };
    let mut is_late = false;
    for step in plan::steps(&situation, verb) {
        if !is_late && Instant::now() >= ends {
            is_late = true;
            log::warn!(target: TARGET, "letting go takes too long; leaving the rest as it is");
        }
        match step {
            Step::End(verb) => end_by(verb, began + MOST_FOR_THE_KERNEL),
            step if is_late && !step.may_be_late() => {}
            step => act::carry_out(step, ends),
        }
    }
    end_by(verb, began + MOST_FOR_THE_KERNEL)
}

/// Sees to the end from a thread of its own: no step and no line on a console can be trusted to
/// come back, for the kernel may stop a thread at any page and any lock.
fn end_anyway(verb: Verb, began: Instant) {
    let wait_until = |at: Instant| thread::sleep(at.saturating_duration_since(Instant::now()));
    let wait_and_end = move || {
        wait_until(began + NO_LATER);
        if ENDING.load(Ordering::Relaxed) {
            if verb == Verb::Halt {
                // It has been: threads of some architectures go on.
                return;
            }
            // The kernel is at it.
            wait_until(began + LONGEST);
        } else {
            // Not through the console, which may be what does not come back.
            let verb = verb.name();
            sys::reboot::last_words(&format!(
                "landfall: shutdown: {verb}: letting go of the root does not end; going on without"
            ));
        }
        finish(verb, began + LONGEST)
    };
    let spawned = thread::Builder::new()
        .name("deadline".into())
        .stack_size(deadline::STACK_BYTES)
        .spawn(wait_and_end);
    if let Err(error) = spawned {
        log::debug!(target: TARGET, "starting the deadline of all steps: {error}");
    }
}

/// The kernel's way, and if that takes too long a rougher one.
pub(crate) fn end(verb: Verb) -> ! {
    end_by(verb, Instant::now() + MOST_FOR_THE_KERNEL)
}

fn end_by(verb: Verb, by: Instant) -> ! {
    ENDING.store(true, Ordering::Relaxed);
    let verb = possible(verb);
    log::info!(target: TARGET, "{}", announcement(verb));
    console::leave();
    finish(verb, by)
}

/// [`end_by`] without a word to anybody.
fn finish(verb: Verb, by: Instant) -> ! {
    let read = || fs::read_to_string("/run/systemd/reboot-param").ok();
    let parameter = deadline::within(FOR_THE_PARAMETER, read).flatten();
    let parameter = parameter.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let patience = by.saturating_duration_since(Instant::now()).max(FOR_THE_KERNEL);
    let refused = deadline::within(patience, move || {
        sys::reboot::end(verb, parameter.as_deref()).to_string()
    });
    let why = refused.unwrap_or_else(|| format!("still there after {} s", patience.as_secs()));
    match by_force(verb, why) {
        Ok(never) => match never {},
        Err(why) => sys::reboot::last_words(&why),
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// What the kernel can do of it.
fn possible(verb: Verb) -> Verb {
    let loaded =
        || fs::read_to_string("/sys/kernel/kexec_loaded").is_ok_and(|text| text.trim() == "1");
    if verb == Verb::Kexec && !loaded() {
        log::warn!(target: TARGET, "no other kernel has been loaded; restarting through the firmware");
        return Verb::Reboot;
    }
    verb
}

fn announcement(verb: Verb) -> &'static str {
    match verb {
        Verb::Reboot => "restarting",
        Verb::PowerOff => "switching off",
        Verb::Halt => "halting; it is safe to switch off",
        Verb::Kexec => "starting the other kernel",
    }
}

/// Once the kernel has refused, or has taken too long.
fn by_force(verb: Verb, why: String) -> Result<Infallible, String> {
    // A halted machine has other threads on some architectures; they are to stand still.
    let Some(key) = verb.emergency_key() else { return Err(why) };
    sys::reboot::last_words(&format!("landfall: shutdown: {}: {why}; sysrq {key}", verb.name()));
    let press = |key| File::open("/proc").and_then(|proc| sys::reboot::press(proc.as_fd(), key));
    let pressed = press(key);
    thread::sleep(FOR_FORCE);
    // A machine that cannot switch itself off is better off booting than hanging.
    sys::reboot::last_words("landfall: shutdown: that did not help; restarting");
    let _ = press('b');
    thread::sleep(FOR_FORCE);
    Err(format!(
        "landfall: shutdown: nothing ends this machine ({pressed:?}); please switch it off"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn it_is_not_taken_for_the_agent() {
        let cases = [
            ("/shutdown",              Some("reboot"),   true,  Some(Verb::Reboot)),
            ("/shutdown",              Some("poweroff"), true,  Some(Verb::PowerOff)),
            ("/shutdown",              Some("halt"),     true,  Some(Verb::Halt)),
            ("/shutdown",              Some("kexec"),    true,  Some(Verb::Kexec)),
            ("/shutdown",              Some("exit"),     true,  Some(Verb::PowerOff)),
            ("/shutdown",              Some("ascend"),   true,  Some(Verb::Reboot)), // of a later systemd
            ("/run/initramfs/shutdown", Some("halt"),    true,  Some(Verb::Halt)),
            ("/shutdown",              Some("reboot"),   false, None), // rdinit=/shutdown
            ("/shutdown",              None,             true,  None),
            ("/init",                  Some("reboot"),   true,  None), // a word of the command line
        ];
        for (name, word, has_old_root, expected) in cases {
            let got = verb(Some(OsStr::new(name)), word.map(OsString::from), has_old_root);
            assert_eq!(got, expected, "{name} {word:?} {has_old_root}");
        }
        assert_eq!(verb(None, None, true), None);
    }

    #[test]
    fn all_steps_together_leave_time_for_the_end() {
        // What may be late has a tenth of a second each, and there are some ten of them.
        assert!(LETTING_GO + Duration::from_secs(1) < NO_LATER);
        assert!(NO_LATER + FOR_THE_PARAMETER + FOR_THE_KERNEL < LONGEST);
        assert!(MOST_FOR_THE_KERNEL + FOR_THE_PARAMETER < LONGEST);
    }
}
