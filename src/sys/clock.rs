//! Time since the kernel started, and what the wall clock makes of it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since boot, suspends included: what dmesg and journald count from.
pub fn since_boot() -> Duration {
    read(ClockId::Boottime)
}

/// One moment on two clocks, as systemd keeps its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970, as far as the machine knows.
    pub realtime: Duration,
    /// Since boot, suspends left out.
    pub monotonic: Duration,
}

impl Moment {
    pub fn now() -> Self {
        Self { realtime: read(ClockId::Realtime), monotonic: read(ClockId::Monotonic) }
    }
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
