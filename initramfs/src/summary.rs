//! What was packed and what it weighs, for a person to read.

use std::collections::BTreeMap;
use std::fmt;

use crate::Signatures;

#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub release: String,
    /// Name and size in bytes.
    pub modules: Vec<(String, u64)>,
    /// Name below `/lib/firmware` and size in bytes.
    pub firmware: BTreeMap<String, u64>,
    /// By the driver that asks for it.
    pub missing_firmware: BTreeMap<String, Vec<String>>,
    /// Features that an image usually has and this kernel cannot give.
    pub absent: Vec<String>,
    pub agent_bytes: u64,
    pub unpacked_bytes: u64,
    pub packed_bytes: u64,
    pub level: i32,
    pub signatures: Signatures,
}

/// Columns of a terminal.
const WIDTH: usize = 96;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:7.1} MiB", bytes as f64 / f64::from(1 << 20));
        let modules = self.modules.iter().map(|(_, bytes)| bytes).sum();
        let firmware = self.firmware.values().sum();
        let mut largest: Vec<_> = self.modules.iter().collect();
        largest.sort_by_key(|(name, bytes)| (u64::MAX - bytes, name));
        let largest: Vec<_> = largest
            .iter()
            .take(3)
            .map(|(name, bytes)| format!("{name} {}", mib(*bytes).trim_start()))
            .collect();

        writeln!(f, "Linux {}", self.release)?;
        write!(f, "  {:<9} {:>5} {}", "modules", self.modules.len(), mib(modules))?;
        if largest.is_empty() {
            writeln!(f, "  (all built in)")?;
        } else {
            writeln!(f, "  (largest: {})", largest.join(", "))?;
        }
        writeln!(f, "  {:<9} {:>5} {}", "firmware", self.firmware.len(), mib(firmware))?;
        writeln!(f, "  {:<15} {}", "agent", mib(self.agent_bytes))?;
        writeln!(f, "  {:<15} {}", "unpacked", mib(self.unpacked_bytes))?;
        write!(f, "  {:<15} {}  (zstd, level {})", "image", mib(self.packed_bytes), self.level)?;
        if !self.absent.is_empty() {
            write!(f, "\n\nThis kernel has no {}.", self.absent.join(", "))?;
        }
        if !self.missing_firmware.is_empty() {
            let total: usize = self.missing_firmware.values().map(Vec::len).sum();
            write!(
                f,
                "\n\n{total} firmware files were not found (--firmware DIR). Drivers that name them:"
            )?;
            let drivers = self.missing_firmware.iter().map(|(driver, files)| match files.len() {
                1 => driver.clone(),
                count => format!("{driver} ({count})"),
            });
            write_wrapped(f, drivers)?;
        }
        if self.signatures == Signatures::Strip {
            write!(
                f,
                "\n\nSignatures were removed: loading a module taints the kernel (flag E), and a \
                 kernel under\nSecure Boot lockdown or module.sig_enforce refuses it. For test \
                 machines only."
            )?;
        }
        Ok(())
    }
}

fn write_wrapped(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = String>) -> fmt::Result {
    let mut column = 0;
    for (number, word) in words.enumerate() {
        if number > 0 {
            f.write_str(",")?;
        }
        if number == 0 || column + 2 + word.len() > WIDTH {
            f.write_str("\n ")?;
            column = 1;
        }
        write!(f, " {word}")?;
        column += 2 + word.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_is_in_what_is_not_and_what_it_costs() {
        let summary = Summary {
            release: "6.1".into(),
            modules: vec![("nbd".into(), 50 << 10), ("mlx5_core".into(), 3 << 20)],
            missing_firmware: (0..30)
                .map(|n| (format!("driver_{n:02}"), vec![String::new(); 1 + n % 2]))
                .collect(),
            absent: vec!["tls".into()],
            agent_bytes: 2_900_000,
            unpacked_bytes: 6 << 20,
            packed_bytes: 2 << 20,
            level: 19,
            signatures: Signatures::Strip,
            ..Summary::default()
        };
        let text = summary.to_string();
        for part in [
            "  modules       2     3.0 MiB  (largest: mlx5_core 3.0 MiB, nbd 0.0 MiB)\n",
            "  agent               2.8 MiB\n",
            "This kernel has no tls.",
            "45 firmware files were not found",
            "driver_00, driver_01 (2), ",
            "refuses it",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
