//! What several routers have said over time: things last as long as they said, and 0 takes them
//! back. Pure: time comes with each call.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::message::Advertisement;
use crate::net::Lease6;
use crate::net::lease6::{Preference, Prefix6, Route6, Router6};

/// Of each kind. A host on the link can invent routers by the thousand, and the first to come are
/// more likely to be real than the last.
const MANY: usize = 16;

/// Everything that is known of the routers of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routers {
    routers: Vec<Said<Router>>,
    prefixes: Vec<Said<Prefix>>,
    routes: Vec<Said<Route>>,
    dns: Vec<Said<Ipv6Addr>>,
    search: Vec<Said<String>>,
    /// The last that was said (RFC 4861 section 6.3.4).
    mtu: Option<u32>,
    managed: bool,
    other: bool,
}

/// Something, and the moment until which it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said<T> {
    what: T,
    until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Router {
    address: Ipv6Addr,
    preference: Preference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    network: Ipv6Net,
    on_link: bool,
    autonomous: bool,
    preferred_until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    to: Ipv6Net,
    via: Ipv6Addr,
    preference: Preference,
}

impl Routers {
    /// Takes in what `router` has just said.
    pub fn hear(&mut self, router: Ipv6Addr, said: &Advertisement, now: Duration) {
        self.expire(now);
        (self.managed, self.other) = (said.managed, said.other);
        self.mtu = said.mtu.or(self.mtu);
        let known = Router { address: router, preference: said.preference };
        let lifetime = u32::from(said.lifetime);
        note(&mut self.routers, known, lifetime, now, |one| one.address == router);
        for prefix in &said.prefixes {
            let network = prefix.network;
            let known = Prefix {
                network,
                on_link: prefix.on_link,
                autonomous: prefix.autonomous,
                preferred_until: after(prefix.preferred, now),
            };
            note(&mut self.prefixes, known, prefix.valid, now, |one| one.network == network);
        }
        for route in &said.routes {
            let (to, via) = (route.to, router);
            // Section 3.1 of RFC 4191: a better word on the default route.
            if to.prefix_len() == 0 {
                let known = Router { address: router, preference: route.preference };
                note(&mut self.routers, known, route.lifetime, now, |one| one.address == via);
                continue;
            }
            let known = Route { to, via, preference: route.preference };
            note(&mut self.routes, known, route.lifetime, now, |one| {
                (one.to, one.via) == (to, via)
            });
        }
        for (server, lifetime) in &said.dns {
            note(&mut self.dns, *server, *lifetime, now, |one| one == server);
        }
        for (name, lifetime) in &said.search {
            note(&mut self.search, name.clone(), *lifetime, now, |one| one == name);
        }
    }

    /// Forgets what is not true any more.
    pub fn expire(&mut self, now: Duration) {
        self.routers.retain(|said| said.until > now);
        self.prefixes.retain(|said| said.until > now);
        self.routes.retain(|said| said.until > now);
        self.dns.retain(|said| said.until > now);
        self.search.retain(|said| said.until > now);
    }

    /// When [`Self::expire`] will have something to forget.
    pub fn next_end(&self) -> Option<Duration> {
        let ends = self.routers.iter().map(|said| said.until);
        let ends = ends.chain(self.prefixes.iter().map(|said| said.until));
        let ends = ends.chain(self.routes.iter().map(|said| said.until));
        let ends = ends.chain(self.dns.iter().map(|said| said.until));
        let ends = ends.chain(self.search.iter().map(|said| said.until));
        ends.min().filter(|end| *end != Duration::MAX)
    }

    /// Somebody leads out of this link.
    pub fn has_default_router(&self) -> bool {
        !self.routers.is_empty()
    }

