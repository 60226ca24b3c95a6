//! The same without IPv4: what a node has of routers, of DHCPv6 or of the command line.

use std::fs;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use landfall_tests::{Daemon, Dnsmasq, Ipv6, Kernel, Lab, Node, SERVER6};

use super::{
    MAC, Manager, NETWORK_MANAGER, PORT, configuration, echo, manager, never_stood_still, reads,
    root_of, steadily,
};
use crate::usual_vm;

/// What the machine's firmware knows of it, and the DUID that this makes (RFC 6355).
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
const DUID: &str = "00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff";

const TYPED: &str = "ip=[fd77::50]::[fd77::1]:64:node7:eth0:none nameserver=[fd77::1]";

/// Where the address comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The kernel makes it of the prefix; name servers are in the advertisements.
    Routers,
    Dhcp,
    CommandLine,
}

/// A root, as `landfall.handover=` hands it over.
fn inherits(test: &str, manager: &Manager, source: Source, mode: &str) -> Result<()> {
    let lab = Lab::new(test)?.with_ipv6()?;
    let peer = format!("[{SERVER6}]:{PORT}");
    let configuration = configuration(&peer);
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", &configuration)])?;
    let server = server(&lab, source)?.tftp(&tftp).start(&lab)?;
    echo(&peer)?;
    let _nbd = root_of(&lab, manager)?;

    let words = format!(
        "root=nbd:[{SERVER6}]:root panic=5 landfall.handover={mode} \
         landfall.config=tftp://[{SERVER6}]/ltsp/amd64/lts.conf {}",
        if source == Source::CommandLine { TYPED } else { "" }
    );
    let vm = usual_vm(&lab, Kernel::V6_12, "")?.uuid(UUID).memory_mib(1024);
    let mut machine = vm.cmdline(&words).boot()?;
    {
        let node = machine.node()?;
        let booted = booted(&node)?;
        // networkd would take the address away whenever it is stopped, so it never hears of the lease.
        let renews = source == Source::Dhcp && mode == "dhcp" && manager.service == NETWORK_MANAGER;
        if renews {
            asked_again(&server, &node)?;
        }
        let settled = |until: &str| -> Result<()> {
            never_stood_still(&node, until)?;
            ensure!(node.state()?.host_name == "node7", "{:?}", node.state()?.host_name);
            knows_names(&node)?;
            let now = addresses(&node)?;
            ensure!(now.iter().map(|one| &one.address).eq([&booted]), "not {booted}: {now:?}");
            let stays = now.iter().all(|one| one.lifetime == "forever");
            ensure!(source == Source::Routers || stays != renews, "{now:?}");
            if source == Source::Dhcp {
                one_lease(&lab, &booted)?;
            }
            Ok(())
        };
        settled("the start")?;
        if !manager.service.is_empty() {
            node.output(&["systemctl", "restart", manager.service])?;
            // Long enough for a client that starts anew.
            thread::sleep(Duration::from_secs(5));
            settled("the restart of the service")?;
        }
        reads(&node)?;
        node.begin(&["systemctl", "poweroff"])?;
    }
    machine.ended_by("Power down", Duration::from_secs(60))?;
    ensure!(!server.log_text().contains("DHCPRELEASE"), "the lease was given back");
    Ok(())
}

/// Name server, boot server, and what gives addresses; it keeps books.
fn server(lab: &Lab, source: Source) -> Result<Dnsmasq> {
    let server = Dnsmasq::new()
        .without_ipv4()
        .books(&lab.file("dnsmasq.leases"))
        .name("printer.lab.example", "fd77::9")
        .search("lab.example");
    Ok(match source {
        Source::Routers => server.ipv6(Ipv6::Slaac),
        Source::Dhcp => server.ipv6(Ipv6::Stateful),
        Source::CommandLine => server,
    })
}

/// The address that the boot has handed over.
fn booted(node: &Node<'_>) -> Result<Ipv6Addr> {
    let lease: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/lease.json")?)?;
    let addresses = lease["ipv6"]["addresses"].as_array().context("addresses")?;
    let [address] = &addresses[..] else { bail!("not one address: {lease:#}") };
    Ok(address["address"].as_str().context("an address")?.parse()?)
}

#[derive(Debug)]
struct Address {
    address: Ipv6Addr,
    /// `forever` or seconds.
    lifetime: String,
}

