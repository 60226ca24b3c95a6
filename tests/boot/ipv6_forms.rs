//! What can be said of IPv6 beside "there is a router": by hand, by routers, by DHCP of either kind.

use std::process::Command;

use anyhow::{Result, ensure};
use landfall_tests::{Dnsmasq, Ipv6, Kernel, Lab, Nic, Node, SERVER6, radvd};

use crate::ipv6::{addresses, boot, speaks_ipv6_only, tftp};
use crate::links::{MACS, link};
use crate::{usual_dhcp, usual_root, usual_vm};

fn routes(node: &Node<'_>, to: &str) -> Result<String> {
    node.output(&["/bin/busybox", "ip", "-6", "route", "show", to])
}

fn setting(node: &Node<'_>, mac: &str, name: &str) -> Result<String> {
    let link = link(node, mac)?.name;
    let text = node.file(&format!("/proc/sys/net/ipv6/conf/{link}/{name}"))?;
    Ok(text.trim().to_owned())
}

/// Where nobody advertises anything, or nobody is to be believed.
#[test]
#[ignore = "boots a virtual machine"]
fn an_address_and_a_router_by_hand() -> Result<()> {
    let lab = Lab::new("ipv6-typed")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    // Whose words are not asked for.
    let _router = Dnsmasq::new().without_ipv4().ipv6(Ipv6::Slaac).start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let machine = boot(&lab, "ip=[fd77::5]::[fd77::1]:64:node6:eth0:none")?;
    let node = machine.node()?;
    assert_eq!(addresses(&node)?, ["fd77::5/64"]);
    let default = routes(&node, "default")?;
    ensure!(default.contains("via fd77::1") && default.lines().count() == 1, "{default}");
    assert_eq!(setting(&node, MACS[0], "accept_ra")?, "0");
    assert_eq!(node.state()?.host_name, "node6");
    machine.line("network: eth0 is fd77::5/64 through fd77::1")?;
    Ok(())
}

/// The address of whichever card has a cable; a router beyond every prefix, as hosters have it; and
/// a network that only that router knows.
#[test]
#[ignore = "boots a virtual machine"]
fn an_address_for_whichever_card_has_a_cable() -> Result<()> {
    let lab = Lab::new("ipv6-typed-any")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let _nbd = usual_root(&lab)?;
    let words = format!(
        "root=nbd:[{SERVER6}]:root panic=5 ip=[fd77::5]::[fd79::1]:64:::none \
         rd.route=[fd99::]/48:[{SERVER6}]"
    );
    let vm = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(&words);
    let machine = vm.nic(Nic::on("br0").unplugged()).nic(Nic::on("br0")).boot()?;
    let node = machine.node()?;
    let state = node.output(&["/bin/busybox", "ip", "-6", "-o", "address", "show"])?;
    let with_it: Vec<_> = state.lines().filter(|line| line.contains("fd77::5/64")).collect();
    ensure!(with_it.len() == 1 && with_it[0].contains("eth1"), "{state}");
    ensure!(!with_it[0].contains("tentative"), "{state}");
    let default = routes(&node, "default")?;
    ensure!(default.contains("via fd79::1 dev eth1"), "{default}");
    let beyond = routes(&node, "fd99::/48")?;
    ensure!(beyond.contains("via fd77::1 dev eth1"), "{beyond}");
    machine.never_said("it is tried again")
}

/// A machine that somebody else has taken the address of says so, and boots when it is free.
#[test]
#[ignore = "boots a virtual machine"]
fn a_typed_address_that_somebody_else_has_is_asked_for_again() -> Result<()> {
    let lab = Lab::new("ipv6-typed-twice")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let _nbd = usual_root(&lab)?;
    let on_the_server = |verb: &str| {
        let status = Command::new("ip")
            .args(["address", verb, "fd77::5/64", "dev", "br0"])
            .args((verb == "add").then_some("nodad"))
            .status()?;
        ensure!(status.success(), "{verb}: {status}");
        Ok(())
    };
    on_the_server("add")?;
    let machine = boot(&lab, "ip=[fd77::5]::[fd77::1]:64::eth0:none")?;
    machine.line("network: warning: eth0: somebody else has fd77::5 already")?;
    machine.line("network: waiting for an address of its own on eth0")?;
    on_the_server("del")?;
    let node = machine.node()?;
    assert_eq!(addresses(&node)?, ["fd77::5/64"]);
    Ok(())
}

/// Firmware's boot file URL says where the root is, and nobody else does.
#[test]
#[ignore = "boots a virtual machine"]
fn the_root_of_dhcpv6() -> Result<()> {
    let lab = Lab::new("ipv6-root")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let _server = Dnsmasq::new()
        .without_ipv4()
        .ipv6(Ipv6::Stateful)
        .boot_file_url(&format!("nbd://[{SERVER6}]/root"))
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline("root=dhcp panic=5").boot()?;
    speaks_ipv6_only(&machine.node()?)
}

