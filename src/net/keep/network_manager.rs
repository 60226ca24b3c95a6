//! NetworkManager: a profile for each link, and the note by which it takes a link over as it is.
//!
//! The note is what an instance leaves of its devices for the next one, and what the one in
//! a dracut initramfs leaves for the running system: with it (1.42, 1.52), the link of the profile is
//! "assumed", keeps its address and its routes while DHCP is asked, and gets the lease's time as
//! soon as it is granted. Without it the link becomes "external": left alone, and its lease
//! nobody's. Profiles of the image do not count then, for all devices or not.
//!
//! Where another owns the links, or nobody shall, NetworkManager is told to leave them alone.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::share::{Client, Ipv4, Ipv6, Share};
use super::software::{Owner, Software};
use super::{HEADER, Inheritance, RunFile};
use crate::net::configured::{Composition, Configured};
use crate::net::lease6::Origin6;
use crate::net::{Lease, Lease6};

const CONFIGURATION: &str = "NetworkManager/conf.d/10-landfall.conf";

pub fn files(
    shares: &[Share<'_>],
    software: &Software,
    inheritance: &Inheritance<'_>,
) -> Vec<RunFile> {
    if software.owner != Owner::NetworkManager {
        // It knows of no name server here, and would say so in a new /etc/resolv.conf.
        let text = format!("{HEADER}[main]\ndns=none\n\n{}", hands_off(shares));
        return vec![RunFile::open(CONFIGURATION, text)];
    }
    let mut files = Vec::new();
    let (foreign, ours): (Vec<_>, Vec<_>) = shares.iter().partition(|share| share.is_foreign());
    // The setting has the last word on names, and so has what the directives make of it.
    if inheritance.wishes.own_dns {
        files.push(RunFile::open(CONFIGURATION, format!("{HEADER}[main]\ndns=none\n")));
    } else if !foreign.is_empty() {
        let nothing_is_ours = ours.is_empty();
        let main = if nothing_is_ours { "[main]\ndns=none\n\n" } else { "" };
        files.push(RunFile::open(CONFIGURATION, format!("{HEADER}{main}{}", hands_off(foreign))));
    }
    for share in ours {
        let name = &share.link.name;
        let path = format!("NetworkManager/system-connections/landfall-{name}.nmconnection");
        files.push(RunFile::private(path, profile(share)));
        if let Some(index) = (inheritance.index)(name) {
            let note = format!("[device]\nmanaged=true\nconnection-uuid={}\n", uuid(share.link));
            files.push(RunFile::open(format!("NetworkManager/devices/{index}"), note));
        }
    }
    files
}

/// `[device]` sections add up, where `unmanaged-devices` of an image would replace ours.
fn hands_off<'a>(shares: impl IntoIterator<Item = &'a Share<'a>>) -> String {
    let mut devices: Vec<String> = Vec::new();
    for share in shares {
        match &share.link.composition {
            Composition::Port => devices.push(format!("mac:{}", share.hardware())),
            Composition::Foreign { beneath } => {
                devices.push(format!("interface-name:={}", share.link.name));
                devices.extend(beneath.iter().map(|mac| format!("mac:{mac}")));
            }
            _ => devices.push(format!("interface-name:={}", share.link.name)),
        }
    }
    format!("[device-landfall]\nmatch-device={}\nmanaged=0\n", devices.join(","))
}

/// The same in every boot, as what refers to a profile wants it: made of what the link is known by.
fn uuid(link: &Configured) -> String {
    let mac = link.permanent_mac.unwrap_or(link.mac);
    let seed = format!("landfall {mac} {}", link.name);
    // FNV-1a of 128 bits; the version is the one for everybody's own rules (RFC 9562 section 5.8).
    let hash = seed.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let marked = (hash & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    let hex = format!("{marked:032x}");
    let mut text = String::new();
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Lines in sections of a keyfile.
struct Keyfile(String);

impl Keyfile {
    fn section(&mut self, name: &str) {
        let blank = if self.0.ends_with(HEADER) { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{blank}[{name}]");
    }

    fn line(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key}={value}");
    }

    fn list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            let _ = writeln!(self.0, "{key}={};", values.join(";"));
        }
    }
}

