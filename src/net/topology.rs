//! How the links of a description come about. Pure: looks at the links there are and says what to
//! do next; asked again after every change, until there is nothing left to do.
//!
//! Order comes by itself: a VLAN is made when the bond below it is there, the bond when the first of
//! its ports is, and a port that shows up an hour later is added then.

use std::collections::BTreeMap;

use super::bond::BondOptions;
use super::description::{AddressRequest, BOOTIF, Bond, Bridge, Description, Selector, Vlan};
use super::kernel::{Kind, Link};
use super::{HardwareAddress, Mac};

/// One change to the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The link must be down for it.
    Rename {
        index: u32,
        to: String,
    },
    Make {
        name: String,
        what: Made,
        mac: Option<Mac>,
    },
    /// A bond that somebody else made, in another way than was described, and that is empty: the
    /// module makes one of its own when it is loaded without options.
    Remove {
        index: u32,
    },
    /// The link gives up its addresses, and is down until its new master sets it up.
    Join {
        index: u32,
        master: u32,
    },
    /// The port that a bond prefers to the others.
    SetPrimary {
        index: u32,
        port: u32,
    },
    SetMac {
        index: u32,
        mac: Mac,
    },
    /// Bytes.
    SetMtu {
        index: u32,
        mtu: u32,
    },
    SetUp {
        index: u32,
    },
}

/// A link that is made of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    Bond(BondOptions),
    Vlan { id: u16, over: u32 },
    Bridge,
}

/// Kernel modules without which the description cannot be carried out, with their options.
pub fn modules(
    wanted: &Description,
) -> Vec<(&'static str, &'static [(&'static str, &'static str)])> {
    let mut modules: Vec<(&'static str, &'static [_])> = Vec::new();
    if !wanted.bonds.is_empty() {
        // It would make a bond0 of its own, which nobody described.
        modules.push(("bonding", &[("max_bonds", "0")]));
    }
    if !wanted.vlans.is_empty() {
        modules.push(("8021q", &[]));
    }
    if !wanted.bridges.is_empty() {
        modules.push(("bridge", &[]));
    }
    modules
}

/// What can be done now. `learned`: bytes that a lease or a router says of a link, by its number; a
/// size that somebody typed is stronger.
pub fn next(wanted: &Description, links: &[Link], learned: &BTreeMap<u32, u32>) -> Vec<Action> {
    let view = View { wanted, links, learned };
    let renames = view.renames();
    // Other names may mean other links until that is done.
    if !renames.is_empty() {
        return renames;
    }
    let mistaken = view.mistaken();
    if !mistaken.is_empty() {
        return mistaken;
    }
    let mut actions = view.made();
    actions.extend(view.readdressed());
    actions.extend(view.joined());
    actions.extend(view.preferred());
    actions.extend(view.tuned());
    actions
}

/// What is asked of a link: an `ip=` that names it, or one that names none.
///
/// One that names none is meant for what was described and is not a part of something else; where
/// nothing was, for every port, of which `may_boot` knows more.
pub fn request<'a>(
    wanted: &'a Description,
    link: &Link,
    default: &'a AddressRequest,
    may_boot: impl Fn(&Link) -> bool,
) -> Option<&'a AddressRequest> {
    let view = View { wanted, links: &[], learned: &BTreeMap::new() };
    if link.master.is_some() {
        return None;
    }
    let named = |request: &&AddressRequest| {
        request.on.as_ref().is_some_and(|selector| view.is(selector, link))
    };
    if let Some(request) = wanted.addresses.iter().find(named) {
        return Some(request);
    }
    let general = match wanted.addresses.as_slice() {
        [] => Some(default),
        requests => requests.iter().find(|request| request.on.is_none()),
    }?;
    let means = if view.describes_links() { view.is_top(&link.name) } else { may_boot(link) };
    means.then_some(general)
}

/// Whether this name, of whatever kind, means the link.
pub fn is_meant(wanted: &Description, name: &str, link: &Link) -> bool {
    let selector = match wanted.bootif {
        Some(mac) if name == BOOTIF => Selector::Mac(mac),
        _ => Selector::named(name),
    };
    View { wanted, links: &[], learned: &BTreeMap::new() }.is(&selector, link)
}

