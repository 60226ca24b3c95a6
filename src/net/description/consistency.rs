//! Whether the pieces of a description fit together, without a look at the machine.

use std::collections::{BTreeMap, BTreeSet};

use super::{BOOTIF, Description, Selector};

/// A piece of a description, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Address(usize),
    Name(usize),
    Bond(usize),
    Vlan(usize),
    Bridge(usize),
    Bootdev,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub about: About,
    pub why: String,
    /// It cannot be, and must go ([`Description::without`]); otherwise it is only useless.
    pub is_error: bool,
}

/// How many pieces at the beginning of each list are beyond doubt. Of two that exclude each other it
/// is then the other that is wrong, whatever their order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Certain {
    addresses: usize,
    names: usize,
    bonds: usize,
    vlans: usize,
    bridges: usize,
}

impl Certain {
    /// All there is now.
    pub fn all_of(description: &Description) -> Self {
        Self {
            addresses: description.addresses.len(),
            names: description.names.len(),
            bonds: description.bonds.len(),
            vlans: description.vlans.len(),
            bridges: description.bridges.len(),
        }
    }

    /// The addresses have become others.
    pub fn recount_addresses(&mut self, description: &Description) {
        self.addresses = description.addresses.len();
    }

    pub fn has(self, about: About) -> bool {
        match about {
            About::Address(at) => at < self.addresses,
            About::Name(at) => at < self.names,
            About::Bond(at) => at < self.bonds,
            About::Vlan(at) => at < self.vlans,
            About::Bridge(at) => at < self.bridges,
            About::Bootdev => true,
        }
    }
}

impl Description {
    /// What cannot be, and what is of no use, once everything has been said. Of two pieces that
    /// exclude each other, the later one is wrong.
    pub fn check(&self) -> Vec<Complaint> {
        self.check_beside(Certain::default())
    }

    pub(super) fn check_beside(&self, certain: Certain) -> Vec<Complaint> {
        let mut found = Found::of(self, certain);
        found.nowhere(self);
        found.unused(self);
        found.without_effect(self);
        found.complaints
    }

    /// What cannot be, whatever else somebody says.
    pub fn contradictions(&self) -> Vec<Complaint> {
        self.contradictions_beside(Certain::default())
    }

    pub(super) fn contradictions_beside(&self, certain: Certain) -> Vec<Complaint> {
        Found::of(self, certain).complaints
    }

    /// The description without the pieces that cannot be.
    #[must_use]
    pub fn without(mut self, complaints: &[Complaint]) -> Self {
        let wrong: BTreeSet<About> =
            complaints.iter().filter(|c| c.is_error).map(|c| c.about).collect();
        fn keep<T>(list: &mut Vec<T>, is_wrong: impl Fn(usize) -> bool) {
            let mut at = 0..;
            list.retain(|_| !at.next().is_some_and(&is_wrong));
        }
        keep(&mut self.addresses, |at| wrong.contains(&About::Address(at)));
        keep(&mut self.names, |at| wrong.contains(&About::Name(at)));
        keep(&mut self.bonds, |at| wrong.contains(&About::Bond(at)));
        keep(&mut self.vlans, |at| wrong.contains(&About::Vlan(at)));
        keep(&mut self.bridges, |at| wrong.contains(&About::Bridge(at)));
        if wrong.contains(&About::Bootdev) {
            self.bootdev = None;
        }
        self
    }

    /// All links that are made: what, the name, and what it is made of.
    pub(super) fn made(&self) -> impl Iterator<Item = (About, &str, &[Selector])> {
        let bonds = self.bonds.iter().enumerate();
        let bonds = bonds.map(|(at, bond)| (About::Bond(at), &*bond.name, &*bond.members));
        let vlans = self.vlans.iter().enumerate();
        let vlans = vlans
            .map(|(at, vlan)| (About::Vlan(at), &*vlan.name, std::slice::from_ref(&vlan.over)));
        let bridges = self.bridges.iter().enumerate();
        let bridges =
            bridges.map(|(at, bridge)| (About::Bridge(at), &*bridge.name, &*bridge.ports));
        bonds.chain(vlans).chain(bridges)
    }
}

