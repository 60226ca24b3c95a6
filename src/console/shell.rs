//! The rescue shell: a busybox that the image builder put there on request.

use std::fs;
use std::path::Path;

use super::sink;
use crate::error::{Error, Result, WhileDoing};
use crate::sys;

const BUSYBOX: &str = "/bin/busybox";

pub fn shell_is_there() -> bool {
    Path::new(BUSYBOX).exists()
}

/// Runs a shell on the console and returns when it ends.
///
/// # Errors
/// The image was built without `--rescue-shell`, or the shell could not be started.
pub fn rescue_shell(why: &str) -> Result<()> {
    let doing = || "opening a rescue shell";
    if !shell_is_there() {
        return Err(Error::refused(doing(), format!("{BUSYBOX} is not in this image"))
            .with_hint("build the image with landfall-initramfs --rescue-shell"));
    }
    sink::on_terminals("landfall", &format!("rescue shell: {why}"));
    // /dev/console cannot be a controlling terminal, the device behind it can.
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let name = active.split_ascii_whitespace().last().unwrap_or("console");
    sys::terminal::run_shell(Path::new(BUSYBOX), Path::new("/dev").join(name).as_path())
        .while_doing(doing)
}