/// A storage network of routers' words alone. The kernel by itself would stay at 1500.
#[test]
#[ignore = "boots a virtual machine"]
fn routers_say_that_frames_are_large() -> Result<()> {
    let lab = Lab::new("ipv6-mtu")?.with_ipv6()?;
    lab.mtu(9000)?;
    let _tftp = tftp(&lab)?;
    let _router = radvd(
        &lab,
        "interface br0 {\n AdvSendAdvert on; AdvLinkMTU 9000;\n \
         MinRtrAdvInterval 3; MaxRtrAdvInterval 10;\n prefix fd77::/64 {};\n};\n",
    )?;
    let _nbd = usual_root(&lab)?;
    let machine = boot(&lab, "")?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    assert_eq!(link(&node, MACS[0])?.mtu, 9000);
    assert_eq!(setting(&node, MACS[0], "mtu")?, "9000");
    Ok(())
}

/// A router that is asked for names itself, by the address that only its neighbours know.
#[test]
#[ignore = "boots a virtual machine"]
fn a_name_server_of_the_link_alone() -> Result<()> {
    let lab = Lab::new("ipv6-link-local")?.with_ipv6()?;
    let status =
        Command::new("ip").args(["address", "add", "fe80::53/64", "dev", "br0"]).status()?;
    ensure!(status.success(), "{status}");
    let _tftp = tftp(&lab)?;
    let _names = Dnsmasq::new().without_ipv4().name("boot.rack.example", SERVER6).start(&lab)?;
    let _router = radvd(
        &lab,
        "interface br0 {\n AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 10;\n \
         prefix fd77::/64 {};\n RDNSS fe80::53 {};\n DNSSL rack.example {};\n};\n",
    )?;
    let _nbd = usual_root(&lab)?;
    let words = "root=nbd:boot:root landfall.config=tftp://boot/ltsp/amd64/lts.conf panic=5";
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(words).boot()?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    let index = node.file(&format!("/sys/class/net/{}/ifindex", link(&node, MACS[0])?.name))?;
    let resolv = node.file("/etc/resolv.conf")?;
    let line = format!("nameserver fe80::53%{}", index.trim());
    ensure!(resolv.lines().any(|known| known == line), "no {line:?} in {resolv}");
    Ok(())
}

/// A network that is on its way to IPv6 spares its addresses of the other family (RFC 8925).
#[test]
#[ignore = "boots a virtual machine"]
fn a_network_that_prefers_ipv6_gives_its_ipv4_to_others() -> Result<()> {
    let lab = Lab::new("ipv6-preferred")?.with_ipv6()?;
    let _servers =
        usual_dhcp(&lab)?.ipv6(Ipv6::Slaac).option("dhcp-option=108,0:0:e:10").start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let words = format!(
        "root=nbd:[{SERVER6}]:root panic=5 landfall.config=tftp://[{SERVER6}]/ltsp/amd64/lts.conf"
    );
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(&words).boot()?;
    machine.line("says that IPv6 is enough here (option 108)")?;
    speaks_ipv6_only(&machine.node()?)
}

/// The same without a router: a promise that nobody keeps must not keep a machine from booting.
#[test]
#[ignore = "boots a virtual machine"]
fn a_network_that_only_says_that_it_prefers_ipv6_is_not_believed_for_long() -> Result<()> {
    let lab = Lab::new("ipv6-preferred-in-vain")?;
    let _servers = usual_dhcp(&lab)?.option("dhcp-option=108,0:0:e:10").start(&lab)?;
    let _nbd = usual_root(&lab)?;
    // By name: an address of IPv4 would settle the question.
    let words = "root=nbd:boot.rack.example:root panic=5";
    let lookup = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(words);
    let machine = lookup.boot()?;
    machine.line("says that IPv6 is enough here (option 108)")?;
    machine.line("no IPv6 in 10 s; IPv4 is used after all")?;
    machine.line("network: eth0 is 10.77.0.")?;
    Ok(())
}

/// The other end of a link of two is a neighbour that no prefix covers.
#[test]
#[ignore = "boots a virtual machine"]
fn the_other_end_of_a_link_of_two() -> Result<()> {
    let lab = Lab::new("peer")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let words = "ip=10.77.0.9:10.77.0.1::255.255.255.255::eth0:none";
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.boot()?;
    let node = machine.node()?;
    let routes = node.state()?.routes;
    let peer = routes.iter().find(|route| route.to == "10.77.0.1/32");
    ensure!(peer.is_some_and(|route| route.link == "eth0" && route.via.is_none()), "{routes:?}");
    let link = link(&node, MACS[0])?;
    assert_eq!(link.addresses, ["10.77.0.9/32"]);
    Ok(())
}
