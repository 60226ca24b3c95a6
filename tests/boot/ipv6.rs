//! Networks without IPv4, and networks that only say that they have IPv6.

use anyhow::{Result, ensure};
use landfall_tests::{
    Daemon, Dnsmasq, Ipv6, Kernel, Lab, Machine, Node, SERVER, SERVER6, kea6, nginx, radvd, tftpd,
};
use serde_json::json;

use crate::links::{MACS, address, link};
use crate::{usual_dhcp, usual_root, usual_vm};

/// What firmware knows of the machine, and sends in its DUID (RFC 6355).
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
/// Its bytes, as Kea writes them: type 4, then the UUID in the order people write, which is iPXE's
/// too. (EDK2 sends it as SMBIOS stores it, with an IAID that is another at each boot.)
const DUID: &str = "00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff";

/// From which firmware would have booted; the configuration is beside it.
const BOOT_FILE: &str = "tftp://[fd77::1]/ltsp/amd64/grubx64.efi";

const CONFIGURATION: (&str, &str) = ("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n");

/// The addresses of the first card that are neither of this link only nor being given up, as
/// `ADDRESS/PREFIX`.
pub fn addresses(node: &Node<'_>) -> Result<Vec<String>> {
    let name = link(node, MACS[0])?.name;
    let words =
        ["/bin/busybox", "ip", "-6", "-o", "address", "show", "dev", &name, "scope", "global"];
    let text = node.output(&words)?;
    let address = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "inet6");
        words.nth(1).map(str::to_owned)
    };
    Ok(text.lines().filter_map(address).collect())
}

/// The machine has no IPv4 address, and a way out through the router of this wire.
pub fn speaks_ipv6_only(node: &Node<'_>) -> Result<()> {
    let link = link(node, MACS[0])?;
    assert!(link.addresses.is_empty(), "{link:?}");
    assert_eq!(node.mount("/")?.fstype, "overlay");
    let routes = node.output(&["/bin/busybox", "ip", "-6", "route", "show", "default"])?;
    assert!(routes.contains("via fe80::"), "{routes}");
    Ok(())
}

/// Boots [`CONFIGURATION`] and a root at `fd77::1` with these words.
pub fn boot(lab: &Lab, words: &str) -> Result<Machine> {
    let vm = usual_vm(lab, Kernel::V6_12, "")?.uuid(UUID);
    vm.cmdline(&format!("root=nbd:[{SERVER6}]:root panic=5 {words}")).boot()
}

pub fn tftp(lab: &Lab) -> Result<Daemon> {
    let folder = lab.served("tftp", &[CONFIGURATION])?;
    tftpd(lab, &folder, &[])
}

/// The smallest IPv6 network there is: a router that says what it is called and whom to ask for
/// names. Everything is by name.
#[test]
#[ignore = "boots a virtual machine"]
fn slaac_and_the_routers_name_server_are_enough() -> Result<()> {
    let lab = Lab::new("ipv6-slaac")?.with_ipv6()?;
    let folder = lab.served("http", &[CONFIGURATION])?;
    let _http = nginx(&lab, &folder)?;
    let _router = Dnsmasq::new()
        .without_ipv4()
        .ipv6(Ipv6::Slaac)
        .search("rack.example")
        .name("boot.rack.example", SERVER6)
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let words = "root=nbd:boot:root landfall.config=http://boot/ltsp/amd64/lts.conf panic=5";
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(words).boot()?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    let addresses = addresses(&node)?;
    // Of the prefix and of the card's address, or a random one; made here in either case.
    let ours = |address: &String| address.starts_with("fd77:") && address.ends_with("/64");
    ensure!(!addresses.is_empty() && addresses.iter().all(ours), "{addresses:?}");
    machine.line("config: 1 setting from http://boot/")?;
    let resolv = node.file("/etc/resolv.conf")?;
    assert!(resolv.contains("nameserver fd77::1"), "{resolv}");
    assert!(resolv.lines().any(|line| line == "search rack.example"), "{resolv}");
    Ok(())
}

