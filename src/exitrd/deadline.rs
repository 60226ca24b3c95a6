//! Nothing that is done at the end of a machine may keep it from ending.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What `act` gives, if it gives it in time.
///
/// It runs in a thread of its own, because the kernel may hold that thread for good: one that waits
/// for a dead server hears no signal, and there is no way to take a system call back. A thread that
/// is late is left behind, with whatever it holds.
pub fn within<T: Send + 'static>(
    patience: Duration,
    act: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, done) = mpsc::channel();
    let run = move || {
        // Nobody listens any more to one that is late.
        let _ = sender.send(act());
    };
    // Without memory for a thread there is none for the act either.
    thread::Builder::new().name("step".into()).stack_size(STACK_BYTES).spawn(run).ok()?;
    done.recv_timeout(patience).ok()
}

/// A step makes a few system calls, and all memory is locked.
pub(super) const STACK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_is_late_is_left_behind() {
        let began = Instant::now();
        let late = within(Duration::from_millis(20), || thread::sleep(Duration::from_secs(30)));
        assert_eq!(late, None);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(within(Duration::from_secs(10), || 7), Some(7));
    }
}
