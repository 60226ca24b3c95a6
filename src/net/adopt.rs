//! A link that somebody configured before us: the init of another initramfs (klibc's `ipconfig`,
//! dhclient, networkd, dhcpcd), or the kernel with `ip=`. Its address is the machine's already, and
//! an operator may be logged in through it.
//!
//! We ask DHCP for the same address as the same client as ever, because the lease says more than
//! the link does, and because somebody has to renew it. When nobody answers, the link stays as it
//! is. Never two addresses: where the server insists on another one, that one takes its place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use super::kernel::{Link, Shape};
use super::{Lease, Mac, Route};

/// How long DHCP may be silent on a link that has an address without it. A server that looks its
/// clients up in a directory takes a second or two.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a link was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub lease: Lease,
    /// By hand, so there is nobody to ask.
    pub by_hand: bool,
}

/// Links that have an address and a carrier, with all that is known about them; `run` is `/run`.
pub fn found(
    links: &[Link],
    addresses: &[(u32, Ipv4Addr, u8)],
    routes: &[(u32, Route)],
    run: &Path,
) -> BTreeMap<u32, Found> {
    let usable =
        |link: &&Link| link.has_carrier && matches!(link.shape, Shape::Port | Shape::Composed);
    let found = links.iter().filter(usable).filter_map(|link| {
        let mine = |address: &&(u32, Ipv4Addr, u8)| address.0 == link.index && is_usable(address.1);
        let (_, address, prefix) = *addresses.iter().find(mine)?;
        let mut lease = Lease::of_address(address, prefix);
        lease.routes =
            routes.iter().filter(|(on, _)| *on == link.index).map(|(_, to)| *to).collect();
        let file = std::fs::read_to_string(run.join(format!("net-{}.conf", link.name)));
        let values = values(&file.unwrap_or_default());
        // A file of an earlier time speaks of an earlier address.
        let current = values.get("IPV4ADDR").is_none_or(|text| text.parse() == Ok(address));
        let by_hand = current && complete(&mut lease, &values);
        Some((link.index, Found { lease, by_hand }))
    });
    found.collect()
}

/// The addresses of a bond, bridge or VLAN and of all links that it is made of, each one once; `sys`
/// is `/sys`. Those of ports are as they are now: a bond gives them its own.
pub fn beneath(link: &str, sys: &Path) -> Vec<Mac> {
    let class = sys.join("class/net");
    let (mut names, mut macs) = (vec![link.to_owned()], Vec::new());
    // Links cannot be stacked in circles; what is deeper than this is none of a machine's.
    let mut visited = 0;
    while let Some(name) = names.pop().filter(|_| visited < 64) {
        visited += 1;
        let folder = class.join(name);
        let address = std::fs::read_to_string(folder.join("address")).unwrap_or_default();
        if let Ok(mac) = address.trim().parse()
            && !macs.contains(&mac)
        {
            macs.push(mac);
        }
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("lower_").map(str::to_owned)
        }));
    }
    macs
}

/// An address that others can reach: one that a link gives itself (RFC 3927) is none.
fn is_usable(address: Ipv4Addr) -> bool {
    !address.is_link_local() && !address.is_loopback() && !address.is_unspecified()
}

/// Adds what klibc's file says beyond what the kernel knows; whether the address was typed.
fn complete(lease: &mut Lease, values: &BTreeMap<String, String>) -> bool {
    let text = |name: &str| values.get(name).filter(|text| !text.is_empty()).cloned();
    let address = |name: &str| -> Option<Ipv4Addr> {
        text(name)?.parse().ok().filter(|address: &Ipv4Addr| !address.is_unspecified())
    };
    let dns = [address("IPV4DNS0"), address("IPV4DNS1")];
    lease.dns = dns.into_iter().flatten().map(IpAddr::V4).collect();
    lease.domain = text("DNSDOMAIN");
    let search = text("DOMAINSEARCH").or_else(|| lease.domain.clone()).unwrap_or_default();
    lease.search = search.split_whitespace().map(str::to_owned).collect();
    lease.hostname = text("HOSTNAME");
    lease.next_server = address("ROOTSERVER");
    lease.root_path = text("ROOTPATH");
    lease.filename = text("filename");
    matches!(text("PROTO").as_deref(), Some("none" | "off" | "static"))
}

