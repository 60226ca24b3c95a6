//! What the keeper is told of the network at the handover: everything that it needs in order to keep
//! it, because it can look nothing up later.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::configured::{Composition, Configured};
use crate::net::description::HandoverMode;
use crate::net::kernel::{HeldAddress, HeldRoute, Origin};
use crate::net::lease6::Origin6;
use crate::net::{Lease, Lease6, LeaseFile, Mac, Renewer, Renewers, dhcp, dhcp6};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOrders {
    pub mode: HandoverMode,
    pub heal: Heal,
    /// Those that the root is behind, by address.
    pub servers: Vec<IpAddr>,
    /// Who was found in the root that will renew.
    pub renewers: Renewers,
    /// What is below comes first.
    pub links: Vec<LinkOrders>,
    /// `/run/landfall/lease.json`, as it was written.
    pub lease_file: Option<LeaseFile>,
}

/// `landfall.heal=`: whether what is taken from the root's link is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heal {
    Never,
    /// A root in memory does not hang on it: there who takes a link down means that.
    WhileStreamed,
    Always,
}

/// A link that has been configured, or that such a link is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkOrders {
    /// The kernel's number.
    pub index: u32,
    /// In the initramfs: udev may have given it another.
    pub name: String,
    pub mac: Mac,
    pub permanent_mac: Option<Mac>,
    pub kind: LinkKind,
    /// The root is behind it, or behind a link that is made of it.
    pub carries_root: bool,
    /// Bytes, where somebody asked for a size.
    pub mtu: Option<u32>,
    /// As the kernel has them.
    pub addresses: Vec<HeldAddress>,
    pub routes: Vec<HeldRoute>,
    /// None where the address was typed or found.
    pub ipv4: Option<LeaseOrders>,
    /// None where DHCPv6 has given nothing.
    pub ipv6: Option<Lease6Orders>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// It comes back under its burnt-in address.
    Port,
    /// A bond, VLAN or bridge, which is known by its name.
    Made,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOrders {
    pub lease: Lease,
    /// Since the kernel's start: when it was granted or last extended.
    pub granted: Duration,
    pub identity: dhcp::Identity,
}

/// Addresses of DHCPv6 alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease6Orders {
    pub lease: Lease6,
    /// The link's own address (`fe80::…`), from which servers are asked.
    pub from: Option<Ipv6Addr>,
    /// Since the kernel's start: when it was granted or last extended.
    pub granted: Duration,
    pub identity: dhcp6::Identity,
}

/// What only the network's thread knows of a link.
#[derive(Clone, Debug)]
pub struct Facts {
    pub index: u32,
    pub ipv4: Option<(Duration, dhcp::Identity)>,
    /// What DHCPv6 has granted, with the times of the grant and not those that are left.
    pub ipv6: Option<(Lease6, Duration, dhcp6::Identity)>,
    pub link_local: Option<Ipv6Addr>,
}

impl LinkOrders {
    /// `addresses` and `routes`: all that the kernel has.
    pub fn of(
        link: &Configured,
        facts: Facts,
        carries_root: bool,
        addresses: &[HeldAddress],
        routes: &[HeldRoute],
    ) -> Self {
        let index = facts.index;
        let leased = link.ipv4.clone().filter(|_| link.origin == Origin::Dhcp).zip(facts.ipv4);
        let leased6 = facts.ipv6.map(|(lease, granted, identity)| Lease6Orders {
            lease: granted6(lease),
            from: facts.link_local,
            granted,
            identity,
        });
        Self {
            index,
            name: link.name.clone(),
            mac: link.mac,
            permanent_mac: link.permanent_mac,
            kind: match link.composition {
                Composition::Port => LinkKind::Port,
                _ => LinkKind::Made,
            },
            carries_root,
            mtu: link.mtu,
            addresses: addresses.iter().filter(|held| held.on == index).copied().collect(),
            routes: routes.iter().filter(|held| held.on == index).copied().collect(),
            ipv4: leased.map(|(lease, (granted, identity))| LeaseOrders {
                lease,
                granted,
                identity,
            }),
            ipv6: leased6.filter(|orders| !orders.lease.addresses.is_empty()),
        }
    }
}

/// What of it a DHCPv6 server has granted.
fn granted6(mut lease: Lease6) -> Lease6 {
    lease.addresses.retain(|one| one.origin == Origin6::Dhcp);
    lease
}

/// Which links the root is behind: that of the boot and all that it is made of.
pub fn beneath_root(links: &[Configured]) -> Vec<bool> {
    let mut found: Vec<bool> = links.iter().map(|link| link.boots).collect();
    // Each round goes one level down; links cannot be stacked in circles.
    for _ in links {
        let names: Vec<&str> = links
            .iter()
            .zip(&found)
            .filter(|(_, carries)| **carries)
            .flat_map(|(link, _)| {
                let over = match &link.composition {
                    Composition::Vlan { over, .. } => Some(over.as_str()),
                    _ => None,
                };
                std::iter::once(link.name.as_str()).chain(over)
            })
            .collect();
        let is_below = |link: &Configured| {
            names.contains(&link.name.as_str())
                || link.master.as_deref().is_some_and(|master| names.contains(&master))
        };
        let below: Vec<bool> =
            links.iter().zip(&found).map(|(link, known)| *known || is_below(link)).collect();
        if below == found {
            break;
        }
        found = below;
    }
    found
}

