//! Images of initramfs-tools with our package: as `/init`, as root handler, and without it again.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use landfall_tests::{
    Daemon, Dnsmasq, Format, Host, Initramfs, Lab, Leases, Machine, Nbd, NbdKind, Node, ProbeRoot,
    amended, workshop,
};

use crate::became::{Became, Known, mounts};
use crate::{ROOT, usual_dhcp, usual_root};

const BOOKWORM: Host = Host { suite: "bookworm", generator: "initramfs-tools" };
const TRIXIE: Host = Host { suite: "trixie", generator: "initramfs-tools" };

/// One setting for each moment at which a configuration takes effect.
const CONFIG: &str = r#"
[default]
HOSTNAME  = node7
HOSTS_1   = "10.77.0.9 registry"
FSTAB_1   = "tmpfs /srv tmpfs nodev,size=1M 0 0"
PREINIT_1 = "echo $SERVER > /etc/preinit-was-here"
RCFILE_1  = "echo rc > /run/rc-was-here"
"#;

/// A Debian root of the host's release, served with [`CONFIG`].
struct Site {
    lab: Lab,
    host: Host,
    _dhcp: Daemon,
    _nbd: Nbd,
}

impl Site {
    fn new(test: &str, host: Host) -> Result<Self> {
        let lab = Lab::new(test)?;
        let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", CONFIG)])?;
        let dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
        let image = workshop::debian(if host.suite == "bookworm" { "networkd" } else { "trixie" })?;
        let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
        Ok(Self { lab, host, _dhcp: dhcp, _nbd: nbd })
    }

    /// What our own image makes of a machine: the measure of all others, so one boot for each
    /// release does for all tests.
    fn own(&self) -> Result<Arc<Became>> {
        static OWN: [Mutex<Option<Arc<Became>>>; 2] = [Mutex::new(None), Mutex::new(None)];
        let own = &OWN[usize::from(self.host.suite == BOOKWORM.suite)];
        // A test that failed here has left nothing: the next one tries again.
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = &*own {
            return Ok(own.clone());
        }
        let became = self.boot(Initramfs::new(self.host.kernel()?).build()?)?;
        Ok(own.insert(Arc::new(became)).clone())
    }

    /// What the machine became that booted this image, and that it ends well.
    fn boot(&self, image: PathBuf) -> Result<Became> {
        let vm = self.lab.vm(self.host.kernel()?).initramfs(image).memory_mib(1024);
        let mut machine = vm.cmdline(ROOT).boot()?;
        let became = {
            let node = machine.node()?;
            assert_eq!(node.file("/etc/preinit-was-here")?, "10.77.0.1\n");
            assert_eq!(node.file("/run/rc-was-here")?, "rc\n");
            assert_eq!(node.mount("/srv")?.option("size"), Some("1024k"));
            // As initramfs-tools mounts it, and systemd leaves it as it is.
            assert_eq!(node.mount("/run")?.option("noexec"), None);
            let became = Became::of(&node)?;
            node.begin(&["systemctl", "poweroff"])?;
            became
        };
        machine.ended_by("Power down", Duration::from_secs(60))?;
        Ok(became)
    }
}

/// Who installs the package must get what Landfall's own image gives, and nothing less.
pub fn becomes_the_same(test: &str, host: Host, mode: &str, known: &[Known]) -> Result<()> {
    let site = Site::new(test, host)?;
    let own = site.own()?;
    site.boot(host.image(mode)?)?.is_like(&own, known)
}

/// What update-initramfs says of an image that there will not be.
const NOT_MADE: &str = "update-initramfs: failed for /boot/initrd.img-";

const AS_INIT: &[Known] = &[];

