//! `BOOTIF=`, `bootdev=`, `ifname=`, `vlan=`, `bond=`, `bridge=`, `team=`, `rd.route=` and
//! `nameserver=`, as dracut.cmdline(7) has them; ports may be chosen by MAC, driver and kind too.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields;
use crate::net::bond::BondOptions;
use crate::net::description::{
    BOOTIF, Bond, Bridge, HandoverMode, RouteRequest, Selector, Vlan, link_name,
};
use crate::net::{HardwareAddress, Mac};

/// What dracut makes of a key that names no ports.
const TWO_PORTS: [&str; 2] = ["eth0", "eth1"];

const INFINIBAND: &str =
    "this is the address of an InfiniBand port, and no machine boots from one here";

/// The port that the firmware has booted from.
pub fn bootif(value: &str) -> Result<Mac, String> {
    if let Some(mac) = Mac::from_bootif(value) {
        return Ok(mac);
    }
    // Hardware type 32 and a GUID, the last eight of twenty bytes; or all of them.
    let bytes = value.split(['-', ':']).filter(|part| part.len() == 2).count();
    if matches!(bytes, 8 | 9 | 20 | 21) {
        return Err(format!("{INFINIBAND}; ip= chooses another port"));
    }
    Err("not a hardware address like 01-52-54-00-aa-bb-cc".to_owned())
}

/// `NAME:ADDRESS`
pub fn ifname(value: &str) -> Result<(String, HardwareAddress), String> {
    let (name, address) = value.split_once(':').ok_or("the form is NAME:HARDWARE-ADDRESS")?;
    let name = link_name(name)?;
    match address.parse()? {
        HardwareAddress::Infiniband(_) => {
            Err(format!("{INFINIBAND}; it keeps the name that it has"))
        }
        address => Ok((name, address)),
    }
}

/// `NAME:OVER`; the number is at the end of the name, with or without zeros in front of it.
pub fn vlan(value: &str) -> Result<Vlan, String> {
    let (name, over) = value.split_once(':').ok_or("the form is NAME:LINK, like vlan5:eth0")?;
    let name = link_name(name)?;
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let id = name.strip_prefix(stem).filter(|id| !id.is_empty()).ok_or_else(|| {
        format!("\"{name}\" does not end with the number of the VLAN, like vlan5 or eth0.5")
    })?;
    let id = id.trim_start_matches('0').parse().ok().filter(|id| (1..=4094).contains(id));
    let id = id.ok_or_else(|| format!("\"{name}\" ends with no number of a VLAN, 1 to 4094"))?;
    match members(over)? {
        (ports, None) if ports.len() == 1 => {
            let over = ports.into_iter().next().ok_or("the link below is missing")?;
            Ok(Vlan { name, id, over })
        }
        (_, None) => Err("a VLAN is over one link".into()),
        (_, Some(_)) => Err("the form is NAME:LINK, and nothing behind it".into()),
    }
}

/// `NAME[:MEMBERS[:OPTIONS[:MTU]]]`
pub fn bond(value: &str) -> Result<Bond, String> {
    let (name, rest) = name_and_rest(value);
    let name = link_name(if name.is_empty() && rest.is_none() { "bond0" } else { name })?;
    let (mut ports, rest) = members(rest.unwrap_or_default())?;
    if ports.is_empty() {
        ports = TWO_PORTS.map(Selector::named).into();
    }
    let (options, mtu) = options_and_mtu(rest.unwrap_or_default());
    Ok(Bond {
        name,
        members: ports,
        options: BondOptions::parse(options)?,
        mtu: fields::mtu("the MTU", mtu.unwrap_or_default())?,
    })
}

/// `NAME[:PORTS]`
pub fn bridge(value: &str) -> Result<Bridge, String> {
    let (name, rest) = name_and_rest(value);
    let name = link_name(if name.is_empty() && rest.is_none() { "br0" } else { name })?;
    let (mut ports, rest) = members(rest.unwrap_or_default())?;
    if rest.is_some() {
        return Err("the form is NAME:LINK,LINK, and nothing behind it".into());
    }
    if ports.is_empty() {
        ports = vec![Selector::named("eth0")];
    }
    Ok(Bridge { name, ports })
}

