//! The lines an operator reads. Every line of the agent, and of its dependencies, comes through
//! the `log` facade into the one backend here; `target` is the subject (`network`, `root`, …).
//!
//! `info!` is a line on the console, `warn!` is one that is repeated before the handover, `error!`
//! belongs to the failure screen, `debug!` goes to the kernel log only.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Something that is being waited for: named on the console once it has lasted two seconds, then
/// at growing intervals, and gone when dropped.
pub struct Waiting {
    subject: &'static str,
    state: Mutex<(String, Instant)>,
    since: Instant,
}

/// Starts to wait for `what` ("an offer on eth0", "10.0.0.5:10809 to answer").
pub fn waiting(subject: &'static str, what: impl Into<String>) -> Waiting {
    let now = Instant::now();
    Waiting { subject, state: Mutex::new((what.into(), now)), since: now }
}

impl Waiting {
    /// Changes what is being waited for (another try, another reason), and lets the console
    /// remind the operator when it is time to.
    pub fn still(&self, what: impl Into<String>) {
        let Ok(mut state) = self.state.lock() else { return };
        state.0 = what.into();
        if state.1.elapsed() >= Duration::from_secs(2) {
            state.1 = Instant::now();
            log::info!(target: self.subject, "waiting for {} ({:.0} s)", state.0, self.since.elapsed().as_secs_f32());
        }
    }
}

/// A transfer of known or unknown length, shown with rate and time left once it has lasted two
/// seconds: redrawn in place on a terminal, a line every ten percent on a serial log.
pub struct Progress {
    subject: &'static str,
    what: String,
    total: Option<u64>,
    started: Instant,
}

pub fn progress(subject: &'static str, what: impl Into<String>, total: Option<u64>) -> Progress {
    Progress { subject, what: what.into(), total, started: Instant::now() }
}

impl Progress {
    /// `done` bytes so far; cheap enough to call for every block.
    pub fn at(&self, done: u64) {
        log::trace!(target: self.subject, "{} {done} of {:?} after {:?}", self.what, self.total, self.started.elapsed());
    }
}
