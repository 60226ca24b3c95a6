//! What the words about the network mean together, once all of them are read: their order is of no
//! importance.

use std::net::Ipv4Addr;

use super::keys::same_key;
use super::{Problem, Request, Word, fields};
use crate::net::description::{About, AddressRequest, Description, Ipv4Method, Ipv6Method, Needs};

/// Words that say nothing by themselves, and where the pieces of the description come from.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    pub netmask: Option<u8>,
    pub gateway: Option<Ipv4Addr>,
    pub no_bootif: bool,
    /// Byte offsets of words.
    origins: Vec<(About, usize)>,
}

/// How many pieces of each kind there are.
pub fn pieces(network: &Description) -> [About; 5] {
    [
        About::Address(network.addresses.len()),
        About::Name(network.names.len()),
        About::Bond(network.bonds.len()),
        About::Vlan(network.vlans.len()),
        About::Bridge(network.bridges.len()),
    ]
}

impl Pending {
    /// Notes which piece `word` has added, if any: the first that was not there before.
    pub fn remember(&mut self, before: [About; 5], network: &Description, word: &Word<'_>) {
        let added = before.into_iter().zip(pieces(network)).find(|(before, now)| before != now);
        if let Some((piece, _)) = added {
            self.origins.push((piece, word.at));
        }
    }
}

pub fn netmask(value: &str) -> Result<u8, String> {
    fields::ipv4_prefix(value)
        .filter(|prefix| *prefix > 0)
        .ok_or_else(|| format!("\"{value}\" is neither a mask nor a prefix"))
}

pub fn gateway(value: &str) -> Result<Ipv4Addr, String> {
    value.parse().map_err(|_| format!("\"{value}\" is not an IPv4 address"))
}

/// Waits that end nothing here.
pub fn other_timeout(word: &Word<'_>) -> Result<(), String> {
    match word.key.strip_prefix("rd.net.timeout.") {
        Some("dhcp" | "iflink" | "ifup" | "route") => {
            fields::seconds(word.value.unwrap_or_default()).map(drop)
        }
        _ => Err(
            "no such timeout; there are ip-required, carrier, ipv6auto, ipv6dad, dhcp, iflink, \
                  ifup and route"
                .into(),
        ),
    }
}

