//! Whether an image fits in memory, beside everything that memory is needed for.

use std::fmt;
use std::fs;

use super::size::Size;
use crate::error::{Error, Result, WhileDoing};

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

    /// An eighth of the machine, but at least what a small systemd needs to start, and at most
    /// what a large machine would not notice. A copy that runs out of memory half-way ends with
    /// the kernel killing PID 1, so this has to be known beforehand.
    fn reserved(&self) -> u64 {
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