/// The same with radvd, which is what routers run that are Linux.
#[test]
#[ignore = "boots a virtual machine"]
fn radvd_is_heard_as_well() -> Result<()> {
    let lab = Lab::new("ipv6-radvd")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let _router = radvd(
        &lab,
        "interface br0 {\n AdvSendAdvert on;\n MinRtrAdvInterval 3; MaxRtrAdvInterval 10;\n \
         AdvLinkMTU 1400;\n prefix fd77::/64 {};\n RDNSS fd77::1 {};\n DNSSL rack.example {};\n};\n",
    )?;
    let _nbd = usual_root(&lab)?;
    let machine = boot(&lab, "ip=auto6 landfall.config=tftp://[fd77::1]/ltsp/amd64/lts.conf")?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    let addresses = addresses(&node)?;
    ensure!(addresses.iter().any(|address| address.starts_with("fd77:")), "{addresses:?}");
    // The kernel's own business, which nobody may undo.
    let name = link(&node, MACS[0])?.name;
    assert_eq!(node.file(&format!("/proc/sys/net/ipv6/conf/{name}/mtu"))?.trim(), "1400");
    Ok(())
}

/// Addresses of their own make, everything else by DHCPv6.
#[test]
#[ignore = "boots a virtual machine"]
fn what_the_router_does_not_say_dhcpv6_does() -> Result<()> {
    let lab = Lab::new("ipv6-stateless")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let server = Dnsmasq::new()
        .without_ipv4()
        .ipv6(Ipv6::Stateless)
        .search("rack.example")
        .boot_file_url(BOOT_FILE)
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let machine = boot(&lab, "")?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    machine.line("config: 1 setting from tftp://[fd77::1]/ltsp/amd64/lts.conf")?;
    assert!(server.log_text().contains("DHCPINFORMATION-REQUEST"), "{}", server.log_text());
    Ok(())
}

/// The address that a server has without anybody's doing. It means nothing without the link, which
/// a URL from a DHCPv6 server cannot name.
#[test]
#[ignore = "boots a virtual machine"]
fn a_boot_file_at_an_address_of_the_link_is_fetched() -> Result<()> {
    let lab = Lab::new("ipv6-link-local")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let server = lab.link_local()?;
    let _server = Dnsmasq::new()
        .without_ipv4()
        .ipv6(Ipv6::Stateless)
        .boot_file_url(&format!("tftp://[{server}]/ltsp/amd64/grubx64.efi"))
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let machine = boot(&lab, "")?;
    machine.line(&format!("config: 1 setting from tftp://[{server}%"))?;
    speaks_ipv6_only(&machine.node()?)
}

/// Where every address is in somebody's books: by the machine's own identity, the one that its
/// firmware asked with.
#[test]
#[ignore = "boots a virtual machine"]
fn an_address_by_dhcpv6_is_asked_for_with_the_firmwares_identity() -> Result<()> {
    let lab = Lab::new("ipv6-stateful")?.with_ipv6()?;
    let _tftp = tftp(&lab)?;
    let _router = radvd(
        &lab,
        "interface br0 {\n AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;\n \
         MinRtrAdvInterval 3; MaxRtrAdvInterval 10;\n \
         prefix fd77::/64 { AdvAutonomous off; };\n};\n",
    )?;
    let configuration = json!({ "Dhcp6": {
        "interfaces-config": { "interfaces": ["br0"] },
        "lease-database": { "type": "memfile", "persist": false },
        "preferred-lifetime": 1800,
        "valid-lifetime": 3600,
        "subnet6": [{
            "id": 1,
            "subnet": "fd77::/64",
            "interface": "br0",
            "pools": [{ "pool": "fd77::1000 - fd77::1fff" }],
            "option-data": [
                { "name": "bootfile-url", "data": BOOT_FILE },
                { "name": "dns-servers", "data": SERVER6.to_string() },
                { "name": "domain-search", "data": "rack.example" },
            ],
        }],
        "loggers": [{ "name": "kea-dhcp6", "severity": "INFO",
                      "output_options": [{ "output": "stdout" }] }],
    }});
    let server = kea6(&lab, &configuration.to_string())?;
    let _nbd = usual_root(&lab)?;

    let machine = boot(&lab, "ip=dhcp6")?;
    let node = machine.node()?;
    speaks_ipv6_only(&node)?;
    let addresses = addresses(&node)?;
    let [address] = &addresses[..] else { anyhow::bail!("{addresses:?}") };
    ensure!(address.starts_with("fd77::1") && address.ends_with("/128"), "{address}");
    machine.line("config: 1 setting from tftp://[fd77::1]/ltsp/amd64/lts.conf")?;

    let log = server.log_text();
    let given = log.lines().filter(|line| line.contains("DHCP6_LEASE_ALLOC"));
    let given: Vec<_> = given.collect();
    let plain = address.trim_end_matches("/128");
    ensure!(!given.is_empty() && given.iter().all(|line| line.contains(plain)), "{given:?}");
    ensure!(given.iter().all(|line| line.contains(DUID)), "not the machine's UUID: {given:?}");
    Ok(())
}