impl NetworkOrders {
    /// Who will look after addresses of a family, as far as could be seen from outside.
    pub fn renewer(&self, is_ipv4: bool) -> Renewer {
        if is_ipv4 { self.renewers.ipv4 } else { self.renewers.ipv6 }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::net::HardwareAddress;
    use crate::net::bond::BondOptions;
    use crate::net::lease::tests::lease;
    use crate::net::lease6::tests::address6;

    pub const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn configured(name: &str, composition: Composition, boots: bool) -> Configured {
        Configured {
            name: name.into(),
            mac: NODE,
            permanent_mac: Some(NODE),
            composition,
            master: None,
            mtu: None,
            request: None,
            ipv4: None,
            origin: Origin::Dhcp,
            ipv6: None,
            routes: Vec::new(),
            boots,
        }
    }

    pub fn address(text: &str, on: u32) -> HeldAddress {
        let net: ipnet::IpNet = text.parse().unwrap();
        HeldAddress {
            on,
            address: net.addr(),
            prefix: net.prefix_len(),
            valid_seconds: None,
            preferred_seconds: None,
            without_route: false,
            is_duplicate: false,
        }
    }

    pub fn route(to: &str, via: &str, on: u32) -> HeldRoute {
        HeldRoute {
            to: to.parse().unwrap(),
            via: via.parse().ok(),
            on,
            on_link: false,
            metric: 0,
            from: None,
            protocol: 16,
            scope: if via == "-" { 253 } else { 0 },
            expires_seconds: None,
        }
    }

    #[test]
    fn all_that_a_link_has_survives_the_way_to_the_keeper() {
        let mut link = configured("eth0", Composition::Port, true);
        let typed = address6("2001:db8::9/64", Origin6::Typed);
        link.ipv4 = Some(Lease { lease_seconds: Some(120), ..lease("10.0.0.5/24") });
        let leased6 = Lease6 {
            addresses: vec![address6("2001:db8::57/128", Origin6::Dhcp), typed],
            ..Lease6::default()
        };
        let identity = dhcp::Identity {
            hardware: HardwareAddress::Ethernet(NODE),
            client_id: Some((1, vec![1, 2])),
            hostname: Some("n1".into()),
            vendor_class: "landfall".into(),
            uuid: Some([7; 16]),
            architecture: Some(7),
            can_do_without_ipv4: false,
        };
        let identity6 = dhcp6::Identity {
            duid: crate::net::duid::Duid::of_mac(NODE),
            iaid: 5,
            hostname: None,
            class: "landfall".into(),
            architecture: None,
        };
        let facts = Facts {
            index: 2,
            ipv4: Some((Duration::from_millis(12_345), identity)),
            ipv6: Some((leased6, Duration::from_secs(13), identity6)),
            link_local: Some("fe80::1".parse().unwrap()),
        };
        let addresses = [address("10.0.0.5/24", 2), address("10.9.0.5/24", 3)];
        let routes = [route("0.0.0.0/0", "10.0.0.1", 2), route("10.9.0.0/24", "-", 3)];
        let orders = LinkOrders::of(&link, facts, true, &addresses, &routes);
        assert_eq!((orders.addresses.len(), orders.routes.len()), (1, 1));
        let leased = &orders.ipv6.as_ref().unwrap().lease.addresses;
        assert_eq!(leased.len(), 1, "what was typed needs no server");

        let all = NetworkOrders {
            mode: HandoverMode::Dhcp,
            heal: Heal::WhileStreamed,
            servers: vec!["10.0.0.1".parse().unwrap()],
            renewers: Renewers { ipv4: Renewer::Networkd, ipv6: Renewer::Nobody },
            links: vec![orders],
            lease_file: None,
        };
        let text = serde_json::to_string(&all).unwrap();
        assert!(!text.contains('\n'), "orders are lines");
        assert_eq!(serde_json::from_str::<NetworkOrders>(&text).unwrap(), all);
    }

    #[test]
    fn a_typed_address_has_no_lease() {
        let mut link = configured("eth0", Composition::Port, true);
        link.ipv4 = Some(lease("10.0.0.5/24"));
        link.origin = Origin::CommandLine;
        let facts = Facts { index: 2, ipv4: None, ipv6: None, link_local: None };
        assert_eq!(LinkOrders::of(&link, facts, true, &[], &[]).ipv4, None);
    }

    #[test]
    fn the_root_is_behind_all_that_its_link_is_made_of() {
        let bond = Composition::Bond { options: BondOptions::default() };
        let vlan = Composition::Vlan { id: 5, over: "bond0".into() };
        let part = |name: &str| Configured {
            master: Some("bond0".into()),
            ..configured(name, Composition::Port, false)
        };
        let links = [
            part("eth0"),
            part("eth1"),
            configured("bond0", bond, false),
            configured("vlan5", vlan, true),
            configured("eth7", Composition::Port, false),
        ];
        assert_eq!(beneath_root(&links), [true, true, true, true, false]);
    }
}
