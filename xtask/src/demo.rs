//! `cargo xtask demo`: what Landfall does, on this terminal.
//!
//! A machine with nothing but a network card, a Debian served by nbd-server, a configuration
//! served by dnsmasq: all real, all in a network namespace of its own. By itself QEMU is the boot
//! loader; with `--pxe` there is a real one, found by real firmware.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{
    BootFolder, Daemon, Dnsmasq, Firmware, Initramfs, Kernel, Lab, Nbd, NbdKind, Node, SERVER, Vm,
    example, workshop,
};

use crate::stages::Report;
use crate::{agent, debian, kernels, namespace, needs, packages, say};

const CONFIGURATION: &str = include_str!("demo-lts.conf");

/// The root's name in the examples of `initramfs/`.
const EXPORT: &str = "/opt/ltsp/amd64";

const KERNEL: Kernel = Kernel::V6_12;

/// Somebody is at the terminal.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A full Debian without KVM takes less than a minute; this is for hosts that are busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// What `--pxe` names.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Pxe {
    /// SeaBIOS, and iPXE in the card.
    Bios,
    /// OVMF.
    Uefi,
}

pub fn prepare_and_run(pxe: Option<Pxe>, exit: bool) -> Result<()> {
    needs::demo()?;
    workshop::tidy()?;
    agent::build()?;
    agent::build_probe()?;
    kernels::prepare(KERNEL)?;
    debian::prepare_networkd()?;
    let mut arguments = vec!["demo", "--prepared"];
    if let Some(pxe) = pxe {
        needs::firmware()?;
        packages::prepare()?;
        arguments.extend(match pxe {
            Pxe::Bios => ["--pxe", "bios"],
            Pxe::Uefi => ["--pxe", "uefi"],
        });
    }
    if exit {
        arguments.push("--exit");
    }
    namespace::run_self(&arguments)
}

pub fn run(pxe: Option<Pxe>, exit: bool) -> Result<()> {
    let lab = Lab::new("demo")?;
    let initramfs = say::step("building the initramfs", || Initramfs::new(KERNEL).build())?;
    let _root = Nbd::new(&lab, NbdKind::NbdServer)
        .export(EXPORT, &workshop::debian("networkd")?)
        .start()?;
    let vm = lab.vm(KERNEL).memory_mib(1024);
    let (vm, _dhcp_and_tftp) = match pxe {
        Some(pxe) => from_power_on(&lab, vm, pxe, &initramfs)?,
        None => from_the_kernel(&lab, vm, &initramfs)?,
    };
    if exit {
        return unattended(vm.echo(), pxe.is_some());
    }

    eprintln!(
        "\n  The machine's console is this terminal. Log in as root, password {}.\n  \
         To leave: `poweroff`, or Ctrl-A X to pull the plug.\n",
        debian::PASSWORD
    );
    let mut machine = vm.on_this_terminal().boot()?;
    // The table comes when there is something to tell; a boot that fails tells it itself.
    if let Ok(node) = machine.node_within(PATIENCE)
        && let Ok(report) = Report::of(&node)
    {
        // QEMU has the terminal in raw mode.
        eprint!("\r\n{}\r\n", report.table(node.hello.uptime_seconds).replace('\n', "\r\n"));
    }
    machine.gone(FOR_EVER)
}

/// QEMU loads kernel and initramfs.
fn from_the_kernel<'lab>(lab: &Lab, vm: Vm<'lab>, initramfs: &Path) -> Result<(Vm<'lab>, Daemon)> {
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", CONFIGURATION)])?;
    let server = Dnsmasq::new().tftp(&tftp).start(lab)?;
    eprintln!(
        "xtask: dnsmasq gives addresses and {}/ltsp/amd64/lts.conf, nbd-server the root \
         {SERVER}:{EXPORT}",
        tftp.display()
    );
    let words = format!("root=nbd:{SERVER}:{EXPORT} panic=30");
    Ok((vm.initramfs(initramfs).cmdline(&words), server))
}

