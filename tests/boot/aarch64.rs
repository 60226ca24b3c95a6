//! The smallest set, on the other architecture: what depends on it are the console, the ELF
//! machine of programs and modules, LTSP's name for it, and firmware without SMBIOS.

use std::time::Duration;

use anyhow::Result;
use landfall_tests::{Arch, Dnsmasq, Kernel, Lab, Nbd, NbdKind, ProbeRoot};

use crate::{failures, ram, root, usual_vm};

/// A 64-bit ARM board that boots with U-Boot (IANA's processor architecture types).
const UBOOT: u16 = 22;

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

/// A DHCP server tells boards from PCs by option 93, and gives each kind the folder that has its
/// configuration; commands of the configuration run in the root's own shell.
#[test]
#[ignore = "boots a virtual machine"]
fn an_arm64_machine_gets_the_configuration_for_its_kind_and_switches_off() -> Result<()> {
    let lab = Lab::new("arm64-config")?;
    let conf = "[default]\nHOSTNAME = \"board7\"\n\
                PREINIT_01_MARK = \"/bin/busybox uname -m > /etc/mark\"\n";
    let other = "[default]\nHOSTNAME = \"a-pc\"\n";
    let files = [("ltsp/arm64/lts.conf", conf), ("ltsp/amd64/lts.conf", other)];
    let _dhcp = Dnsmasq::new()
        .tftp(&lab.served("tftp", &files)?)
        .option(format!("dhcp-match=set:board,option:client-arch,{UBOOT}"))
        // Without a folder: that is what the architecture's name is for.
        .option("dhcp-boot=tag:board,board.img")
        .start(&lab)?;
    let image = ProbeRoot::for_machine(&lab, Arch::Arm64)?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::QemuNbd).export("root", &image).start()?;

    let mut machine = usual_vm(&lab, Kernel::Arm64, "")?.boot()?;
    machine.line("from tftp://10.77.0.1/ltsp/arm64/lts.conf: [default]")?;
    let node = machine.node()?;
    assert_eq!(node.state()?.host_name, "board7");
    assert_eq!(node.file("/etc/mark")?, "aarch64\n");
    node.power_off()?;
    machine.ended_by("Power down", Duration::from_secs(20))
}