fn profile(share: &Share<'_>) -> String {
    let link = share.link;
    let mut file = Keyfile(HEADER.to_owned());
    file.section("connection");
    file.line("id", format_args!("landfall-{}", link.name));
    file.line("uuid", uuid(link));
    file.line("type", kind(&link.composition));
    if !share.is_port() {
        file.line("interface-name", &link.name);
    }
    // Before every other profile, and again for as long as it takes.
    file.line("autoconnect-priority", 999);
    file.line("autoconnect-retries", 0);
    file.line("multi-connect", 1);
    if let Some(master) = link.master.as_ref().and_then(|name| share.named(name)) {
        file.line("master", uuid(master));
        file.line("slave-type", kind(&master.composition));
    }
    composition(share, &mut file);
    // A part of something has no addresses, and a profile of one must not speak of them.
    if link.master.is_none() {
        ipv4(share, &mut file);
        ipv6(share, &mut file);
    }
    file.0
}

fn kind(composition: &Composition) -> &'static str {
    match composition {
        Composition::Port | Composition::Foreign { .. } => "ethernet",
        Composition::Bond { .. } => "bond",
        Composition::Vlan { .. } => "vlan",
        Composition::Bridge => "bridge",
    }
}

fn composition(share: &Share<'_>, file: &mut Keyfile) {
    let link = share.link;
    file.section("ethernet");
    if share.is_port() {
        file.line("mac-address", share.hardware());
        if link.master.is_none() && share.hardware() != link.mac {
            file.line("cloned-mac-address", link.mac);
        }
    }
    if let Some(mtu) = link.mtu {
        file.line("mtu", mtu);
    }
    match &link.composition {
        Composition::Bond { options } => {
            file.section("bond");
            for (name, value) in options.network_manager() {
                file.line(name, value);
            }
        }
        Composition::Vlan { id, over } => {
            file.section("vlan");
            // REORDER_HDR, as the kernel has it if nobody says anything.
            file.line("flags", 1);
            file.line("id", id);
            // A port may be called otherwise by then.
            match share.named(over) {
                Some(over) => file.line("parent", uuid(over)),
                None => file.line("parent", over),
            }
        }
        Composition::Bridge => {
            file.section("bridge");
            file.line("stp", false);
        }
        Composition::Port | Composition::Foreign { .. } => {}
    }
}

fn ipv4(share: &Share<'_>, file: &mut Keyfile) {
    file.section("ipv4");
    match share.ipv4 {
        Ipv4::Nothing => {
            file.line("method", "disabled");
            return;
        }
        Ipv4::Dhcp(_) => {
            file.line("method", "auto");
            match share.client {
                Client::Mac => file.line("dhcp-client-id", "mac"),
                Client::Other(kind, bytes) => {
                    let bytes = std::iter::once(&kind).chain(bytes);
                    let hex: Vec<_> = bytes.map(|byte| format!("{byte:02x}")).collect();
                    file.line("dhcp-client-id", hex.join(":"));
                }
            }
            // Its word for never.
            file.line("dhcp-timeout", i32::MAX);
            if !share.plan.vendor_class.is_empty() {
                file.line("dhcp-vendor-class-identifier", &share.plan.vendor_class);
            }
            if let Some(name) = &share.plan.hostname {
                file.line("dhcp-hostname", name);
            }
        }
        Ipv4::Fixed(lease) => {
            file.line("method", "manual");
            file.line("address1", format_args!("{}/{}", lease.address, lease.prefix));
            if let Some(gateway) = lease.gateway() {
                file.line("gateway", gateway);
            }
        }
    }
    file.line("route-metric", share.metric());
    if share.ignores_dns {
        file.line("ignore-auto-dns", true);
    }
    names(share, file, IpAddr::is_ipv4);
    let fixed = match share.ipv4 {
        Ipv4::Fixed(lease) => routes_of(lease),
        _ => Vec::new(),
    };
    let asked = asked_routes(share, IpAddr::is_ipv4);
    number(file, fixed.into_iter().chain(asked));
    // The one way to the root: without it nothing is up.
    file.line("may-fail", false);
}