impl About {
    fn kind(self) -> &'static str {
        match self {
            Self::Address(_) => "ip=",
            Self::Name(_) => "ifname=",
            Self::Bond(_) => "a bond",
            Self::Vlan(_) => "a VLAN",
            Self::Bridge(_) => "a bridge",
            Self::Bootdev => "bootdev=",
        }
    }

    /// What is in it has no address of its own.
    pub(super) fn takes_ports(self) -> bool {
        matches!(self, Self::Bond(_) | Self::Bridge(_))
    }
}

#[derive(Default)]
struct Found {
    certain: Certain,
    complaints: Vec<Complaint>,
    /// What has been found impossible does not count any more.
    wrong: BTreeSet<About>,
}

impl Found {
    fn of(all: &Description, certain: Certain) -> Self {
        let mut found = Self { certain, ..Self::default() };
        found.twice(all);
        found.names(all);
        found.members(all);
        found.circles(all);
        found.addresses(all);
        found
    }

    fn error(&mut self, about: About, why: String) {
        if self.wrong.insert(about) {
            self.complaints.push(Complaint { about, why, is_error: true });
        }
    }

    fn useless(&mut self, about: About, why: String) {
        if !self.wrong.contains(&about) {
            self.complaints.push(Complaint { about, why, is_error: false });
        }
    }