/// What to write for a team, which needs a daemon that no running system would take over.
pub fn team(value: &str) -> String {
    let mut parts = value.split(':');
    let mut part =
        |default: &str| parts.next().filter(|part| !part.is_empty()).unwrap_or(default).to_owned();
    let (name, ports, runner) = (part("team0"), part("eth0,eth1"), part("activebackup"));
    let mode = match runner.as_str() {
        "roundrobin" | "random" => "balance-rr",
        "broadcast" => "broadcast",
        "loadbalance" => "balance-xor",
        "lacp" => "802.3ad",
        _ => "active-backup",
    };
    format!("teams are not made here; a bond does the same: bond={name}:{ports}:mode={mode}")
}

/// `NETWORK/PREFIX:[GATEWAY][:LINK]`, IPv6 in brackets.
pub fn route(value: &str) -> Result<RouteRequest, String> {
    let fields = fields::split(value)?;
    let text = |at: usize| fields.get(at).copied().unwrap_or_default();
    if fields.len() > 3 {
        return Err("the form is NETWORK/PREFIX:GATEWAY:LINK, IPv6 in brackets".into());
    }
    let network = text(0);
    let Some((address, Some(prefix))) = fields::with_prefix(network) else {
        return Err(format!(
            "field 1, the network, is \"{network}\", not NETWORK/PREFIX, IPv6 in brackets"
        ));
    };
    let to = IpNet::new(address, prefix).map_err(|_| "no such prefix length".to_owned())?;
    let via = fields::address("field 2, the gateway,", text(1))?;
    if via.is_some_and(|via| via.is_ipv4() != address.is_ipv4()) {
        return Err("field 2, the gateway, is not of the family of the network".into());
    }
    let on = match text(2) {
        "" => None,
        link => Some(link_name(link).map_err(|why| format!("field 3, the link: {why}"))?),
    };
    if via.is_none() && on.is_none() {
        return Err("neither a gateway nor a link".into());
    }
    if on.as_deref() == Some(BOOTIF) {
        return Err(
            "field 3, the link, is BOOTIF, and has to be the link's own name here; without \
                    one the route is over the link that its gateway is behind"
                .into(),
        );
    }
    // dracut's own example has bits behind the prefix, which the kernel refuses.
    Ok(RouteRequest { to: to.trunc(), via, on })
}

pub fn nameserver(value: &str) -> Result<IpAddr, String> {
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(value).parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(format!("\"{value}\" is not the address of a name server")),
    }
}

pub fn handover(value: &str) -> Result<HandoverMode, String> {
    match value {
        "dhcp" => Ok(HandoverMode::Dhcp),
        "static" => Ok(HandoverMode::Static),
        "unmanaged" => Ok(HandoverMode::Unmanaged),
        _ => Err("may be dhcp, static or unmanaged".into()),
    }
}

fn name_and_rest(value: &str) -> (&str, Option<&str>) {
    match value.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (value, None),
    }
}

/// Links with commas between them, up to a `:` that belongs to none of them; and what stands behind
/// that.
fn members(text: &str) -> Result<(Vec<Selector>, Option<&str>), String> {
    if text.is_empty() {
        return Ok((Vec::new(), None));
    }
    if let Some(behind) = text.strip_prefix(':') {
        return Ok((Vec::new(), Some(behind)));
    }
    let mut found = Vec::new();
    let mut ahead = text;
    loop {
        let (selector, behind) = member(ahead)?;
        found.push(selector);
        ahead = match behind.split_at_checked(1) {
            Some((",", more)) => more,
            Some((_, more)) => return Ok((found, Some(more))),
            None => return Ok((found, None)),
        };
    }
}

