//! Which link it is, and what the kernel is told of it.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

use super::{Desk, TICK};
use crate::error::Result;
use crate::keeper::network::orders::{Facts, LinkOrders, beneath_root};
use crate::net::apply::{self, Lifetime, Told};
use crate::net::choice::{self, Standing};
use crate::net::configured::Configured;
use crate::net::description::{Ipv6Method, RouteRequest};
use crate::net::dhcp::pxe;
use crate::net::keep::{Renewer, Renewers};
use crate::net::kernel::{Kernel, Kind, Link, Origin};
use crate::net::port::{Family, Port};
use crate::net::{Lease, Lease6, Route, arp, identity, link, topology};

impl Desk {
    /// Keeps address and routes although the lease has gone, until there is another.
    pub(super) async fn hold(&self, index: u32) {
        let Some(port) = self.ports.get(&index) else { return };
        let Some((lease, origin)) = &port.ipv4.applied else { return };
        let told =
            Told { lease: &without(lease, &self.plan.description.routes), boots: port.ipv4.boots };
        let (kernel, link) = (&self.kernel, &port.link);
        let held = apply::ipv4(kernel, link, Some(told), told, *origin, Lifetime::Forever).await;
        held.unwrap_or_else(|error| log::warn!(target: "network", "{error}"));
    }

    /// Makes the kernel's link what its lease says, if that has changed. `boots`: it is the link of
    /// the boot, whose routes come before those of others.
    pub(super) async fn apply(&mut self, index: u32, boots: bool) -> Result<()> {
        let lifetime = self.lifetime;
        // Before the first connection, which would otherwise begin with a size that does not fit.
        self.shape().await;
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        let Some((lease, origin)) = port.ipv4.lease() else { return Ok(()) };
        let lease = lease.clone();
        let typed = self.plan.description.routes.as_slice();
        if !port.ipv4.is_news && port.ipv4.applied.is_some() && port.ipv4.boots == boots {
            return Ok(());
        }
        // Of a link that was found its routes stay: what the lease does not have was added on
        // purpose.
        let found = self.found.get(&index);
        let found = found.map(|found| Lease { routes: Vec::new(), ..found.lease.clone() });
        let applied = port.ipv4.applied.as_ref().map(|(before, _)| before.clone());
        let before = applied.clone().or(found).map(|before| without(&before, typed));
        let before = before.as_ref().map(|lease| Told { lease, boots: port.ipv4.boots });
        let told = Told { lease: &without(&lease, typed), boots };
        apply::ipv4(&self.kernel, &port.link, before, told, origin, lifetime).await?;
        let is_new_here = applied.is_none_or(|before| before.address != lease.address);
        if origin == Origin::Dhcp && is_new_here {
            let announce = arp::announce(index, port.link.mac, lease.address);
            tokio::spawn(announce);
        }
        port.ipv4.applied = Some((lease, origin));
        port.ipv4.boots = boots;
        port.ipv4.is_news = false;
        // The kernel drops routes together with an address.
        port.routes.clear();
        Ok(())
    }

    /// Tells the kernel of the routes that somebody typed, once the link can have them.
    pub(super) async fn apply_routes(&mut self, index: u32, boots: bool) {
        let wanted = self.routes_over(index, boots);
        let Some(port) = self.ports.get_mut(&index) else { return };
        let is_typed = matches!(port.request.ipv6, Ipv6Method::Static { .. });
        if is_typed
            && port.ipv6.has_router != Some(boots)
            && let Some(given) = &port.ipv6.given
        {
            port.ipv6.has_router = Some(boots);
            let done = apply::router6(&self.kernel, &port.link, given, boots).await;
            done.unwrap_or_else(|error| log::warn!(target: "network", "{error}"));
        }
        if port.routes == wanted {
            return;
        }
        let networks = networks(port);
        for route in &wanted {
            if let Err(error) = apply::route(&self.kernel, &port.link, route, &networks).await {
                log::warn!(target: "network", "{error}");
            }
        }
        port.routes = wanted;
    }

