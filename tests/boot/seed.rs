//! The configuration of our first user, byte for byte, on a Debian with systemd.

use anyhow::{Context, Result};
use landfall_tests::protocol::Kind;
use landfall_tests::{Dnsmasq, Initramfs, Kernel, Lab, Nbd, NbdKind, Node, Signatures, workshop};

use crate::ROOT;

pub const SEED: &str = include_str!("../fixtures/seed-lts.conf");

/// A last line of rc.local that must never run.
const NEVER: &str = "touch /run/rc.local-went-on";

/// The quoted value of a setting of the seed.
fn setting(name: &str) -> &'static str {
    let line = SEED.lines().find(|line| line.split_whitespace().next() == Some(name));
    let value = line.and_then(|line| line.split_once("= \""));
    value.expect("a setting of the seed").1.trim_end_matches('"')
}

/// The reason for the project. Also the one boot of modules with signatures.
#[test]
#[ignore = "boots a virtual machine"]
fn the_seed_configuration_takes_full_effect() -> Result<()> {
    let lab = Lab::new("seed")?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/grub/i386-pc/lts.conf", SEED)])?;
    // Its dhcpd.conf names GRUB's core image, which decides where lts.conf is looked for.
    let _dhcp = Dnsmasq::new()
        .tftp(&tftp)
        .option("dhcp-boot=/ltsp/amd64/grub/i386-pc/core.0")
        .start(&lab)?;
    let image = workshop::debian("networkd")?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
    let initramfs = Initramfs::new(Kernel::V6_1).signatures(Signatures::Keep).build()?;

    // The seed's last command is the one that fails: only a line after it shows the stop.
    let words = format!("{ROOT} \"ltsp.RCFILE_99_NEVER={NEVER}\"");
    let machine =
        lab.vm(Kernel::V6_1).initramfs(initramfs).memory_mib(1024).cmdline(&words).boot()?;
    let node = machine.node()?;
    assert_eq!(node.state()?.tainted, 0, "signed modules taint nothing");
    took_effect(&node)?;
    assert_eq!(node.file("/etc/rc.local")?.lines().last(), Some(NEVER));
    Ok(())
}

pub fn took_effect(node: &Node<'_>) -> Result<()> {
    preinit_ran_before_systemd(node)?;
    fstab_is_exactly_what_was_asked(node)?;
    rc_local_ran_in_order_and_stopped(node)?;
    services_were_kept_and_removed(node)
}

fn preinit_ran_before_systemd(node: &Node<'_>) -> Result<()> {
    let time = node.info("/etc/localtime")?;
    assert_eq!(time.kind, Kind::Link("/usr/share/zoneinfo/Europe/Prague".into()));
    assert!(!node.file("/etc/hosts")?.contains("127.0.0.2"));
    let unit = node.file("/etc/systemd/system/docker.service")?;
    let (_, exec) = setting("PREINIT_02_DOCKER_OPTIONS")
        .split_once(".*|")
        .and_then(|(_, rest)| rest.split_once("ExecStart="))
        .context("the seed's sed command")?;
    let exec = exec.split('|').next().unwrap_or_default();
    assert!(unit.lines().any(|line| line == format!("ExecStart={exec}")), "{unit}");

    let seconds = |text: String| -> Result<i64> {
        Ok(text.trim().trim_start_matches(|c: char| !c.is_ascii_digit()).parse()?)
    };
    for path in ["/etc/localtime", "/etc/hosts", "/etc/systemd/system/docker.service"] {
        let changed = seconds(node.output(&["stat", "--format=%Z", path])?)?;
        let systemd = seconds(node.output(&[
            "systemctl",
            "show",
            "--timestamp=unix",
            "--property=UserspaceTimestamp",
        ])?)?;
        assert!(changed <= systemd, "{path} changed {} s after systemd", changed - systemd);
    }
    Ok(())
}

