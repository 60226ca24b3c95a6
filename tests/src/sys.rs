//! The one thing of the harness that the standard library cannot say safely.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::{prctl, signal::Signal};

/// The child will be killed when the thread that spawns it ends, however that happens.
pub fn bind_to_this_thread(command: &mut Command) -> &mut Command {
    let die_with_us = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call, allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(die_with_us) }
}