    /// Those that name the link, those whose gateway is its neighbour and not that of the boot's
    /// link, on the link of the boot also those whose gateway is nobody's, and the other end of a
    /// link of two. Of families that it has an address of.
    fn routes_over(&self, index: u32, boots: bool) -> Vec<RouteRequest> {
        let Some(port) = self.ports.get(&index) else { return Vec::new() };
        let is_neighbour =
            |port: &Port, via: IpAddr| networks(port).iter().any(|net| net.contains(&via));
        let boot = if boots { Some(index) } else { self.boot.map(|(boot, _)| boot) };
        let boot = boot.and_then(|boot| self.ports.get(&boot));
        // One link for each route, the boot's before others.
        let owner = |via: IpAddr| {
            let others = self.ports.values().filter(|port| port.is_ours);
            let owner = boot.into_iter().chain(others).find(|port| is_neighbour(port, via));
            owner.or(boot).map(|owner| owner.link.index)
        };
        let is_over_it = |route: &&RouteRequest| match (&route.on, route.via) {
            (Some(name), _) => *name == port.link.name,
            (None, Some(via)) => owner(via) == Some(index),
            (None, None) => boots,
        };
        let typed = self.plan.description.routes.iter().filter(is_over_it).cloned();
        let peers =
            port.request.peers().into_iter().map(|to| RouteRequest { to, via: None, on: None });
        let can_have = |route: &RouteRequest| match route.to {
            IpNet::V4(_) => port.ipv4.applied.is_some(),
            IpNet::V6(_) => port.ipv6.usable_since.is_some(),
        };
        // The other end may be a router.
        peers.chain(typed).filter(can_have).collect()
    }

    /// Who may be chosen, and how each of them stands.
    pub(super) fn standings(&self) -> (Vec<(u32, Family)>, Vec<Standing>) {
        let description = &self.plan.description;
        let bootdev = description.bootdev.as_deref();
        let booted = description.bootif.and_then(|mac| {
            let has = |port: &&Port| {
                port.link.permanent_mac.unwrap_or(port.link.mac) == mac || port.link.mac == mac
            };
            self.ports.values().find(has).map(|port| port.link.index)
        });
        // What the firmware has booted from is in a link that was described, and is not made yet.
        // Perhaps it never will be, and another link may do.
        let is_early = self.began.elapsed() < choice::PATIENCE;
        let is_being_made = is_early && booted.is_none() && self.booted_is_a_part();
        let may_win = |port: &&Port| match (self.settling, bootdev, booted) {
            (Some(index), ..) => port.link.index == index,
            (None, Some(name), _) => topology::is_meant(description, name, &port.link),
            (None, None, Some(index)) => port.link.index == index,
            (None, None, None) => !is_being_made,
        };
        let mut candidates = Vec::new();
        let mut standings = Vec::new();
        let all: Vec<(u32, Vec<(Family, Standing)>)> = self
            .ports
            .values()
            .filter(may_win)
            .map(|port| (port.link.index, port.standings(self.wants)))
            .collect();
        for (index, of_port) in &all {
            let mut others = self.ports.values().filter(may_win);
            let others_may =
                others.any(|other| other.link.index != *index && other.may_still_come(self.wants));
            for (family, standing) in of_port {
                let mut standing = *standing;
                if let Standing::Leased { worth, lacks, .. } = &mut standing {
                    *lacks = self.wants.cannot_do_with(*worth)
                        && others_may
                        && self.ports.get(index).is_some_and(has_nobody_left_to_ask);
                }
                candidates.push((*index, *family));
                standings.push(standing);
            }
        }
        (candidates, standings)
    }

    /// The port of `BOOTIF=` belongs to a link that was described, of which nothing is there yet that
    /// gets an address.
    fn booted_is_a_part(&self) -> bool {
        let Some(mac) = self.plan.description.bootif else { return false };
        let is_it =
            |link: &&Link| link.kind == Kind::Port && link.permanent_mac.unwrap_or(link.mac) == mac;
        let Some(booted) = self.links.values().find(is_it) else { return false };
        let mut above = vec![booted.index];
        // Each link is above another at most once.
        for _ in 0..self.links.len() {
            let is_above = |link: &&Link| {
                !above.contains(&link.index)
                    && (link.lower.is_some_and(|lower| above.contains(&lower))
                        || above.iter().any(|part| {
                            self.links.get(part).is_some_and(|part| part.master == Some(link.index))
                        }))
            };
            let Some(next) = self.links.values().find(is_above).map(|link| link.index) else {
                break;
            };
            above.push(next);
        }
        topology::is_part(&self.plan.description, booted)
            && !above.iter().any(|index| self.ports.contains_key(index))
    }

