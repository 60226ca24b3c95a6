//! The settings `NET_*` beside the command line: who wins, link by link.

use std::collections::BTreeSet;

use super::consistency::{Certain, below, takes};
use super::{About, AddressRequest, Complaint, Description, Selector};

impl Description {
    /// Adds what the settings say, without what of it cannot be, and tells of that and of what is of
    /// no use. A complaint is about a kind of setting; the place in the list means nothing.
    ///
    /// What somebody typed at this boot is stronger, but only where both speak of the same link:
    /// a boot over one port is to end in the bonds and VLANs that the settings describe.
    ///
    /// - A typed bond, VLAN, bridge, name of a port or destination of a route replaces the one of
    ///   the settings; all others are added. Typed name servers replace those of the settings.
    /// - A typed `ip=` that names a link replaces `NET_IP` for this link; `NET_IP` for others is
    ///   added.
    /// - One that names no link, as boot loaders write it on all machines, goes as soon as `NET_IP`
    ///   names a link.
    /// - One for a port that `NET_BOND` or `NET_BRIDGE` takes goes if `NET_IP` is for that bond or
    ///   bridge, or for what is made of it, or for whatever there is; `bootdev=` with it.
    /// - A `NET_IP` that names no link counts only if no `ip=` is left.
    #[must_use]
    pub fn with_settings(mut self, mut settings: Self) -> (Self, Vec<Complaint>) {
        let said: BTreeSet<String> = self.check().into_iter().map(|known| known.why).collect();
        settings.bootif = self.bootif;
        settings.place_bootif();
        settings.remove_namesakes(&self);
        let mut typed = Certain::all_of(&self);
        self.names.extend(settings.names);
        self.bonds.extend(settings.bonds);
        self.vlans.extend(settings.vlans);
        self.bridges.extend(settings.bridges);
        self.routes.extend(settings.routes);
        if self.dns.is_empty() {
            self.dns = settings.dns;
        }
        // A link that cannot be takes no port from anybody.
        let addresses = std::mem::take(&mut self.addresses);
        let mut complaints = self.contradictions_beside(typed);
        self = self.without(&complaints);
        self.addresses = addresses;
        self.yield_to(&settings.addresses, typed);
        typed.recount_addresses(&self);
        let is_new = |wanted: &AddressRequest| match &wanted.on {
            Some(_) => !self.addresses.iter().any(|typed| typed.on == wanted.on),
            None => self.addresses.is_empty(),
        };
        settings.addresses.retain(is_new);
        self.addresses.extend(settings.addresses);

        let mut found = self.check_beside(typed);
        self = self.without(&found);
        found.retain(|complaint| !said.contains(&complaint.why));
        for complaint in &mut found {
            // A typed link is of no use any more because other addresses have taken its own's place.
            if typed.has(complaint.about) {
                complaint.about = About::Address(self.addresses.len());
            }
        }
        complaints.extend(found);
        (self, complaints)
    }

    /// Leaves out what is typed under the same name.
    fn remove_namesakes(&mut self, typed: &Self) {
        self.bonds.retain(|bond| !typed.bonds.iter().any(|other| other.name == bond.name));
        self.vlans.retain(|vlan| !typed.vlans.iter().any(|other| other.name == vlan.name));
        self.bridges.retain(|bridge| !typed.bridges.iter().any(|other| other.name == bridge.name));
        self.routes.retain(|route| !typed.routes.iter().any(|other| other.to == route.to));
        self.names.retain(|(name, port)| {
            !typed.names.iter().any(|(other, known)| other == name || known == port)
        });
    }

    /// Lets the addresses go in whose place the settings want others; `typed`: the links that are
    /// not of the settings.
    fn yield_to(&mut self, wanted: &[AddressRequest], typed: Certain) {
        let made: Vec<_> = self.made().collect();
        let owner = |port: &Selector| {
            let owns = |(of, _, parts): &&(About, &str, &[Selector])| {
                of.takes_ports() && !typed.has(*of) && takes(&made, parts, port)
            };
            made.iter().find(owns).map(|(_, name, _)| *name)
        };
        // The links that get an address in place of this one; no link: whichever there is.
        let heirs = |port: &Selector| -> Vec<Option<&str>> {
            let Some(owner) = owner(port) else { return Vec::new() };
            let stands_on_it = |link: &&str| *link == owner || below(&made, link).contains(owner);
            let asking = wanted.iter().filter(|request| request.asks());
            let links: Vec<_> = asking
                .filter_map(|request| match &request.on {
                    None => Some(None),
                    Some(on) => on.name().filter(stands_on_it).map(Some),
                })
                .collect();
            if links.contains(&Some(owner)) { vec![Some(owner)] } else { links }
        };
        let has_named = wanted.iter().any(|request| request.on.is_some());
        let goes = |request: &AddressRequest| match &request.on {
            None => has_named,
            Some(port) => request.asks() && !heirs(port).is_empty(),
        };
        let is_general = |request: &AddressRequest| request.on.is_none() && !goes(request);
        let bootdev = self.bootdev.as_ref().and_then(|bootdev| {
            let port = Selector::named(bootdev);
            match heirs(&port).as_slice() {
                // It stays, or whatever is made of it gets the address that is for anything.
                [] if owner(&port).is_some() && self.addresses.iter().any(is_general) => None,
                [] => Some(bootdev.clone()),
                [heir] => heir.map(str::to_owned),
                // Whichever of them turns out to be the right one.
                _ => None,
            }
        });
        let addresses = self.addresses.iter().filter(|request| !goes(request)).cloned().collect();
        self.addresses = addresses;
        self.bootdev = bootdev;
    }
}

