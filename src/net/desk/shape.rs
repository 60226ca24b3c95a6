//! The links themselves: making those that were described, and following those that there are.

use std::path::Path;

use tokio::time::Instant;

use super::{AGAIN, Attempt, Desk, IPV6, TICK};
use crate::error::{Error, Result};
use crate::net::adopt::Found;
use crate::net::description::Ipv6Method;
use crate::net::dhcp6;
use crate::net::kernel::{Kind, Link};
use crate::net::link;
use crate::net::port::Port;
use crate::net::ra::Haste;
use crate::net::topology::{self, Action};

impl Desk {
    /// Makes the links that were described, as far as can be done now.
    pub(super) async fn shape(&mut self) {
        let links: Vec<Link> = self.links.values().cloned().collect();
        let learned = self.ports.values().filter(|port| port.is_ours);
        let learned = learned.filter_map(|port| Some((port.link.index, port.learned_mtu()?)));
        for action in topology::next(&self.plan.description, &links, &learned.collect()) {
            // A bond whose address has become the machine's keeps its own.
            if let Action::SetMac { index, .. } = action
                && self.carries_the_machine(index, 0)
            {
                continue;
            }
            let what = format!("{action:?}");
            let now = Instant::now();
            let before = self.attempts.get(&what).copied();
            if before.is_some_and(|attempt| now < attempt.again_at) {
                continue;
            }
            // What is done is known only when the kernel has told so.
            let outcome = self.carry_out(&action).await;
            let failures = before.map_or(0, |before| before.failures);
            let failures = if outcome.is_err() { failures.saturating_add(1) } else { 0 };
            let wait = if failures == 0 { TICK } else { AGAIN.saturating_mul(failures.min(12)) };
            self.attempts.insert(what, Attempt { again_at: now + wait, failures });
            if let Err(error) = outcome
                && failures == 1
            {
                log::warn!(target: "network", "{error}; it is tried again");
            }
        }
        // Long after what is tried again would have been.
        let is_recent = |attempt: &Attempt| attempt.again_at.elapsed() < AGAIN.saturating_mul(24);
        self.attempts.retain(|_, attempt| is_recent(attempt));
    }

    /// Whether the link, or one that is made of it, has an address that is in use.
    fn carries_the_machine(&self, index: u32, depth: u32) -> bool {
        let is_used =
            self.found.contains_key(&index) || self.ports.get(&index).is_some_and(Port::is_in_use);
        let master = self.links.get(&index).and_then(|link| link.master);
        let is_above = |other: &&Link| Some(other.index) == master || other.lower == Some(index);
        // Links are not stacked as deep as that.
        let mut above = self.links.values().filter(|_| depth < 8).filter(is_above);
        is_used || above.any(|above| self.carries_the_machine(above.index, depth.saturating_add(1)))
    }

    pub(super) async fn carry_out(&mut self, action: &Action) -> Result<()> {
        if let Action::SetUp { index } = action
            && let Some(link) = self.links.get(index).cloned()
        {
            return self.set_up(&link).await;
        }
        let link = |index: &u32| {
            let gone = || Error::refused("changing a link", "it is gone");
            self.links.get(index).ok_or_else(gone)
        };
        match action {
            Action::Rename { index, to } => {
                let link = link(index)?;
                if link.is_up {
                    self.kernel.set_down(link).await?;
                }
                self.kernel.rename(link, to).await
            }
            Action::Make { name, what, mac } => {
                self.kernel.make(name, what, *mac).await?;
                self.made.push(name.clone());
                Ok(())
            }
            Action::Remove { index } => {
                let link = link(index)?;
                log::info!(target: "network", "{} is made anew, as it was described", link.name);
                self.kernel.remove(link).await
            }
            Action::Join { index, master } => {
                let (link, master) = (link(index)?, link(master)?);
                // A part has no address: what an earlier user of the link left would answer ARP.
                if let Some(Found { lease, .. }) = self.found.get(index) {
                    let gone =
                        self.kernel.remove_address(link, lease.address.into(), lease.prefix).await;
                    gone.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
                }
                self.kernel.join(link, master).await?;
                log::info!(target: "network", "{} is a part of {}", link.name, master.name);
                Ok(())
            }
            Action::SetPrimary { index, port } => {
                self.kernel.set_primary(link(index)?, link(port)?).await
            }
            Action::SetMac { index, mac } => self.kernel.set_mac(link(index)?, *mac).await,
            Action::SetMtu { index, mtu } => self.kernel.set_mtu(link(index)?, *mtu).await,
            Action::SetUp { index } => self.kernel.set_up(link(index)?).await,
        }
    }