    /// Everything that is made and not impossible; what is certain first.
    fn left<'d>(&self, all: &'d Description) -> Vec<(About, &'d str, &'d [Selector])> {
        let mut left: Vec<_> =
            all.made().filter(|(about, ..)| !self.wrong.contains(about)).collect();
        left.sort_by_key(|(about, ..)| !self.certain.has(*about));
        left
    }

    /// One name is one link.
    fn twice(&mut self, all: &Description) {
        let mut taken: BTreeMap<&str, About> = BTreeMap::new();
        let given = all.names.iter().enumerate().map(|(at, (name, _))| (About::Name(at), &**name));
        let mut named: Vec<_> =
            given.chain(all.made().map(|(about, name, _)| (about, name))).collect();
        named.sort_by_key(|(about, _)| !self.certain.has(*about));
        for (about, name) in named {
            match taken.get(name) {
                Some(first) if matches!((first, about), (About::Name(_), About::Name(_))) => {
                    self.error(about, format!("{name} is the name of another port already"));
                }
                Some(first) => {
                    self.error(about, format!("{name} is the name of {} already", first.kind()));
                }
                None => {
                    taken.insert(name, about);
                }
            }
        }
        let mut ids = BTreeMap::new();
        for (at, vlan) in all.vlans.iter().enumerate() {
            if self.wrong.contains(&About::Vlan(at)) {
                continue;
            }
            if let Some(first) = ids.insert((&vlan.over, vlan.id), &vlan.name) {
                let why = format!("{first} is VLAN {} over {} already", vlan.id, vlan.over);
                self.error(About::Vlan(at), why);
                ids.insert((&vlan.over, vlan.id), first);
            }
        }
    }

    /// One port has one name.
    fn names(&mut self, all: &Description) {
        let mut known = BTreeMap::new();
        for (at, (name, address)) in all.names.iter().enumerate() {
            if let Some(first) = known.get(address).filter(|first| **first != name) {
                self.error(About::Name(at), format!("{address} has the name {first} already"));
            } else {
                known.insert(address, name);
            }
        }
    }

    /// One port is in one bond or bridge.
    fn members(&mut self, all: &Description) {
        let mut taken: BTreeMap<&Selector, &str> = BTreeMap::new();
        for (about, name, members) in self.left(all) {
            if !about.takes_ports() {
                continue;
            }
            let own: BTreeSet<_> = members.iter().collect();
            if own.len() < members.len() {
                self.error(about, "a member is there twice".to_owned());
            } else if let Some((member, other)) = own.iter().find_map(|m| taken.get_key_value(*m)) {
                self.error(about, format!("{member} is a member of {other} already"));
            } else {
                taken.extend(own.into_iter().map(|member| (member, name)));
            }
        }
    }

    /// Nothing is made of itself.
    fn circles(&mut self, all: &Description) {
        // One piece less opens a circle, and may be a piece of two.
        let mut made: Vec<_> = all.made().collect();
        made.sort_by_key(|(about, ..)| self.certain.has(*about));
        for (about, name, _) in made {
            let left = self.left(all);
            if !self.wrong.contains(&about) && below(&left, name).contains(name) {
                self.error(about, format!("{name} would be made of itself"));
            }
        }
    }

    fn addresses(&mut self, all: &Description) {
        let left = self.left(all);
        let mut seen = BTreeSet::new();
        for (at, address) in all.addresses.iter().enumerate() {
            let about = About::Address(at);
            let on = address.on.as_ref();
            if !seen.insert(on) {
                let of = on.map_or("whichever link is first".to_owned(), ToString::to_string);
                self.error(about, format!("there is another ip= for {of}"));
                continue;
            }
            let Some(on) = on else { continue };
            let owner =
                left.iter().find(|(of, _, parts)| of.takes_ports() && takes(&left, parts, on));
            let Some((of, owner, _)) = owner.filter(|_| address.asks()) else { continue };
            if self.certain.has(about) && !self.certain.has(*of) {
                let why = format!("{on}, a part of {owner}, has an address of its own by ip=");
                self.error(*of, why);
            } else {
                let why =
                    format!("{on} is in {} ({owner}), which is what has an address", of.kind());
                self.error(about, why);
            }
        }
    }

    /// `BOOTIF` stands for a port that the boot loader names.
    fn nowhere(&mut self, all: &Description) {
        const WHY: &str = "there is no BOOTIF= that says which port it is";
        if all.bootif.is_some() {
            return;
        }
        for (at, address) in all.addresses.iter().enumerate() {
            if address.on.as_ref().and_then(Selector::name) == Some(BOOTIF) {
                self.error(About::Address(at), WHY.to_owned());
            }
        }
        for (about, name, parts) in self.left(all) {
            let others = parts.iter().filter(|part| part.name() != Some(BOOTIF)).count();
            match others {
                0 if !parts.is_empty() => self.error(about, WHY.to_owned()),
                _ if others < parts.len() => {
                    self.useless(about, format!("{WHY}; {name} is made of the other parts"));
                }
                _ => {}
            }
        }
    }

    /// What is understood, and changes nothing.
    fn without_effect(&mut self, all: &Description) {
        let requests = all.addresses.iter().enumerate();
        let requests: Vec<_> =
            requests.filter(|(at, _)| !self.wrong.contains(&About::Address(*at))).collect();
        for (at, request) in &requests {
            if let (None, Some(mac)) = (&request.on, request.cloned_mac) {
                let why = format!("a MAC needs the link's name: nothing gets {mac}");
                self.useless(About::Address(*at), why);
            }
        }
        if let Some((at, _)) = requests.first()
            && !requests.iter().any(|(_, request)| request.asks())
        {
            let why = "no ip= asks for an address: the boot waits until somebody else gives a \
                       link one";
            self.useless(About::Address(*at), why.to_owned());
        }
    }

    /// What is made and never used is a misspelt name, as a rule.
    fn unused(&mut self, all: &Description) {
        let requests = all.addresses.iter().enumerate();
        let requests: Vec<_> =
            requests.filter(|(at, _)| !self.wrong.contains(&About::Address(*at))).collect();
        // Whichever link is first: it may be any of them.
        if requests.is_empty() || requests.iter().any(|(_, request)| request.on.is_none()) {
            return;
        }
        let addressed: BTreeSet<&str> =
            requests.iter().filter_map(|(_, request)| request.on.as_ref()?.name()).collect();
        let left = self.left(all);
        let mut used = addressed.clone();
        for name in &addressed {
            used.extend(below(&left, name));
        }
        for (about, name, _) in &left {
            if !used.contains(name) {
                self.useless(
                    *about,
                    format!("nothing has an address on {name}, or on what is made of it"),
                );
            }
        }
        if let Some(bootdev) = &all.bootdev {
            let on = Selector::named(bootdev);
            if !requests.iter().any(|(_, request)| request.on.as_ref() == Some(&on)) {
                let why = format!("no ip= is for {bootdev}");
                self.useless(About::Bootdev, why);
            }
        }
    }
}

