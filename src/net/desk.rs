//! Where all events of the network meet: links, clients of both families, callers.
//!
//! Before the choice it runs whatever may bring an address; after it, it keeps the links that are in
//! use as they were promised, and lets nothing that was given go until there is something better.

mod again;
mod ask;
mod hear;
mod settle;
mod shape;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::adopt::{self, Found};
use super::apply::{self, Lifetime, Told};
use super::choice::{self, Verdict, Wants};
use super::configured::Configured;
use super::description::AddressRequest;
use super::kernel::{Change, Kernel, Kind, Link, Origin, Shape};
use super::port::{Family, Port};
use super::ra::Haste;
use super::worker::Event;
use super::{Lease, NetworkPlan, link};
use crate::console;
use crate::error::Result;
use crate::machine::modules::unclaimed_network;

/// How often the console may be reminded, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// The kernel's settings for IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// What the kernel refused is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// A change to a link that the kernel was asked for.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    again_at: Instant,
    /// In a row.
    failures: u32,
}

/// The link that the machine has booted from, after it has vanished.
#[derive(Debug)]
struct Lost {
    link: Link,
    family: Family,
    lease: Option<Lease>,
}

impl Lost {
    /// A card is known by its address, whatever it is called now, and what is made by its name.
    fn is(&self, link: &Link) -> bool {
        let mac = |link: &Link| link.permanent_mac.unwrap_or(link.mac);
        link.kind == self.link.kind
            && match link.kind {
                Kind::Port => mac(link) == mac(&self.link),
                _ => link.name == self.link.name,
            }
    }
}

pub struct Desk {
    plan: NetworkPlan,
    wants: Wants,
    kernel: Kernel,
    outbox: mpsc::Sender<Event>,
    /// All that the kernel has told of.
    links: BTreeMap<u32, Link>,
    /// Those that get addresses.
    ports: BTreeMap<u32, Port>,
    began: Instant,
    /// Links that were configured before us.
    found: BTreeMap<u32, Found>,
    /// For links without an `ip=`.
    default: AddressRequest,
    /// What the kernel was asked to do with links.
    attempts: BTreeMap<String, Attempt>,
    /// What the kernel's IPv6 was told to be quicker with, and is told to stop with at the end.
    hastes: BTreeMap<u32, Haste>,
    /// The chosen link.
    boot: Option<(u32, Family)>,
    /// The link that was given the address that was typed for whichever is chosen, while it is not
    /// known whether somebody else has that address.
    settling: Option<u32>,
    /// Names of links that were made here.
    made: Vec<String>,
    /// See [`Lost`].
    lost: Option<Lost>,
    /// Addresses that links had before, to be asked for again.
    known: BTreeMap<u32, Ipv4Addr>,
    lifetime: Lifetime,
    runs: u64,
}

impl Desk {
    pub async fn open(plan: NetworkPlan, outbox: mpsc::Sender<Event>) -> Result<Self> {
        let changes = outbox.clone();
        let kernel = Kernel::connect(move |change| {
            let changes = changes.clone();
            async move { _ = changes.send(Event::Kernel(change)).await }
        })?;
        let found = find(&kernel).await.unwrap_or_else(|error| {
            log::debug!(target: "network", "{error}");
            BTreeMap::new()
        });
        let mut desk = Self {
            wants: Wants::of(&plan),
            plan,
            kernel,
            outbox,
            links: BTreeMap::new(),
            ports: BTreeMap::new(),
            began: Instant::now(),
            found,
            default: AddressRequest::any(),
            attempts: BTreeMap::new(),
            hastes: BTreeMap::new(),
            boot: None,
            settling: None,
            made: Vec::new(),
            lost: None,
            known: BTreeMap::new(),
            lifetime: Lifetime::OfLease,
            runs: 0,
        };
        desk.list().await?;
        Ok(desk)
    }

    /// Looks at all links there are: at first, and when the kernel says that we missed something.
    async fn list(&mut self) -> Result<()> {
        let links = self.kernel.links().await?;
        let is_there = |index: &u32| links.iter().any(|link| link.index == *index);
        let gone: Vec<u32> = self.links.keys().copied().filter(|index| !is_there(index)).collect();
        gone.into_iter().for_each(|index| self.is_gone(index));
        for link in &links {
            if link.shape == Shape::Loopback && !link.is_up {
                self.kernel.set_up(link).await?;
            }
            self.links.insert(link.index, link.clone());
        }
        self.shape().await;
        for link in links {
            self.link_changed(link).await;
        }
        match self.kernel.addresses6().await {
            Ok(all) => {
                self.ports.values_mut().for_each(|port| port.ipv6.addresses.clear());
                all.into_iter().for_each(|known| self.address_changed(known));
                for port in self.ports.values_mut() {
                    port.ipv6.look(port.request.ipv6);
                }
            }
            // A kernel without IPv6.
            Err(error) => log::debug!(target: "network", "{error}"),
        }
        Ok(())
    }

