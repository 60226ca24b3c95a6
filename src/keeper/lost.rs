//! What was promised for the time in which no server of the root answers (`landfall.lost=`).

use std::time::Duration;

use crate::root::LostPolicy;

/// What is to be done about a root that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// The operator is told how it will go on.
    Tell {
        left: Option<Duration>,
    },
    /// Time is up.
    Reboot,
}

/// Counts for one loss, and for those that follow it too closely to be another one.
#[derive(Clone, Copy, Debug)]
pub struct Countdown {
    policy: LostPolicy,
    /// When the operator hears of it again.
    next: Duration,
}

/// The first line comes at once, and then after twice as long each time, up to this.
const MOST_SILENCE: Duration = Duration::from_secs(600);
const FIRST_SILENCE: Duration = Duration::from_secs(5);

impl Countdown {
    pub fn new(policy: LostPolicy) -> Self {
        Self { policy, next: Duration::ZERO }
    }

    /// To be asked again and again, with how long the root has been lost.
    pub fn step(&mut self, lost_for: Duration) -> Step {
        let left = match self.policy {
            LostPolicy::Wait => None,
            LostPolicy::Reboot(after) if lost_for >= after => return Step::Reboot,
            LostPolicy::Reboot(after) => Some(after.saturating_sub(lost_for)),
        };
        if lost_for < self.next {
            return Step::Nothing;
        }
        let silence = lost_for.clamp(FIRST_SILENCE, MOST_SILENCE);
        self.next = lost_for.saturating_add(silence);
        Step::Tell { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(policy: LostPolicy, seconds: u64) -> (Vec<u64>, Option<u64>) {
        let mut countdown = Countdown::new(policy);
        let mut told = Vec::new();
        for second in 0..seconds {
            match countdown.step(Duration::from_secs(second)) {
                Step::Nothing => {}
                Step::Tell { .. } => told.push(second),
                Step::Reboot => return (told, Some(second)),
            }
        }
        (told, None)
    }

    #[test]
    fn waiting_is_for_ever_and_ever_less_talkative() {
        let (told, rebooted) = said(LostPolicy::Wait, 3000);
        assert_eq!(told, [0, 5, 10, 20, 40, 80, 160, 320, 640, 1240, 1840, 2440]);
        assert_eq!(rebooted, None);
    }

    #[test]
    fn a_reboot_comes_when_it_was_promised() {
        let policy = LostPolicy::Reboot(Duration::from_secs(30));
        assert_eq!(said(policy, 100), (vec![0, 5, 10, 20], Some(30)));
    }
}
