//! What is remembered from one trouble to the next, so that the same one again and again is not met
//! as eagerly as the first. Pure.

use std::time::{Duration, Instant};

use super::turns::Turns;
use crate::keeper::lost::Countdown;
use crate::root::LostPolicy;

/// Of all servers, for as long as the machine runs.
#[derive(Debug, Default)]
pub struct History {
    last: Option<(Series, Instant)>,
    /// How long requests had to go unanswered before that was suspicious, at the last hanging server.
    suspicion: Option<(Duration, Instant)>,
    /// Servers that could not read their image, and until when they are asked last.
    shunned: Vec<(usize, Instant)>,
    /// Servers that were not worth going back to.
    spurned: Vec<Spurned>,
    /// The server that the root has gone back to of its own accord, and when.
    returned: Option<(usize, Instant)>,
    /// Connections in a row over which nothing was read.
    in_vain: u32,
}

#[derive(Clone, Copy, Debug)]
struct Spurned {
    source: usize,
    since: Instant,
    time: Duration,
}

/// With requests in flight and none answered: long for a disk that seeks, short for a person.
const SUSPICIOUS: Duration = Duration::from_millis(600);
/// For a room whose servers all are slow.
const MOST_SUSPICIOUS: Duration = Duration::from_secs(30);
/// Without another hanging server, after which the next one is noticed in half the time.
const CALM: Duration = Duration::from_secs(60);
/// How long a server that hangs must have been silent before it is asked anew: a busy one has enough
/// to do, and answers a new connection, which asks for what it has in memory, in any case. Where that
/// is no cure, each one leaves a process at the server, which waits as this node does.
const BEFORE_SAME_SERVER: Duration = Duration::from_secs(10);
const MOST_BEFORE_SAME_SERVER: Duration = Duration::from_secs(600);
const MOST_BEFORE_MIRROR: Duration = Duration::from_secs(60);
/// A server that has just been started has nothing in its memory yet, and all its nodes are there.
const COLD: Duration = Duration::from_secs(3);
const WARM_AFTER: Duration = Duration::from_secs(60);
/// A server that was lost so soon again is asked less eagerly.
const QUICK: Duration = Duration::from_secs(10);
const SHUNNED: Duration = Duration::from_secs(300);
/// What a server must do without trouble for having been worth going back to.
const SETTLED: Duration = Duration::from_secs(600);
/// For how long nobody goes back to one that was not, the first time and at most.
const SPURNED: Duration = Duration::from_secs(300);
const MOST_SPURNED: Duration = Duration::from_secs(3600);

impl History {
    /// For how long a connection may leave requests unanswered.
    pub fn patience(&self, now: Instant) -> Duration {
        let is_cold = |at: Instant| now.saturating_duration_since(at) < WARM_AFTER;
        let usual = match self.returned {
            Some((_, at)) if is_cold(at) => COLD,
            _ => SUSPICIOUS,
        };
        let Some((suspicion, at)) = self.suspicion else { return usual };
        let calm = now.saturating_duration_since(at).as_secs() / CALM.as_secs();
        let halves = u32::try_from(calm).unwrap_or(u32::MAX).min(16);
        (suspicion / (1 << halves)).max(usual)
    }

    /// A server left requests unanswered for as long: the next time it gets more of it, since the
    /// servers may be slow and nothing else.
    pub fn hung(&mut self, now: Instant) {
        let next = self.patience(now).saturating_mul(2).min(MOST_SUSPICIOUS);
        self.suspicion = Some((next, now));
    }

    pub fn shun(&mut self, source: usize, now: Instant) {
        self.shunned.retain(|(other, until)| *other != source && *until > now);
        self.shunned.extend(now.checked_add(SHUNNED).map(|until| (source, until)));
    }

    pub fn is_shunned(&self, source: usize, now: Instant) -> bool {
        self.shunned.iter().any(|(other, until)| *other == source && *until > now)
    }

    pub fn returned(&mut self, source: usize, now: Instant) {
        self.returned = Some((source, now));
    }

    /// The server is in trouble: if the root had just gone back to it, it should not have.
    pub fn failed(&mut self, source: usize, now: Instant) {
        let is_new = |at: Instant| now.saturating_duration_since(at) < SETTLED;
        match self.returned.take() {
            Some((other, at)) if other == source && is_new(at) => self.spurn(source, now),
            Some((other, _)) if other == source => self.spurned.retain(|one| one.source != source),
            _ => {}
        }
    }