impl Request {
    pub(super) fn settle_network(&mut self, words: &[Word<'_>]) {
        if self.pending.no_bootif {
            self.network.bootif = None;
        }
        self.network.place_bootif();
        if let Err((key, why)) = self.one_word_address() {
            let word = words.iter().rev().find(|word| same_key(word.key, key));
            self.problems.extend(word.map(|word| Problem::of(word, why)));
        }
        let complaints = self.network.check();
        for complaint in &complaints {
            let origin = self.pending.origins.iter().find(|(about, _)| *about == complaint.about);
            let word = words.iter().rev().find(|word| match (origin, complaint.about) {
                (Some((_, at)), _) => word.at == *at,
                (None, About::Bootdev) => same_key(word.key, "bootdev"),
                (None, _) => false,
            });
            let is_in_force = !complaint.is_error;
            let problem =
                |word| Problem { is_in_force, ..Problem::of(word, complaint.why.clone()) };
            self.problems.extend(word.map(problem));
        }
        self.network = std::mem::take(&mut self.network).without(&complaints);
        self.problems.sort_by_key(|problem| problem.at);
    }

    /// `ip=ADDRESS netmask=MASK gateway=ADDRESS`
    fn one_word_address(&mut self) -> Result<(), (&'static str, String)> {
        let Pending { netmask, gateway, .. } = self.pending;
        let prefix = match (netmask, gateway) {
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                let why = "goes with netmask=, and with an ip= of an address alone";
                return Err(("gateway", why.to_owned()));
            }
            (Some(prefix), _) => prefix,
        };
        let alone = self.network.addresses.iter_mut().find_map(|request| match request.ipv4 {
            Ipv4Method::Dhcp { request: Some(address) } => {
                let only = AddressRequest { ipv4: request.ipv4, ..AddressRequest::any() };
                (*request == only).then_some((request, address))
            }
            _ => None,
        });
        let Some((request, address)) = alone else {
            return Err(("netmask", "goes with an ip= of an address alone".to_owned()));
        };
        request.ipv4 = Ipv4Method::Static { address, prefix, gateway, peer: None };
        request.ipv6 = Ipv6Method::Off;
        request.needs = Needs::Ipv4;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::description::Selector;

    fn understood(line: &str) -> Description {
        let request = Request::read(line);
        assert_eq!(request.problems, vec![], "{line}");
        request.network
    }

    /// A tagged network over two ports, with an address of its own: what no other initramfs puts
    /// together from any order of its words.
    #[test]
    fn order_does_not_matter() {
        let words = [
            "bond=bond0:mac:52:54:00:aa:bb:cc,eth1:mode=802.3ad",
            "vlan=bond0.5:bond0",
            "ip=10.0.0.5::10.0.0.1:24:n5:bond0.5:none",
            "ip=eth2:dhcp",
            "bootdev=bond0.5",
            "nameserver=10.0.0.53",
            "nameserver=10.0.0.54",
        ];
        let forth = understood(&words.join(" "));
        assert_eq!(forth.bonds.len(), 1);
        assert_eq!(forth.vlans[0].over, Selector::Name("bond0".into()));
        assert_eq!(forth.dns.len(), 2);
        let mut back = words;
        back.reverse();
        let mut back = understood(&back.join(" "));
        back.addresses.reverse(); // lists keep the order of their own words
        back.dns.reverse();
        assert_eq!(forth, back);
    }

    #[test]
    #[rustfmt::skip]
    fn pieces_that_do_not_fit_are_reported_at_their_word_and_left_out() {
        // line; offset of the word, what is said, what is left: addresses, bonds, VLANs, bridges
        let cases = [
            ("ip=eth0:dhcp ip=eth0:10.0.0.1",                       13, "live-boot",              [1, 0, 0, 0]),
            ("ip=eth0:dhcp ip=eth0:on",                             13, "another ip= for eth0",   [1, 0, 0, 0]),
            ("ip=dhcp ip=auto6 ip=on",                              17, "whichever link",         [1, 0, 0, 0]),
            ("ip=enx525400aabbcc:dhcp ip=enx525400aabbcc:dhcp",     24, "mac:52:54:00:aa:bb:cc",  [1, 0, 0, 0]),
            ("bond=a1:eth0 vlan=a1:eth1",                           13, "the name of a bond",     [0, 1, 0, 0]),
            ("bond=a:eth0 bond=a:eth1",                             12, "the name of a bond",     [0, 1, 0, 0]),
            ("ifname=a:52:54:00:aa:bb:cc bond=a:eth1",              27, "the name of ifname=",    [0, 0, 0, 0]),
            ("vlan=v5:eth0 vlan=x5:eth0",                           13, "v5 is VLAN 5 over eth0", [0, 0, 1, 0]),
            ("vlan=v5:v5",                                          0,  "made of itself",         [0, 0, 0, 0]),
            ("bond=b:v5 vlan=v5:br bridge=br:b",                    0,  "made of itself",         [0, 0, 1, 1]),
            ("bond=a:eth0,eth1 bond=b:eth1,eth2",                   17, "eth1 is a member of a",  [0, 1, 0, 0]),
            ("bond=a:eth0 bridge=b:eth0",                           12, "eth0 is a member of a",  [0, 1, 0, 0]),
            ("bond=a:eth0,eth0",                                    0,  "twice",                  [0, 0, 0, 0]),
            ("ip=eth0:dhcp bond=a:eth0",                            0,  "eth0 is in a bond (a)",  [0, 1, 0, 0]),
            ("ip=eth2:dhcp bond=a:eth0",                            13, "an address on a,",       [1, 1, 0, 0]),
            ("ip=eth2:dhcp vlan=v5:a bond=a:eth0",                  13, "an address on v5,",      [1, 1, 1, 0]),
            ("ip=eth0:dhcp bootdev=eth1",                           13, "no ip= is for eth1",     [1, 0, 0, 0]),
            ("ip=BOOTIF:dhcp",                                      0,  "no BOOTIF=",             [0, 0, 0, 0]),
            ("netmask=24 ip=dhcp",                                  0,  "address alone",          [1, 0, 0, 0]),
            ("ip=10.0.0.5 gateway=10.0.0.1",                        12, "goes with netmask=",     [1, 0, 0, 0]),
            ("ip=dhcp rd.net.timeout.dchp=3",                       8,  "no such timeout",        [1, 0, 0, 0]),
            ("ip=dhcp rd.net.timeout.carrier=soon",                 8,  "seconds",                [1, 0, 0, 0]),
            ("ip=dhcp team=t:eth0,eth1",                            8,  "bond=t:eth0,eth1:mode=active-backup", [1, 0, 0, 0]),
            ("ip=dhcp landfall.handover=keep",                      8,  "dhcp, static or unmanaged", [1, 0, 0, 0]),
        ];
        for (line, at, expected, left) in cases {
            let request = Request::read(line);
            let first = request.problems.first().unwrap_or_else(|| panic!("{line}: no problem"));
            assert!(request.problems.iter().any(|p| p.at == at && p.why.contains(expected)), "{line}: {first}");
            let network = request.network;
            let counts = [network.addresses.len(), network.bonds.len(), network.vlans.len(), network.bridges.len()];
            assert_eq!(counts, left, "{line}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_fits_together_is_left_alone() {
        for line in [
            "ip=eth7:dhcp",                                        // the port may have this name
            "bond=bond0:eth0,eth1",                                // no ip=: whatever there is
            "bond=bond0:eth0,eth1 vlan=v5:bond0 ip=dhcp",
            "bond=bond0:eth0,eth1 vlan=v5:bond0 bridge=br0:v5 ip=br0:dhcp ip=bond0:auto6",
            "vlan=v5:eth0 vlan=v6:eth0 vlan=x5:eth1 ip=v5:dhcp ip=v6:dhcp ip=x5:dhcp",
            "bond=bond0:eth0,eth1 ip=eth0:none ip=bond0:dhcp:9000", // a member is set up anyway
            "ip=eth0:dhcp bootdev=eth0",
            "ip=dhcp bootdev=eth0",                                // it may be that one
            "ip=enx525400aabbcc:dhcp bootdev=enx525400aabbcc",
            "ip=dhcp rd.neednet=1 rd.net.timeout.dhcp=30 rd.net.timeout.ifup=3",
        ] {
            understood(line);
        }
    }

    #[test]
    fn two_families_of_one_link_are_one_request() {
        let network = understood(
            "ip=10.0.0.5::10.0.0.1:24:n5:eth0:none ip=[fd00::5]/64::[fd00::1]:::eth0:none",
        );
        let [request] = network.addresses.as_slice() else { panic!("{:?}", network.addresses) };
        assert!(matches!(request.ipv4, Ipv4Method::Static { prefix: 24, .. }));
        assert!(matches!(request.ipv6, Ipv6Method::Static { prefix: 64, .. }));
        assert_eq!(request.needs, Needs::Both);
        assert_eq!(request.hostname.as_deref(), Some("n5"));
        let network = understood("ip=eth0:auto6 ip=eth0:dhcp");
        let [request] = network.addresses.as_slice() else { panic!("{:?}", network.addresses) };
        assert_eq!(request.ipv4, Ipv4Method::Dhcp { request: None });
        assert_eq!((request.ipv6, request.needs), (Ipv6Method::Auto, Needs::Both));
    }

    #[test]
    fn an_address_alone_is_static_with_a_netmask() {
        for line in [
            "ip=10.0.0.5 netmask=255.255.255.0 gateway=10.0.0.1",
            "gateway=10.0.0.1 netmask=24 ip=10.0.0.5",
        ] {
            let network = understood(line);
            let [request] = network.addresses.as_slice() else { panic!("{line}") };
            let expected = Ipv4Method::Static {
                address: [10, 0, 0, 5].into(),
                prefix: 24,
                gateway: Some([10, 0, 0, 1].into()),
                peer: None,
            };
            assert_eq!((request.ipv4, request.ipv6), (expected, Ipv6Method::Off), "{line}");
        }
    }

    #[test]
    fn bootif_may_be_switched_off_and_may_be_named() {
        let mac = crate::net::Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
        let line = "rd.bootif=0 BOOTIF=01-52-54-00-aa-bb-cc";
        assert_eq!(Request::read(line).network.bootif, None);
        let network = understood("ip=BOOTIF:dhcp bond=b:eth7 ip=b:dhcp BOOTIF=52-54-00-aa-bb-cc");
        assert_eq!(network.addresses[0].on, Some(Selector::Mac(mac)));
        assert_eq!(network.bootif, Some(mac));
    }

    #[test]
    fn the_last_one_counts_where_there_can_be_one_only() {
        let request = Request::read(
            "landfall.handover=static landfall.handover=unmanaged carrier_timeout=120 \
             rd.net.timeout.carrier=30 rd.net.timeout.ip-required=5 rd.net.timeout.ipv6dad=9 \
             rd.peerdns=0 nfsaddrs=eth0:dhcp ip=eth1:dhcp",
        );
        assert_eq!(request.problems, vec![]);
        use crate::net::description::HandoverMode;
        assert_eq!(request.handover, Some(HandoverMode::Unmanaged));
        assert_eq!(request.network.one_family_after, Some(5));
        assert!(request.network.ignore_peer_dns);
        let devices: Vec<_> = request.network.addresses.iter().map(|a| a.on.clone()).collect();
        assert_eq!(devices, ["eth0", "eth1"].map(|name| Some(Selector::Name(name.into()))));
    }

    /// A value that is used as it stands in the line is asked of DHCP no more.
    #[test]
    fn no_network_at_all_is_no_description() {
        assert_eq!(understood("quiet root=nbd:10.0.0.1:x"), Description::default());
    }
}
