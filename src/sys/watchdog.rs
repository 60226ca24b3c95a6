//! The hardware watchdog: restarts a machine that nobody has spoken for in time
//! (Documentation/watchdog/watchdog-api.rst).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

use crate::error::{Result, WhileDoing};

const NODE: &str = "watchdog0";
const DOING: &str = "winding up the hardware watchdog";

/// A watchdog that runs. Dropping it closes its device: that stops some, and of the others the kernel
/// complains.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    timeout: Duration,
}

impl Watchdog {
    /// Starts the machine's first watchdog, through a descriptor of `/dev`, to restart the machine
    /// after `timeout` without [`Self::keep_alive`]; none where there is none.
    ///
    /// # Errors
    /// Somebody else has it (systemd's `RuntimeWatchdogSec=`, a daemon).
    pub fn start_in(dev: BorrowedFd<'_>, timeout: Duration) -> Result<Option<Self>> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let device = match openat(dev, NODE, flags, Mode::empty()) {
            Ok(device) => File::from(device),
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno).while_doing(|| DOING),
        };
        // It runs since it was opened. One that cannot be set keeps the time it has.
        let mut seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        // SAFETY: WDIOC_SETTIMEOUT reads an int and writes back the one that it has taken.
        let set = unsafe { ioctl(device.as_fd(), Updater::<SET_TIMEOUT, i32>::new(&mut seconds)) };
        if let Err(errno) = set {
            log::debug!(target: "watchdog", "setting it to {} s: {errno}", timeout.as_secs());
            // SAFETY: WDIOC_GETTIMEOUT writes an int.
            let has = unsafe { ioctl(device.as_fd(), Getter::<GET_TIMEOUT, i32>::new()) };
            seconds = has.unwrap_or(0);
        }
        let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let mut watchdog = Self { device, timeout };
        watchdog.keep_alive()?;
        Ok(Some(watchdog))
    }

    /// Has it restart the machine when its time is over, which is what the hardware has made of the
    /// time that was asked for; zero where it does not say.
    pub fn leave_running(self) -> Duration {
        let timeout = self.timeout;
        // To the end of the machine, and of this process, which is the same.
        std::mem::forget(self);
        timeout
    }

    /// The machine is well, and has as much time again.
    pub fn keep_alive(&mut self) -> Result<()> {
        // Any byte but the one that stops it.
        self.device.write_all(b"\0").while_doing(|| DOING)
    }

    /// Stops it, where the driver allows that (`nowayout` does not).
    pub fn stop(mut self) -> Result<()> {
        self.device.write_all(b"V").while_doing(|| "stopping the hardware watchdog")
    }
}

const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
const GET_TIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_one_has_none() {
        let empty = tempfile::tempdir().unwrap();
        let dev = File::open(empty.path()).unwrap();
        assert!(Watchdog::start_in(dev.as_fd(), Duration::from_secs(60)).unwrap().is_none());
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_calls_are_those_of_watchdog_h() {
        assert_eq!((SET_TIMEOUT, GET_TIMEOUT), (0xc004_5706, 0x8004_5707));
    }
}
