//! Which link it is, and what the kernel is told of it.

use tokio::time::Instant;

use super::{Desk, TICK};
use crate::error::Result;
use crate::net::apply::{self, Lifetime, Manner};
use crate::net::choice;
use crate::net::configured::Configured;
use crate::net::description::Ipv6Method;
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
        let manner = self.manner(index, *origin, Lifetime::Forever);
        if let Err(error) = apply::ipv4(kernel, link, old, lease, manner).await {
            log::warn!(target: "network", "{error}");
        }
    }

    fn manner(&self, index: u32, origin: Origin, lifetime: Lifetime) -> Manner {
        Manner { origin, lifetime, boots: self.boot.is_some_and(|(boot, _)| boot == index) }
    }

    /// Makes the kernel's link what its lease says, if that has changed.
    pub(super) async fn apply(&mut self, index: u32) -> Result<()> {
        let boot = self.boot.map(|(index, _)| index);
        let lifetime = self.lifetime;
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        let Some((lease, origin)) = port.ipv4.lease() else { return Ok(()) };
        let manner = Manner { origin, lifetime, boots: boot == Some(index) };
        let lease = lease.clone();
        if !port.ipv4.is_news && port.ipv4.applied.is_some() {
            return Ok(());
        }
        // Of a link that was found its routes stay: what the lease does not have was added on
        // purpose.
        let found = self.found.get(&index);
        let found = found.map(|found| Lease { routes: Vec::new(), ..found.lease.clone() });
        let before = port.ipv4.applied.as_ref().map(|(before, _)| before.clone()).or(found);
        apply::ipv4(&self.kernel, &port.link, before.as_ref(), &lease, manner).await?;
        apply::routes(&self.kernel, &port.link, &self.plan.description, &lease).await;
        if origin == Origin::Dhcp && port.ipv4.applied.is_none() {
            let announce = arp::announce(index, port.link.mac, lease.address);
            tokio::spawn(announce);
        }
        port.ipv4.applied = Some((lease, origin));
        port.ipv4.is_news = false;
        Ok(())
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
        let may_win = |port: &&Port| match (bootdev, booted) {
            (Some(name), _) => port.link.name == name,
            (None, Some(index)) => port.link.index == index,
            (None, None) => true,
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
        // Its routes are to be the strongest.
        self.boot = Some((index, family));
        if let Some(port) = self.ports.get_mut(&index) {
            port.is_ours = true;
            outcome = type_ipv6(&self.kernel, port).await;
        }
        if outcome.is_ok() {
            outcome = self.apply(index).await;
        }
        if let Err(error) = outcome {
            self.boot = None;
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
        self.ask_boot_servers(index).await;
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
                // What nobody renews is as good as typed, and a manager that is told of it as of
                // something typed only knows a route for its own that says the same.
                let origin = match (renewers.ipv4, *origin) {
                    (Renewer::Nobody, Origin::Dhcp) => Origin::CommandLine,
                    (_, origin) => origin,
                };
                let manner = self.manner(link.index, origin, self.lifetime);
                // Routes as well: those of an address that has just expired are gone.
                let done = apply::ipv4(kernel, link, Some(lease), lease, manner).await;
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