    /// Configures the chosen link. `Ok(false)` when it turned out to be unusable and goes on
    /// trying.
    pub(super) async fn take(&mut self, index: u32, family: Family) -> Result<bool> {
        let mut outcome = Ok(());
        if let Some(port) = self.ports.get_mut(&index) {
            port.is_ours = true;
            outcome = type_ipv6(&self.kernel, port).await;
        }
        if outcome.is_ok() {
            outcome = self.apply(index, true).await;
        }
        if let Err(error) = outcome {
            let origin = self.ports.get(&index).and_then(|port| Some(port.ipv4.lease()?.1));
            if origin == Some(Origin::CommandLine) && !error.is_transient() {
                return Err(error);
            }
            log::warn!(target: "network", "{error}");
            // The link may have gone; if not, its next change or the client's next lease counts.
            if let Some(port) = self.ports.get_mut(&index) {
                port.is_ours = port.is_named;
                port.has_lost_its_carrier();
                port.again_at = Some(Instant::now() + TICK);
            }
            return Ok(false);
        }
        // A typed address may be used when the link has not objected to it.
        let is_tentative = |port: &Port| family == Family::Ipv6 && port.ipv6.usable_since.is_none();
        self.settling = self.ports.get(&index).is_some_and(is_tentative).then_some(index);
        if self.settling.is_some() {
            return Ok(false);
        }
        self.apply_routes(index, true).await;
        self.ask_boot_servers(index).await;
        if self.is_passed_over(index) {
            return Ok(false);
        }
        self.boot = Some((index, family));
        self.dismiss_the_others(index).await;
        Ok(true)
    }

    /// Boot servers do not know a root either, and another link may still bring one.
    fn is_passed_over(&mut self, index: u32) -> bool {
        let (wants, now) = (self.wants, Instant::now());
        let may = |port: &Port| port.link.index != index && port.may_still_come(wants);
        let others_may = self.ports.values().any(may);
        let Some(port) = self.ports.get_mut(&index) else { return false };
        let age = port.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        let is_passed_over = wants.cannot_do_with(port.worth(wants))
            && others_may
            && age < choice::PATIENCE_FOR_A_ROOT;
        port.ipv4.has_asked_in_vain = true;
        if is_passed_over {
            port.is_ours = port.is_named;
        }
        is_passed_over
    }

    /// Says why, and sets down what nobody else had set up.
    pub(super) async fn dismiss_the_others(&mut self, winner: u32) {
        let Some(boot) = self.ports.get(&winner) else { return };
        let losers: Vec<&Port> =
            self.ports.values().filter(|port| port.link.index != winner && !port.is_ours).collect();
        let told: Vec<_> = losers
            .iter()
            .map(|port| (port.link.name.as_str(), port.progress(self.wants)))
            .collect();
        let boot = (boot.link.name.as_str(), boot.worth(self.wants));
        for line in link::why_not(&told, boot, self.wants) {
            log::info!(target: "network", "{line}");
        }
        let routes = self.plan.description.routes.iter().filter_map(|route| route.on.as_ref());
        for name in routes.filter(|name| self.links.values().all(|link| link.name != **name)) {
            log::warn!(target: "network", "rd.route= wants a route over {name}, and there is no such link");
        }
        let losers: Vec<u32> = losers.iter().map(|port| port.link.index).collect();
        for index in losers {
            let Some(port) = self.ports.remove(&index) else { continue };
            if let Some((lease, Origin::Dhcp)) = &port.ipv4.applied {
                let gone =
                    self.kernel.remove_address(&port.link, lease.address.into(), lease.prefix);
                gone.await.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
            }
            if !port.was_up
                && let Err(error) = self.kernel.set_down(&port.link).await
            {
                log::debug!(target: "network", "{error}");
            }
        }
    }

