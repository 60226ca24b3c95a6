//! When a shutdown has waited long enough. Pure: what is seen comes in, with the time.

use std::time::Duration;

use crate::sys::reboot::Verb;

/// After its last progress, while units are being stopped and the root is dead: systemd gives one
/// that does not stop 90 s, and as much again to one that does not die, as none does that waits for
/// the root.
const STOPPING_WITHOUT_ROOT: Duration = Duration::from_secs(60);

/// The same once systemd-shutdown has taken over, or our own last program: what is left to do there
/// takes seconds, and processes that could still do something of use have had their time.
const LAST_WITHOUT_ROOT: Duration = Duration::from_secs(15);

/// On top of how long systemd-shutdown may wait for processes that ignore it, with a root that is
/// well, for the sake of what they still write.
const LAST: Duration = Duration::from_secs(10);

/// What systemd-shutdown waits if it says nothing else (DefaultTimeoutStopSec=).
pub const USUAL: Duration = Duration::from_secs(90);

/// Less is no progress of a machine that writes what it has not written.
const PROGRESS_KIB: u64 = 1024;

/// Whatever moves: somebody may be writing more all the time.
const LONGEST_WITHOUT_ROOT: Duration = Duration::from_secs(600);

/// What PID 1 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    Running,
    /// Asked to go down, and stopping units.
    Stopping(Verb),
    /// systemd-shutdown, which may wait for processes for so long.
    Last(Verb, Duration),
    /// Our own last program.
    OurLast(Verb),
}

impl Init {
    /// How the machine is to end.
    pub fn verb(self) -> Option<Verb> {
        match self {
            Self::Running => None,
            Self::Stopping(verb) | Self::Last(verb, _) | Self::OurLast(verb) => Some(verb),
        }
    }
}

/// Who is at it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Stopping,
    Last,
    OurLast,
}

#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// How many are left; fewer is progress.
    pub processes: usize,
    /// Memory that is still to be written to some disk.
    pub unwritten_kib: u64,
}

/// A shutdown that has been seen.
#[derive(Debug)]
struct Seen {
    stage: Stage,
    since: Duration,
    /// When something moved for the last time, and what is to be moved now.
    moved: Duration,
    processes: usize,
    /// The most since then.
    unwritten_kib: u64,
}

#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<Seen>,
}

/// End the machine so, because nothing has moved for that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enough {
    pub verb: Verb,
    pub still_for: Duration,
    /// Since the shutdown was noticed.
    pub after: Duration,
    pub is_lost: bool,
}

