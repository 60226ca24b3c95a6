//! Which links take part, and what an operator should read about those that do not get anywhere.
//! Pure, but for a look into `/sys`, whose root is a parameter.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::choice::{Wants, Worth};
use super::kernel::{Link, Shape};
use super::{Lease, LinkChoice};

/// Whether the plan lets this link become the boot link.
pub fn may_boot(choice: &LinkChoice, link: &Link, sys: &Path) -> bool {
    match choice {
        LinkChoice::Any => link.shape == Shape::Port && !is_wireless(&link.name, sys),
        // Who names a bridge or a VLAN means it.
        LinkChoice::Name(name) => {
            *name == link.name && matches!(link.shape, Shape::Port | Shape::Composed)
        }
        // A VLAN has the address of its port, hence the shape; drivers that do not tell the
        // permanent address have just one.
        LinkChoice::Mac(mac) => {
            link.shape == Shape::Port && *mac == link.permanent_mac.unwrap_or(link.mac)
        }
    }
}

/// The same on a machine where somebody has been at work: of any links, those he has `adopted` as
/// the machine's are meant, because a second address would be a second machine.
pub fn takes_part(choice: &LinkChoice, link: &Link, sys: &Path, adopted: &[u32]) -> bool {
    match choice {
        LinkChoice::Any if !adopted.is_empty() => adopted.contains(&link.index),
        // A bond has the address of one of its ports, and the port itself no address any more.
        LinkChoice::Mac(mac) if adopted.contains(&link.index) && link.mac == *mac => true,
        _ => may_boot(choice, link, sys),
    }
}

/// A radio looks like Ethernet, but needs a password before it has carrier.
fn is_wireless(name: &str, sys: &Path) -> bool {
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
    /// Asking since then, with so many messages; and why the last offer was of no use.
    Asking {
        lasts: Duration,
        sent: u32,
        trouble: Option<String>,
    },
    Leased(Box<Lease>),
}

/// What is being waited for, in one line.
pub fn survey(
    choice: &LinkChoice,
    links: &[(&str, Progress)],
    others: &[&Link],
    driverless: &[String],
) -> String {
    if links.is_empty() {
        let mut text = match choice {
            LinkChoice::Any => "an Ethernet link to appear".to_owned(),
            LinkChoice::Name(name) => format!("the link {name} to appear"),
            LinkChoice::Mac(mac) => format!("a link with the address {mac} to appear"),
        };
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
            Progress::Asking { sent, trouble, .. } => {
                let trouble = trouble.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
                parts.push(format!("an offer on {name} (asked {sent} times{trouble})"));
            }
            Progress::Leased(lease) => {
                at_hand.push(format!("{} on {name} will do otherwise", lease.address));
            }
        }
    }
    if !dark.is_empty() {
        parts.push(format!("carrier on {}", dark.join(", ")));
    }
    let parts = parts.join(", ");
    std::iter::once(parts).chain(at_hand).collect::<Vec<_>>().join("; ")
}

