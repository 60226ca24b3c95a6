//! Which links take part, and what an operator should read about those that do not get anywhere.
//! Pure, but for a look into `/sys`, whose root is a parameter.

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use super::choice::{Wants, Worth};
use super::description::{BOOTIF, Description, Selector};
use super::kernel::{Link, Shape};
use super::{Lease, Mac};

/// Whether a link may boot of which nobody has said anything. `bootif`: the port that the firmware
/// has booted from.
///
/// A VLAN has the address of its port, hence the shape; drivers that do not tell the permanent
/// address have just one. On a machine where somebody has been at work, those links are meant that
/// he has `adopted` as the machine's, because a second address would be a second machine.
pub fn takes_part(bootif: Option<Mac>, link: &Link, sys: &Path, adopted: &[u32]) -> bool {
    let is_port = link.shape == Shape::Port && !is_wireless(&link.name, sys);
    match bootif {
        None if !adopted.is_empty() => adopted.contains(&link.index),
        None => is_port,
        // A bond has the address of one of its ports, and the port itself no address any more.
        Some(mac) if adopted.contains(&link.index) && link.mac == mac => true,
        Some(mac) => is_port && mac == link.permanent_mac.unwrap_or(link.mac),
    }
}

/// A radio looks like Ethernet, but needs a password before it has carrier.
pub fn is_wireless(name: &str, sys: &Path) -> bool {
    let folder = sys.join("class/net").join(name);
    folder.join("phy80211").exists()
        || fs::read_to_string(folder.join("uevent")).is_ok_and(|text| {
            text.lines().any(|line| matches!(line, "DEVTYPE=wlan" | "DEVTYPE=wwan"))
        })
}

/// How far a link has got.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    NoCarrier,
    /// Asking since then, in one family or in both.
    Asking {
        lasts: Duration,
        ipv4: Option<Asked>,
        ipv6: Option<Asked>,
        /// A bond by 802.3ad whose switch has not answered.
        lacks_partner: bool,
    },
    Ipv4(Box<Lease>),
    Ipv6(Ipv6Addr, Worth),
}

/// Who was asked, how often, and why the last answer was of no use.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub whom: Whom,
    pub sent: u32,
    pub trouble: Option<String>,
}

/// Whose answer would be an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Dhcp,
    Router,
    /// A router, which has answered without one.
    Prefix,
    Dhcpv6,
    /// The link, by silence: somebody who has a typed address already would speak.
    Nobody,
}

impl Whom {
    /// What is lacking, after "no".
    fn lacks(self) -> &'static str {
        match self {
            Self::Dhcp => "offer",
            Self::Router => "router",
            Self::Prefix => "router with a prefix",
            Self::Dhcpv6 => "DHCPv6 server",
            Self::Nobody => "address of its own",
        }
    }

    fn with_article(self) -> String {
        let article = if matches!(self, Self::Dhcp | Self::Nobody) { "an" } else { "a" };
        format!("{article} {}", self.lacks())
    }
}

/// What is being waited for, in one line.
pub fn survey(
    wanted: &Description,
    links: &[(&str, Progress)],
    others: &[&Link],
    driverless: &[String],
    wants: Wants,
) -> String {
    let mut missing = absent(wanted, links, others);
    if links.is_empty() {
        if missing.is_empty() {
            missing.push(match wanted.bootif {
                None => "an Ethernet link to appear".to_owned(),
                Some(mac) => format!("a link with the address {mac} to appear"),
            });
        }
        let mut text = missing.join(", ");
        let shown: Vec<_> = others
            .iter()
            .filter(|link| matches!(link.shape, Shape::Port | Shape::Composed))
            .map(|link| format!("{} {}", link.name, link.permanent_mac.unwrap_or(link.mac)))
            .collect();
        if !shown.is_empty() {
            text = format!("{text}; there is {}", shown.join(", "));
        }
        if !driverless.is_empty() {
            text = format!("{text}; no driver for {}", driverless.join(", "));
        }
        return text;
    }
    let (mut dark, mut parts, mut at_hand) = (Vec::new(), Vec::new(), Vec::new());
    for (name, progress) in links {
        match progress {
            Progress::NoCarrier => dark.push(*name),
            Progress::Asking { ipv4, ipv6, lacks_partner, .. } => {
                if *lacks_partner {
                    parts.push(format!("the switch to answer {name} (802.3ad)"));
                }
                // A port that only carries VLANs.
                if ipv4.is_none() && ipv6.is_none() {
                    continue;
                }
                let (what, times, troubles) = asked(ipv4.as_ref(), ipv6.as_ref(), " or ");
                parts.push(format!("{what} on {name} (asked {times}{troubles})"));
            }
            Progress::Ipv4(lease) if wants.lack_a_root(lease) => {
                at_hand.push(format!("{} on {name} names no root", lease.address));
            }
            Progress::Ipv4(lease) => {
                at_hand.push(format!("{} on {name} will do otherwise", lease.address));
            }
            Progress::Ipv6(address, _) => {
                at_hand.push(format!("{address} on {name} will do otherwise"));
            }
        }
    }
    if !dark.is_empty() {
        parts.push(format!("carrier on {}", dark.join(", ")));
    }
    parts.extend(missing);
    if !parts.is_empty() {
        at_hand.insert(0, parts.join(", "));
    }
    at_hand.join("; ")
}

