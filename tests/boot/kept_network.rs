//! The network of a root that hangs on it, long after the boot: leases are renewed whoever is in
//! charge, or nobody, and what is taken from the root's link comes back.
//!
//! Leases are so short that a test sees several of them. Roots are those of the handover.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{Daemon, Kernel, Lab, Leases, Nbd, NbdKind, Node, dhcpd, tftpd, workshop};

use crate::usual_vm;

const MAC: &str = "52:54:00:77:00:01";
const LEASE: Duration = Duration::from_secs(15);

/// Addresses from ISC dhcpd, which gives them for as short a time as it is told.
fn server(lab: &Lab) -> Result<Daemon> {
    let seconds = LEASE.as_secs();
    dhcpd(
        lab,
        &format!(
            "authoritative;\nmin-lease-time {seconds};\nmax-lease-time {seconds};\n\
             default-lease-time {seconds};\nping-check false;\n\
             subnet 10.77.0.0 netmask 255.255.255.0 {{\n  range 10.77.0.50 10.77.0.99;\n  \
             option routers 10.77.0.1;\n  next-server 10.77.0.1;\n}}\n"
        ),
    )
}

fn renewals(dhcp: &Daemon) -> usize {
    Leases::in_log(&dhcp.log_text()).count()
}

/// Name and address of the link.
fn link(node: &Node<'_>) -> Result<(String, Vec<String>)> {
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.mac == MAC).context("the link is gone")?;
    Ok((link.name.clone(), link.addresses.clone()))
}

/// From the server and not from memory.
fn reads(node: &Node<'_>) -> Result<()> {
    node.drop_caches()?;
    ensure!(node.tree("/rofs/usr/sbin")?.files > 0, "the root cannot be read any more");
    Ok(())
}

fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let (began, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(30));
    while !is_so()? {
        ensure!(Instant::now() < deadline, "waiting for {what}");
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{what} after {:.1?}", began.elapsed());
    Ok(())
}

/// What takes the network away under the root, or ends who renews its lease.
type Disturb = fn(&Node<'_>, &str) -> Result<()>;

/// Through three leases undisturbed, and through three more after something has gone wrong.
fn stays(test: &str, root: &str, disturb: Disturb, heals: bool) -> Result<()> {
    let lab = Lab::new(test)?;
    let config = "[default]\nKEEP_SYSTEM_SERVICES = \"NetworkManager\"\n";
    let folder = lab.served("tftp", &[("ltsp/amd64/lts.conf", config)])?;
    let _tftp = tftpd(&lab, &folder, &[])?;
    let dhcp = server(&lab)?;
    let image = workshop::debian(root)?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
    let mut machine = usual_vm(&lab, Kernel::V6_12, "")?.memory_mib(1024).boot()?;
    {
        let node = machine.node()?;
        let (_, addresses) = link(&node)?;
        ensure!(addresses.len() == 1, "{addresses:?}");
        let goes_on = |leases: u32| -> Result<()> {
            let before = renewals(&dhcp);
            thread::sleep(LEASE * leases + LEASE / 4);
            let asked = renewals(&dhcp) - before;
            eprintln!("{asked} renewals in {leases} leases");
            // At half of each, hence twice as many, and one may be late or fall on the edge. Whoever
            // asks at seven eighths only, when it is urgent, has one in a lease, or once one more.
            let enough = usize::try_from(leases)? * 2 - 1;
            ensure!(asked >= enough, "{asked} renewals in {leases} leases");
            let (_, now) = link(&node)?;
            ensure!(now == addresses, "{now:?} in place of {addresses:?}");
            reads(&node)
        };
        goes_on(3)?;
        let (name, _) = link(&node)?;
        disturb(&node, &name)?;
        if heals {
            let said = |words: &str| Ok(node.output(&["dmesg"])?.contains(words));
            wait("a word on the repair", || said("taken away under the root and put back"))?;
            eprintln!("{}", node.output(&["sh", "-c", "dmesg | grep 'network: '"])?);
        }
        let routes = ["ip", "-4", "route", "show", "default"];
        wait("the network", || {
            let there = link(&node)?.1 == addresses;
            Ok(there && node.output(&routes)?.contains("via 10.77.0.1"))
        })?;
        goes_on(3)?;
        let leases = Leases::in_log(&dhcp.log_text());
        let address = leases.one_address_of(MAC)?.to_string();
        ensure!(addresses[0].starts_with(&address), "{address} is not {addresses:?}");
        node.begin(&["systemctl", "poweroff"])?;
    }
    machine.ended_by("Power down", Duration::from_secs(90))?;
    ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back");
    Ok(())
}

/// An administrator's own configuration, which does not know that a root is behind the link.
#[test]
#[ignore = "boots a virtual machine"]
fn the_root_survives_networkd_and_its_end() -> Result<()> {
    let disturb: Disturb = |node, _| {
        let forget = "sed -i /KeepConfiguration=/d /run/systemd/network/10-landfall-*.network";
        node.output(&["sh", "-c", forget])?;
        node.output(&["systemctl", "restart", "systemd-networkd.service"])?;
        let units = ["systemd-networkd.socket", "systemd-networkd.service"];
        node.output(&[&["systemctl", "stop"], &units[..]].concat()).map(drop)
    };
    stays("the_root_survives_networkd_and_its_end", "networkd-trixie", disturb, true)
}

/// It leaves the address, with an end that nobody moves any more.
#[test]
#[ignore = "boots a virtual machine"]
fn the_root_survives_network_manager_and_its_end() -> Result<()> {
    let disturb: Disturb =
        |node, _| node.output(&["systemctl", "stop", "NetworkManager"]).map(drop);
    stays("the_root_survives_network_manager_and_its_end", "nm-trixie", disturb, false)
}

#[test]
#[ignore = "boots a virtual machine"]
fn the_root_survives_ifdown() -> Result<()> {
    let disturb: Disturb = |node, link| {
        node.output(&["ifdown", "--force", link])?;
        node.output(&["ip", "address", "flush", "dev", link]).map(drop)
    };
    stays("the_root_survives_ifdown", "ifupdown-trixie", disturb, true)
}

#[test]
#[ignore = "boots a virtual machine"]
fn the_root_survives_a_root_without_network_software() -> Result<()> {
    let disturb: Disturb = |node, link| {
        node.output(&["ip", "link", "set", link, "down"])?;
        node.output(&["ip", "address", "flush", "dev", link]).map(drop)
    };
    stays("the_root_survives_a_root_without_network_software", "none-trixie", disturb, true)
}
