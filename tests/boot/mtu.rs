//! Packets that are larger or smaller than everybody's.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, ProbeRoot};

use crate::links::{MACS, has_its_address_from, link};
use crate::{usual_dhcp, usual_vm};

/// Boots over a network with this MTU, which DHCP tells; the root's connection must use all of it,
/// and nothing may be cut into fragments.
fn boots_with(test: &str, mtu: u32) -> Result<()> {
    let lab = Lab::new(test)?;
    lab.mtu(mtu)?;
    let dhcp = usual_dhcp(&lab)?.option(format!("dhcp-option=26,{mtu}")).start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(8)?;
    let digest = tree.digest()?;
    let image = tree.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &dhcp)?;
    let link = link(&node, MACS[0])?;
    assert_eq!(link.mtu, mtu, "{link:?}");
    assert_eq!(node.tree("/rofs")?, digest);

    // 20 bytes each of IPv4 and TCP, and 12 of a time stamp.
    let (whole, sockets) = (format!(" mss:{} ", mtu - 52), sockets()?);
    ensure!(sockets.contains(&whole), "not{whole}bytes at a time: {sockets}");
    let (ours, theirs) = (fragments(&std::fs::read_to_string(SNMP)?)?, node.file(SNMP)?);
    assert_eq!((ours, fragments(&theirs)?), (0, 0), "fragments at the server and in the machine");
    Ok(())
}

/// Of the thread's own namespace.
const SNMP: &str = "/proc/thread-self/net/snmp";

/// The server's ends of the root's connections, with what the kernel knows of each.
fn sockets() -> Result<String> {
    let output = Command::new("ss").args(["-tinH", "sport = :10809"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// How many fragments this side has made.
fn fragments(snmp: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let mut fields = names.split(' ').zip(values.split(' '));
    let (_, value) = fields.find(|(name, _)| *name == "FragCreates").context("no such field")?;
    Ok(value.parse()?)
}

/// Storage networks: a root over frames of the usual size takes six times the interrupts.
#[test]
#[ignore = "boots a virtual machine"]
fn frames_of_9000_bytes_are_used_from_end_to_end() -> Result<()> {
    boots_with("mtu-9000", 9000)
}

/// Tunnels between sites: with a larger one the first full packet of the root never arrives.
#[test]
#[ignore = "boots a virtual machine"]
fn packets_of_1280_bytes_are_enough() -> Result<()> {
    boots_with("mtu-1280", 1280)
}