fn ipv6(share: &Share<'_>, file: &mut Keyfile) {
    file.section("ipv6");
    // As the kernel made the addresses that are there; its own choice would be others.
    file.line("addr-gen-mode", "eui64");
    match share.ipv6 {
        Ipv6::Untouched => {
            let method = if share.has_addresses() { "ignore" } else { "disabled" };
            file.line("method", method);
            return;
        }
        Ipv6::LinkLocal => {
            file.line("method", "link-local");
            return;
        }
        Ipv6::Auto(lease) => {
            file.line("method", "auto");
            identity(lease, file);
        }
        Ipv6::Dhcp(lease) => {
            // With `dhcp` it does not listen to routers; with `auto` it asks if they say so.
            let managed = lease.is_none_or(|lease| lease.managed || !lease.routers.is_empty());
            file.line("method", if managed { "auto" } else { "dhcp" });
            identity(lease, file);
        }
        Ipv6::Fixed { lease, .. } => {
            file.line("method", "manual");
            for (number, one) in (1..).zip(&lease.addresses) {
                let prefix = if one.origin == Origin6::Dhcp { 128 } else { one.prefix };
                file.line(&format!("address{number}"), format_args!("{}/{prefix}", one.address));
            }
            if let Some(router) = lease.routers.first() {
                file.line("gateway", router.address);
            }
        }
    }
    if share.ignores_dns {
        file.line("ignore-auto-dns", true);
    }
    names(share, file, IpAddr::is_ipv6);
    number(file, asked_routes(share, IpAddr::is_ipv6).into_iter());
    file.line("may-fail", share.ipv4 != Ipv4::Nothing);
}

fn identity(lease: Option<&Lease6>, file: &mut Keyfile) {
    if let Some(client) = lease.and_then(|lease| lease.client.as_ref()) {
        file.line("dhcp-duid", client);
    }
    if let Some(iaid) = lease.and_then(|lease| lease.iaid) {
        file.line("dhcp-iaid", iaid);
    }
}

fn names(share: &Share<'_>, file: &mut Keyfile, is_ours: fn(&IpAddr) -> bool) {
    let servers = share.dns.iter().filter(|server| is_ours(server));
    file.list("dns", &servers.map(ToString::to_string).collect::<Vec<_>>());
    file.list("dns-search", &share.search);
}

/// All but the default route, which is `gateway`.
fn routes_of(lease: &Lease) -> Vec<String> {
    let others = lease.routes.iter().filter(|route| route.to.prefix_len() > 0);
    let text = others.map(|route| match route.via {
        Some(via) => format!("{},{via}", route.to),
        None => route.to.to_string(),
    });
    text.collect()
}

fn asked_routes(share: &Share<'_>, is_ours: fn(&IpAddr) -> bool) -> Vec<String> {
    let ours = share.link.routes.iter().filter(|route| is_ours(&route.to.addr()));
    let text = ours.map(|route| match route.via {
        Some(via) => format!("{},{via}", route.to),
        None => route.to.to_string(),
    });
    text.collect()
}

