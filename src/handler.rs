//! The root handler: what the init of somebody else's initramfs calls. `landfall claims` says
//! whether a boot is ours, `landfall mount-root` mounts its root, and `mount.landfall` is the same
//! for who mounts by mount(8).
//!
//! Decides nothing that the boot does not decide. What it adds is manners: who started us may stop
//! us, hears one exit status, and finds nothing of ours mounted when that is not success. Failing
//! is the host's business: there is no reboot here and no shell.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use lexopt::prelude::*;
use nix::sys::signal::{SigSet, Signal};

use crate::boot;
use crate::cmdline::claim;
use crate::console;
use crate::desk::Output;
use crate::error::{Error, Result};
use crate::machine;
use crate::overlay;
use crate::root;
use crate::sys;

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
    let failed = Output { text: String::new(), status: ExitCode::FAILURE };
    // Before the first thread, which would take the signals.
    let stop = stopping();
    console::install_panic_hook();
    console::start();
    if let Err(error) = prepare(target) {
        boot::Failure::before_all(error).show();
        return failed;
    }
    obey(stop, target.to_owned());
    match boot::mount_root(target) {
        Ok(init) => {
            let text = if print { format!("{}\n", init.display()) } else { String::new() };
            Output { text, status: ExitCode::SUCCESS }
        }
        Err(failure) => {
            failure.show();
            root::release_swap();
            undo(target);
            console::leave();
            failed
        }
    }
}

/// What a host's init stops us with.
fn stopping() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    if let Err(errno) = signals.thread_block() {
        log::debug!(target: "landfall", "blocking signals: {errno}");
    }
    signals
}

/// Ends this program in good order when it is told to, wherever it is.
fn obey(stop: SigSet, target: PathBuf) {
    let wait = move || {
        if let Ok(signal) = stop.wait() {
            log::error!(target: "landfall", "stopped by {signal}");
            root::release_swap();
            undo(&target);
            console::leave();
            std::process::exit(1);
        }
    };
    if let Err(error) = thread::Builder::new().name("signals".into()).spawn(wait) {
        log::debug!(target: "landfall", "starting the thread for signals: {error}");
    }
}

/// # Errors
/// Something is mounted at `target`: it is another's, or an earlier call has done it all.
fn prepare(target: &Path) -> Result<()> {
    if sys::mount::is_mounted(target) {
        let doing = format!("mounting the root at {}", target.display());
        let error = Error::refused(doing, "something is mounted there");
        let hint = format!("umount -R {} if an earlier try left it", target.display());
        return Err(error.with_hint(hint));
    }
    // A call before this one may have been killed.
    undo(target);
    Ok(())
}

/// Takes back what a boot that failed has left: the host may want to try again.
fn undo(target: &Path) {
    let layers = Path::new(overlay::LAYERS);
    for place in [target, &layers.join("rofs"), &layers.join("cow")] {
        if sys::mount::is_mounted(place)
            && let Err(error) = sys::mount::detach(place)
        {
            log::warn!(target: "landfall", "{error}");
        }
    }
    root::release();
}
