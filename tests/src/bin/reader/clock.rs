//! Seconds since power-on; the time that the machine is stopped by its host counts, too.

use rustix::time::{ClockId, clock_gettime};

pub fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
