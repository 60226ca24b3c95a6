//! How fast a copy behind the running system may be: as fast as it can while nobody reads the root,
//! and out of the way at once when somebody does. Others in the same network cannot be seen, but what
//! they do to it can: chunks that come clearly later than they could.
//!
//! [`Controller`] decides from looks at both, twenty a second, and is pure; [`Pacer`] holds what it
//! has decided for the workers of the copy, who ask before each request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::root::copy::{Pace, Turn};

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub elapsed: Duration,
    /// Somebody has read the root, or waits for it.
    pub is_read: bool,
    pub copied_bytes: u64,
    /// By how much the quickest chunk was slower than the best of the last minutes; `None` when none
    /// has come.
    pub delay: Option<Duration>,
}

/// What the copy may do until the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// `None`: whatever servers and network give.
    pub bytes_per_second: Option<u64>,
    /// Most bytes that servers may owe us: they lie in queues before what somebody reads next.
    pub window_bytes: u64,
}

#[derive(Debug)]
pub struct Controller {
    /// By the operator.
    most: Option<u64>,
    rate: Option<u64>,
    quiet: Duration,
    /// What the copy has had of late, and the most that the network gave it.
    recent: u64,
    best: u64,
    /// For how long the network has given clearly less, though more was allowed.
    worse: Duration,
    crowd: Crowd,
    /// What is left to the copy now, at the least.
    least: u64,
}

const MIB: u64 = 1 << 20;
/// What is left to a copy while the root is read all the time: it ends within the day.
const LEAST: u64 = 2 * MIB;
/// But in a network that is crowded by others, who may be nodes that still boot.
const LEAST_IN_A_CROWD: u64 = 256 << 10;
/// And in a network that gives more, this part of it.
const SHARE: u64 = 8;
/// A network that gives less for this long has become slower: half of what it gave counts.
const FORGETTING: Duration = Duration::from_secs(30);
/// Pauses of a reader that is merely thinking.
const QUIET: Duration = Duration::from_millis(200);
/// Faster than any network card of a node: no bound at all.
const BOUNDLESS: u64 = 4096 * MIB;
/// Of the copy's rate, what may be under way: long for a local network, short for a reader.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// Two requests, so that a server never waits for the next one.
const LEAST_WINDOW: u64 = 512 << 10;
/// One, where queues are long already.
const WINDOW_IN_A_CROWD: u64 = 256 << 10;

impl Controller {
    pub fn new(most: Option<u64>) -> Self {
        Self {
            most,
            rate: Some(LEAST),
            quiet: Duration::ZERO,
            recent: 0,
            best: 0,
            worse: Duration::ZERO,
            crowd: Crowd::default(),
            least: LEAST,
        }
    }

    pub fn look(&mut self, look: Look) -> Speed {
        let had = per_second(look.copied_bytes, look.elapsed);
        let allowed = self.allowed();
        match self.crowd.look(&look) {
            Some(true) => self.least = (self.least / 2).max(LEAST_IN_A_CROWD),
            Some(false) => self.least = LEAST,
            None => {}
        }
        if self.yields_to_others() {
            self.quiet = Duration::ZERO;
            self.rate = Some(self.least);
        } else if look.is_read {
            self.quiet = Duration::ZERO;
            self.rate = Some(self.floor());
        } else {
            self.quiet = self.quiet.saturating_add(look.elapsed);
            if self.quiet >= QUIET {
                self.rate = self.rate.map(|rate| rate.saturating_mul(2)).filter(|r| *r < BOUNDLESS);
            }
        }
        self.recent = (self.recent.saturating_mul(3).saturating_add(had)) / 4;
        self.learn(allowed, look.elapsed);
        self.speed()
    }