/// Links that somebody has named and that are not there, with what they wait for themselves.
fn absent(wanted: &Description, links: &[(&str, Progress)], others: &[&Link]) -> Vec<String> {
    let is_there = |name: &str| {
        links.iter().any(|(known, _)| *known == name) || others.iter().any(|l| l.name == name)
    };
    let list =
        |parts: &[Selector]| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    let bonds = wanted.bonds.iter().map(|bond| (&bond.name, bond.members.as_slice()));
    let vlans = wanted.vlans.iter().map(|vlan| (&vlan.name, std::slice::from_ref(&vlan.over)));
    let bridges = wanted.bridges.iter().map(|bridge| (&bridge.name, bridge.ports.as_slice()));
    let made: Vec<_> = bonds.chain(vlans).chain(bridges).collect();
    for (name, parts) in &made {
        // What is itself to be made is told of in its own place.
        let awaits_another = parts
            .iter()
            .any(|part| part.name().is_some_and(|part| made.iter().any(|(name, _)| *name == part)));
        if !is_there(name) && !awaits_another {
            lines.push(format!("a link for {name} ({})", list(parts)));
        }
    }
    let named = wanted.addresses.iter().filter_map(|request| request.on.as_ref()?.name());
    // Others need not be there, and a name made of an address is no link's.
    let bootdev = wanted.bootdev.as_deref().filter(|name| Selector::named(name).name().is_some());
    let bootdev =
        bootdev.filter(|name| *name != BOOTIF && !named.clone().any(|named| named == *name));
    for name in named.chain(bootdev).filter(|name| !made.iter().any(|(made, _)| made == name)) {
        if !is_there(name) {
            lines.push(format!("the link {name} to appear"));
        }
    }
    lines
}

/// What was asked for, how often, and what went wrong.
fn asked(ipv4: Option<&Asked>, ipv6: Option<&Asked>, joint: &str) -> (String, String, String) {
    let (what, times) = match (ipv4, ipv6) {
        (Some(four), Some(six)) => {
            let what = [four, six].map(|asked| asked.whom.with_article()).join(joint);
            (what, format!("{} and {} times", four.sent, six.sent))
        }
        (None, Some(six)) => (six.whom.with_article(), format!("{} times", six.sent)),
        (four, None) => {
            ("an offer".to_owned(), format!("{} times", four.map_or(0, |four| four.sent)))
        }
    };
    let troubles = [ipv4, ipv6].into_iter().flatten().filter_map(|asked| asked.trouble.as_ref());
    (what, times, troubles.map(|trouble| format!("; {trouble}")).collect())
}

