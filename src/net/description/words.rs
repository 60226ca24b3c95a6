//! A description in an operator's words: what a plan shows of it.

use std::fmt::Write as _;
use std::net::IpAddr;

use rtnetlink::packet_route::link::BondMode;

use super::{
    AddressRequest, Bond, Description, HandoverMode, Ipv4Method, Ipv6Method, Needs, Selector,
};

/// Seconds that both families are waited for, where nobody says how long.
const BOTH_FAMILIES: u32 = 20;

/// One thing that is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Name of a link, or what takes its place: `every Ethernet link`, `route`.
    pub about: String,
    pub text: String,
}

impl Description {
    /// Everything it says but for name servers: links first, each above what it is made of in
    /// nobody's order but the writer's, then addresses, then the rest.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = self.links();
        lines.extend(self.asked());
        let mut add =
            |about: &str, text: String| lines.push(Line { about: about.to_owned(), text });
        if let Some(name) = &self.bootdev {
            add("bootdev", format!("the root is behind {name}"));
        }
        for route in &self.routes {
            let mut text = route.to.to_string();
            if let Some(via) = route.via {
                let _ = write!(text, " through {via}");
            }
            if let Some(on) = &route.on {
                let _ = write!(text, " on {on}");
            }
            add("route", text);
        }
        if self.ignore_peer_dns {
            add("rd.peerdns", "name servers of DHCP and of routers do not count".to_owned());
        }
        lines
    }

    fn links(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut add =
            |about: &str, text: String| lines.push(Line { about: about.to_owned(), text });
        for (name, hardware) in &self.names {
            add(name, format!("name of the port {hardware}"));
        }
        for bond in &self.bonds {
            add(&bond.name, of_bond(bond));
        }
        for vlan in &self.vlans {
            add(&vlan.name, format!("VLAN {} over {}", vlan.id, one(&vlan.over)));
        }
        for bridge in &self.bridges {
            add(&bridge.name, format!("bridge of {}", several(&bridge.ports)));
        }
        lines
    }

    fn asked(&self) -> Vec<Line> {
        let any = [AddressRequest::any()];
        let requests = if self.addresses.is_empty() { &any } else { self.addresses.as_slice() };
        let line = |request: &AddressRequest| Line {
            about: request.on.as_ref().map_or_else(|| self.whom(), one),
            text: self.of_request(request),
        };
        requests.iter().map(line).collect()
    }

    /// Names of the links that are made and that nothing else is made of.
    pub fn tops(&self) -> Vec<&str> {
        let is_part = |name: &str| {
            let mut parts = self.made().flat_map(|(_, _, parts)| parts);
            parts.any(|part| part.name() == Some(name))
        };
        self.made().map(|(_, name, _)| name).filter(|name| !is_part(name)).collect()
    }

    /// Whom an `ip=` means that names no link.
    pub fn whom(&self) -> String {
        match (self.tops().as_slice(), self.bootif) {
            ([], None) => "every Ethernet link".to_owned(),
            ([], Some(mac)) => format!("the port {mac}"),
            (tops, _) => listed(tops),
        }
    }

    fn of_request(&self, request: &AddressRequest) -> String {
        let ipv4 = match request.ipv4 {
            Ipv4Method::Off => None,
            Ipv4Method::Dhcp { request: None } => Some("IPv4 by DHCP".to_owned()),
            Ipv4Method::Dhcp { request: Some(address) } => {
                Some(format!("IPv4 by DHCP, asking for {address}"))
            }
            Ipv4Method::Static { address, prefix, gateway, peer } => {
                let [gateway, peer] = [gateway, peer].map(|address| address.map(IpAddr::from));
                Some(typed(address.into(), prefix, gateway, peer))
            }
        };
        let ipv6 = match request.ipv6 {
            Ipv6Method::Off => None,
            Ipv6Method::LinkLocal => Some("IPv6 of the link alone (fe80::)".to_owned()),
            Ipv6Method::Auto => Some("IPv6 as routers say".to_owned()),
            Ipv6Method::Dhcp => Some("IPv6 by DHCPv6".to_owned()),
            Ipv6Method::Static { address, prefix, gateway, peer } => {
                let [gateway, peer] = [gateway, peer].map(|address| address.map(IpAddr::from));
                Some(typed(address.into(), prefix, gateway, peer))
            }
        };
        let mut text = match (ipv4, ipv6, request.needs) {
            (None, None, _) => "set up, without an address".to_owned(),
            (Some(one), None, _) | (None, Some(one), _) => one,
            (Some(four), Some(six), Needs::Both) => {
                let seconds = self.one_family_after.unwrap_or(BOTH_FAMILIES);
                format!("{four} and {six}; after {seconds} s one of them is enough")
            }
            (Some(four), Some(six), Needs::Ipv4) => format!("{four}; {six}, if there is any"),
            (Some(four), Some(six), Needs::Ipv6) => format!("{six}; {four}, if there is any"),
            (Some(four), Some(six), Needs::Either) => format!("{four} or {six}"),
        };
        if let Some(mtu) = request.mtu {
            let _ = write!(text, ", MTU {mtu}");
        }
        if let Some(mac) = request.cloned_mac {
            let _ = write!(text, ", with the MAC address {mac}");
        }
        if let Some((kind, bytes)) = &request.client_id {
            let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = write!(text, ", to DHCP as client {kind}:{id}");
        }
        text
    }
}

