//! Images of dracut with our package: as `/init`, as root handler with systemd in the image and
//! without it, beside dracut's own modules for networks, and without the package again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{Format, Host, Lab, Nbd, NbdKind, ProbeRoot, amended};

use crate::became::{Known, mounts};
use crate::hosts::{becomes_the_same, has_kept_the_address, misses_nbd_by_name};
use crate::{ROOT, usual_dhcp, usual_root};

const BOOKWORM: Host = Host { suite: "bookworm", generator: "dracut" };
const TRIXIE: Host = Host { suite: "trixie", generator: "dracut" };

/// What dracut says of a module that fails.
const NOT_MADE: &str = "installkernel failed in module landfall";

const AS_INIT: &[Known] = &[];

/// In what such a machine differs from one with our image, by `Became`'s names, and why.
const WITH_SYSTEMD: &[Known] = &[
    Known::any("arguments", "the initramfs' systemd hands its state on to the root's"),
    Known::any("environment ", "systemd clears it, and makes it anew"),
    Known::any("file /run/landfall/init", "their init may want to know what to start"),
    Known::any("mount /dev", "the initramfs' systemd mounts it, and devpts, in its own way"),
    Known::any(
        "mount /proc/sys/fs/binfmt_misc",
        "their image loads autofs, which the test's root has not",
    ),
    Known::any("mount /run", "the initramfs' systemd mounts it"),
];