/// In what such a machine differs from one with our image, by [`Became`]'s names, and why.
const AS_HANDLER: &[Known] = &[
    Known::any("arguments", "it is their init that starts the real one, and tells it no times"),
    Known::any("mount /dev", "their init mounts it, as \"udev\""),
    Known::any(
        "mount /run",
        "their init mounts it, with a tenth of the memory (initramfs.runsize=)",
    ),
    Known::any("environment PATH", "their init exports its own"),
    Known::any("environment PWD", "their shell exports it"),
    Known::any("environment drop_caps", "their init leaves it for the next one"),
    Known::any("environment init", "their init leaves it for the next one"),
    Known::any("environment rootmnt", "their init leaves it for the next one"),
    Known::any("file /run/landfall/init", "their init may want to know what to start"),
];

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_as_init_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("itools-bookworm-init", BOOKWORM, "init", AS_INIT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_as_root_handler_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("itools-bookworm-handler", BOOKWORM, "handler", AS_HANDLER)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_as_init_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("itools-trixie-init", TRIXIE, "init", AS_INIT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_as_root_handler_becomes_what_our_image_gives() -> Result<()> {
    becomes_the_same("itools-trixie-handler", TRIXIE, "handler", AS_HANDLER)
}

/// The machine in the next rack, which got the package from the same configuration management,
/// and so its owner: removing the package gives back the very image, which boots as it did.
fn boots_from_its_disk_all_the_same(test: &str, host: Host) -> Result<()> {
    let plain = fs::read(host.image("plain")?)?;
    ensure!(fs::read(host.image("removed")?)? == plain, "something is left in the image");

    let lab = Lab::new(test)?;
    let disk = ProbeRoot::new(&lab)?.pack_as(Format::Ext4)?;
    let label = Command::new("e2label").arg(&disk).arg("probe").status()?;
    ensure!(label.success(), "e2label: {label}");

    let mut became = Vec::new();
    for image in ["removed", "init", "handler"] {
        let vm = lab.vm(host.kernel()?).initramfs(host.image(image)?).memory_mib(1024);
        let machine = vm.disk(&disk).cmdline("root=LABEL=probe ro quiet panic=5").boot()?;
        let node = machine.node()?;
        let state = node.state()?;
        assert_eq!(node.mount("/")?.fstype, "ext4", "{image}");
        assert!(state.links.iter().all(|link| link.addresses.is_empty() || link.name == "lo"));
        assert!(!node.exists("/run/landfall")?, "{image}");
        became.push((mounts(&state), state.environment, state.arguments));
    }
    assert_eq!(became[1], became[0], "as init");
    assert_eq!(became[2], became[0], "as root handler");
    Ok(())
}

/// initramfs.conf(5) may name the root, and then the command line does not.
#[test]
#[ignore = "boots a virtual machine"]
fn a_disk_that_only_the_configuration_names_is_booted() -> Result<()> {
    let lab = Lab::new("itools-trixie-conf")?;
    let disk = ProbeRoot::new(&lab)?.pack_as(Format::Ext4)?;
    let label = Command::new("e2label").arg(&disk).arg("probe").status()?;
    ensure!(label.success(), "e2label: {label}");
    for mode in ["init", "handler"] {
        let image = lab.file(&format!("{mode}.img"));
        amended(&TRIXIE.image(mode)?, "conf/conf.d/root", "ROOT=LABEL=probe\n", &image)?;
        let vm = lab.vm(TRIXIE.kernel()?).initramfs(image).memory_mib(1024);
        let machine = vm.disk(&disk).cmdline("ro panic=5").boot()?;
        if mode == "init" {
            machine
                .line("landfall: no root= asks for Landfall (root=dhcp would): /init.original")?;
        }
        assert_eq!(machine.node()?.mount("/")?.fstype, "ext4", "{mode}");
        machine.never_said("network: ")?;
    }
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_boots_from_its_disk_with_the_package_and_without_it_again() -> Result<()> {
    boots_from_its_disk_all_the_same("itools-bookworm-disk", BOOKWORM)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_boots_from_its_disk_with_the_package_and_without_it_again() -> Result<()> {
    boots_from_its_disk_all_the_same("itools-trixie-disk", TRIXIE)
}

/// The way out when Landfall itself is the trouble: everything is as if it were not installed.
fn off_is_off(test: &str, host: Host) -> Result<()> {
    let lab = Lab::new(test)?;
    for mode in ["init", "handler"] {
        let words = format!("{ROOT} landfall=off");
        let vm = lab.vm(host.kernel()?).initramfs(host.image(mode)?).memory_mib(1024);
        let mut machine = vm.cmdline(&words).boot()?;
        // To initramfs-tools this is the name of a device.
        machine.line("Failed to mount nbd:10.77.0.1:root as root file system.")?;
        machine.ended_by("Restarting system", Duration::from_secs(60))?;
        machine.never_said("network: ")?;
    }
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_with_landfall_off_is_left_to_its_own_init() -> Result<()> {
    off_is_off("itools-bookworm-off", BOOKWORM)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_with_landfall_off_is_left_to_its_own_init() -> Result<()> {
    off_is_off("itools-trixie-off", TRIXIE)
}

/// dropbear and others bring the network up before the root is anybody's turn. A second identity
/// would get a second address, and a flush would cut off whoever is logged in.
fn adopts_the_network_of_the_host(test: &str, host: Host) -> Result<()> {
    let lab = Lab::new(test)?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let vm = lab.vm(host.kernel()?).initramfs(host.image("handler")?).memory_mib(1024);
    let machine = vm.cmdline(&format!("{ROOT} ip=dhcp")).boot()?;
    let node = machine.node()?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    has_kept_the_address(&machine, &node, &dhcp)?;
    // Of the host's own client, whose last line names what it got.
    machine.line("IP-Config: ").map(drop)
}

/// Of somebody before us: Landfall has found it, the server knows one client with that one address,
/// and the running system has it.
pub fn has_kept_the_address(machine: &Machine, node: &Node<'_>, dhcp: &Daemon) -> Result<()> {
    let state = node.state()?;
    let links: Vec<_> =
        state.links.iter().filter(|link| link.name != "lo" && !link.addresses.is_empty()).collect();
    let [link] = links[..] else { bail!("not one link with an address: {links:?}") };
    let [address] = &link.addresses[..] else { bail!("not one address: {link:?}") };
    machine.line(&format!("has {address} already"))?;
    let leased = Leases::in_log(&dhcp.log_text()).one_address_of(&link.mac)?;
    assert_eq!(address.split('/').next(), Some(&*leased.to_string()));
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_keeps_the_network_that_its_scripts_brought_up() -> Result<()> {
    adopts_the_network_of_the_host("itools-bookworm-network", BOOKWORM)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_keeps_the_network_that_its_scripts_brought_up() -> Result<()> {
    adopts_the_network_of_the_host("itools-trixie-network", TRIXIE)
}

/// What cannot be mounted ends where the operators of initramfs-tools expect it.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_that_is_not_there_ends_in_the_panic_of_initramfs_tools() -> Result<()> {
    let lab = Lab::new("itools-panic")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let vm = lab.vm(TRIXIE.kernel()?).initramfs(TRIXIE.image("handler")?).memory_mib(1024);
    let mut machine = vm.cmdline("root=nbd:10.77.0.1:focal panic=5").boot()?;
    machine.failed_in("root", &["for export \"focal\": refused: unknown export"])?;
    machine.line("Rebooting automatically due to panic= boot argument")?;
    machine.ended_by("Restarting system", Duration::from_secs(60))
}

/// An image that cannot boot must not take the place of one that does, and whoever reads the last
/// lines of an upgrade must learn why.
#[test]
#[ignore = "needs the hosts of cargo xtask test"]
fn a_kernel_without_nbd_fails_the_generation_by_name() -> Result<()> {
    misses_nbd_by_name(TRIXIE, NOT_MADE)
}

#[test]
#[ignore = "needs the hosts of cargo xtask test"]
fn bookworm_without_nbd_fails_the_generation_by_name() -> Result<()> {
    misses_nbd_by_name(BOOKWORM, NOT_MADE)
}

/// The generator has failed on a kernel without nbd, and said so, and in its own words that there is
/// no image.
pub fn misses_nbd_by_name(host: Host, not_made: &str) -> Result<()> {
    assert_ne!(host.text("no-nbd.status")?.trim(), "0");
    let log = host.text("no-nbd.log")?;
    assert!(log.contains("this kernel has no nbd"), "{log}");
    assert!(log.contains(not_made), "{log}");
    Ok(())
}

/// Administrators read what runs as root on their machines, and so do their tools.
#[test]
#[ignore = "needs shellcheck"]
fn the_hooks_are_shellcheck_clean() -> Result<()> {
    let mut scripts = Vec::new();
    let mut folders = vec![workshop::workspace().join("hooks")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Links in an example lead to what will be in an image.
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && (fs::read(&path)?.starts_with(b"#!/bin/") || path.ends_with("scripts/landfall"))
            {
                scripts.push(path);
            }
        }
    }
    ensure!(scripts.len() > 2, "{scripts:?}");
    let output = Command::new("shellcheck").arg("--external-sources").args(&scripts).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
