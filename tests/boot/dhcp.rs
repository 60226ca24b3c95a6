//! DHCP servers that are late, deaf, or on another wire.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use landfall_tests::{Kernel, Lab, Node};

use crate::{usual_dhcp, usual_root, usual_vm};

const FIRST: &str = "52:54:00:77:00:01";
const SECOND: &str = "52:54:00:77:00:02";

/// A PC with a BIOS (RFC 4578).
const ARCHITECTURE: u16 = 0;

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
/// As firmware sends it in option 97: its kind, then the bytes as SMBIOS stores them, the first
/// three fields with their lowest byte first.
const UUID_ON_THE_WIRE: &str = "00:33:22:11:00:55:44:77:66:88:99:aa:bb:cc:dd:ee:ff";

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

/// Switches with spanning tree forward nothing for up to 50 s, and DHCP servers reboot too.
#[test]
#[ignore = "boots a virtual machine"]
fn a_dhcp_server_that_answers_after_50_s_is_waited_for() -> Result<()> {
    let lab = Lab::new("dhcp-late")?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    machine.line("network: waiting for")?;
    // The wait itself is what is tested.
    thread::sleep(Duration::from_secs(50).saturating_sub(machine.age()));
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
    let node = machine.node()?;
    assert_eq!(lab.lost_dhcp_answers()?, 2);
    let log = dhcp.log_text();
    // The server has offered each time; the third offer is the first that arrived.
    let offers: Vec<_> = log.lines().filter(|line| line.contains("DHCPOFFER(")).collect();
    assert!(offers.len() >= 3, "{log}");
    let address = address(&node, FIRST)?.context("no address")?;
    assert!(address.starts_with("10.77.0."), "{address}");

    // A client that waits as the standard has it, 4 s and then 8 s, would have taken 12.
    let report: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/report.json")?)?;
    let stages = report["stages"].as_array().context("stages")?;
    let network = stages.iter().find(|stage| stage["name"] == "network").context("a stage")?;
    let seconds = network["seconds"].as_f64().context("seconds")?;
    assert!(seconds < 10.0, "{report:#}");
    machine.line("network: eth0 is 10.77.0.").map(drop)
}

/// What the server must be told: reservations go by the client identifier, the choice of a boot
/// file by the architecture, an inventory by the UUID. And what it says must be known to whoever
/// renews the lease; in a root where nobody does, the address must not end with the lease.
#[test]
#[ignore = "boots a virtual machine"]
fn a_short_lease_is_handed_on_with_all_it_said() -> Result<()> {
    let lab = Lab::new("dhcp-short-lease")?;
    let _dhcp = usual_dhcp(&lab)?
        .leases("10.77.0.50,10.77.0.99,120")
        .option(format!("dhcp-match=set:pc,option:client-arch,{ARCHITECTURE}"))
        .option(format!("dhcp-match=set:machine,97,{UUID_ON_THE_WIRE}"))
        .option("dhcp-option=tag:pc,tag:machine,42,10.77.0.3")
        .option("dhcp-option=26,1400")
        .option("dhcp-option=119,example,lab.example")
        .option(format!("dhcp-host=id:01:{FIRST},node7,10.77.0.77"))
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.uuid(UUID).boot()?;
    let node = machine.node()?;
    let state = node.state()?;
    assert_eq!(address(&node, FIRST)?.as_deref(), Some("10.77.0.77/24"), "not known by 01 and MAC");
    let life = node.output(&["/bin/busybox", "ip", "-4", "-o", "address"])?;
    let life = life.lines().find(|line| line.contains("10.77.0.77/24")).context("no address")?;
    assert!(life.contains("valid_lft forever preferred_lft forever"), "{life}");
    assert!(!life.contains("dynamic"), "{life}");
    assert_eq!(state.host_name, "node7");
    let link = state.links.iter().find(|link| link.mac == FIRST).context("the link is gone")?;
    assert_eq!(link.mtu, 1400);
    let default = state.routes.iter().find(|route| route.to == "0.0.0.0/0");
    assert_eq!(default.and_then(|route| route.via.as_deref()), Some("10.77.0.1"));

    let lease: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/lease.json")?)?;
    assert_eq!(lease["lease_seconds"], 120, "{lease}");
    // Also: the server knew architecture and UUID, or it would not have named one.
    assert_eq!(lease["ntp"], serde_json::json!(["10.77.0.3"]), "{lease}");
    assert_eq!(lease["search"], serde_json::json!(["example", "lab.example"]), "{lease}");
    Ok(())
}

/// With DHCP on every wire only the boot loader knows which one it came from; some leave the
/// hardware type out.
#[test]
#[ignore = "boots a virtual machine"]
fn bootif_without_a_hardware_type_names_the_port() -> Result<()> {
    let lab = Lab::new("dhcp-bootif")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let nics = [("br0", FIRST), ("br0", SECOND)];
    let words = format!("BOOTIF={}", SECOND.replace(':', "-"));
    let machine = usual_vm(&lab, Kernel::V6_12, &words)?.nics(&nics).boot()?;
    let node = machine.node()?;
    assert_eq!(address(&node, FIRST)?, None);
    let address = address(&node, SECOND)?.context("no address")?;
    assert!(address.starts_with("10.77.0."), "{address}");
    Ok(())
}
