//! Time since the kernel started.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since boot, suspends included: what dmesg and journald count from.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