    /// Nobody is to go back to this server for a while, and for longer each time.
    pub fn spurn(&mut self, source: usize, now: Instant) {
        let before = self.spurned.iter().position(|one| one.source == source);
        let before = before.map(|place| self.spurned.swap_remove(place).time);
        let time = before.map_or(SPURNED, |time| time.saturating_mul(2).min(MOST_SPURNED));
        self.spurned.push(Spurned { source, since: now, time });
    }

    /// Whether the root may leave a server that is well for this one.
    pub fn may_go_back(&self, source: usize, now: Instant) -> bool {
        let lasts = |one: &Spurned| now.saturating_duration_since(one.since) < one.time;
        let is_spurned = self.spurned.iter().any(|one| one.source == source && lasts(one));
        !is_spurned && !self.is_shunned(source, now)
    }

    /// The series that a trouble of now belongs to. `waited`: for how long nothing has been read of
    /// the root although something was asked, over whatever connections; `has_served`: the last one
    /// has answered something.
    pub fn begin(
        &mut self,
        now: Instant,
        waited: Duration,
        has_served: bool,
        new: impl FnOnce() -> Series,
    ) -> Series {
        let last = self.last.take();
        let before = last.map(|(series, ended)| (series, now.saturating_duration_since(ended)));
        self.in_vain = match &before {
            Some((_, gap)) if waited > *gap => self.in_vain.saturating_add(1),
            _ => 0,
        };
        let began = now.checked_sub(waited).unwrap_or(now);
        match before {
            // What waited then still does: it is the same trouble, however long ago.
            Some((series, gap)) if waited > gap => {
                Series { troubles: series.troubles.saturating_add(1), began, ..series }
            }
            // Nothing waits, or it was read in between. What only shakes hands is asked more seldom.
            Some((series, gap)) if gap < QUICK => {
                let troubles = series.troubles.saturating_add(1);
                let turns = if has_served { Turns::soon_again(now) } else { series.turns };
                Series { troubles, began, turns, ..new() }
            }
            _ => new(),
        }
    }

    /// How long the server that hangs must have been silent before it is asked anew.
    pub fn before_same_server(&self) -> Duration {
        BEFORE_SAME_SERVER.saturating_mul(1 << self.in_vain.min(16)).min(MOST_BEFORE_SAME_SERVER)
    }

    /// The same before one of its mirrors is asked: at once, until each of so many servers has been
    /// tried in vain. Its disk may be well by now, and nothing else would find that out.
    pub fn before_mirror(&self, servers: usize) -> Duration {
        let all_in_vain = usize::try_from(self.in_vain).is_ok_and(|in_vain| in_vain > servers);
        match all_in_vain {
            true => self.before_same_server().min(MOST_BEFORE_MIRROR),
            false => Duration::ZERO,
        }
    }

    pub fn end(&mut self, series: Series, now: Instant) {
        self.last = Some((series, now));
    }
}

/// Troubles that follow each other so quickly that they are one.
#[derive(Debug)]
pub struct Series {
    /// When the root was read for the last time, but for the trouble of now.
    began: Instant,
    troubles: u32,
    pub turns: Turns,
    pub countdown: Countdown,
}

impl Series {
    pub fn new(lost: LostPolicy, now: Instant) -> Self {
        Self { began: now, troubles: 1, turns: Turns::new(now), countdown: Countdown::new(lost) }
    }

    pub fn is_first(&self) -> bool {
        self.troubles == 1
    }