/// The first link of `text`, and what is behind it: nothing, or something that begins with `,` or
/// `:`.
fn member(text: &str) -> Result<(Selector, &str), String> {
    if let Some(address) = text.strip_prefix("mac:") {
        let (mac, behind) = address.split_at_checked(17).unwrap_or((address, ""));
        let mac: Mac = mac.parse()?;
        if !behind.is_empty() && !behind.starts_with([',', ':']) {
            return Err(format!("\"{behind}\" behind the MAC address {mac}"));
        }
        return Ok((Selector::Mac(mac), behind));
    }
    let (driver, text) = match text.strip_prefix("driver:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = text.find([',', ':']).unwrap_or(text.len());
    let (name, behind) = text.split_at_checked(end).unwrap_or((text, ""));
    if driver {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(format!("\"{name}\" is no name of a driver"));
        }
        return Ok((Selector::Driver(name.to_owned()), behind));
    }
    let selector = match name {
        "physical" => Selector::Physical,
        _ => Selector::named(&link_name(name)?),
    };
    Ok((selector, behind))
}

/// Splits before the MTU: at a `:` outside of brackets that is not inside of a hardware address, the
/// one value of an option that has colons.
fn options_and_mtu(text: &str) -> (&str, Option<&str>) {
    let mut bracketed = false;
    let mut piece = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            ',' | ';' => piece = at.saturating_add(1),
            ':' if !bracketed => {
                let option = text.get(piece..).unwrap_or_default();
                let value = option.strip_prefix("ad_actor_system=").unwrap_or_default();
                let (mac, behind) = value.split_at_checked(17).unwrap_or_default();
                let end = text.len().saturating_sub(behind.len());
                if mac.parse::<Mac>().is_err() || at >= end {
                    let behind = text.get(at.saturating_add(1)..).unwrap_or_default();
                    return (text.get(..at).unwrap_or_default(), Some(behind));
                }
            }
            _ => {}
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bond::BondOptions;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn named(names: &[&str]) -> Vec<Selector> {
        names.iter().map(|name| Selector::Name((*name).to_owned())).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn a_bond_has_members_options_and_an_mtu() {
        let drivers = vec![Selector::Driver("ixgbe".into()), Selector::Driver("mlx5_core".into())];
        // value; name, members, options, MTU
        let cases = [
            // dracut's defaults
            ("",                         "bond0", named(&["eth0", "eth1"]), "", None),
            ("bond0",                    "bond0", named(&["eth0", "eth1"]), "", None),
            ("bond0::mode=1",            "bond0", named(&["eth0", "eth1"]), "mode=1", None),
            ("bond0:eno1",               "bond0", named(&["eno1"]), "", None),
            ("bond0:eth0,eth1:mode=balance-rr", "bond0", named(&["eth0", "eth1"]), "mode=balance-rr", None),
            ("lan:eth0,eth1:mode=4,miimon=50:9000", "lan", named(&["eth0", "eth1"]), "mode=4,miimon=50", Some(9000)),
            ("lan:eth0,eth1:mode=4;miimon=50:9000", "lan", named(&["eth0", "eth1"]), "mode=4;miimon=50", Some(9000)),
            ("lan:eth0::9000",           "lan", named(&["eth0"]), "", Some(9000)),
            // Members whose selectors have colons of their own
            ("lan:mac:52:54:00:aa:bb:cc:mode=1", "lan", vec![Selector::Mac(MAC)], "mode=1", None),
            ("lan:mac:52:54:00:aa:bb:cc,eth1:mode=1", "lan", vec![Selector::Mac(MAC), Selector::Name("eth1".into())], "mode=1", None),
            ("lan:mac:52-54-00-aa-bb-cc", "lan", vec![Selector::Mac(MAC)], "", None),
            ("lan:enx525400aabbcc",      "lan", vec![Selector::Mac(MAC)], "", None),
            ("lan:driver:ixgbe,driver:mlx5_core:mode=1:1500", "lan", drivers, "mode=1", Some(1500)),
            ("lan:physical:mode=1",      "lan", vec![Selector::Physical], "mode=1", None),
            // Options whose values have colons of their own
            ("lan:eth0:mode=4,ad_actor_system=02:00:00:00:00:01:9000", "lan", named(&["eth0"]), "mode=4,ad_actor_system=02:00:00:00:00:01", Some(9000)),
            ("lan:eth0:ad_actor_system=02:00:00:00:00:01,mode=4", "lan", named(&["eth0"]), "mode=4,ad_actor_system=02:00:00:00:00:01", None),
            ("lan:eth0:mode=1,arp_interval=9,ns_ip6_target=[fd00::1]:9000", "lan", named(&["eth0"]), "mode=1,arp_interval=9,ns_ip6_target=[fd00::1]", Some(9000)),
            ("lan:eth0:mode=1,arp_interval=9,arp_ip_target=10.0.0.1;10.0.0.2:1500", "lan", named(&["eth0"]), "mode=1,arp_interval=9,arp_ip_target=10.0.0.1;10.0.0.2", Some(1500)),
        ];
        for (value, name, members, options, mtu) in cases {
            let got = bond(value).unwrap_or_else(|why| panic!("bond={value}: {why}"));
            assert_eq!((got.name.as_str(), got.members, got.mtu), (name, members, mtu), "bond={value}");
            let want = BondOptions::parse(options).unwrap();
            // The order of options is how they were written.
            assert_eq!(got.options.mode(), want.mode(), "bond={value}");
            assert_eq!(got.options.attributes().len(), want.attributes().len(), "bond={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_mistake_in_a_key_says_what_is_wrong() {
        fn error<T: std::fmt::Debug>(result: Result<T, String>) -> String { result.unwrap_err() }
        let cases = [
            (error(bond(":eth0")),                        "missing"),
            (error(bond("bond0:eth0,:mode=1")),           "missing"),
            (error(bond("bond0:mac:52:54:00:aa:bb:mode=1")), "not a MAC"),
            (error(bond("bond0:mac:52:54:00:aa:bb:ccc:mode=1")), "behind the MAC address"),
            (error(bond("bond0:driver::mode=1")),         "no name of a driver"),
            (error(bond("bond0:eth0:mode=9")),            "mode is \"9\""),
            (error(bond("bond0:eth0:mode=1:big")),        "the MTU is \"big\""),
            (error(bond("bond0:eth0:mode=1:20")),         "68 to 65535"),
            (error(bond("bond0:eth0:mode=4,ad_actor_system=02:00:00:00:00:01:02")), "68 to 65535"),
            (error(bond("bond0:eth0:9000")),              "NAME=VALUE"), // the MTU in place of the options
            (error(bond("the-bond-of-both-ports:eth0")),  "too long"),
            (error(vlan("vlan5")),                        "NAME:LINK"),
            (error(vlan("storage:eth0")),                 "does not end with the number"),
            (error(vlan("vlan0:eth0")),                   "1 to 4094"),
            (error(vlan("vlan4095:eth0")),                "1 to 4094"),
            (error(vlan("vlan99999999999:eth0")),         "1 to 4094"),
            (error(vlan("vlan5:eth0,eth1")),              "one link"),
            (error(vlan("vlan5:")),                       "one link"),
            (error(vlan("vlan5:eth0:1500")),              "nothing behind it"),
            (error(bridge("br0:eth0:1500")),              "nothing behind it"),
            (error(bridge("br/0:eth0")),                  "no name of a link"),
            (error(ifname("boot")),                       "NAME:HARDWARE-ADDRESS"),
            (error(ifname("boot:52:54")),                 "6 bytes"),
            (error(ifname("ib:80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:cb:b1")), "InfiniBand"),
            (error(route("10.1.0.0:10.0.0.1")),           "field 1"),
            (error(route("10.1.0.0/33:10.0.0.1")),        "field 1"),
            (error(route("fd00::/64:[fe80::1]:eth0")),    "IPv6 in brackets"),
            (error(route("10.1.0.0/16:[fe80::1]")),       "family"),
            (error(route("10.1.0.0/16")),                 "neither a gateway nor a link"),
            (error(route("10.1.0.0/16::BOOTIF")),         "the link's own name"),
            (error(route("10.1.0.0/16::e/h")),            "field 3, the link: "),
            (error(route("10.1.0.0/16:10.0.0.1:eth0:x")), "NETWORK/PREFIX:GATEWAY:LINK"),
            (error(nameserver("dns.example")),            "name server"),
            (error(nameserver("0.0.0.0")),                "name server"),
            (error(handover("keep")),                     "dhcp, static or unmanaged"),
            (error(bootif("52-54-00")),                   "not a hardware address"),
            // InfiniBand: the hardware type and a GUID (iPXE), with or without the type; all twenty
            (error(bootif("20-00-02-c9-03-00-0a-cb-b1")), "InfiniBand"),
            (error(bootif("00-02-c9-03-00-0a-cb-b1")),    "InfiniBand"),
            (error(bootif("80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:cb:b1")), "InfiniBand"),
            (team("team0:eth0,eth1:lacp"),                "bond=team0:eth0,eth1:mode=802.3ad"),
            (team(""),                                    "bond=team0:eth0,eth1:mode=active-backup"),
        ];
        for (why, expected) in cases {
            assert!(why.contains(expected), "{expected:?} is not in {why:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_vlan_has_its_number_in_its_name() {
        let cases = [
            ("vlan0005:eth0",   "vlan0005",  5,    Selector::Name("eth0".into())), // VLAN_PLUS_VID
            ("vlan5:eth0",      "vlan5",     5,    Selector::Name("eth0".into())), // … _NO_PAD
            ("eth0.0005:eth0",  "eth0.0005", 5,    Selector::Name("eth0".into())), // DEV_PLUS_VID
            ("eth0.5:eth0",     "eth0.5",    5,    Selector::Name("eth0".into())), // … _NO_PAD
            ("bond0.4094:bond0", "bond0.4094", 4094, Selector::Name("bond0".into())),
            ("storage7:mac:52:54:00:aa:bb:cc", "storage7", 7, Selector::Mac(MAC)),
            ("vlan5:enx525400aabbcc", "vlan5", 5, Selector::Mac(MAC)),
        ];
        for (value, name, id, over) in cases {
            assert_eq!(vlan(value), Ok(Vlan { name: name.into(), id, over }), "vlan={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn routes_name_servers_bridges_and_names() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        // The examples of dracut.cmdline(7), one of which has bits behind its prefix.
        let cases = [
            ("192.168.200.0/24:192.168.100.222:ens10", "192.168.200.0/24", Some(at("192.168.100.222")), Some("ens10")),
            ("192.168.200.0/24:192.168.100.222",       "192.168.200.0/24", Some(at("192.168.100.222")), None),
            ("192.168.200.0/24::ens10",                "192.168.200.0/24", None, Some("ens10")),
            ("192.168.200.0/255.255.255.0::ens10",     "192.168.200.0/24", None, Some("ens10")),
            ("[2001:DB8:3::/8]:[2001:DB8:2::1]:ens10", "2000::/8",         Some(at("2001:db8:2::1")), Some("ens10")),
            ("[2001:db8:3::]/48:[fe80::1]:eth0",       "2001:db8:3::/48",  Some(at("fe80::1")), Some("eth0")),
            ("0.0.0.0/0:10.0.0.1",                     "0.0.0.0/0",        Some(at("10.0.0.1")), None),
        ];
        for (value, to, via, on) in cases {
            let expected = RouteRequest { to: to.parse().unwrap(), via, on: on.map(Into::into) };
            assert_eq!(route(value), Ok(expected), "rd.route={value}");
        }
        assert_eq!(nameserver("10.0.0.53"), Ok(at("10.0.0.53")));
        assert_eq!(nameserver("2001:db8::53"), Ok(at("2001:db8::53")), "dracut's has no brackets");
        assert_eq!(nameserver("[2001:db8::53]"), Ok(at("2001:db8::53")));
        assert_eq!(bridge(""), Ok(Bridge { name: "br0".into(), ports: named(&["eth0"]) }));
        assert_eq!(bridge("br7:eth0,bond0"), Ok(Bridge { name: "br7".into(), ports: named(&["eth0", "bond0"]) }));
        assert_eq!(bridge("br7:physical"), Ok(Bridge { name: "br7".into(), ports: vec![Selector::Physical] }));
        assert_eq!(ifname("boot:52:54:00:AA:BB:CC"), Ok(("boot".into(), HardwareAddress::Ethernet(MAC))));
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_them_panic(value in "(mac:|driver:|ad_actor_system=|[a-z0-9:.,;=/\\[\\]é-])*") {
            let _ = (bond(&value), bridge(&value), vlan(&value), team(&value), ifname(&value));
            let _ = (route(&value), bootif(&value), nameserver(&value));
        }
    }
}