/// Why each of the `losers` was not chosen, a line each; those without carrier share one.
pub fn why_not(losers: &[(&str, Progress)], winner: (&str, &Lease), wants: Wants) -> Vec<String> {
    let (mut dark, mut lines) = (Vec::new(), Vec::new());
    for (name, progress) in losers {
        match progress {
            Progress::NoCarrier => dark.push(*name),
            Progress::Asking { lasts, sent, trouble } => {
                let what = match trouble {
                    Some(trouble) => trouble.clone(),
                    None if lasts.as_secs() == 0 => "no offer yet".to_owned(),
                    None => {
                        format!("no offer in {:.1} s (asked {sent} times)", lasts.as_secs_f32())
                    }
                };
                lines.push(format!("{name} is not used: carrier, but {what}"));
            }
            Progress::Leased(lease) => {
                let from = lease.server_id.map(|id| format!(" from {id}")).unwrap_or_default();
                let why = match (wants.worth(lease), wants.worth(winner.1)) {
                    (mine, other) if mine == other => format!("{} was first", winner.0),
                    (_, Worth::NamesRoot) => "it names no root".to_owned(),
                    _ => "it names no boot server".to_owned(),
                };
                let (address, prefix) = (lease.address, lease.prefix);
                lines.push(format!(
                    "{name} is not used: offer of {address}/{prefix}{from}, but {why}"
                ));
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
    use crate::net::Mac;
    use crate::net::kernel::Kind;
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    const BURNT_IN: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    const SET: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn link(name: &str, shape: Shape, permanent_mac: Option<Mac>) -> Link {
        Link {
            index: 2,
            name: name.into(),
            shape,
            kind: Kind::Port,
            master: None,
            lower: None,
            driver: None,
            has_partner: None,
            mac: SET,
            permanent_mac,
            is_up: false,
            has_carrier: false,
            mtu: 1500,
        }
    }

    #[test]
    #[rustfmt::skip]
    fn only_links_that_the_plan_means_take_part() {
        let sys = tempfile::tempdir().unwrap();
        let radio = sys.path().join("class/net/wlan0");
        fs::create_dir_all(&radio).unwrap();
        fs::write(radio.join("uevent"), "DEVTYPE=wlan\nINTERFACE=wlan0\n").unwrap();

        let any = LinkChoice::Any;
        let named = |name: &str| LinkChoice::Name(name.into());
        let cases = [
            (&any,                        link("eth0",  Shape::Port, None),                true),
            (&any,                        link("br0",   Shape::Composed, None),            false),
            (&any,                        link("lo",    Shape::Loopback, None),            false),
            (&any,                        link("wlan0", Shape::Port, None),                false),
            (&named("eth1"),              link("eth1",  Shape::Port, None),                true),
            (&named("eth1"),              link("eth0",  Shape::Port, None),                false),
            (&named("bond0"),             link("bond0", Shape::Composed, None),            true),
            (&named("lo"),                link("lo",    Shape::Loopback, None),            false),
            (&LinkChoice::Mac(BURNT_IN),  link("eth0",  Shape::Port, Some(BURNT_IN)),      true),
            (&LinkChoice::Mac(SET),       link("eth0",  Shape::Port, Some(BURNT_IN)),      false),
            (&LinkChoice::Mac(SET),       link("eth0",  Shape::Port, None),                true),
            (&LinkChoice::Mac(SET),       link("vlan5", Shape::Composed, None),            false),
        ];
        for (choice, link, expected) in cases {
            assert_eq!(may_boot(choice, &link, sys.path()), expected, "{choice:?} {}", link.name);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_somebody_has_adopted_is_meant_unless_the_plan_names_another() {
        let sys = Path::new("/nonexistent");
        let any = LinkChoice::Any;
        let named = LinkChoice::Name("eth0".into());
        let port = || link("eth0", Shape::Port, Some(BURNT_IN));
        let bond = || link("bond0", Shape::Composed, None);
        let cases: [(&LinkChoice, Link, &[u32], bool); 8] = [
            (&any,                       port(), &[],  true),
            (&any,                       port(), &[2], true),
            (&any,                       port(), &[7], false), // another is the machine's
            (&any,                       bond(), &[2], true),
            (&named,                     port(), &[7], true),
            (&named,                     bond(), &[2], false),
            (&LinkChoice::Mac(SET),      bond(), &[2], true),  // pxelinux names a port of it
            (&LinkChoice::Mac(BURNT_IN), bond(), &[2], false),
        ];
        for (choice, link, adopted, expected) in cases {
            let got = takes_part(choice, &link, sys, adopted);
            assert_eq!(got, expected, "{choice:?} {} {adopted:?}", link.name);
        }
    }

    fn asking(trouble: Option<&str>) -> Progress {
        let trouble = trouble.map(str::to_owned);
        Progress::Asking { lasts: Duration::from_millis(3040), sent: 6, trouble }
    }

    #[test]
    #[rustfmt::skip]
    fn the_operator_reads_what_is_missing() {
        let eth0 = link("eth0", Shape::Port, None);
        let lo = link("lo", Shape::Loopback, None);
        let others = [&lo, &eth0];
        let choice = |mac| LinkChoice::Mac(mac);
        let cases = [
            (LinkChoice::Any, vec![], &others[..1], vec![],
             "an Ethernet link to appear"),
            (LinkChoice::Any, vec![], &others[..1], vec!["PCI 8086:100e at 0000:00:03.0".to_owned()],
             "an Ethernet link to appear; no driver for PCI 8086:100e at 0000:00:03.0"),
            (choice(BURNT_IN), vec![], &others[..], vec![],
             "a link with the address 52:54:00:aa:bb:cc to appear; there is eth0 02:00:00:00:00:01"),
            (LinkChoice::Any, vec![("eth0", Progress::NoCarrier), ("eth1", asking(None)), ("eth2", Progress::NoCarrier)], &others[..], vec![],
             "an offer on eth1 (asked 6 times), carrier on eth0, eth2"),
            (LinkChoice::Any, vec![("eth0", Progress::Leased(Box::new(lease("10.0.0.5/24")))), ("eth1", asking(Some("10.0.0.9 offers nothing usable: it has no subnet mask")))], &others[..], vec![],
             "an offer on eth1 (asked 6 times; 10.0.0.9 offers nothing usable: it has no subnet mask); 10.0.0.5 on eth0 will do otherwise"),
        ];
        for (choice, links, others, driverless, expected) in cases {
            assert_eq!(survey(&choice, &links, others, &driverless), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn losers_are_explained() {
        let plain = Lease { server_id: Some([10, 1, 0, 1].into()), ..lease("10.1.0.5/24") };
        let boot = Lease { next_server: Some([10, 0, 0, 1].into()), ..lease("10.0.0.5/24") };
        let losers = [
            ("eth1", Progress::NoCarrier),
            ("eth2", asking(None)),
            ("eth3", Progress::Leased(Box::new(plain))),
            ("eth4", Progress::Leased(Box::new(boot.clone()))),
            ("eth5", Progress::NoCarrier),
        ];
        let expected = [
            "eth2 is not used: carrier, but no offer in 3.0 s (asked 6 times)",
            "eth3 is not used: offer of 10.1.0.5/24 from 10.1.0.1, but it names no boot server",
            "eth4 is not used: offer of 10.0.0.5/24, but eth0 was first",
            "no carrier on eth1, eth5",
        ];
        assert_eq!(why_not(&losers, ("eth0", &boot), Wants::of(&plan())), expected);
    }
}