    /// A room of nodes that starts shares what one of them had before: a share of that would be
    /// more than the network has for this one, and leave nothing for its readers.
    fn learn(&mut self, allowed: Option<u64>, elapsed: Duration) {
        if self.recent >= self.best {
            (self.best, self.worse) = (self.recent, Duration::ZERO);
        } else if allowed.is_none_or(|allowed| self.recent < allowed / 4 * 3) {
            self.worse = self.worse.saturating_add(elapsed);
        }
        if self.worse >= FORGETTING {
            (self.best, self.worse) = (self.recent.max(self.best / 2), Duration::ZERO);
        }
    }

    fn allowed(&self) -> Option<u64> {
        match (self.rate, self.most) {
            (Some(rate), Some(most)) => Some(rate.min(most)),
            (rate, most) => rate.or(most),
        }
    }

    fn yields_to_others(&self) -> bool {
        self.least < LEAST
    }

    fn floor(&self) -> u64 {
        LEAST.max(self.best / SHARE)
    }

    fn speed(&self) -> Speed {
        // Of what comes, not of what may come: the rest would lie in queues.
        let window = u128::from(self.recent) * UNDER_WAY.as_millis() / 1000;
        let window_bytes = match self.yields_to_others() {
            true => WINDOW_IN_A_CROWD,
            false => u64::try_from(window).unwrap_or(u64::MAX).max(LEAST_WINDOW),
        };
        Speed { bytes_per_second: self.allowed(), window_bytes }
    }
}

/// Whether chunks wait in queues that others have filled: how busy the network is with what this
/// node knows nothing of.
#[derive(Debug, Default)]
struct Crowd {
    /// Since the last word about it.
    elapsed: Duration,
    least_delay: Option<Duration>,
}

impl Crowd {
    /// A word every so often. All chunks of such a time must have been late: one alone says as much
    /// about a disk or this machine's processors.
    fn look(&mut self, look: &Look) -> Option<bool> {
        const EVERY: Duration = Duration::from_millis(500);
        const LONG: Duration = Duration::from_millis(200);
        self.elapsed = self.elapsed.saturating_add(look.elapsed);
        self.least_delay = self.least_delay.into_iter().chain(look.delay).min();
        let least = self.least_delay.filter(|_| self.elapsed >= EVERY)?;
        *self = Self::default();
        Some(least > LONG)
    }
}

/// How much longer chunks take than they did at their best.
#[derive(Debug)]
struct Delays {
    /// The best of each source since `began`, and of the time before: a source that is always slow
    /// is not a crowded network.
    best: Vec<[Option<Duration>; 2]>,
    began: Instant,
    /// The least since somebody has asked.
    least: Option<Duration>,
}

impl Delays {
    fn new(now: Instant) -> Self {
        Self { best: Vec::new(), began: now, least: None }
    }

    fn took(&mut self, source: usize, time: Duration, now: Instant) {
        /// What was longer ago may have been another network.
        const REMEMBERED: Duration = Duration::from_secs(120);
        if now.saturating_duration_since(self.began) >= REMEMBERED {
            self.best.iter_mut().for_each(|[new, old]| *old = new.take());
            self.began = now;
        }
        if self.best.len() <= source {
            self.best.resize(source.saturating_add(1), [None; 2]);
        }
        let Some([new, old]) = self.best.get_mut(source) else { return };
        *new = Some(new.map_or(time, |best| best.min(time)));
        let best = new.iter().chain(old.iter()).min().copied().unwrap_or(time);
        let delay = time.saturating_sub(best);
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// A token bucket that may get into debt for one request, so that requests larger than a moment's
/// worth of tokens are only late.
#[derive(Debug)]
struct Bucket {
    /// Bytes that may be asked for; negative after a large request.
    tokens: i64,
    filled_at: Instant,
}

impl Bucket {
    /// Nothing may be asked for sooner than after this, or it is taken from the bucket.
    fn take(&mut self, now: Instant, rate: u64, length: u32) -> Option<Duration> {
        /// Of tokens that nobody took: a worker that was late may catch up a little.
        const SAVED: Duration = Duration::from_millis(50);
        let rate = rate.max(1);
        let elapsed = now.saturating_duration_since(self.filled_at);
        let new = u128::from(rate) * elapsed.as_micros() / 1_000_000;
        // Only for as long as that took: a slow rate must not lose its fractions.
        let spent = new.saturating_mul(1_000_000).div_ceil(u128::from(rate));
        let spent = Duration::from_micros(u64::try_from(spent).unwrap_or(u64::MAX));
        self.filled_at = self.filled_at.checked_add(spent).unwrap_or(now);
        let most = u128::from(rate) * SAVED.as_millis() / 1000;
        let new = i64::try_from(new).unwrap_or(i64::MAX);
        let most = i64::try_from(most).unwrap_or(i64::MAX).max(1);
        self.tokens = self.tokens.saturating_add(new).min(most);
        if self.tokens > 0 {
            self.tokens = self.tokens.saturating_sub(i64::from(length));
            return None;
        }
        let missing = self.tokens.unsigned_abs().saturating_add(1);
        let micros = u128::from(missing) * 1_000_000 / u128::from(rate);
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).max(1)))
    }
}