    pub(super) async fn link_changed(&mut self, link: Link) {
        let index = link.index;
        let adopted: Vec<u32> = self.found.keys().copied().collect();
        let description = &self.plan.description;
        let takes_part =
            |link: &Link| link::takes_part(description.bootif, link, Path::new("/sys"), &adopted);
        let request = topology::request(description, &link, &self.default, takes_part);
        let Some(request) = request.cloned() else {
            if let Some(mut port) = self.ports.remove(&index) {
                log::debug!(target: "network", "{} takes no part any more", link.name);
                self.give_up_typed_address(&mut port).await;
            }
            return;
        };
        let returns = self.has_come_back(&link);
        let is_named = request.on.is_some() || link.kind != Kind::Port || returns;
        // A link that comes when the choice is made is of use only if somebody asked for it.
        let is_chosen = self.boot.is_some() || self.lost.is_some();
        if is_chosen && !is_named && !self.ports.contains_key(&index) {
            return;
        }
        let mut port = match self.ports.remove(&index) {
            Some(port) => port,
            None => Port::new(link.clone(), request, is_named),
        };
        self.tell_of_change(&port, &link);
        if port.is_in_use()
            && !port.link.has_carrier
            && link.has_carrier
            && let Some(client) = &port.ipv6.client
        {
            // The cable may be in another network; who is not there to hear it begins anew anyway.
            let _ = client.orders.try_send(dhcp6::Order::Moved);
        }
        let has_new_mac = port.link.mac != link.mac;
        let has_found_partner =
            port.link.has_partner == Some(false) && link.has_partner == Some(true);
        port.link = link;
        // Who asked under another address, or before anybody could hear, asks anew and at once.
        if port.since.is_some() && !port.is_in_use() && (has_new_mac || has_found_partner) {
            port.has_lost_its_carrier();
        }
        let mut needs_routes = false;
        if !port.link.is_up {
            self.give_up_typed_address(&mut port).await;
            port.has_lost_its_carrier();
            if port.again_at.is_none() {
                self.set_port_up(&mut port).await;
            }
        } else {
            port.again_at = None;
            match (port.link.has_carrier, port.since) {
                (true, None) => {
                    // The kernel has forgotten them, and whoever gave the lease may be silent.
                    needs_routes = port.is_in_use();
                    self.begin(&mut port).await;
                }
                // What is in use stays as it is: cables are pulled and put back.
                (false, Some(_)) if !port.is_in_use() => {
                    log::debug!(target: "network", "{} has lost its carrier", port.link.name);
                    self.give_up_typed_address(&mut port).await;
                    port.has_lost_its_carrier();
                }
                _ => {}
            }
        }
        self.ports.insert(index, port);
        if needs_routes {
            self.hold(index).await;
        }
    }

    /// Whether it is the link that the machine has booted from and that was gone: a driver that
    /// starts its card anew makes a new link of it.
    fn has_come_back(&mut self, link: &Link) -> bool {
        let Some(lost) = self.lost.take_if(|lost| lost.is(link)) else {
            return false;
        };
        log::info!(target: "network", "{} is back", link.name);
        self.boot = Some((link.index, lost.family));
        if let Some(lease) = lost.lease {
            // Asked for again, by whoever has it already.
            self.known.insert(link.index, lease.address);
        }
        true
    }

    pub(super) fn tell_of_change(&self, port: &Port, now: &Link) {
        let (before, name) = (&port.link, &now.name);
        if before.has_partner == Some(false) && now.has_partner == Some(true) {
            log::info!(target: "network", "{name}: the switch has answered (802.3ad)");
        }
        if !port.is_in_use() {
            return;
        }
        match (before.has_carrier, now.has_carrier) {
            (true, false) => log::warn!(target: "network", "{name} has lost its carrier"),
            (false, true) => log::info!(target: "network", "{name} has carrier again"),
            _ => {}
        }
    }

    /// Another link may be chosen instead, and there must not be two with the address.
    async fn give_up_typed_address(&mut self, port: &mut Port) {
        if self.settling != Some(port.link.index) {
            return;
        }
        self.settling = None;
        port.is_ours = port.is_named;
        for given in port.ipv6.given.take().into_iter().flat_map(|given| given.addresses) {
            let gone =
                self.kernel.remove_address(&port.link, given.address.into(), given.prefix).await;
            gone.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
        }
    }

    /// The kernel tells by another change when it has happened.
    pub(super) async fn set_port_up(&mut self, port: &mut Port) {
        port.again_at = Some(Instant::now() + AGAIN);
        if let Err(error) = self.set_up(&port.link).await
            && !port.has_failed
        {
            port.has_failed = true;
            log::warn!(target: "network", "{error}; it is tried again (firmware missing?)");
        }
    }

    /// By its name of now: what it will be called is known when the kernel has told so.
    async fn set_up(&mut self, link: &Link) -> Result<()> {
        let description = &self.plan.description;
        let request = topology::request(description, link, &self.default, |_| true);
        let method = request.map_or(Ipv6Method::Off, |request| request.ipv6);
        let haste = Haste::begin(Path::new(IPV6), &link.name, method);
        self.hastes.entry(link.index).or_insert(haste);
        self.kernel.set_up(link).await
    }
}
