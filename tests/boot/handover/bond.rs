//! A bond of the boot, and software that has never heard of it: it must be found as it is.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Node, Switch};

use super::{
    Manager, Room, asked_again, knows_names, manager, never_stood_still, one_lease, one_way_out,
    reads, steadily,
};
use crate::usual_vm;

/// What makes it that bond and no other.
#[derive(Debug, PartialEq, Eq)]
struct Bond {
    index: String,
    mac: String,
    address: String,
    ports: String,
}

fn bond(node: &Node<'_>) -> Result<Bond> {
    let file = |name: &str| -> Result<String> {
        Ok(node.file(&format!("/sys/class/net/bond0/{name}"))?.trim().to_owned())
    };
    let links = node.state()?.links;
    let link = links.iter().find(|link| link.name == "bond0").context("there is no bond0")?;
    let [address] = &link.addresses[..] else { anyhow::bail!("not one address: {link:?}") };
    Ok(Bond {
        index: file("ifindex")?,
        mac: link.mac.clone(),
        address: address.clone(),
        ports: file("bonding/slaves")?,
    })
}

/// The software takes the bond over with its ports, and it is the same bond ever after: when the
/// service is restarted, and when one of its cables is pulled.
fn is_the_same_bond_ever_after(test: &str, manager: &Manager) -> Result<()> {
    let Room { lab, dhcp, .. } = &Room::new(test, manager, 10)?;
    let switch = Switch::new(lab).ports(2).start()?;
    let words = "bond=bond0:eth0,eth1:mode=active-backup,miimon=100 ip=bond0:dhcp";
    let mut vm = usual_vm(lab, Kernel::V6_12, words)?.memory_mib(1024);
    for port in 0..2 {
        vm = vm.nic(switch.port(port)?);
    }
    let mut machine = vm.boot()?;
    {
        let node = machine.node()?;
        let before = bond(&node)?;
        asked_again(dhcp, &node)?;
        one_lease(lab, &before.address)?;
        one_way_out(&node)?;
        knows_names(&node, manager)?;
        never_stood_still(&node, "the start")?;

        node.output(&["systemctl", "restart", manager.service])?;
        // Long enough for a client that starts anew.
        thread::sleep(Duration::from_secs(5));
        never_stood_still(&node, "the restart of the service")?;
        assert_eq!(bond(&node)?, before);
        one_way_out(&node)?;
        one_lease(lab, &before.address)?;

        switch.cable_to(0, &machine, 0, false)?;
        reads(&node)?;
        assert_eq!(bond(&node)?, before);
        ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back");
        node.begin(&["systemctl", "poweroff"])?;
    }
    machine.ended_by("Power down", Duration::from_secs(60))?;
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn networkd_adopts() -> Result<()> {
    let manager = manager("networkd-trixie")?;
    steadily(|| is_the_same_bond_ever_after("bond_networkd_adopts", manager))
}

#[test]
#[ignore = "boots a virtual machine"]
fn network_manager_adopts() -> Result<()> {
    let manager = manager("nm-trixie")?;
    steadily(|| is_the_same_bond_ever_after("bond_network_manager_adopts", manager))
}
