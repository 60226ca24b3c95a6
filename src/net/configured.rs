//! A link of the machine and what it was given: what the network stage leaves behind, and what the
//! running system is told about.

use std::path::Path;

use super::adopt;
use super::bond::BondOptions;
use super::description::{AddressRequest, Description, Ipv6Method, RouteRequest};
use super::kernel::{Kind, Link, Origin};
use super::port::Port;
use super::{Lease, Lease6, Mac};

/// One link that the boot has configured, or that such a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// In the initramfs: udev of the running system may rename a port.
    pub name: String,
    pub mac: Mac,
    /// The address that is burnt into a port, where the kernel tells.
    pub permanent_mac: Option<Mac>,
    pub composition: Composition,
    /// Name of the bond or bridge that it belongs to.
    pub master: Option<String>,
    /// Bytes, where somebody asked for a size: the command line, a lease or a router.
    pub mtu: Option<u32>,
    /// What was asked for it; none for what is only a part of something.
    pub request: Option<AddressRequest>,
    pub ipv4: Option<Lease>,
    /// Where `ipv4` is from, or where there is none, `ipv6`.
    pub origin: Origin,
    pub ipv6: Option<Lease6>,
    /// Those of `rd.route=` that go over this link, and the other end of a link of two.
    pub routes: Vec<RouteRequest>,
    /// The root is behind it.
    pub boots: bool,
}

/// What a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Composition {
    Port,
    Bond {
        options: BondOptions,
    },
    /// `over`: the name of the link that it is on.
    Vlan {
        id: u16,
        over: String,
    },
    Bridge,
    /// Made by somebody before us, of links with these addresses (its own among them): nobody here
    /// has the recipe, and to describe a part of it is to have the rest taken apart.
    Foreign {
        beneath: Vec<Mac>,
    },
}

/// Bytes; what a link has that nobody said anything of.
pub const USUAL_MTU: u32 = 1500;

impl Configured {
    /// Everything that `ports` are made of, themselves included; what is below comes first.
    pub fn all(
        wanted: &Description,
        links: &[&Link],
        ports: &[&Port],
        boot: Option<u32>,
    ) -> Vec<Self> {
        let mut order: Vec<&Link> = Vec::new();
        for port in ports {
            add_with_parts(&port.link, links, &mut order);
        }
        order.into_iter().map(|link| Self::of(wanted, link, links, ports, boot)).collect()
    }

    fn of(
        wanted: &Description,
        link: &Link,
        links: &[&Link],
        ports: &[&Port],
        boot: Option<u32>,
    ) -> Self {
        let port = ports.iter().find(|port| port.link.index == link.index);
        let name_of = |index: Option<u32>| {
            let other = links.iter().find(|other| Some(other.index) == index)?;
            Some(other.name.clone())
        };
        let applied = port.and_then(|port| port.ipv4.applied.clone());
        let ipv6 = port.map(|port| port.ipv6.lease()).filter(|lease| *lease != Lease6::default());
        let boots = boot == Some(link.index);
        Self {
            name: link.name.clone(),
            mac: link.mac,
            permanent_mac: link.permanent_mac,
            composition: composition(wanted, link, &name_of),
            master: name_of(link.master),
            mtu: (link.mtu != USUAL_MTU).then_some(link.mtu),
            request: port.map(|port| port.request.clone()),
            origin: match (&applied, port.map(|port| port.request.ipv6)) {
                (Some((_, origin)), _) => *origin,
                (None, Some(Ipv6Method::Static { .. })) => Origin::CommandLine,
                (None, _) => Origin::Dhcp,
            },
            ipv4: applied.map(|(lease, _)| lease),
            ipv6,
            routes: port.map(|port| port.routes.clone()).unwrap_or_default(),
            boots,
        }
    }
}

fn composition(
    wanted: &Description,
    link: &Link,
    name_of: &dyn Fn(Option<u32>) -> Option<String>,
) -> Composition {
    let bond = wanted.bonds.iter().find(|bond| bond.name == link.name);
    let vlan = wanted.vlans.iter().find(|vlan| vlan.name == link.name);
    let bridge = wanted.bridges.iter().find(|bridge| bridge.name == link.name);
    match (link.kind, bond, vlan.zip(name_of(link.lower)), bridge) {
        (Kind::Port, ..) => Composition::Port,
        (Kind::Bond, Some(bond), ..) => Composition::Bond { options: bond.options.clone() },
        (Kind::Vlan, _, Some((vlan, over)), _) => Composition::Vlan { id: vlan.id, over },
        (Kind::Bridge, _, _, Some(_)) => Composition::Bridge,
        _ => Composition::Foreign { beneath: adopt::beneath(&link.name, Path::new("/sys")) },
    }
}

fn add_with_parts<'a>(link: &'a Link, links: &[&'a Link], order: &mut Vec<&'a Link>) {
    // Links cannot be stacked in circles; the list itself ends the search all the same.
    if order.iter().any(|known| known.index == link.index) || order.len() > links.len() {
        return;
    }
    let is_part = |other: &&&Link| {
        other.master == Some(link.index)
            || (link.kind == Kind::Vlan && link.lower == Some(other.index))
    };
    for part in links.iter().filter(is_part) {
        add_with_parts(part, links, order);
    }
    if !order.iter().any(|known| known.index == link.index) {
        order.push(link);
    }
}