/// The machine knows nothing: dnsmasq and GRUB, by the examples of `initramfs/`, tell it all.
fn from_power_on<'lab>(
    lab: &Lab,
    vm: Vm<'lab>,
    pxe: Pxe,
    initramfs: &Path,
) -> Result<(Vm<'lab>, Daemon)> {
    let (console, emulated) = ("console=ttyS0,115200", "console=ttyS0,115200 no_timer_check");
    let folder = BootFolder::new(lab, KERNEL, initramfs, CONFIGURATION)?
        .grub(&example("grub.cfg", &[(console, emulated)])?)?;
    let place = folder.path().display().to_string();
    let all = example("dnsmasq.conf", &[("/srv/tftp", &place)])?;
    // As its comments say: the lines for GRUB instead of those for iPXE.
    let lines = all.lines().filter(|line| !line.starts_with("dhcp-boot="));
    let lines = lines.map(|line| match line.strip_prefix('#') {
        Some(for_grub) if line.contains("/grub/") => for_grub,
        _ => line,
    });
    let configuration = lines.flat_map(|line| [line, "\n"]).collect::<String>();
    let server = Dnsmasq::configured(lab, &configuration)?;
    eprintln!(
        "xtask: dnsmasq gives addresses, GRUB, kernel, initramfs and lts.conf from {place}, \
         nbd-server the root {SERVER}:{EXPORT}"
    );
    let firmware = match pxe {
        Pxe::Bios => Firmware::Bios,
        Pxe::Uefi => Firmware::Uefi,
    };
    Ok((vm.firmware(firmware), server))
}

fn unattended(vm: Vm<'_>, from_power_on: bool) -> Result<()> {
    let mut machine = vm.boot()?;
    let table = {
        let node = machine.node_within(PATIENCE)?;
        // The kernel's clock starts with the kernel.
        let age = machine.age().as_secs_f64();
        let before_kernel = if from_power_on { age - node.hello.uptime_seconds } else { 0.0 };
        check(&node)?;
        let report = Report::of(&node)?;
        node.begin(&["systemctl", "poweroff"])?;
        let mut table = report.table(node.hello.uptime_seconds + before_kernel);
        if from_power_on {
            table += &format!("{:<16} {before_kernel:>7.2}\n", "before kernel");
        }
        table
    };
    machine.ended_by("Power down", Duration::from_secs(120))?;
    println!("\nEvery directive took effect, and the machine switched itself off.\n\n{table}");
    Ok(())
}

/// What the configuration asked for, as the running system has it.
fn check(node: &Node<'_>) -> Result<()> {
    ensure!(
        node.mount("/")?.fstype == "overlay",
        "the root cannot be written: {:?}",
        node.mount("/")
    );
    ensure!(node.mount("/rofs")?.fstype == "squashfs", "the image is not at /rofs");

    let time = node.info("/etc/localtime")?;
    ensure!(format!("{time:?}").contains("Europe/Prague"), "PREINIT_00: {time:?}");
    let hosts = node.file("/etc/hosts")?;
    ensure!(!hosts.contains("127.0.0.2"), "PREINIT_01: {hosts}");
    let docker = node.file("/etc/systemd/system/docker.service")?;
    ensure!(docker.contains("--storage-driver overlay2"), "PREINIT_02: {docker}");

    for target in ["/var/lib/docker", "/var/log/journal"] {
        ensure!(node.mount(target)?.fstype == "tmpfs", "FSTAB: {target}: {:?}", node.mount(target));
    }
    ensure!(node.file("/proc/sys/net/ipv4/ip_forward")?.trim() == "1", "RCFILE_01");
    ensure!(node.file("/proc/sys/fs/file-max")?.trim() == "20000000", "RCFILE_02");
    let modules = node.file("/proc/modules")?;
    ensure!(modules.contains("br_netfilter"), "RCFILE_03: {modules}");
    ensure!(node.file("/etc/motd")?.contains("no disk"), "RCFILE_04");

    for (unit, kept) in [("ssh", true), ("rpcbind", true), ("systemd-logind", true), ("atd", false)]
    {
        let there = node.exists(&format!("/lib/systemd/system/{unit}.service"))?;
        ensure!(there == kept, "KEEP_SYSTEM_SERVICES: {unit}.service is there: {there}");
    }
    let units = ["multi-user.target", "ssh.service", "rc-local.service"];
    node.output(&[&["systemctl", "is-active"], &units[..]].concat()).map(drop)
}