/// Whether something that was described is made of this link.
pub fn is_part(wanted: &Description, link: &Link) -> bool {
    let view = View { wanted, links: &[], learned: &BTreeMap::new() };
    let members = wanted.bonds.iter().flat_map(|bond| &bond.members);
    let ports = wanted.bridges.iter().flat_map(|bridge| &bridge.ports);
    let below = wanted.vlans.iter().map(|vlan| &vlan.over);
    members.chain(ports).chain(below).any(|part| view.is(part, link))
}

struct View<'a> {
    wanted: &'a Description,
    links: &'a [Link],
    learned: &'a BTreeMap<u32, u32>,
}

impl<'a> View<'a> {
    /// Whether the selector means this link. A name that `ifname=` gives belongs to one address,
    /// whoever has the name now.
    fn is(&self, selector: &Selector, link: &Link) -> bool {
        match selector {
            Selector::Name(name) => match self.hardware_of(name) {
                Some(hardware) => link.kind == Kind::Port && has_address(link, hardware),
                None => link.name == *name,
            },
            Selector::Mac(mac) => {
                link.kind == Kind::Port && link.permanent_mac.unwrap_or(link.mac) == *mac
            }
            Selector::Driver(driver) => {
                link.kind == Kind::Port && link.driver.as_ref() == Some(driver)
            }
            Selector::Physical => {
                link.kind == Kind::Port && (!link.is_peripheral || self.is_booted_from(link))
            }
        }
    }

    fn is_booted_from(&self, link: &Link) -> bool {
        self.wanted.bootif.is_some_and(|mac| link.permanent_mac.unwrap_or(link.mac) == mac)
    }