    /// All of it, in the form of a lease. The addresses are the kernel's to say.
    pub fn lease(&self, now: Duration) -> Lease6 {
        let left = |until: Duration| match until {
            Duration::MAX => None,
            until => Some(u32::try_from(until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX)),
        };
        let mut routers: Vec<_> = self
            .routers
            .iter()
            .map(|said| Router6 {
                address: said.what.address,
                preference: said.what.preference,
                lifetime_seconds: left(said.until),
            })
            .collect();
        // Stable: among equals the first to speak.
        routers.sort_by_key(|router| std::cmp::Reverse(router.preference));
        Lease6 {
            routers,
            routes: self
                .routes
                .iter()
                .map(|said| Route6 {
                    to: said.what.to,
                    via: said.what.via,
                    preference: said.what.preference,
                    lifetime_seconds: left(said.until),
                })
                .collect(),
            prefixes: self
                .prefixes
                .iter()
                .map(|said| Prefix6 {
                    network: said.what.network,
                    on_link: said.what.on_link,
                    autonomous: said.what.autonomous,
                    preferred_seconds: left(said.what.preferred_until),
                    valid_seconds: left(said.until),
                })
                .collect(),
            mtu: self.mtu,
            dns: self.dns.iter().map(|said| said.what).collect(),
            search: self.search.iter().map(|said| said.what.clone()).collect(),
            managed: self.managed,
            other: self.other,
            ..Lease6::default()
        }
    }
}

/// Replaces what is known, adds it, or removes it when it lasts no time at all.
fn note<T>(
    list: &mut Vec<Said<T>>,
    what: T,
    lifetime: u32,
    now: Duration,
    is_same: impl Fn(&T) -> bool,
) {
    let until = after(lifetime, now);
    let has_room = list.len() < MANY;
    match list.iter_mut().find(|said| is_same(&said.what)) {
        Some(said) => *said = Said { what, until },
        None if lifetime > 0 && has_room => list.push(Said { what, until }),
        None => {}
    }
    list.retain(|said| said.until > now);
}

