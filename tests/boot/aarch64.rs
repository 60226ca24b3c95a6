//! The smallest set, on the other architecture: what depends on it are the console, the ELF
//! machine of programs and modules, LTSP's name for it, and firmware without SMBIOS.

use anyhow::Result;
use landfall_tests::{Kernel, NbdKind};

use crate::{failures, ram, root};

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_streams_to_an_arm64_machine() -> Result<()> {
    root::streams_from("arm64-streams", NbdKind::NbdServer, Kernel::Arm64)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_copied_by_an_arm64_machine_outlives_its_server() -> Result<()> {
    ram::outlives_its_server("arm64-ram-copy", Kernel::Arm64)
}

#[test]
#[ignore = "boots a virtual machine"]
fn an_arm64_machine_that_cannot_boot_says_why_and_reboots() -> Result<()> {
    failures::fails_without_an_init("arm64-no-init", Kernel::Arm64)
}