    fn hardware_of(&self, name: &str) -> Option<&'a HardwareAddress> {
        self.wanted.names.iter().find(|(given, _)| given == name).map(|(_, hardware)| hardware)
    }

    fn find(&self, selector: &Selector) -> Option<&'a Link> {
        self.links.iter().find(|link| self.is(selector, link))
    }

    fn named(&self, name: &str) -> Option<&'a Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        let Description { bonds, vlans, bridges, .. } = self.wanted;
        let bonds = bonds.iter().map(|bond| bond.name.as_str());
        let vlans = vlans.iter().map(|vlan| vlan.name.as_str());
        bonds.chain(vlans).chain(bridges.iter().map(|bridge| bridge.name.as_str()))
    }

    fn describes_links(&self) -> bool {
        self.names().next().is_some()
    }

    fn is_top(&self, name: &str) -> bool {
        let Description { bonds, vlans, bridges, .. } = self.wanted;
        let parts = bonds.iter().flat_map(|bond| &bond.members);
        let parts = parts.chain(vlans.iter().map(|vlan| &vlan.over));
        let mut parts = parts.chain(bridges.iter().flat_map(|bridge| &bridge.ports));
        self.names().any(|made| made == name)
            && !parts.any(|part| matches!(part, Selector::Name(part) if part == name))
    }

    fn renames(&self) -> Vec<Action> {
        let wanting = |link: &&Link| link.kind == Kind::Port;
        let mut actions = Vec::new();
        for link in self.links.iter().filter(wanting) {
            let Some((name, _)) =
                self.wanted.names.iter().find(|(_, hardware)| has_address(link, hardware))
            else {
                continue;
            };
            if link.name == *name {
                continue;
            }
            match self.named(name) {
                None => actions.push(Action::Rename { index: link.index, to: name.clone() }),
                // Two ports of one card may share its address, and the name is one's already.
                Some(other) if other.kind == Kind::Port && self.is_called_rightly(other) => {}
                // Out of the way, also of one that wants this one's name in turn.
                Some(other) => {
                    let to = format!("was-{}", other.index);
                    if other.name != to {
                        actions.push(Action::Rename { index: other.index, to });
                    }
                }
            }
        }
        actions
    }

    fn mistaken(&self) -> Vec<Action> {
        let mistaken = self.wanted.bonds.iter().filter_map(|bond| {
            let other = self.named(&bond.name)?;
            let mode = u8::from(bond.options.mode());
            let is_empty = self.links.iter().all(|link| link.master != Some(other.index));
            let is_other = other.mode.is_some_and(|other| other != mode);
            (is_other && is_empty).then_some(Action::Remove { index: other.index })
        });
        mistaken.collect()
    }

    fn is_called_rightly(&self, link: &Link) -> bool {
        self.hardware_of(&link.name).is_some_and(|hardware| has_address(link, hardware))
    }

    fn made(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let Description { bonds, vlans, bridges, .. } = self.wanted;
        for Bond { name, members, options, .. } in bonds {
            if let Some(mac) = self.address_of_composed(name, members) {
                let what = Made::Bond(options.clone());
                actions.extend(self.make(name, what, mac));
            }
        }
        for Vlan { name, id, over } in vlans {
            if let Some(over) = self.find(over) {
                let what = Made::Vlan { id: *id, over: over.index };
                actions.extend(self.make(name, what, self.cloned_mac(name)));
            }
        }
        for Bridge { name, ports } in bridges {
            if let Some(mac) = self.address_of_composed(name, ports) {
                actions.extend(self.make(name, Made::Bridge, mac));
            }
        }
        actions
    }

    fn make(&self, name: &str, what: Made, mac: Option<Mac>) -> Option<Action> {
        let make = || Action::Make { name: name.to_owned(), what, mac };
        self.named(name).is_none().then(make)
    }

    /// The address of a bond or bridge, once there is a part that it can have it from: that of the
    /// port that the firmware used, so that the lease stays, else that of the first part. `None`
    /// inside: the kernel's choice.
    fn address_of_composed(&self, name: &str, parts: &[Selector]) -> Option<Option<Mac>> {
        let first = parts.iter().find_map(|part| self.find(part))?;
        // A part of a bond has the bond's address.
        let first_mac = first.permanent_mac.unwrap_or(first.mac);
        let is_part = |link: &&Link| parts.iter().any(|part| self.is(part, link));
        let booted = self.wanted.bootif.and_then(|mac| {
            let has = |link: &&Link| link.permanent_mac.unwrap_or(link.mac) == mac;
            self.links.iter().filter(has).find(is_part).map(|_| mac)
        });
        Some(self.cloned_mac(name).or(booted).or(Some(first_mac)))
    }

    /// Bonds and bridges whose address is not the one that [`Self::address_of_composed`] says by now:
    /// which port is there first is the drivers' business. Bonds that already have a lease are the
    /// caller's.
    fn readdressed(&self) -> Vec<Action> {
        let Description { bonds, bridges, .. } = self.wanted;
        let bonds = bonds.iter().filter(|bond| !bond.options.has_its_ports_address());
        let bonds = bonds.map(|bond| (&bond.name, &bond.members));
        let bridges = bridges.iter().map(|bridge| (&bridge.name, &bridge.ports));
        let mut actions = Vec::new();
        for (name, parts) in bonds.chain(bridges) {
            if let Some(link) = self.named(name)
                && let Some(Some(mac)) = self.address_of_composed(name, parts)
                && link.mac != mac
                && matches!(link.kind, Kind::Bond | Kind::Bridge)
            {
                actions.push(Action::SetMac { index: link.index, mac });
            }
        }
        actions
    }

    fn cloned_mac(&self, name: &str) -> Option<Mac> {
        let on = |request: &&AddressRequest| matches!(&request.on, Some(Selector::Name(on)) if on == name);
        self.wanted.addresses.iter().find(on)?.cloned_mac
    }

    fn joined(&self) -> Vec<Action> {
        let Description { bonds, bridges, .. } = self.wanted;
        let bonds = bonds.iter().map(|bond| (&bond.name, &bond.members));
        let bridges = bridges.iter().map(|bridge| (&bridge.name, &bridge.ports));
        let mut actions = Vec::new();
        for (name, parts) in bonds.chain(bridges) {
            let Some(master) = self.named(name) else { continue };
            let is_part = |link: &&Link| {
                link.master.is_none()
                    && link.index != master.index
                    && parts.iter().any(|part| self.is(part, link))
            };
            let join = |link: &Link| Action::Join { index: link.index, master: master.index };
            actions.extend(self.links.iter().filter(is_part).map(join));
        }
        actions
    }

    /// The kernel knows the preferred port of a bond by its number, once it is a member.
    fn preferred(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for Bond { name, options, .. } in &self.wanted.bonds {
            let port = options.primary().and_then(|primary| self.find(&Selector::named(primary)));
            if let (Some(bond), Some(port)) = (self.named(name), port)
                && port.master == Some(bond.index)
                && bond.primary != Some(port.index)
            {
                actions.push(Action::SetPrimary { index: bond.index, port: port.index });
            }
        }
        actions
    }

    /// Address, size of frames, and up. What is below comes first: no VLAN is larger than its port.
    fn tuned(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for link in self.links {
            if let Some(mtu) = self.mtu_of(link, 0).filter(|mtu| *mtu != link.mtu) {
                // A member's is its bond's.
                if !self.is_in_bond(link) {
                    actions.push(Action::SetMtu { index: link.index, mtu });
                }
            }
        }
        actions.sort_by_key(|action| match action {
            Action::SetMtu { index, .. } => self.depth(*index, 0),
            _ => 0,
        });
        for link in self.links.iter().filter(|link| link.kind == Kind::Port) {
            let mac = self.wanted.addresses.iter().find_map(|request| {
                request
                    .cloned_mac
                    .filter(|_| request.on.as_ref().is_some_and(|selector| self.is(selector, link)))
            });
            if let Some(mac) = mac.filter(|mac| *mac != link.mac && link.master.is_none()) {
                actions.push(Action::SetMac { index: link.index, mac });
            }
        }
        let is_needed = |link: &&Link| {
            self.names().any(|name| name == link.name)
                || self.wanted.vlans.iter().any(|vlan| self.is(&vlan.over, link))
                || link.master.is_some_and(|master| {
                    let master = self.links.iter().find(|other| other.index == master);
                    master.is_some_and(|master| self.names().any(|name| name == master.name))
                })
        };
        let down = self.links.iter().filter(is_needed).filter(|link| !link.is_up);
        actions.extend(down.map(|link| Action::SetUp { index: link.index }));
        actions
    }

    fn is_in_bond(&self, link: &Link) -> bool {
        let master = link.master.and_then(|index| self.links.iter().find(|l| l.index == index));
        master.is_some_and(|master| master.kind == Kind::Bond)
    }

    /// What was asked for this link, or, where that is more than it has, for one above it: others on
    /// it must not shrink because one does.
    fn mtu_of(&self, link: &Link, depth: u32) -> Option<u32> {
        if depth > 8 {
            return None;
        }
        let bond = self.wanted.bonds.iter().find(|bond| bond.name == link.name);
        let request =
            self.wanted.addresses.iter().find(|request| {
                request.on.as_ref().is_some_and(|selector| self.is(selector, link))
            });
        let typed = request.and_then(|request| request.mtu).or(bond.and_then(|bond| bond.mtu));
        let own = typed.or_else(|| self.learned.get(&link.index).copied());
        let above = self.links.iter().filter(|other| {
            link.master == Some(other.index)
                || (other.kind == Kind::Vlan && other.lower == Some(link.index))
        });
        own.or_else(|| {
            let above = above.filter_map(|above| self.mtu_of(above, depth.saturating_add(1))).max();
            above.filter(|mtu| *mtu > link.mtu)
        })
    }

    fn depth(&self, index: u32, level: u32) -> u32 {
        let below = self.links.iter().find(|link| link.index == index).and_then(|link| link.lower);
        match below {
            Some(below) if level < 8 => self.depth(below, level.saturating_add(1)),
            _ => level,
        }
    }
}

