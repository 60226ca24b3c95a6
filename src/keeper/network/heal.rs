//! What was taken from the root's link and is to be put back, when, and when not. Pure: the kernel's
//! state and the time go in, repairs come out.
//!
//! Nothing that somebody else has set is overridden. What is missing counts as replaced, and what
//! replaced it is kept from then on, when
//!
//! - the same address is on another link now (a bridge was made of the port),
//! - another address of the same network has come to the link, and all servers of the root are
//!   reached from there,
//! - another route to the same destination has come since, or is on the same link.
//!
//! Nothing is put on a link that has become a part of another one (a bridge was made of the port, and
//! asks for an address): what came in for it would not find it there.
//!
//! Carrier is nobody's doing, and no reason to act. Routers come, go and renumber, and whoever listens
//! to them (the kernel, networkd, NetworkManager) knows better than we do: what they advertise is put
//! back only while a server of the root is reached by nothing else (`reach`), not after the kernel has
//! ended it, and not when it is removed again soon after that. What is whole without it is forgotten.

use std::net::IpAddr;
use std::time::Duration;

use super::reach::{self, is_in_the_network_of, reaches};
use crate::net::Mac;
use crate::net::kernel::{HeldAddress, HeldLink, HeldRoute};

/// Repairs that are done at once; who restarts the network software a few times needs no patience.
const BURST: u32 = 5;
/// Further ones, one in this time.
const SLOW: u32 = 6;
const PAUSE: Duration = Duration::from_secs(10);
/// After a repair that the kernel refused, and twice that after each further one, up to `ASIDE`:
/// nobody is fighting then, so it costs none of the above.
const REFUSED: Duration = Duration::from_secs(1);
/// Later, while somebody keeps removing it.
const ASIDE: Duration = Duration::from_secs(60);
/// Whole for so long: whoever it was has stopped.
const CALM: Duration = Duration::from_secs(120);
/// Who listens to routers and takes a route away again within this time does not stumble.
const DECIDED: Duration = Duration::from_secs(600);
/// Seconds. An address that routers advertise may be withdrawn by none of them in less (RFC 4862
/// section 5.5.3), and one that has run out is put back for that long.
const TWO_HOURS: u32 = 7200;

/// The kernel's state, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub links: Vec<HeldLink>,
    pub addresses: Vec<HeldAddress>,
    pub routes: Vec<HeldRoute>,
}

/// A link that has to be up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedLink {
    pub index: u32,
    /// As which it comes back when it was gone for a moment.
    pub mac: Option<Mac>,
    /// That address is burnt in: a bridge or bond of it that has copied it is not it.
    pub is_burnt_in: bool,
    pub name: String,
    /// The bridge, bond or VRF that it was a part of.
    pub master: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    Up(u32),
    Address(HeldAddress),
    Route(HeldRoute),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is missing, or nothing can be done about it.
    Whole,
    /// It is looked at again at that moment.
    Wait { until: Duration },
    /// In this order; [`Healer::repaired`] is to be told what has come of it.
    Repair(Vec<Repair>),
}

/// What has to be there, and what has been done for it.
#[derive(Clone, Debug, Default)]
pub struct Healer {
    /// What is below comes first.
    links: Vec<WantedLink>,
    addresses: Vec<HeldAddress>,
    routes: Vec<HeldRoute>,
    servers: Vec<IpAddr>,
    /// As it was when nothing was missing: what has come since was put there on purpose.
    before: World,
    /// Routes of routers that were put back, and when.
    returned: Vec<(HeldRoute, Duration)>,
    pace: Pace,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    repairs: u32,
    last: Option<Duration>,
    /// In a row.
    refusals: u32,
    refused: Option<Duration>,
}

impl Pace {
    /// When the next repair may be done.
    fn next(&mut self, now: Duration) -> Duration {
        let doublings = self.refusals.saturating_sub(1).min(6);
        let pause = REFUSED.saturating_mul(1 << doublings).min(ASIDE);
        let again = self.refused.map_or(now, |refused| refused.saturating_add(pause));
        let Some(last) = self.last else { return again };
        if now.saturating_sub(last) >= CALM {
            self.repairs = 0;
        }
        let pause = match self.repairs {
            0..BURST => Duration::ZERO,
            repairs if repairs < BURST + SLOW => PAUSE,
            _ => ASIDE,
        };
        last.saturating_add(pause).max(again)
    }

