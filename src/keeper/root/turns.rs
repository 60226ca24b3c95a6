//! When each server is asked for the root while it has no connection. Pure.
//!
//! Each has pauses of its own: one that accepts connections and never says a word is waited for, and
//! nobody else is asked any later for it.

use std::time::{Duration, Instant};

use crate::root::Backoff;

/// Of all servers, through a series of troubles.
#[derive(Debug)]
pub struct Turns {
    began: Instant,
    /// There has been no trouble before this one, or it is long ago.
    is_first: bool,
    turns: Vec<Turn>,
}

/// Of one server.
#[derive(Debug)]
struct Turn {
    state: State,
    /// In this series.
    tries: u32,
    brisk: Backoff,
    slow: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pausing { until: Instant },
    Asked,
}

/// How a server is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    pub source: usize,
    /// For a whole handshake and the samples.
    pub patience: Duration,
}

/// The servers that this node should prefer get a start: all nodes of a room lose a server in the
/// same moment, and would otherwise all find the same one to be the quickest.
const HEAD_START: Duration = Duration::from_millis(30);
/// Those that could not read their image last time are for when nobody else is there.
const SHUNNED: Duration = Duration::from_millis(1500);
/// In the first try, twice as long in each one after it, since a server that has just lost its
/// neighbour has a lot to do.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_PATIENCE: Duration = Duration::from_secs(15);
/// A server that restarts is back within a minute, and is asked often until then; a second is what
/// a switch can bear from all nodes of a room.
const YOUNG: Duration = Duration::from_secs(60);
const BRISK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);

impl Turns {
    pub fn new(now: Instant) -> Self {
        Self { began: now, is_first: true, turns: Vec::new() }
    }

    /// After a trouble that was over only just before: not quite as eager.
    pub fn soon_again(now: Instant) -> Self {
        Self { is_first: false, ..Self::new(now) }
    }

    /// All of `count` servers are to be asked, at once in the first trouble of a series, and after
    /// a pause in each one that follows, which the last answer was no cure for.
    ///
    /// `delay`: how long a server must have been silent for, if it is the one that hangs.
    pub fn begin(
        &mut self,
        count: usize,
        now: Instant,
        is_shunned: impl Fn(usize) -> bool,
        delay: impl Fn(usize) -> Duration,
    ) {
        let is_first = std::mem::replace(&mut self.is_first, false);
        self.turns.resize_with(count, Turn::new);
        for (source, turn) in self.turns.iter_mut().enumerate() {
            let place = u32::try_from(source).unwrap_or(u32::MAX);
            let start = HEAD_START.saturating_mul(place);
            let shunned = if is_shunned(source) { SHUNNED } else { Duration::ZERO };
            let pause = if is_first { Duration::ZERO } else { turn.brisk.next() };
            let wait = pause.saturating_add(start).saturating_add(shunned);
            turn.pause(now, wait.max(delay(source)));
        }
    }

    /// Nobody has to be patient with this one any more.
    pub fn hurry(&mut self, source: usize, now: Instant) {
        if let Some(turn) = self.turns.get_mut(source)
            && let State::Pausing { until } = turn.state
            && until > now
        {
            turn.pause(now, Duration::ZERO);
        }
    }

    /// Those whose turn it is. They count as asked, until they have [failed](Self::failed).
    pub fn due(&mut self, now: Instant) -> Vec<Asking> {
        let turns = self.turns.iter_mut().enumerate();
        turns
            .filter_map(|(source, turn)| Some(Asking { source, patience: turn.take(now)? }))
            .collect()
    }

    /// The server has not answered, or not as it should.
    pub fn failed(&mut self, source: usize, now: Instant) {
        let is_young = now.saturating_duration_since(self.began) < YOUNG;
        if let Some(turn) = self.turns.get_mut(source) {
            let pause = if is_young { turn.brisk.next() } else { turn.slow.next() };
            turn.pause(now, pause);
        }
    }
}

