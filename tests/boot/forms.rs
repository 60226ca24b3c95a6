//! Each way to say `ip=` and its companions reaches a root: a word for each that somebody has in a
//! boot loader's menu.

use anyhow::{Context, Result, ensure};
use landfall_tests::protocol::{Link, State};
use landfall_tests::{Kernel, Lab, Machine, Nic, Node};

use crate::links::MACS;
use crate::{usual_dhcp, usual_root, usual_vm};

/// Boots a machine with two cards on the same wire and these words.
fn boots(
    test: &str,
    words: &str,
    look: impl FnOnce(&Machine, &Node<'_>, &State) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let vm = usual_vm(&lab, Kernel::V6_12, words)?.nic(Nic::on("br0")).nic(Nic::on("br0"));
    let machine = vm.boot()?;
    let node = machine.node()?;
    let state = node.state()?;
    look(&machine, &node, &state)
}

fn named<'a>(state: &'a State, name: &str) -> Result<&'a Link> {
    let link = state.links.iter().find(|link| link.name == name);
    link.with_context(|| format!("no {name}: {:?}", state.links))
}

/// One link has an address of the pool, and the others none.
fn leased(state: &State, name: &str) -> Result<()> {
    for link in state.links.iter().filter(|link| link.name != "lo") {
        let has = link.addresses.iter().any(|address| address.starts_with("10.77.0."));
        ensure!(has == (link.name == name), "{link:?}");
    }
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_link_with_a_method_and_an_mtu() -> Result<()> {
    boots("form-mtu", "ip=eth1:dhcp:1400", |_, _, state| {
        leased(state, "eth1")?;
        assert_eq!(named(state, "eth1")?.mtu, 1400);
        Ok(())
    })
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_link_with_a_method_and_another_mac() -> Result<()> {
    boots("form-mac", "ip=eth1:dhcp::52:54:00:aa:bb:cc", |_, _, state| {
        leased(state, "eth1")?;
        assert_eq!(named(state, "eth1")?.mac, "52:54:00:aa:bb:cc");
        Ok(())
    })
}

/// A prefix in place of a mask, and name servers behind it.
#[test]
#[ignore = "boots a virtual machine"]
fn a_static_address_with_name_servers_routes_and_names() -> Result<()> {
    let words = "ip=10.77.0.9::10.77.0.1:24:node9:rack0:none:10.77.0.1 \
                 ifname=rack0:52:54:00:77:00:02 nameserver=10.77.0.53 \
                 rd.route=172.16.0.0/16:10.77.0.254:rack0";
    boots("form-static", words, |_, node, state| {
        let link = named(state, "rack0")?;
        assert_eq!(
            (link.mac.as_str(), &link.addresses[..]),
            (MACS[1], &["10.77.0.9/24".to_owned()][..])
        );
        assert_eq!(state.host_name, "node9");
        let via = |to: &str| {
            let route = state.routes.iter().find(|route| route.to == to)?;
            Some((route.link.as_str(), route.via.as_deref()?))
        };
        assert_eq!(via("0.0.0.0/0"), Some(("rack0", "10.77.0.1")));
        assert_eq!(via("172.16.0.0/16"), Some(("rack0", "10.77.0.254")));
        let resolv = node.file("/etc/resolv.conf")?;
        let servers: Vec<_> =
            resolv.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
        assert_eq!(servers, ["10.77.0.1", "10.77.0.53"]);
        Ok(())
    })
}

/// Two networks, of which the second is where the root is.
#[test]
#[ignore = "boots a virtual machine"]
fn several_links_of_which_one_is_the_boot_device() -> Result<()> {
    let words = "ip=192.168.5.9::192.168.5.1:24::eth0:none ip=eth1:dhcp bootdev=eth1";
    boots("form-two", words, |_, _, state| {
        assert_eq!(named(state, "eth0")?.addresses, ["192.168.5.9/24"]);
        let second = named(state, "eth1")?;
        ensure!(
            second.addresses.iter().any(|address| address.starts_with("10.77.0.")),
            "{second:?}"
        );
        let defaults: Vec<_> =
            state.routes.iter().filter(|route| route.to == "0.0.0.0/0").collect();
        // Both may have one, but packets to elsewhere go where the root is.
        ensure!(defaults.first().is_some_and(|route| route.link == "eth1"), "{defaults:?}");
        Ok(())
    })
}

/// What pxelinux and iPXE append.
#[test]
#[ignore = "boots a virtual machine"]
fn the_card_that_the_firmware_has_booted_from() -> Result<()> {
    boots("form-bootif", "ip=dhcp BOOTIF=01-52-54-00-77-00-02", |_, _, state| leased(state, "eth1"))
}

/// A name by which systems without a network manager know a card, which is its address.
#[test]
#[ignore = "boots a virtual machine"]
fn a_link_by_the_name_that_its_address_makes() -> Result<()> {
    boots("form-enx", "ip=enx525400770002:dhcp", |_, _, state| {
        let with: Vec<_> = state
            .links
            .iter()
            .filter(|link| !link.addresses.is_empty() && link.name != "lo")
            .collect();
        let [link] = with[..] else { anyhow::bail!("{:?}", state.links) };
        assert_eq!(link.mac, MACS[1]);
        Ok(())
    })
}

/// A typing error must not vanish, and not keep the machine from booting over what is right.
#[test]
#[ignore = "boots a virtual machine"]
fn a_link_that_does_not_exist_is_named_on_the_console() -> Result<()> {
    boots("form-typo", "ip=eth1:dhcp ip=10.77.0.9::10.77.0.1:24::eht0:none", |machine, _, state| {
        leased(state, "eth1")?;
        machine.line("eht0").map(drop)
    })
}