    fn refused(&mut self, now: Duration) {
        self.refused = Some(now);
        self.refusals = self.refusals.saturating_add(1);
    }

    /// True once, when all that follow will be rare.
    fn spend(&mut self, now: Duration) -> bool {
        (self.last, self.refused, self.refusals) = (Some(now), None, 0);
        self.repairs = self.repairs.saturating_add(1);
        self.repairs == BURST + SLOW
    }
}

impl Healer {
    pub fn new(
        links: Vec<WantedLink>,
        addresses: Vec<HeldAddress>,
        routes: Vec<HeldRoute>,
        servers: Vec<IpAddr>,
    ) -> Self {
        let before =
            World { links: Vec::new(), addresses: addresses.clone(), routes: routes.clone() };
        let mut healer = Self { links, addresses, routes, servers, before, ..Self::default() };
        // A route is put back after those that lead to its router.
        healer.routes.sort_by_key(|route| route.via.is_some());
        healer
    }

    /// Whether what happens to this link may matter.
    pub fn concerns_link(&self, index: u32) -> bool {
        self.links.iter().any(|link| link.index == index)
    }

    /// Whether what happens to this address may matter.
    pub fn concerns_address(&self, held: &HeldAddress) -> bool {
        self.concerns_link(held.on) || self.addresses.iter().any(|one| one.address == held.address)
    }

    /// Whether what happens to this route may matter.
    pub fn concerns_route(&self, held: &HeldRoute) -> bool {
        self.concerns_link(held.on) || self.routes.iter().any(|one| one.to == held.to)
    }

    /// Whether a link that has appeared is one that was lost.
    pub fn awaits(&self, link: &HeldLink) -> bool {
        self.links.iter().any(|wanted| wanted.is(link))
    }

    /// Whether this address is still one that has to be there: nothing has taken its place.
    pub fn wants(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }

    /// Who renews the lease has other routes now.
    pub fn want_routes(&mut self, gone: &[HeldRoute], new: &[HeldRoute]) {
        let is_same = |a: &HeldRoute, b: &HeldRoute| (a.to, a.via, a.on) == (b.to, b.via, b.on);
        self.routes.retain(|route| !gone.iter().chain(new).any(|other| is_same(route, other)));
        self.routes.extend(new);
        self.routes.sort_by_key(|route| route.via.is_some());
    }

    /// The kernel has ended it because a router said so, or said nothing any more.
    pub fn let_go(&mut self, gone: &HeldRoute) {
        let is_it = |route: &HeldRoute| reach::is_lent_route(gone) && is_same_way(route, gone);
        self.routes.retain(|route| !is_it(route));
    }

    /// Software that listens to routers has removed it: once that may be a restart, and put back in
    /// vain it is what the router wants.
    pub fn was_withdrawn(&mut self, gone: &HeldRoute, now: Duration) {
        self.returned.retain(|(_, at)| now.saturating_sub(*at) < DECIDED);
        if self.returned.iter().any(|(route, _)| is_same_way(route, gone)) {
            self.let_go(gone);
        }
    }

    /// Looks at the kernel's state at this moment, which begins anywhere.
    pub fn look(&mut self, world: &World, now: Duration) -> Outcome {
        self.follow(world);
        let repairs = self.lacking(world);
        if repairs.is_empty() {
            self.learn(world);
            (self.pace.refused, self.pace.refusals) = (None, 0);
            return Outcome::Whole;
        }
        let next = self.pace.next(now);
        if next > now {
            return Outcome::Wait { until: next };
        }
        self.returned.retain(|(_, at)| now.saturating_sub(*at) < DECIDED);
        for repair in &repairs {
            if let Repair::Route(route) = repair
                && reach::is_lent_route(route)
                && !self.returned.iter().any(|(known, _)| is_same_way(known, route))
            {
                self.returned.push((*route, now));
            }
        }
        Outcome::Repair(repairs)
    }

    /// `is_done`: something was missing indeed, and is there now. True when all further repairs will
    /// be rare, and once.
    pub fn repaired(&mut self, is_done: bool, now: Duration) -> bool {
        if !is_done {
            self.pace.refused(now);
        }
        is_done && self.pace.spend(now)
    }

