//! Router advertisements on the wire (RFC 4861 section 4.2; RFC 4191 for preferences and routes,
//! RFC 8106 for DNS), and the solicitation that asks for one.
//!
//! Pure. Whether a message comes from this link is for whoever received it to say.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::net::Mac;
use crate::net::lease6::Preference;
use crate::net::names;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

const SOURCE_ADDRESS: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const ROUTE_INFORMATION: u8 = 24;
const DNS_SERVERS: u8 = 25;
const DNS_SEARCH: u8 = 31;

/// RFC 8200 section 5.
const SMALLEST_MTU: u32 = 1280;
/// Options of one kind in one message: more is a mistake or an attack.
const MANY: usize = 32;

/// What one router says at one moment. Lifetimes are in seconds; `u32::MAX` is for ever, 0 takes
/// back what was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Addresses are to be had by DHCPv6 (flag M), or at least the rest is (flag O).
    pub managed: bool,
    pub other: bool,
    pub preference: Preference,
    /// For how long it may be used as default router.
    pub lifetime: u16,
    pub mtu: Option<u32>,
    pub prefixes: Vec<Prefix>,
    pub routes: Vec<RouteInformation>,
    pub dns: Vec<(Ipv6Addr, u32)>,
    pub search: Vec<(String, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub network: Ipv6Net,
    pub on_link: bool,
    pub autonomous: bool,
    pub valid: u32,
    pub preferred: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInformation {
    pub to: Ipv6Net,
    pub preference: Preference,
    pub lifetime: u32,
}

/// A solicitation from a machine whose link has this address already; routers may then answer it
/// alone, and without asking for the hardware address first.
pub fn solicitation(mac: Mac) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac.0;
    vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0, SOURCE_ADDRESS, 1, a, b, c, d, e, f]
}

/// Reads an advertisement. `Err` says why all of it is to be ignored (RFC 4861 section 6.1.2); an
/// option with the wrong length for what it is, is ignored alone.
pub fn parse(bytes: &[u8]) -> Result<Advertisement, &'static str> {
    const SHORT: &str = "shorter than a router advertisement";
    let (header, mut rest) = bytes.split_first_chunk::<16>().ok_or(SHORT)?;
    let [kind, code, _, _, _hop_limit, flags, l, m, ..] = *header;
    if (kind, code) != (ADVERTISEMENT, 0) {
        return Err("no router advertisement");
    }
    let lifetime = u16::from_be_bytes([l, m]);
    let mut read = Advertisement {
        managed: flags & 0x80 != 0,
        other: flags & 0x40 != 0,
        // Section 2.2 of RFC 4191: the value that is reserved means medium.
        preference: preference(flags).unwrap_or_default(),
        lifetime,
        ..Advertisement::default()
    };
    while !rest.is_empty() {
        let [kind, units, ..] = *rest else { return Err("an option of it is cut") };
        if units == 0 {
            return Err("an option of it has no length");
        }
        let Some((option, after)) = rest.split_at_checked(usize::from(units).saturating_mul(8))
        else {
            return Err("an option of it is cut");
        };
        let value = option.get(2..).unwrap_or_default();
        match kind {
            PREFIX_INFORMATION => push(&mut read.prefixes, prefix(value)),
            ROUTE_INFORMATION => push(&mut read.routes, route(value)),
            MTU => read.mtu = mtu(value).or(read.mtu),
            DNS_SERVERS => read.dns.extend(dns(value)),
            DNS_SEARCH => read.search.extend(search(value)),
            _ => {}
        }
        rest = after;
    }
    read.dns.truncate(MANY);
    read.search.truncate(MANY);
    Ok(read)
}

fn push<T>(list: &mut Vec<T>, one: Option<T>) {
    if list.len() < MANY {
        list.extend(one);
    }
}

fn preference(flags: u8) -> Option<Preference> {
    match flags >> 3 & 0b11 {
        0b00 => Some(Preference::Medium),
        0b01 => Some(Preference::High),
        0b11 => Some(Preference::Low),
        _ => None,
    }
}