impl Watch {
    /// To be asked again and again; `now` is of any clock that does not jump. `lost_for`: for how
    /// long no server of the root has answered. `look` is asked only while PID 1 is going down.
    pub fn step(
        &mut self,
        now: Duration,
        init: Init,
        lost_for: Option<Duration>,
        look: impl FnOnce() -> Sight,
    ) -> Option<Enough> {
        let (verb, stage, patience) = match init {
            Init::OurLast(verb) => (verb, Stage::OurLast, USUAL),
            Init::Last(verb, patience) => (verb, Stage::Last, patience),
            Init::Stopping(verb) => (verb, Stage::Stopping, USUAL),
            // Called off, or a restart of the programs only.
            Init::Running => {
                self.seen = None;
                return None;
            }
        };
        let Sight { processes, unwritten_kib } = look();
        let begin = Seen { stage, since: now, moved: now, processes, unwritten_kib };
        let seen = self.seen.get_or_insert(begin);
        let is_written = seen.unwritten_kib.saturating_sub(unwritten_kib) >= PROGRESS_KIB;
        if is_written || processes < seen.processes || stage != seen.stage {
            seen.moved = now;
            seen.unwritten_kib = unwritten_kib;
            seen.processes = processes.min(seen.processes);
        }
        seen.unwritten_kib = seen.unwritten_kib.max(unwritten_kib);
        seen.stage = stage;

        let still_for = now.saturating_sub(seen.moved);
        let after = now.saturating_sub(seen.since);
        let is_enough = match (lost_for, stage) {
            // A unit that takes long to stop has its reasons.
            (None, Stage::Stopping) => false,
            (None, _) => still_for >= LAST.saturating_add(patience),
            (Some(lost_for), _) => {
                let limit = match stage {
                    Stage::Stopping => STOPPING_WITHOUT_ROOT,
                    Stage::Last | Stage::OurLast => LAST_WITHOUT_ROOT,
                };
                lost_for.min(still_for) >= limit || lost_for.min(after) >= LONGEST_WITHOUT_ROOT
            }
        };
        is_enough.then_some(Enough { verb, still_for, after, is_lost: lost_for.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_LOST: Option<Duration> = Some(Duration::from_secs(10_000));

    /// What there is in one second.
    type Seconds = (Init, Option<Duration>, Sight);

    /// The second at which it is enough, of what is seen in each second.
    fn ends(seconds: impl Fn(u64) -> Seconds) -> Option<u64> {
        let mut watch = Watch::default();
        (0..1000).find(|second| {
            let (init, lost_for, sight) = seconds(*second);
            watch.step(Duration::from_secs(*second), init, lost_for, || sight).is_some()
        })
    }

    fn seen(init: Init, lost_for: Option<Duration>, unwritten_kib: u64) -> Seconds {
        (init, lost_for, Sight { processes: 9, unwritten_kib })
    }

    const REBOOT: Verb = Verb::Reboot;
    const LAST_ONE: Init = Init::Last(REBOOT, USUAL);

    #[test]
    #[rustfmt::skip]
    fn a_shutdown_in_which_nothing_moves_ends() {
        let stopping = Init::Stopping(REBOOT);
        let patient = Init::Last(REBOOT, Duration::from_secs(300));
        let endless = Init::Last(REBOOT, Duration::MAX);
        let ours = Init::OurLast(REBOOT);
        let cases = [
            ("a system that just runs without its root", Init::Running, LONG_LOST, None),
            ("units that take long, with a root",        stopping,      None,      None),
            ("units that take long, without",            stopping,      LONG_LOST, Some(60)),
            ("systemd-shutdown with a root",             LAST_ONE,      None,      Some(100)),
            ("the same, that was told to be patient",    patient,       None,      Some(310)),
            ("the same, that was told to wait for ever", endless,       None,      None),
            ("systemd-shutdown without",                 LAST_ONE,      LONG_LOST, Some(15)),
            ("the same, that was told to be patient",    patient,       LONG_LOST, Some(15)),
            ("our last program",                         ours,          LONG_LOST, Some(15)),
        ];
        for (what, init, lost_for, expected) in cases {
            assert_eq!(ends(|_| seen(init, lost_for, 0)), expected, "{what}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_moves_has_time() {
        let falling = |step: u64| move |second: u64| 1_000_000_u64.saturating_sub(second * step);
        let ends_with = |unwritten: &dyn Fn(u64) -> u64| {
            ends(|second| seen(LAST_ONE, LONG_LOST, unwritten(second)))
        };
        assert_eq!(ends_with(&falling(10_000)), Some(100 + 15), "100 s of writing to a disk");
        assert_eq!(ends_with(&falling(100)), Some(600), "a MiB in less than the limit, again and again");
        assert_eq!(ends_with(&falling(10)), Some(15), "a trickle is none");
        assert_eq!(ends_with(&|second| second * 5000), Some(15), "more and more");
        // Somebody writes a lot when he is told to stop, and the disk takes two minutes for it.
        let dumped = |second: u64| if second < 10 { 100 } else { 1_000_000_u64.saturating_sub((second - 10) * 8000) };
        assert_eq!(ends_with(&dumped), Some(10 + 125 + 15), "a dump");
        let fewer = |second: u64, of: u64| Sight {
            processes: 40_usize.saturating_sub((second / of) as usize),
            unwritten_kib: 0,
        };
        let stopping = Init::Stopping(REBOOT);
        assert_eq!(ends(|second| (stopping, LONG_LOST, fewer(second, 50))), Some(600), "one process each 50 s");
        assert_eq!(ends(|second| (stopping, LONG_LOST, fewer(second % 2, 1))), Some(61), "one that is started again and again");
        let at_last = |second| if second < 14 { LAST_ONE } else { Init::OurLast(REBOOT) };
        assert_eq!(ends(|second| seen(at_last(second), LONG_LOST, 0)), Some(14 + 15), "it has just begun");
    }

    #[test]
    fn time_without_a_root_begins_with_its_loss() {
        let lost_at_40 = |second: u64| second.checked_sub(40).map(Duration::from_secs);
        assert_eq!(ends(|second| seen(LAST_ONE, lost_at_40(second), 0)), Some(55));
        let back_at_10 = |second: u64| (second < 10).then_some(Duration::from_secs(second + 100));
        assert_eq!(ends(|second| seen(LAST_ONE, back_at_10(second), 0)), Some(100));
    }

    #[test]
    fn what_was_called_off_is_over() {
        let called_off = |second| match second {
            0..5 => Init::Stopping(Verb::PowerOff),
            _ => Init::Running,
        };
        assert_eq!(ends(|second| seen(called_off(second), LONG_LOST, 0)), None);
    }

    #[test]
    fn the_end_is_the_one_that_was_asked_for() {
        let mut watch = Watch::default();
        let (init, lost_for, sight) = seen(Init::Last(Verb::Halt, USUAL), LONG_LOST, 0);
        let mut at = |second| watch.step(Duration::from_secs(second), init, lost_for, || sight);
        assert_eq!(at(5), None);
        let enough = at(25).unwrap();
        assert_eq!((enough.verb, enough.after.as_secs(), enough.is_lost), (Verb::Halt, 20, true));
    }

    #[test]
    fn a_machine_that_runs_is_not_looked_at() {
        let mut watch = Watch::default();
        let look = || -> Sight { panic!("thousands of files, each second") };
        assert_eq!(watch.step(Duration::ZERO, Init::Running, None, look), None);
    }
}