    /// Addresses that have to be there, are, and are of no use: somebody else has them.
    pub fn duplicates(&self, world: &World) -> Vec<HeldAddress> {
        let is_wanted = |held: &HeldAddress| {
            self.addresses.iter().any(|one| (one.on, one.address) == (held.on, held.address))
        };
        let all = world.addresses.iter().filter(|held| held.is_duplicate && is_wanted(held));
        all.copied().collect()
    }

    /// Takes note of what others have put in place of what was there.
    fn follow(&mut self, world: &World) {
        for wanted in &mut self.links {
            if world.links.iter().any(|link| link.index == wanted.index) {
                continue;
            }
            let Some(again) = world.links.iter().find(|link| wanted.is(link)) else { continue };
            let (old, new) = (wanted.index, again.index);
            (wanted.index, wanted.master) = (new, again.master);
            let on = self.addresses.iter_mut().map(|held| &mut held.on);
            for on in on.chain(self.routes.iter_mut().map(|held| &mut held.on)) {
                if *on == old {
                    *on = new;
                }
            }
        }
        let (before, servers) = (&self.before, &self.servers);
        let mut moved: Vec<(u32, u32)> = Vec::new();
        for held in &mut self.addresses {
            let is_here =
                |other: &&HeldAddress| (other.on, other.address) == (held.on, held.address);
            if world.addresses.iter().any(|other| is_here(&other)) {
                continue;
            }
            let elsewhere = world
                .addresses
                .iter()
                .find(|other| other.address == held.address && !other.is_duplicate);
            let instead = || {
                world.addresses.iter().find(|other| {
                    other.on == held.on
                        && is_in_the_network_of(held, other)
                        && !before.addresses.iter().any(|old| old.address == other.address)
                        && !other.is_duplicate
                        && reaches(world, other, servers)
                })
            };
            if let Some(other) = elsewhere.copied().or_else(|| instead().copied()) {
                if other.on != held.on {
                    moved.push((held.on, other.on));
                }
                *held = other;
            }
        }
        for held in &mut self.routes {
            let is_here = |other: &&HeldRoute| {
                (other.to, other.via, other.on) == (held.to, held.via, held.on)
            };
            if world.routes.iter().any(|other| is_here(&other)) {
                continue;
            }
            let is_known =
                |other: &HeldRoute| before.routes.iter().any(|old| is_same_route(old, other));
            let instead = world.routes.iter().find(|other| {
                let is_his = other.on == held.on || moved.contains(&(held.on, other.on));
                other.to == held.to && (is_his || !is_known(other))
            });
            let new_home = moved.iter().find(|(old, _)| *old == held.on).map(|(_, new)| *new);
            match (instead, new_home) {
                (Some(instead), _) => *held = *instead,
                (None, Some(on)) => held.on = on,
                (None, None) => {}
            }
        }
        for (_, on) in moved {
            let home = world.links.iter().find(|link| link.index == on);
            if let Some(home) = home.filter(|_| !self.links.iter().any(|link| link.index == on)) {
                let (name, master) = (home.name.clone(), home.master);
                self.links.push(WantedLink {
                    index: on,
                    mac: None,
                    is_burnt_in: false,
                    name,
                    master,
                });
            }
        }
    }

    /// What is missing, in an order in which it can be put back.
    fn lacking(&self, world: &World) -> Vec<Repair> {
        let is_there = |index: u32| {
            let wanted = self.links.iter().find(|link| link.index == index);
            let may_be_on =
                |link: &HeldLink| wanted.is_none_or(|wanted| wanted.master == link.master);
            world.links.iter().any(|link| link.index == index && may_be_on(link))
        };
        let is_down =
            |index: u32| world.links.iter().any(|link| link.index == index && !link.is_up);
        let links = self.links.iter().filter(|link| is_down(link.index));
        let has = |held: &HeldAddress| {
            world.addresses.iter().any(|other| (other.on, other.address) == (held.on, held.address))
        };
        let matters = |held: &HeldAddress| {
            !reach::is_lent_address(held) || reach::needs_address(world, held, &self.servers)
        };
        let addresses =
            self.addresses.iter().filter(|held| is_there(held.on) && !has(held) && matters(held));
        let leads = |held: &HeldRoute| {
            world.routes.iter().any(|other| (other.to, other.on) == (held.to, held.on))
        };
        let matters = |held: &HeldRoute| {
            !reach::is_lent_route(held)
                || reach::needs_route(world, &self.routes, held, &self.servers)
        };
        let routes =
            self.routes.iter().filter(|held| is_there(held.on) && !leads(held) && matters(held));
        links
            .map(|link| Repair::Up(link.index))
            .chain(addresses.map(|held| Repair::Address(as_put_back(held))))
            .chain(routes.map(|held| Repair::Route(*held)))
            .collect()
    }