fn prefix(value: &[u8]) -> Option<Prefix> {
    let value: &[u8; 30] = value.try_into().ok()?;
    let [length, flags, v0, v1, v2, v3, p0, p1, p2, p3, _, _, _, _, address @ ..] = *value;
    let network = Ipv6Net::new(Ipv6Addr::from(address), length).ok()?.trunc();
    let (valid, preferred) =
        (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([p0, p1, p2, p3]));
    // RFC 4862 section 5.5.3 (a, b, c): the link's own prefix is nobody's to give.
    let is_link_local = network.addr().is_unicast_link_local();
    let is_possible = preferred <= valid && !is_link_local && !network.addr().is_multicast();
    is_possible.then_some(Prefix {
        network,
        on_link: flags & 0x80 != 0,
        autonomous: flags & 0x40 != 0,
        valid,
        preferred,
    })
}

/// RFC 4191 section 2.3: as many bytes of the prefix as matter, in steps of eight.
fn route(value: &[u8]) -> Option<RouteInformation> {
    let (&[length, flags, a, b, c, d], prefix) = value.split_first_chunk::<6>()?;
    let mut octets = [0; 16];
    octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
    let is_whole = usize::from(length) <= prefix.len().saturating_mul(8);
    let to = Ipv6Net::new(Ipv6Addr::from(octets), length).ok().filter(|_| is_whole)?.trunc();
    let lifetime = u32::from_be_bytes([a, b, c, d]);
    // Here the reserved preference makes the option void.
    Some(RouteInformation { to, preference: preference(flags)?, lifetime })
}

fn mtu(value: &[u8]) -> Option<u32> {
    let [_, _, a, b, c, d] = *value else { return None };
    Some(u32::from_be_bytes([a, b, c, d])).filter(|mtu| *mtu >= SMALLEST_MTU)
}

/// RFC 8106 section 5.1: at least one address, and whole ones.
fn dns(value: &[u8]) -> Vec<(Ipv6Addr, u32)> {
    let Some((&[_, _, a, b, c, d], addresses)) = value.split_first_chunk::<6>() else {
        return Vec::new();
    };
    let (addresses, rest) = addresses.as_chunks::<16>();
    if !rest.is_empty() {
        return Vec::new();
    }
    let lifetime = u32::from_be_bytes([a, b, c, d]);
    let addresses = addresses.iter().map(|octets| Ipv6Addr::from(*octets));
    let usable = addresses.filter(|one| !one.is_unspecified() && !one.is_multicast());
    usable.take(MANY).map(|address| (address, lifetime)).collect()
}

