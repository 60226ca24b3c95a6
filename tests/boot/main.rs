//! Boots machines against real servers and asks them what they became; run by `cargo xtask test`.
//!
//! About half of the tests break something. Names are promises; a test's comment says who would
//! suffer if it were not kept.

mod aarch64;
mod analyze;
mod became;
mod bonds;
mod carrier;
mod config;
mod copy;
mod dhcp;
mod dhcp_faults;
mod dracut;
mod drivers;
mod ends;
mod exitrd;
mod failover;
mod failures;
mod formats;
mod forms;
mod handover;
mod hosts;
mod ipv6;
mod ipv6_forms;
mod kept;
mod kept_network;
mod last_resort;
mod lazy;
mod leftovers;
mod links;
mod mtu;
mod net_settings;
mod power_on;
mod promise;
mod ram;
mod role;
mod root;
mod seed;
mod shutdown;
mod static_address;
mod uki;
mod variables;
mod verity;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Dnsmasq, Initramfs, Kernel, Lab, Nbd, NbdKind, Node, ProbeRoot, Vm};

/// What a boot loader says of the usual root.
const ROOT: &str = "root=nbd:10.77.0.1:root panic=5";

/// Addresses, and a configuration that asks for nothing: without any, each boot would wait a while
/// for one.
fn usual_dhcp(lab: &Lab) -> Result<Dnsmasq> {
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
    Ok(Dnsmasq::new().tftp(&tftp))
}

/// nbd-server with a small probe root under the name "root".
fn usual_root(lab: &Lab) -> Result<Nbd> {
    let image = ProbeRoot::new(lab)?.pack()?;
    Nbd::new(lab, NbdKind::NbdServer).export("root", &image).start()
}

/// A machine with the usual initramfs that boots [`ROOT`], with more words behind it.
fn usual_vm<'lab>(lab: &'lab Lab, kernel: Kernel, words: &str) -> Result<Vm<'lab>> {
    let initramfs = Initramfs::new(kernel).build().context("building the initramfs")?;
    Ok(lab.vm(kernel).initramfs(initramfs).cmdline(&format!("{ROOT} {words}")))
}

/// The NBD devices that have a server, whatever their number: a root goes to another one with each
/// server that it is given.
fn connected(node: &Node<'_>) -> Result<Vec<String>> {
    let mut connected = Vec::new();
    for name in node.list("/sys/block")? {
        // Only there while a server is, nbd(8).
        if name.starts_with("nbd") && node.exists(&format!("/sys/block/{name}/pid"))? {
            connected.push(name);
        }
    }
    Ok(connected)
}

/// The image is with its server, below a device that can change it for another.
fn is_streamed(node: &Node<'_>) -> Result<()> {
    let source = node.mount("/rofs")?.source;
    let device = source.strip_prefix("/dev/dm-").with_context(|| format!("{source} is mounted"))?;
    let name = node.file(&format!("/sys/block/dm-{device}/dm/name"))?;
    ensure!(name.trim() == "landfall-root", "{source} is {name}");
    let connected = connected(node)?;
    ensure!(connected.len() == 1, "{connected:?} are connected");
    Ok(())
}
