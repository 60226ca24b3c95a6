//! Ctrl-C for a command that has something to say at its end.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 128 + Signal::SIGINT as i32;

/// Whether somebody has typed it.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

/// This thread, and every thread and program that it starts from now on, goes on in spite of it.
pub fn block() -> Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(signals)
}

impl Interrupt {
    /// Says `what` when it is typed; typed again, it ends the program.
    pub fn heed(what: &'static str) -> Result<Self> {
        let signals = block()?;
        let typed = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&typed);
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if own.swap(true, Ordering::Relaxed) {
                    process::exit(INTERRUPTED);
                }
                eprintln!("\nxtask: {what}; Ctrl-C again: at once");
            }
        });
        Ok(Self(typed))
    }

    pub fn typed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