/// Whether the parts of a link have `port` among them, by the words alone: a port may be known by
/// its name here and by its driver there.
pub(super) fn takes(
    made: &[(About, &str, &[Selector])],
    parts: &[Selector],
    port: &Selector,
) -> bool {
    let is_made = || made.iter().any(|(_, name, _)| port.name() == Some(name));
    parts.contains(port) || parts.contains(&Selector::Physical) && !is_made()
}

/// The names of everything that `name` is made of, directly or not. Itself too, if it is a circle.
pub(super) fn below<'d>(
    made: &[(About, &'d str, &'d [Selector])],
    name: &str,
) -> BTreeSet<&'d str> {
    let parts = |of: &str| -> Vec<&'d Selector> {
        made.iter().filter(|(_, name, _)| *name == of).flat_map(|(.., parts)| *parts).collect()
    };
    let mut found = BTreeSet::new();
    let mut ahead = parts(name);
    while let Some(next) = ahead.pop() {
        if let Some(name) = next.name()
            && found.insert(name)
        {
            ahead.extend(parts(name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::cmdline::Request;

    #[test]
    #[rustfmt::skip]
    fn what_would_be_silently_without_effect_is_said() {
        // line; what is said; addresses, bonds, VLANs, bridges that are left; whether the word is in force
        let cases = [
            // BOOTIF stands for nothing
            ("ip=b:dhcp bond=b:BOOTIF,eth1",               "no BOOTIF=",  [1, 1, 0, 0], true), // eth1 is left
            ("ip=b:dhcp bond=b:BOOTIF",                    "no BOOTIF=",  [1, 0, 0, 0], false),
            ("ip=b:dhcp bridge=b:eth1,BOOTIF",             "no BOOTIF=",  [1, 0, 0, 1], true),
            ("ip=v5:dhcp vlan=v5:BOOTIF",                  "no BOOTIF=",  [1, 0, 0, 0], false),
            ("ip=v5:dhcp vlan=v5:BOOTIF BOOTIF=52-54-00-aa-bb-cc", "",    [1, 0, 1, 0], true),
            ("ip=eth0:dhcp rd.route=10.1.0.0/16:10.0.0.1:BOOTIF",  "the link's own name", [1, 0, 0, 0], false),
            // A MAC for whichever link is first
            ("ip=10.0.0.5::10.0.0.1:24:::none:52:54:00:aa:bb:cc",     "link's name", [1, 0, 0, 0], true),
            ("ip=10.0.0.5::10.0.0.1:24::eth0:none:52:54:00:aa:bb:cc", "", [1, 0, 0, 0], true),
            // Nobody asks for an address
            ("ip=eth0:none",                               "no ip= asks", [1, 0, 0, 0], true),
            ("ip=eth0:none ip=eth1:none",                  "no ip= asks", [2, 0, 0, 0], true),
            ("ip=eth0:none ip=eth1:link6",                 "",            [2, 0, 0, 0], true),
            // A port of any name is one
            ("ip=eth0:dhcp bond=b:physical",               "eth0 is in a bond (b)", [0, 1, 0, 0], false),
            ("ip=v5:dhcp bond=b:physical vlan=v5:b",       "",            [1, 1, 1, 0], true),
            // InfiniBand
            ("ifname=ib:80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:cb:b1", "InfiniBand", [0, 0, 0, 0], false),
        ];
        for (line, expected, left, is_in_force) in cases {
            let request = Request::read(line);
            let said: Vec<_> = request.problems.iter().map(|problem| problem.why.as_str()).collect();
            let is_expected = match (expected, said.as_slice()) {
                ("", []) => true,
                ("", _) => false,
                (expected, said) => said.iter().any(|why| why.contains(expected)),
            };
            assert!(is_expected, "{line}: {said:?}");
            assert_eq!(request.problems.iter().all(|p| p.is_in_force), is_in_force, "{line}");
            let network = request.network;
            let counts = [network.addresses.len(), network.bonds.len(), network.vlans.len(), network.bridges.len()];
            assert_eq!(counts, left, "{line}");
        }
    }
}