fn has_address(link: &Link, hardware: &HardwareAddress) -> bool {
    match hardware {
        HardwareAddress::Ethernet(mac) => link.permanent_mac.unwrap_or(link.mac) == *mac,
        HardwareAddress::Infiniband(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0xff]);

    fn link(index: u32, name: &str, kind: Kind) -> Link {
        let mac = match index {
            1 => A,
            2 => B,
            _ => OTHER,
        };
        let is_port = kind == Kind::Port;
        Link {
            kind,
            driver: is_port.then(|| "e1000e".to_owned()),
            permanent_mac: is_port.then_some(mac),
            ..Link::port(index, name, mac)
        }
    }

    fn port(index: u32, name: &str) -> Link {
        link(index, name, Kind::Port)
    }

    fn name(name: &str) -> Selector {
        Selector::Name(name.into())
    }

    fn bond(name: &str, members: &[Selector]) -> Bond {
        let (name, members) = (name.to_owned(), members.to_vec());
        Bond { name, members, options: BondOptions::default(), mtu: None }
    }

    fn vlan(name: &str, id: u16, over: &str) -> Vlan {
        Vlan { name: name.into(), id, over: Selector::Name(over.into()) }
    }

    fn request(on: Option<Selector>) -> AddressRequest {
        AddressRequest { on, ..AddressRequest::any() }
    }

    /// A kernel without surprises: carries actions out until there are none.
    fn settle(wanted: &Description, links: &mut Vec<Link>) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let actions = next(wanted, links, &BTreeMap::new());
            if actions.is_empty() {
                return all;
            }
            for action in &actions {
                carry_out(action, links);
            }
            all.extend(actions);
        }
        panic!("it never ends: {all:?}")
    }

    fn carry_out(action: &Action, links: &mut Vec<Link>) {
        let at = |links: &[Link], index: u32| links.iter().position(|l| l.index == index).unwrap();
        match action {
            Action::Rename { index, to } => {
                assert!(links.iter().all(|link| link.name != *to), "{to} is taken");
                let at = at(links, *index);
                links[at].name.clone_from(to);
            }
            Action::Make { name, what, mac } => {
                let index = 100 + u32::try_from(links.len()).unwrap();
                let (kind, lower) = match what {
                    Made::Bond(_) => (Kind::Bond, None),
                    Made::Bridge => (Kind::Bridge, None),
                    Made::Vlan { over, .. } => (Kind::Vlan, Some(*over)),
                };
                let mac = mac.unwrap_or(OTHER);
                links.push(Link { lower, mac, ..link(index, name, kind) });
            }
            Action::Join { index, master } => {
                let at = at(links, *index);
                links[at].master = Some(*master);
                links[at].is_up = false;
            }
            Action::SetMac { index, mac } => {
                let at = at(links, *index);
                links[at].mac = *mac;
            }
            Action::SetMtu { index, mtu } => {
                let at = at(links, *index);
                if let Some(lower) = links[at].lower {
                    let lower = links.iter().find(|link| link.index == lower).unwrap();
                    assert!(lower.mtu >= *mtu, "{} is larger than what it is on", links[at].name);
                }
                links[at].mtu = *mtu;
            }
            Action::Remove { index } => links.retain(|link| link.index != *index),
            Action::SetPrimary { index, port } => {
                let at = at(links, *index);
                links[at].primary = Some(*port);
            }
            Action::SetUp { index } => {
                let at = at(links, *index);
                links[at].is_up = true;
            }
        }
    }

    fn named<'a>(links: &'a [Link], name: &str) -> &'a Link {
        links.iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn a_vlan_on_a_bond_on_two_ports_comes_about_in_any_order() {
        let wanted = Description {
            vlans: vec![vlan("bond0.5", 5, "bond0")],
            bonds: vec![bond("bond0", &[name("eth0"), name("eth1")])],
            addresses: vec![AddressRequest { mtu: Some(9000), ..request(Some(name("bond0.5"))) }],
            ..Description::default()
        };
        let mut links = vec![port(2, "eth1")];
        settle(&wanted, &mut links);
        assert_eq!(named(&links, "bond0").mac, B, "that of the first port there is");
        // The other port's driver takes a minute.
        links.push(port(1, "eth0"));
        settle(&wanted, &mut links);
        let (bond, vlan) = (named(&links, "bond0"), named(&links, "bond0.5"));
        assert_eq!((bond.kind, vlan.kind, vlan.lower), (Kind::Bond, Kind::Vlan, Some(bond.index)));
        for port in ["eth0", "eth1"] {
            assert_eq!(named(&links, port).master, Some(bond.index), "{port}");
        }
        for name in ["eth0", "eth1", "bond0", "bond0.5"] {
            assert!(named(&links, name).is_up, "{name}");
        }
        assert_eq!((bond.mtu, vlan.mtu), (9000, 9000));
        let learned = BTreeMap::new();
        let view = View { wanted: &wanted, links: &[], learned: &learned };
        assert!(view.is_top("bond0.5") && !view.is_top("bond0"), "what others are made of");
    }

    #[test]
    #[rustfmt::skip]
    fn the_size_of_frames_that_a_lease_says_is_carried_down() {
        let wanted = |typed: Option<u32>| Description {
            vlans: vec![vlan("bond0.5", 5, "bond0")],
            bonds: vec![bond("bond0", &[name("eth0")])],
            addresses: vec![AddressRequest { mtu: typed, ..request(Some(name("bond0.5"))) }],
            ..Description::default()
        };
        for (case, typed, expected) in [("of the lease", None, [9000, 9000]), ("as was typed", Some(1400), [1500, 1400])] {
            let mut links = vec![port(1, "eth0")];
            settle(&wanted(typed), &mut links);
            let learned = BTreeMap::from([(named(&links, "bond0.5").index, 9000)]);
            for action in next(&wanted(typed), &links, &learned) {
                carry_out(&action, &mut links);
            }
            let sizes = ["bond0", "bond0.5"].map(|name| named(&links, name).mtu);
            assert_eq!(sizes, expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn parts_are_found_by_every_selector() {
        let cases = [
            ("by name",                vec![name("eth1")],                         vec!["eth1"]),
            ("by address",             vec![Selector::Mac(A)],                     vec!["eth0"]),
            ("by driver",              vec![Selector::Driver("e1000e".into())],    vec!["eth0", "eth1"]),
            ("another driver",         vec![Selector::Driver("igb".into())],       vec![]),
            ("all that has a socket",  vec![Selector::Physical],                   vec!["eth0", "eth1"]),
            ("no management controller", vec![Selector::Physical, name("none")],   vec!["eth0", "eth1"]),
            ("twice is once",          vec![name("eth0"), Selector::Mac(A)],       vec!["eth0"]),
        ];
        for (case, members, expected) in cases {
            let wanted = Description { bonds: vec![bond("bond0", &members)], ..Description::default() };
            let usb = Link { is_peripheral: true, driver: Some("cdc_ether".into()), mac: OTHER, ..port(8, "eth8") };
            let mut links = vec![port(1, "eth0"), port(2, "eth1"), usb, link(9, "tun0", Kind::Other)];
            settle(&wanted, &mut links);
            let joined: Vec<_> = links.iter().filter(|l| l.master.is_some()).map(|l| l.name.as_str()).collect();
            assert_eq!(joined, expected, "{case}");
            assert_eq!(links.iter().any(|l| l.kind == Kind::Bond), !expected.is_empty(), "{case}");
        }
    }

    #[test]
    fn a_bond_has_the_address_that_the_firmware_used() {
        let members = [name("eth0"), name("eth1")];
        let wanted = Description {
            bonds: vec![bond("bond0", &members)],
            bootif: Some(B),
            ..Description::default()
        };
        let mut links = vec![port(1, "eth0"), port(2, "eth1")];
        settle(&wanted, &mut links);
        assert_eq!(named(&links, "bond0").mac, B);
        // Unless somebody says which.
        let cloned = AddressRequest { cloned_mac: Some(OTHER), ..request(Some(name("bond0"))) };
        let wanted = Description { addresses: vec![cloned], ..wanted };
        let mut links = vec![port(1, "eth0"), port(2, "eth1")];
        settle(&wanted, &mut links);
        assert_eq!(named(&links, "bond0").mac, OTHER);
    }

    #[test]
    fn the_address_of_a_bond_does_not_depend_on_which_driver_is_faster() {
        let members = [name("eth0"), name("eth1")];
        let bonds = || vec![bond("bond0", &members)];
        for (bootif, expected) in [(None, A), (Some(B), B), (Some(A), A)] {
            let wanted = Description { bonds: bonds(), bootif, ..Description::default() };
            for first in [port(1, "eth0"), port(2, "eth1")] {
                let mut links = vec![first.clone()];
                settle(&wanted, &mut links);
                let other = if first.index == 1 { port(2, "eth1") } else { port(1, "eth0") };
                links.push(other);
                settle(&wanted, &mut links);
                assert_eq!(
                    named(&links, "bond0").mac,
                    expected,
                    "{bootif:?}, first {}",
                    first.name
                );
            }
        }
    }

    #[test]
    fn an_empty_bond_of_another_mode_is_made_anew() {
        let options = BondOptions::parse("mode=802.3ad").unwrap();
        let wanted = Description {
            bonds: vec![Bond { options, ..bond("bond0", &[name("eth0")]) }],
            ..Description::default()
        };
        let rr = || Link { mode: Some(0), ..link(7, "bond0", Kind::Bond) };
        let mut links = vec![port(1, "eth0"), rr()];
        let actions = settle(&wanted, &mut links);
        assert_eq!(actions[0], Action::Remove { index: 7 });
        assert_ne!(named(&links, "bond0").index, 7);
        let in_use = Link { master: Some(7), ..port(2, "eth1") };
        let links = [port(1, "eth0"), in_use, rr()];
        let actions = next(&wanted, &links, &BTreeMap::new());
        assert!(!actions.contains(&Action::Remove { index: 7 }), "somebody uses it: {actions:?}");
    }

    #[test]
    fn names_are_exchanged_before_they_are_believed() {
        let wanted = Description {
            names: vec![
                ("eth0".into(), HardwareAddress::Ethernet(B)),
                ("eth1".into(), HardwareAddress::Ethernet(A)),
            ],
            bridges: vec![Bridge { name: "br0".into(), ports: vec![name("eth0")] }],
            ..Description::default()
        };
        let mut links = vec![port(1, "eth0"), port(2, "eth1")];
        settle(&wanted, &mut links);
        assert_eq!((named(&links, "eth0").index, named(&links, "eth1").index), (2, 1));
        assert!(named(&links, "eth0").master.is_some());
        assert!(named(&links, "eth1").master.is_none());
        // A name that is for a card that is not there yet is nobody else's.
        let mut links = vec![port(1, "eth0")];
        settle(&wanted, &mut links);
        assert!(links.iter().all(|link| link.kind != Kind::Bridge), "{links:?}");
    }

    #[test]
    fn what_is_there_is_left_as_it_is() {
        let wanted = Description {
            bonds: vec![bond("bond0", &[name("eth0")])],
            vlans: vec![vlan("bond0.5", 5, "bond0")],
            ..Description::default()
        };
        let up = |link: Link| Link { is_up: true, ..link };
        let links = [
            up(Link { master: Some(7), ..port(1, "eth0") }),
            up(Link { mac: A, ..link(7, "bond0", Kind::Bond) }),
            up(Link { lower: Some(7), ..link(8, "bond0.5", Kind::Vlan) }),
            port(2, "eth1"),
        ];
        assert_eq!(next(&wanted, &links, &BTreeMap::new()), []);
        assert_eq!(next(&Description::default(), &links, &BTreeMap::new()), []);
    }

    #[test]
    #[rustfmt::skip]
    fn an_ip_is_for_whom_it_names_or_for_what_is_on_top() {
        let described = |addresses: Vec<AddressRequest>| Description {
            bonds: vec![bond("bond0", &[name("eth0")])],
            vlans: vec![vlan("bond0.5", 5, "bond0")],
            addresses,
            ..Description::default()
        };
        let plain = |addresses: Vec<AddressRequest>| Description { addresses, ..Description::default() };
        let cases = [
            ("nothing said: every port",         plain(vec![]),                             vec!["eth0", "eth1"]),
            ("one for all",                      plain(vec![request(None)]),                vec!["eth0", "eth1"]),
            ("one for one",                      plain(vec![request(Some(name("eth1")))]),  vec!["eth1"]),
            ("one for one, one for the others",  plain(vec![request(Some(name("eth1"))), request(None)]), vec!["eth0", "eth1"]),
            ("what was described, on top",       described(vec![]),                         vec!["bond0.5"]),
            ("the same",                         described(vec![request(None)]),            vec!["bond0.5"]),
            ("below it, because it is named",    described(vec![request(Some(name("bond0")))]), vec!["bond0"]),
            ("a port beside it",                 described(vec![request(Some(Selector::Mac(B))), request(None)]), vec!["eth1", "bond0.5"]),
        ];
        let links = [
            Link { master: None, ..port(1, "eth0") },
            port(2, "eth1"),
            link(7, "bond0", Kind::Bond),
            link(8, "bond0.5", Kind::Vlan),
        ];
        let default = request(None);
        let is_port = |link: &Link| link.kind == Kind::Port;
        for (case, wanted, expected) in cases {
            let got: Vec<_> = links.iter().filter(|link| super::request(&wanted, link, &default, is_port).is_some()).map(|link| link.name.as_str()).collect();
            assert_eq!(got, expected, "{case}");
        }
        // A member of a bond has no address of its own, whoever asks for it.
        let member = Link { master: Some(7), ..port(1, "eth0") };
        assert_eq!(super::request(&plain(vec![request(Some(name("eth0")))]), &member, &default, is_port), None);
    }
}
