//! Whether a block device answers, from the kernel's statistics (Documentation/block/stat.rst).

use std::fs;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, WhileDoing};

/// One look at a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Requests that were answered, since the device is there.
    pub answered: u64,
    /// Requests that have no answer yet.
    pub in_flight: u64,
    /// Bytes of those that were answered.
    pub read_bytes: u64,
}

impl Activity {
    pub fn of(index: u32) -> Result<Self> {
        Self::of_device(&format!("nbd{index}"))
    }

    /// Of a device by the kernel's name for it.
    pub fn of_device(device: &str) -> Result<Self> {
        let path = format!("/sys/block/{device}/stat");
        let doing = || format!("reading {path}");
        let text = fs::read_to_string(&path).while_doing(doing)?;
        Self::parse(&text).ok_or_else(|| Error::invalid(doing(), "too few numbers"))
    }

    /// Reads, their merges and their sectors are counted when they end; in flight is number nine.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let answered = numbers.next()?.ok()?;
        let sectors = numbers.nth(1)?.ok()?;
        let in_flight = numbers.nth(5)?.ok()?;
        Some(Self { answered, in_flight, read_bytes: sectors.saturating_mul(512) })
    }
}

/// For how long a device has answered nothing although it was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stall {
    first: Option<Activity>,
    last: Option<Activity>,
    since: Option<Instant>,
}

impl Stall {
    /// Takes one look into account; zero while the device answers, or has nothing to.
    pub fn observe(&mut self, now: Instant, activity: Activity) -> Duration {
        let answered = self.last.map(|last| last.answered);
        let stands_still = activity.in_flight > 0 && answered == Some(activity.answered);
        self.last = Some(activity);
        self.first.get_or_insert(activity);
        if !stands_still || self.since.is_none() {
            self.since = (activity.in_flight > 0).then_some(now);
        }
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether anything was answered since the first look.
    pub fn has_served(&self) -> bool {
        self.first.zip(self.last).is_some_and(|(first, last)| last.answered > first.answered)
    }

    /// What was read since the last look.
    pub fn new_bytes(&self, activity: Activity) -> u64 {
        self.last.map_or(0, |last| activity.read_bytes.saturating_sub(last.read_bytes))
    }

    /// Whether something was answered since the last look, or nothing is asked any more.
    pub fn has_moved(&mut self, activity: Activity) -> bool {
        let before = self.last.replace(activity);
        activity.in_flight == 0 || before.is_some_and(|before| before.answered != activity.answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read() {
        let text = "    1041        0    21554      301        0        0        0        0        3      200      301        0        0        0        0        0        0\n";
        assert_eq!(
            Activity::parse(text),
            Some(Activity { answered: 1041, in_flight: 3, read_bytes: 21554 * 512 })
        );
        for text in ["", "1 2 3", "x 0 0 0 0 0 0 0 3"] {
            assert_eq!(Activity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_unanswered_requests_are_a_stall() {
        let begin = Instant::now();
        let mut stall = Stall::default();
        let mut look = |ms: u64, answered, in_flight| {
            let now = begin + Duration::from_millis(ms);
            stall.observe(now, Activity { answered, in_flight, read_bytes: 0 }).as_millis()
        };
        assert_eq!(look(0, 10, 0), 0, "idle");
        assert_eq!(look(200, 10, 0), 0, "idle for long");
        assert_eq!(look(400, 10, 2), 0, "just asked");
        assert_eq!(look(600, 10, 2), 200, "no answer");
        assert_eq!(look(800, 11, 2), 0, "one answer");
        assert_eq!(look(1000, 11, 2), 200, "no other");
        assert_eq!(look(1200, 13, 0), 0, "all answered");
        assert!(stall.has_served());
        assert!(!Stall::default().has_served());
    }

    #[test]
    fn a_device_moves_when_it_answers_or_has_nothing_to() {
        let mut stall = Stall::default();
        let mut look =
            |answered, in_flight| stall.has_moved(Activity { answered, in_flight, read_bytes: 0 });
        assert!(!look(5, 1), "nothing is known yet");
        assert!(!look(5, 1));
        assert!(look(6, 1));
        assert!(!look(6, 2));
        assert!(look(6, 0));
    }
}
