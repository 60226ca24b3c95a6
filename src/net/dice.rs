//! Random bits where guessing them would let a stranger answer in a server's name, and where a room
//! would otherwise do the same at the same moment.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

/// Random bits and the time since an arbitrary moment: everything that makes a step impure.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    pub now: Duration,
    pub dice: u32,
}

impl Chance {
    /// That of this moment.
    pub fn since(began: Instant) -> Self {
        Self { now: began.elapsed(), dice: roll() }
    }
}

/// 32 random bits. Never waits for the kernel's pool to fill, which on a machine with nothing but a
/// NIC may take minutes.
pub fn roll() -> u32 {
    let mut bytes = [0; 4];
    match getrandom(&mut bytes, GetRandomFlags::INSECURE) {
        Ok(4) => u32::from_ne_bytes(bytes),
        // Before Linux 5.6. The machine is in its first seconds, so the clock says little more
        // than which call this is: not good, but transactions still differ.
        _ => {
            static CALLS: AtomicU32 = AtomicU32::new(0);
            let calls = CALLS.fetch_add(0x9e37_79b9, Ordering::Relaxed);
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            calls ^ clock.subsec_nanos().rotate_left(13)
        }
    }
}

/// When what is due `after` a grant at `granted` is done: up to a tenth of that earlier, as the dice
/// say, and not before `soonest`. RFC 2131 section 4.4.5 wants random fuzz around T1 and T2: machines
/// that got power at the same moment must not ask in step for as long as they run. Only before, since
/// a server has said when at the latest.
pub fn fuzzed(dice: u32, granted: Duration, after: Duration, soonest: Duration) -> Duration {
    let share = f64::from(dice) / f64::from(u32::MAX);
    let earlier = after.saturating_sub((after / 10).mul_f64(share));
    granted.saturating_add(earlier.max(soonest.min(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_up_to_a_tenth_earlier_and_never_later() {
        let cases = [
            ("the whole time", 0, 1800, 360, 2800),
            ("a tenth less", u32::MAX, 1800, 360, 2620),
            ("not before the soonest", u32::MAX, 1800, 1700, 2700),
            ("not later than it was said", u32::MAX, 10, 50, 1010),
        ];
        for (case, dice, after, soonest, expected) in cases {
            let seconds = Duration::from_secs;
            let at = fuzzed(dice, seconds(1000), seconds(after), seconds(soonest));
            assert_eq!(at, seconds(expected), "{case}");
        }
    }
}