    pub(super) async fn make_permanent(&mut self, renewers: Renewers) -> Result<()> {
        self.lifetime = Lifetime::Forever;
        let mut outcome = Ok(());
        for port in self.ports.values().filter(|port| port.is_ours) {
            let (kernel, link) = (&self.kernel, &port.link);
            if renewers.ipv4 != Renewer::NetworkManager
                && let Some((lease, origin)) = &port.ipv4.applied
            {
                // What nobody renews is as good as typed, and a manager that is told of it as of
                // something typed only knows a route for its own that says the same.
                let origin = match (renewers.ipv4, *origin) {
                    (Renewer::Nobody, Origin::Dhcp) => Origin::CommandLine,
                    (_, origin) => origin,
                };
                // Routes as well: those of an address that has just expired are gone.
                let lease = without(lease, &self.plan.description.routes);
                let told = Told { lease: &lease, boots: port.ipv4.boots };
                let done = apply::ipv4(kernel, link, Some(told), told, origin, self.lifetime).await;
                outcome = outcome.and(done);
            }
            if renewers.ipv6 != Renewer::NetworkManager
                && let Some(given) = &port.ipv6.given
            {
                let done = apply::ipv6_forever(kernel, link, given).await;
                outcome = outcome.and(done);
            }
        }
        outcome
    }

    /// The same for the keeper, with the kernel's own words on addresses and routes: those of routers
    /// and of who was here before us are in them.
    pub(super) async fn orders(&self) -> Result<Vec<LinkOrders>> {
        let mut addresses = self.kernel.held_addresses().await?;
        addresses.retain(|held| !held.is_duplicate);
        let routes = self.kernel.held_routes().await?;
        let configured = self.describe();
        let carries_root = beneath_root(&configured);
        let orders =
            configured.iter().zip(carries_root).filter_map(|(configured, carries_root)| {
                let link = self.links.values().find(|link| link.name == configured.name)?;
                let port = self.ports.get(&link.index);
                let facts = Facts {
                    index: link.index,
                    ipv4: port.and_then(|port| {
                        Some((port.ipv4.granted?, identity::ipv4(&self.plan, port)))
                    }),
                    ipv6: port.and_then(|port| {
                        let given = port.ipv6.given.clone()?;
                        Some((given, port.ipv6.granted?, identity::ipv6(&self.plan, port)))
                    }),
                    link_local: port.and_then(|port| {
                        let mut all = port.ipv6.addresses.keys();
                        all.find(|address| address.is_unicast_link_local()).copied()
                    }),
                };
                Some(LinkOrders::of(configured, facts, carries_root, &addresses, &routes))
            });
        Ok(orders.collect())
    }

    /// The links that are in use and all that they are made of.
    pub(super) fn describe(&self) -> Vec<Configured> {
        let links: Vec<&Link> = self.links.values().collect();
        let ports: Vec<&Port> = self.ports.values().filter(|port| port.is_ours).collect();
        let boot = self.boot.map(|(index, _)| index);
        Configured::all(&self.plan.description, &links, &ports, boot)
    }
}

/// The lease as far as nobody has typed other routes: the kernel takes one to the same network for the
/// same.
fn without(lease: &Lease, typed: &[RouteRequest]) -> Lease {
    let is_typed = |route: &Route| typed.iter().any(|typed| typed.to == IpNet::V4(route.to));
    let mut lease = lease.clone();
    lease.routes.retain(|route| !is_typed(route));
    lease
}

/// Who knows a root that the lease does not say has been asked, or is not needed.
fn has_nobody_left_to_ask(port: &Port) -> bool {
    let may_know = port.ipv4.lease().is_some_and(|(lease, _)| pxe::could_complete(lease));
    port.ipv4.has_asked_in_vain || !may_know
}

/// Networks whose members are neighbours of the link.
fn networks(port: &Port) -> Vec<IpNet> {
    let ipv4 = port.ipv4.applied.as_ref().map(|(lease, _)| IpNet::V4(lease.network()));
    apply::networks6(&port.ipv6.lease()).into_iter().chain(ipv4).collect()
}

/// Gives a link the IPv6 address that was typed for it, if one was and it has not got it yet.
pub(super) async fn type_ipv6(kernel: &Kernel, port: &mut Port) -> Result<()> {
    let Ipv6Method::Static { address, prefix, gateway, .. } = port.request.ipv6 else {
        return Ok(());
    };
    if port.ipv6.given.is_none() {
        let lease = Lease6::typed(address, prefix, gateway);
        apply::ipv6(kernel, &port.link, None, &lease).await?;
        port.ipv6.has_router = None;
        port.ipv6.given = Some(lease);
    }
    Ok(())
}
