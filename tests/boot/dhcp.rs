//! DHCP servers that are late, deaf, or on another wire.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use landfall_tests::{Kernel, Lab, Node};

use crate::{usual_dhcp, usual_root, usual_vm};

const FIRST: &str = "52:54:00:77:00:01";
const SECOND: &str = "52:54:00:77:00:02";

/// The address of the link with this MAC.
fn address(node: &Node<'_>, mac: &str) -> Result<Option<String>> {
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.mac == mac).context("the link is gone")?;
    Ok(link.addresses.first().cloned())
}

/// Server boards have their cable in any of four sockets.
#[test]
#[ignore = "boots a virtual machine"]
fn the_second_nic_may_be_the_one_with_dhcp() -> Result<()> {
    let lab = Lab::new("dhcp-second-nic")?;
    lab.add_wire("br1", None)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let nics = [("br1", FIRST), ("br0", SECOND)];
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.nics(&nics).boot()?;
    let node = machine.node()?;
    assert_eq!(address(&node, FIRST)?, None);
    let address = address(&node, SECOND)?.context("no address")?;
    assert!(address.starts_with("10.77.0.") && address.ends_with("/24"), "{address}");
    Ok(())
}

/// Switches with spanning tree forward nothing for 30 s, and DHCP servers reboot too.
#[test]
#[ignore = "boots a virtual machine"]
fn a_dhcp_server_that_answers_after_40_s_is_waited_for() -> Result<()> {
    let lab = Lab::new("dhcp-late")?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    machine.line("waiting for")?;
    // The wait itself is what is tested.
    thread::sleep(Duration::from_secs(40).saturating_sub(machine.age()));
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    machine.node()?;
    machine.never_said("FAILED")
}

/// The first packets after a link comes up are the ones that get lost.
#[test]
#[ignore = "boots a virtual machine"]
fn two_lost_offers_cost_a_moment() -> Result<()> {
    let lab = Lab::new("dhcp-lossy")?;
    lab.lose_dhcp_answers(2)?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_1, "")?.boot()?;
    machine.node()?;
    let log = dhcp.log_text();
    assert!(log.matches("DHCPDISCOVER").count() >= 3, "nothing was lost:\n{log}");
    Ok(())
}

/// The lease must be known to whoever renews it.
#[test]
#[ignore = "boots a virtual machine"]
fn a_short_lease_is_handed_on_with_all_it_said() -> Result<()> {
    let lab = Lab::new("dhcp-short-lease")?;
    let _dhcp = usual_dhcp(&lab)?
        .leases("10.77.0.50,10.77.0.99,120")
        .option("dhcp-option=42,10.77.0.3")
        .option("dhcp-option=26,1400")
        .option("dhcp-option=119,example,lab.example")
        .option("dhcp-host=52:54:00:77:00:01,node7,10.77.0.77")
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    let state = node.state()?;
    assert_eq!(address(&node, FIRST)?.as_deref(), Some("10.77.0.77/24"));
    assert_eq!(state.host_name, "node7");
    let link = state.links.iter().find(|link| link.mac == FIRST).context("the link is gone")?;
    assert_eq!(link.mtu, 1400);
    let default = state.routes.iter().find(|route| route.to == "0.0.0.0/0");
    assert_eq!(default.and_then(|route| route.via.as_deref()), Some("10.77.0.1"));

    let lease: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/lease.json")?)?;
    assert_eq!(lease["lease_seconds"], 120, "{lease}");
    assert_eq!(lease["ntp"], serde_json::json!(["10.77.0.3"]), "{lease}");
    assert_eq!(lease["search"], serde_json::json!(["example", "lab.example"]), "{lease}");
    Ok(())
}
