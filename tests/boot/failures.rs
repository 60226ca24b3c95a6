//! Boots that cannot succeed: the last screen must say why, and `panic=` must reboot.

use std::time::Duration;

use anyhow::Result;
use landfall_tests::{Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, ProbeRoot, Vm};

use crate::{ROOT, usual_dhcp, usual_root, usual_vm};

/// The screen must stay for a person to read it, for as long as `panic=5` says.
fn fails_and_reboots(vm: Vm<'_>, stage: &str, words: &[&str]) -> Result<()> {
    let mut machine: Machine = vm.boot()?;
    machine.failed_in(stage, words)?;
    let seen = machine.age();
    machine.ended_by("Restarting system", Duration::from_secs(30))?;
    assert!(machine.age() - seen > Duration::from_secs(3), "the screen was gone too soon");
    machine.never_said("Kernel panic")
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_without_an_init_is_said_to_have_none() -> Result<()> {
    fails_without_an_init("fails-no-init", Kernel::V6_12)
}

pub fn fails_without_an_init(test: &str, kernel: Kernel) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    // The shell too is an init of last resort.
    let tree = ProbeRoot::for_machine(&lab, kernel.arch())?;
    let image = tree.without("sbin/init")?.without("bin/sh")?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    fails_and_reboots(
        usual_vm(&lab, kernel, "")?,
        "handover",
        &["looking for an init in the root image: ", "/sbin/init: not there"],
    )
}

/// An image built for another kind of root, or by hand.
#[test]
#[ignore = "boots a virtual machine"]
fn a_missing_nbd_module_is_named() -> Result<()> {
    let lab = Lab::new("fails-no-nbd-module")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let initramfs = Initramfs::new(Kernel::V6_12).without_module("nbd").build()?;

    let vm = lab.vm(Kernel::V6_12).initramfs(initramfs).cmdline(ROOT);
    fails_and_reboots(vm, "root", &["module nbd is not in this image", "--modules nbd"])
}

/// The wrong file behind the right export.
#[test]
#[ignore = "boots a virtual machine"]
fn an_image_that_is_no_file_system_is_said_to_be_none() -> Result<()> {
    let lab = Lab::new("fails-no-file-system")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = lab.file("noise.img");
    std::fs::write(&image, "not a file system, by any standard\n".repeat(1 << 15))?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let words = [
        "recognising the image: refused: it is not a file system: ",
        "it starts with 6e 6f 74 20", // "not "
        "squashfs, erofs, ext4 or iso9660",
    ];
    fails_and_reboots(usual_vm(&lab, Kernel::V6_1, "")?, "root", &words)
}

/// Who debugs on the console looks around between two stages; afterwards the boot goes on, and is
/// still heard on the console that the shell has hung up.
#[test]
#[ignore = "boots a virtual machine"]
fn a_break_opens_a_shell_and_the_boot_goes_on_after_it() -> Result<()> {
    let lab = Lab::new("break")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let initramfs = Initramfs::new(Kernel::V6_1).rescue_shell().build()?;

    let words = format!("{ROOT} break=root");
    let mut machine = lab.vm(Kernel::V6_1).initramfs(initramfs).cmdline(&words).boot()?;
    machine.line("rescue shell: before stage root")?;
    machine.line("built-in shell")?;
    machine.type_line("echo address $(ip -4 -o address show eth0 | grep -c 10.77.0)")?;
    machine.line("address 1")?;
    machine.type_line("exit")?;
    assert_eq!(machine.node()?.mount("/")?.fstype, "overlay");
    machine.line("handover: /sbin/init").map(drop)
}

/// `landfall.shell` with an image that has none must still end on the screen, and reboot.
#[test]
#[ignore = "boots a virtual machine"]
fn a_shell_that_is_not_in_the_image_is_said_to_be_missing() -> Result<()> {
    let lab = Lab::new("no-shell")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.without("sbin/init")?.without("bin/sh")?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let vm = usual_vm(&lab, Kernel::V6_12, "landfall.shell")?;
    fails_and_reboots(vm, "handover", &["/bin/busybox is not in this image"])
}
