//! The network that lts.conf describes, when it differs from what the boot needed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Dnsmasq, Kernel, Lab, Leases, Nic};

use crate::links::{MACS, link};
use crate::{usual_root, usual_vm};

/// A loader that speaks over one port, and a system that is to have two and a second network: the
/// root is there over the bond, by the lease of the port that booted.
#[test]
#[ignore = "boots a virtual machine"]
fn a_bond_and_a_vlan_are_made_after_a_boot_over_one_port() -> Result<()> {
    const CONFIGURATION: &str = "[default]\n\
        NET_BOND = \"bond0:BOOTIF,eth0:mode=active-backup\"\n\
        NET_VLAN = \"bond0.20:bond0\"\n\
        NET_IP   = \"bond0:dhcp 10.20.0.7/24:::::bond0.20:none\"\n";
    let lab = Lab::new("net-settings")?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", CONFIGURATION)])?;
    let dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let vm = usual_vm(&lab, Kernel::V6_12, "ip=dhcp BOOTIF=01-52-54-00-77-00-02")?;
    let machine = vm.nic(Nic::on("br0")).nic(Nic::on("br0")).boot()?;
    let node = machine.node()?;
    machine.line("network: eth1 is 10.77.0.")?;
    machine.line("network: the configuration describes other links (NET_*)")?;
    machine.line("network: bond0 is 10.77.0.")?;

    let state = node.state()?;
    let named = |name: &str| {
        let link = state.links.iter().find(|link| link.name == name);
        link.with_context(|| format!("no {name}: {:?}", state.links))
    };
    let bond = named("bond0")?;
    let given = Leases::in_log(&dhcp.log_text()).one_address_of(MACS[1])?;
    assert_eq!((bond.mac.as_str(), &bond.addresses[..]), (MACS[1], &[format!("{given}/24")][..]));
    assert_eq!(named("bond0.20")?.addresses, ["10.20.0.7/24"]);
    for port in ["eth0", "eth1"] {
        let port = named(port)?;
        ensure!(port.addresses.is_empty(), "{port:?}");
    }
    assert_eq!(node.mount("/")?.fstype, "overlay");
    node.drop_caches()?;
    ensure!(node.tree("/rofs")?.files > 0, "the root cannot be read any more");
    Ok(())
}

/// A number with a digit too many in front of a thousand machines: they boot as they did before, and
/// read the correction at the next boot.
#[test]
#[ignore = "boots a virtual machine"]
fn a_network_that_nobody_answers_in_is_taken_back() -> Result<()> {
    const CONFIGURATION: &str = "[default]\n\
        NET_BOND = \"bond0:eth0:mode=active-backup\"\n\
        NET_VLAN = \"bond0.2000:bond0\"\n\
        NET_IP   = \"bond0.2000:dhcp\"\n";
    let lab = Lab::new("net-settings-wrong")?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", CONFIGURATION)])?;
    let dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "ip=dhcp")?.boot()?;
    machine.line("network: waiting for an offer on bond0.2000")?;
    machine.line_within("the network is again what it was", Duration::from_secs(120))?;
    let node = machine.node()?;
    let given = Leases::in_log(&dhcp.log_text()).one_address_of(MACS[0])?;
    assert_eq!(link(&node, MACS[0])?.addresses, [format!("{given}/24")]);
    let links = node.state()?.links;
    ensure!(links.iter().all(|link| !link.name.starts_with("bond")), "{links:?}");
    assert_eq!(node.mount("/")?.fstype, "overlay");
    Ok(())
}
