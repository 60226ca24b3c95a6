//! Entered as PID 1 of an initramfs by the kernel, and as a command by people and by other inits.

use std::process::{self, ExitCode};

use landfall::{boot, command, console, original, sys};

fn main() -> ExitCode {
    sys::stdio::ensure();
    if process::id() != 1 {
        return command::main();
    }
    let aside = original::step_aside();
    console::install_panic_hook();
    console::start();
    if let Err(error) = aside {
        boot::Failure::before_all(error).end();
    }
    match boot::run() {
        Err(failure) => failure.end(),
    }
}