#[cfg(test)]
mod tests {
    use crate::cmdline::Request;
    use crate::config::Settings;
    use crate::config::network::{description, of_complaint};
    use crate::net::description::Description;

    /// `ip` `bonds` `VLANs` `bridges`, with `+` between them and `-` for none.
    fn shown(all: &Description) -> String {
        let list = |names: Vec<String>| match names.as_slice() {
            [] => "-".to_owned(),
            names => names.join("+"),
        };
        let on = |request: &super::AddressRequest| {
            let on = request.on.as_ref().map_or("any".to_owned(), ToString::to_string);
            if request.asks() { on } else { format!("({on})") }
        };
        let ip = list(all.addresses.iter().map(on).collect());
        let bonds = list(all.bonds.iter().map(|bond| bond.name.clone()).collect());
        let vlans = list(all.vlans.iter().map(|vlan| vlan.name.clone()).collect());
        let bridges = list(all.bridges.iter().map(|bridge| bridge.name.clone()).collect());
        let bootdev = all.bootdev.as_ref().map_or(String::new(), |name| format!(" bootdev={name}"));
        format!("{ip} {bonds} {vlans} {bridges}{bootdev}")
    }

    #[test]
    #[rustfmt::skip]
    fn who_typed_wins_where_both_speak_of_the_same_link() {
        const BOND: &str = "BOND=bond0:eth0,eth1";
        const TAGGED: &str = "BOND=bond0:eth0,eth1;VLAN=bond0.5:bond0;IP=bond0.5:dhcp";
        // command line; NET_* with ; between them; addresses, bonds, VLANs, bridges; what is said
        let cases = [
            // The bond that comes after a boot over one port, whatever the boot loader writes …
            ("",                              TAGGED, "bond0.5 bond0 bond0.5 -", ""),
            ("ip=dhcp",                       TAGGED, "bond0.5 bond0 bond0.5 -", ""),
            ("ip=10.0.0.5:10.0.0.1:10.0.0.1:24", TAGGED, "bond0.5 bond0 bond0.5 -", ""), // IPAPPEND 1
            ("ip=eth0:dhcp",                  TAGGED, "bond0.5 bond0 bond0.5 -", ""),
            ("ip=eth0:dhcp bootdev=eth0",     TAGGED, "bond0.5 bond0 bond0.5 - bootdev=bond0.5", ""),
            ("ip=dhcp bootdev=eth0",          TAGGED, "bond0.5 bond0 bond0.5 - bootdev=bond0.5", ""),
            // … over one of its ports, or over another
            ("ip=eth2:dhcp",                  TAGGED, "eth2+bond0.5 bond0 bond0.5 -", ""),
            ("ip=eth0:dhcp ip=eth2:dhcp bootdev=eth2", TAGGED, "eth2+bond0.5 bond0 bond0.5 - bootdev=eth2", ""),
            ("ip=eth0:dhcp BOOTIF=52-54-00-aa-bb-cc", "BOND=b:physical;IP=b:dhcp", "b b - -", ""),
            ("ip=BOOTIF:dhcp BOOTIF=52-54-00-aa-bb-cc", "BOND=b:BOOTIF,eth1;IP=b:dhcp", "b b - -", ""),
            ("ip=eth0:dhcp",                  "BRIDGE=br0:eth0;IP=br0:dhcp", "br0 - - br0", ""),
            ("ip=eth0:dhcp",                  "VLAN=v5:eth0;IP=v5:dhcp", "eth0+v5 - v5 -", ""), // a VLAN takes nothing away
            ("ip=eth0:none:9000",             TAGGED, "(eth0)+bond0.5 bond0 bond0.5 -", ""),
            // An address for anything is for what is described.
            ("ip=dhcp",                       BOND, "any bond0 - -", ""),
            ("ip=dhcp bootdev=eth0",          BOND, "any bond0 - -", ""),
            ("ip=eth0:dhcp",                  "BOND=bond0:eth0,eth1;IP=auto6", "any bond0 - -", ""),
            ("ip=eth0:dhcp",                  "IP=auto6", "eth0 - - -", ""),
            ("ip=dhcp",                       "IP=auto6", "any - - -", ""),
            ("ip=dhcp",                       "IP=eth1:dhcp", "eth1 - - -", ""),
            // The same link
            ("ip=eth0:dhcp",                  "IP=eth0:auto6 eth1:dhcp", "eth0+eth1 - - -", ""),
            ("bond=bond0:eth2 ip=bond0:dhcp", "BOND=bond0:eth0 bond1:eth1;IP=bond1:dhcp", "bond0+bond1 bond0+bond1 - -", ""),
            ("bridge=br0:eth0 vlan=v5:br0 ip=v5:dhcp", "VLAN=v5:eth7 v6:br0;IP=v6:dhcp", "v5+v6 - v5+v6 br0", ""),
            // What does not fit is the setting's fault, whatever its kind …
            ("ip=eth0:dhcp",                  BOND, "eth0 - - -", "NET_BOND: eth0, a part of bond0, has an address of its own by ip=; ignored"),
            ("bridge=br0:eth0 ip=br0:dhcp",   TAGGED, "br0+bond0.5 - bond0.5 br0", "NET_BOND: eth0 is a member of br0 already; ignored"),
            ("bridge=br0:eth0 ip=br0:dhcp",   "BOND=br0:eth1", "br0 - - br0", "NET_BOND: br0 is the name of a bridge already; ignored"),
            ("bridge=br0:v5 ip=br0:dhcp",     "VLAN=v5:br0", "br0 - - br0", "NET_VLAN: v5 would be made of itself; ignored"),
            ("bond=b:eth0 ip=b:dhcp",         "IP=eth0:dhcp", "b b - -", "NET_IP: eth0 is in a bond (b), which is what has an address; ignored"),
            ("ip=eth0:dhcp",                  "IP=BOOTIF:dhcp", "eth0 - - -", "NET_IP: there is no BOOTIF= that says which port it is; ignored"),
            // … and what is of no use is left
            ("ip=dhcp bond=b:eth1",           "IP=eth0:dhcp", "eth0 b - -", "NET_IP: nothing has an address on b, or on what is made of it"),
            ("ip=eth0:dhcp",                  "BOND=b:eth1", "eth0 b - -", "NET_BOND: nothing has an address on b, or on what is made of it"),
            ("ip=dhcp",                       "IP=eth0:none", "(eth0) - - -", "NET_IP: no ip= asks for an address: the boot waits until somebody else gives a link one"),
            // What the boot has said of the command line is not said once more.
            ("ip=eth0:dhcp bond=b:eth1 bootdev=eth2", "IP=eth3:dhcp", "eth0+eth3 b - - bootdev=eth2", ""),
            ("ip=eth0:dhcp bond=b:eth1",      "", "eth0 b - -", ""),
        ];
        for (line, settings, expected, said) in cases {
            let settings: Vec<(String, &str)> = settings
                .split(';')
                .filter_map(|one| one.split_once('='))
                .map(|(name, value)| (format!("NET_{name}"), value))
                .collect();
            let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let settings = Settings::of(&settings);
            let (wanted, wrong) = description(&settings);
            assert_eq!(wrong, vec![], "{line} {settings:?}");
            let (all, complaints) = Request::read(line).network.with_settings(wanted);
            assert_eq!(shown(&all), expected, "{line} {settings:?}");
            let complaints: Vec<_> = complaints.iter().map(|c| of_complaint(&settings, c).to_string()).collect();
            assert_eq!(complaints.join("; "), said, "{line} {settings:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn names_routes_and_name_servers_are_added_unless_they_were_typed() {
        let settings = Settings::of(&[
            ("NET_IFNAME", "data:52:54:00:aa:bb:cc disk:52:54:00:00:00:01"),
            ("NET_ROUTE", "10.1.0.0/16:10.0.0.1 10.2.0.0/16:10.0.0.1"),
            ("NET_NAMESERVER", "10.0.0.53"),
        ]);
        let wanted = || description(&settings).0;
        let (all, _) = Request::read("ifname=boot:52:54:00:aa:bb:cc rd.route=10.1.0.0/16:10.0.0.9 nameserver=10.0.0.54")
            .network.with_settings(wanted());
        let names: Vec<_> = all.names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["boot", "disk"], "one port, one name");
        let routes: Vec<_> = all.routes.iter().map(|route| route.via.unwrap().to_string()).collect();
        assert_eq!(routes, ["10.0.0.9", "10.0.0.1"], "one destination, one way");
        assert_eq!(all.dns, [std::net::IpAddr::from([10, 0, 0, 54])]);
        let (all, _) = Description::default().with_settings(wanted());
        assert_eq!((all.names.len(), all.routes.len(), all.dns.len()), (2, 2, 1));
    }
}