/// Those that others can reach, and that can be used right now.
fn addresses(node: &Node<'_>) -> Result<Vec<Address>> {
    let words = ["ip", "-6", "-o", "address", "show", "scope", "global"];
    let text = node.output(&words)?;
    let address = |line: &str| {
        ensure!(!line.contains("tentative") && !line.contains("deprecated"), "{line}");
        let after = |word: &str| {
            let mut words = line.split_whitespace().skip_while(|own| *own != word).skip(1);
            words.next().with_context(|| line.to_owned())
        };
        let address = after("inet6")?.split('/').next().unwrap_or_default().parse()?;
        Ok(Address { address, lifetime: after("valid_lft")?.to_owned() })
    };
    text.lines().map(address).collect()
}

/// As for IPv4, the firmware's client has the one lease.
fn one_lease(lab: &Lab, address: &Ipv6Addr) -> Result<()> {
    let text = fs::read_to_string(lab.file("dnsmasq.leases"))?;
    // `EXPIRY IAID ADDRESS NAME CLIENT`, behind a line with the server's own identity
    let leases: Vec<Vec<_>> = text
        .lines()
        .filter(|line| !line.starts_with("duid "))
        .map(|line| line.split(' ').collect())
        .collect();
    let [lease] = leases.as_slice() else { bail!("not one lease:\n{text}") };
    ensure!(lease.get(2) == Some(&address.to_string().as_str()), "not {address}:\n{text}");
    ensure!(lease.get(4) == Some(&DUID), "another client than {DUID}:\n{text}");
    Ok(())
}

/// Somebody in the running system has the lease now.
fn asked_again(server: &Daemon, node: &Node<'_>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let granted = |log: &str| log.lines().filter(|line| line.contains("DHCPREPLY(")).count();
    while granted(&server.log_text()) < 2 {
        if Instant::now() > deadline {
            let log = node.output(&["journalctl", "-b", "-n", "60", "--no-pager"])?;
            bail!("nobody in the running system asks for the lease of {MAC}:\n{log}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn knows_names(node: &Node<'_>) -> Result<()> {
    let text = node.file("/etc/resolv.conf")?;
    ensure!(text.lines().any(|line| line == "nameserver fd77::1"), "{text}");
    let found = node.output(&["getent", "hosts", "printer.lab.example"])?;
    ensure!(found.contains("fd77::9"), "{found}");
    Ok(())
}

macro_rules! handovers {
    ($($name:ident: $root:literal, $source:ident, $mode:literal;)*) => {
        $(
            #[test]
            #[ignore = "boots a virtual machine"]
            fn $name() -> Result<()> {
                let test = concat!("ipv6-", stringify!($name));
                let manager = manager($root)?;
                steadily(|| inherits(test, manager, Source::$source, $mode))
            }
        )*
    };
}

handovers! {
    networkd_of_bookworm_has_a_lease:        "networkd-bookworm", Dhcp,        "dhcp";
    networkd_of_trixie_has_a_lease:          "networkd-trixie",   Dhcp,        "dhcp";
    networkd_of_bookworm_heeds_routers:      "networkd-bookworm", Routers,     "dhcp";
    networkd_of_trixie_heeds_routers:        "networkd-trixie",   Routers,     "dhcp";
    networkd_has_a_frozen_lease:             "networkd-trixie",   Dhcp,        "static";
    networkd_has_an_address_that_was_typed:  "networkd-bookworm", CommandLine, "dhcp";
    network_manager_of_bookworm_has_a_lease: "nm-bookworm",       Dhcp,        "dhcp";
    network_manager_of_trixie_has_a_lease:   "nm-trixie",         Dhcp,        "dhcp";
    network_manager_of_bookworm_heeds_routers: "nm-bookworm",     Routers,     "dhcp";
    network_manager_of_trixie_heeds_routers: "nm-trixie",         Routers,     "dhcp";
    network_manager_has_an_address_that_was_typed: "nm-trixie",   CommandLine, "dhcp";
    ifupdown_heeds_routers:                  "ifupdown-trixie",   Routers,     "dhcp";
    a_root_without_any_keeps_a_lease:        "none-trixie",       Dhcp,        "dhcp";
    a_root_without_any_keeps_what_was_typed: "none-bookworm",     CommandLine, "static";
}
