//! Several cards, of which one is right; and how a link is looked at.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use landfall_tests::protocol::Link;
use landfall_tests::{Daemon, Dnsmasq, Kernel, Lab, Leases, Nic, Node};

use crate::{usual_dhcp, usual_root, usual_vm};

/// Of the cards in the order in which they are given.
pub const MACS: [&str; 4] =
    ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03", "52:54:00:77:00:04"];

/// The port with this MAC.
pub fn link(node: &Node<'_>, mac: &str) -> Result<Link> {
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.mac == mac).cloned();
    link.with_context(|| format!("the link is gone: {:?}", state.links))
}

/// The only IPv4 address of the port with this MAC, which is in 10.77.0.0/24.
pub fn address(node: &Node<'_>, mac: &str) -> Result<Ipv4Addr> {
    let link = link(node, mac)?;
    let [address] = &link.addresses[..] else { anyhow::bail!("{link:?}") };
    let address: Ipv4Addr = address.strip_suffix("/24").context("not in a /24")?.parse()?;
    ensure!(address.octets()[..3] == [10, 77, 0], "{address}");
    Ok(address)
}

/// The first card has the only address that this server has ever acknowledged.
pub fn has_its_address_from(node: &Node<'_>, server: &Daemon) -> Result<Ipv4Addr> {
    let address = address(node, MACS[0])?;
    assert_eq!(Leases::in_log(&server.log_text()).one_address_of(MACS[0])?, address);
    Ok(address)
}

/// A board with four sockets, after somebody has been at the back of the rack.
#[test]
#[ignore = "boots a virtual machine"]
fn of_four_ports_the_right_one_wins_and_the_console_says_why_the_others_do_not() -> Result<()> {
    let lab = Lab::new("links-four")?;
    // Nobody answers on the one, and who answers on the other knows nothing of booting.
    lab.add_wire("br1", None)?;
    lab.add_wire("br2", None)?;
    let _office = lab.on_another_host_of("br2", Ipv4Addr::new(10, 78, 0, 1), || {
        let office = Dnsmasq::new().log("dnsmasq-office.log");
        office.leases("10.78.0.50,10.78.0.99,1h").start(&lab)
    })?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let mut vm = usual_vm(&lab, Kernel::V6_12, "")?.nic(Nic::on("br0").unplugged());
    for wire in ["br1", "br2", "br0"] {
        vm = vm.nic(Nic::on(wire));
    }
    let machine = vm.boot()?;
    let node = machine.node()?;

    let address = address(&node, MACS[3])?;
    assert_eq!(Leases::in_log(&dhcp.log_text()).one_address_of(MACS[3])?, address);
    for mac in &MACS[..3] {
        let link = link(&node, mac)?;
        assert!(link.addresses.is_empty(), "{link:?}");
    }
    let state = node.state()?;
    let defaults: Vec<_> = state.routes.iter().filter(|route| route.to == "0.0.0.0/0").collect();
    let [default] = defaults[..] else { anyhow::bail!("{:?}", state.routes) };
    assert_eq!((default.link.as_str(), default.via.as_deref()), ("eth3", Some("10.77.0.1")));

    machine.line("network: eth3 is 10.77.0.")?;
    let console = machine.console();
    for words in [
        &["no carrier on eth0"][..],
        &["eth1 is not used", "carrier, but no offer"],
        &["eth2 is not used", "10.78.0.", "10.78.0.1", "it names no boot server"],
    ] {
        let said = console.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(said, "nothing of {words:?} in\n{}", console.join("\n"));
    }
    Ok(())
}

/// The root has to come from a lease; the first that there is is the office's, and the right port has
/// no cable yet. With the wrong lease the boot would end.
#[test]
#[ignore = "boots a virtual machine"]
fn a_lease_without_the_root_is_not_the_end_while_a_cable_may_be_plugged_in() -> Result<()> {
    let lab = Lab::new("links-office-first")?;
    lab.add_wire("br2", None)?;
    let _office = lab.on_another_host_of("br2", Ipv4Addr::new(10, 78, 0, 1), || {
        let office = Dnsmasq::new().log("dnsmasq-office.log");
        office.leases("10.78.0.50,10.78.0.99,1h").start(&lab)
    })?;
    let dhcp = usual_dhcp(&lab)?.option("dhcp-option=17,nbd:10.77.0.1:root").start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let vm = usual_vm(&lab, Kernel::V6_12, "")?.cmdline("root=dhcp panic=5");
    let machine = vm.nic(Nic::on("br2")).nic(Nic::on("br0").unplugged()).boot()?;
    machine.line("network: waiting for carrier on eth1; 10.78.0.")?;
    // Long after it has been asked who else may know a root.
    std::thread::sleep(std::time::Duration::from_secs(8));
    machine.cable(1, true)?;
    let node = machine.node()?;
    let address = address(&node, MACS[1])?;
    assert_eq!(Leases::in_log(&dhcp.log_text()).one_address_of(MACS[1])?, address);
    let office = link(&node, MACS[0])?;
    ensure!(office.addresses.is_empty(), "{office:?}");
    assert_eq!(node.mount("/rofs")?.fstype, "squashfs");
    machine.never_said("FAILED")
}