impl Turn {
    fn new() -> Self {
        let (brisk, slow) = (Backoff::up_to(BRISK), Backoff::between(BRISK, SLOW));
        Self { state: State::Asked, tries: 0, brisk, slow }
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        self.state = State::Pausing { until: now.checked_add(pause).unwrap_or(now) };
    }

    fn take(&mut self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Pausing { until } if until <= now => {
                self.state = State::Asked;
                let patience = PATIENCE.saturating_mul(1 << self.tries.min(3)).min(MOST_PATIENCE);
                self.tries = self.tries.saturating_add(1);
                Some(patience)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(turns: &mut Turns, at: Instant) -> Vec<usize> {
        turns.due(at).into_iter().map(|asking| asking.source).collect()
    }

    #[test]
    fn the_first_time_all_are_asked_in_their_order() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut turns = Turns::new(now);
        let hangs = |source| if source == 1 { Duration::from_secs(10) } else { Duration::ZERO };
        turns.begin(4, now, |source| source == 2, hangs);
        assert_eq!(asked(&mut turns, at(0)), [0]);
        assert!(asked(&mut turns, at(29)).is_empty(), "it has been asked");
        assert_eq!(asked(&mut turns, at(100)), [3], "1 hangs, 2 is shunned");
        assert_eq!(asked(&mut turns, at(1560)), [2]);
        turns.hurry(1, at(1600));
        assert_eq!(asked(&mut turns, at(1600)), [1], "it is dead, so it is asked anew");
        turns.hurry(1, at(1601));
        assert!(asked(&mut turns, at(1700)).is_empty(), "and not twice");
    }

    #[test]
    fn nobody_waits_for_a_server_that_hangs_in_its_handshake() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut turns = Turns::new(now);
        turns.begin(2, now, |_| false, |_| Duration::ZERO);
        assert_eq!(asked(&mut turns, at(50)), [0, 1]);
        // The first says nothing; the second refuses, for as long as it restarts.
        turns.failed(1, at(60));
        assert!(asked(&mut turns, at(60)).is_empty());
        assert_eq!(asked(&mut turns, at(260)), [1]);
    }

    #[test]
    fn a_server_that_stays_away_is_asked_patiently_and_for_ever() {
        let now = Instant::now();
        let mut turns = Turns::new(now);
        turns.begin(1, now, |_| false, |_| Duration::ZERO);
        let (mut at, mut patience) = (now, Vec::new());
        for _ in 0..200 {
            let mut due = turns.due(at);
            while due.is_empty() {
                at += Duration::from_millis(50);
                due = turns.due(at);
            }
            patience.extend(due.into_iter().map(|asking| asking.patience.as_secs()));
            turns.failed(0, at);
        }
        assert_eq!(patience[..5], [2, 4, 8, 15, 15]);
        // A minute of at least 0.75 s each, then at least 3.75 s each.
        let lasted = (at - now).as_secs();
        assert!((400..900).contains(&lasted), "{lasted} s for 200 tries");
    }

    #[test]
    fn what_was_no_cure_is_not_tried_again_at_once() {
        let now = Instant::now();
        let mut turns = Turns::new(now);
        for trouble in 0..6 {
            let at = now + Duration::from_secs(trouble);
            turns.begin(1, at, |_| false, |_| Duration::ZERO);
            assert_eq!(turns.due(at).is_empty(), trouble > 0, "trouble {trouble}");
            let patience = turns.due(at + Duration::from_secs(1));
            assert_eq!(patience.len(), usize::from(trouble > 0), "trouble {trouble}");
        }
        let mut turns = Turns::soon_again(now);
        turns.begin(1, now, |_| false, |_| Duration::ZERO);
        assert!(turns.due(now).is_empty());
        assert_eq!(turns.due(now + Duration::from_millis(200)).len(), 1);
    }
}