fn after(lifetime: u32, now: Duration) -> Duration {
    match lifetime {
        u32::MAX => Duration::MAX,
        seconds => now.saturating_add(Duration::from_secs(seconds.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{self, tests as make};
    use super::*;

    const FIRST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const SECOND: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hear(
        routers: &mut Routers,
        from: Ipv6Addr,
        flags: u8,
        lifetime: u16,
        options: &[Vec<u8>],
        now: u64,
    ) {
        let bytes = make::advertisement(flags, lifetime, options);
        routers.hear(from, &message::parse(&bytes).unwrap(), at(now));
    }

    /// What is known, in a few words.
    fn known(routers: &Routers, now: u64) -> String {
        let lease = routers.lease(at(now));
        let mut words = Vec::new();
        words.extend(
            lease.routers.iter().map(|one| format!("{} {:?}", one.address, one.lifetime_seconds)),
        );
        words.extend(
            lease.prefixes.iter().map(|one| format!("{} {:?}", one.network, one.valid_seconds)),
        );
        words.extend(lease.routes.iter().map(|one| format!("{} via {}", one.to, one.via)));
        words.extend(lease.dns.iter().map(ToString::to_string));
        words.extend(lease.search);
        words.join(", ")
    }

    #[test]
    fn things_last_as_long_as_was_said() {
        let mut routers = Routers::default();
        let prefix = |valid| make::prefix_option("2001:db8::/64", 0xc0, valid, valid);
        let dns = make::dns_option(30, &["2001:db8::1"]);
        hear(&mut routers, FIRST, 0x80, 60, &[prefix(u32::MAX), dns], 0);
        assert_eq!(known(&routers, 10), "fe80::1 Some(50), 2001:db8::/64 None, 2001:db8::1");
        assert_eq!(routers.next_end(), Some(at(30)));
        routers.expire(at(30));
        assert_eq!(known(&routers, 30), "fe80::1 Some(30), 2001:db8::/64 None");
        routers.expire(at(60));
        assert_eq!(known(&routers, 60), "2001:db8::/64 None");
        assert_eq!((routers.next_end(), routers.has_default_router()), (None, false));
        // A router says it anew, and then takes it back.
        hear(&mut routers, FIRST, 0, 60, &[prefix(100)], 100);
        assert_eq!(known(&routers, 100), "fe80::1 Some(60), 2001:db8::/64 Some(100)");
        hear(&mut routers, FIRST, 0, 0, &[prefix(0)], 110);
        assert_eq!(known(&routers, 110), "");
    }

    #[test]
    fn several_routers_add_up_and_the_preferred_one_comes_first() {
        let mut routers = Routers::default();
        let route = make::option(24, b"\x30\0\0\0\x0e\x10\xfd\0\0\0\0\x07");
        hear(&mut routers, FIRST, 0x40, 60, &[make::dns_option(60, &["2001:db8::1"])], 0);
        hear(&mut routers, SECOND, 0x48, 60, &[route, make::dns_option(60, &["2001:db8::2"])], 0);
        let expected = "fe80::2 Some(60), fe80::1 Some(60), fd00:0:7::/48 via fe80::2, \
                        2001:db8::1, 2001:db8::2";
        assert_eq!(known(&routers, 0), expected);
        assert_eq!(routers.lease(at(0)).gateway(), Some(SECOND));
        // One that is switched off properly says so.
        hear(&mut routers, SECOND, 0x40, 0, &[make::dns_option(0, &["2001:db8::2"])], 1);
        let expected = "fe80::1 Some(59), fd00:0:7::/48 via fe80::2, 2001:db8::1";
        assert_eq!(known(&routers, 1), expected);
    }

    #[test]
    fn the_last_word_on_flags_and_mtu_counts() {
        let mut routers = Routers::default();
        hear(&mut routers, FIRST, 0x80, 60, &[make::option(5, &[0, 0, 0, 0, 0x05, 0x78])], 0);
        let lease = routers.lease(at(0));
        assert_eq!((lease.managed, lease.other, lease.mtu), (true, false, Some(1400)));
        hear(&mut routers, FIRST, 0x40, 60, &[], 1);
        let lease = routers.lease(at(1));
        assert_eq!((lease.managed, lease.other, lease.mtu), (false, true, Some(1400)));
    }

    /// A word on the default route stands in either place (RFC 4191 section 3.1).
    #[test]
    fn a_default_route_among_the_routes_is_a_default_router() {
        let mut routers = Routers::default();
        hear(&mut routers, FIRST, 0, 0, &[make::option(24, &[0, 0x08, 0, 0, 0, 9])], 0);
        let lease = routers.lease(at(0));
        assert_eq!((lease.routers.len(), lease.routes.len()), (1, 0));
        assert_eq!(lease.routers[0].preference, Preference::High);
    }

    /// A host that invents routers must not take the memory, or the place of the real one.
    #[test]
    fn a_flood_is_bounded() {
        let mut routers = Routers::default();
        hear(&mut routers, FIRST, 0, 60, &[make::dns_option(60, &["2001:db8::1"])], 0);
        for number in 0..10_000u32 {
            let [a, b, c, d] = number.to_be_bytes().map(u16::from);
            let router = Ipv6Addr::new(0xfe80, 0, 1, 0, a, b, c, d);
            let network = format!("2001:db8:{:x}:{:x}::/64", number >> 16, number & 0xffff);
            let options = [
                make::prefix_option(&network, 0xc0, 60, 60),
                make::dns_option(60, &[&format!("2001:db8:1::{:x}", number & 0xffff)]),
            ];
            hear(&mut routers, router, 0, 60, &options, 0);
        }
        let lease = routers.lease(at(0));
        assert_eq!(
            (lease.routers.len(), lease.prefixes.len(), lease.dns.len()),
            (MANY, MANY, MANY)
        );
        assert_eq!(lease.gateway(), Some(FIRST));
    }
}