/// Why each of the `losers` was not chosen, a line each; those without carrier share one. `winner`:
/// its name and what it can do.
pub fn why_not(losers: &[(&str, Progress)], winner: (&str, Worth), wants: Wants) -> Vec<String> {
    let (mut dark, mut lines) = (Vec::new(), Vec::new());
    let why = |worth: Worth| match (worth, winner.1) {
        (mine, other) if mine == other => format!("{} was first", winner.0),
        (_, Worth::NamesRoot) => "it names no root".to_owned(),
        (mine, other) if mine < other => "it names no boot server".to_owned(),
        _ => format!("{} was asked for", winner.0),
    };
    for (name, progress) in losers {
        match progress {
            Progress::NoCarrier => dark.push(*name),
            Progress::Asking { lasts, ipv4, ipv6, .. } => {
                let (_, times, _) = asked(ipv4.as_ref(), ipv6.as_ref(), "");
                let none = match (ipv4, ipv6) {
                    (Some(_), Some(six)) => format!("no offer and no {}", six.whom.lacks()),
                    (None, Some(six)) => format!("no {}", six.whom.lacks()),
                    (_, None) => "no offer".to_owned(),
                };
                let trouble = [ipv4, ipv6].into_iter().flatten().find_map(|a| a.trouble.clone());
                let what = match trouble {
                    Some(trouble) => trouble,
                    None if lasts.as_secs() == 0 => format!("{none} yet"),
                    None => {
                        format!("{none} in {:.1} s (asked {times})", lasts.as_secs_f32())
                    }
                };
                lines.push(format!("{name} is not used: carrier, but {what}"));
            }
            Progress::Ipv4(lease) => {
                let from = lease.server_id.map(|id| format!(" from {id}")).unwrap_or_default();
                let (address, prefix) = (lease.address, lease.prefix);
                let why = why(wants.worth(lease));
                lines.push(format!(
                    "{name} is not used: offer of {address}/{prefix}{from}, but {why}"
                ));
            }
            Progress::Ipv6(address, worth) => {
                lines.push(format!("{name} is not used: {address}, but {}", why(*worth)));
            }
        }
    }
    if !dark.is_empty() {
        lines.push(format!("no carrier on {}", dark.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::description::{AddressRequest, Bond};
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    const BURNT_IN: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    const SET: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn link(name: &str, shape: Shape, permanent_mac: Option<Mac>) -> Link {
        Link { shape, permanent_mac, ..Link::port(2, name, SET) }
    }

    #[test]
    #[rustfmt::skip]
    fn a_port_may_boot_and_what_somebody_has_adopted_is_meant() {
        let sys = tempfile::tempdir().unwrap();
        let radio = sys.path().join("class/net/wlan0");
        fs::create_dir_all(&radio).unwrap();
        fs::write(radio.join("uevent"), "DEVTYPE=wlan\nINTERFACE=wlan0\n").unwrap();
        let port = || link("eth0", Shape::Port, Some(BURNT_IN));
        let bond = || link("bond0", Shape::Composed, None);
        let cases: [(Option<Mac>, Link, &[u32], bool); 13] = [
            (None,           port(),                              &[],  true),
            (None,           bond(),                              &[],  false),
            (None,           link("lo", Shape::Loopback, None),   &[],  false),
            (None,           link("wlan0", Shape::Port, None),    &[],  false),
            (Some(BURNT_IN), port(),                              &[],  true),
            (Some(SET),      port(),                              &[],  false),
            (Some(SET),      link("eth0", Shape::Port, None),     &[],  true),
            (Some(SET),      link("vlan5", Shape::Composed, None),&[],  false),
            (None,           port(),                              &[2], true),
            (None,           port(),                              &[7], false), // another is the machine's
            (None,           bond(),                              &[2], true),
            (Some(SET),      bond(),                              &[2], true),  // pxelinux names a port of it
            (Some(BURNT_IN), bond(),                              &[2], false),
        ];
        for (bootif, link, adopted, expected) in cases {
            let got = takes_part(bootif, &link, sys.path(), adopted);
            assert_eq!(got, expected, "{bootif:?} {} {adopted:?}", link.name);
        }
    }

    fn asked(sent: u32, trouble: Option<&str>) -> Option<Asked> {
        Some(Asked { whom: Whom::Dhcp, sent, trouble: trouble.map(str::to_owned) })
    }

    fn asked_of(whom: Whom, sent: u32) -> Option<Asked> {
        Some(Asked { whom, sent, trouble: None })
    }

    fn asking(ipv4: Option<Asked>, ipv6: Option<Asked>) -> Progress {
        Progress::Asking { lasts: Duration::from_millis(3040), ipv4, ipv6, lacks_partner: false }
    }

    #[test]
    #[rustfmt::skip]
    fn the_operator_reads_what_is_missing() {
        let eth0 = link("eth0", Shape::Port, None);
        let lo = link("lo", Shape::Loopback, None);
        let others = [&lo, &eth0];
        let any = Description::default;
        let booted = || Description { bootif: Some(BURNT_IN), ..any() };
        let on = |name: &str| AddressRequest { on: Some(Selector::Name(name.into())), ..AddressRequest::any() };
        let members = vec![Selector::Name("eth7".into()), Selector::Driver("igb".into())];
        let bond = Bond { name: "bond0".into(), members, options: Default::default(), mtu: None };
        let bonded = || Description { bonds: vec![bond.clone()], addresses: vec![on("bond0")], ..any() };
        let leased = Progress::Ipv4(Box::new(lease("10.0.0.5/24")));
        let useless = "10.0.0.9 offers nothing usable: it has no subnet mask";
        let cases = [
            (any(), vec![], &others[..1], vec![],
             "an Ethernet link to appear"),
            (any(), vec![], &others[..1], vec!["PCI 8086:100e at 0000:00:03.0".to_owned()],
             "an Ethernet link to appear; no driver for PCI 8086:100e at 0000:00:03.0"),
            (booted(), vec![], &others[..], vec![],
             "a link with the address 52:54:00:aa:bb:cc to appear; there is eth0 02:00:00:00:00:01"),
            (Description { addresses: vec![on("eth3")], ..any() }, vec![], &others[..], vec![],
             "the link eth3 to appear; there is eth0 02:00:00:00:00:01"),
            (bonded(), vec![], &others[..], vec![],
             "a link for bond0 (eth7, driver:igb); there is eth0 02:00:00:00:00:01"),
            (any(), vec![("eth0", Progress::NoCarrier), ("eth1", asking(asked(6, None), None)), ("eth2", Progress::NoCarrier)], &others[..], vec![],
             "an offer on eth1 (asked 6 times), carrier on eth0, eth2"),
            (any(), vec![("eth1", asking(asked(6, None), asked_of(Whom::Router, 4)))], &others[..], vec![],
             "an offer or a router on eth1 (asked 6 and 4 times)"),
            (any(), vec![("eth1", asking(None, asked_of(Whom::Router, 4)))], &others[..], vec![],
             "a router on eth1 (asked 4 times)"),
            (any(), vec![("eth1", asking(None, asked_of(Whom::Dhcpv6, 3)))], &others[..], vec![],
             "a DHCPv6 server on eth1 (asked 3 times)"),
            (bonded(), vec![("bond0", Progress::Asking { lasts: Duration::ZERO, ipv4: asked(2, None), ipv6: None, lacks_partner: true })], &others[..], vec![],
             "the switch to answer bond0 (802.3ad), an offer on bond0 (asked 2 times)"),
            (Description { bootdev: Some("eth9".into()), ..any() }, vec![("eth0", leased.clone())], &others[..], vec![],
             "the link eth9 to appear; 10.0.0.5 on eth0 will do otherwise"),
            (any(), vec![("eth0", asking(None, None)), ("eth1", asking(asked(1, None), None))], &others[..], vec![],
             "an offer on eth1 (asked 1 times)"),
            (any(), vec![("eth0", leased), ("eth1", asking(asked(6, Some(useless)), None))], &others[..], vec![],
             "an offer on eth1 (asked 6 times; 10.0.0.9 offers nothing usable: it has no subnet mask); 10.0.0.5 on eth0 will do otherwise"),
        ];
        for (wanted, links, others, driverless, expected) in cases {
            assert_eq!(survey(&wanted, &links, others, &driverless, Wants::of(&plan())), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn losers_are_explained() {
        let plain = Lease { server_id: Some([10, 1, 0, 1].into()), ..lease("10.1.0.5/24") };
        let boot = Lease { next_server: Some([10, 0, 0, 1].into()), ..lease("10.0.0.5/24") };
        let losers = [
            ("eth1", Progress::NoCarrier),
            ("eth2", asking(asked(6, None), None)),
            ("eth3", Progress::Ipv4(Box::new(plain))),
            ("eth4", Progress::Ipv4(Box::new(boot))),
            ("eth5", Progress::NoCarrier),
            ("eth6", asking(asked(6, None), asked_of(Whom::Router, 4))),
            ("eth7", Progress::Ipv6("2001:db8::5".parse().unwrap(), Worth::Usable)),
        ];
        let expected = [
            "eth2 is not used: carrier, but no offer in 3.0 s (asked 6 times)",
            "eth3 is not used: offer of 10.1.0.5/24 from 10.1.0.1, but it names no boot server",
            "eth4 is not used: offer of 10.0.0.5/24, but eth0 was first",
            "eth6 is not used: carrier, but no offer and no router in 3.0 s (asked 6 and 4 times)",
            "eth7 is not used: 2001:db8::5, but it names no boot server",
            "no carrier on eth1, eth5",
        ];
        let rootless = [("eth0", Progress::Ipv4(Box::new(lease("10.0.0.5/24")))), ("eth1", Progress::NoCarrier)];
        let wants = Wants { root: true, ..Wants::of(&plan()) };
        assert_eq!(survey(&Description::default(), &rootless, &[], &[], wants), "carrier on eth1; 10.0.0.5 on eth0 names no root");
        let winner = ("eth0", Worth::NamesServer);
        assert_eq!(why_not(&losers, winner, Wants::of(&plan())), expected);
    }
}