/// Section 5.2.
fn search(value: &[u8]) -> Vec<(String, u32)> {
    let Some((&[_, _, a, b, c, d], list)) = value.split_first_chunk::<6>() else {
        return Vec::new();
    };
    let lifetime = u32::from_be_bytes([a, b, c, d]);
    let names = names::list(list).unwrap_or_default();
    names.into_iter().map(|name| (name, lifetime)).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The header of an advertisement with these flags and this lifetime, and options.
    pub fn advertisement(flags: u8, lifetime: u16, options: &[Vec<u8>]) -> Vec<u8> {
        let [l, m] = lifetime.to_be_bytes();
        let mut bytes = vec![134, 0, 0, 0, 64, flags, l, m, 0, 0, 0, 0, 0, 0, 0, 0];
        options.iter().for_each(|option| bytes.extend(option));
        bytes
    }

    /// An option whose length fits, padded with zeros.
    pub fn option(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes[1] = u8::try_from(bytes.len() / 8).unwrap();
        bytes
    }

    pub fn prefix_option(network: &str, flags: u8, valid: u32, preferred: u32) -> Vec<u8> {
        let network: Ipv6Net = network.parse().unwrap();
        let mut value = vec![network.prefix_len(), flags];
        value.extend(valid.to_be_bytes());
        value.extend(preferred.to_be_bytes());
        value.extend([0; 4]);
        value.extend(network.addr().octets());
        option(3, &value)
    }

    pub fn dns_option(lifetime: u32, servers: &[&str]) -> Vec<u8> {
        let mut value = vec![0, 0];
        value.extend(lifetime.to_be_bytes());
        for server in servers {
            value.extend(server.parse::<Ipv6Addr>().unwrap().octets());
        }
        option(25, &value)
    }

    #[test]
    fn an_advertisement_is_read_completely() {
        let bytes = advertisement(
            0xc8,
            1800,
            &[
                option(1, &[0x52, 0x54, 0, 1, 2, 3]),
                option(5, &[0, 0, 0, 0, 0x05, 0xdc]),
                prefix_option("2001:db8::/64", 0xc0, 86_400, 14_400),
                option(24, b"\x30\x18\0\0\x0e\x10\xfd\0\0\0\0\x07"),
                dns_option(600, &["2001:db8::1", "fe80::1"]),
                option(31, b"\0\0\0\0\x02\x58\x03eng\x03lan\0\x03lan\0"),
                option(38, &[1, 2, 3]),
            ],
        );
        let expected = Advertisement {
            managed: true,
            other: true,
            preference: Preference::High,
            lifetime: 1800,
            mtu: Some(1500),
            prefixes: vec![Prefix {
                network: "2001:db8::/64".parse().unwrap(),
                on_link: true,
                autonomous: true,
                valid: 86_400,
                preferred: 14_400,
            }],
            routes: vec![RouteInformation {
                to: "fd00:0:7::/48".parse().unwrap(),
                preference: Preference::Low,
                lifetime: 3600,
            }],
            dns: vec![("2001:db8::1".parse().unwrap(), 600), ("fe80::1".parse().unwrap(), 600)],
            search: vec![("eng.lan".into(), 600), ("lan".into(), 600)],
        };
        assert_eq!(parse(&bytes), Ok(expected));
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_damaged_is_ignored_as_a_whole() {
        let with = |option: &[u8]| advertisement(0, 0, &[option.to_vec()]);
        let cases = [
            ("nothing",                  Vec::new(),                   "shorter than a router advertisement"),
            ("cut in its header",        with(&[])[..15].to_vec(),     "shorter than a router advertisement"),
            ("a solicitation",           [&[133], &with(&[])[1..]].concat(), "no router advertisement"),
            ("an unknown code",          [&[134, 1], &with(&[])[2..]].concat(), "no router advertisement"),
            ("an option without length", with(&[5, 0, 0, 0, 0, 0, 0, 0]), "an option of it has no length"),
            ("an option of one byte",    with(&[5]),                   "an option of it is cut"),
            ("an option cut",            with(&[5, 2, 0, 0, 0, 0, 0, 0]), "an option of it is cut"),
        ];
        for (case, bytes, expected) in cases {
            assert_eq!(parse(&bytes), Err(expected), "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn an_option_that_makes_no_sense_is_ignored_alone() {
        let cases = [
            ("MTU below IPv6's",          option(5, &[0, 0, 0, 0, 0x04, 0xff])),
            ("MTU too long",              option(5, &[0; 14])),
            ("prefix too short",          option(3, &[64; 22])),
            ("prefix of 129 bits",        { let mut o = prefix_option("2001:db8::/64", 0xc0, 9, 9); o[2] = 129; o }),
            ("preferred beyond its end",  prefix_option("2001:db8::/64", 0xc0, 9, 10)),
            ("prefix of every link",      prefix_option("fe80::/64", 0xc0, 9, 9)),
            ("route cut",                 option(24, &[64, 0, 0, 0, 0, 9])),
            ("route of 129 bits",         option(24, &[&[129, 0, 0, 0, 0, 9], [0; 16].as_slice()].concat())),
            ("route too long",            option(24, &[&[64, 0, 0, 0, 0, 9], [0; 24].as_slice()].concat())),
            ("route of no preference",    option(24, &[0, 0x10, 0, 0, 0, 9])),
            ("DNS without server",        option(25, &[0; 6])),
            ("half a DNS server",         option(25, &[0; 14])),
            ("DNS server ::",             option(25, &[0; 22])),
            ("DNS names cut",             option(31, b"\0\0\0\0\0\x09\x3flan")),
            ("unknown",                   option(200, &[7; 22])),
        ];
        for (case, option) in cases {
            assert_eq!(parse(&advertisement(0, 0, &[option])), Ok(Advertisement::default()), "{case}");
        }
        let default_route = option(24, &[0, 0, 0, 0, 0, 9]);
        assert_eq!(parse(&advertisement(0, 0, &[default_route])).unwrap().routes.len(), 1);
    }

    #[test]
    fn a_solicitation_says_where_the_answer_may_go() {
        let bytes = solicitation(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]));
        assert_eq!(bytes[..8], [133, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..], [1, 1, 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[&advertisement(0, 0, &[]), bytes.as_slice()].concat());
        }

        #[test]
        fn no_option_makes_it_panic(
            options in proptest::collection::vec(
                (prop_oneof![Just(3u8), Just(5), Just(24), Just(25), Just(31)],
                 proptest::collection::vec(any::<u8>(), 0..60)), 0..8),
        ) {
            let options: Vec<_> = options.iter().map(|(kind, value)| option(*kind, value)).collect();
            prop_assert!(parse(&advertisement(0, 0, &options)).is_ok());
        }
    }
}
