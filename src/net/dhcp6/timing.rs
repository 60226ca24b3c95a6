//! When a DHCPv6 client says things again (RFC 8415 section 15), and when its addresses are to be
//! renewed, rebound and given up (sections 14.2 and 18.2.4). Pure; the reasons for the departures
//! are in `client`.

use std::time::Duration;

use crate::net::Lease6;
use crate::net::dice::fuzzed;

/// RFC: 10, which with its waits takes two minutes.
pub const REQUEST_TRIES: u32 = 5;
/// Of a RELEASE as well: RFC 8415 has the same numbers for both.
pub const DECLINE_TRIES: u32 = 4;
/// CNF_MAX_RD: who has not heard a no by then goes on.
pub const CONFIRM_FOR: Duration = Duration::from_secs(10);

/// Waits from the first (IRT) to the longest (MRT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    first: Duration,
    longest: Duration,
}

impl Schedule {
    pub const SOLICIT: Self = Self::new(100, 16_000);
    /// For addresses that are in use meanwhile, where nobody waits for the answer. RFC: an hour, which
    /// is long for a lease that has ended; this is what a DHCPv4 client does.
    pub const SOLICIT_IN_USE: Self = Self::new(1_000, 64_000);
    /// Servers that look a client up in a directory take a while.
    pub const REQUEST: Self = Self::new(400, 16_000);
    pub const CONFIRM: Self = Self::new(200, 4_000);
    pub const DECLINE: Self = Self::new(200, 2_000);
    /// As in the RFC: nobody waits for it.
    pub const EXTEND: Self = Self::new(10_000, 600_000);

    const fn new(first: u64, longest: u64) -> Self {
        Self { first: Duration::from_millis(first), longest: Duration::from_millis(longest) }
    }

    /// With the longest wait that a server has asked for.
    pub fn limited(self, longest: Option<Duration>) -> Self {
        Self { longest: longest.unwrap_or(self.longest), ..self }
    }
}

/// How often something has been said, and the wait after the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    pub tries: u32,
    pub wait: Duration,
}

impl Attempt {
    /// RFC 8415 section 15: twice the last wait, give or take a tenth of it.
    pub fn next(self, schedule: Schedule, dice: u32) -> Self {
        let base = match self.tries {
            0 => schedule.first,
            _ => self.wait.saturating_mul(2),
        };
        let (base, tenth) = match base > schedule.longest {
            true => (schedule.longest, schedule.longest / 10),
            false if self.tries == 0 => (base, base / 10),
            false => (base, self.wait / 10),
        };
        let wait = base.saturating_sub(tenth).saturating_add(share(tenth.saturating_mul(2), dice));
        Self { tries: self.tries.saturating_add(1), wait }
    }
}

/// Moments of a lease; `Duration::MAX` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub renew: Duration,
    pub rebind: Duration,
    pub end: Duration,
}

impl Times {
    /// `dice`: T1 and T2 come up to a tenth earlier.
    pub fn of(lease: &Lease6, now: Duration, dice: u32) -> Self {
        let at = |seconds: Option<u32>| {
            seconds.map_or(Duration::MAX, |s| now.saturating_add(Duration::from_secs(s.into())))
        };
        let longest = |seconds: Option<u32>| seconds.unwrap_or(u32::MAX);
        let valid = lease.addresses.iter().map(|one| longest(one.valid_seconds)).max();
        let valid = valid.unwrap_or(0);
        let preferred = lease.addresses.iter().map(|one| longest(one.preferred_seconds));
        // An address that is not preferred any more says nothing of when to renew.
        let preferred = preferred.filter(|seconds| *seconds > 0).min().unwrap_or(valid);
        let part = |of: u32, tenths: u64| match of {
            u32::MAX => None,
            of => Some(u32::try_from(u64::from(of).saturating_mul(tenths) / 10).unwrap_or(of)),
        };
        // 0 leaves it to the client; what lies behind the end is a mistake.
        let chosen = |time: Option<u32>, tenths: u64| match time {
            Some(0) => part(preferred, tenths),
            Some(time) if time >= valid => part(valid, tenths),
            None if valid != u32::MAX => part(valid, tenths),
            time => time,
        };
        let (renew, rebind) = (chosen(lease.renew_seconds, 5), chosen(lease.rebind_seconds, 8));
        // A lease of seconds must not become a storm of renewals.
        let soonest = now.saturating_add(Duration::from_secs(1));
        let end = at((valid != u32::MAX).then_some(valid)).max(soonest);
        let early = |seconds: Option<u32>| {
            let of = |s: u32| fuzzed(dice, now, Duration::from_secs(s.into()), Duration::ZERO);
            seconds.map_or(Duration::MAX, of)
        };
        let rebind = early(rebind).max(soonest).min(end);
        Self { renew: early(renew).max(soonest).min(rebind), rebind, end }
    }

