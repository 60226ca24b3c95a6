//! Build hosts of `cargo xtask test`: Debians with an initramfs generator, and what they made.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::kernel::Kernel;
use crate::workshop;

/// `hosts/SUITE-GENERATOR` of the workshop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Of Debian: `bookworm`, `trixie`.
    pub suite: &'static str,
    /// `initramfs-tools`, `dracut`.
    pub generator: &'static str,
}

impl Host {
    pub fn name(self) -> String {
        format!("{}-{}", self.suite, self.generator)
    }

    /// The kernel that its images are for, as [`crate::Lab::vm`] takes it.
    pub fn kernel(self) -> Result<Kernel> {
        match self.suite {
            "bookworm" => Ok(Kernel::V6_1),
            "trixie" => Ok(Kernel::V6_12),
            other => bail!("no kernel of {other} is prepared"),
        }
    }

    /// An image that the generator wrote: `plain`, before our package came; `init` and `handler`,
    /// by the mode that was configured; `removed`, after our package had gone.
    pub fn image(self, name: &str) -> Result<PathBuf> {
        workshop::prepared(&format!("hosts/{}/{name}.img", self.name()))
    }

    /// What else was kept, a log for instance.
    pub fn text(self, name: &str) -> Result<String> {
        let path = workshop::prepared(&format!("hosts/{}/{name}", self.name()))?;
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}
