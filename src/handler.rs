//! The root handler: what the init of somebody else's initramfs calls. `landfall claims` says
//! whether a boot is ours, `landfall mount-root` mounts its root, and `mount.landfall` is the same
//! for who mounts by mount(8).
//!
//! Decides nothing that the boot does not decide. What it adds is manners: who started us may stop
//! us, and hears one exit status.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::boot;
use crate::cmdline::claim;
use crate::console;
use crate::desk::Output;
use crate::machine;

pub const HELP: &str = "\
landfall claims [--verbose] [--cmdline TEXT]
    Whether the root that the kernel command line asks for is Landfall's: exit status 0 if it
    is, 1 if it is another's or landfall=off is there, 2 if the command line cannot be read.
    --verbose       say on standard error why it is not
    --cmdline TEXT  as if this were the kernel command line

landfall mount-root [--print-init] TARGET
    For the init of an initramfs, at the moment when it would mount the root: brings up the
    network, fetches the configuration, mounts the root with its writable layer at TARGET and
    applies the configuration to it. Whoever called it then switches to the new root. The
    file /run/landfall/init has the path of the init to start there.
    --print-init    print that path too
    Waits, visibly, as long as waiting can help. Exit status 1 if it cannot: why is on the
    console, and nothing is left mounted.

mount.landfall SOURCE TARGET [-o OPTIONS]
    landfall mount-root for mount(8), under the name by which it finds us, so that an
    /etc/fstab or a systemd mount unit may have a root of type landfall. SOURCE and OPTIONS
    have no effect: the kernel command line has.
";

/// `landfall claims`
pub fn claims(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let (mut verbose, mut line) = (false, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('v') | Long("verbose") => verbose = true,
            Long("cmdline") => line = Some(parser.value()?.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let line = match line {
        Some(line) => line,
        None => machine::command_line().map_err(|error| error.to_string())?,
    };
    let status = match claim(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            if verbose {
                let _ = writeln!(std::io::stderr(), "landfall: {why}");
            }
            ExitCode::FAILURE
        }
    };
    Ok(Output { text: String::new(), status })
}

/// `landfall mount-root`
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let (mut target, mut print) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("print-init") => print = true,
            Value(path) if target.is_none() => target = Some(PathBuf::from(path)),
            other => return Err(other.unexpected()),
        }
    }
    let target = target.ok_or("where to mount the root is missing: landfall mount-root TARGET")?;
    Ok(mount_root(&target, print))
}

/// `mount.landfall`, with the arguments that mount(8) gives to its helpers.
pub fn mount_helper(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let (mut places, mut pretend) = (Vec::new(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('f') => pretend = true,
            Short('s' | 'n' | 'v') => {}
            Short('o' | 't' | 'N') => drop(parser.value()?),
            Value(place) if places.len() < 2 => places.push(PathBuf::from(place)),
            other => return Err(other.unexpected()),
        }
    }
    match (places.get(1), pretend) {
        (None, _) => Err("usage: mount.landfall SOURCE TARGET [-o OPTIONS]".into()),
        (Some(_), true) => Ok(Output { text: String::new(), status: ExitCode::SUCCESS }),
        (Some(target), false) => Ok(mount_root(target, false)),
    }
}

/// Whether this program was called as `mount.landfall`.
pub fn is_mount_helper(name: Option<&std::ffi::OsStr>) -> bool {
    name.is_some_and(|name| Path::new(name).file_name() == Some("mount.landfall".as_ref()))
}

fn mount_root(target: &Path, print: bool) -> Output {
    console::install_panic_hook();
    console::start();
    match boot::mount_root(target) {
        Ok(init) => {
            let text = if print { format!("{}\n", init.display()) } else { String::new() };
            Output { text, status: ExitCode::SUCCESS }
        }
        Err(failure) => {
            failure.show();
            console::leave();
            Output { text: String::new(), status: ExitCode::FAILURE }
        }
    }
}