impl HandoverMode {
    /// What the running system does with the network then.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp: the running system renews the lease",
            Self::Static => "static: the lease becomes an address that needs no server",
            Self::Unmanaged => "unmanaged: the running system keeps its hands off",
        }
    }
}

fn of_bond(bond: &Bond) -> String {
    let mode: BondMode = bond.options.mode();
    let mut text = format!("bond of {}: {mode}", several(&bond.members));
    for (name, value) in bond.options.kernel() {
        if name != "mode" {
            let _ = write!(text, " {name}={value}");
        }
    }
    if let Some(mtu) = bond.mtu {
        let _ = write!(text, ", MTU {mtu}");
    }
    text
}

fn typed(address: IpAddr, prefix: u8, gateway: Option<IpAddr>, peer: Option<IpAddr>) -> String {
    let mut text = format!("{address}/{prefix}");
    if let Some(peer) = peer {
        let _ = write!(text, " with {peer} at the other end");
    }
    if let Some(gateway) = gateway {
        let _ = write!(text, " through {gateway}");
    }
    text
}

fn one(selector: &Selector) -> String {
    match selector {
        Selector::Name(name) => name.clone(),
        Selector::Mac(mac) => format!("the port {mac}"),
        Selector::Driver(driver) => format!("every port of the driver {driver}"),
        Selector::Physical => "every port of the board".to_owned(),
    }
}

fn several(selectors: &[Selector]) -> String {
    let names: Vec<_> = selectors.iter().map(one).collect();
    listed(&names)
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::cmdline::Request;

    fn said(line: &str) -> String {
        let request = Request::read(line);
        assert!(request.problems.iter().all(|problem| problem.is_in_force), "{line}");
        let lines = request.network.lines();
        let lines: Vec<_> =
            lines.iter().map(|line| format!("{}: {}", line.about, line.text)).collect();
        lines.join(" / ")
    }

    #[test]
    #[rustfmt::skip]
    fn an_operator_finds_again_what_he_typed() {
        let cases = [
            ("", "every Ethernet link: IPv4 by DHCP or IPv6 as routers say"),
            ("ip=dhcp", "every Ethernet link: IPv4 by DHCP"),
            ("ip=dhcp BOOTIF=01-52-54-00-aa-bb-cc", "the port 52:54:00:aa:bb:cc: IPv4 by DHCP"),
            ("ip=eth1:dhcp,dhcp6", "eth1: IPv4 by DHCP and IPv6 by DHCPv6; after 20 s one of them is enough"),
            ("ip=eth1:auto6 rd.net.timeout.ipv6auto=9", "eth1: IPv6 as routers say"),
            ("ip=eth1:dhcp,dhcp6 rd.net.timeout.ip-required=9", "eth1: IPv4 by DHCP and IPv6 by DHCPv6; after 9 s one of them is enough"),
            ("ip=10.0.0.5::10.0.0.1:24::eth0:none:9000:52:54:00:00:00:07",
             "eth0: 10.0.0.5/24 through 10.0.0.1, MTU 9000, with the MAC address 52:54:00:00:00:07"),
            ("ip=10.0.0.5:10.0.0.4::31::eth0:none", "eth0: 10.0.0.5/31 with 10.0.0.4 at the other end"),
            ("ip=[2001:db8::5]::[2001:db8::1]:64::eth0:none", "eth0: 2001:db8::5/64 through 2001:db8::1"),
            ("ip=eth9:none", "eth9: set up, without an address"),
            ("ip=dhcp,1,abc", "every Ethernet link: IPv4 by DHCP, to DHCP as client 1:616263"),
            ("bond=bond0:mac:52:54:00:aa:bb:cc,eth1:mode=802.3ad,lacp_rate=fast:9000 vlan=bond0.5:bond0 ip=dhcp",
             "bond0: bond of the port 52:54:00:aa:bb:cc and eth1: 802.3ad miimon=100 lacp_rate=fast, MTU 9000 \
              / bond0.5: VLAN 5 over bond0 / bond0.5: IPv4 by DHCP"),
            ("bridge=br0:driver:ixgbe,eth1,eth2 ifname=data:52:54:00:aa:bb:cc rd.route=10.1.0.0/16:10.0.0.1:br0 bootdev=br0 rd.peerdns=0",
             "data: name of the port 52:54:00:aa:bb:cc / br0: bridge of every port of the driver ixgbe, eth1 and eth2 \
              / br0: IPv4 by DHCP or IPv6 as routers say / bootdev: the root is behind br0 \
              / route: 10.1.0.0/16 through 10.0.0.1 on br0 / rd.peerdns: name servers of DHCP and of routers do not count"),
        ];
        for (line, expected) in cases {
            assert_eq!(said(line), expected, "{line}");
        }
    }
}