fn number(file: &mut Keyfile, routes: impl Iterator<Item = String>) {
    for (number, route) in (1..).zip(routes) {
        file.line(&format!("route{number}"), route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;
    use crate::net::description::{HandoverMode, Ipv6Method};
    use crate::net::keep::tests::{
        Files, SECOND, WITH_NETWORK_MANAGER, WITH_NETWORKD, bridge, dual_stack, inheritance, left,
        port, root, text, v6_only, vlan_on_bond,
    };
    use crate::net::keep::{Wishes, foresee};
    use crate::net::plan::tests::plan;
    use HandoverMode::{Dhcp, Static, Unmanaged};

    const UUID: &str = "9fab04d0-7b91-89c8-a437-791ef634fe68";

    fn profile_of(link: Configured, mode: HandoverMode) -> String {
        let name = format!("landfall-{}.nmconnection", link.name);
        text(&left(&[link], WITH_NETWORK_MANAGER, mode), &name)
    }

    #[test]
    fn network_manager_takes_a_lease_over() {
        let left = left(&[port()], WITH_NETWORK_MANAGER, Dhcp);
        let uuid = uuid(&port());
        let expected = format!(
            "\
[connection]
id=landfall-eth0
uuid={uuid}
type=ethernet
autoconnect-priority=999
autoconnect-retries=0
multi-connect=1

[ethernet]
mac-address=52:54:00:aa:bb:cc

[ipv4]
method=auto
dhcp-client-id=mac
dhcp-timeout=2147483647
dhcp-vendor-class-identifier=landfall
route-metric=0
may-fail=false

[ipv6]
addr-gen-mode=eui64
method=ignore
"
        );
        assert_eq!(text(&left, "eth0.nmconnection"), expected);
        let note = format!("[device]\nmanaged=true\nconnection-uuid={uuid}\n");
        assert_eq!(text(&left, "NetworkManager/devices/2"), note);
        let private: Vec<_> = left.run.iter().filter(|file| file.mode == 0o600).collect();
        assert_eq!(private.len(), 1, "{private:#?}");
        assert!(
            !left
                .run
                .iter()
                .any(|file| file.path.ends_with(".conf") && file.path.contains("Manager"))
        );
    }

    #[test]
    fn a_profile_is_the_same_in_every_boot() {
        let (one, other) = (port(), Configured { mac: SECOND, ..port() });
        assert_eq!(uuid(&one), UUID);
        assert_ne!(uuid(&one), uuid(&other));
        // What a bond has made of its address is not what a port is known by.
        let in_bond = Configured { mac: SECOND, permanent_mac: Some(one.mac), ..port() };
        assert_eq!(uuid(&in_bond), UUID);
    }

    #[test]
    #[rustfmt::skip]
    fn each_way_to_an_address_has_its_words() {
        let identity = "dhcp-duid=00:03:00:01:52:54:00:aa:bb:cc\ndhcp-iaid=7\n";
        let mut another = port();
        another.request.as_mut().unwrap().client_id = Some((0, b"r7".to_vec()));
        let cases: [(&str, Configured, HandoverMode, &str, String); 8] = [
            ("frozen",             port(),                         Static, "ipv4", "method=manual\naddress1=10.0.0.5/24\nroute-metric=0\nmay-fail=false\n".into()),
            ("another client",     another,                        Dhcp,   "ipv4", "method=auto\ndhcp-client-id=00:72:37\ndhcp-timeout=2147483647\ndhcp-vendor-class-identifier=landfall\nroute-metric=0\nmay-fail=false\n".into()),
            ("no IPv4",            v6_only(Ipv6Method::Auto),      Dhcp,   "ipv4", "method=disabled\n".into()),
            ("advertised",         dual_stack(),                   Dhcp,   "ipv6", format!("addr-gen-mode=eui64\nmethod=auto\n{identity}may-fail=true\n")),
            ("alone",              v6_only(Ipv6Method::Auto),      Dhcp,   "ipv6", format!("addr-gen-mode=eui64\nmethod=auto\n{identity}may-fail=false\n")),
            ("DHCPv6 by flags",    v6_only(Ipv6Method::Dhcp),      Dhcp,   "ipv6", format!("addr-gen-mode=eui64\nmethod=auto\n{identity}may-fail=false\n")),
            ("the link's own",     v6_only(Ipv6Method::LinkLocal), Dhcp,   "ipv6", "addr-gen-mode=eui64\nmethod=link-local\n".into()),
            ("frozen, by name",    v6_only(Ipv6Method::Auto),      Static, "ipv6", "addr-gen-mode=eui64\nmethod=manual\naddress1=2001:db8::7/128\naddress2=2001:db8::5054:ff:feaa:bbcc/64\ngateway=fe80::1\ndns=2001:db8::53;\nmay-fail=false\n".into()),
        ];
        for (case, link, mode, section, expected) in cases {
            let text = profile_of(link, mode);
            let rest = text.split_once(&format!("[{section}]\n")).unwrap().1;
            let own = rest.split_once("\n[").map_or(rest, |(own, _)| own);
            assert_eq!(own.trim_end(), expected.trim_end(), "{case}");
        }
    }

    #[test]
    fn what_is_made_of_others_refers_to_them() {
        let links = vlan_on_bond();
        let left = left(&links, WITH_NETWORK_MANAGER, Dhcp);
        let [_, second, bond, vlan] = ["eth0", "eth1", "bond0", "bond0.5"]
            .map(|name| text(&left, &format!("landfall-{name}.nmconnection")));
        let of = |name: &str| uuid(links.iter().find(|link| link.name == name).unwrap());
        assert!(second.contains(&format!("master={}\nslave-type=bond\n", of("bond0"))), "{second}");
        assert!(second.contains("mac-address=52:54:00:aa:bb:dd\n"), "{second}");
        assert!(!second.contains("[ipv4]") && !second.contains("cloned"), "{second}");
        assert!(bond.contains("[bond]\nmode=active-backup\n"), "{bond}");
        assert!(bond.contains("[ipv4]\nmethod=disabled\n"), "{bond}");
        assert!(vlan.contains(&format!("id=5\nparent={}\n", of("bond0"))), "{vlan}");
        assert!(vlan.contains("interface-name=bond0.5\n"), "{vlan}");

        let left = self::left(&bridge(), WITH_NETWORK_MANAGER, Dhcp);
        assert!(text(&left, "br0.nmconnection").contains("[bridge]\nstp=false\n"));
    }

    #[test]
    #[rustfmt::skip]
    fn it_is_told_to_leave_alone_what_is_not_its_own() {
        let port = vec![port()];
        let cases: [(&str, Vec<Configured>, Files<'_>, HandoverMode, &str); 3] = [
            ("it is not enabled",      port.clone(),   &[],                  Dhcp,      "mac:52:54:00:aa:bb:cc"),
            ("networkd is, too",       port,           WITH_NETWORKD,        Dhcp,      "mac:52:54:00:aa:bb:cc"),
            ("nobody shall have them", vlan_on_bond(), WITH_NETWORK_MANAGER, Unmanaged, "mac:52:54:00:aa:bb:cc,mac:52:54:00:aa:bb:dd,interface-name:=bond0,interface-name:=bond0.5"),
        ];
        for (case, links, files, mode, devices) in cases {
            let text = text(&left(&links, files, mode), "NetworkManager/");
            assert!(text.ends_with(&format!("[main]\ndns=none\n\n[device-landfall]\nmatch-device={devices}\nmanaged=0\n")), "{case}: {text}");
        }
    }

    #[test]
    fn names_of_a_setting_are_nobody_elses_c54() {
        let (links, plan) = ([port()], plan());
        let (_folder, tree) = root(WITH_NETWORK_MANAGER);
        let wishes = Wishes { own_dns: true, ..Wishes::default() };
        let left = foresee(&Inheritance { wishes, ..inheritance(&links, &plan) }, &tree);
        assert_eq!(text(&left, "conf.d"), "[main]\ndns=none\n");
        assert!(text(&left, "nmconnection").contains("ignore-auto-dns=true\n"));
    }

    #[test]
    fn a_cloned_address_stays() {
        let own = Mac([0x52, 0x54, 0, 1, 1, 1]);
        let text = profile_of(Configured { permanent_mac: Some(own), ..port() }, Dhcp);
        let lines = "mac-address=52:54:00:01:01:01\ncloned-mac-address=52:54:00:aa:bb:cc\n";
        assert!(text.contains(lines), "{text}");
    }
}
