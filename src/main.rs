//! Entered as PID 1 of an initramfs by the kernel, as PID 1 of what is left of a machine by
//! systemd-shutdown, and as a command by people and by other inits.

use std::process::{self, ExitCode};

use landfall::sys::clock::Moment;
use landfall::{boot, command, console, exitrd, original, sys};

fn main() -> ExitCode {
    sys::stdio::ensure();
    if process::id() != 1 {
        return command::main();
    }
    if let Some(verb) = exitrd::entered() {
        exitrd::run(verb);
    }
    let first_instruction = Moment::now();
    let aside = original::step_aside();
    console::install_panic_hook();
    console::start();
    if let Err(error) = aside {
        boot::Failure::before_all(error).end();
    }
    match boot::run(first_instruction) {
        Err(failure) => failure.end(),
    }
}
