//! Entered as PID 1 of an initramfs by the kernel, and as a command by people.

use std::process::{self, ExitCode};

use landfall::{boot, command, console, sys};

fn main() -> ExitCode {
    sys::stdio::ensure();
    if process::id() != 1 {
        return command::main();
    }
    console::install_panic_hook();
    console::start();
    match boot::run() {
        Err(failure) => failure.end(),
    }
}