fn fstab_is_exactly_what_was_asked(node: &Node<'_>) -> Result<()> {
    let mut wanted = "# Written by landfall at boot: FSTAB_ lines of lts.conf.\n\
                      proc /proc proc nodev,noexec,nosuid 0 0\n"
        .to_owned();
    for name in ["FSTAB_01_SSH", "FSTAB_02_JOURNALD", "FSTAB_03_DOCKER"] {
        // A run of blanks is one in every value, as it was in LTSP.
        wanted += &setting(name).split_whitespace().collect::<Vec<_>>().join(" ");
        wanted.push('\n');
    }
    assert_eq!(node.file("/etc/fstab")?, wanted);
    Ok(())
}

fn rc_local_ran_in_order_and_stopped(node: &Node<'_>) -> Result<()> {
    let script = node.file("/etc/rc.local")?;
    assert!(script.starts_with("#!/bin/sh -e\n"), "{script}");
    let places: Vec<_> = [
        "RCFILE_01_SSH_SERVER",
        "RCFILE_02_SSH_CLIENT",
        "RCFILE_03_KERNEL_DEBUG",
        "RCFILE_04_SYSCTL",
        "RCFILE_05_FORWARD",
        "RCFILE_06_MODULES",
        "RCFILE_07_JOIN_K8S",
    ]
    .iter()
    .map(|name| script.find(setting(name)).with_context(|| format!("no {name} in:\n{script}")))
    .collect::<Result<_>>()?;
    assert!(places.is_sorted(), "{script}");
    assert!(!node.exists("/run/rc.local-went-on")?, "rc.local went on after kubeadm failed");

    let keys = node.list("/etc/ssh")?;
    assert!(keys.iter().any(|name| name == "ssh_host_ed25519_key"), "{keys:?}");
    assert!(node.file("/root/.ssh/authorized_keys")?.ends_with("admin@kubernetes\n"));
    let wanted = [
        ("kernel/softlockup_panic", "1"),
        ("fs/file-max", "20000000"),
        ("net/ipv4/neigh/default/gc_thresh3", "100000"),
        ("net/ipv4/ip_forward", "1"),
    ];
    for (name, value) in wanted {
        assert_eq!(node.file(&format!("/proc/sys/{name}"))?.trim(), value, "{name}");
    }
    let modules = node.file("/proc/modules")?;
    for module in ["netconsole ", "br_netfilter "] {
        assert!(modules.lines().any(|line| line.starts_with(module)), "{module}: {modules}");
    }
    let outcome = node.output(&["systemctl", "show", "--property=Result", "rc-local.service"])?;
    assert_eq!(outcome.trim(), "Result=exit-code", "kubeadm is not there: rc.local must fail");
    Ok(())
}

fn services_were_kept_and_removed(node: &Node<'_>) -> Result<()> {
    let cases = [
        ("ssh", true),            // kept by name; otherwise removed everywhere
        ("rpcbind", true),        // kept by name; otherwise removed without NFS
        ("systemd-logind", true), // kept by name; otherwise removed without a desktop
        ("dbus", true),           // on no list
        ("lightdm", false),       // removed everywhere
        ("atd", false),           // removed without a desktop
        ("nfs-mountd", false),    // removed without NFS
    ];
    for (unit, kept) in cases {
        let path = format!("lib/systemd/system/{unit}.service");
        assert!(node.exists(&format!("/rofs/{path}"))?, "{unit}.service is not in the image");
        assert_eq!(node.exists(&format!("/{path}"))?, kept, "{unit}.service");
    }
    // It has given up before rc.local made its keys: a matter between Debian and the seed.
    node.output(&["systemctl", "reset-failed", "ssh.service"])?;
    node.output(&["systemctl", "start", "ssh.service"])?;
    let active = ["ssh", "rpcbind", "systemd-logind"];
    node.output(&[&["systemctl", "is-active"], &active[..]].concat())?;
    Ok(())
}
