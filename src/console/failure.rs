//! The last screen: what was tried, why it failed, what to do; then wait, reboot or shell.
//!
//! PID 1 that returns or dies makes the kernel print forty lines over our message, so nothing here
//! ever returns.

use std::panic;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use super::line::span;
use super::{shell, sink};
use crate::error::Error;
use crate::sys;

/// What the command line wants done with a machine that cannot boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `panic=`: seconds until the reboot; negative at once, none or 0 never.
    pub reboot_after: Option<i32>,
    /// `landfall.shell`
    pub shell: bool,
}

// Atomics and no lock, because a panic may come while any lock is held.
static REBOOT_AFTER: AtomicI32 = AtomicI32::new(0);
static SHELL: AtomicBool = AtomicBool::new(false);

pub fn set_policy(policy: Policy) {
    REBOOT_AFTER.store(policy.reboot_after.unwrap_or(0), Ordering::Relaxed);
    SHELL.store(policy.shell, Ordering::Relaxed);
}

/// What was tried, why it failed, and what to look at first.
pub fn show_failure(stage: &str, after: Duration, error: &Error) {
    sink::repeat_warnings();
    log::error!(target: "landfall", "FAILED in stage {stage} after {:.1} s", after.as_secs_f32());
    log::error!(target: "landfall", "  {error}");
    if let Some(hint) = error.hint() {
        log::error!(target: "landfall", "  hint: {hint}");
    }
}

/// Shows the failure and ends the boot as the policy says.
pub fn give_up(stage: &str, after: Duration, error: &Error) -> ! {
    show_failure(stage, after, error);
    if SHELL.load(Ordering::Relaxed) {
        match shell::rescue_shell("the boot failed; leaving this shell reboots") {
            Ok(()) => sys::reboot::restart(),
            Err(error) => log::error!(target: "landfall", "  {error}"),
        }
    }
    end()
}

/// Makes a panic of any thread end like a failed stage, instead of with the kernel's own panic.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        // Whatever the thread was doing, it may hold the console's lock: speak past it.
        sys::reboot::last_words(&format!("landfall: internal error: {info}"));
        sys::reboot::last_words(
            "landfall: this is a bug of Landfall; please report the line above",
        );
        if process::id() != 1 {
            // Whoever started us has plans for a failure.
            sink::leave_if_free();
            process::abort();
        }
        last_end();
    }));
}

fn end() -> ! {
    let seconds = REBOOT_AFTER.load(Ordering::Relaxed);
    if seconds == 0 {
        log::error!(
            target: "landfall",
            "the machine stays as it is; Ctrl-Alt-Del or the power button restarts it \
             (panic=30 on the kernel command line does so by itself)"
        );
        stay();
    }
    if let Ok(seconds @ 1..) = u64::try_from(seconds) {
        log::error!(target: "landfall", "rebooting in {seconds} s (panic={seconds})");
        for left in (1..=seconds).rev() {
            sink::transient(
                "landfall",
                &format!("rebooting in {}", span(Duration::from_secs(left))),
                false,
            );
            thread::sleep(Duration::from_secs(1));
        }
    }
    sink::on_terminals("landfall", "rebooting");
    sys::reboot::restart()
}

/// As [`end`], without the console.
fn last_end() -> ! {
    match REBOOT_AFTER.load(Ordering::Relaxed) {
        0 => stay(),
        seconds => {
            thread::sleep(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            sys::reboot::restart()
        }
    }
}

fn stay() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