    /// Nothing is missing: this is how it is to be.
    fn learn(&mut self, world: &World) {
        for held in &mut self.addresses {
            if let Some(now) = world
                .addresses
                .iter()
                .find(|other| (other.on, other.address) == (held.on, held.address))
            {
                *held = *now;
            }
        }
        for held in &mut self.routes {
            // Who has changed the metric, or the address that packets come from, meant that.
            let now = world
                .routes
                .iter()
                .find(|other| (other.to, other.via, other.on) == (held.to, held.via, held.on));
            if let Some(now) = now {
                *held = *now;
            }
        }
        // Routers and their networks as the kernel or networkd knows them: those that have come since,
        // and not those that have gone.
        let links = &self.links;
        let is_ours = |on: u32| links.iter().any(|link| link.index == on);
        self.routes.retain(|held| {
            !reach::is_lent_route(held) || world.routes.iter().any(|now| is_same_way(now, held))
        });
        // Of two that were replaced by the same one, one is enough.
        let mut seen = Vec::new();
        self.routes.retain(|held| {
            let way = (held.to, held.via, held.on);
            let is_first = !seen.contains(&way);
            seen.push(way);
            is_first
        });
        for route in &world.routes {
            if reach::is_lent_route(route)
                && is_ours(route.on)
                && !self.routes.iter().any(|held| is_same_way(held, route))
            {
                self.routes.push(*route);
            }
        }
        self.routes.sort_by_key(|route| route.via.is_some());
        let is_same = |a: &HeldAddress, b: &HeldAddress| (a.on, a.address) == (b.on, b.address);
        self.addresses.retain(|held| {
            !reach::is_lent_address(held) || world.addresses.iter().any(|now| is_same(now, held))
        });
        for address in &world.addresses {
            if reach::is_lent_address(address)
                && !address.is_duplicate
                && is_ours(address.on)
                && !self.addresses.iter().any(|held| is_same(held, address))
            {
                self.addresses.push(*address);
            }
        }
        self.before = world.clone();
    }
}

impl WantedLink {
    /// A port is known by what is burnt in, and what is made by its name.
    fn is(&self, link: &HeldLink) -> bool {
        match self.mac {
            Some(mac) if self.is_burnt_in => link.permanent_mac == Some(mac),
            Some(mac) => link.permanent_mac.unwrap_or(link.mac) == mac,
            None => link.name == self.name,
        }
    }
}

/// Lifetimes are of the moment when the kernel was asked; what is put back must not end at once.
fn as_put_back(held: &HeldAddress) -> HeldAddress {
    let valid_seconds = match held.address {
        // The lease is somebody's, who will set its time again, or ours, and does not end.
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => held.valid_seconds.map(|seconds| seconds.max(TWO_HOURS)),
    };
    let preferred_seconds = match held.address {
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => held.preferred_seconds,
    };
    HeldAddress { valid_seconds, preferred_seconds, is_duplicate: false, ..*held }
}

fn is_same_route(a: &HeldRoute, b: &HeldRoute) -> bool {
    (a.to, a.via, a.on, a.metric) == (b.to, b.via, b.on, b.metric)
}

fn is_same_way(a: &HeldRoute, b: &HeldRoute) -> bool {
    (a.to, a.via, a.on) == (b.to, b.via, b.on)
}

#[cfg(test)]
mod tests {
    use super::super::orders::tests::{NODE, address, route};
    use super::*;
    use crate::net::kernel::FROM_ROUTER;

