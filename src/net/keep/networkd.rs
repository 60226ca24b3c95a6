//! systemd-networkd: one `.network` file for each link with which it adopts it, and one `.netdev` for
//! each that is made of others.
//!
//! Keys and their sections are those of systemd.network(5) and systemd.netdev(5) of version 252, and
//! of later ones.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::share::{Ipv4, Ipv6, Share};
use super::{HEADER, RunFile};
use crate::directives::View;
use crate::net::configured::Composition;
use crate::net::kernel;
use crate::net::lease6::Origin6;
use crate::net::{Lease, Lease6};

/// Where files for networkd may be; of equal names, the one in an earlier folder counts.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

pub fn files(shares: &[Share<'_>], view: &dyn View) -> Vec<RunFile> {
    let mut files = Vec::new();
    for share in shares {
        let name = &share.link.name;
        if !share.is_unmanaged
            && let Some(recipe) = netdev(share)
        {
            files.push(RunFile::open(path(name, "netdev", view), recipe));
        }
        if share.is_made_here() {
            files.push(RunFile::open(path(name, "link", view), link(name)));
        }
        files.push(RunFile::open(path(name, "network", view), network(share)));
    }
    files
}

/// Below `/run`. The first file, by name, that matches a link is the only one that counts for it,
/// so ours must come before all of the image's.
fn path(link: &str, kind: &str, view: &dyn View) -> String {
    let name = format!("10-landfall-{link}.{kind}");
    let comes_first = |ours: &String| {
        let names = FOLDERS.iter().flat_map(|folder| view.names(folder).unwrap_or_default());
        let rivals: Vec<_> = names.filter(|other| other.ends_with(&format!(".{kind}"))).collect();
        rivals.iter().all(|other| *ours < *other)
    };
    // '+' comes before digits and letters, '!' before everything that anybody writes.
    let names = ["", "+", "!"].map(|first| format!("{first}{name}"));
    let name = names.iter().find(|name| comes_first(name)).unwrap_or(&name);
    format!("systemd/network/{name}")
}

/// Lines in sections.
struct File(String);

impl File {
    fn new() -> Self {
        Self(HEADER.to_owned())
    }

    fn section(&mut self, name: &str) {
        let blank = if self.0.ends_with(HEADER) { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{blank}[{name}]");
    }

    fn line(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key}={value}");
    }

    fn no(&mut self, key: &str) {
        self.line(key, "no");
    }
}

/// How a link that is made of others would be made. It is there already, and networkd takes it as
/// it is; it is for the day on which a port is replaced.
fn netdev(share: &Share<'_>) -> Option<String> {
    let kind = match share.link.composition {
        Composition::Bond { .. } => "bond",
        Composition::Vlan { .. } => "vlan",
        Composition::Bridge => "bridge",
        Composition::Port | Composition::Foreign { .. } => return None,
    };
    let mut file = File::new();
    file.section("NetDev");
    file.line("Name", &share.link.name);
    file.line("Kind", kind);
    file.line("MACAddress", share.link.mac);
    if let Some(mtu) = share.link.mtu {
        file.line("MTUBytes", mtu);
    }
    match &share.link.composition {
        Composition::Bond { options } => {
            file.section("Bond");
            for (key, value) in options.networkd() {
                file.line(key, value);
            }
        }
        Composition::Vlan { id, .. } => {
            file.section("VLAN");
            file.line("Id", id);
        }
        // As the boot has made it: no spanning tree, and so no waiting for it.
        Composition::Bridge => {
            file.section("Bridge");
            file.line("ForwardDelaySec", 0);
            file.no("STP");
        }
        Composition::Port | Composition::Foreign { .. } => {}
    }
    Some(file.0)
}

/// For udev, which gives links an address of its own choice that look as if nobody had chosen one:
/// to the DHCP server the machine would be another.
fn link(name: &str) -> String {
    let mut file = File::new();
    file.section("Match");
    file.line("OriginalName", name);
    file.section("Link");
    file.line("MACAddressPolicy", "none");
    file.0
}

/// `KeepConfiguration` also keeps the address when the lease cannot be renewed, and
/// `IgnoreCarrierLoss` lets somebody pull a cable and put it back.
fn network(share: &Share<'_>) -> String {
    let mut file = File::new();
    matching(share, &mut file);
    if share.is_unmanaged || share.is_foreign() {
        file.section("Link");
        file.line("Unmanaged", "yes");
        return file.0;
    }
    if let Some(mtu) = share.link.mtu {
        file.section("Link");
        file.line("MTUBytes", mtu);
    }
    file.section("Network");
    file.line("KeepConfiguration", "yes");
    file.line("IgnoreCarrierLoss", "yes");
    membership(share, &mut file);
    if !share.has_addresses() {
        file.no("LinkLocalAddressing");
        file.no("IPv6AcceptRA");
        return file.0;
    }
    for server in &share.dns {
        file.line("DNS", server);
    }
    if !share.search.is_empty() {
        file.line("Domains", share.search.join(" "));
    }
    for server in &share.ntp {
        file.line("NTP", server);
    }
    addressing(share, &mut file);
    clients(share, &mut file);
    routes(share, &mut file);
    file.0
}

fn matching(share: &Share<'_>, file: &mut File) {
    file.section("Match");
    match &share.link.composition {
        Composition::Foreign { beneath } => {
            let macs: Vec<_> = beneath.iter().map(ToString::to_string).collect();
            file.line("MACAddress", macs.join(" "));
        }
        Composition::Port => {
            // Ports of a bond have its address; what is on them may have theirs, and is no "ether".
            let key = match share.link.permanent_mac {
                Some(own) if share.link.master.is_some() || own != share.link.mac => {
                    "PermanentMACAddress"
                }
                _ => "MACAddress",
            };
            let mac = if key == "MACAddress" { share.link.mac } else { share.hardware() };
            file.line(key, mac);
            file.line("Type", "ether");
        }
        // Nobody renames what has been given a name.
        _ => file.line("Name", &share.link.name),
    }
}

fn membership(share: &Share<'_>, file: &mut File) {
    if let Some(master) = share.link.master.as_ref().and_then(|name| share.named(name)) {
        let key = match &master.composition {
            Composition::Bond { options } => {
                if options.primary() == Some(&share.link.name) {
                    file.line("PrimarySlave", "yes");
                }
                "Bond"
            }
            _ => "Bridge",
        };
        file.line(key, &master.name);
    }
    for vlan in share.vlans() {
        file.line("VLAN", &vlan.name);
    }
}

/// The rest of `[Network]`.
fn addressing(share: &Share<'_>, file: &mut File) {
    let asks6 = matches!(share.ipv6, Ipv6::Dhcp(_));
    match (share.ipv4.asks(), asks6) {
        (true, true) => file.line("DHCP", "yes"),
        (true, false) => file.line("DHCP", "ipv4"),
        (false, true) => file.line("DHCP", "ipv6"),
        (false, false) => {}
    }
    if let Ipv4::Fixed(lease) = share.ipv4 {
        file.line("Address", format_args!("{}/{}", lease.address, lease.prefix));
    }
    match share.ipv6 {
        Ipv6::Untouched => {}
        Ipv6::LinkLocal => file.no("IPv6AcceptRA"),
        Ipv6::Auto(_) | Ipv6::Dhcp(_) => file.line("IPv6AcceptRA", "yes"),
        Ipv6::Fixed { lease, routers } => {
            // Those that routers give are made again of what they say.
            let typed = |origin| !routers || origin != Origin6::Slaac;
            for one in lease.addresses.iter().filter(|one| typed(one.origin)) {
                file.line("Address", format_args!("{}/{}", one.address, one.prefix));
            }
            file.line("IPv6AcceptRA", if routers { "yes" } else { "no" });
        }
    }
}

/// `[DHCPv4]`, `[DHCPv6]` and `[IPv6AcceptRA]`: the same client to the server as before, or it would
/// give another address; and no goodbye at shutdown, when the root is still needed.
fn clients(share: &Share<'_>, file: &mut File) {
    let ignored = |file: &mut File| {
        // What a setting names is told to resolved and timesyncd, which would add these.
        if share.ignores_dns {
            file.no("UseDNS");
        }
        if share.ignores_ntp {
            file.no("UseNTP");
        }
    };
    if share.ipv4.asks() {
        file.section("DHCPv4");
        file.line("ClientIdentifier", "mac");
        file.no("SendRelease");
        file.line("RouteMetric", share.metric());
        ignored(file);
        if !share.plan.vendor_class.is_empty() {
            file.line("VendorClassIdentifier", &share.plan.vendor_class);
        }
        if let Some(name) = &share.plan.hostname {
            file.no("UseHostname");
            file.line("Hostname", name);
        }
    }
    let lease6 = match share.ipv6 {
        Ipv6::Auto(lease) | Ipv6::Dhcp(lease) => lease,
        Ipv6::Fixed { routers: true, .. } => {
            file.section("IPv6AcceptRA");
            file.no("DHCPv6Client");
            if share.ignores_dns {
                file.no("UseDNS");
            }
            return;
        }
        // A lease that is frozen shall need no server, of whichever family.
        Ipv6::Untouched if share.is_frozen => {
            file.section("IPv6AcceptRA");
            file.no("DHCPv6Client");
            return;
        }
        Ipv6::Untouched | Ipv6::LinkLocal | Ipv6::Fixed { .. } => return,
    };
    file.section("DHCPv6");
    identity6(lease6, file);
    ignored(file);
    if matches!(share.ipv6, Ipv6::Dhcp(_)) {
        file.line("WithoutRA", "solicit");
    }
    if share.plan.hostname.is_some() {
        file.no("UseHostname");
    }
    if share.ignores_dns {
        file.section("IPv6AcceptRA");
        file.no("UseDNS");
    }
}

fn identity6(lease: Option<&Lease6>, file: &mut File) {
    if let Some(client) = lease.and_then(|lease| lease.client.as_ref()) {
        let (kind, data) = client.networkd();
        file.line("DUIDType", kind);
        file.line("DUIDRawData", data);
    }
    if let Some(iaid) = lease.and_then(|lease| lease.iaid) {
        file.line("IAID", iaid);
    }
    // Of version 257; earlier ones say that they do not know it.
    file.no("SendRelease");
}

fn routes(share: &Share<'_>, file: &mut File) {
    if let Ipv4::Fixed(lease) = share.ipv4 {
        fixed_routes(lease, share, file);
    }
    if let Ipv6::Fixed { lease, routers: false } = share.ipv6 {
        for router in &lease.routers {
            file.section("Route");
            file.line("Gateway", router.address);
        }
    }
    for route in &share.link.routes {
        file.section("Route");
        file.line("Destination", route.to);
        if let Some(via) = route.via {
            file.line("Gateway", via);
            if is_beyond(via, share) {
                file.line("GatewayOnLink", "yes");
            }
        }
    }
}

fn fixed_routes(lease: &Lease, share: &Share<'_>, file: &mut File) {
    for entry in kernel::entries(lease, share.link.boots) {
        file.section("Route");
        file.line("Destination", entry.route.to);
        if let Some(via) = entry.route.via {
            file.line("Gateway", via);
        }
        if entry.on_link {
            file.line("GatewayOnLink", "yes");
        }
        if entry.metric > 0 {
            file.line("Metric", entry.metric);
        }
    }
}

/// A router that no prefix of the link says to be a neighbour.
fn is_beyond(via: IpAddr, share: &Share<'_>) -> bool {
    match via {
        IpAddr::V4(via) => {
            share.link.ipv4.as_ref().is_some_and(|lease| !lease.network().contains(&via))
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;

    use super::*;
    use crate::net::configured::Configured;
    use crate::net::description::{HandoverMode, Ipv6Method, RouteRequest};
    use crate::net::keep::tests::{
        Files, NODE, SECOND, WITH_NETWORKD, bridge, dual_stack, inheritance, left, part, port,
        root, text, v6_only, vlan_on_bond,
    };
    use crate::net::keep::{Inheritance, Wishes, foresee};
    use crate::net::kernel::Origin;
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;
    use crate::net::{NetworkPlan, Route};
    use HandoverMode::{Dhcp, Static, Unmanaged};

    /// All files of networkd, one after the other, without their first lines.
    fn all(links: &[Configured], mode: HandoverMode) -> String {
        let left = left(links, WITH_NETWORKD, mode);
        let ours = left.run.iter().filter(|file| file.path.starts_with("/run/systemd/network/"));
        let texts = ours.map(|file| {
            let name = file.path.trim_start_matches("/run/systemd/network/10-landfall-");
            format!("# {name}\n{}", file.text.strip_prefix(HEADER).unwrap())
        });
        texts.collect()
    }

    #[test]
    #[rustfmt::skip]
    fn our_file_comes_before_those_of_the_image() {
        let cases: [(Files<'_>, &str); 6] = [
            (&[],                                                "systemd/network/10-landfall-eth0.network"),
            (&[("usr/lib/systemd/network/80-dhcp.network", "")], "systemd/network/10-landfall-eth0.network"),
            (&[("etc/systemd/network/05-lan.network", "")],      "systemd/network/+10-landfall-eth0.network"),
            (&[("etc/systemd/network/+lan.network", "")],        "systemd/network/+10-landfall-eth0.network"),
            (&[("etc/systemd/network/#lan.network", "")],        "systemd/network/!10-landfall-eth0.network"),
            (&[("etc/systemd/network/05-lan.link", "")],         "systemd/network/10-landfall-eth0.network"),
        ];
        for (files, expected) in cases {
            let (_folder, tree) = root(files);
            assert_eq!(path("eth0", "network", &tree), expected, "{files:?}");
        }
    }

    #[test]
    fn networkd_adopts_a_lease() {
        let links = [port()];
        let plan = NetworkPlan { hostname: Some("n1".into()), ..plan() };
        let (_folder, tree) = root(WITH_NETWORKD);
        let expected = "\
[Match]
MACAddress=52:54:00:aa:bb:cc
Type=ether

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
SendRelease=no
RouteMetric=0
VendorClassIdentifier=landfall
UseHostname=no
Hostname=n1
";
        let left = foresee(&inheritance(&links, &plan), &tree);
        assert_eq!(text(&left, ".network"), expected);

        let wishes = Wishes { own_dns: true, own_ntp: true, ..Wishes::default() };
        let plan = NetworkPlan { dns: vec![[10, 0, 0, 1].into()], ..plan };
        let left = foresee(&Inheritance { wishes, ..inheritance(&links, &plan) }, &tree);
        let more = expected.replace("Metric=0\n", "Metric=0\nUseDNS=no\nUseNTP=no\n");
        assert_eq!(text(&left, ".network"), more, "C54: those of a setting, and no others");

        let ignoring = Inheritance { ignore_peer_dns: true, ..inheritance(&links, &plan) };
        let left = foresee(&ignoring, &tree);
        let text = text(&left, ".network");
        assert!(text.contains("DNS=10.0.0.1\n") && text.contains("UseDNS=no\n"), "{text}");
    }

    fn typed() -> Configured {
        let gateway = Some([10, 9, 0, 1].into());
        let routes = vec![Route { to: Ipv4Net::default(), via: gateway }];
        let dns = vec![[10, 0, 0, 1].into()];
        let lease =
            Lease { routes, dns, search: vec!["lab.example".into()], ..lease("10.0.0.5/24") };
        Configured { ipv4: Some(lease), mtu: Some(9000), ..port() }
    }

    /// A lease that is frozen is an address that somebody has typed: nobody asks for it.
    #[test]
    fn networkd_adopts_an_address_without_an_end() {
        let expected = "\
# eth0.network
[Match]
MACAddress=52:54:00:aa:bb:cc
Type=ether

[Link]
MTUBytes=9000

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
DNS=10.0.0.1
Domains=lab.example
Address=10.0.0.5/24

[Route]
Destination=0.0.0.0/0
Gateway=10.9.0.1
GatewayOnLink=yes
";
        let by_hand = Configured { origin: Origin::CommandLine, ..typed() };
        assert_eq!(all(&[by_hand], Dhcp), expected);
        let frozen = expected.replace("5/24\n", "5/24\n\n[IPv6AcceptRA]\nDHCPv6Client=no\n");
        assert_eq!(all(&[typed()], Static), frozen);
    }

    #[test]
    #[rustfmt::skip]
    fn each_way_to_an_ipv6_address_has_its_words() {
        let identity = "[DHCPv6]\nDUIDType=link-layer\nDUIDRawData=00:01:52:54:00:aa:bb:cc\nIAID=7\nSendRelease=no\n";
        let frozen = "DNS=2001:db8::53\nAddress=2001:db8::7/128\nIPv6AcceptRA=yes\n\n[IPv6AcceptRA]\nDHCPv6Client=no\n";
        // Nothing of a DHCPv6 server but what is no address.
        let unleased = |method| {
            let mut link = v6_only(method);
            link.ipv6.as_mut().unwrap().addresses.retain(|one| one.origin != Origin6::Dhcp);
            link
        };
        let typed = Ipv6Method::Static { address: "2001:db8::7".parse().unwrap(), prefix: 64, gateway: Some("fe80::1".parse().unwrap()), peer: None };
        let routed = Ipv6Method::Static { address: "2001:db8::7".parse().unwrap(), prefix: 64, gateway: None, peer: None };
        let cases: [(&str, Configured, HandoverMode, String); 10] = [
            ("advertised",            unleased(Ipv6Method::Auto),     Dhcp,   format!("IPv6AcceptRA=yes\n\n{identity}")),
            ("DHCPv6 in any case",    unleased(Ipv6Method::Dhcp),     Dhcp,   format!("DHCP=ipv6\nIPv6AcceptRA=yes\n\n{identity}WithoutRA=solicit\n")),
            ("a lease is kept",       v6_only(Ipv6Method::Auto),      Dhcp,   frozen.into()),
            ("however it was got",    v6_only(Ipv6Method::Dhcp),      Dhcp,   frozen.into()),
            ("the link's own",        v6_only(Ipv6Method::LinkLocal), Dhcp,   "IPv6AcceptRA=no\n".into()),
            ("not asked for",         v6_only(Ipv6Method::Off),       Dhcp,   String::new()),
            ("typed, with a router",  v6_only(typed),                 Dhcp,   "DNS=2001:db8::53\nAddress=2001:db8::7/128\nAddress=2001:db8::5054:ff:feaa:bbcc/64\nIPv6AcceptRA=no\n\n[Route]\nGateway=fe80::1\n".into()),
            ("typed, without",        v6_only(routed),                Dhcp,   "DNS=2001:db8::53\nAddress=2001:db8::7/128\nIPv6AcceptRA=yes\n\n[IPv6AcceptRA]\nDHCPv6Client=no\n".into()),
            ("frozen: routers stay",  v6_only(Ipv6Method::Auto),      Static, frozen.into()),
            ("both families",         dual_stack(),                   Dhcp,   "DNS=2001:db8::53\nDHCP=ipv4\nAddress=2001:db8::7/128\nIPv6AcceptRA=yes\n\n[DHCPv4]\nClientIdentifier=mac\nSendRelease=no\nRouteMetric=0\nVendorClassIdentifier=landfall\n\n[IPv6AcceptRA]\nDHCPv6Client=no\n".into()),
        ];
        for (case, link, mode, expected) in cases {
            let text = all(&[link], mode);
            let rest = text.split_once("IgnoreCarrierLoss=yes\n").unwrap().1;
            assert_eq!(rest, expected, "{case}");
        }
    }

    #[test]
    fn a_vlan_on_a_bond_is_described_with_its_parts() {
        let expected = "\
# eth0.network
[Match]
PermanentMACAddress=52:54:00:aa:bb:cc
Type=ether

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
PrimarySlave=yes
Bond=bond0
LinkLocalAddressing=no
IPv6AcceptRA=no
# eth1.network
[Match]
PermanentMACAddress=52:54:00:aa:bb:dd
Type=ether

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
Bond=bond0
LinkLocalAddressing=no
IPv6AcceptRA=no
# bond0.netdev
[NetDev]
Name=bond0
Kind=bond
MACAddress=52:54:00:aa:bb:cc

[Bond]
Mode=active-backup
MIIMonitorSec=100ms
# bond0.link
[Match]
OriginalName=bond0

[Link]
MACAddressPolicy=none
# bond0.network
[Match]
Name=bond0

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
VLAN=bond0.5
LinkLocalAddressing=no
IPv6AcceptRA=no
# bond0.5.netdev
[NetDev]
Name=bond0.5
Kind=vlan
MACAddress=52:54:00:aa:bb:cc

[VLAN]
Id=5
# bond0.5.link
[Match]
OriginalName=bond0.5

[Link]
MACAddressPolicy=none
# bond0.5.network
[Match]
Name=bond0.5

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
SendRelease=no
RouteMetric=0
VendorClassIdentifier=landfall
";
        assert_eq!(all(&vlan_on_bond(), Dhcp), expected);
    }

    #[test]
    fn a_bridge_is_as_the_boot_has_made_it() {
        let text = all(&bridge(), Dhcp);
        assert!(text.contains("Bridge=br0\n"), "{text}");
        assert!(text.contains("Kind=bridge\n"), "{text}");
        assert!(text.contains("[Bridge]\nForwardDelaySec=0\nSTP=no\n"), "{text}");
    }

    /// networkd is told of no recipe then: it would carry it out.
    #[test]
    fn hands_off_means_every_part() {
        let text = all(&vlan_on_bond(), Unmanaged);
        assert_eq!(text.matches("[Link]\nUnmanaged=yes\n").count(), 4, "{text}");
        assert!(!text.contains("[NetDev]") && !text.contains("[Network]"), "{text}");
    }

    #[test]
    fn a_port_with_another_address_is_known_by_its_own() {
        let cloned = Configured { permanent_mac: Some(SECOND), ..port() };
        assert!(all(&[cloned], Dhcp).contains("PermanentMACAddress=52:54:00:aa:bb:dd\n"));
        let usual = Configured { permanent_mac: Some(NODE), ..port() };
        assert!(all(&[usual], Dhcp).contains("[Match]\nMACAddress=52:54:00:aa:bb:cc\n"));
    }

    #[test]
    fn routes_that_were_asked_for_stay() {
        let route = |to: &str, via: Option<&str>| RouteRequest {
            to: to.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            on: None,
        };
        let routes = vec![
            route("10.7.0.0/16", Some("10.0.0.9")),
            route("10.8.0.0/16", Some("10.9.0.9")),
            route("10.9.0.0/16", None),
        ];
        let text = all(&[Configured { routes, ..port() }], Dhcp);
        let expected = "\
[Route]\nDestination=10.7.0.0/16\nGateway=10.0.0.9\n\n\
[Route]\nDestination=10.8.0.0/16\nGateway=10.9.0.9\nGatewayOnLink=yes\n\n\
[Route]\nDestination=10.9.0.0/16\n";
        assert!(text.ends_with(expected), "{text}");
        let part = part("eth1", SECOND, Composition::Port);
        assert!(all(&[part], Dhcp).ends_with("LinkLocalAddressing=no\nIPv6AcceptRA=no\n"));
    }
}