/// Longest sleep of a worker before it asks again: the speed may have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Pacer(Mutex<State>);

#[derive(Debug)]
struct State {
    speed: Speed,
    bucket: Bucket,
    is_paused: bool,
    may_connect: bool,
    delays: Delays,
}

impl Pacer {
    pub fn new(speed: Speed) -> Self {
        let now = Instant::now();
        let bucket = Bucket { tokens: 1, filled_at: now };
        let delays = Delays::new(now);
        Self(Mutex::new(State { speed, bucket, is_paused: false, may_connect: true, delays }))
    }

    pub fn set(&self, speed: Speed, is_paused: bool) {
        let mut state = self.lock();
        state.speed = speed;
        state.is_paused = is_paused;
    }

    /// Of the quickest chunk since the last time that this was asked.
    pub fn delay(&self) -> Option<Duration> {
        self.lock().delays.least.take()
    }

    /// While the root has no connection, a server's last place is the root's.
    pub fn leave_places(&self, leave: bool) {
        self.lock().may_connect = !leave;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace for Pacer {
    fn turn(&self, length: u32, in_flight: u64) -> Turn {
        self.lock().turn(Instant::now(), length, in_flight)
    }

    fn took(&self, source: usize, time: Duration) {
        self.lock().delays.took(source, time, Instant::now());
    }

    fn may_connect(&self) -> bool {
        self.lock().may_connect
    }
}

impl State {
    fn turn(&mut self, now: Instant, length: u32, in_flight: u64) -> Turn {
        let after = in_flight.saturating_add(u64::from(length));
        if self.is_paused || (in_flight > 0 && after > self.speed.window_bytes) {
            return Turn::After(LOOK_AGAIN);
        }
        let Some(rate) = self.speed.bytes_per_second else { return Turn::Now };
        match self.bucket.take(now, rate, length) {
            None => Turn::Now,
            Some(wait) => Turn::After(wait.min(LOOK_AGAIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn look(is_read: bool, copied_mib: u64) -> Look {
        Look { elapsed: TICK, is_read, copied_bytes: copied_mib * MIB, delay: None }
    }

    /// Mebibytes a second after each of these looks.
    fn rates(controller: &mut Controller, looks: &[(bool, u64)]) -> Vec<Option<u64>> {
        looks
            .iter()
            .map(|(is_read, copied)| controller.look(look(*is_read, *copied)))
            .map(|speed| speed.bytes_per_second.map(|rate| rate / MIB))
            .collect()
    }

    #[test]
    fn a_copy_of_a_root_that_nobody_reads_is_soon_as_fast_as_it_can_be() {
        let mut controller = Controller::new(None);
        let quiet = rates(&mut controller, &[(false, 0); 16]);
        let expected = [2, 2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048].map(Some);
        assert_eq!(quiet, [&expected[..], &[None; 3]].concat());
    }

    #[test]
    fn a_reader_has_the_network_at_once_and_the_copy_a_share() {
        let mut controller = Controller::new(None);
        rates(&mut controller, &[(false, 0); 14]);
        // 100 MiB/s for a second.
        rates(&mut controller, &[(false, 5); 20]);
        let read = rates(&mut controller, &[(true, 5), (true, 1), (false, 1), (true, 1)]);
        assert_eq!(read, [Some(12); 4], "an eighth, also between two reads");
        let quiet = rates(&mut controller, &[(false, 1); 5]);
        assert_eq!(quiet, [12, 12, 12, 24, 49].map(Some), "and soon more again");
    }

    #[test]
    fn a_network_that_became_slow_is_not_taken_for_a_fast_one() {
        let mut controller = Controller::new(None);
        rates(&mut controller, &[(false, 0); 16]);
        rates(&mut controller, &[(false, 5); 20]);
        // Everybody boots: 2 MiB/s for this one, and it is read.
        let slow = Look { elapsed: TICK, is_read: true, copied_bytes: 2 * MIB / 20, delay: None };
        let mut speed = controller.look(slow);
        assert_eq!(speed.bytes_per_second.map(|rate| rate / MIB), Some(12));
        for _ in 0..20 {
            speed = controller.look(slow);
        }
        assert_eq!(speed.window_bytes, LEAST_WINDOW, "after a second");
        for _ in 0..20 * 120 {
            speed = controller.look(slow);
        }
        assert!(speed.bytes_per_second < Some(3 * MIB), "after two minutes: {speed:?}");
        // Held back by us, it says nothing about the network.
        let mut controller = Controller::new(None);
        rates(&mut controller, &[(false, 0); 16]);
        rates(&mut controller, &[(false, 5); 20]);
        let share = Look { elapsed: TICK, is_read: true, copied_bytes: 12 * MIB / 20, delay: None };
        for _ in 0..20 * 120 {
            speed = controller.look(share);
        }
        assert_eq!(speed.bytes_per_second.map(|rate| rate / MIB), Some(12));
    }

    /// Each row: half a second of looks, with the delay of the one chunk that has come in it.
    #[test]
    #[rustfmt::skip]
    fn a_network_that_others_crowd_is_theirs() {
        let mut controller = Controller::new(None);
        rates(&mut controller, &[(false, 5); 40]);
        let cases = [
            (Some(20),  None,       "as fast as it can"),
            (Some(201), Some(1024), "chunks come late"),
            (Some(400), Some(512),  "it was not enough"),
            (Some(300), Some(256),  "nor was that"),
            (Some(300), Some(256),  "as little as there is"),
            (None,      Some(256),  "nothing has come, which is no news"),
            (Some(200), Some(256),  "better, for a moment only"),
        ];
        for (delay, kib, case) in cases {
            let mut speed = controller.speed();
            for nth in 0..10 {
                let delay = delay.filter(|_| nth == 9).map(Duration::from_millis);
                speed = controller.look(Look { delay, ..look(false, 0) });
            }
            assert_eq!(speed.bytes_per_second.map(|rate| rate >> 10), kib, "{case}");
            let is_one = speed.window_bytes == WINDOW_IN_A_CROWD;
            assert_eq!(is_one, kib.is_some() && delay != Some(200), "{case}");
        }
        let after = rates(&mut controller, &[(false, 0); 20]);
        assert_eq!(after.last(), Some(&None), "the network is free");
    }

    #[test]
    #[rustfmt::skip]
    fn one_late_chunk_among_others_is_no_crowd() {
        let mut controller = Controller::new(None);
        rates(&mut controller, &[(false, 5); 40]);
        for delay in [5, 900].into_iter().cycle().take(40) {
            let delay = Some(Duration::from_millis(delay));
            let speed = controller.look(Look { delay, ..look(false, 5) });
            assert_eq!(speed.bytes_per_second, None);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_delay_is_against_the_best_of_the_same_source_in_the_last_minutes() {
        let began = Instant::now();
        let mut delays = Delays::new(began);
        let cases = [
            // seconds, source, took, expected
            (  0, 0,   10,   0, "the first is the best"),
            (  1, 0,  310, 300, "late"),
            (  2, 1, 2000,   0, "another that is always slow"),
            (  3, 1, 2100, 100, "against its own best"),
            (130, 0,  300, 290, "the best of two minutes ago"),
            (260, 0,  300,   0, "of longer ago: it is another network"),
        ];
        for (seconds, source, took, expected, case) in cases {
            delays.took(source, Duration::from_millis(took), began + Duration::from_secs(seconds));
            let got = delays.least.take().map(|delay| delay.as_millis());
            assert_eq!(got, Some(expected), "{case}");
        }
    }

    #[test]
    fn a_root_that_is_always_read_is_copied_all_the_same() {
        let mut controller = Controller::new(None);
        assert_eq!(rates(&mut controller, &[(true, 0); 40]), [Some(2); 40]);
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let mut controller = Controller::new(Some(MIB));
        assert_eq!(rates(&mut controller, &[(true, 0), (false, 0)]), [Some(1); 2]);
        assert_eq!(rates(&mut controller, &[(false, 0); 20]), [Some(1); 20]);
        let mut controller = Controller::new(Some(100 * MIB));
        assert_eq!(rates(&mut controller, &[(false, 0); 20]).last(), Some(&Some(100)));
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_under_way_is_a_moments_worth() {
        let cases = [
            ("nothing is known",  0, 0, 512),
            ("a slow line",      10, 1, 2048),          // 20 MiB/s
            ("a fast one",       10, 64, 128 << 10),    // 1.25 GiB/s
        ];
        for (case, looks, mib, kib) in cases {
            let mut controller = Controller { rate: None, ..Controller::new(None) };
            let mut speed = controller.speed();
            for _ in 0..looks * 4 {
                speed = controller.look(look(false, mib));
            }
            let got = speed.window_bytes >> 10;
            assert!(got <= kib && got >= kib * 9 / 10, "{case}: {got} KiB");
        }
    }

    #[test]
    fn requests_come_at_the_rate_whatever_their_size() {
        let start = Instant::now();
        for (rate, length) in
            [(10 * MIB, 256u32 << 10), (MIB, 256 << 10), (100_000, 1 << 20), (7, 3)]
        {
            let mut bucket = Bucket { tokens: 1, filled_at: start };
            let (mut now, mut asked) = (start, 0u64);
            while now < start + Duration::from_secs(60) {
                match bucket.take(now, rate, length) {
                    None => asked += u64::from(length),
                    Some(wait) => now += wait,
                }
            }
            let most = rate * 60 + u64::from(length) + rate / 10;
            let least = (rate * 60).saturating_sub(u64::from(length)) * 95 / 100;
            assert!(
                (least..=most).contains(&asked),
                "{asked} bytes at {rate} a second, by {length}"
            );
        }
    }

    #[test]
    fn a_pause_is_a_pause_and_a_full_window_too() {
        let speed = Speed { bytes_per_second: None, window_bytes: 512 << 10 };
        let pacer = Pacer::new(speed);
        let length = 256 << 10;
        assert_eq!(pacer.turn(length, 0), Turn::Now);
        assert_eq!(pacer.turn(length, 256 << 10), Turn::Now);
        assert_eq!(pacer.turn(length, 512 << 10), Turn::After(LOOK_AGAIN));
        pacer.set(speed, true);
        assert_eq!(pacer.turn(length, 0), Turn::After(LOOK_AGAIN));
        pacer.set(Speed { window_bytes: 1, ..speed }, false);
        assert_eq!(pacer.turn(length, 0), Turn::Now, "one is always under way");
        assert!(pacer.may_connect());
        pacer.leave_places(true);
        assert!(!pacer.may_connect(), "the root has lost its server");
        assert_eq!(pacer.turn(length, 0), Turn::Now, "what is connected goes on");
        pacer.leave_places(false);
        assert!(pacer.may_connect());
    }
}
