//! Which link it is, and what the kernel is told of it.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

use super::{Desk, TICK};
use crate::error::Result;
use crate::net::apply::{self, Lifetime};
use crate::net::choice;
use crate::net::configured::Configured;
use crate::net::description::{Ipv6Method, RouteRequest};
use crate::net::keep::{Renewer, Renewers};
use crate::net::kernel::{Kernel, Link, Origin};
use crate::net::port::{Family, Port};
use crate::net::{Lease, Lease6, arp, link};

impl Desk {
    /// Keeps address and routes although the lease has gone, until there is another.
    pub(super) async fn hold(&self, index: u32) {
        let Some(port) = self.ports.get(&index) else { return };
        let Some((lease, origin)) = &port.ipv4.applied else { return };
        let old = Some(lease);
        let (kernel, link) = (&self.kernel, &port.link);
        if let Err(error) = apply::ipv4(kernel, link, old, lease, *origin, Lifetime::Forever).await
        {
            log::warn!(target: "network", "{error}");
        }
    }

    /// Makes the kernel's link what its lease says, if that has changed.
    pub(super) async fn apply(&mut self, index: u32) -> Result<()> {
        let lifetime = self.lifetime;
        // Before the first connection, which would otherwise begin with a size that does not fit.
        self.shape().await;
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        let Some((lease, origin)) = port.ipv4.lease() else { return Ok(()) };
        let lease = lease.clone();
        if !port.ipv4.is_news && port.ipv4.applied.is_some() {
            return Ok(());
        }
        // Of a link that was found its routes stay: what the lease does not have was added on
        // purpose.
        let found = self.found.get(&index);
        let found = found.map(|found| Lease { routes: Vec::new(), ..found.lease.clone() });
        let before = port.ipv4.applied.as_ref().map(|(before, _)| before.clone()).or(found);
        apply::ipv4(&self.kernel, &port.link, before.as_ref(), &lease, origin, lifetime).await?;
        if origin == Origin::Dhcp && port.ipv4.applied.is_none() {
            let announce = arp::announce(index, port.link.mac, lease.address);
            tokio::spawn(announce);
        }
        port.ipv4.applied = Some((lease, origin));
        port.ipv4.is_news = false;
        // The kernel drops routes together with an address.
        port.routes.clear();
        Ok(())
    }

    /// Tells the kernel of the routes that somebody typed, once the link can have them.
    pub(super) async fn apply_routes(&mut self, index: u32, boots: bool) {
        let wanted = self.routes_over(index, boots);
        let Some(port) = self.ports.get_mut(&index) else { return };
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

    /// Those that name the link, those whose gateway is its neighbour, on the link of the boot also
    /// those whose gateway is nobody's, and the other end of a link of two. Of families that it has
    /// an address of.
    fn routes_over(&self, index: u32, boots: bool) -> Vec<RouteRequest> {
        let Some(port) = self.ports.get(&index) else { return Vec::new() };
        let is_neighbour =
            |port: &Port, via: IpAddr| networks(port).iter().any(|net| net.contains(&via));
        let is_over_it = |route: &&RouteRequest| match (&route.on, route.via) {
            (Some(name), _) => *name == port.link.name,
            (None, Some(via)) if is_neighbour(port, via) => true,
            (None, Some(via)) => {
                boots && !self.ports.values().any(|port| port.is_ours && is_neighbour(port, via))
            }
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
    pub(super) fn standings(&self) -> (Vec<(u32, Family)>, Vec<choice::Standing>) {
        let bootdev = self.plan.description.bootdev.as_deref();
        let booted = self.plan.description.bootif.and_then(|mac| {
            let has = |port: &&Port| {
                port.link.permanent_mac.unwrap_or(port.link.mac) == mac || port.link.mac == mac
            };
            self.ports.values().find(has).map(|port| port.link.index)
        });
        let may_win = |port: &&Port| match (self.settling, bootdev, booted) {
            (Some(index), ..) => port.link.index == index,
            (None, Some(name), _) => port.link.name == name,
            (None, None, Some(index)) => port.link.index == index,
            (None, None, None) => true,
        };
        let mut candidates = Vec::new();
        let mut standings = Vec::new();
        for port in self.ports.values().filter(may_win) {
            for (family, standing) in port.standings(self.wants) {
                candidates.push((port.link.index, family));
                standings.push(standing);
            }
        }
        (candidates, standings)
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
            outcome = self.apply(index).await;
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
        self.boot = Some((index, family));
        self.dismiss_the_others(index).await;
        Ok(true)
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
        let losers: Vec<u32> = losers.iter().map(|port| port.link.index).collect();
        for index in losers {
            let Some(port) = self.ports.remove(&index) else { continue };
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
                // Routes as well: those of an address that has just expired are gone.
                let done =
                    apply::ipv4(kernel, link, Some(lease), lease, *origin, self.lifetime).await;
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

    /// The links that are in use and all that they are made of.
    pub(super) fn describe(&self) -> Vec<Configured> {
        let links: Vec<&Link> = self.links.values().collect();
        let ports: Vec<&Port> = self.ports.values().filter(|port| port.is_ours).collect();
        let boot = self.boot.map(|(index, _)| index);
        Configured::all(&self.plan.description, &links, &ports, boot)
    }
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
        apply::ipv6(kernel, &port.link, None, &lease, Origin::CommandLine).await?;
        port.ipv6.given = Some(lease);
    }
    Ok(())
}
