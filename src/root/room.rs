//! Whether an image fits in memory, beside everything that memory is needed for.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use super::plan::RamMode;
use super::size::Size;
use crate::error::{Error, Result, WhileDoing};
use crate::sys::memory::Medium;

/// What `/proc/meminfo` says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What can be had without swapping, by the kernel's own estimate.
    pub available: u64,
}

/// An image that would leave too little memory to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    image: u64,
    available: u64,
    reserved: u64,
}

impl Memory {
    pub fn now() -> Result<Self> {
        const PATH: &str = "/proc/meminfo";
        let text = fs::read_to_string(PATH).while_doing(|| format!("reading {PATH}"))?;
        Self::parse(&text)
            .ok_or_else(|| Error::invalid(format!("reading {PATH}"), "MemAvailable is missing"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
    }

    /// As if nothing ran here.
    pub fn emptied(&self) -> Self {
        Self { available: self.total, ..*self }
    }

    /// An eighth of the machine, but at least what a small systemd needs to start, and at most
    /// what a large machine would not notice. A copy that runs out of memory half-way ends with
    /// the kernel killing PID 1, so this has to be known beforehand.
    pub fn reserved(&self) -> u64 {
        const LEAST: u64 = 128 << 20;
        const MOST: u64 = 1 << 30;
        (self.total / 8).clamp(LEAST, MOST)
    }
}

/// Whether `image` bytes may be taken from `memory`.
pub fn fits(image: u64, memory: &Memory) -> Result<(), TooLarge> {
    let reserved = memory.reserved();
    match memory.available.checked_sub(reserved) {
        Some(free) if image <= free => Ok(()),
        _ => Err(TooLarge { image, available: memory.available, reserved }),
    }
}

/// Whether an image of `size` bytes may be copied to memory: all of them, or those that are not
/// zeroes, of which `allocated` is asked only if they matter.
///
/// Holes count for nothing only where reading them does not fill them.
pub fn fits_copied(
    size: u64,
    allocated: impl FnOnce() -> Option<u64>,
    medium: Medium,
    memory: &Memory,
) -> Result<(), TooLarge> {
    fits(size, memory).or_else(|too_large| match medium {
        Medium::Ramfs => Err(too_large),
        Medium::Tmpfs => match allocated() {
            Some(bytes) if bytes < size => fits(bytes, memory),
            _ => Err(too_large),
        },
    })
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "image of {} does not fit in RAM ({} available, {} reserved)",
            Size(self.image),
            Size(self.available),
            Size(self.reserved)
        )
    }
}

/// How much of the image is not zeroes, as far as its servers know. They are not asked all the
/// time: that nobody has a map hardly changes.
#[derive(Debug, Default)]
pub struct Allocated {
    bytes: Option<u64>,
    asked_at: Option<Instant>,
}

impl Allocated {
    /// What is known, else what `ask` says now.
    pub fn get(&mut self, now: Instant, ask: impl FnOnce() -> Option<u64>) -> Option<u64> {
        const AGAIN: Duration = Duration::from_secs(900);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= AGAIN;
        if self.bytes.is_none() && self.asked_at.is_none_or(is_due) {
            self.asked_at = Some(now);
            self.bytes = ask();
        }
        self.bytes
    }

    /// What has been found out so far.
    pub fn known(&self) -> Option<u64> {
        self.bytes
    }
}