/// Who says that both are needed gets both, of which one comes by itself and the other when asked.
#[test]
#[ignore = "boots a virtual machine"]
fn a_machine_that_needs_both_families_gets_both() -> Result<()> {
    let lab = Lab::new("ipv6-dual")?.with_ipv6()?;
    let _servers = usual_dhcp(&lab)?.ipv6(Ipv6::Stateful).start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let machine = usual_vm(&lab, Kernel::V6_12, "ip=dhcp,dhcp6")?.boot()?;
    let node = machine.node()?;
    address(&node, MACS[0])?;
    let addresses = addresses(&node)?;
    ensure!(addresses.iter().any(|address| address.starts_with("fd77::1")), "{addresses:?}");
    Ok(())
}

/// A router that advertises a network which it does not connect to anything: names have addresses
/// of both families, and packets to one of them vanish without a word.
#[test]
#[ignore = "boots a virtual machine"]
fn an_ipv6_that_leads_nowhere_costs_a_moment() -> Result<()> {
    let lab = Lab::new("ipv6-broken")?.with_ipv6()?;
    lab.swallow("fd78::/64")?;
    let folder = lab.served("http", &[CONFIGURATION])?;
    let _http = nginx(&lab, &folder)?;
    let _servers = Dnsmasq::new()
        .ipv6(Ipv6::Slaac)
        .search("rack.example")
        .option(format!("host-record=boot.rack.example,{SERVER},fd78::1"))
        .start(&lab)?;
    let _nbd = usual_root(&lab)?;

    lab.count("knocks", "ip6 daddr fd78::/64 tcp flags & (syn | ack) == syn")?;
    let words = "root=nbd:boot:root landfall.config=http://boot/ltsp/amd64/lts.conf panic=5";
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline(words).boot()?;
    machine.node()?;
    machine.line("config: 1 setting from http://boot/")?;
    // The configuration, the root, and twice the swap area that the server does not have. A
    // connection that somebody waited for would have knocked six times in two minutes.
    let knocks = lab.counted("knocks")?;
    ensure!((1..=6).contains(&knocks), "{knocks} packets into the void");
    Ok(())
}

/// Advertisements without a DHCPv6 server that they promise: the machine does not wait for it when
/// IPv4 is there.
#[test]
#[ignore = "boots a virtual machine"]
fn a_promised_dhcpv6_server_that_is_down_holds_nobody_up() -> Result<()> {
    let lab = Lab::new("ipv6-promised")?.with_ipv6()?;
    let _router = radvd(
        &lab,
        "interface br0 {\n AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;\n \
         MinRtrAdvInterval 3; MaxRtrAdvInterval 10;\n \
         prefix fd77::/64 { AdvAutonomous off; };\n};\n",
    )?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    lab.count("solicits", "ip6 daddr ff02::1:2 udp dport 547")?;
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    machine.line("network: eth0 is 10.77.0.")?;
    // The ninth is sent after 12.7 s, and nobody had to wait for it.
    let solicits = lab.counted("solicits")?;
    ensure!(solicits < 9, "{solicits} questions to nobody");
    address(&machine.node()?, MACS[0]).map(drop)
}
