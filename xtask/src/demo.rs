//! `cargo xtask demo`: what Landfall does, on this terminal.
//!
//! A machine with nothing but a network card, a Debian served by nbd-server, a configuration
//! served by dnsmasq: all real, all in a network namespace of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{Dnsmasq, Initramfs, Kernel, Lab, Nbd, NbdKind, Node, SERVER, workshop};

use crate::stages::Report;
use crate::{agent, debian, kernels, namespace, needs, say};

const CONFIGURATION: &str = include_str!("demo-lts.conf");

const KERNEL: Kernel = Kernel::V6_12;

/// Somebody is at the terminal.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A full Debian without KVM takes less than a minute; this is for hosts that are busy.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn prepare_and_run(exit: bool) -> Result<()> {
    needs::demo()?;
    workshop::tidy()?;
    agent::build()?;
    agent::build_probe()?;
    kernels::prepare(KERNEL)?;
    debian::prepare_networkd()?;
    let arguments: &[&str] =
        if exit { &["demo", "--prepared", "--exit"] } else { &["demo", "--prepared"] };
    namespace::run_self(arguments)
}

pub fn run(exit: bool) -> Result<()> {
    let lab = Lab::new("demo")?;
    let initramfs = say::step("building the initramfs", || Initramfs::new(KERNEL).build())?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", CONFIGURATION)])?;
    let _dhcp_and_tftp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _root = Nbd::new(&lab, NbdKind::NbdServer)
        .export("debian", &workshop::debian("networkd")?)
        .start()?;
    eprintln!(
        "xtask: dnsmasq gives addresses and {}/ltsp/amd64/lts.conf, nbd-server the root {SERVER}:debian",
        tftp.display()
    );
    let vm = lab
        .vm(KERNEL)
        .initramfs(&initramfs)
        .memory_mib(1024)
        .cmdline(&format!("root=nbd:{SERVER}:debian panic=30"));
    if exit {
        return unattended(vm.echo());
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

fn unattended(vm: landfall_tests::Vm<'_>) -> Result<()> {
    let mut machine = vm.boot()?;
    let table = {
        let node = machine.node_within(PATIENCE)?;
        check(&node)?;
        let report = Report::of(&node)?;
        node.begin(&["systemctl", "poweroff"])?;
        report.table(node.hello.uptime_seconds)
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
