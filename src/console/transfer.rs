//! Transfers: rate and time left, redrawn in place or said every ten percent.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::line::{bytes, span};
use super::sink;

/// A transfer that shows itself once it has lasted two seconds. Threads may share it.
pub struct Progress {
    subject: &'static str,
    what: String,
    total: Option<u64>,
    started: Instant,
    last: Mutex<Last>,
}

struct Last {
    drawn: Instant,
    /// Tenths of the total, or 10 s steps where there is no total, already said on a log.
    step: u64,
}

/// `what` is done with the bytes ("copying the root image").
pub fn progress(subject: &'static str, what: impl Into<String>, total: Option<u64>) -> Progress {
    let now = Instant::now();
    Progress {
        subject,
        what: what.into(),
        total,
        started: now,
        last: Mutex::new(Last { drawn: now, step: 0 }),
    }
}

impl Progress {
    /// `done` bytes so far. Cheap enough to call for every block: it draws twice a second.
    pub fn at(&self, done: u64) {
        let elapsed = self.started.elapsed();
        if elapsed < Duration::from_secs(2) {
            return;
        }
        // Whoever finds the lock taken has nothing newer to show.
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.drawn.elapsed() < Duration::from_millis(500) {
            return;
        }
        last.drawn = Instant::now();
        let step = step(done, self.total, elapsed);
        let sparse = step > last.step;
        last.step = last.step.max(step);
        drop(last);
        sink::transient(self.subject, &text(&self.what, done, self.total, elapsed), sparse);
    }
}

fn rate(done: u64, elapsed: Duration) -> u64 {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    u64::try_from(u128::from(done) * 1000 / u128::from(milliseconds)).unwrap_or(u64::MAX)
}

fn step(done: u64, total: Option<u64>, elapsed: Duration) -> u64 {
    match total {
        Some(total) => done.saturating_mul(10) / total.max(1),
        None => elapsed.as_secs() / 10,
    }
}

fn text(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = rate(done, elapsed);
    match total {
        Some(total) => {
            let percent = done.saturating_mul(100) / total.max(1);
            let left = Duration::from_secs(total.saturating_sub(done) / rate.max(1));
            format!(
                "{what}: {percent} % of {}, {}/s, {} left",
                bytes(total),
                bytes(rate),
                span(left)
            )
        }
        None => format!("{what}: {}, {}/s", bytes(done), bytes(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_says_how_far_how_fast_and_how_long() {
        let mib = 1 << 20;
        let four = Duration::from_secs(4);
        assert_eq!(
            text("copying", 40 * mib, Some(100 * mib), four),
            "copying: 40 % of 100.0 MiB, 10.0 MiB/s, 6 s left"
        );
        assert_eq!(text("fetching", 40 * mib, None, four), "fetching: 40.0 MiB, 10.0 MiB/s");
        assert_eq!(text("copying", 0, Some(0), four), "copying: 0 % of 0 B, 0 B/s, 0 s left");
        assert_eq!(step(39, Some(100), four), 3);
    }
}