    /// When there is something to do for somebody who has done nothing yet.
    pub fn next(&self) -> Option<Duration> {
        (self.renew != Duration::MAX).then_some(self.renew)
    }
}

/// From the grant on: when at the latest the client of these addresses renews them. `None`: never.
pub fn renew_after(lease: &Lease6) -> Option<Duration> {
    Times::of(lease, Duration::ZERO, 0).next()
}

/// Before the next beginning: 1, 2, 4 … 16 s, or 64 s for addresses that are in use, give or take a
/// quarter.
pub fn after_refusals(refusals: u32, is_in_use: bool, dice: u32) -> Duration {
    let most = if is_in_use { 6 } else { 4 };
    let doublings = refusals.saturating_sub(2).min(most);
    let pause = Duration::from_secs(1u64.checked_shl(doublings).unwrap_or(64));
    (pause / 4 * 3).saturating_add(share(pause / 2, dice))
}

/// Before a server that has granted other addresses than those that are kept is asked again: 1, 2, 4
/// … 16 min, give or take a quarter.
pub fn after_others(times: u32, dice: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(4);
    let pause = Duration::from_secs(60u64.checked_shl(doublings).unwrap_or(960));
    (pause / 4 * 3).saturating_add(share(pause / 2, dice))
}

/// The part of `whole` that the dice say.
fn share(whole: Duration, dice: u32) -> Duration {
    whole.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease6::tests::address6;
    use crate::net::lease6::{Address6, Origin6};

    #[test]
    fn jitter_is_at_most_a_tenth() {
        for (dice, expected) in [(0, 90), (u32::MAX, 110)] {
            let first = Attempt::default().next(Schedule::SOLICIT, dice);
            assert_eq!(first.wait.as_millis(), expected, "dice {dice}");
            let mut attempt = first;
            for _ in 0..100 {
                attempt = attempt.next(Schedule::SOLICIT, dice);
            }
            let longest = if dice == 0 { 14_400 } else { 17_600 };
            assert_eq!(attempt.wait.as_millis(), longest, "dice {dice}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn nonsense_times_do_not_make_a_storm() {
        const EVER: Option<u32> = None;
        let cases = [
            // preferred, valid, T1, T2 -> renew, rebind, end
            (Some(60), Some(100), Some(0),    Some(0),    Some(30),   Some(48),   Some(100)),
            (Some(60), Some(100), Some(20),   Some(40),   Some(20),   Some(40),   Some(100)),
            (Some(60), Some(100), Some(500),  Some(800),  Some(50),   Some(80),   Some(100)), // behind the end
            (Some(60), Some(100), EVER,       EVER,       Some(50),   Some(80),   Some(100)), // the address is not
            (Some(0),  Some(100), Some(0),    Some(0),    Some(50),   Some(80),   Some(100)), // not preferred any more
            (Some(1),  Some(1),   Some(0),    Some(0),    Some(1),    Some(1),    Some(1)),
            (Some(9),  Some(9),   Some(5),    Some(0),    Some(5),    Some(7),    Some(9)),
            (EVER,     EVER,      Some(0),    Some(0),    EVER,       EVER,       EVER),
            (EVER,     EVER,      Some(1000), Some(2000), Some(1000), Some(2000), EVER),
            (EVER,     EVER,      EVER,       EVER,       EVER,       EVER,       EVER),
        ];
        for (preferred_seconds, valid_seconds, renew_seconds, rebind_seconds, renew, rebind, end) in cases {
            let address = address6("2001:db8::5/128", Origin6::Dhcp);
            let lease = Lease6 {
                addresses: vec![Address6 { preferred_seconds, valid_seconds, ..address }],
                renew_seconds,
                rebind_seconds,
                ..Lease6::default()
            };
            let times = Times::of(&lease, Duration::ZERO, 0);
            let early = Times::of(&lease, Duration::ZERO, u32::MAX);
            assert!(early.renew <= times.renew && early.rebind <= times.rebind && early.renew <= early.rebind);
            assert_eq!(early.end, times.end);
            let at = |seconds: Option<u32>| seconds.map_or(Duration::MAX, |s| Duration::from_secs(s.into()));
            let expected = Times { renew: at(renew), rebind: at(rebind), end: at(end) };
            assert_eq!(times, expected, "{preferred_seconds:?} {valid_seconds:?} {renew_seconds:?} {rebind_seconds:?}");
            assert_eq!(times.next().is_some(), renew.is_some());
        }
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses = |is_in_use| {
            [2, 3, 4, 5, 6, 7, 8, u32::MAX]
                .map(|n| after_refusals(n, is_in_use, u32::MAX / 2).as_secs_f32().round())
        };
        assert_eq!(pauses(false), [1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0, 16.0]);
        assert_eq!(pauses(true), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]);
        let pauses = [1, 2, 5, 6].map(|n| after_others(n, u32::MAX / 2).as_secs_f32().round());
        assert_eq!(pauses, [60.0, 120.0, 960.0, 960.0]);
    }
}