    const OTHER: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xdd]);

    fn link(index: u32, name: &str, is_up: bool) -> HeldLink {
        HeldLink {
            index,
            name: name.into(),
            mac: if index == 2 { NODE } else { OTHER },
            permanent_mac: None,
            master: None,
            everybody: None,
            is_up,
            has_carrier: is_up,
        }
    }

    /// What the root is behind.
    fn port(is_burnt_in: bool) -> WantedLink {
        let (mac, name) = (Some(NODE), "eth0".into());
        WantedLink { index: 2, mac, is_burnt_in, name, master: None }
    }

    fn healer() -> Healer {
        let links = vec![port(false)];
        let world = whole();
        let own = |on: u32| on == 2;
        let addresses = world.addresses.iter().filter(|held| own(held.on)).copied().collect();
        let routes = world.routes.iter().filter(|held| own(held.on)).copied().collect();
        let mut healer = Healer::new(links, addresses, routes, vec!["10.8.0.1".parse().unwrap()]);
        assert_eq!(healer.look(&whole(), Duration::ZERO), Outcome::Whole);
        healer
    }

    /// eth0 has the root, by a server beyond the router; eth1 has a network and a spare way out.
    fn whole() -> World {
        World {
            links: vec![link(2, "eth0", true), link(3, "eth1", true)],
            addresses: vec![address("10.0.0.5/24", 2), address("10.9.0.5/24", 3)],
            routes: vec![
                route("0.0.0.0/0", "10.0.0.1", 2),
                route("10.0.0.0/24", "-", 2),
                HeldRoute { metric: 600, ..route("0.0.0.0/0", "10.9.0.1", 3) },
            ],
        }
    }

    fn changed(change: impl FnOnce(&mut World)) -> World {
        let mut world = whole();
        change(&mut world);
        world
    }

    fn without_ipv4(world: &mut World) {
        world.addresses.retain(|held| held.on != 2);
        world.routes.retain(|held| held.on != 2);
    }

    fn told(outcome: &Outcome) -> String {
        let Outcome::Repair(repairs) = outcome else { return format!("{outcome:?}") };
        let words = repairs.iter().map(|repair| match repair {
            Repair::Up(index) => format!("up {index}"),
            Repair::Address(held) => format!("{}/{} on {}", held.address, held.prefix, held.on),
            Repair::Route(held) => format!("{} on {}", held.words(), held.on),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    #[rustfmt::skip]
    fn what_was_taken_is_put_back_and_what_was_replaced_is_not() {
        const ALL: &str = "10.0.0.5/24 on 2, 10.0.0.0/24 on 2, default via 10.0.0.1 on 2";
        const WHOLE: &str = "Whole";
        let other_address = |world: &mut World, gateway: bool| {
            without_ipv4(world);
            world.addresses.push(address("10.0.0.77/24", 2));
            world.routes.push(route("10.0.0.0/24", "-", 2));
            if gateway {
                world.routes.push(route("0.0.0.0/0", "10.0.0.1", 2));
            }
        };
        let cases: [(&str, World, &str); 17] = [
            ("nothing has happened",           whole(), WHOLE),
            ("the address, and what hangs on it", changed(without_ipv4), ALL),
            ("the way out alone",              changed(|w| _ = w.routes.remove(0)), "default via 10.0.0.1 on 2"),
            ("the neighbours alone",           changed(|w| _ = w.routes.remove(1)), "10.0.0.0/24 on 2"),
            ("set down",                       changed(|w| { w.links[0].is_up = false; w.routes.retain(|r| r.on != 2) }),
                                               "up 2, 10.0.0.0/24 on 2, default via 10.0.0.1 on 2"),
            ("the cable was pulled",           changed(|w| w.links[0].has_carrier = false), WHOLE),
            ("all of it",                      changed(|w| { w.links[0].is_up = false; without_ipv4(w) }), &format!("up 2, {ALL}")),
            ("another router, on purpose",     changed(|w| w.routes[0].via = "10.0.0.2".parse().ok()), WHOLE),
            ("another metric",                 changed(|w| w.routes[0].metric = 1024), WHOLE),
            ("the way out is another's now",   changed(|w| { w.routes.remove(0); w.routes.push(route("0.0.0.0/0", "10.9.0.2", 3)) }), WHOLE),
            ("a bridge was made of the port",  changed(|w| {
                                                   without_ipv4(w);
                                                   w.links.push(link(7, "br0", true));
                                                   w.addresses.push(address("10.0.0.5/24", 7));
                                                   w.routes.extend([route("10.0.0.0/24", "-", 7), route("0.0.0.0/0", "10.0.0.1", 7)]);
                                               }), WHOLE),
            ("a bridge, and no address yet",   changed(|w| {
                                                   without_ipv4(w);
                                                   w.links[0].master = Some(7);
                                                   w.links.push(link(7, "br0", true));
                                               }), WHOLE),
            ("a bridge, and no way out yet",   changed(|w| {
                                                   without_ipv4(w);
                                                   w.links.push(link(7, "br0", true));
                                                   w.addresses.push(address("10.0.0.5/24", 7));
                                                   w.routes.push(route("10.0.0.0/24", "-", 7));
                                               }), "default via 10.0.0.1 on 7"),
            ("another address, by which the server is reached", changed(|w| other_address(w, true)), WHOLE),
            ("another, by which it is not",    changed(|w| other_address(w, false)), "10.0.0.5/24 on 2, default via 10.0.0.1 on 2"),
            ("the card is gone",               changed(|w| { w.links.remove(0); without_ipv4(w) }), WHOLE),
            ("the card is back",               changed(|w| { w.links[0].index = 9; w.links[0].is_up = false; without_ipv4(w) }),
                                               "up 9, 10.0.0.5/24 on 9, 10.0.0.0/24 on 9, default via 10.0.0.1 on 9"),
        ];
        for (case, world, expected) in cases {
            let outcome = healer().look(&world, Duration::from_secs(1));
            assert_eq!(told(&outcome), expected, "{case}");
        }
    }

    #[test]
    fn what_took_the_place_of_something_is_kept_from_then_on() {
        let mut healer = healer();
        let now = Duration::from_secs(1);
        let new = changed(|world| world.routes[0].via = "10.0.0.2".parse().ok());
        assert_eq!(healer.look(&new, now), Outcome::Whole);
        let mut stopped = new;
        without_ipv4(&mut stopped);
        let outcome = told(&healer.look(&stopped, now));
        assert!(outcome.ends_with("default via 10.0.0.2 on 2"), "{outcome}");
    }

    #[test]
    fn a_bridge_of_a_port_is_not_the_port() {
        let found = |permanent_mac, mac| HeldLink { permanent_mac, mac, ..link(7, "x", true) };
        let cases = [
            ("the card is back", true, found(Some(NODE), NODE), true),
            ("under an address that somebody set", true, found(Some(NODE), OTHER), true),
            ("a bridge has copied it", true, found(None, NODE), false),
            ("a card that has none burnt in", false, found(None, NODE), true),
            ("another card, made to look like it", false, found(Some(OTHER), NODE), false),
        ];
        for (case, is_burnt_in, link, expected) in cases {
            assert_eq!(port(is_burnt_in).is(&link), expected, "{case}");
        }
    }

    #[test]
    fn an_address_is_wanted_until_another_takes_its_place() {
        let mut healer = healer();
        let wants = |healer: &Healer| healer.wants("10.0.0.5".parse().unwrap());
        let now = Duration::from_secs(1);
        healer.look(&changed(without_ipv4), now);
        assert!(wants(&healer), "it is put back");
        let other = changed(|world| {
            world.addresses[0] = address("10.0.0.77/24", 2);
        });
        assert_eq!(healer.look(&other, now), Outcome::Whole);
        assert!(!wants(&healer));
    }

    /// eth0 has an address and routes of routers, by which a server of the root is reached.
    fn whole6(routers: &[&str]) -> World {
        let mut world = World { links: vec![link(2, "eth0", true)], ..World::default() };
        let lent = HeldAddress { valid_seconds: Some(600), ..address("2001:db8:5::5/64", 2) };
        let network = HeldRoute { expires_seconds: Some(600), ..route("2001:db8:5::/64", "-", 2) };
        world.addresses.push(lent);
        world.routes.push(network);
        world.routes.extend(
            routers
                .iter()
                .map(|router| HeldRoute { protocol: FROM_ROUTER, ..route("::/0", router, 2) }),
        );
        world
    }

    fn healer6(server: &str) -> Healer {
        let links = vec![port(false)];
        let servers = server.parse().into_iter().collect();
        let mut healer = Healer::new(links, Vec::new(), Vec::new(), servers);
        assert_eq!(healer.look(&whole6(&["fe80::1"]), Duration::ZERO), Outcome::Whole);
        healer
    }

    #[test]
    #[rustfmt::skip]
    fn what_routers_give_is_put_back_only_for_a_server_of_the_root() {
        const FAR: &str = "2001:db8:99::1";
        const NEAR: &str = "2001:db8:5::1";
        const WHOLE: &str = "Whole";
        const ADDRESS: &str = "2001:db8:5::5/64 on 2";
        let without = |routes: bool, addresses: bool| {
            let mut world = whole6(&["fe80::1"]);
            if routes { world.routes.clear() }
            if addresses { world.addresses.clear() }
            world
        };
        let no_way_out = whole6(&[]);
        let mut renumbered = without(false, true);
        renumbered.addresses.push(HeldAddress { valid_seconds: Some(600), ..address("2001:db8:6::5/64", 2) });
        let mut down = without(true, false);
        down.links[0].is_up = false;
        let cases: [(&str, &str, World, &str); 11] = [
            ("no server by IPv6",                     "10.8.0.1", without(true, true),   WHOLE),
            ("a server beyond the router",            FAR,        no_way_out.clone(),    "default via fe80::1 on 2"),
            ("a neighbour needs no way out",          NEAR,       no_way_out,            WHOLE),
            ("a neighbour needs its network",         NEAR,       without(true, false),  "2001:db8:5::/64 on 2"),
            ("another router is there",               FAR,        whole6(&["fe80::2"]),  WHOLE),
            ("all of it",                             FAR,        without(true, true),   &format!("{ADDRESS}, default via fe80::1 on 2")),
            ("the address alone",                     FAR,        without(false, true),  ADDRESS),
            ("the address alone, of a neighbour",     NEAR,       without(false, true),  ADDRESS),
            ("the network has another number",        FAR,        renumbered,            WHOLE),
            ("set down",                              FAR,        down.clone(),          "up 2, default via fe80::1 on 2"),
            ("set down, no server by IPv6",           "10.8.0.1", down,                  "up 2"),
        ];
        for (case, server, world, expected) in cases {
            let outcome = healer6(server).look(&world, Duration::from_secs(1));
            assert_eq!(told(&outcome), expected, "{case}");
        }
    }

    /// Routers are replaced over the months, and one `ip link set down` must not bring them all back.
    #[test]
    fn routers_of_the_past_are_forgotten() {
        let mut healer = healer6("2001:db8:99::1");
        let now = Duration::from_secs(1);
        for routers in [&["fe80::1", "fe80::2"][..], &["fe80::2"], &["fe80::2", "fe80::3"]] {
            assert_eq!(healer.look(&whole6(routers), now), Outcome::Whole, "{routers:?}");
        }
        let outcome = told(&healer.look(&whole6(&[]), now));
        assert_eq!(outcome, "default via fe80::2 on 2, default via fe80::3 on 2");
    }

    #[test]
    fn a_router_that_goes_takes_its_route_along() {
        let lacks = |healer: &mut Healer, at: u64| {
            told(&healer.look(&whole6(&[]), Duration::from_secs(at)))
        };
        let gone = whole6(&["fe80::1"]).routes[1];
        // The kernel has ended it.
        let mut healer = healer6("2001:db8:99::1");
        assert_eq!(lacks(&mut healer, 1), "default via fe80::1 on 2");
        healer.let_go(&gone);
        assert_eq!(lacks(&mut healer, 2), "Whole");
        // networkd has, which may be a restart of networkd, and does it again, which is none.
        let mut healer = healer6("2001:db8:99::1");
        healer.was_withdrawn(&gone, Duration::from_secs(1));
        assert_eq!(lacks(&mut healer, 1), "default via fe80::1 on 2");
        healer.was_withdrawn(&gone, Duration::from_secs(700));
        assert_eq!(lacks(&mut healer, 700), "default via fe80::1 on 2", "long ago");
        healer.was_withdrawn(&gone, Duration::from_secs(720));
        assert_eq!(lacks(&mut healer, 720), "Whole");
    }

    #[test]
    fn what_a_server_gave_does_not_end_by_itself() {
        let mut healer = healer();
        healer.let_go(&route("0.0.0.0/0", "10.0.0.1", 2));
        let outcome = healer.look(&changed(|w| _ = w.routes.remove(0)), Duration::from_secs(2));
        assert_eq!(told(&outcome), "default via 10.0.0.1 on 2");
    }

    #[test]
    fn lifetimes_do_not_end_what_was_put_back() {
        let of = |text: &str, seconds| HeldAddress {
            valid_seconds: seconds,
            preferred_seconds: seconds,
            ..address(text, 2)
        };
        let valid = |held: &HeldAddress| as_put_back(held).valid_seconds;
        assert_eq!(valid(&of("10.0.0.5/24", Some(3))), None);
        assert_eq!(valid(&of("2001:db8::5/64", Some(3))), Some(7200));
        assert_eq!(valid(&of("2001:db8::5/64", Some(86_400))), Some(86_400));
        assert_eq!(valid(&of("2001:db8::5/64", None)), None);
    }

    /// An administrator who means it wins in the end, and whoever only stumbled is helped at once.
    #[test]
    fn a_fight_is_given_up() {
        let mut healer = healer();
        let broken = changed(without_ipv4);
        let (mut now, mut done, mut aside) = (Duration::ZERO, Vec::new(), None);
        while now < Duration::from_secs(400) {
            match healer.look(&broken, now) {
                Outcome::Repair(_) => {
                    done.push(now.as_secs());
                    if healer.repaired(true, now) {
                        assert_eq!(aside.replace(now.as_secs()), None, "said once");
                    }
                }
                Outcome::Wait { until } => {
                    assert!(until > now);
                    now = until;
                }
                Outcome::Whole => unreachable!("it is broken"),
            }
        }
        assert_eq!(done, [0, 0, 0, 0, 0, 10, 20, 30, 40, 50, 60, 120, 180, 240, 300, 360]);
        assert_eq!(aside, Some(60));
        // Whoever it was has stopped.
        let later = now + CALM;
        assert!(matches!(healer.look(&broken, later), Outcome::Repair(_)));
        assert!(!healer.repaired(true, later));
        assert!(matches!(healer.look(&broken, later), Outcome::Repair(_)));
    }

    /// The kernel has it already, or the driver is not ready: it is tried seldom, for ever, and is no
    /// fight, so that the first real loss afterwards is mended at once.
    #[test]
    fn a_refusal_is_no_fight() {
        let mut healer = healer();
        let broken = changed(without_ipv4);
        let (mut now, mut tried) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(250) {
            match healer.look(&broken, now) {
                Outcome::Repair(_) => {
                    tried.push(now.as_secs());
                    assert!(!healer.repaired(false, now));
                }
                Outcome::Wait { until } => now = until,
                Outcome::Whole => unreachable!("it is broken"),
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(healer.look(&whole(), now), Outcome::Whole);
        for _ in 0..BURST {
            assert!(matches!(healer.look(&broken, now), Outcome::Repair(_)), "at once");
            assert!(!healer.repaired(true, now));
        }
    }

    /// It cannot be put back: the kernel has it, and says that somebody else has it, too.
    #[test]
    fn a_duplicate_is_there() {
        let held = address("2001:db8:5::50/128", 2);
        let links = vec![port(false)];
        let mut healer = Healer::new(links, vec![held], Vec::new(), Vec::new());
        let on = |addresses: &[HeldAddress]| World {
            links: vec![link(2, "eth0", true)],
            addresses: addresses.to_vec(),
            routes: Vec::new(),
        };
        let duplicate = HeldAddress { is_duplicate: true, ..held };
        let world = on(&[duplicate]);
        assert_eq!(healer.look(&world, Duration::ZERO), Outcome::Whole);
        assert_eq!(healer.duplicates(&world), [duplicate]);
        // One on another link takes nobody's place.
        let elsewhere = on(&[HeldAddress { on: 3, ..duplicate }]);
        assert_eq!(told(&healer.look(&elsewhere, Duration::ZERO)), "2001:db8:5::50/128 on 2");
        assert_eq!(healer.duplicates(&elsewhere), []);
    }
}
