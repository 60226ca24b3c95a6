//! Random bits where guessing them would let a stranger answer in a server's name.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

/// Random bits and the time since an arbitrary moment: everything that makes a step impure.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    pub now: Duration,
    pub dice: u32,
}

impl Chance {
    /// That of this moment.
    pub fn since(began: Instant) -> Self {
        Self { now: began.elapsed(), dice: roll() }
    }
}

/// 32 random bits. Never waits for the kernel's pool to fill, which on a machine with nothing but a
/// NIC may take minutes.
pub fn roll() -> u32 {
    let mut bytes = [0; 4];
    match getrandom(&mut bytes, GetRandomFlags::INSECURE) {
        Ok(4) => u32::from_ne_bytes(bytes),
        // Before Linux 5.6. The machine is in its first seconds, so the clock says little more
        // than which call this is: not good, but transactions still differ.
        _ => {
            static CALLS: AtomicU32 = AtomicU32::new(0);
            let calls = CALLS.fetch_add(0x9e37_79b9, Ordering::Relaxed);
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            calls ^ clock.subsec_nanos().rotate_left(13)
        }
    }
}
