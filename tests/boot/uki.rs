//! One file with kernel, initramfs and command line, which the firmware itself gets from a server;
//! and the same under Secure Boot.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall::machine::modules::Compression;
use landfall_initramfs::{Uki, unify};
use landfall_tests::{
    Daemon, Dnsmasq, Firmware, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, ProbeRoot,
    Signatures, example, nginx,
};

/// Firmware waits for people, and an emulated one reads its own flash at a walking pace.
const PATIENCE: Duration = Duration::from_secs(400);

/// Nothing of the machine, and nothing of the root: DHCP says it.
const CMDLINE: &str = "console=ttyS0 no_timer_check root=dhcp panic=5";

/// A boot server whose only file is `landfall.efi`.
struct Site {
    lab: Lab,
    _servers: [Daemon; 2],
    _root: Nbd,
}

impl Site {
    fn new(name: &str, kernel: Kernel, modules: Signatures, signed: bool) -> Result<Self> {
        let lab = Lab::new(name)?;
        let folder = lab.served("http", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
        let file = folder.join("landfall.efi");
        unify(&Uki {
            kernel: kernel.vmlinuz()?,
            initramfs: vec![Initramfs::new(kernel).signatures(modules).build()?],
            cmdline: CMDLINE.to_owned(),
            stub: Some(kernel.stub()?),
            output: file.clone(),
        })?;
        if signed {
            sign(&lab, &file)?;
        }
        let root = ProbeRoot::new(&lab)?;
        let (driver, unsigned) = efivarfs(kernel)?;
        let image = root.file("srv/efivarfs.ko", &driver)?.file("srv/unsigned.ko", &unsigned)?;
        let nbd =
            Nbd::new(&lab, NbdKind::NbdServer).export("/opt/ltsp/amd64", &image.pack()?).start()?;
        let text = example("dnsmasq-uki.conf", &[("/srv/tftp", &folder.display().to_string())])?;
        let servers = [Dnsmasq::configured(&lab, &text)?, nginx(&lab, &folder)?];
        Ok(Self { lab, _servers: servers, _root: nbd })
    }

    fn boot(&self, kernel: Kernel, firmware: Firmware) -> Result<Machine> {
        self.lab.vm(kernel).firmware(firmware).memory_mib(1024).boot()
    }
}

/// With Debian's key for trying this out, which the firmware of the test machines trusts.
fn sign(lab: &Lab, file: &Path) -> Result<()> {
    const KEYS: &str = "/usr/share/ovmf/PkKek-1-snakeoil";
    let key = lab.file("snakeoil.key");
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output().with_context(|| format!("starting {command:?}"))?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}", words.trim());
        Ok(())
    };
    run(Command::new("openssl")
        .args(["rsa", "-passin", "pass:snakeoil", "-in", &format!("{KEYS}.key"), "-out"])
        .arg(&key))?;
    run(Command::new("sbsign")
        .arg("--key")
        .arg(&key)
        .args(["--cert", &format!("{KEYS}.pem"), "--output"])
        .arg(file)
        .arg(file))
}

/// A module of the kernel that no boot needs, as its distributor signed it and without.
fn efivarfs(kernel: Kernel) -> Result<(Vec<u8>, Vec<u8>)> {
    let folder = kernel.tree()?.join("lib/modules").join(kernel.release()?);
    let plain = folder.join("kernel/fs/efivarfs/efivarfs.ko");
    let packed = plain.with_extension("ko.xz");
    let signed = match Compression::of(&packed).filter(|_| packed.exists()) {
        Some(xz) => xz.decompress(fs::File::open(&packed)?, || "unpacking efivarfs".to_owned())?,
        None => fs::read(&plain)?,
    };
    // What the kernel knows a signature by.
    let unsigned = signed.strip_suffix(b"~Module signature appended~\n");
    let unsigned = unsigned.context("Debian's modules are signed")?.to_vec();
    Ok((signed, unsigned))
}

/// No loader, no menu, no second file: the card's firmware gets it by HTTP.
#[test]
#[ignore = "boots a virtual machine"]
fn firmware_loads_one_file_by_http_and_dhcp_says_the_root() -> Result<()> {
    let kernel = Kernel::V6_1;
    let site = Site::new("uki-http", kernel, Signatures::Strip, false)?;
    let machine = site.boot(kernel, Firmware::UefiHttp)?;
    let node = machine.node_within(PATIENCE)?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    assert_eq!(node.state()?.command_line, CMDLINE);
    let log = fs::read_to_string(site.lab.file("nginx.access.log"))?;
    ensure!(log.contains("GET /landfall.efi"), "not by HTTP: {log:?}");
    Ok(())
}

/// The chain of trust of a site with its own key: firmware, then kernel, initramfs and command
/// line in one signature, then the distributor's modules.
#[test]
#[ignore = "boots a virtual machine"]
fn a_signed_file_boots_under_secure_boot_and_signed_modules_load() -> Result<()> {
    let kernel = Kernel::V6_12;
    let site = Site::new("uki-secure", kernel, Signatures::Keep, true)?;
    let machine = site.boot(kernel, Firmware::SecureUefi)?;
    let node = machine.node_within(PATIENCE)?;
    machine.line("secureboot: Secure boot enabled")?;
    machine.line("Kernel is locked down from EFI Secure Boot")?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    assert_eq!(node.state()?.tainted, 0);

    let insmod = |name| node.run(&["/bin/busybox", "insmod", &format!("/srv/{name}.ko")]);
    assert_ne!(insmod("unsigned")?.status, Some(0));
    machine.line("Loading of unsigned module is rejected")?;
    assert_eq!(insmod("efivarfs")?.status, Some(0));
    let place = "/sys/firmware/efi/efivars";
    node.output(&["/bin/busybox", "mount", "-t", "efivarfs", "efivarfs", place])?;
    // Four bytes of attributes, then the value.
    let state = node.file(&format!("{place}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))?;
    assert_eq!(state.as_bytes().last(), Some(&1), "{state:?}");
    Ok(())
}

/// What Secure Boot is for: a file that somebody put on the boot server is not started.
#[test]
#[ignore = "boots a virtual machine"]
fn firmware_refuses_a_file_that_nobody_signed() -> Result<()> {
    let kernel = Kernel::V6_12;
    let site = Site::new("uki-unsigned", kernel, Signatures::Keep, false)?;
    let machine = site.boot(kernel, Firmware::SecureUefi)?;
    machine.line_within("Access Denied", PATIENCE)?;
    machine.never_said("Linux version")
}

/// An image for test machines under a site's signature: the kernel takes none of its modules, and
/// whoever built it must read why.
#[test]
#[ignore = "boots a virtual machine"]
fn modules_without_signatures_end_a_secure_boot_with_the_reason() -> Result<()> {
    let kernel = Kernel::V6_12;
    let site = Site::new("uki-stripped", kernel, Signatures::Strip, true)?;
    let machine = site.boot(kernel, Firmware::SecureUefi)?;
    machine.line_within("drivers: warning: virtio_net for virtio0: loading ", PATIENCE)?;
    machine.line("the image must not be built with --unsigned").map(drop)
}