/// `NAME='value'` in lines, as `/run/net-IFACE.conf` has them for a shell: single quotes, double
/// ones without anything to expand, or none. What else a shell could read is left out.
fn values(text: &str) -> BTreeMap<String, String> {
    let value = |quoted: &str| {
        if let Some(inner) = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            return Some(inner.replace(r"'\''", "'"));
        }
        let quotes = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let bare = quotes.unwrap_or(quoted);
        (!bare.contains(['\'', '"', '$', '`', '\\'])).then(|| bare.to_owned())
    };
    let lines = text.lines().filter_map(|line| {
        let (name, quoted) = line.trim().split_once('=')?;
        Some((name.to_owned(), value(quoted)?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, shape: Shape, has_carrier: bool) -> Link {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Link { shape, is_up: true, has_carrier, ..Link::port(index, name, mac) }
    }

    #[test]
    #[rustfmt::skip]
    fn a_link_with_an_address_and_a_carrier_is_somebodys_already() {
        let links = [
            link(1, "lo", Shape::Loopback, true),
            link(2, "eth0", Shape::Port, true),
            link(3, "eth1", Shape::Port, false),
            link(4, "bond0", Shape::Composed, true),
            link(5, "tun0", Shape::Other, true),
        ];
        let own = [127, 0, 0, 1];
        let cases: [(&str, &[(u32, [u8; 4])], &[u32]); 8] = [
            ("nothing",                       &[],                                     &[]),
            ("loopback",                      &[(1, own)],                             &[]),
            ("an Ethernet link",              &[(1, own), (2, [10, 0, 0, 5])],         &[2]),
            ("a cable that is not there",     &[(3, [10, 0, 0, 5])],                   &[]),
            ("a bond that the host made",     &[(4, [10, 0, 0, 5])],                   &[4]),
            ("what we do not boot from",      &[(5, [10, 0, 0, 5])],                   &[]),
            ("an address of its own making",  &[(2, [169, 254, 7, 7])],                &[]),
            ("the first of several",          &[(2, [169, 254, 7, 7]), (2, [10, 0, 0, 5]), (2, [10, 0, 0, 6])], &[2]),
        ];
        for (case, addresses, expected) in cases {
            let addresses: Vec<_> = addresses.iter().map(|(on, a)| (*on, Ipv4Addr::from(*a), 24)).collect();
            let got = found(&links, &addresses, &[], Path::new("/nonexistent"));
            assert_eq!(got.keys().copied().collect::<Vec<_>>(), expected, "{case}");
            for found in got.values() {
                assert_eq!(found.lease.address, Ipv4Addr::new(10, 0, 0, 5), "{case}");
            }
        }
    }

    #[test]
    fn a_vlan_on_a_bond_has_ports() {
        let sys = tempfile::tempdir().unwrap();
        for (name, mac, lower) in [
            ("bond0.5", "02:00:00:00:00:01", &["bond0"][..]),
            ("bond0", "02:00:00:00:00:01", &["eth0", "eth1"]),
            ("eth0", "02:00:00:00:00:01", &[]),
            ("eth1", "02:00:00:00:00:02", &[]),
            ("eth2", "02:00:00:00:00:03", &[]),
        ] {
            let folder = sys.path().join("class/net").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("address"), format!("{mac}\n")).unwrap();
            for lower in lower {
                std::os::unix::fs::symlink(
                    format!("../{lower}"),
                    folder.join(format!("lower_{lower}")),
                )
                .unwrap();
            }
        }
        let mut macs = beneath("bond0.5", sys.path());
        macs.sort();
        assert_eq!(macs, [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])]);
        assert_eq!(beneath("gone", sys.path()), []);
    }

    #[test]
    fn the_hosts_file_says_what_the_kernel_does_not_know() {
        let run = tempfile::tempdir().unwrap();
        let links = [link(2, "eth0", Shape::Port, true)];
        let default = Route { to: "0.0.0.0/0".parse().unwrap(), via: Some([10, 0, 0, 1].into()) };
        let routes = [(2, default), (7, default)];
        let look = |text: &str| {
            std::fs::write(run.path().join("net-eth0.conf"), text).unwrap();
            let all = found(&links, &[(2, [10, 0, 0, 5].into(), 22)], &routes, run.path());
            all.into_values().next().unwrap()
        };
        // klibc's ipconfig
        let klibc = "DEVICE='eth0'\nPROTO='dhcp'\nIPV4ADDR='10.0.0.5'\nIPV4BROADCAST='10.0.3.255'\n\
            IPV4NETMASK='255.255.252.0'\nIPV4GATEWAY='10.0.0.1'\nIPV4DNS0='10.0.0.2'\n\
            IPV4DNS1='0.0.0.0'\nHOSTNAME='it'\\''s'\nDNSDOMAIN='lan'\nROOTSERVER='10.0.0.3'\n\
            ROOTPATH='nbd:10.0.0.3:focal'\nfilename=''\nDOMAINSEARCH='a.lan b.lan'\n";
        let Found { lease, by_hand } = look(klibc);
        assert!(!by_hand);
        assert_eq!((lease.prefix, lease.gateway()), (22, Some([10, 0, 0, 1].into())));
        assert_eq!(lease.routes, [default]);
        assert_eq!(lease.dns, [IpAddr::from([10, 0, 0, 2])]);
        assert_eq!(lease.search, ["a.lan", "b.lan"]);
        assert_eq!(lease.hostname.as_deref(), Some("it's"));
        assert_eq!(lease.next_server, Some([10, 0, 0, 3].into()));
        assert_eq!(lease.root_path.as_deref(), Some("nbd:10.0.0.3:focal"));
        assert_eq!(lease.filename, None);
        // dhcpcd's hook in newer releases; and what only a shell could know
        let other = look("PROTO=none\nIPV4ADDR=10.0.0.5\nHOSTNAME=\"n1\"\nDNSDOMAIN=\"$X\"\n");
        assert!(other.by_hand);
        assert_eq!((other.lease.hostname.as_deref(), other.lease.domain), (Some("n1"), None));
        // A file about another address
        let other = look("PROTO=none\nIPV4ADDR=10.0.0.9\nHOSTNAME=n1\n");
        assert_eq!((other.by_hand, other.lease.hostname), (false, None));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(\\PC|\n|'|=)*") {
            let _ = values(&text);
        }
    }
}
