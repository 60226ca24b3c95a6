//! Waits: the one that has lasted longest is always visible, with what it waits for.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::span;
use super::sink;

/// Something that is being waited for; named on the console once it has lasted two seconds, then
/// at growing intervals, and gone when dropped.
pub struct Waiting {
    number: u64,
}

struct Entry {
    number: u64,
    subject: &'static str,
    what: String,
    since: Instant,
    /// How long it had lasted when it was last said on a terminal that cannot redraw.
    said: Duration,
}

struct Registry {
    next: u64,
    entries: Vec<Entry>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, entries: Vec::new() });

/// Starts to wait for `what` ("an offer on eth0", "10.0.0.5:10809 to answer").
pub fn waiting(subject: &'static str, what: impl Into<String>) -> Waiting {
    let mut registry = registry();
    let number = registry.next;
    registry.next = number.wrapping_add(1);
    registry.entries.push(Entry {
        number,
        subject,
        what: what.into(),
        since: Instant::now(),
        said: Duration::ZERO,
    });
    Waiting { number }
}

impl Waiting {
    /// Changes what is being waited for: another try, another reason.
    pub fn still(&self, what: impl Into<String>) {
        let mut registry = registry();
        if let Some(entry) = registry.entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.what = what.into();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        registry().entries.retain(|entry| entry.number != self.number);
    }
}

/// Starts the thread that reminds the operator. It ends with the process, at the exec.
pub(super) fn start_ticker() {
    let _ = thread::Builder::new().name("console".into()).stack_size(64 << 10).spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(500));
            remind();
        }
    });
}

fn remind() {
    let line = {
        let mut registry = registry();
        // The longest wait is shown, and the latest beside it: a driver that never returns must
        // not hide what the boot itself is waiting for.
        let latest = registry.entries.iter().max_by_key(|entry| entry.since);
        let latest = latest.map(|entry| (entry.number, entry.what.clone(), entry.since.elapsed()));
        let Some(entry) = registry.entries.iter_mut().min_by_key(|entry| entry.since) else {
            return;
        };
        let lasted = entry.since.elapsed();
        if lasted < Duration::from_secs(2) {
            return;
        }
        let due = is_due(entry.said, lasted);
        if due {
            entry.said = lasted;
        }
        let also = match latest {
            Some((number, what, since)) if number != entry.number && since.as_secs() >= 2 => {
                format!("; and for {what} ({})", span(since))
            }
            _ => String::new(),
        };
        (entry.subject, format!("waiting for {} ({}){also}", entry.what, span(lasted)), due)
    };
    sink::transient(line.0, &line.1, line.2);
}

/// On a log: after 2 s, then whenever the wait has grown by half, at the most once a minute.
fn is_due(said: Duration, lasted: Duration) -> bool {
    let step = (said / 2).clamp(Duration::from_secs(2), Duration::from_secs(60));
    lasted >= said + step
}

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_reminded_less_and_less_often() {
        let mut said = Duration::ZERO;
        let mut lines = Vec::new();
        for half_seconds in 4..600 {
            let lasted = Duration::from_millis(half_seconds * 500);
            if is_due(said, lasted) {
                said = lasted;
                lines.push(lasted.as_secs());
            }
        }
        assert_eq!(lines, [2, 4, 6, 9, 13, 20, 31, 46, 70, 105, 157, 217, 277]);
    }

    #[test]
    fn a_wait_is_forgotten_when_dropped() {
        let wait = waiting("test", "the end");
        wait.still("the end of it");
        let number = wait.number;
        assert!(
            registry()
                .entries
                .iter()
                .any(|entry| entry.number == number && entry.what == "the end of it")
        );
        drop(wait);
        assert!(!registry().entries.iter().any(|entry| entry.number == number));
    }
}