/// What can be made of `mode`, and if that is less than was asked for, why, and what it is instead.
///
/// `fits`: whether the image fits into a memory; asked of what there is now for a copy before the
/// boot, and of the whole machine for one behind it, which only a kept root can have.
pub fn affordable(
    (mode, is_kept): (RamMode, bool),
    memory: &Memory,
    mut fits: impl FnMut(&Memory) -> Result<(), TooLarge>,
) -> (RamMode, Option<(TooLarge, &'static str)>) {
    let too_large = match mode {
        RamMode::Off => return (mode, None),
        RamMode::Lazy => fits(&memory.emptied()),
        RamMode::Copy => fits(memory),
    };
    let Err(too_large) = too_large else { return (mode, None) };
    if mode == RamMode::Copy && is_kept && fits(&memory.emptied()).is_ok() {
        let instead = "it is copied behind the running system, when there is room";
        return (RamMode::Lazy, Some((too_large, instead)));
    }
    (RamMode::Off, Some((too_large, "it is streamed instead")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    #[rustfmt::skip]
    fn an_image_must_leave_room_for_the_system() {
        let machine = |total: u64, available: u64| Memory { total: total * MIB, available: available * MIB };
        let cases = [
            (machine(512, 400),       272, Ok(())),
            (machine(512, 400),       273, Err("image of 273.0 MiB does not fit in RAM (400.0 MiB available, 128.0 MiB reserved)")),
            (machine(2560, 1843),    4096, Err("image of 4.0 GiB does not fit in RAM (1.8 GiB available, 320.0 MiB reserved)")),
            (machine(131072, 130000), 128_976, Ok(())),
            (machine(131072, 130000), 128_977, Err("image of 126.0 GiB does not fit in RAM (127.0 GiB available, 1.0 GiB reserved)")),
            (machine(64, 32),           0, Err("image of 0 bytes does not fit in RAM (32.0 MiB available, 128.0 MiB reserved)")),
        ];
        for (memory, image, expected) in cases {
            let got = fits(image * MIB, &memory).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{image} MiB in {memory:?}");
        }
    }

    /// An image that was made large for growing has mostly holes.
    #[test]
    #[rustfmt::skip]
    fn of_a_sparse_image_the_data_must_fit() {
        let memory = Memory { total: 1024 * MIB, available: 900 * MIB };
        let cases = [
            ( 500, None,       Medium::Ramfs, true),
            ( 500, None,       Medium::Tmpfs, true),  // nobody is asked
            (2000, None,       Medium::Tmpfs, false),
            (2000, Some(700),  Medium::Tmpfs, true),
            (2000, Some(700),  Medium::Ramfs, false), // reading it would fill the holes
            (2000, Some(1900), Medium::Tmpfs, false),
            (2000, Some(2000), Medium::Tmpfs, false),
        ];
        for (size, allocated, medium, expected) in cases {
            let got = fits_copied(size * MIB, || allocated.map(|mib| mib * MIB), medium, &memory);
            assert_eq!(got.is_ok(), expected, "{allocated:?} of {size} MiB in {medium:?}");
        }
    }

    #[test]
    fn servers_are_not_asked_all_the_time_for_what_they_do_not_know() {
        let mut allocated = Allocated::default();
        let now = Instant::now();
        let mut asked = 0;
        for seconds in (0..900).step_by(2) {
            let got = allocated.get(now + Duration::from_secs(seconds), || {
                asked += 1;
                None
            });
            assert_eq!(got, None);
        }
        assert_eq!(asked, 1);
        let later = now + Duration::from_secs(900);
        assert_eq!(allocated.get(later, || Some(5)), Some(5), "a server has come that knows");
        let much_later = now + Duration::from_secs(90_000);
        assert_eq!(allocated.get(much_later, || None), Some(5), "the image stays what it is");
    }

    /// The initramfs, and what the boot needs, are gone later.
    #[test]
    #[rustfmt::skip]
    fn an_image_with_no_room_yet_is_copied_later() {
        let memory = Memory { total: 2048 * MIB, available: 512 * MIB };
        let cases = [
            // asked for      kept   MiB   what it is
            (RamMode::Off,  true,  5000, RamMode::Off,  None),
            (RamMode::Copy, true,   256, RamMode::Copy, None),
            (RamMode::Copy, true,   257, RamMode::Lazy, Some("behind the running system")),
            (RamMode::Copy, false,  257, RamMode::Off,  Some("streamed instead")),
            (RamMode::Copy, true,  1793, RamMode::Off,  Some("streamed instead")),
            (RamMode::Lazy, true,   256, RamMode::Lazy, None),
            (RamMode::Lazy, true,  1792, RamMode::Lazy, None),
            (RamMode::Lazy, true,  1793, RamMode::Off,  Some("streamed instead")),
        ];
        for (mode, is_kept, mib, expected, words) in cases {
            let fits = |memory: &Memory| fits(mib * MIB, memory);
            let (got, trouble) = affordable((mode, is_kept), &memory, fits);
            let case = format!("{mode:?}, kept {is_kept}, {mib} MiB");
            assert_eq!(got, expected, "{case}");
            assert_eq!(trouble.is_some(), words.is_some(), "{case}");
            assert!(words.is_none_or(|words| trouble.unwrap().1.contains(words)), "{case}");
        }
    }

    #[test]
    fn meminfo_is_read_by_its_keys() {
        let text =
            "MemTotal:         506472 kB\nMemFree:          1 kB\nMemAvailable:     400000 kB\n";
        let expected = Memory { total: 506_472 * 1024, available: 400_000 * 1024 };
        assert_eq!(Memory::parse(text), Some(expected));
        for broken in ["", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 4 kB\n"] {
            assert_eq!(Memory::parse(broken), None, "meminfo {broken:?}");
        }
        assert!(Memory::now().unwrap().available > 0);
    }
}