    /// How long it has gone on, if this is not the first trouble of it.
    pub fn lasts(&self, now: Instant) -> Duration {
        if self.is_first() { Duration::ZERO } else { now.saturating_duration_since(self.began) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_again_is_no_news() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let series = |seconds| move || Series::new(LostPolicy::Wait, at(seconds));
        let mut history = History::default();
        let none = Duration::ZERO;
        let first = history.begin(at(0), none, false, series(0));
        assert!(first.is_first() && first.lasts(at(3)).is_zero());
        history.end(first, at(3));
        let long = Duration::from_secs(12);
        let again = history.begin(at(12), long, false, series(12));
        assert!(!again.is_first(), "it was no cure");
        assert_eq!(again.lasts(at(12)).as_secs(), 12);
        history.end(again, at(12));
        let much_later = history.begin(at(60), Duration::from_secs(60), false, series(60));
        assert_eq!(much_later.lasts(at(60)).as_secs(), 60, "nor was the next one");
        history.end(much_later, at(60));
        for (second, has_served) in [(68, true), (76, false)] {
            let read = history.begin(at(second), none, has_served, series(second));
            assert!(!read.is_first(), "it did not last");
            assert_eq!(read.lasts(at(second + 1)).as_secs(), 1, "nothing waited in between");
            history.end(read, at(second + 1));
        }
        assert!(history.begin(at(87), none, false, series(87)).is_first(), "it was one");
    }

    #[test]
    fn a_disk_that_hangs_is_not_given_more_and_more_to_do() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut history = History::default();
        let (mut pauses, mut mirrors) = (Vec::new(), Vec::new());
        for second in (0..9).map(|n| 30 * n) {
            let waited = Duration::from_secs(second);
            let new = || Series::new(LostPolicy::Wait, at(second));
            let series = history.begin(at(second), waited, false, new);
            pauses.push(history.before_same_server().as_secs());
            mirrors.push(history.before_mirror(2).as_secs());
            history.end(series, at(second + 1));
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(mirrors, [0, 0, 0, 60, 60, 60, 60, 60, 60], "both have had their turn");
        let new = || Series::new(LostPolicy::Wait, at(300));
        let _ = history.begin(at(300), Duration::from_secs(1), true, new);
        assert_eq!(history.before_same_server().as_secs(), 10, "it was read");
    }

    #[test]
    fn nobody_goes_back_soon_to_a_server_that_is_well_in_handshakes_only() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut history = History::default();
        history.failed(0, at(0));
        assert!(history.may_go_back(0, at(0)), "nobody had gone back to it");
        let mut from = 10;
        for minutes in [5, 10, 20, 40, 60, 60] {
            history.returned(0, at(from));
            history.failed(0, at(from + 1));
            // Its disk may be what is wrong, which is another reason, and a shorter one.
            history.shun(0, at(from + 1));
            let end = from + 1 + minutes * 60;
            assert!(!history.may_go_back(0, at(end - 1)), "{minutes} minutes");
            assert!(history.may_go_back(0, at(end)), "{minutes} minutes");
            assert!(!history.is_shunned(0, at(from + 302)), "asked first where it is needed");
            from = end;
        }
        history.returned(0, at(from));
        history.failed(0, at(from + 600));
        assert!(history.may_go_back(0, at(from + 600)), "it has served for long");
        history.returned(0, at(from + 700));
        history.failed(0, at(from + 701));
        assert!(history.may_go_back(0, at(from + 1001)), "five minutes again");
    }

    #[test]
    fn servers_that_hang_again_and_again_are_merely_slow() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut history = History::default();
        let mut patience = vec![history.patience(at(0)).as_millis()];
        for second in 0..8 {
            history.hung(at(second));
            patience.push(history.patience(at(second)).as_millis());
        }
        assert_eq!(patience, [600, 1200, 2400, 4800, 9600, 19200, 30000, 30000, 30000]);
        let later = [66, 67, 127, 187, 247, 307, 367, 36_000];
        let later = later.map(|second| history.patience(at(second)).as_millis());
        assert_eq!(later, [30000, 15000, 7500, 3750, 1875, 937, 600, 600]);
    }

    #[test]
    fn a_server_that_was_just_started_may_think() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut history = History::default();
        history.returned(0, at(0));
        assert_eq!(history.patience(at(59)), COLD);
        assert_eq!(history.patience(at(60)), SUSPICIOUS);
    }

    #[test]
    fn a_server_that_cannot_read_is_shunned_for_a_while() {
        let now = Instant::now();
        let mut history = History::default();
        history.shun(1, now);
        history.shun(0, now);
        let late = now + SHUNNED;
        assert!(history.is_shunned(0, now) && history.is_shunned(1, now));
        assert!(!history.is_shunned(2, now) && !history.is_shunned(1, late));
    }
}