const WITHOUT_SYSTEMD: &[Known] = &[
    Known::any("arguments", "it is their init that starts the real one, and tells it no times"),
    Known::any("environment ", "their init leaves some of its own"),
    Known::exactly(
        "failed",
        "proc-sys-fs-binfmt_misc.automount",
        "their init makes /dev/autofs, and the test's root has no module for it",
    ),
    Known::any("file /run/landfall/init", "their init may want to know what to start"),
    Known::any("mount /dev", "their init mounts it, and /dev/shm, in its own way"),
    Known::any("mount /run", "their init mounts it, as large as the kernel lets it"),
];

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_as_init_of_dracut_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-bookworm-init", BOOKWORM, "init", AS_INIT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_as_root_of_dracut_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-bookworm-handler", BOOKWORM, "handler-alone", WITH_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_beside_dracuts_network_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-bookworm-network", BOOKWORM, "handler", WITH_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_in_dracut_without_systemd_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-bookworm-nosystemd", BOOKWORM, "handler-nosystemd", WITHOUT_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_as_init_of_dracut_without_systemd_becomes_what_our_image_gives()
-> Result<()> {
    becomes_the_same("dracut-bookworm-init-nosystemd", BOOKWORM, "init-nosystemd", AS_INIT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_as_init_of_dracut_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-trixie-init", TRIXIE, "init", AS_INIT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_as_root_of_dracut_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-trixie-handler", TRIXIE, "handler-alone", WITH_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_beside_dracuts_network_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-trixie-network", TRIXIE, "handler", WITH_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_in_dracut_without_systemd_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("dracut-trixie-nosystemd", TRIXIE, "handler-nosystemd", WITHOUT_SYSTEMD)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_as_init_of_dracut_without_systemd_becomes_what_our_image_gives()
-> Result<()> {
    becomes_the_same("dracut-trixie-init-nosystemd", TRIXIE, "init-nosystemd", AS_INIT)
}

/// The machine in the next rack, which got the package from the same configuration management, and
/// so its owner: it boots from its disk, and without the package its image has what it had.
fn boots_from_its_disk_all_the_same(test: &str, host: Host) -> Result<()> {
    assert_eq!(files(host, "removed")?, files(host, "plain")?);

    let lab = Lab::new(test)?;
    // systemd goes nowhere where there is no such file.
    let root = ProbeRoot::new(&lab)?.file("etc/os-release", "ID=probe\n")?;
    let disk = root.pack_as(Format::Ext4)?;
    let uuid = "6f1b1c5e-98a5-4a9f-8a53-6d2f0c5a7d10";
    let status = Command::new("tune2fs").args(["-U", uuid]).arg(&disk).output()?.status;
    ensure!(status.success(), "tune2fs: {status}");

    let images = ["removed", "init", "handler", "init-nosystemd", "handler-nosystemd"];
    let mut became = Vec::new();
    for image in images {
        let vm = lab.vm(host.kernel()?).initramfs(host.image(image)?).memory_mib(1024);
        let words = format!("root=UUID={uuid} ro panic=5 rd.emergency=reboot rd.shell=0");
        let machine = vm.disk(&disk).cmdline(&words).boot()?;
        let node = machine.node()?;
        let state = node.state()?;
        assert_eq!(node.mount("/")?.fstype, "ext4", "{image}");
        assert!(!node.exists("/run/landfall")?, "{image}");
        became.push((mounts(&state), state.environment, state.arguments));
    }
    assert_eq!(became[1], became[0], "as init");
    assert_eq!(became[2], became[0], "as root handler");
    assert_eq!(became[3], became[4], "without systemd");
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_dracut_boots_from_its_disk_with_the_package_and_without_it_again() -> Result<()> {
    boots_from_its_disk_all_the_same("dracut-bookworm-disk", BOOKWORM)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_dracut_boots_from_its_disk_with_the_package_and_without_it_again() -> Result<()> {
    boots_from_its_disk_all_the_same("dracut-trixie-disk", TRIXIE)
}

/// The names of what is in an image.
fn files(host: Host, image: &str) -> Result<BTreeSet<String>> {
    Ok(host.text(&format!("{image}.files"))?.lines().map(str::to_owned).collect())
}

/// The way out when Landfall itself is the trouble: everything is as if it were not installed.
fn off_is_off(test: &str, host: Host) -> Result<()> {
    let lab = Lab::new(test)?;
    for image in ["init-nosystemd", "handler-nosystemd", "handler-alone"] {
        let words = format!("{ROOT} landfall=off rd.shell=0 rd.emergency=reboot");
        let vm = lab.vm(host.kernel()?).initramfs(host.image(image)?).memory_mib(1024);
        let machine = vm.cmdline(&words).boot()?;
        // So says a dracut that has no module for networks; not each version then does what
        // rd.emergency= says.
        machine.line("Don't know how to handle 'root=nbd:10.77.0.1:root'")?;
        machine.never_said("network: ")?;
    }
    Ok(())
}

/// The same where dracut has its own way to such a root: it gets there, without Landfall.
#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_off_boots_by_dracuts_own_nbd() -> Result<()> {
    let lab = Lab::new("dracut-trixie-own-nbd")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = root_for_systemd(&lab)?;
    for image in ["init", "handler"] {
        let words = format!("{ROOT} ro ip=dhcp landfall=off rd.shell=0 rd.emergency=reboot");
        let vm = lab.vm(TRIXIE.kernel()?).initramfs(TRIXIE.image(image)?).memory_mib(1024);
        let machine = vm.cmdline(&words).boot()?;
        let node = machine.node()?;
        let root = node.mount("/")?;
        assert_eq!((&*root.source, &*root.fstype), ("/dev/nbd0", "squashfs"), "{image}");
        assert!(!node.exists("/run/landfall")?, "{image}");
        machine.never_said("network: ")?;
    }
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_off_is_left_to_dracut() -> Result<()> {
    off_is_off("dracut-bookworm-off", BOOKWORM)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_off_is_left_to_dracut() -> Result<()> {
    off_is_off("dracut-trixie-off", TRIXIE)
}

/// Unlocking over ssh, or with Tang, needs the network before the root is anybody's turn, and says
/// so with `rd.neednet=1`. A second identity would get a second address.
fn adopts_the_network_of_dracut(test: &str, host: Host, image: PathBuf, words: &str) -> Result<()> {
    let lab = Lab::new(test)?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = root_for_systemd(&lab)?;
    let vm = lab.vm(host.kernel()?).initramfs(image).memory_mib(1024);
    let machine = vm.cmdline(&format!("{ROOT} ip=dhcp {words}")).boot()?;
    let node = machine.node()?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    has_kept_the_address(&machine, &node, &dhcp)
}

/// A root that systemd goes to from an initramfs: it has such a file.
fn root_for_systemd(lab: &Lab) -> Result<Nbd> {
    let root = ProbeRoot::new(lab)?.file("etc/os-release", "ID=probe\n")?.pack()?;
    Nbd::new(lab, NbdKind::NbdServer).export("root", &root).start()
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_keeps_the_network_that_dracut_brought_up() -> Result<()> {
    let image = BOOKWORM.image("handler")?;
    adopts_the_network_of_dracut("dracut-bookworm-neednet", BOOKWORM, image, "rd.neednet=1")
}

/// By another of dracut's ways to a network: dhclient and shell scripts.
#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_keeps_the_network_that_dracut_brought_up_without_systemd() -> Result<()> {
    let image = BOOKWORM.image("handler-nosystemd")?;
    adopts_the_network_of_dracut("dracut-bookworm-legacy", BOOKWORM, image, "rd.neednet=1")
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_keeps_the_network_that_dracut_brought_up() -> Result<()> {
    let image = TRIXIE.image("handler")?;
    adopts_the_network_of_dracut("dracut-trixie-neednet", TRIXIE, image, "rd.neednet=1")
}

/// As dracut's `--kernel-cmdline` and its modules say it: the words are in the image.
#[test]
#[ignore = "boots a virtual machine"]
fn trixie_keeps_the_network_that_its_image_asked_dracut_for() -> Result<()> {
    let lab = Lab::new("dracut-trixie-cmdline")?;
    let image = lab.file("with-words.img");
    let words = "rd.neednet=0\nrd.neednet=1\n";
    amended(&TRIXIE.image("handler")?, "etc/cmdline.d/10-net.conf", words, &image)?;
    adopts_the_network_of_dracut("dracut-trixie-cmdline-boot", TRIXIE, image, "")
}

/// What cannot be mounted ends where the operators of dracut expect it.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_that_is_not_there_ends_in_the_emergency_of_dracut() -> Result<()> {
    let lab = Lab::new("dracut-emergency")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    for image in ["handler", "handler-nosystemd"] {
        let vm = lab.vm(TRIXIE.kernel()?).initramfs(TRIXIE.image(image)?).memory_mib(1024);
        let words = "root=nbd:10.77.0.1:focal rd.shell=0 rd.emergency=reboot";
        let mut machine = vm.cmdline(words).boot()?;
        machine.failed_in("root", &["for export \"focal\": refused: unknown export"])?;
        machine.line("Boot has failed. To debug this issue add \"rd.shell rd.debug\"")?;
        machine.ended_by("Restarting system", Duration::from_secs(60))?;
    }
    Ok(())
}

/// An image that cannot boot must not take the place of one that does, and whoever reads the last
/// lines of an upgrade must learn why.
#[test]
#[ignore = "needs the hosts of cargo xtask test"]
fn a_kernel_without_nbd_fails_the_generation_of_dracut_by_name() -> Result<()> {
    misses_nbd_by_name(TRIXIE, NOT_MADE)
}

#[test]
#[ignore = "needs the hosts of cargo xtask test"]
fn bookworm_without_nbd_fails_the_generation_of_dracut_by_name() -> Result<()> {
    misses_nbd_by_name(BOOKWORM, NOT_MADE)
}