    /// Waits until a link is configured. `None` when the boot has ended meanwhile.
    pub async fn choose(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> Option<Result<Configured>> {
        let waiting = console::waiting("network", self.survey());
        loop {
            let (candidates, standings) = self.standings();
            let verdict = choice::judge(&standings);
            if let Verdict::Take(winner) = verdict
                && let Some((index, family)) = candidates.get(winner).copied()
            {
                match self.take(index, family).await {
                    Ok(true) => {
                        let configured = self.describe();
                        let boot = configured.into_iter().find(|configured| configured.boots);
                        return boot.map(Ok);
                    }
                    Ok(false) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            let patience = match verdict {
                Verdict::WaitFor(rest) => rest.min(TICK),
                Verdict::Take(_) | Verdict::Wait => TICK,
            };
            match timeout(patience, inbox.recv()).await {
                Ok(Some(event)) => match self.happened(event).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                },
                Ok(None) => return None,
                Err(_) => {}
            }
            self.try_again().await;
            waiting.still(self.survey());
        }
    }

    /// Keeps what is configured as it was promised, until told to stop.
    pub async fn keep(&mut self, inbox: &mut mpsc::Receiver<Event>) {
        loop {
            match timeout(TICK, inbox.recv()).await {
                Ok(Some(event)) => match self.happened(event).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => log::warn!(target: "network", "{error}"),
                },
                Ok(None) => return,
                Err(_) => {}
            }
            self.try_again().await;
        }
    }

    /// False when it is time to stop.
    async fn happened(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Kernel(change) => self.kernel_changed(change).await?,
            Event::Client { index, run, report } => self.heard(index, run, report).await,
            Event::Router { index, run, report } => self.heard_router(index, run, report).await,
            Event::Client6 { index, run, report } => self.heard6(index, run, report).await,
            Event::Describe(reply) => _ = reply.try_send(self.describe()),
            Event::Orders(reply) => _ = reply.try_send(self.orders().await),
            Event::MakePermanent(renewers, reply) => {
                let _ = reply.try_send(self.make_permanent(renewers).await);
            }
            Event::Undo => {
                self.undo().await;
                return Ok(false);
            }
            Event::Stop => {
                self.end_hastes();
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn end_hastes(&mut self) {
        for (index, haste) in std::mem::take(&mut self.hastes) {
            if let Some(link) = self.links.get(&index) {
                haste.end(Path::new(IPV6), &link.name);
            }
        }
    }

    /// Takes back what was made of the links, as far as others could be kept from booting by it: links
    /// that were made, and addresses. What was found has its address again.
    pub async fn undo(&mut self) {
        self.end_hastes();
        for port in std::mem::take(&mut self.ports).into_values() {
            // What a client of it does from now on is nobody's business.
            let (link, is_found) = (&port.link, self.found.contains_key(&port.link.index));
            if let Some((lease, _)) = port.ipv4.applied.as_ref().filter(|_| !is_found) {
                let gone =
                    self.kernel.remove_address(link, lease.address.into(), lease.prefix).await;
                gone.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
            }
            for given in port.ipv6.given.iter().flat_map(|given| &given.addresses) {
                let address = given.address.into();
                let gone = self.kernel.remove_address(link, address, given.prefix).await;
                gone.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
            }
            if !port.was_up
                && let Err(error) = self.kernel.set_down(link).await
            {
                log::debug!(target: "network", "{error}");
            }
        }
        // What is on top was made last.
        for name in std::mem::take(&mut self.made).into_iter().rev() {
            let Some(link) = self.links.values().find(|link| link.name == name) else { continue };
            let gone = self.kernel.remove(link).await;
            gone.unwrap_or_else(|error| log::warn!(target: "network", "{error}"));
        }
        for (index, Found { lease, .. }) in &self.found {
            let Some(link) = self.links.get(index) else { continue };
            let told = Told { lease, boots: true };
            let outcome = match self.kernel.set_up(link).await {
                Ok(()) => {
                    apply::ipv4(&self.kernel, link, None, told, Origin::Dhcp, Lifetime::OfLease)
                        .await
                }
                error => error,
            };
            outcome.unwrap_or_else(|error| log::warn!(target: "network", "{error}"));
        }
    }

    /// A link is not there any more.
    fn is_gone(&mut self, index: u32) {
        self.links.remove(&index);
        self.hastes.remove(&index);
        self.found.remove(&index);
        self.known.remove(&index);
        self.settling.take_if(|settling| *settling == index);
        let Some(port) = self.ports.remove(&index) else { return };
        if port.is_ours {
            log::warn!(target: "network", "{} is gone", port.link.name);
        }
        if let Some((_, family)) = self.boot.take_if(|(boot, _)| *boot == index) {
            let lease = port.ipv4.applied.map(|(lease, _)| lease);
            self.lost = Some(Lost { link: port.link, family, lease });
        }
    }

    fn survey(&self) -> String {
        let ports: Vec<_> = self
            .ports
            .values()
            .map(|port| (port.link.name.as_str(), port.progress(self.wants)))
            .collect();
        let others: Vec<_> =
            self.links.values().filter(|link| !self.ports.contains_key(&link.index)).collect();
        let driverless =
            if ports.is_empty() { unclaimed_network(Path::new("/sys")) } else { Vec::new() };
        link::survey(&self.plan.description, &ports, &others, &driverless, self.wants)
    }

    async fn kernel_changed(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Link(link) => {
                self.links.insert(link.index, link.clone());
                self.shape().await;
                self.link_changed(link).await;
            }
            Change::Gone(index) => self.is_gone(index),
            Change::Address(known) => self.address_changed(known),
            Change::AddressGone(index, address) => {
                if let Some(port) = self.ports.get_mut(&index) {
                    port.ipv6.addresses.remove(&address);
                    port.ipv6.look(port.request.ipv6);
                }
            }
            Change::Missed => self.list().await?,
        }
        Ok(())
    }
}

/// Links that somebody has configured before us.
async fn find(kernel: &Kernel) -> Result<BTreeMap<u32, Found>> {
    let (links, addresses) = (kernel.links().await?, kernel.addresses().await?);
    let routes = kernel.routes().await?;
    let found = adopt::found(&links, &addresses, &routes, Path::new("/run"));
    for link in &links {
        if let Some(Found { lease: Lease { address, prefix, .. }, .. }) = found.get(&link.index) {
            log::info!(target: "network", "{} has {address}/{prefix} already", link.name);
        }
    }
    Ok(found)
}
